"""A changed `.env` and a real instance: each change is told, and applied when it is said to be."""

from __future__ import annotations

import pytest

from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import guest, run, status
from tests.unit.samples import CHANGES


@pytest.mark.soak  # tests/unit/test_drift.py has the answers
def test_every_key_of_a_container(guests: MakeProject) -> None:
    app = guests("app").write({**CONTAINER, "PROVISION_SCRIPT": "./step", "NAME": "app"})
    for name in ("one", "two"):
        (app.folder / f"{name}.yml").write_text("{}")
        (app.folder / f"{name}.pub").write_text("ssh-ed25519 AAAAC3\n")
    (app.folder / "step").write_text("#!/bin/sh\n")
    (app.folder / "step").chmod(0o755)
    assert app.fab("up", "--no-provision").returncode == 0
    made = status(app)
    text = (app.folder / ".env").read_text()
    for key, (beside, _, new) in {**CHANGES, "INFRA_TYPE": ({}, "", "vm")}.items():
        app.write({**CONTAINER, "PROVISION_SCRIPT": "base", "NAME": "app", **beside, key: new})
        if app.fab("validate").returncode:
            continue  # for a VM, or not to be had yet
        told = {change["key"]: change["applies"] for change in status(app)["changes"]}
        assert key in told, key
        done = app.fab("up", "--no-provision")
        assert done.returncode == (8 if "to a new instance" in told.values() else 0), done.stderr
        assert f"  {key}: " in done.stderr
        assert " → " in done.stderr
        changes = {change["key"] for change in status(app)["changes"]}
        assert (key in changes) == (told[key] != "at once"), key
        (app.folder / ".env").write_text(text)
        assert app.fab("up", "--no-provision").returncode == 0
        assert status(app) == made
    (app.folder / ".env").write_text("MEMORY=")
    assert status(app)["changes"] == []
    (app.folder / ".env").unlink()
    assert status(app)["changes"] == []


def test_what_a_start_brings_to_a_container(guests: MakeProject) -> None:
    app = guests("app").write(CONTAINER)
    assert app.fab("up").returncode == 0
    app.write({**CONTAINER, "MEMORY": 300, "DISK": 5})
    shown = app.fab("status").stdout
    assert "changes    MEMORY: 256 → 300 (applies at the next start); DISK: 3 → 5 (fab up" in shown
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    assert "  MEMORY: 256 → 300 at the next start\n  DISK: 3 → 5 at once\n" in done.stderr
    assert "DISK=5 is not enforced" in done.stderr
    assert app.fab("verify").returncode == 9
    assert app.fab("stop").returncode == 0
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    assert "  MEMORY: 256 → 300\n" in done.stderr
    assert guest(app, "df -m /dev/shm | awk 'END {print $2}'") == "150\n"
    assert app.fab("verify").returncode == 0
    assert status(app)["changes"] == []


@pytest.mark.soak
@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_a_disk_grows_with_what_is_on_it(guests: MakeProject, is_running: bool) -> None:
    app = guests("app").write({**VM, "DISK": 5})
    assert app.fab("up").returncode == 0
    guest(app, "head -c 1G /dev/urandom > big && sync")
    digest = guest(app, "sha256sum big")
    if not is_running:
        assert app.fab("stop").returncode == 0
    done = app.write({**VM, "DISK": 8}).fab("up")
    assert done.returncode == 0, done.stderr
    assert "  DISK: 5 → 8" in done.stderr
    _is_8(app, digest)
    refused = app.write({**VM, "DISK": 5}).fab("up")
    assert (refused.returncode, refused.stdout) == (8, "")
    assert "DISK: 8 → 5 (a disk grows, and never shrinks)" in refused.stderr
    app.write({**VM, "DISK": 8})
    _is_8(app, digest)


def _is_8(app: Project, digest: str) -> None:
    """See that the root file system fills 8 GiB, and that the file is as it was."""
    assert app.fab("verify").returncode == 0
    assert status(app)["disk_gib"] == 8
    assert int(guest(app, "df --block-size=1 --output=size / | tail -1")) > 7.6 * 1024**3
    volume = ("--pool", "default", f"{status(app)['instance']}.img")
    info = run("virsh", "--quiet", "--connect", "qemu:///system", "vol-info", "--bytes", *volume)
    assert str(8 * 1024**3) in info
    assert guest(app, "sha256sum big") == digest
