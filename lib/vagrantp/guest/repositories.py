"""Git repositories in the home folder of a guest with work that is nowhere else."""

from __future__ import annotations

import re

from vagrantp.core.places import SCRIPTS
from vagrantp.core.text import plain
from vagrantp.guest import facts

SCRIPT = (SCRIPTS / "repositories.sh").read_text("utf-8")
MOST = 20  # as in the script
LONGEST = 200  # characters of a path
WHAT = {
    "changes": "changes that are not committed",
    "commits": "commits that are not pushed",
    "both": "changes that are not committed, commits that are not pushed",
    "unread": "git cannot read it",
}


def work(printed: str) -> tuple[list[str], bool]:
    """Return what SCRIPT has printed in words, a line for each repository, and whether that is all.

    Paths are escaped, and cut.
    """
    names = [f"repository_{number}" for number in range(MOST)]
    found = facts.read(printed, {**dict.fromkeys(names, _repository), "repositories": _whole})
    return [found[name] for name in names if name in found], "repositories" in found


def _repository(text: str) -> str:
    match = re.fullmatch(f"({'|'.join(WHAT)}) (.+)", text)
    if match is None:
        raise ValueError
    return f"{plain(match[2], LONGEST)}: {WHAT[match[1]]}"


def _whole(text: str) -> None:
    if text != "whole":
        raise ValueError
