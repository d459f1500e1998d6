"""What a guest changes in a project folder: the calls of bindfs(1), made or refused.

Each is made at the parent folder that openat2(2) finds without following a symbolic link, so what
is checked is what is changed, whatever others do in the folder meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from errno import EBUSY, EINVAL, ENAMETOOLONG, EPERM, EXDEV

from vagrantp_guard.folder import SAFELY, Folder, Place, refuse
from vagrantp_guard.git_config import object_format
from vagrantp_guard.git_state import IN_PLACE, REPLACED, index_problem
from vagrantp_guard.notify import (
    Call,
    Continue,
    Fd,
    lstat_bytes,
    read_long,
    read_short,
    write_memory,
)
from vagrantp_guard.protected import ANYTHING, Parts, Rule
from vagrantp_guard.seccomp import READS, WRITES
from vagrantp_guard.vetted import REMEMBERED, Vetted

AT_FDCWD = 0xFFFFFF9C
NO_REPLACE, REMOVE_FOLDER = 1, 0x200
MAY_BE_FOLDER = {*ANYTHING, Rule.FOLDER, Rule.GITFILE}
REMOVABLE = {*ANYTHING, Rule.COMMONDIR, Rule.INDEX, Rule.TODO, Rule.STRATEGY, Rule.EMPTY}
VETTED = {*REPLACED, Rule.INDEX}
MAY_CHANGE_MODE = {*MAY_BE_FOLDER, *VETTED}


class Changes:
    """Answers the calls that bindfs makes in a project folder."""

    def __init__(self, folder: Folder, vetted: range) -> None:
        """`vetted`: numbers of descriptors, in bindfs, of files that it must not write itself."""
        self.folder = folder
        self.vetted = Vetted(folder, vetted)
        self.linked: set[int] = set()  # files all of whose names this guest made
        self.made: set[Parts] = set()  # configurations of repositories that this guest began

    def answer(self, call: Call, name: str) -> int:
        """Do what a call asks for; return what it returns. Raises OSError, Continue."""
        if name == "ftruncate":
            return self.vetted.truncate(*call.arguments[:2])
        if name == "pwrite64":
            return self.vetted.write(call, *call.arguments[:4])
        do, places, rest, is_at = ANSWERS[name]
        arguments = call.arguments
        paths = []
        for at in places:
            if is_at and arguments[at - 1] & 0xFFFFFFFF != AT_FDCWD:
                if name in READS or (name == "openat" and not arguments[2] & WRITES):
                    raise Continue  # of what is open
                refuse()
            paths.append(_text(call, arguments[at]))
        if paths[0].startswith(b"/") or (paths[0] in (b"", b".") and do is not Changes.chmod):
            raise Continue  # not what a guest asks for: bindfs as it starts; the folder itself
        return do(self, call, *paths, *[arguments[at] for at in rest])

    def open(self, call: Call, path: bytes, flags: int, mode: int) -> int:
        """Open a file; what the policy vets opens to be read, and is written by the supervisor."""
        with self.folder.place(path) as place:
            if not flags & WRITES:
                return Fd(os.open(place.name, flags | SAFELY, dir_fd=place.folder))
            if place.rule in IN_PLACE:
                return self.vetted.open(place, path, flags, mode)
            if place.rule not in ANYTHING:
                refuse()
            flags |= SAFELY
            found = os.open(place.name, flags & ~os.O_TRUNC, mode & 0o777, dir_fd=place.folder)
            try:
                self._may_be_written(os.fstat(found))
                if flags & os.O_TRUNC:
                    os.ftruncate(found, 0)
            except OSError:
                os.close(found)
                raise
            return Fd(found)

    def _may_be_written(self, facts: os.stat_result) -> None:
        """Refuse a file that has another name: it may be a closed one, or outside of the folder.

        pnpm and uv link what is in a project to what all projects of a person share.
        """
        if self.folder.policy and facts.st_nlink > 1 and facts.st_ino not in self.linked:
            refuse(EPERM)

    def mkdir(self, _: Call, path: bytes, mode: int) -> int:
        """Make a folder."""
        with self.folder.place(path) as place:
            if place.rule not in MAY_BE_FOLDER:
                refuse()
            os.mkdir(place.name, mode & 0o777, dir_fd=place.folder)
        return 0

    def mknod(self, _: Call, path: bytes, mode: int, __: int) -> int:
        """Make a FIFO, a socket or an empty file."""
        with self.folder.place(path) as place:
            if place.rule is not Rule.FREE and not (place.rule in ANYTHING and stat.S_ISREG(mode)):
                refuse()
            if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)):
                refuse(EPERM)
            os.mknod(place.name, stat.S_IFMT(mode) | mode & 0o777, dir_fd=place.folder)
        return 0

    def symlink(self, call: Call, path: bytes, target: int) -> int:
        """Make a symbolic link."""
        with self.folder.place(path) as place:
            if place.rule is not Rule.FREE:
                refuse()
            os.symlink(_text(call, target), place.name, dir_fd=place.folder)
        return 0

    def link(self, _: Call, old: bytes, new: bytes) -> int:
        """Give a file a second name."""
        with self.folder.place(old) as this, self.folder.place(new) as that:
            facts = _movable(this, that)
            if facts.st_nlink == 1 and len(self.linked) < REMEMBERED:
                self.linked.add(facts.st_ino)
            os.link(
                this.name,
                that.name,
                src_dir_fd=this.folder,
                dst_dir_fd=that.folder,
                follow_symlinks=False,
            )
        return 0

    def unlink(self, call: Call, path: bytes, flags: int = 0) -> int:
        """Remove a file."""
        if flags & REMOVE_FOLDER:
            return self.rmdir(call, path)
        with self.folder.place(path) as place:
            if self.folder.holds_hidden(place.parts):
                refuse(EBUSY)
            removable = place.rule in REMOVABLE
            removable |= place.rule is Rule.GITFILE and len(place.parts) > 1
            if not removable and place.parts not in self.made:
                refuse()
            os.unlink(place.name, dir_fd=place.folder)
            self.made.discard(place.parts)
        return 0

    def rmdir(self, _: Call, path: bytes) -> int:
        """Remove an empty folder."""
        with self.folder.place(path) as place:
            if self.folder.holds_hidden(place.parts):
                refuse(EBUSY)
            if place.rule not in MAY_BE_FOLDER:
                refuse()
            os.rmdir(place.name, dir_fd=place.folder)
        return 0

    def rename(self, _: Call, old: bytes, new: bytes, flags: int = 0) -> int:
        """Rename a file or folder; over a repository's configuration, what it may become."""
        if flags & ~NO_REPLACE:
            refuse(EINVAL)
        with self.folder.place(old) as this, self.folder.place(new) as that:
            if self.folder.holds_hidden(this.parts) or self.folder.holds_hidden(that.parts):
                refuse(EBUSY)
            if flags & NO_REPLACE:
                that.refuse_existing()
            if this.rule in ANYTHING and that.rule in VETTED:
                return self._replace(this, that)
            facts = _movable(this, that)
            if stat.S_ISDIR(facts.st_mode) and not self.folder.means_the_same(this, that):
                refuse(EXDEV)  # whoever renames it copies it then
            os.rename(this.name, that.name, src_dir_fd=this.folder, dst_dir_fd=that.folder)
        return 0

    def _replace(self, this: Place, that: Place) -> int:
        """Replace a file that git obeys by another, if it may become that.

        The bytes that were looked at become a new file: a guest may have the other one open.
        """
        new, facts = this.content()
        try:
            old, _ = that.content()
        except FileNotFoundError:
            old = None
        if that.rule is Rule.INDEX:
            problem = index_problem(new, object_format(self.folder.config_of(that.parts)))
        else:
            problem = REPLACED[that.rule](old, new, that.parts)
        if problem:
            refuse()
        this.make_again(new, facts.st_mode & 0o755)
        os.rename(this.name, that.name, src_dir_fd=this.folder, dst_dir_fd=that.folder)
        if old is None:
            self.made.add(that.parts)
        return 0

    def chmod(self, _: Call, path: bytes, mode: int, __: int = 0) -> int:
        """Change the permissions of a file or folder; no other user of this host may write more."""
        if path == b".":
            _let_no_other_write(os.fstat(self.folder.root), mode)
            raise Continue
        with self.folder.place(path) as place:
            if place.rule not in MAY_CHANGE_MODE:
                refuse()
            facts = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
            if stat.S_ISLNK(facts.st_mode):
                refuse(EINVAL)
            if place.rule not in ANYTHING:
                _let_no_other_write(facts, mode)
            os.chmod(place.name, stat.S_IMODE(mode), dir_fd=place.folder)
        return 0

    def truncate(self, _: Call, path: bytes, size: int) -> int:
        """Change the length of a file."""
        with self.folder.place(path) as place:
            if place.rule in IN_PLACE:
                return self.vetted.empty(place.parts, size)  # FUSE does so after open(2)
            if place.rule not in ANYTHING:
                refuse()
            file = os.open(place.name, os.O_WRONLY | SAFELY, dir_fd=place.folder)
            try:
                self._may_be_written(os.fstat(file))
                os.ftruncate(file, size)
            finally:
                os.close(file)
        return 0

    def stat(self, call: Call, path: bytes, buffer: int, _: int = 0) -> int:
        """Look at a file; asked only where a path is hidden."""
        with self.folder.place(path) as place:
            write_memory(call.pid, buffer, lstat_bytes(place.folder, place.name))
        return 0

    def readlink(self, call: Call, path: bytes, buffer: int, size: int) -> int:
        """Read a symbolic link; asked only where a path is hidden."""
        with self.folder.place(path) as place:
            target = os.readlink(place.name, dir_fd=place.folder)[:size]
            write_memory(call.pid, buffer, target)
        return len(target)


