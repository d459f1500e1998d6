"""The console script `vagrantp-fab`: fab, which runs no code of a project's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fabric.main import program
from invoke.loader import FilesystemLoader

from vagrantp.core.places import MASTER
from vagrantp.instance import projects


class Loader(FilesystemLoader):
    """Searches MASTER in place of a project: for tasks, and so for settings beside them."""

    def __init__(self, start: str | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(start, **kwargs)
        if projects.is_within(Path(self.start)):
            self._start = str(MASTER)


def main() -> None:
    """Run the tasks in sys.argv as fab does, and exit."""
    program.loader_class = Loader
    program.run()
