"""The verbs: a file each, whose task has the name of the file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from invoke.collection import Collection
from invoke.tasks import Task

LISTS = ("-l", "--list", "--complete")  # options of fab that ask for every verb


def collection(words: Sequence[str] = sys.argv) -> Collection:
    """Return the tasks of the verbs that a call names, for fab; of all where it names none.

    Each verb imports what it runs, so that those which nobody has called cost nothing.
    """
    names = [path.stem for path in sorted(Path(__file__).parent.glob("*.py"))]
    called = [name for name in names if name.replace("_", "-") in words]
    if not called or any(word.startswith(LISTS) for word in words):
        called = names
    verbs = Collection()
    for name in called:
        task = getattr(import_module(f"{__name__}.{name}"), name, None)
        if isinstance(task, Task):
            verbs.add_task(task)
    return verbs