Do = Callable[..., int]
# By name: what answers it, its paths, its other arguments that count, and whether each path comes
# after the descriptor of a folder.
ANSWERS: dict[str, tuple[Do, tuple[int, ...], tuple[int, ...], bool]] = {
    "open": (Changes.open, (0,), (1, 2), False),
    "openat": (Changes.open, (1,), (2, 3), True),
    "mkdir": (Changes.mkdir, (0,), (1,), False),
    "mkdirat": (Changes.mkdir, (1,), (2,), True),
    "mknod": (Changes.mknod, (0,), (1, 2), False),
    "mknodat": (Changes.mknod, (1,), (2, 3), True),
    "symlink": (Changes.symlink, (1,), (0,), False),
    "symlinkat": (Changes.symlink, (2,), (0,), True),
    "link": (Changes.link, (0, 1), (), False),
    "linkat": (Changes.link, (1, 3), (), True),
    "unlink": (Changes.unlink, (0,), (), False),
    "unlinkat": (Changes.unlink, (1,), (2,), True),
    "rmdir": (Changes.rmdir, (0,), (), False),
    "rename": (Changes.rename, (0, 1), (), False),
    "renameat": (Changes.rename, (1, 3), (), True),
    "renameat2": (Changes.rename, (1, 3), (4,), True),
    "chmod": (Changes.chmod, (0,), (1,), False),
    "fchmodat": (Changes.chmod, (1,), (2,), True),
    "fchmodat2": (Changes.chmod, (1,), (2, 3), True),
    "truncate": (Changes.truncate, (0,), (1,), False),
    "stat": (Changes.stat, (0,), (1,), False),
    "lstat": (Changes.stat, (0,), (1,), False),
    "newfstatat": (Changes.stat, (1,), (2, 3), True),
    "readlink": (Changes.readlink, (0,), (1, 2), False),
    "readlinkat": (Changes.readlink, (1,), (2, 3), True),
}


def _let_no_other_write(facts: os.stat_result, mode: int) -> None:
    if mode & ~facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        refuse()


def _movable(this: Place, that: Place) -> os.stat_result:
    """Return the facts of a file or folder that may get another name. Raises OSError."""
    facts = os.stat(this.name, dir_fd=this.folder, follow_symlinks=False)
    is_link = that.rule is Rule.NO_LINK and stat.S_ISLNK(facts.st_mode)
    if is_link or not {this.rule, that.rule} <= ANYTHING:
        refuse()
    return facts


def _text(call: Call, start: int) -> bytes:
    """Return the text at an address of whoever calls. Raises OSError."""
    for read in (read_short, read_long):  # nearly all are short
        found, end, _ = read(call.pid, start).partition(b"\0")
        if end:
            return found
    refuse(ENAMETOOLONG)
