"""What each try in Python can use. TRY: its name, by which `canary` leaves a trace on the host."""

import ctypes
import hashlib
import mmap  # noqa: F401
import os
import struct
import subprocess
import threading  # noqa: F401
import time  # noqa: F401
from contextlib import suppress  # noqa: F401
from pathlib import Path

TRY, HOST = os.environ["TRY"], os.environ["HOST_PROJECT"]
HOOK = f"#!/bin/sh\ncanary {TRY}\n".encode()
EVIL = f"[core]\n\trepositoryformatversion = 0\n\tfsmonitor = canary {TRY}\n".encode()
LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, EXCHANGE, WHITEOUT = -100, 2, 4
os.chdir(os.environ["PROJECT"])


def git(*arguments: str, stdin: str = "") -> str:
    """Return what git prints."""
    done = subprocess.run(("git", *arguments), input=stdin, capture_output=True, text=True)
    return done.stdout.strip()


def program(path: str) -> None:
    """Make a program at a path."""
    Path(path).write_bytes(HOOK)
    Path(path).chmod(0o755)


def rename(old: str, new: str, flags: int) -> int:
    """Call renameat2(2)."""
    return int(LIBC.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags))


def write_index(path: str, blobs: dict[str, str]) -> None:
    """Write an index in which these files are executable. gitformat-index(5), version 2."""
    data = b"DIRC" + struct.pack(">II", 2, len(blobs))
    for name, blob in sorted(blobs.items()):
        entry = struct.pack(">10I", 0, 0, 0, 0, 0, 0, 0o100755, 0, 0, 0) + bytes.fromhex(blob)
        entry += struct.pack(">H", len(name)) + name.encode()
        data += entry + bytes(8 - len(entry) % 8)
    Path(path).write_bytes(data + hashlib.sha1(data).digest())
