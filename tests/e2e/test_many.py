"""Many projects at once, some of one name: none gets into another's way."""

from __future__ import annotations

import json
import time
from subprocess import Popen

import pytest

from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import guest, status


def at_once(apps: list[Project], *verb: str) -> list[str]:
    """Run a verb in all projects at the same time; return what each says on stderr."""
    start = time.monotonic()
    running: list[Popen[str]] = [app.start(*verb) for app in apps]
    ends = [process.communicate(timeout=1800) for process in running]
    failed = [err for process, (_, err) in zip(running, ends, strict=True) if process.returncode]
    assert not failed, failed
    print(f"{len(apps)} times {verb[0]} at once: {time.monotonic() - start:.0f} s")
    return [err for _, err in ends]


@pytest.mark.soak
@pytest.mark.parametrize("vms", [0, 3], ids=["containers", "with VMs"])
def test_many_at_once(guests: MakeProject, vms: int) -> None:
    names = [("app", f"in-{number}") for number in range(5)]
    names += [(f"app-{number}", "projects") for number in range(15)]
    small = {**CONTAINER, "MEMORY": 64, "PORTS": "auto:80", "DISK": 1}
    apps = [guests(*name).write(small) for name in names]
    machine = {**VM, "MEMORY": 256, "CPUS": 1}
    apps += [guests(f"vm-{number}").write(machine) for number in range(vms)]
    at_once(apps, "up")
    found = [status(app) for app in apps]
    assert [one["state"] for one in found] == ["running"] * len(apps)
    for what in ("instance", "address"):
        assert len({one[what] for one in found}) == len(apps)
    ports = [port["host"] for one in found for port in one["ports"]]
    assert len(ports) == len(set(ports)) == 20
    at_once(apps, "verify")
    for app, one in zip(apps, found, strict=True):
        assert guest(app, "hostname").strip() == one["name"]
    listed = json.loads(apps[0].fab("ls", "--json").stdout)["instances"]
    assert {one["instance"] for one in listed} == {one["instance"] for one in found}
    at_once(apps, "rm", "--force")
