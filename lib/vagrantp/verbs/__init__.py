"""The verbs: a file each, whose task has the name of the file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from invoke.collection import Collection
from invoke.tasks import Task


def collection() -> Collection:
    """Return the tasks of all verbs, for fab."""
    verbs = Collection()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        module = import_module(f"{__name__}.{path.stem}")
        task = getattr(module, path.stem, None)
        if isinstance(task, Task):
            verbs.add_task(task)
    return verbs
