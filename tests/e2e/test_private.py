"""A state folder that is somebody else's is refused; only root can give one away."""

from __future__ import annotations

import os
import pwd
import shlex
from pathlib import Path

import pytest

from tests.conftest import CONTAINER, MakeProject
from tests.contract.test_private import VERBS, state


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("is_of_instance", [False, True], ids=["root", "instance"])
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_somebody_elses(
    project: MakeProject, tripwires: tuple[str, Path], verb: str, is_of_instance: bool
) -> None:
    path, called = tripwires
    app = project("it's").write(CONTAINER)
    folder = state(app, is_of_instance)
    os.chown(folder, 65534, -1)
    done = app.fab(verb, PATH=path)
    assert (done.returncode, done.stdout) == (8, "")
    name = pwd.getpwuid(65534).pw_name
    fix = f"sudo chown --recursive 0 {shlex.quote(str(folder))}"
    message = f"{folder} holds keys, and belongs to {name}\n  hint: call it as {name}, or: {fix}\n"
    assert done.stderr.endswith(message)
    assert not called.exists()
    assert not list(folder.rglob("metrics.jsonl"))
