"""Our own files: written whole or not at all, and by nobody else."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import shlex
import stat
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from vagrantp.core.errors import StateError


def refuse_open(folder: Path) -> None:
    """Raise StateError when anybody else owns one of our folders or can write to it."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return
    quoted = shlex.quote(str(folder))
    if found.st_uid != os.getuid():
        try:
            owner = pwd.getpwuid(found.st_uid).pw_name
        except KeyError:
            owner = f"uid {found.st_uid}"
        me = os.getuid()
        hint = f"call it as {owner}, or: sudo chown --recursive {me} {quoted}"
        raise StateError(f"{folder} holds keys, and belongs to {owner}", hint)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(f"{folder} holds keys, and others may write it", f"chmod 700 {quoted}")


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


APPEND_TIMEOUT = 1.0  # seconds; another writer holds a file for less than a thousandth of that


def write_whole(path: Path, content: str | bytes, mode: int) -> None:
    """Write a file whole or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(temporary, "wb", opener=lambda p, f: os.open(p, f, mode)) as file:
            file.write(data)
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # a failing write(2) does not name it
        raise
    finally:
        with suppress(OSError):  # then that is the error
            temporary.unlink()


def append_line(path: Path, line: str, at_most: int) -> None:
    """Append a line, whole and on a line of its own whatever a killed writer left behind.

    A file that has grown to `at_most` bytes is renamed to `<name>.1` first, over an older one.
    Raises OSError; TimeoutError when another process holds the file all the time.
    """
    try:
        refuse_open(path.parent)
    except StateError as error:
        raise PermissionError(errno.EPERM, error.message, str(path)) from None
    deadline = monotonic() + APPEND_TIMEOUT
    while monotonic() < deadline:
        with open(path, "ab+", 0, opener=lambda p, f: os.open(p, f, 0o600)) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sleep(0.002)
                continue
            if not _is_open_at(file.fileno(), path):  # renamed by another writer just now
                continue
            size = file.seek(0, os.SEEK_END)
            if size >= at_most:
                path.replace(path.with_name(f"{path.name}.1"))
                continue
            is_torn = size and os.pread(file.fileno(), 1, size - 1) != b"\n"
            data = (b"\n" if is_torn else b"") + line.encode() + b"\n"
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return
    raise TimeoutError(errno.ETIMEDOUT, "held by another process", str(path))


def adopt(folder: Path) -> None:
    """Make a folder that others filled ours, with nothing but files, folders and links in it.

    All may read, only we may write; files keep the right to be run, and no other bit. Links that
    lead out of the folder are removed, and what is no file.
    """
    waiting, links = [folder], []
    while waiting:
        place = waiting.pop()
        os.chown(place, os.getuid(), os.getgid())
        place.chmod(0o755)
        for path in place.iterdir():
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                waiting.append(path)
            elif stat.S_ISREG(mode):
                os.chown(path, os.getuid(), os.getgid())
                path.chmod(0o755 if mode & stat.S_IXUSR else 0o644)
            elif stat.S_ISLNK(mode):
                links.append(path)
            else:
                path.unlink()
    inside = folder.resolve()
    for path in [path for path in links if not _leads_into(path, inside)]:
        path.unlink()
    for path in filter(Path.is_symlink, links):
        os.chown(path, os.getuid(), os.getgid(), follow_symlinks=False)


def _leads_into(path: Path, folder: Path) -> bool:
    """Say whether a link does, wherever the folder is moved to."""
    try:
        return not path.readlink().is_absolute() and path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a loop
        return False
