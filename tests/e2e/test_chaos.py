"""Verbs that are interrupted or killed at any moment: `rm` leaves the host as it was before.

`make soak` tries VAGRANTP_CHAOS moments (100) of `up` of a container, a quarter as many of `stop`,
`rm` and `provision`, and an eighth as many of `up` of a VM. Every run of all tests tries six of
`up` and three of `rm`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from vagrantp.settings.env import id_from

from tests.conftest import CONTAINER, VM, MakeProject, Project, inventory
from tests.e2e.conftest import guest, run, status

MOMENTS = int(os.environ.get("VAGRANTP_CHAOS", "100"))
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
# While Python still loads fab, and nothing of ours, they end it as they end any Python.
EARLY = {signal.SIGINT: (1, -signal.SIGINT), signal.SIGTERM: (-signal.SIGTERM,)}


@pytest.fixture
def bystander(guests: MakeProject) -> Iterator[None]:
    """Have another project's container, which must not notice anything."""
    app = guests("bystander").write({**CONTAINER, "PORTS": "auto:80"})
    assert app.fab("up").returncode == 0
    guest(app, "echo untouched > file")
    before = _seen(app)
    yield
    assert _seen(app) == before


def _seen(app: Project) -> tuple[str, str, object]:
    """Return the start of its first process, a file in it, and what `status` says."""
    found = status(app)
    pid = run("podman", "inspect", "--format", "{{.State.Pid}}", found["instance"]).strip()
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[19], guest(app, "cat file"), found


def chaos(app: Project, verb: list[str], moments: int, is_made: bool) -> None:
    """Interrupt or kill a verb at `moments` spread over its run, then remove what there is.

    `is_made`: the instance is up before each. The first run, undisturbed, says how long it takes.
    """
    before = inventory()
    seconds, ends = 0.0, Counter[str]()
    for moment in range(-1, moments):
        if is_made:
            made = app.fab("up")
            assert made.returncode == 0, made.stderr
        start = time.monotonic()
        process = app.start(*verb)
        if moment < 0:
            _, err = process.communicate(timeout=900)
            assert process.returncode == 0, err
            seconds = time.monotonic() - start
        else:
            number = SIGNALS[moment % len(SIGNALS)]
            at = seconds * (moment + 0.5) / moments
            told = f"{verb[0]}, {number.name} after {at:.2f} of {seconds:.2f} s"
            try:
                process.wait(at)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
            _, err = process.communicate(timeout=120)
            assert process.returncode in (0, 130, -signal.SIGKILL, *EARLY.get(number, ())), told
            assert process.returncode != -signal.SIGKILL or number == signal.SIGKILL, told
            is_early = process.returncode in EARLY.get(number, ()) and "lib/vagrantp" not in err
            assert is_early or "Traceback" not in err, f"{told}:\n{err}"
            assert "a bug in vagrantp" not in err, f"{told}:\n{err}"
            ends[f"{number.name}: {process.returncode}"] += 1
        done = app.fab("rm", "--force")
        assert done.returncode == 0, f"{told if moment >= 0 else verb}:\n{done.stderr}"
        left = set(inventory()) ^ set(before)
        root = Path(app.environment["XDG_STATE_HOME"], "vagrantp")
        left |= {str(path) for path in root.glob(f"*{id_from(app.folder)}*")}
        assert not left, f"{told if moment >= 0 else verb}: {left}\n{err}"
    print(f"{moments} moments of {verb[0]}, {seconds:.1f} s long, nothing left: {dict(ends)}")


@pytest.mark.parametrize(
    "moments", [6, pytest.param(MOMENTS, marks=pytest.mark.soak)], ids=["few", "many"]
)
@pytest.mark.usefixtures("bystander")
def test_up_of_a_container(guests: MakeProject, moments: int) -> None:
    app = guests("chaos").write({**CONTAINER, "PORTS": "auto:80", "LAN_ALLOW": "host:1"})
    chaos(app, ["up"], moments, is_made=False)


@pytest.mark.parametrize(
    ("verb", "moments"),
    [
        pytest.param("rm --force", 3, id="rm-few"),
        *(
            pytest.param(verb, MOMENTS // 4, marks=pytest.mark.soak, id=f"{verb}-many")
            for verb in ("stop", "rm --force", "provision")
        ),
    ],
)
@pytest.mark.usefixtures("bystander")
def test_other_verbs_of_a_container(guests: MakeProject, verb: str, moments: int) -> None:
    app = guests("chaos").write({**CONTAINER, "PORTS": "auto:80", "PROVISION_SCRIPT": "./step"})
    step = app.folder / "step"
    step.write_text("#!/bin/sh\nsleep 1\n")
    step.chmod(0o755)
    chaos(app, verb.split(), moments, is_made=True)


@pytest.mark.soak
@pytest.mark.usefixtures("bystander")
def test_up_of_a_vm(guests: MakeProject) -> None:
    app = guests("chaos").write({**VM, "PORTS": "auto:80"})
    chaos(app, ["up"], MOMENTS // 8, is_made=False)
