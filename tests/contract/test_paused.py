"""A paused container, by a podman that replays what the real one says of it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.conftest import CONTAINER, MakeProject, Project
from tests.contract.conftest import replayed

# Podman 4.3.1, of a container that `podman pause` has frozen; it writes down what changes it.
PODMAN = """#!/bin/sh
state=$(cat {folder}/state)
case "$*" in
    ps*) cat {folder}/ps ;;
    inspect*"}}}} {{{{"*) echo "$state 1 false" ;;
    inspect*) echo "$state" ;;
    unpause*) echo "$*" >>{folder}/changes; echo running >{folder}/state ;;
    stop*) echo "$*" >>{folder}/changes; echo {at_the_end} >{folder}/state ;;
esac
"""


@pytest.fixture
def paused(
    project: MakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Project, Path]:
    """Return a project whose container is paused, and the folder of what replays it."""
    app = project().write(CONTAINER)
    replay = tmp_path / "replay"
    replayed(app, monkeypatch, replay, "paused")
    (replay / "state").write_text("paused\n")
    replay_with(replay, "exited")
    return app, replay


def replay_with(folder: Path, at_the_end: str) -> None:
    """Let the container be in a state after `podman stop`."""
    (folder / "podman").write_text(PODMAN.format(folder=folder, at_the_end=at_the_end))
    (folder / "podman").chmod(0o755)


@pytest.mark.parametrize(
    ("verb", "hint"),
    [
        (["ssh"], "fab up resumes it"),
        (["ssh", "--command", "true"], "fab up resumes it"),
        (["provision"], "fab up resumes it"),
        (["verify"], "fab up resumes it"),
    ],
    ids=["ssh", "ssh --command", "provision", "verify"],
)
@pytest.mark.slow
def test_what_says_that_it_is_paused(
    paused: tuple[Project, Path], verb: list[str], hint: str
) -> None:
    app, replay = paused
    done = app.fab(*verb)
    name = json.loads((replay / "ps").read_text())[0]["Names"][0]
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr == f"{name} is paused\n  hint: {hint}\n"
    assert not (replay / "changes").exists()


def test_rm_cannot_look_into_it(paused: tuple[Project, Path]) -> None:
    app, replay = paused
    done = app.fab("rm")
    name = json.loads((replay / "ps").read_text())[0]["Names"][0]
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr == (
        f"{name} is paused\n"
        "  work in its git repositories that is not committed or not pushed cannot be listed\n"
        "  hint: fab stop first, or remove it with fab rm --force\n"
    )
    assert not (replay / "changes").exists()


def test_status_and_ls_say_it(paused: tuple[Project, Path]) -> None:
    app, _ = paused
    assert json.loads(app.fab("status", "--json").stdout)["state"] == "paused"
    [found] = json.loads(app.fab("ls", "--json").stdout)["instances"]
    assert found["state"] == "paused"


@pytest.mark.slow
def test_disk_is_what_the_kernel_says_now(paused: tuple[Project, Path]) -> None:
    app, _ = paused
    assert json.loads(app.fab("status", "--json").stdout)["disk_gib"] is None
    for verb in ("status", "ls"):
        assert "not limited" in app.fab(verb).stdout
    [folder] = Path(app.environment["XDG_STATE_HOME"]).glob("vagrantp/app-*")
    made = json.loads((folder / "machine.json").read_text())
    made["provider"]["has_quota"] = True
    (folder / "machine.json").write_text(json.dumps(made))
    root = os.statvfs("/")  # of the process that stands for the container's first one
    gib = root.f_blocks * root.f_frsize // 1024**3
    assert made["settings"]["disk"] != gib
    assert json.loads(app.fab("status", "--json").stdout)["disk_gib"] == gib
    assert re.search(rf"^disk +{gib} GiB$", app.fab("status").stdout, re.MULTILINE)
    assert f" {gib} GiB " in app.fab("ls").stdout


@pytest.mark.parametrize(("option", "seconds"), [((), 10), (("--force",), 0)])
def test_stop_lets_it_go_on_and_stops_it(
    paused: tuple[Project, Path], option: tuple[str, ...], seconds: int
) -> None:
    app, replay = paused
    done = app.fab("stop", *option)
    name = json.loads((replay / "ps").read_text())[0]["Names"][0]
    assert (done.returncode, done.stdout) == (0, f"{name} is stopped\n"), done.stderr
    changes = f"unpause {name}\nstop --time {seconds} {name}\n"
    assert (replay / "changes").read_text() == changes


@pytest.mark.parametrize("state", ["running", "paused", "stopping"])
@pytest.mark.slow
def test_stop_never_says_so_of_what_is_not(paused: tuple[Project, Path], state: str) -> None:
    app, replay = paused
    replay_with(replay, state)
    done = app.fab("stop")
    name = json.loads((replay / "ps").read_text())[0]["Names"][0]
    is_now = "running" if state == "stopping" else state
    assert (done.returncode, done.stdout) == (5, "")
    assert f"{name} is still {is_now}\n" in done.stderr
