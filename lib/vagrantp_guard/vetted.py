"""Files whose content decides what git obeys: written here, if they may become that."""

from __future__ import annotations

import os
import stat
from errno import EFBIG, EISDIR, EPERM
from itertools import cycle
from typing import NamedTuple

from vagrantp_guard.folder import CONTENT_MAX, SAFELY, Folder, Place, refuse
from vagrantp_guard.git_state import IN_PLACE
from vagrantp_guard.notify import Call, Fd, read_memory
from vagrantp_guard.protected import Parts

REMEMBERED = 100_000  # at most


class Opened(NamedTuple):
    """What bindfs has open, to be read; `mode`: of the file, should it be made."""

    path: bytes
    parts: Parts
    mode: int


class Vetted:
    """Answers calls of bindfs for files that it must not write itself."""

    def __init__(self, folder: Folder, numbers: range) -> None:
        """`numbers`: the descriptors that such files get in bindfs, in turn."""
        self.folder = folder
        self.numbers = cycle(numbers)
        self.opened: dict[int, Opened] = {}
        self.emptied: set[Parts] = set()  # to be written from the start

    def open(self, place: Place, path: bytes, flags: int, mode: int) -> Fd:
        """Open a file to be read. Where there is none, it is made once it has a content."""
        if flags & os.O_EXCL:
            place.refuse_existing()
        try:
            found = os.open(place.name, os.O_RDONLY | SAFELY, dir_fd=place.folder)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            found = os.memfd_create("")
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            refuse(EISDIR)
        if flags & os.O_TRUNC:
            self.empty(place.parts, 0)
        answer = Fd(found)
        answer.at = next(self.numbers)
        self.opened[answer.at] = Opened(path, place.parts, mode & 0o755)
        return answer

    def truncate(self, number: int, size: int) -> int:
        """Empty an open file."""
        opened = self.opened.get(number) or refuse()
        return self.empty(opened.parts, size)

    def empty(self, parts: Parts, size: int) -> int:
        """Empty a file with the first that is written to it: not sooner, git may obey it."""
        if size or len(self.emptied) >= REMEMBERED:
            refuse()
        self.emptied.add(parts)
        return 0

    def write(self, call: Call, number: int, start: int, size: int, offset: int) -> int:
        """Write to an open file. Raises OSError where its content must not become that."""
        opened = self.opened.get(number) or refuse()
        if size > CONTENT_MAX or offset > CONTENT_MAX:
            refuse(EFBIG)
        added = read_memory(call.pid, start, size)
        with self.folder.place(opened.path) as place:
            try:
                old, facts = place.content()
            except FileNotFoundError:
                old, facts = b"", None
            if facts and facts.st_nlink > 1:
                refuse(EPERM)
            if opened.parts in self.emptied:
                old = b""
            new = old[:offset].ljust(offset, b"\0") + added + old[offset + size :]
            if len(added) != size or IN_PLACE[place.rule](old, new, place.parts):
                refuse()
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | SAFELY
            file = os.open(place.name, flags, opened.mode, dir_fd=place.folder)
            with os.fdopen(file, "wb") as made:
                made.write(new)
        self.emptied.discard(opened.parts)
        return size
