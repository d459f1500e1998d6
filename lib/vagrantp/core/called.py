"""How the person called this program, for what messages tell them to call next."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

# A verb is a file; see verbs/__init__.py.
VERBS = [
    path.stem.replace("_", "-")
    for path in sorted((Path(__file__).parents[1] / "verbs").glob("[a-z]*.py"))
    if path.stem != "tasks"
]
MEANT = re.compile(rf"(?<![\w/.-])fab (?=(?:--dry )?(?:--list|{'|'.join(VERBS)})(?![\w/=]|\.\w))")
PROGRAMS = {"fab": "fab", "vagrantp-fab": "fab", "vagrantp": "vagrantp"}
ROOT, COLLECTION = ("-r", "--search-root"), ("-c", "--collection")


def as_called(text: str, how: str = "") -> str:
    """Return our text, which says `fab up`, with the words by which this person calls it.

    `how`: these words, as of `command`; those that called this process where there are none.
    """
    return MEANT.sub(lambda _: f"{how or _command()} ", text)


def command(argv: Sequence[str]) -> str:
    """Return how a verb is called by whoever called `argv`: the program, and where its verbs are.

    A program that PATH finds is called by its name.
    """
    name = PROGRAMS.get(Path(argv[0]).name) if argv else None
    if name is None:  # as in a test, or `make`
        return "fab"
    found = shutil.which(name)
    is_found = found is not None and Path(found).resolve() == Path(argv[0]).resolve()
    return shlex.join([name if is_found else argv[0], *_options(argv[1:])])


def _options(arguments: Sequence[str]) -> list[str]:
    """Return what of the arguments says where the verbs are: options of fab, before a verb."""
    kept = []
    words = iter(arguments)
    for word in words:
        if word in VERBS:
            break
        if word in (*ROOT, *COLLECTION):
            kept += [word, next(words, "")]
        elif word.startswith(tuple(f"{long}=" for _, long in (ROOT, COLLECTION))) or (
            word[:2] in ("-r", "-c") and word[2:]
        ):
            kept.append(word)
    return kept


@cache
def _command() -> str:
    return command(sys.argv)
