"""F2: a disk image that names files of this host. Nothing is made of it, and nothing is opened.

What opens an image runs in a sandbox, for the one whose header we take for a sound one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread

import pytest

from tests.conftest import VM, MakeProject
from tests.e2e.conftest import CACHE, POOL, VAGRANT_HOME, VIRSH, forget_box, run, volumes

GIB = 1024**3
MIB = 1024**2
VMDK = """\
# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW {sectors} FLAT "{secret}" 0
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return a file of this host, larger than the guest's disk: what is let in ends there, too."""
    path = tmp_path / "secret"
    with path.open("wb") as file:
        file.write(b"secret of this host")
        file.truncate(2 * GIB)
    return path


@pytest.fixture
def folder(tmp_path: Path, secret: Path) -> Path:
    """Return a folder of images, each of which names `secret`."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "flat.vmdk").write_text(VMDK.format(sectors=2 * GIB // 512, secret=secret))
    padded = VMDK.format(sectors=2 * GIB // 512, secret=secret).encode().ljust(510, b"\n")
    (folder / "disk.raw").write_bytes(padded + b"\x55\xaa")  # with a partition table, so to speak
    create = ("qemu-img", "create", "-q", "-f", "qcow2")
    run(*create, "-b", str(secret), "-F", "raw", str(folder / "backing.qcow2"))
    data = f"data_file={folder / 'data'},data_file_raw=on"
    run(*create, "-o", data, str(folder / "data.qcow2"), "2G")
    (folder / "data").unlink()
    (folder / "data").symlink_to(secret)
    return folder


@pytest.fixture
def untouched() -> Iterator[None]:
    """Compare the pool with what it was."""
    before = volumes()
    yield
    after = volumes()
    for name in set(after) - set(before):
        run(*VIRSH, "vol-delete", name, "--pool", POOL)
    for name in ("flat", "disk", "backing", "data", "test/escape"):
        forget_box(name)
    assert after == before


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", ["flat.vmdk", "disk.raw", "backing.qcow2", "data.qcow2"])
def test_a_file(project: MakeProject, folder: Path, name: str) -> None:
    app = project().write({**VM, "DISK": 1, "BOX": f"./{name}"})
    shutil.copy(folder / name, app.folder)
    up = app.fab("up")
    assert up.returncode == 2, up.stderr
    assert "BOX must be a disk image in the format qcow2 or raw" in up.stderr
    assert "hint: " in up.stderr
    assert not [*VAGRANT_HOME.glob(f"boxes/vagrantp-{Path(name).stem}-*")]


class Quiet(SimpleHTTPRequestHandler):
    """Serves the folder, and says nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.usefixtures("untouched")
def test_a_download(project: MakeProject, folder: Path) -> None:
    before = {*CACHE.glob("images/*/*")}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/flat.vmdk"
        digest = hashlib.sha256((folder / "flat.vmdk").read_bytes()).hexdigest()
        app = project().write({**VM, "DISK": 1, "BOX": url, "IMAGE_SHA256": digest})
        up = app.fab("up")
    finally:
        server.shutdown()
        server.server_close()
    assert up.returncode == 2, up.stderr
    assert "qcow2 or raw; http://127.0.0.1" in up.stderr
    # what is there the next time may be better
    assert {*CACHE.glob("images/*/*")} == before


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("disk", ["../../there.img", "link.img"])
def test_a_disk_that_is_not_in_its_box(project: MakeProject, folder: Path, disk: str) -> None:
    box = Path.home() / ".vagrant.d/boxes/test-VAGRANTSLASH-escape/0/libvirt"
    box.mkdir(parents=True)
    there = box.parents[1] / "there.img"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(there), "2G")
    (box / "link.img").symlink_to(there)
    (box / "metadata.json").write_text(
        f'{{"provider": "libvirt", "disks": [{{"path": "{disk}"}}]}}'
    )
    try:
        up = project().write({**VM, "DISK": 1, "BOX": "test/escape"}).fab("up")
    finally:
        shutil.rmtree(box.parents[1])
    assert up.returncode == 5, up.stderr
    assert "test-VAGRANTSLASH-escape" in up.stderr


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", ["backing.qcow2", "data.qcow2"])
def test_a_file_that_changes_after_the_check(folder: Path, name: str) -> None:
    """libvirt would copy what the uploaded image names, as root."""
    from invoke.context import Context

    try:
        from vagrantp.core.errors import VagrantpError
        from vagrantp.core.system import Host
        from vagrantp.images import store
    except ImportError:  # 0.1 was flat
        store = import_module("vagrantp.images")
        Host = import_module("vagrantp.run").Host  # type: ignore[misc]
        VagrantpError = import_module("vagrantp.errors").VagrantpError  # type: ignore[misc]

    box = store.Box("vagrantp-backing-0123456789", 2 * GIB, "cloud")

    def make(_work: Path, target: Path) -> None:
        store.describe(host, target)
        (target / "box.img").symlink_to(folder / name)

    host = Host(Context())
    with pytest.raises(VagrantpError, match="qcow2 or raw"):
        store.put_into_pool(host, box, make)


