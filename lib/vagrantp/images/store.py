"""Boxes in our VAGRANT_HOME, and their volumes in the storage pool of VMs."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO, Literal

from vagrantp.core import documents
from vagrantp.core.errors import HostLimitError, ProviderError, cleaned_up_by
from vagrantp.core.libvirt import virsh
from vagrantp.core.places import xdg
from vagrantp.core.sandbox import Sandbox
from vagrantp.core.system import Host
from vagrantp.images import disks

POOL = "default"
COPY_TIMEOUT = 60.0  # seconds; libvirt copies a base image in 2 to 5
CONVERT_TIMEOUT = 3600  # seconds, of the clock and of the processor
CONVERT_MEMORY = 1024  # MB of address space; qemu-img convert takes less than half of that
# It has up to 64 threads, for each of which glibc would set 64 MB of address space aside.
CONVERT_ENV = {"MALLOC_ARENA_MAX": "1"}
MIB = 1024**2
DOWNLOAD_TIMEOUT = 4 * 3600  # seconds; some images have 10 GB


# Of all our boxes. Without a version, vagrant-libvirt puts the file's time into the volume's name
# (action/handle_box_image.rb, get_volume_name). It names the user, so users share no volume, and a
# lock of one user is enough.
VERSION = f"1.{os.getuid()}"
MADE = "2"  # in the digest of others' boxes: raise it when the code below makes another one of them


@dataclass(frozen=True)
class Box:
    """A box in our VAGRANT_HOME: `vagrantp-<image>-<digest>`. `virtual_size` in bytes.

    `kind`: built by us; made for Vagrant, whose insecure key it accepts, and without use for our
    seed; or a cloud image, which cloud-init sets up.
    """

    name: str
    virtual_size: int
    kind: Literal["ours", "vagrant", "cloud"] = "ours"

    @property
    def volume(self) -> str:
        """The volume of pool `default` that holds it."""
        return f"{self.name}_vagrant_box_image_{VERSION}_box.img"


def vagrant_home() -> Path:
    """Return our own VAGRANT_HOME."""
    return xdg("DATA", ".local/share") / "vagrant"


def cache() -> Path:
    """Return our folder for what can be downloaded or built again."""
    return xdg("CACHE", ".cache")


def put_into_pool(
    host: Host, box: Box, make: Callable[[Path, Path], None], is_renewal: bool = False
) -> Box:
    """Return `box`, made and put into libvirt's pool as far as it was not there yet.

    `make` is called with a folder to work in and the folder, to be made, of the box's files:
    `box.img` and `metadata.json` (format 1 of vagrant-libvirt). Older boxes of the same image are
    removed, except those that a disk is based on; or none of them, of a renewal.

    Raises ProviderError when the pool is missing or a step fails.
    """
    folder = vagrant_home() / "boxes" / box.name
    files = Path(VERSION, "libvirt")
    if (folder / files).exists() and _is_uploaded(host, box):
        return box
    with host.lock(cache(), f"image {box.name}", f"another build of {box.name}"):
        if not (folder / files).exists():
            with work_folder(host, box.name) as work:
                make(work, work / "box" / files)
                host.make_dir(folder.parent)
                host.remove(folder)
                host.move(work / "box", folder)
        if not _is_uploaded(host, box):
            with host.progress.stage("upload base image", "" if is_renewal else "(once)"):
                _upload(host, box, folder / files / "box.img")
        if not is_renewal:
            remove_old_boxes(host, box, ())
    return box


def discard(host: Host, box: Box) -> None:
    """Remove what was made of a box that nobody knows of: its files, its volume or half of it."""
    host.remove(vagrant_home() / "boxes" / box.name)
    _remove_volumes(host, box)


def describe(host: Host, folder: Path) -> None:
    """Write what vagrant-libvirt must know about a box in `folder` that we did not build.

    It takes the disk's size in GB only; where that is less than DISK, DISK counts.
    """
    host.make_dir(folder)
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": 1}
    host.write(folder / "metadata.json", json.dumps(metadata))


def put_image(host: Host, work: Path, folder: Path, disk: disks.Disk, file: Path) -> None:
    """Put a disk image that we did not build into the `folder` of a box, as a qcow2.

    A qcow2 is converted, too: its tables may be anything, and what opens the box next does so
    without limits.
    """
    describe(host, folder)
    with host.progress.stage("convert the image"):
        to_qcow2(host, work, disk, file, folder / "box.img")
    if not host.dry:
        disks.refuse_uefi(_head(host, work, folder / "box.img"))


def _head(host: Host, work: Path, box: Path) -> bytes:
    """Return the first sectors of the disk in a box."""
    made = work / "head"
    host.make_dir(made)
    copied = ("-f", "qcow2", "-O", "raw", f"bs={disks.SECTOR}", f"count={disks.HEAD}")
    argv = ["qemu-img", "dd", *copied, f"if={box}", f"of={made / 'sectors'}"]
    sandbox = Sandbox(reads=(box,), writes=(made,), memory=CONVERT_MEMORY, file_size=1, cpu=60)
    host.change(argv, what="look at the image", timeout=60, sandbox=sandbox)
    host.make_plain(made)
    return documents.content(made / "sectors", at_most=disks.HEAD * disks.SECTOR)


def to_qcow2(
    host: Host, work: Path, disk: disks.Disk, file: Path, target: Path, *options: str
) -> None:
    """Convert a disk image, in a sandbox that sees it alone, and has limits of memory and time.

    `work`: a folder in the target's file system. Raises ProviderError when qemu-img fails.
    """
    made = work / "made"
    host.make_dir(made)
    image = made / "box.img"
    sandbox = Sandbox(
        reads=(file,),
        writes=(made,),
        env=CONVERT_ENV,
        memory=CONVERT_MEMORY,
        file_size=disk.virtual_size // MIB * 5 // 4 + 64,  # its tables are far less than a quarter
        cpu=CONVERT_TIMEOUT,
    )
    command = ("qemu-img", "convert", "-f", disk.format, "-O", "qcow2", *options)
    argv = [*command, str(file), str(image)]
    host.change(argv, what="convert the image", timeout=CONVERT_TIMEOUT, sandbox=sandbox)
    host.make_plain(made)
    if not host.dry and (image.is_symlink() or not image.is_file()):
        raise ProviderError("convert the image failed: what it made is no file")
    host.move(image, target)


def copy(host: Host, name: str, stream: BinaryIO, target: Path) -> None:
    """Copy what is open as `stream`, the file of BOX=`name`; as a reflink where that can be.

    Raises HostLimitError where the disk has no room for it.
    """
    needed, folder = os.fstat(stream.fileno()).st_blocks * 512, target.parent
    if not host.dry and (there := shutil.disk_usage(folder).free) < needed:
        text = f"{folder} has {there // MIB} MB free, and a copy of {name} takes {needed // MIB} MB"
        raise HostLimitError(text, f"make room: df -h {folder}")
    host.change(
        ["cp", "--reflink=auto", "--sparse=always", "/dev/stdin", str(target)],
        what=f"copying {name}",
        timeout=CONVERT_TIMEOUT,
        stdin=Path(f"/proc/{os.getpid()}/fd/{stream.fileno()}"),
    )


def slug(name: str) -> str:
    """Return a name in the characters that names of boxes and volumes may have."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())


