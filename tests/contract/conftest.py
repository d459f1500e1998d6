"""The real `fab`, forked from a warm process: a call takes a tenth of what a new process takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tests.conftest import MakeProject, Project
from tests.warm import Warm


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Return the warm process."""
    with closing(Warm()) as process:
        yield process


@pytest.fixture
def project(project: MakeProject, warm: Warm) -> MakeProject:
    """Return a maker of project folders whose `fab` comes from the warm process."""

    def make(*arguments: str) -> Project:
        return replace(project(*arguments), call=warm.run)

    return make
