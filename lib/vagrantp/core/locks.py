"""Locks on files, which end with the process, however that ends."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from vagrantp.core.errors import UnansweredError


def holder_of(path: Path) -> int | None:
    """Return the process id in a lock file of forward.py, None when nobody holds it."""
    try:
        with path.open("rb") as file:
            lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, lock)
            is_held = struct.unpack("hhqqi4x", found)[0] != fcntl.F_UNLCK
            return int(file.read()) if is_held else None
    except (FileNotFoundError, ValueError):
        return None


FLOCK_TIMEOUT = 30.0  # seconds; Vagrant holds its index for less than one


@contextmanager
def byte(file_of_locks: Path, key: str, wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock named `key`. `wait` is called where another process holds it.

    One byte of one file stands for each key, so nothing is left to clean up. They are open file
    description locks (fcntl(2)): a process loses all its plain record locks on a file when it
    closes any of its descriptors of that file.
    """
    with file_of_locks.open("a") as file:
        at = int(hashlib.sha256(key.encode()).hexdigest()[:15], 16)
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        except (BlockingIOError, PermissionError):
            wait()
            fcntl.fcntl(file, fcntl.F_OFD_SETLKW, lock)
        yield


@contextmanager
def flock(path: Path) -> Iterator[None]:
    """Hold a lock that another program, too, takes for a moment by flock(2).

    Raises UnansweredError when that one does not release it.
    """
    deadline = monotonic() + FLOCK_TIMEOUT
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() > deadline:
                    text = f"{path} was held for {FLOCK_TIMEOUT:.0f} seconds"
                    hint = f"'fuser --verbose {shlex.quote(str(path))}' shows by what"
                    raise UnansweredError(text, hint) from None
                sleep(0.02)
        yield
