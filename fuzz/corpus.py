#!/usr/bin/env python3
"""Inputs as files and as lines of a corpus: `unpack CORPUS FOLDER`, `add FOLDER CORPUS`, `show FILE...`.

A line is an input, escaped as in Rust's byte strings. Lines that begin with # are comments."""

import codecs
import pathlib
import sys

SHORT = {9: b"\\t", 10: b"\\n", 13: b"\\r", 92: b"\\\\"}


def escaped(data):
    line = b"".join(
        SHORT.get(byte) or (bytes([byte]) if 32 <= byte < 127 else b"\\x%02x" % byte)
        for byte in data
    )
    return b"\\x23" + line[1:] if line.startswith(b"#") else line


def lines(corpus):
    return [line for line in corpus.read_bytes().split(b"\n") if line and not line.startswith(b"#")]


def unpack(corpus, folder):
    for number, line in enumerate(lines(corpus)):
        (folder / f"corpus-{number:04}").write_bytes(codecs.escape_decode(line)[0])


def add(folder, corpus):
    known = {codecs.escape_decode(line)[0] for line in lines(corpus)}
    found = {path.read_bytes() for path in folder.iterdir()} - known - {b""}
    with corpus.open("ab") as file:
        for data in sorted(found, key=lambda data: (len(data), data)):
            file.write(escaped(data) + b"\n")


def show(*files):
    for path in files:
        print(f"{path} as a line of the corpus:\n{escaped(path.read_bytes()).decode()}", file=sys.stderr)


command, *paths = sys.argv[1:]
{"unpack": unpack, "add": add, "show": show}[command](*map(pathlib.Path, paths))
