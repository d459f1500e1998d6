"""What a guest may change in the project folder although people run it out of habit.

That is what vagrantp_guard/protected.toml lists, and what leads out of the folder or blocks who
opens it. Digests of it are kept from one start or stop to the next. docs/isolation.md
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

from vagrantp.core import documents
from vagrantp.core.system import Host
from vagrantp.core.text import plain
from vagrantp.instance.record import Instance

MAX_ENTRIES = 50_000  # that are looked at …
MAX_SECONDS = 2.0  # … in so many seconds: the guest may have made any number
MAX_SHOWN = 10  # lines
MAX_RECORD = 32 * 1024**2  # bytes of habits.json
SKIPPED = {".git", "node_modules"}  # git's own state; packages
TODO = "rebase-merge/git-rebase-todo"
RUNS = re.compile(rb"^\s*(exec|x)\s", re.MULTILINE)  # git-rebase(1), interactive mode
SPECIAL = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Seen:
    """What was found in a folder: by path a kind, "" for a plain file, and what it has in it.

    `is_whole`: all of the folder was looked at.
    """

    found: Mapping[str, tuple[str, str]]
    is_whole: bool = True


@dataclass(frozen=True)
class Changed:
    """A difference. `kind`: what it is, if it is no plain file."""

    path: str
    change: Literal["changed", "new", "gone"]
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.change:<7}  {plain(self.path)}" + (f" ({self.kind})" if self.kind else "")


def look(folder: Path) -> Seen:
    """Look at a project folder: the shallow first, following no link, opening plain files only."""
    from vagrantp_guard import protected  # takes a while, and few come here

    configured = protected.configured_names(folder)
    found: dict[str, tuple[str, str]] = {}
    is_whole, left, end = True, MAX_ENTRIES, monotonic() + MAX_SECONDS
    waiting: deque[tuple[str, ...]] = deque([()])  # folders, by the names that lead to them
    with suppress(OSError), _opened(folder) as top:
        while waiting and is_whole:
            above = waiting.popleft()
            with suppress(OSError), _opened(".", top, above) as place, os.scandir(place) as entries:
                for entry in entries:
                    left -= 1
                    is_whole = left >= 0 and monotonic() < end
                    if not is_whole:
                        break
                    parts = (*above, entry.name)
                    if entry.name == ".git":
                        found |= _rebase(place, above)
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name not in SKIPPED:
                            waiting.append(parts)
                        continue
                    is_listed = protected.is_listed(parts, configured)
                    if is_listed or not entry.is_file(follow_symlinks=False):
                        found |= _what(folder, place, parts, is_listed)
        return Seen(found, is_whole)
    return Seen({}, is_whole=False)


@contextmanager
def _opened(start: Path | str, at: int | None = None, names: Sequence[str] = ()) -> Iterator[int]:
    """Yield the folder that `names` lead to from `start`, by no link. Raises OSError."""
    found = os.open(start, _FOLDER, dir_fd=at)
    try:
        for name in names:
            above, found = found, os.open(name, _FOLDER, dir_fd=found)
            os.close(above)
        yield found
    finally:
        os.close(found)


def _what(
    folder: Path, place: int, parts: Sequence[str], is_listed: bool
) -> Mapping[str, tuple[str, str]]:
    """Return the kind and the content of what is no folder; nothing of a harmless link."""
    path, name = "/".join(parts), parts[-1]
    try:
        facts = os.stat(name, dir_fd=place, follow_symlinks=False)
        if stat.S_ISREG(facts.st_mode):
            return {path: ("", _digest(place, name, facts))}
        if not stat.S_ISLNK(facts.st_mode):
            return {path: (SPECIAL.get(stat.S_IFMT(facts.st_mode), "device"), "")}
        target = os.readlink(name, dir_fd=place)
    except OSError:  # it is gone
        return {}
    top = os.path.realpath(folder)
    if not Path(os.path.realpath(f"{top}/{path}")).is_relative_to(top):
        return {path: ("link out of the folder", target)}
    return {path: ("link", target)} if is_listed else {}


def _digest(place: int, name: str, facts: os.stat_result) -> str:
    """Return a digest of a plain file; of a large one, its size and when it was changed."""
    if facts.st_size > documents.MAX_BYTES:
        return f"{facts.st_size} bytes, {facts.st_mtime_ns}"
    return hashlib.sha256(_content(place, name)).hexdigest()


def _content(place: int, name: str) -> bytes:
    """Return the start of a plain file, b"" of what cannot be read."""

    def opener(path: str, _: int) -> int:
        return os.open(path, _FILE, dir_fd=place)

    with suppress(OSError), open(name, "rb", opener=opener) as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file.read(documents.MAX_BYTES)
    return b""


def _rebase(place: int, above: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    """Return the rebase in progress in the repository at `place` that will run commands, if any."""
    *names, todo = f".git/{TODO}".split("/")
    with suppress(OSError), _opened(".", place, names) as state:
        content = _content(state, todo)
        if RUNS.search(content):
            path = "/".join((*above, *names, todo))
            digest = hashlib.sha256(content).hexdigest()
            return {path: ("git rebase --continue runs commands", digest)}
    return {}


def changes(before: Seen, now: Seen) -> list[Changed]:
    """Return what differs, by path; of folders that were too large, what is sure."""
    found = []
    for path in sorted({*before.found, *now.found}):
        had, has = before.found.get(path), now.found.get(path)
        if had and has and had != has:
            found.append(Changed(path, "changed", has[0]))
        elif has and not had and before.is_whole:
            found.append(Changed(path, "new", has[0]))
        elif had and not has and now.is_whole:
            found.append(Changed(path, "gone"))
    return found


def text(found: Sequence[Changed], is_whole: bool = True) -> str:
    """Return changes as a person is shown them, a line each; "" for none."""
    lines = [str(one) for one in found[:MAX_SHOWN]]
    if len(found) > MAX_SHOWN:
        lines.append(f"and {len(found) - MAX_SHOWN} more")
    if not is_whole:
        lines.append("the folder is too large to look at all of it")
    if not lines:
        return ""
    return "\n  ".join(
        ["changed in the folder, of what programs on this host run or obey:", *lines]
    )


# What is remembered of an instance's folder.


@dataclass(frozen=True)
class Last:
    """What was seen as the guest started, or when it had stopped."""

    seen: Seen
    is_stopped: bool


def last(instance: Instance) -> Last | None:
    """Return what was seen last, None where that was never or cannot be read."""
    try:
        record = documents.from_json(documents.text(instance.habits, at_most=MAX_RECORD))
        found = {str(path): (str(kind), str(has)) for path, (kind, has) in record["found"].items()}
        return Last(Seen(found, record["is_whole"] is True), record["is_stopped"] is True)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def remember(host: Host, instance: Instance, seen: Seen, is_stopped: bool) -> None:
    """Remember what was seen, as the guest starts or when it has stopped."""
    record = {"found": seen.found, "is_whole": seen.is_whole, "is_stopped": is_stopped}
    host.write(instance.habits, json.dumps(record))
