"""The real `fab`, forked from a warm process: a call takes a tenth of what a new process takes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from vagrantp.instance import record
from vagrantp.settings import env

from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.warm import Warm

TYPES = (pytest.param(CONTAINER, id="container"), pytest.param(VM, id="vm", marks=pytest.mark.slow))


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


def replayed(
    app: Project, monkeypatch: pytest.MonkeyPatch, replay: Path, state: str
) -> record.Instance:
    """Make what `up` leaves of a container; return its instance.

    A `podman` that comes first on the project's PATH, to be written into the folder `replay`, has
    there what `podman ps` says of it, in `state`.
    """
    monkeypatch.setenv("XDG_STATE_HOME", app.environment["XDG_STATE_HOME"])
    settings = env.load(app.folder)
    made = record.new(settings, app.folder)
    made.state_dir.mkdir(parents=True, mode=0o700)
    made.state_dir.parent.chmod(0o700)
    made.machine_json.write_text(record.document(made, settings, {"address": "10.0.0.2"}))
    made.ssh_config.write_text("")
    labels = {"id": made.id, "name": made.name, "folder": str(made.folder), "uid": os.getuid()}
    container = {
        "Names": [made.full_name],
        "State": state,
        "Pid": os.getpid(),
        "Labels": {f"vagrantp.{key}": str(value) for key, value in labels.items()},
    }
    replay.mkdir()
    (replay / "ps").write_text(json.dumps([container]))
    app.environment["PATH"] = f"{replay}:{app.environment['PATH']}"
    return made
