"""Runs a command under the system calls of a container's seccomp profile, as a runtime would on this architecture.

    python3 under_profile.py PROFILE COMMAND ARGUMENT...

Numbers of system calls come from the headers of the C compiler. Conditions on arguments are left out: a call that is
allowed under a condition is allowed. What the profile answers with an error number gets that number.
"""

import json
import re
import subprocess
import sys

import seccomp


def numbers():
    command = ["cc", "-dM", "-E", "-include", "asm/unistd.h", "-x", "c", "/dev/null"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name: int(number) for name, number in re.findall(r"^#define __NR_(\w+) (\d+)$", text, re.M)}


def program(profile):
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    known = numbers()
    instructions = seccomp.load_number()
    for entry in profile["syscalls"]:
        answers = {"SCMP_ACT_ALLOW": seccomp.ALLOW, "SCMP_ACT_ERRNO": seccomp.errno(entry.get("errnoRet", 1))}
        for name in entry["names"]:
            if name in known:
                instructions += seccomp.answer_to(known[name], answers[entry["action"]])
    return instructions + seccomp.answer(seccomp.errno(profile["defaultErrnoRet"]))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        instructions = program(json.load(file))
    seccomp.run(instructions, sys.argv[2:])


main()