def volumes_in_pool(host: Host) -> list[str]:
    """Return the names of all volumes in the storage pool of VMs."""
    lines = host.answer(virsh("vol-list", "--pool", POOL)).splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def remove_old_boxes(host: Host, box: Box, keep: Collection[str]) -> None:
    """Remove this user's other boxes of the same image, except those that a disk is based on.

    `keep`: names of boxes that an `up` may be about to make a disk of.
    """
    image = re.escape(box.name.rpartition("-")[0])
    pattern = re.compile(rf"({image}-[0-9a-f]{{10}})_.*_{re.escape(VERSION)}_box\.img")
    volumes = volumes_in_pool(host)
    if not volumes:
        return
    xml = host.answer(virsh("; ".join(f"vol-dumpxml --pool {POOL} {v}" for v in volumes)))
    backing = set(re.findall(r"<backingStore>\s*<path>[^<]*/([^<]+)</path>", xml))
    for volume in volumes:
        old = pattern.fullmatch(volume)
        is_kept = old and (volume == box.volume or volume in backing or old[1] in keep)
        if old and not is_kept:
            step(host, "remove an old image", *virsh("vol-delete", "--pool", POOL, volume))
            host.remove(vagrant_home() / "boxes" / old[1])


def _upload(host: Host, box: Box, file: Path) -> None:
    """Put a box into the pool, so that vagrant-libvirt finds it there and does not do it itself.

    Its own upload, killed, leaves half a volume that the next one takes for a whole one. While
    ours has a `.part` beside it, it does not count. A box that we built goes there, and the server
    makes the copy, unpacked, under the right name. Others' it would read as root, by a qemu-img
    without limits: they are unpacked already.
    """
    part = _part(box)
    size = str(box.virtual_size)

    def volume(verb: str, *arguments: str) -> None:
        step(host, "upload to libvirt", *virsh(verb, "--pool", POOL, *arguments))

    def remove_half() -> None:
        if not host.dry and not _is_uploaded(host, box):
            _remove_volumes(host, box)

    _remove_volumes(host, box)
    with cleaned_up_by(remove_half):
        volume("vol-create-as", part, size, "--format", "qcow2")
        uploaded = part if box.kind == "ours" else box.volume
        if uploaded != part:
            volume("vol-create-as", uploaded, size, "--format", "qcow2")
        volume("vol-upload", uploaded, str(file))
        # The server opens what a volume names, as root; the file may have changed since the check.
        with host.scratch(vagrant_home()) as folder:
            volume("vol-download", uploaded, str(folder / "header"), f"--length={disks.HEADER}")
            if not host.dry:
                header = (folder / "header").read_bytes()
                disks.refuse_other(box.name, header, box.virtual_size)
        if uploaded == part:
            volume("vol-clone", part, box.volume)
        volume("vol-delete", part)


