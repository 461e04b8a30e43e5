"""Runs a command under a seccomp filter that answers io_uring's three system calls with EPERM, as Docker's default
profile does. The filter is inherited by everything the command starts.

    python3 forbid_io_uring.py COMMAND ARGUMENT...
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K
ALLOW = 0x7FFF0000
ANSWER_EPERM = 0x00050000 | 1
# The same numbers on x86-64 and on arm64.
IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER = 425, 426, 427


def instruction(code, jump_true, jump_false, value):
    return struct.pack("=HBBI", code, jump_true, jump_false, value)


def main():
    program = b"".join(
        [
            instruction(LOAD_WORD, 0, 0, 0),  # struct seccomp_data: the number of the system call
            instruction(JUMP_IF_EQUAL, 3, 0, IO_URING_SETUP),
            instruction(JUMP_IF_EQUAL, 2, 0, IO_URING_ENTER),
            instruction(JUMP_IF_EQUAL, 1, 0, IO_URING_REGISTER),
            instruction(RETURN, 0, 0, ALLOW),
            instruction(RETURN, 0, 0, ANSWER_EPERM),
        ]
    )
    kept = ctypes.create_string_buffer(program, len(program))
    filter_program = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")
    os.execvp(sys.argv[1], sys.argv[1:])


main()
