"""`ls`, `rm --name` and `ssh-config`: instances whatever became of their projects."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import CONTAINER, MakeProject, Project
from tests.e2e.conftest import remove_container, run, status


def listed(app: Project) -> list[dict[str, Any]]:
    """Return what `ls` says, from a folder that is no project."""
    app.folder.parent.joinpath("elsewhere").mkdir(exist_ok=True)
    elsewhere = Project(app.folder.parent / "elsewhere", app.environment)
    done = elsewhere.fab("ls", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["instances"]
    return found


def test_an_instance_whose_project_is_gone(guests: MakeProject) -> None:
    app = guests("it's mine").write({**CONTAINER, "PORTS": "auto:80"})
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    known = status(app)
    name = known["instance"]
    [found] = listed(app)
    assert found == {**{key: known[key] for key in found}, "ports": found["ports"]}
    assert (found["state"], found["reason"], found["ports"][0]["guest"]) == ("running", None, 80)
    assert app.fab("ls").stdout.splitlines()[1].split()[:3] == [name, "container", "running"]

    config = app.folder.parent / "ssh config"
    config.write_text(app.fab("ssh-config").stdout)
    assert run("ssh", "-F", str(config), name, "hostname").strip() == known["name"]
    run("scp", "-q", "-F", str(config), str(config), f"{name}:copied")
    assert run("ssh", "-F", str(config), name, "cat copied") == config.read_text()

    moved = app.folder.rename(app.folder.with_name("moved"))
    [found] = listed(app)
    assert found["reason"] == f"its folder is gone: fab rm --name {name}"
    elsewhere = Project(moved, app.environment)
    refused = elsewhere.fab("rm", "--name", name)
    assert (refused.returncode, "is running" in refused.stderr) == (8, True)
    assert elsewhere.fab("rm", "--name", name[:-8] + "0" * 8).stdout.startswith("nothing to remove")
    done = elsewhere.fab("rm", "--force", "--name", name)
    assert (done.returncode, done.stdout) == (0, f"{name} is removed\n")
    assert listed(app) == []

    # removed by hand, behind our back
    moved.rename(app.folder)
    assert app.fab("up").returncode == 0
    remove_container(name)
    [found] = listed(app)
    assert (found["state"], found["reason"]) == (
        "broken",
        f"Podman no longer has it: fab rm --name {name}",
    )
    refusal = f"{name} is lost: Podman no longer has it\n  hint: fab rm, then fab up\n"
    for argv in (["up"], ["ssh"], ["ssh", "--command", "true"], ["verify"], ["stop"]):
        done = app.fab(*argv)
        assert (done.returncode, done.stdout) == (8, "")
        assert done.stderr.endswith(refusal)
    shown = status(app)
    assert (shown["state"], shown["reason"]) == ("broken", "Podman no longer has it")
    assert app.fab("rm", "--name", name).returncode == 0
    assert listed(app) == []
