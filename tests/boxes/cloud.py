"""A cloud image as others make them, for tests: our base image with cloud-init as Debian has it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.images import bootstrap, built, store

ROOT = 2 * bootstrap.MIB  # where the root file system starts
OURS = (
    "/etc/systemd/system/sysinit.target.wants/vagrantp-seed.service",
    "/etc/cloud/cloud.cfg.d/90_vagrantp.cfg",
    "/etc/cloud/ds-identify.cfg",
    "/etc/systemd/network/90-dhcp.network",
    "/etc/sudoers.d/vagrant",
)


def build(target: Path) -> None:
    """Make the qcow2 image `target`: a second or two, once the base image is there."""
    box = built.ensure_box(Host(Context()), built.FIRST)
    source = store.vagrant_home() / "boxes" / box.name / store.VERSION / "libvirt/box.img"
    raw = target.with_suffix(".raw")
    _run("qemu-img", "convert", "-O", "raw", str(source), str(raw))
    for path in OURS:
        _run("debugfs", "-w", "-R", f"rm {path}", f"{raw}?offset={ROOT}")
    _run("qemu-img", "convert", "-c", "-O", "qcow2", str(raw), str(target))
    raw.unlink()


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
