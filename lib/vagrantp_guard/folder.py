"""A project folder as a guest sees it: where a path leads, and what is hidden."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from errno import EACCES, EEXIST
from pathlib import Path
from typing import NamedTuple, NoReturn

from vagrantp_guard.notify import open_folder
from vagrantp_guard.protected import (
    Parts,
    Policy,
    Rule,
    configured_names,
    fold,
    tracked_names,
)
from vagrantp_guard.released import released

HIDDEN = Path("/hidden")  # where the sandbox has what stands in for hidden paths
NAMES_MAX = 20_000
SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK  # how a file is opened: a FIFO would hold up all
CONTENT_MAX = 32 * 2**20  # bytes of a file that is looked at
ENCODING = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # as of os.fsdecode
NO_NAMES = {"", ".", ".."}


def refuse(errno: int = EACCES) -> NoReturn:
    """Let the call fail."""
    raise OSError(errno, os.strerror(errno))


class Place(NamedTuple):
    """A name in an open folder. `parts`: from the project's root. `closes`: the folder, at exit."""

    folder: int
    name: bytes
    parts: Parts
    rule: Rule
    closes: bool

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        if self.closes:
            os.close(self.folder)

    def refuse_existing(self) -> None:
        """Raise OSError if there is a file of this name."""
        try:
            os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        refuse(EEXIST)

    def content(self) -> tuple[bytes, os.stat_result]:
        """Return what is in the file, and its facts. Raises OSError."""
        with os.fdopen(os.open(self.name, SAFELY, dir_fd=self.folder), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > CONTENT_MAX:
                refuse()
            return file.read(CONTENT_MAX + 1), facts

    def make_again(self, content: bytes, mode: int) -> None:
        """Replace the file by one that nobody has open. Raises OSError."""
        os.unlink(self.name, dir_fd=self.folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(self.name, flags, mode, dir_fd=self.folder), "wb") as file:
            file.write(content)


class Folder:
    """Finds paths below a project folder without following symbolic links."""

    def __init__(self, root: Path, record: int | None, hidden: list[Parts]) -> None:
        """`record`: of what is released, None where nothing is protected.

        `hidden`: paths that are empty for the guest; what it writes there is lost.
        """
        self.root = os.open(root, os.O_PATH | os.O_DIRECTORY)
        self.policy = None if record is None else self._policy(root, record)
        self.hidden = {tuple(map(fold, parts)): number for number, parts in enumerate(hidden)}
        self.hides = os.open(HIDDEN, os.O_PATH | os.O_DIRECTORY) if hidden else -1
        for number, parts in enumerate(hidden):
            with suppress(OSError):  # what is not there is not there in the guest either
                self._stand_in(root.joinpath(*parts), str(number))

    def _stand_in(self, path: Path, name: str) -> None:
        if stat.S_ISDIR(path.lstat().st_mode):
            os.mkdir(name, 0o755, dir_fd=self.hides)
        else:
            os.close(os.open(name, os.O_CREAT, 0o644, dir_fd=self.hides))

    def place(self, path: bytes) -> Place:
        """Find the folder of a path as bindfs(1) writes it: use `with`. Raises OSError."""
        path = path.removeprefix(b"./")
        parts = tuple(str(path, *ENCODING).split("/"))
        if not NO_NAMES.isdisjoint(parts):
            refuse()
        root, path = self._found(parts, path) if self.hidden else (self.root, path)
        rule = self.policy.rule(parts) if self.policy and root == self.root else Rule.FREE
        parent, _, name = path.rpartition(b"/")
        if not parent:
            return Place(root, name, parts, rule, closes=False)
        return Place(open_folder(root, parent), name, parts, rule, closes=True)

    def _found(self, parts: Parts, path: bytes) -> tuple[int, bytes]:
        """Return the root that a path is below, the project's or that of what is hidden."""
        for hidden, number in self.hidden.items():
            if tuple(map(fold, parts[: len(hidden)])) == hidden:
                return self.hides, os.fsencode("/".join((str(number), *parts[len(hidden) :])))
        return self.root, path

    def holds_hidden(self, parts: Parts) -> bool:
        """Say whether a path is hidden itself, or holds what is."""
        if not self.hidden:
            return False
        folded = tuple(map(fold, parts))
        return any(hidden[: len(folded)] == folded for hidden in self.hidden)

    def means_the_same(self, this: Place, that: Place) -> bool:
        """Say whether the policy says of all in a folder what it would say at another place.

        Of a folder with more than NAMES_MAX names it is not known. Raises OSError.
        """
        if not self.policy:
            return True
        rule, seen = self.policy.rule, 0
        found = os.open(this.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=this.folder)
        try:
            for path, folders, files, _ in os.fwalk(".", dir_fd=found):
                below = tuple(part for part in path.split("/") if part != ".")
                names = [(*below, name) for name in (*folders, *files)]
                seen += len(names)
                if seen > NAMES_MAX or any(
                    rule((*this.parts, *name)) is not rule((*that.parts, *name)) for name in names
                ):
                    return False
        finally:
            os.close(found)
        return True

    def config_of(self, index: Parts) -> bytes:
        """Return the config of the repository, or of its main one, that an index belongs to.

        Raises OSError.
        """
        git_dir = index[:-3] if index[-3:-2] == ("worktrees",) else index[:-1]
        with self.place(os.fsencode("/".join((*git_dir, "config")))) as place:
            return place.content()[0]

    def _policy(self, root: Path, record: int) -> Policy:
        tracked, configured = released(tracked_names(root), record), configured_names(root)
        return Policy(tracked, self._holds_head, configured, self._is_worktree)

    def _holds_head(self, parts: Parts) -> bool:
        """Say whether a folder holds a HEAD, so that git may take it for a repository."""
        with suppress(OSError), self._within(parts, "HEAD") as head:
            os.stat(head.name, dir_fd=head.folder, follow_symlinks=False)
            return True
        return False

    def _is_worktree(self, parts: Parts) -> bool:
        """Say whether a folder is a linked worktree of a repository. gitrepository-layout(5)"""
        with suppress(OSError), self._within(parts, ".git") as file:
            return b"/.git/worktrees/" in file.content()[0]
        return False

    def _within(self, parts: Parts, name: str) -> Place:
        """Find a name in a folder, whatever the policy says of it. Raises OSError."""
        folder = open_folder(self.root, os.fsencode("/".join(parts)) or b".")
        return Place(folder, name.encode(), (*parts, name), Rule.CLOSED, closes=True)
