"""Boxes that others made for Vagrant; and base images whose recipe changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.images import built, store

from tests import boxes
from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import forget_box, guest, have_resolver, run, status, volumes

VIRSH = ("virsh", "--quiet", "--connect", "qemu:///system")
POOL = ("--pool", store.POOL)


@pytest.fixture(params=["mbr-lvm", "gpt-btrfs"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the user a box, as `vagrant box add` does, and take it back."""
    name = f"test/{request.param}"
    file = tmp_path / "it.box"
    files = boxes.build(request.param, tmp_path / "box")
    run("tar", "-C", str(files), "-czf", str(file), "metadata.json", "box.img")
    # Not in the checkout: Vagrant would load its Vagrantfile.
    add = ("env", f"--chdir={tmp_path}", "vagrant", "box", "add", "--force", "--name", name)
    run(*add, str(file))
    yield name
    run("env", f"--chdir={tmp_path}", "vagrant", "box", "remove", "--force", name)
    forget_box(name)


@pytest.mark.soak  # tests/e2e/test_bed.py has one of these
def test_a_box_without_cloud_init(guests: MakeProject, box: str) -> None:
    app = guests("it's plain").write({**VM, "BOX": box, "DISK": 4})
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    have_resolver(app)
    is_as_promised(app, disk=4)


@pytest.mark.soak
@pytest.mark.parametrize("values", [CONTAINER, VM], ids=["container", "vm"])
def test_the_image_debian_12(guests: MakeProject, values: dict[str, object]) -> None:
    app = guests("older")
    if values is VM:
        made = "#cloud-config\nwrite_files: [{path: /made, content: made}]\n"
        (app.folder / "user-data").write_text(made)
        app.write({**values, "BOX": "debian-12", "CLOUD_INIT": "user-data"})
    else:
        app.write({**values, "IMAGE": "debian-12"})
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    assert guest(app, ". /etc/os-release; echo $VERSION_ID $LANG") == "12 C.UTF-8\n"
    assert values is CONTAINER or guest(app, "cat /made") == "made"
    verified = app.fab("verify")
    assert verified.returncode == 0, verified.stdout
    assert app.fab("stop").returncode == 0
    assert app.fab("up").returncode == 0
    assert guest(app, "sudo id -u") == "0\n"


def is_as_promised(app: Project, disk: int) -> None:
    """Hold a running VM of a box that others made to what `.env` says. `disk` in GiB."""
    verified = app.fab("verify", "--json")
    checks = {check["name"]: check["outcome"] for check in json.loads(verified.stdout)["checks"]}
    assert set(checks.values()) == {"ok"}, verified.stdout
    assert "root file system" in checks
    root = int(guest(app, "df -B1 / | awk 'NR == 2 {print $2}'"))
    assert (disk - 0.5) * 1024**3 < root < disk * 1024**3  # the box's own disk is smaller
    assert guest(app, "hostname").strip() == status(app)["name"]

    # Vagrant's insecure key, which everyone has, lets nobody in; its own does
    keys = guest(app, "sudo cat /home/vagrant/.ssh/authorized_keys")
    assert "vagrant insecure public key" not in keys
    state = Path(app.environment["XDG_STATE_HOME"]) / "vagrantp" / status(app)["instance"]
    assert (state / "id_ed25519").stat().st_mode & 0o777 == 0o600


def test_a_box_that_is_larger_than_the_disk_or_reads_host_files(
    guests: MakeProject, tmp_path: Path
) -> None:
    home = Path.home() / ".vagrant.d/boxes/test-VAGRANTSLASH-odd/0/libvirt"
    home.mkdir(parents=True)
    (home / "metadata.json").write_text('{"provider":"libvirt","format":"qcow2","virtual_size":1}')
    app = guests("odd").write({**VM, "BOX": "test/odd"})
    try:
        run("qemu-img", "create", "-q", "-f", "qcow2", str(home / "box.img"), "5G")
        done = app.fab("up")
        assert done.returncode == 2
        assert ".env: DISK must be at least 5, the size of test/odd" in done.stderr
        secret = tmp_path / "secret"
        secret.write_text("x" * 4096)
        backed = ("-b", str(secret), "-F", "raw")
        run("qemu-img", "create", "-q", "-f", "qcow2", *backed, str(home / "box.img"), "1G")
        done = app.fab("up")
        assert done.returncode == 2
        assert "test/odd has a backing file" in done.stderr
    finally:
        shutil.rmtree(home.parents[1])
        forget_box("test/odd")


def test_an_old_image_goes_when_nothing_stands_on_it() -> None:
    """Of two old images, the one that a disk stands on stays, whoever's disk it is."""
    present = built.ensure_box(Host(Context()), built.FIRST).volume
    version = f"vagrant_box_image_1.{os.getuid()}_box.img"
    used, unused = (f"vagrantp-{built.FIRST}-{digit * 10}_{version}" for digit in "12")
    overlay = "somebody-elses.img"
    try:
        for volume in (used, unused):
            run(*VIRSH, "vol-create-as", store.POOL, volume, "1M", "--format", "qcow2")
        backing = ("--backing-vol", used, "--backing-vol-format", "qcow2")
        create = (*VIRSH, "vol-create-as", store.POOL, overlay, "1M", "--format", "qcow2")
        run(*create, *backing)
        run(*VIRSH, "vol-delete", present, *POOL)  # as if its recipe were new
        built.ensure_box(Host(Context()), built.FIRST)
        left = volumes()
        assert present in left
        assert used in left
        assert unused not in left
    finally:
        for volume in (overlay, used, unused):
            if volume in volumes():
                run(*VIRSH, "vol-delete", volume, *POOL)