def _remove_volumes(host: Host, box: Box) -> None:
    for name in (box.volume, _part(box)):
        deadline = monotonic() + COPY_TIMEOUT
        while name in volumes_in_pool(host) and not host.dry:
            try:
                step(host, "clean up", *virsh("vol-delete", "--pool", POOL, name))
            except ProviderError:
                # A killed client's copy goes on in the server: "still being allocated".
                if monotonic() > deadline:
                    raise
                sleep(0.5)


def _part(box: Box) -> str:
    """Return the name of the volume that is there while a box is uploaded."""
    return f"{box.volume}.part"


def _is_uploaded(host: Host, box: Box) -> bool:
    volumes = volumes_in_pool(host)
    return box.volume in volumes and _part(box) not in volumes


@contextmanager
def work_folder(host: Host, name: str) -> Iterator[Path]:
    """Give a build a folder, empty at the start and gone at the end.

    It is in the file system of the boxes, so that a finished one gets there by a rename. Its user
    holds the lock, so one that is there already was left by a killed build.
    """
    path = vagrant_home() / "tmp" / name
    remove_work(host, name)
    host.make_dir(path)
    with cleaned_up_by(lambda: remove_work(host, name)):
        yield path


def remove_work(host: Host, name: str) -> None:
    """Remove the folder of a build, if it is there."""
    path = vagrant_home() / "tmp" / name
    if path.exists():
        # The tree belongs to other ids when an ordinary user built it. Nothing is mounted in it (a
        # build has its own mount namespace), and were it so, nothing there would be touched.
        step(host, "clean up", *as_root(), "rm", "-rf", "--one-file-system", str(path))


def as_root() -> list[str]:
    """Return the start of a command that is to run as root in namespaces of its own.

    All that it started ends with it, killed or not, and nothing that it mounts is seen outside.
    An ordinary user is root there with the ids of /etc/subuid.
    """
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return argv if os.getuid() == 0 else [*argv, "--map-root-user", "--map-auto"]


def step(host: Host, what: str, *argv: str, timeout: float = 600) -> None:
    """Take one step of a build. `timeout` in seconds. Raises ProviderError."""
    host.change(argv, what=what, timeout=timeout)
