"""PROTECT: which names in a project folder a guest must not change, and of which to report changes.

protected.toml lists names with reasons; what git obeys in a git dir is in git_dir.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Timer
from time import monotonic

from vagrantp_guard.git_config import config_pairs, config_problem
from vagrantp_guard.git_dir import (
    GIT,
    OBEYED,
    SHORT,
    Rule,
    commondir_problem,
    fold,
    git_rule,
    gitfile_problem,
)
from vagrantp_guard.system import PATH

__all__ = [
    "Policy",
    "Rule",
    "commondir_problem",
    "config_problem",
    "configured_names",
    "fold",
    "gitfile_problem",
    "is_listed",
    "tracked_names",
]
Parts = tuple[str, ...]

LIST = Path(__file__).with_name("protected.toml")
# Where package managers put packages and repositories of others, which bring names that are closed.
# Nobody works there.
OF_PACKAGES = {
    *("node_modules", "site-packages", "venv", ".venv"),
    *("vendor", "_deps", ".build", ".terraform"),
}
# What reads a repository and neither fetches nor runs anything, whatever its config says.
GIT_READS = (
    *("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"),
    *("-c", "safe.directory=*", "-c", "protocol.allow=never"),
)
GIT_ENV = {
    "PATH": PATH,
    "LC_ALL": "C.UTF-8",
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}
MOST_BYTES = 64 << 20  # of names that git lists
MOST_SECONDS = 30.0
CONFIG_MAX = 1 << 18  # bytes of a config that are looked at


class Names:
    """The names of a list in protected.toml, as patterns of folded parts."""

    def __init__(self, kind: str) -> None:
        self.by_start: dict[str, list[Parts]] = {}
        for entry in tomllib.loads(LIST.read_text(encoding="utf-8"))[kind]:
            for name in entry["names"]:
                pattern = tuple(name.lower().split("/"))
                self.by_start.setdefault(pattern[0], []).append(pattern)
        self.globs = [start for start in self.by_start if "*" in start]
        self.some_glob = re.compile("|".join(map(translate, self.globs)))
        self.starting_with = lru_cache(1 << 14)(self._starting_with)

    def _starting_with(self, name: str) -> list[Parts]:
        globs = self.globs if self.some_glob.match(name) else ()
        starts = [name, *(start for start in globs if fnmatchcase(name, start))]
        return [pattern for start in starts for pattern in self.by_start.get(start, ())]

    def rule(self, folded: Parts) -> Rule:
        """Return CLOSED for what is listed, FOLDER for a folder that leads there, or FREE."""
        rule = Rule.FREE
        for at, name in enumerate(folded):
            for pattern in self.starting_with(name):
                found = _match(pattern, folded[at:])
                if found is Rule.CLOSED:
                    return found
                rule = found if rule is Rule.FREE else rule
            if name in OF_PACKAGES:
                break
        return rule


def _match(pattern: Parts, parts: Parts) -> Rule:
    length = len(pattern)
    if pattern[-1] == "**" and len(parts) >= length:
        parts = (*parts[: length - 1], "**")
    if len(parts) > length or not all(map(fnmatchcase, parts, pattern)):
        return Rule.FREE
    return Rule.CLOSED if len(parts) == length else Rule.FOLDER


CLOSED, FREE, REPORTED = map(Names, ("closed", "free", "reported"))


ANYTHING = {Rule.FREE, Rule.NO_LINK}


def _listed(folded: Parts) -> Rule:
    """Return the rule of a path that is in no git dir and that HEAD does not have."""
    rule = CLOSED.rule(folded)
    return Rule.FREE if rule is Rule.CLOSED is FREE.rule(folded) else rule


@lru_cache(1 << 16)
def _is_plain(name: str) -> bool:
    """Say whether no rule is about a name, wherever in a path it is."""
    folded = fold(name)
    is_short, is_windows = "~" in folded, "\\" in name
    is_git = folded in OBEYED or folded in (GIT, "head")
    return not (is_short or is_windows or is_git or CLOSED.starting_with(folded))


@dataclass(frozen=True)
class Policy:
    """What a guest may do with the names in a project folder.

    A path is the names that lead to it from the project folder, as os.fsdecode gives them.
    `tracked`: see tracked_names. `is_git_dir` says whether a folder holds a HEAD, `is_worktree`
    whether it holds a `.git`. `configured`: see configured_names.
    """

    tracked: frozenset[Parts]
    is_git_dir: Callable[[Parts], bool]
    configured: frozenset[Parts] = frozenset()
    is_worktree: Callable[[Parts], bool] = lambda _: False

    def rule(self, parts: Parts) -> Rule:
        """Return the rule for a path, which is not the project folder itself."""
        if all(map(_is_plain, parts)) and fold(parts[0]) not in self._configured_starts:
            return Rule.FREE  # as below, for nearly all that a guest does
        return self.all_rules(parts)

    @cached_property
    def _configured_starts(self) -> frozenset[str]:
        return frozenset(name[0] for name in self.configured)

    def all_rules(self, parts: Parts) -> Rule:
        """Return the same, the long way."""
        folded = tuple(map(fold, parts))
        if any("~" in name and SHORT.fullmatch(name) for name in folded):
            return Rule.CLOSED  # whichever file it is
        if any("\\" in name and GIT in map(fold, name.split("\\")) for name in parts):
            return Rule.CLOSED  # where this is a separator
        if parts not in self.tracked and _is_in(self.configured, folded):
            return Rule.CLOSED
        if GIT in folded:
            at = folded.index(GIT)
            below = folded[at + 1 :]
            rule = self._git_rule(parts, below) if below else Rule.GITFILE
            is_name = folded[-1] in OBEYED or folded[-1] == "git-rebase-todo"
            is_spelled = parts[at] == GIT and (not is_name or parts[-1] == folded[-1])  # git's way
            return rule if is_spelled or rule in ANYTHING else Rule.CLOSED
        if folded[-1] == "head":  # else a folder could become a bare repository, with a config
            return Rule.FOLDER
        for at, name in enumerate(folded):
            rule = git_rule(folded[at:]) if name in OBEYED else Rule.NO_LINK
            if rule not in ANYTHING and self.is_git_dir(parts[:at]):
                return rule if rule is Rule.FOLDER else Rule.CLOSED
        leads_there = any(name[: len(folded)] == folded for name in self.configured)
        rule = _listed(folded)
        if rule is Rule.FREE and leads_there:
            rule = Rule.FOLDER
        return Rule.FREE if rule is not Rule.FREE and self._is_tracked(parts) else rule

    def _is_tracked(self, parts: Parts) -> bool:
        """Say whether HEAD has a path, from the project folder or from a worktree in it."""
        return parts in self.tracked or any(
            parts[at:] in self.tracked and self.is_worktree(parts[:at])
            for at in range(1, len(parts))
        )

    def _git_rule(self, parts: Parts, below: Parts) -> Rule:
        """Return the rule for what is in a git dir; `below`: the folded parts after that.

        The name of a module that a person made can have parts that are a git dir's own, too:
        `.git/modules/data/objects`.
        """
        start = 0
        for end in range(1, len(below)) if "modules" in below else ():
            may_have_head = git_rule((*below[start:end], "head")) is not Rule.CLOSED
            if not may_have_head and self.is_git_dir(parts[: end - len(below)]):
                start = end
        return git_rule(below[start:])

    def reported(self, parts: Parts) -> bool:
        """Say whether a person should hear of a change: a guest may write what the person runs."""
        folded = tuple(map(fold, parts))
        if GIT in folded:
            return False
        is_closed = _listed(folded) is Rule.CLOSED or _is_in(self.configured, folded)
        return (is_closed and parts in self.tracked) or REPORTED.rule(folded) is Rule.CLOSED


def is_listed(parts: Parts, configured: frozenset[Parts] = frozenset()) -> bool:
    """Say whether a name is closed or reported, tracked or not; git's own state is neither."""
    folded = tuple(map(fold, parts))
    is_listed = Rule.CLOSED in (CLOSED.rule(folded), REPORTED.rule(folded))
    return is_listed or _is_in(configured, folded)