@pytest.mark.parametrize("name", ["backing.qcow2", "data.qcow2"])
def test_qemu_img_sees_one_file(folder: Path, tmp_path: Path, name: str) -> None:
    from invoke.context import Context
    from vagrantp.core.errors import ProviderError
    from vagrantp.core.system import Host
    from vagrantp.images import disks, store

    disk, target = disks.Disk("qcow2", 2 * GIB), tmp_path / "made.qcow2"
    with pytest.raises(ProviderError, match="Could not open"):
        store.to_qcow2(Host(Context()), tmp_path, disk, folder / name, target)
    assert not target.exists()


def test_qemu_img_has_limits(tmp_path: Path) -> None:
    from invoke.context import Context
    from vagrantp.core.errors import ProviderError
    from vagrantp.core.system import Host
    from vagrantp.images import disks, store

    image, target = tmp_path / "image", tmp_path / "made.qcow2"
    image.write_bytes(os.urandom(100 * 1024**2))
    with pytest.raises(
        ProviderError, match="convert the image failed"
    ):  # it is larger than it says
        store.to_qcow2(Host(Context()), tmp_path, disks.Disk("raw", 1024**2), image, target)
    store.to_qcow2(Host(Context()), tmp_path, disks.Disk("raw", 100 * 1024**2), image, target)
    assert disks.look("image", target) == disks.Disk("qcow2", 100 * 1024**2)
    assert target.stat().st_uid == os.getuid()


def test_qemu_img_keeps_to_them_with_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It unpacks a compressed image by some: each would take much address space for itself."""
    from invoke.context import Context
    from vagrantp.core.system import Host
    from vagrantp.images import disks, store

    raw, image = tmp_path / "raw", tmp_path / "image"
    block = os.urandom(MIB)
    raw.write_bytes(b"".join(block[:n] + bytes(MIB - n) for n in range(MIB // 2, MIB, MIB // 256)))
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(image))
    monkeypatch.setattr(store, "CONVERT_MEMORY", 300)
    disk = disks.Disk("qcow2", raw.stat().st_size)
    for number in range(3):
        store.to_qcow2(Host(Context()), tmp_path, disk, image, tmp_path / f"{number}.qcow2")


def test_a_file_that_is_exchanged_while_it_is_copied(tmp_path: Path, secret: Path) -> None:
    """Its guest does so: what was opened is what is copied, whatever the name then leads to."""
    from invoke.context import Context
    from vagrantp.core.system import Host
    from vagrantp.images import disks, store

    image = tmp_path / "image"
    image.write_bytes(bytes(510) + b"\x55\xaa")
    with disks.opened("./image", image) as stream:
        image.unlink()
        image.symlink_to(secret)
        store.copy(Host(Context()), "./image", stream, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(510) + b"\x55\xaa"


@pytest.mark.usefixtures("untouched")
def test_no_program_of_root_unpacks_an_image(folder: Path, tmp_path: Path) -> None:
    """libvirt's vol-clone would, by a qemu-img without limits."""
    from invoke.context import Context
    from vagrantp.core.system import Host
    from vagrantp.images import disks, store

    image, host = tmp_path / "image", Host(Context(), log=tmp_path / "log")
    with image.open("wb") as file:
        file.write(bytes(510) + b"\x55\xaa")
        file.truncate(2 * GIB)
    run(
        "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(image), str(folder / "c.qcow2")
    )
    box = store.Box("vagrantp-data-0123456789", 2 * GIB, "cloud")
    disk = disks.look("c.qcow2", folder / "c.qcow2")

    def make(work: Path, target: Path) -> None:
        store.put_image(host, work, target, disk, folder / "c.qcow2")

    store.put_into_pool(host, box, make)
    try:
        found = run(*VIRSH, "vol-dumpxml", box.volume, "--pool", POOL)
        assert f"{box.volume}.part" not in volumes()
    finally:
        run(*VIRSH, "vol-delete", box.volume, "--pool", POOL)
    assert f"<capacity unit='bytes'>{2 * GIB}<" in found
    assert "<format type='qcow2'/>" in found
    assert "vol-clone" not in (tmp_path / "log").read_text()
