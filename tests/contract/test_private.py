"""A state folder that somebody else could have put something into is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from vagrantp.settings.env import id_from

from tests.conftest import CONTAINER, MakeProject, Project

pytestmark = pytest.mark.slow

VERBS = ["up", "ssh", "stop", "rm", "provision", "verify"]


def state(app: Project, is_of_instance: bool) -> Path:
    """Make the state folder of all instances, or of one that is known as made; return it."""
    root = Path(app.environment["XDG_STATE_HOME"]) / "vagrantp"
    folder = root / f"app-{id_from(app.folder)}"
    folder.mkdir(parents=True)
    root.chmod(0o700)
    folder.chmod(0o700)
    return folder if is_of_instance else root


@pytest.mark.parametrize("is_of_instance", [False, True], ids=["root", "instance"])
@pytest.mark.parametrize("verb", VERBS)
def test_what_others_may_write(
    project: MakeProject, tripwires: tuple[str, Path], verb: str, is_of_instance: bool
) -> None:
    path, called = tripwires
    app = project().write(CONTAINER)
    folder = state(app, is_of_instance)
    for mode in (0o777, 0o770, 0o702):
        folder.chmod(mode)
        done = app.fab(verb, PATH=path)
        assert (done.returncode, done.stdout) == (8, "")
        told = f"{folder} holds keys, and others may write it\n  hint: chmod 700 {folder}\n"
        assert done.stderr.endswith(told)
        assert not called.exists()
    subprocess.run(["sh", "-c", done.stderr.partition("hint: ")[2]], check=True)
    assert "holds keys" not in app.fab(verb, PATH=path).stderr


@pytest.mark.parametrize("verb", ["status", "ls", "validate", "stats"])
def test_what_only_looks_still_works(project: MakeProject, verb: str) -> None:
    app = project().write(CONTAINER)
    state(app, False).chmod(0o777)
    assert app.fab(verb).returncode == 0
