"""Runs a command under a seccomp filter that answers io_uring's three system calls with EPERM, as Docker's default
profile does.

    python3 forbid_io_uring.py COMMAND ARGUMENT...
"""

import errno
import sys

import seccomp

# io_uring_setup, io_uring_enter and io_uring_register: the same numbers on x86-64 and on arm64.
FORBIDDEN = [425, 426, 427]


def main():
    instructions = seccomp.load_number()
    for number in FORBIDDEN:
        instructions += seccomp.answer_to(number, seccomp.errno(errno.EPERM))
    seccomp.run(instructions + seccomp.answer(seccomp.ALLOW), sys.argv[1:])


main()
