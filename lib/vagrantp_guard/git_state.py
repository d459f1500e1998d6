"""What may be in a file that git obeys: of a config, an index, a rebase, a way to a git dir."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from vagrantp_guard.git_config import config_pairs, config_problem
from vagrantp_guard.git_dir import GIT, Rule, commondir_problem, fold, gitfile_problem
from vagrantp_guard.system import PATH

MOST_SECONDS = 10.0
LIST = ("ls-files", "--cached", "--sparse", "-z")
FORMATS = {
    "sha1": "",
    "sha256": "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = sha256\n",
}
RUNS = re.compile(rb"^[ \t\r\f\v]*(exec|x)([ \t\r\f\v]|$)", re.MULTILINE)
# of git-merge(1), with none as git opens the file
STRATEGIES = {"", "octopus", "ort", "ours", "recursive", "resolve", "subtree"}
UNUSUAL = re.compile(r"\.g|git~|/\.{0,2}(/|$)|^[./]|[^\x00-\x7f]", re.IGNORECASE)


def index_problem(content: bytes, kind: str) -> str:
    """Return why a guest must not put an index with this content into a git dir, or "".

    `git checkout` writes what an index names and does not look whether that is a git dir's own.
    git itself lists the names. `kind`: the repository's object format. gitformat-index(5)
    """
    names = _names(content, kind)
    if names is None:
        return "git cannot read it"
    return next((f"it names {name}" for name in names if not _is_plain(name)), "")


def _names(content: bytes, kind: str) -> list[str] | None:
    """Return the names in an index, None if git cannot read it."""
    if kind not in FORMATS:
        return None
    repository = Path(_repository(kind).name)
    index = repository / "index"
    index.write_bytes(content)
    try:
        # from three threads on, git goes by a table of where entries are, which can lead elsewhere
        ways = [_listed(repository, threads) for threads in ("1", "3")]
    except (OSError, subprocess.SubprocessError):
        return None
    finally:
        index.unlink()
    return ways[0] if ways[0] == ways[1] else None


def _listed(repository: Path, threads: str) -> list[str]:
    done = subprocess.run(
        ("git", "-c", "core.fsmonitor=false", "-c", f"index.threads={threads}", *LIST),
        cwd=repository,
        capture_output=True,
        check=True,
        env={"PATH": PATH, "GIT_DIR": str(repository), "GIT_CONFIG_NOSYSTEM": "1"},
        timeout=MOST_SECONDS,
    )
    return os.fsdecode(done.stdout).split("\0")[:-1]


@cache
def _repository(kind: str) -> TemporaryDirectory[str]:
    """Make an empty repository to read an index in, for as long as this process runs."""
    made = TemporaryDirectory()
    for folder in ("objects", "refs"):
        Path(made.name, folder).mkdir()
    Path(made.name, "HEAD").write_text("ref: refs/heads/main\n")
    Path(made.name, "config").write_text(FORMATS[kind])
    return made


def _is_plain(name: str) -> bool:
    """Say whether git may write a file of this name: not above the folder, not in a git dir."""
    if not UNUSUAL.search(name):
        return True
    parts = [*map(fold, name.split("/"))]
    return GIT not in parts and {"", ".", ".."}.isdisjoint(name.split("/"))


def todo_problem(content: bytes) -> str:
    """Return why a guest must not leave a rebase with this list of commands, or "".

    The person's `git rebase --continue` goes on with it. git-rebase(1)
    """
    return "it has a command for a shell" if RUNS.search(content) else ""


def strategy_problem(content: bytes, parts: tuple[str, ...]) -> str:
    """Return why a guest must not leave a rebase or cherry-pick with this merge strategy, or "".

    For `x/y`, the person's `git rebase --continue` runs `git-merge-x/y` in the work tree.
    """
    if fold(parts[-1]) == "opts":
        try:
            names = [value for key, value in config_pairs(content) if key == "options.strategy"]
        except ValueError as error:
            return str(error)
    else:
        names = [os.fsdecode(content).strip()]
    return next((f"{name} is no strategy of git" for name in names if name not in STRATEGIES), "")


Vet = Callable[[bytes | None, bytes, tuple[str, ...]], str]
# Why a file must not be so: by its content, the new one and its path. These are written in place,
IN_PLACE: dict[Rule, Vet] = {
    Rule.GITFILE: lambda _, new, parts: gitfile_problem(new, parts),
    Rule.COMMONDIR: lambda _, new, parts: commondir_problem(new, parts),
    Rule.TODO: lambda _, new, __: todo_problem(new),
    Rule.STRATEGY: lambda _, new, parts: strategy_problem(new, parts),
    Rule.EMPTY: lambda _, new, __: "it has to be empty" if new else "",
}
# … and these are only replaced, as an index is.
REPLACED: dict[Rule, Vet] = {**IN_PLACE, Rule.CONFIG: config_problem}
