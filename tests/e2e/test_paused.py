"""A guest that somebody has paused: every verb says so, `up` resumes it, `stop` stops it."""

from __future__ import annotations

import pytest

from tests.conftest import CONTAINER, VM, MakeProject
from tests.e2e.conftest import VIRSH, guest, run, status
from tests.e2e.test_ports import ports, said, serve

BOTH = pytest.mark.parametrize("values", [CONTAINER, VM], ids=["container", "vm"])


def pause(name: str, kind: str) -> None:
    """Pause a guest behind our back."""
    run(*(["podman", "pause"] if kind == "container" else [*VIRSH, "suspend"]), name)


@BOTH
def test_a_paused_guest(guests: MakeProject, values: dict[str, object]) -> None:
    kind = str(values["INFRA_TYPE"])
    app = guests("paused").write(values)
    assert app.fab("up").returncode == 0
    guest(app, "nohup sleep 1000 >/dev/null 2>&1 & echo $! > pid; sync")
    name = status(app)["instance"]

    pause(name, kind)
    found = status(app)
    assert (found["state"], found["memory_mib"]) == ("paused", values["MEMORY"])
    for verb in (["ssh"], ["ssh", "--command", "true"], ["provision"], ["verify"]):
        done = app.fab(*verb)
        assert (done.returncode, done.stdout) == (8, "")
        assert done.stderr == f"{name} is paused\n  hint: fab up resumes it\n"
    done = app.fab("rm")
    hint = "fab stop first, or remove it with fab rm --force"
    unseen = "work in its git repositories that is not committed or not pushed cannot be listed"
    refusal = f"{name} is paused\n  {unseen}\n  hint: {hint}\n"
    assert (done.returncode, done.stderr) == (8, refusal)

    # up resumes it, with a changed setting, and what ran in it goes on
    done = app.write({**values, "PORTS": "auto:22,auto:9000"}).fab("up")
    assert done.returncode == 0, done.stderr
    assert "  resume: " in done.stderr
    assert (status(app)["state"], status(app)["changes"]) == ("running", [])
    assert guest(app, "kill -0 $(cat pid); cat /proc/$(cat pid)/comm") == "sleep\n"
    assert app.fab("verify").returncode == 0
    serve(app)
    assert said("127.0.0.1", ports(app)[9000], b"inside") == b"INSIDE"

    # stop stops it, gracefully or not
    for option in ([], ["--force"]):
        pause(name, kind)
        assert app.fab("stop", *option).stdout == f"{name} is stopped\n"
        assert status(app)["state"] == "stopped"
        assert app.fab("up").returncode == 0

    pause(name, kind)
    assert app.fab("rm", "--force").stdout == f"{name} is removed\n"
    assert status(app)["state"] == "absent"


def test_status_reads_a_containers_limits_live(guests: MakeProject) -> None:
    app = guests("live").write(CONTAINER)
    assert app.fab("up").returncode == 0
    run("podman", "update", "--memory=200m", "--cpus=0.5", status(app)["instance"])
    found = status(app)
    assert (found["memory_mib"], found["cpus"]) == (200, 0.5)
