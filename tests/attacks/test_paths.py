"""F3, F5: paths that lead to what is no file, and a plain `fab` that is asked for a project's own.

The numbers are those of README.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import CONTAINER, FAB, VM, MakeProject, Project

SOON = 20  # seconds; what waits for a FIFO or reads /dev/zero never ends


def fill(app: Project) -> None:
    """Put there what no reader gets to the end of."""
    os.mkfifo(app.folder / "fifo.yml")
    (app.folder / "zero.yml").symlink_to("/dev/zero")
    (app.folder / "folder.yml").mkdir()
    (app.folder / "loop.yml").symlink_to("loop.yml")


def test_files_that_are_none(project: MakeProject) -> None:
    """24, 51, 53: all errors at once, and at once."""
    scripts = "fifo.yml,zero.yml,folder.yml,loop.yml,/dev/stdin,/proc/self/fd/0,~root/site.yml"
    keys = ("PROVISION_VARS", "SSH_KEY", "CLOUD_INIT", "BOX")
    app = project()
    fill(app)
    for name in ("fifo.yml", "zero.yml"):
        app.write({**VM, "PROVISION_SCRIPT": scripts, **dict.fromkeys(keys, f"./{name}")})
        done = app.fab("validate", timeout=SOON)
        for key in keys:
            assert f"{key} must name a regular file" in done.stderr
        for script in scripts.split(","):
            assert f'"{script}"' in done.stderr
        assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_magic_link_is_what_it_leads_to(project: MakeProject) -> None:
    """53: of this project, and so nothing is asked; of another one, it is."""
    app, other = project(), project("other")
    for each in (app, other):
        (each.folder / "site.yml").write_text("- hosts: all\n")
    way = f"/proc/self/root{other.folder}/site.yml"
    app.write({**CONTAINER, "PROVISION_SCRIPT": way})
    up = app.fab("up", timeout=SOON, accept=False)
    assert (up.returncode, str(other.folder / "site.yml") in up.stderr) == (8, True), up.stderr


@pytest.mark.parametrize("kind", ["/dev/zero", "a FIFO", "a loop", "too large"])
def test_settings_that_have_no_end(project: MakeProject, kind: str) -> None:
    """54."""
    app = project()
    fill(app)
    names = {"/dev/zero": "zero.yml", "a FIFO": "fifo.yml", "a loop": "loop.yml"}
    if kind == "too large":
        with (app.folder / ".env").open("wb") as file:
            file.truncate(1 << 40)
    else:
        (app.folder / names[kind]).rename(app.folder / ".env")
    done = app.fab("validate", timeout=SOON)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


TRAP = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\n"


def test_plain_fab_by_other_ways(project: MakeProject) -> None:
    """55, 56: options, and an environment that lies."""
    app = project().write(VM)
    for name in ("fabfile", "tasks"):
        (app.folder / f"{name}.py").write_text(TRAP)
    here, ours = app.folder, FAB.with_name("vagrantp-fab")
    app.call([ours, "--list"], here, {**app.environment, "PWD": "/", "OLDPWD": "/"})
    app.call([ours, f"--search-root={here}", "--list"], Path("/"), app.environment)
    app.call([ours, "-c", f"{here}/fabfile", "--list"], here, app.environment)
    app.call([ours, "-c", f"{here}/tasks", "--list"], Path("/"), app.environment)
    app.call([ours, "-c", "../app/fabfile", "--list"], here, app.environment)
    names = {"INVOKE_TASKS_SEARCH_ROOT": str(here), "FABRIC_TASKS_SEARCH_ROOT": str(here)}
    app.call([ours, "--list"], here, {**app.environment, **names})
    assert ours.exists()
    assert not (here / "ran").exists()
