"""MOUNT=rw as `status` and `stop` show it, by a podman that replays what the real one says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vagrantp.instance import habits, record

from tests.conftest import CONTAINER, MakeProject, Project, env_text
from tests.contract.conftest import replayed

# Podman 4.3.1, of a container that runs until it is stopped.
PODMAN = """#!/bin/sh
state=$(cat {folder}/state)
case "$*" in
    ps*) sed "s/STATE/$state/" {folder}/ps ;;
    inspect*"}}}} {{{{"*) echo "$state 1 false" ;;
    inspect*) echo "$state" ;;
    stop*) echo exited >{folder}/state ;;
esac
"""


@pytest.fixture
def running(
    project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Project, record.Instance]:
    """Return a project whose container runs with MOUNT=rw, and what was made of it."""
    app = project().write({**CONTAINER, "MOUNT": "rw"})
    (app.folder / "Makefile").write_text("all:\n")
    replay = tmp_path / "replay"
    made = replayed(app, monkeypatch, replay, "STATE")
    seen = habits.look(app.folder)
    found = {"found": seen.found, "is_whole": True, "is_stopped": False}
    made.habits.write_text(json.dumps(found))
    (replay / "state").write_text("running\n")
    (replay / "podman").write_text(PODMAN.format(folder=replay))
    (replay / "podman").chmod(0o755)
    return app, made


LISTED = """\
changed in the folder, of what programs on this host run or obey:
  changed  Makefile
  new      a\\x1b/justfile
  new      out (link out of the folder)
"""


def change(folder: Path) -> None:
    """Do what a guest may do."""
    (folder / "Makefile").write_text("all: ; evil\n")
    (folder / "a\x1b").mkdir()
    (folder / "a\x1b/justfile").write_text("")
    (folder / "out").symlink_to("/etc")
    (folder / "main.c").write_text("")


@pytest.mark.slow
def test_what_changed_is_listed_until_it_is_stopped(
    running: tuple[Project, record.Instance],
) -> None:
    app, made = running
    assert json.loads(app.fab("status", "--json").stdout)["files_changed"] == []
    change(app.folder)
    listed = json.loads(app.fab("status", "--json").stdout)["files_changed"]
    assert listed == [
        {"path": "Makefile", "change": "changed", "kind": ""},
        {"path": "a\x1b/justfile", "change": "new", "kind": ""},
        {"path": "out", "change": "new", "kind": "link out of the folder"},
    ]
    assert app.fab("status").stdout.endswith(LISTED)
    before = made.habits.read_text()
    assert app.fab("--dry", "stop").returncode == 0
    assert made.habits.read_text() == before
    done = app.fab("stop")
    assert (done.returncode, done.stdout) == (0, f"{made.full_name} is stopped\n")
    assert "".join(f"  {line}\n" for line in LISTED.splitlines()) in done.stderr
    assert json.loads(app.fab("status", "--json").stdout)["files_changed"] == []
    (app.folder / "Makefile").write_text("by the person\n")
    assert json.loads(app.fab("status", "--json").stdout)["files_changed"] == []


@pytest.mark.slow
def test_status_claims_no_protection_that_is_not_there(
    running: tuple[Project, record.Instance],
) -> None:
    app, made = running
    facts = json.loads(app.fab("status", "--json").stdout)
    assert (facts["mount"], facts["protect"], facts["hide"]) == ("rw", True, [])
    assert "rw, protected\n" in app.fab("status").stdout
    older = json.loads(made.machine_json.read_text())
    del older["settings"]["protect"], older["settings"]["hide"]
    made.machine_json.write_text(json.dumps(older))
    facts = json.loads(app.fab("status", "--json").stdout)
    assert (facts["mount"], facts["protect"]) == ("rw", False)
    [change] = facts["changes"]
    assert (change["key"], change["applies"]) == ("PROTECT", "at the next start")
    assert "rw, unprotected\n" in app.fab("status").stdout


def test_a_home_folder_is_no_project(project: MakeProject, tmp_path: Path) -> None:
    app = project().write(env_text({**CONTAINER, "MOUNT": "rw"}))
    for verb in ("up", "validate"):
        done = app.fab(verb, HOME=str(app.folder))
        assert (done.returncode, done.stdout) == (2, "")
        assert "MOUNT must be none here, as this is the home folder of" in done.stderr
    assert not (tmp_path / "state").exists() or not [*(tmp_path / "state").rglob("machine.json")]
