"""Our own files: written whole or not at all, and by nobody else."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
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


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it. Raises OSError."""
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        # what a sandbox has written may be closed to its owner, or nested ten thousand deep
        for tool in (("chmod", "-R", "u+rwX"), ("rm", "-rf")):
            done = subprocess.run([*tool, "--", folder], check=False, stderr=subprocess.DEVNULL)
        if done.returncode:
            raise


MOST_DEPTH = 64  # of the folders of a sandbox that are kept
MOST_LENGTH = 2048  # bytes of the path of such a folder; the kernel takes twice that
MOST_FILES = 100_000  # that are adopted


def adopt(source: Path, target: Path) -> bool:
    """Merge a folder that a sandbox has written into `target`; say whether it had any file.

    Only regular files and their folders, within bounds, without setuid, and as this user's own.
    """
    files = (path for path, mode in _walk(source, 0o700) if stat.S_ISREG(mode))
    place = None
    for path in islice(files, MOST_FILES):
        place = target / path.relative_to(source)
        for folder in reversed([*place.relative_to(target.parent).parents][:-1]):
            _clear_for(target.parent / folder, is_folder=True)
            (target.parent / folder).mkdir(mode=0o700, exist_ok=True)
        _clear_for(place, is_folder=False)
        path.replace(place)
        os.chown(place, os.getuid(), os.getgid(), follow_symlinks=False)
        place.chmod(place.stat().st_mode & 0o700 | 0o600)
    return place is not None


def _walk(folder: Path, mode: int) -> Iterator[tuple[Path, int]]:
    """Yield all that is in a folder, at any depth, with its mode.

    A folder becomes ours, with `mode`, and is not yielded; one that is nested too deep is.
    """
    waiting = [(folder, 0)]
    while waiting:
        place, depth = waiting.pop()
        os.chown(place, os.getuid(), os.getgid())
        place.chmod(mode)
        with os.scandir(place) as entries:
            for entry in entries:
                path, found = Path(entry.path), entry.stat(follow_symlinks=False).st_mode
                is_deep = depth == MOST_DEPTH or len(os.fsencode(path)) > MOST_LENGTH
                if stat.S_ISDIR(found) and not is_deep:
                    waiting.append((path, depth + 1))
                else:
                    yield path, found


def _clear_for(path: Path, is_folder: bool) -> None:
    """Remove what is in the way of a folder, or of a file."""
    if path.is_dir() and not is_folder:
        shutil.rmtree(path)
    elif is_folder and path.is_file():
        path.unlink()


def make_plain(folder: Path) -> None:
    """Make what a sandbox has written into a folder ours, and nothing but files, folders and links.

    All may read, only we may write; files keep the right to be run, and no other bit. Links that
    lead out of the folder are removed, and what is nested too deep.
    """
    links = []
    for path, mode in _walk(folder, 0o755):
        if stat.S_ISDIR(mode):
            remove_tree(path)
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
        with suppress(FileNotFoundError):
            path.stat()  # a loop is an error, which resolve() does not raise since Python 3.13
        return not path.readlink().is_absolute() and path.resolve().is_relative_to(folder)
    except OSError:
        return False
