"""`doctor` on this host, which can make VMs and containers, and on it with one thing broken."""

from __future__ import annotations

import json
from pathlib import Path

from vagrantp.providers.libvirt import accel

from tests.conftest import MakeProject, Project, inventory
from tests.e2e.conftest import volumes, wait_for


def probes() -> list[str]:
    """Return what is on the host of trials: others may make instances meanwhile."""
    return [line for line in inventory() if "probe" in line or "namespace" in line]


def test_a_host_that_can(project: MakeProject, tmp_path: Path) -> None:
    other = project("killed")
    state = {"XDG_STATE_HOME": str(tmp_path / "other")}
    killed = Project(other.folder, other.environment | state).start("doctor")
    wait_for("vagrantp-qemu-probe-", "vm")
    killed.kill()  # what is left of its trial the next one removes
    killed.communicate()
    done = project().fab("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] is True
    outcomes = {check["name"]: check["outcome"] for check in document["checks"]}
    runs = "a kernel" if accel.kernel() else "firmware"
    assert {"name": "vm", "outcome": "ok", "found": f"{runs} runs under QEMU", "mend": None} in (
        document["checks"]
    )
    assert outcomes.pop("kvm") in ("ok", "warning")
    assert set(outcomes.values()) == {"ok"}
    assert probes() == []
    assert not [name for name in volumes() if "probe" in name]
    assert list((tmp_path / "state/vagrantp").iterdir()) == []


# What is broken, all at once. Without nft nothing is isolated, either.
MOUNTS = (
    "mount --bind /bin/true $(command -v nft)",
    "mount -o bind,noexec {state} {state}",
    "mount -t tmpfs none /usr/share/rubygems-integration/all/gems",
)
TOLD = {
    "vagrant-libvirt": "loading vagrant-libvirt failed: ",
    "isolation": "the rules are gone",
    "packet filter": "a packet passes nft's rule",
    "container": "a container failed: ",
    "other firewalls": "not tried, as guests are not isolated",
}


def test_a_host_that_cannot(project: MakeProject, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    done = project().fab_amid("; ".join(MOUNTS).format(state=state), "doctor")
    assert done.returncode == 5
    failed = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert all("; to fix: make -C " in line for line in failed)
    told = {line[9:].partition("  ")[0]: line[34:] for line in failed}
    assert told.keys() == TOLD.keys(), done.stdout
    for name, why in TOLD.items():
        assert told[name].startswith(why), done.stdout
    assert done.stderr.endswith(f"{len(failed)} of 24 checks failed\n")
    assert probes() == []
