"""The names in a git dir that make git run a program, or lead it elsewhere. Pure.

gitrepository-layout(5); what makes a folder a git dir: `is_git_directory` in git's setup.c.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from itertools import takewhile

from vagrantp_guard.contract import PROJECT

GIT = ".git"
# What names a part of a git dir, and so ends the name of a module, which may have slashes.
PARTS = {
    *("branches", "branchless", "glab-cli", "hooks", "info", "logs", "modules", "objects"),
    *("rebase-merge", "refs", "remotes", "sequencer", "worktrees"),
}
# What has a rule at the top of a git dir.
OBEYED = PARTS | {"commondir", "config", "config.worktree", "index", "lazygit.yml"}
# Unicode's Default_Ignorable_Code_Point, which HFS+ and ext4's casefold leave out of comparisons.
IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
# A second name that FAT and NTFS give to a file with a long one: TASKS~1.JSO
SHORT = re.compile(r"[^.~]{1,6}~[0-9]{1,6}(\.[^.]{1,3})?")


class Rule(Enum):
    """What a guest may do with a name. It may read all of them."""

    FREE = "anything"
    NO_LINK = "make files and folders, but no symbolic links, FIFOs and the like"
    FOLDER = "make a folder, and remove it when it is empty"
    CLOSED = "nothing"
    CONFIG = "put a file in its place of which git_config.config_problem says nothing"
    GITFILE = "like FOLDER, or put a file there of which gitfile_problem says nothing"
    COMMONDIR = "put a file there of which commondir_problem says nothing"
    INDEX = "put a file in its place of which git_state.index_problem says nothing"
    TODO = "write a file of which git_state.todo_problem says nothing"
    STRATEGY = "write a file of which git_state.strategy_problem says nothing"
    EMPTY = "make an empty file, and remove it"

    __hash__ = object.__hash__  # Enum's own is slow, and asked at each change of a file


@lru_cache(1 << 16)
def fold(name: str) -> str:
    """Return one spelling for all names that a file system may take for the same.

    NTFS ignores dots and blanks at the end, and has streams: `.git::$INDEX_ALLOCATION`.
    """
    if not name.isascii():
        for _ in range(2):  # what was ignored can have kept marks apart
            name = IGNORED.sub("", unicodedata.normalize("NFKD", name)).upper().casefold()
        name = unicodedata.normalize("NFKD", name)
    name = name.partition(":")[0].rstrip(". ").lower()
    return GIT if name.startswith("git~") else name


def git_rule(parts: Sequence[str], is_worktree: bool = False) -> Rule:
    """Return the rule for a path in a git dir: its folded parts below that, at least one.

    `is_worktree`: the git dir is a linked worktree's. A folder with HEAD, `objects` and `refs`, or
    with HEAD and `commondir`, is a git dir wherever it is: so none gets all of these but the places
    that have rules for the rest.
    """
    match parts:
        case _ if GIT in parts:
            return Rule.CLOSED
        case ["modules" | "worktrees", _]:
            return Rule.FOLDER
        case [*folder, "head"] if not _may_have_head(folder):
            return Rule.CLOSED
        case [name] if re.fullmatch("t[a-z0-9]{6}", name):
            return Rule.FREE  # `git init` tries whether there can be symbolic links
        case ["config" | "config.worktree"]:
            return Rule.CONFIG
        case ["index"]:
            return Rule.INDEX
        case [name] if name.startswith("sharedindex."):  # the greater part of a split index
            return Rule.INDEX
        case ["merge_rr"]:  # `git commit` copies the files that it names to where a guest reads
            return Rule.EMPTY
        case ["rebase-merge", "git-rebase-todo"]:
            return Rule.TODO
        case ["rebase-merge", "strategy"] | ["sequencer", "opts"]:
            return Rule.STRATEGY
        case ["commondir"]:
            return Rule.COMMONDIR if is_worktree else Rule.CLOSED
        case [name] if name in PARTS:
            return Rule.FOLDER
        case ["hooks", name] if name.endswith(".sample"):
            return Rule.NO_LINK
        case ["hooks" | "branches" | "remotes", *_]:  # gitremotes: files with URLs of any kind
            return Rule.CLOSED
        case ["lazygit.yml"] | ["glab-cli" | "branchless", "config" | "config.yml"]:
            return Rule.CLOSED  # other tools keep settings there that name programs
        case ["info", "attributes"] | ["objects", "info", "alternates" | "http-alternates"]:
            return Rule.CLOSED
        case ["worktrees", _, *rest]:
            return git_rule(rest, is_worktree=True)
        case ["modules", _, *rest]:
            inner = list(takewhile(lambda name: name not in PARTS, rest))
            return git_rule(rest[len(inner) :] or rest[-1:])
        case ["refs" | "logs", *_]:
            for at, name in enumerate(parts):
                if name in ("objects", "commondir") and _may_have_head(parts[:at]):
                    return Rule.CLOSED
    return Rule.NO_LINK


def _may_have_head(folder: Sequence[str]) -> bool:
    """Say whether a folder in a git dir may have a HEAD: `refs/remotes/origin` for one."""
    match folder:
        case [] | ["logs"] | ["worktrees", _] | ["modules", _, *_]:
            return True  # and more places in modules: their rules decide
        case ["worktrees", _, *rest]:
            return _may_have_head(rest)
    return folder[0] in ("refs", "logs") and "remotes" in folder


def gitfile_problem(content: bytes, parts: tuple[str, ...]) -> str:
    """Return why a file `.git` with this content must not be at `parts`, or "".

    It may lead to a git dir of a module or of a worktree in the project. gitrepository-layout(5)
    """
    found = re.fullmatch(rb"gitdir: ([^\x00-\x1f\x7f]+)\n?", content)
    if not found or len(content) > 4096:
        return "it is no file that leads to a git dir"
    path = found[1].decode("utf-8", "surrogateescape")
    if path.startswith("/"):
        inside = path.startswith(f"{PROJECT}/")
        steps = path.removeprefix(f"{PROJECT}/").split("/")
    else:
        steps = path.split("/")
        ups = len([*takewhile("..".__eq__, steps)])
        inside, steps = ups < len(parts), steps[ups:]
    if not inside or GIT not in steps or {"", ".", ".."} & {*steps}:
        return f"it leads to {path}, which is no git dir in the project"
    below = [*map(fold, steps[steps.index(GIT) + 1 :])]
    if not below or not _is_git_dir(below):
        return f"it leads to {path}, which is no place for the git dir of a module or worktree"
    return ""


def _is_git_dir(below: Sequence[str]) -> bool:
    match below:
        case []:
            return True
        case ["worktrees", _, *rest]:
            return _is_git_dir(rest)
        case ["modules", _, *rest]:
            inner = list(takewhile(lambda name: name not in PARTS, rest))
            return GIT not in below and _is_git_dir(rest[len(inner) :])
    return False


def commondir_problem(content: bytes, parts: tuple[str, ...]) -> str:
    """Return why a file `commondir` with this content must not be at `parts`, or ""."""
    if content not in (b"../..", b"../..\n"):
        return "it leads elsewhere than to the git dir that the worktree belongs to"
    return ""