def configured_names(folder: Path) -> frozenset[Parts]:
    """Return, folded, what the config of the repository in a folder names there.

    Its hooks, the files that it includes, and what a command in it runs: `filter.x.clean`.
    """
    return frozenset(parts for parts, _ in _configured(folder))


def _configured(folder: Path) -> Iterator[tuple[Parts, bool]]:
    """Return what a config names, folded, and whether it includes that as another config."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO would hold up all
        with os.fdopen(os.open(folder / GIT / "config", flags), "rb") as file:
            pairs = config_pairs(file.read(CONFIG_MAX) or b"")
    except (OSError, ValueError):
        return
    for key, value in pairs:
        is_include = key.startswith("include") and key.endswith(".path")
        is_path = is_include or key in ("core.hookspath", "core.attributesfile")
        for word in [value or ""] if is_path else re.split(r"[\s'\"=;&|()!]+", value or ""):
            path = os.path.normpath((folder / GIT if is_include else folder) / word)
            if path.startswith(f"{folder}/") and (is_path or Path(path).is_file()):
                yield tuple(map(fold, Path(path).relative_to(folder).parts)), is_include


def _is_in(names: frozenset[Parts], folded: Parts) -> bool:
    return any(folded[: len(name)] == name for name in names)


def tracked_names(folder: Path) -> frozenset[Parts]:
    """Return the names, closed otherwise, that HEAD has in a folder and in its submodules.

    A guest may write them, as `git checkout` does: but only what is there already, since a guest
    can commit what it may not write. Not what the repository's config includes, which makes git run
    programs at once. Empty without git or a repository; what git does not list in MOST_SECONDS and
    MOST_BYTES stays closed.
    """
    end = monotonic() + MOST_SECONDS
    top = Path(os.path.realpath(folder))
    included = {parts for parts, is_include in _configured(top) if is_include}
    found = _tracked(top, (), end, configured_names(top))
    return frozenset(parts for parts in found if tuple(map(fold, parts)) not in included)


def _tracked(top: Path, parent: Parts, end: float, configured: frozenset[Parts]) -> Iterator[Parts]:
    for kind, name in _tree(top.joinpath(*parent), end):
        parts = (*parent, *name.split("/"))
        path = top.joinpath(*parts)
        is_submodule = kind == "commit"
        folded = tuple(map(fold, parts))
        is_closed = _listed(folded) is not Rule.FREE or _is_in(configured, folded)
        if not is_submodule and not is_closed:
            continue
        place = path if is_submodule else path.parent
        if {"", ".", ".."} & {*parts} or os.path.realpath(place) != str(place):
            continue  # git lists the names of a tree as they are, and links lead elsewhere
        if is_submodule:
            yield from _tracked(top, parts, end, configured)
        elif os.path.lexists(path):
            yield parts


def _tree(folder: Path, end: float) -> list[tuple[str, str]]:
    """Return type and path of what HEAD has; nothing if `folder` is no repository's top."""
    seconds = end - monotonic()
    if seconds <= 0 or not os.path.lexists(folder / GIT):
        return []
    try:
        git = subprocess.Popen(
            (*GIT_READS, "ls-tree", "-r", "-z", "HEAD"),
            cwd=folder,
            env={**GIT_ENV, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return []
    timer = Timer(seconds, git.kill)
    timer.start()
    with git:
        assert git.stdout
        listed = git.stdout.read(MOST_BYTES)
        git.stdout.close()
    timer.cancel()
    lines = os.fsdecode(listed).split("\0")[:-1] if git.returncode == 0 else []
    facts = (line.partition("\t") for line in lines)
    return [(fact.split(" ")[1], name) for fact, _, name in facts]
