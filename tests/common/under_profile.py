"""Runs a command under the system calls of a container's seccomp profile, as a runtime would on this architecture.

    python3 under_profile.py PROFILE COMMAND ARGUMENT...

Numbers of system calls come from the headers of the C compiler. Conditions on arguments are left out: a call that is
allowed under a condition is allowed. What the profile answers with an error number gets that number.
"""

import ctypes
import json
import os
import re
import struct
import subprocess
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K
ALLOW = 0x7FFF0000
ERRNO = 0x00050000


def numbers():
    command = ["cc", "-dM", "-E", "-include", "asm/unistd.h", "-x", "c", "/dev/null"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name: int(number) for name, number in re.findall(r"^#define __NR_(\w+) (\d+)$", text, re.M)}


def instruction(code, jump_true, jump_false, value):
    return struct.pack("=HBBI", code, jump_true, jump_false, value)


def program(profile):
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    known = numbers()
    instructions = [instruction(LOAD_WORD, 0, 0, 0)]  # struct seccomp_data: the number of the system call
    for entry in profile["syscalls"]:
        answers = {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO | entry.get("errnoRet", 1)}
        for name in entry["names"]:
            if name in known:
                instructions.append(instruction(JUMP_IF_EQUAL, 0, 1, known[name]))
                instructions.append(instruction(RETURN, 0, 0, answers[entry["action"]]))
    instructions.append(instruction(RETURN, 0, 0, ERRNO | profile["defaultErrnoRet"]))
    return b"".join(instructions)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        text = program(json.load(file))
    kept = ctypes.create_string_buffer(text, len(text))
    filter_program = struct.pack("HxxxxxxP", len(text) // 8, ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")
    os.execvp(sys.argv[2], sys.argv[2:])


main()
