"""An instance that a newer vagrantp made is shown, and otherwise left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vagrantp.instance.record import VERSION
from vagrantp.settings.env import id_from

from tests.conftest import CONTAINER, VM, MakeProject, Project

VERBS = ["up", "ssh", "ssh-config", "stop", "rm", "rm --force", "rm --name", "provision", "verify"]
RECORDS = Path(__file__).resolve().parents[1] / "unit/records"
WHY = f"a newer vagrantp made it (machine.json version {VERSION + 1}, this one reads {VERSION})"


def newer(app: Project, kind: str) -> Path:
    """Make the state folder of an instance whose record is of the next version; return it."""
    record = json.loads((RECORDS / f"c0773ba-{kind}.json").read_text())
    identity = id_from(app.folder)
    made = Path(app.environment["XDG_STATE_HOME"]) / f"vagrantp/app-{identity}"
    made.mkdir(parents=True)
    for folder in (made.parent, made):
        folder.chmod(0o700)
    facts = {"version": VERSION + 1, "name": "app", "id": identity, "folder": str(app.folder)}
    (made / "machine.json").write_text(json.dumps({**record, **facts}))
    (made / "ssh_config").write_text("Host app\n")
    return made


@pytest.mark.parametrize("kind", ["vm", "container"])
@pytest.mark.slow
def test_it_is_left_alone(project: MakeProject, tripwires: tuple[str, Path], kind: str) -> None:
    path, called = tripwires
    app = project().write(VM if kind == "vm" else CONTAINER)
    made = newer(app, kind)
    for verb in VERBS:
        name = [made.name] if verb == "rm --name" else []
        done = app.fab(*verb.split(), *name, PATH=path)
        assert (done.returncode, done.stdout) == (8, ""), verb
        told = f"{made.name}: {WHY}\n  hint: use the checkout that made it\n"
        assert done.stderr.endswith(told), verb
    assert not called.exists()
    assert (made / "machine.json").exists()


@pytest.mark.parametrize("kind", ["vm", "container"])
def test_it_is_listed(project: MakeProject, tripwires: tuple[str, Path], kind: str) -> None:
    app = project()
    made = newer(app, kind)
    done = app.fab("ls", "--json", PATH=tripwires[0])
    assert (done.returncode, done.stderr) == (0, "")
    [found] = json.loads(done.stdout)["instances"]
    assert (found["instance"], found["state"], found["reason"]) == (made.name, "broken", WHY)
    assert found["folder"] == str(app.folder)
