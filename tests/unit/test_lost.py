"""Whether libvirt still has the disk of a VM, by what virsh says."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.host import vm_checks
from vagrantp.instance.record import Instance

VM = Instance("app", "0a1b2c3d", Path("/app"), "vm")


@pytest.mark.parametrize(
    ("said", "has_disk"),
    [
        ("", True),
        ("Storage volume not found: no storage vol with matching path 'app-0a1b2c3d.img'", False),
        ("cannot stat file '/pool/app-0a1b2c3d.img': No such file or directory", False),
        ("Storage pool not found: no storage pool with matching name 'default'", True),
        ("Requested operation is not valid: storage pool 'default' is not active", True),
    ],
)
def test_the_disk_of_a_vm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, has_disk: bool
) -> None:
    virsh = tmp_path / "virsh"
    lines = f'echo "error: {said}" >&2\nexit 1\n' if said else ""
    virsh.write_text(f"#!/bin/sh\n{lines}")
    virsh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert vm_checks.has_disk(Host(Context()), VM) == has_disk
