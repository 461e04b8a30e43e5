"""Runs a command under a seccomp filter, which everything that the command starts inherits.

A filter is a list of instructions: `load_number` first, then `answer_to` for calls by number, at last `answer`.
"""

import ctypes
import os
import struct

ALLOW = 0x7FFF0000

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K


def errno(number):
    """The answer with this error number instead of the call."""
    return 0x00050000 | number


def load_number():
    """Looks at the number of the system call, the first word of struct seccomp_data."""
    return [instruction(LOAD_WORD, 0, 0, 0)]


def answer_to(number, answered):
    """Answers the system call with this number; any other goes on."""
    return [instruction(JUMP_IF_EQUAL, 0, 1, number), *answer(answered)]


def answer(answered):
    """Answers what comes here."""
    return [instruction(RETURN, 0, 0, answered)]


def instruction(code, jump_true, jump_false, value):
    return struct.pack("=HBBI", code, jump_true, jump_false, value)


def run(instructions, command):
    """Becomes the command, under the filter."""
    program = b"".join(instructions)
    kept = ctypes.create_string_buffer(program, len(program))
    filter_program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")
    os.execvp(command[0], command)
