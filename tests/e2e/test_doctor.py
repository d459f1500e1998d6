"""`doctor` on this host, which can make VMs and containers, and on it with one thing broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import MakeProject, inventory


def probes() -> list[str]:
    """Return what is on the host of trials: others may make instances meanwhile."""
    return [line for line in inventory() if "probe" in line or "namespace" in line]


def test_a_host_that_can(project: MakeProject, tmp_path: Path) -> None:
    done = project().fab("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] is True
    outcomes = {check["name"]: check["outcome"] for check in document["checks"]}
    assert outcomes.pop("kvm") in ("ok", "warning")
    assert set(outcomes.values()) == {"ok"}
    assert probes() == []
    assert list((tmp_path / "state/vagrantp").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "mounts", "why"),
    [
        # takes every rule and applies none
        ("packet filter", "mount --bind /bin/true $(command -v nft)", "a packet passes nft's rule"),
        ("container", "mount -o bind,noexec {state} {state}", "a container failed: "),
        ("vagrant-libvirt", "mount -t tmpfs none {gems}", "loading vagrant-libvirt failed: "),
    ],
)
def test_a_host_that_cannot(
    project: MakeProject, tmp_path: Path, name: str, mounts: str, why: str
) -> None:
    (tmp_path / "state").mkdir()
    places = {"state": tmp_path / "state", "gems": "/usr/share/rubygems-integration/all/gems"}
    done = project().fab_amid(mounts.format(**places), "doctor")
    assert done.returncode == 5
    failed = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert failed[-1].startswith(f"failed   {name:<23}  {why}")
    assert all("; to mend: make -C " in line for line in failed)
    # without nft nothing is isolated, either
    assert len(failed) == (2 if name == "packet filter" else 1), done.stdout
    assert done.stderr.endswith(f"{len(failed)} of 22 checks failed\n")
    assert probes() == []
