"""Base images, built by this project out of Debian's packages: a box for VMs, an image for Podman.

What goes into them stands in `recipes/<image>/<vm or container>/`: `packages`, `files/` (laid over
the root folder) and `finish` (a script, run at the end). An image is made once for each recipe;
its name holds the recipe's digest, so a changed recipe never meets an old image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Literal
from urllib.parse import urlsplit

from vagrantp.core.errors import ProviderError, cleaned_up_by
from vagrantp.core.libvirt import virsh
from vagrantp.core.places import xdg
from vagrantp.core.system import Host
from vagrantp.images import disks
from vagrantp.instance.seed import USER_SCRIPT

RECIPES = Path(__file__).parent / "recipes"
SUITES = {"debian-12": "bookworm"}  # the catalogue
FIRST = next(iter(SUITES))
BUILD = "2"  # part of the digest: raise it when the code below changes what comes out

GIB = 1024**3
MIB = 1024**2
POOL = "default"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"  # the same on a host and in an image
PUBLIC = ("http://deb.debian.org/debian", "http://deb.debian.org/debian-security")
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"  # else package usrmerge comes, with Perl
INDEXES = ("apt-get", "indextargets", "--format=$(ORIGIN)|$(LABEL)|$(SITE)")
GRUB = Path("/usr/lib/grub/i386-pc")
DOWNLOAD_TIMEOUT = 4 * 3600  # seconds; some images have 10 GB
COPY_TIMEOUT = 60.0  # seconds; libvirt copies a base image in 2 to 5
BOX_SIZE = 1  # GB, of the disk in a base image; a guest's root file system grows to its own disk
CORE_SECTOR = 2048  # where the BIOS boot partition starts: at 1 MiB


# Of every box of ours. vagrant-libvirt puts the file's time into the volume's name when a box has
# no version. It holds the user, so users share no volume: a lock of one user is enough (action/
# handle_box_image.rb, get_volume_name).
VERSION = f"1.{os.getuid()}"
KERNEL = "vmlinuz"  # beside box.img, for accel.py


@dataclass(frozen=True)
class Box:
    """A box in our VAGRANT_HOME: `vagrantp-<image>-<digest>`. `virtual_size` in bytes.

    `kind`: of our own making; made for Vagrant, whose insecure key it lets in, and not for our
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


def ensure_box(host: Host, image: str) -> Box:
    """Return the box of `image`, built and put into libvirt's pool where it was not there yet.

    Raises ProviderError when a tool or the pool is missing or a step fails.
    """
    name = _name(image, "vm")

    def build(work: Path, folder: Path) -> None:
        with host.progress.stage("build base image", f"{image} (once)"):
            build_box(host, SUITES[image], RECIPES / image / "vm", work, folder)

    return put_into_pool(host, Box(name, GIB), build)


def put_into_pool(host: Host, box: Box, make: Callable[[Path, Path], None]) -> Box:
    """Return `box`, made and put into libvirt's pool as far as it was not there yet.

    `make` is called with a folder to work in and the folder, to be made, of the box's files:
    `box.img` and `metadata.json` (format 1 of vagrant-libvirt). Older boxes of the same image go,
    but for those that a disk stands on.

    Raises ProviderError when the pool is missing or a step fails.
    """
    folder = vagrant_home() / "boxes" / box.name
    files = Path(VERSION, "libvirt")
    if (folder / files).exists() and _is_uploaded(host, box):
        return box
    with host.lock(cache(), f"image {box.name}", f"another build of {box.name}"):
        if not (folder / files).exists():
            with _folder(host, box.name) as work:
                make(work, work / "box" / files)
                host.make_dir(folder.parent)
                host.remove(folder)
                host.move(work / "box", folder)
        if not _is_uploaded(host, box):
            with host.progress.stage("upload base image", "(once)"):
                _upload(host, box, folder / files / "box.img")
        _remove_old_boxes(host, box)
    return box


def describe(host: Host, folder: Path) -> None:
    """Write what vagrant-libvirt wants to know of a box in `folder` that is not of our making.

    It knows the disk's size in GB only; where it says less than DISK, DISK counts.
    """
    host.make_dir(folder)
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": 1}
    host.write(folder / "metadata.json", json.dumps(metadata))


def put_image(host: Host, folder: Path, disk: disks.Disk, file: Path) -> None:
    """Put a disk image that is not of our making into the `folder` of a box, as a qcow2."""
    describe(host, folder)
    target = folder / "box.img"
    if disk.format == "qcow2":
        return host.link(target, file)
    argv = ["qemu-img", "convert", "-f", disk.format, "-O", "qcow2", str(file), str(target)]
    host.change(argv, what="convert the image", timeout=3600)


def slug(name: str) -> str:
    """Return a name as the names of boxes and volumes may have it."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())


def ensure_container_image(host: Host, image: str) -> str:
    """Return the Podman reference of `image`, built where it was not there yet.

    Raises ProviderError when a tool is missing or a step fails.
    """
    name = _name(image, "container")
    reference = f"localhost/{name}:latest"
    if is_in_podman(host, reference):
        return reference
    with host.lock(cache(), f"image {name}", f"another build of {name}"):
        if is_in_podman(host, reference):
            return reference
        with (
            host.progress.stage("build base image", f"{image} (once)"),
            _folder(host, name) as work,
        ):
            bootstrap(host, SUITES[image], RECIPES / image / "container", work, work / "root.tar")
            entry = ["/usr/bin/catatonit", "--", "/usr/local/sbin/vagrantp-entry"]
            changes = (
                f"ENTRYPOINT {json.dumps(entry)}",
                "EXPOSE 22/tcp",
                f"LABEL vagrantp.image={image}",
            )
            host.change(
                [
                    *("podman", "import", "--quiet"),
                    *(f"--change={change}" for change in changes),
                    *(str(work / "root.tar"), reference),
                ],
                what="import into podman",
                timeout=600,
            )
        _remove_old_container_images(host, image, name)
    return reference


def is_built(host: Host, infra_type: str, image: str) -> bool:
    """Say whether this user has the base image already."""
    name = _name(image, infra_type)
    if infra_type == "vm":
        return (vagrant_home() / "boxes" / name).is_dir()
    return is_in_podman(host, f"localhost/{name}:latest")


def kernel(image: str) -> Path:
    """Return where the kernel of a base image for VMs is, once that is built."""
    return vagrant_home() / "boxes" / _name(image, "vm") / VERSION / "libvirt" / KERNEL


def is_in_podman(host: Host, reference: str) -> bool:
    """Say whether Podman has an image already."""
    return bool(host.ask(["podman", "image", "exists", reference]).ok)


def _name(image: str, infra_type: str) -> str:
    return f"vagrantp-{image}-{recipe(RECIPES / image / infra_type)}"


def _remove_old_boxes(host: Host, box: Box) -> None:
    """Remove this user's other boxes of the same image, but for one that a disk stands on."""
    image = re.escape(box.name.rpartition("-")[0])
    pattern = re.compile(rf"({image}-[0-9a-f]{{10}})_.*_{re.escape(VERSION)}_box\.img")
    volumes = volumes_in_pool(host)
    if not volumes:
        return
    xml = host.answer(virsh("; ".join(f"vol-dumpxml --pool {POOL} {v}" for v in volumes)))
    backing = set(re.findall(r"<backingStore>\s*<path>[^<]*/([^<]+)</path>", xml))
    for volume in volumes:
        old = pattern.fullmatch(volume)
        if old and volume != box.volume and volume not in backing:
            _step(host, "remove an old image", *virsh("vol-delete", "--pool", POOL, volume))
            host.remove(vagrant_home() / "boxes" / old[1])


def _remove_old_container_images(host: Host, image: str, name: str) -> None:
    """Remove images of older recipes, but for one that a container still stands on."""
    listing = host.answer(["podman", "images", "--noheading", "--format", "{{.Repository}}"])
    pattern = re.compile(rf"localhost/(vagrantp-{re.escape(image)}-[0-9a-f]{{10}})")
    for old in map(pattern.fullmatch, listing.split()):
        if old and old[1] != name:
            used = ("podman", "ps", "--all", "--quiet", f"--filter=ancestor={old[0]}")
            if not host.answer(used).strip():
                _step(host, "remove an old image", "podman", "rmi", f"{old[0]}:latest")


def recipe(folder: Path) -> str:
    """Return the digest of everything that determines an image: its recipe and our own code."""
    digest = hashlib.sha256(BUILD.encode() + USER_SCRIPT.read_bytes())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            mode = b"x" if os.access(path, os.X_OK) else b"-"
            for part in (os.fsencode(path.relative_to(folder)), mode, path.read_bytes()):
                digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()[:10]


def packages(text: str) -> list[str]:
    """Return the names in a package list: one a line, `#` starts a comment."""
    return [name for line in text.splitlines() if (name := line.partition("#")[0].strip())]


def mirrors(targets: str) -> tuple[str, str]:
    """Return the host's mirrors of Debian and of its security updates, else the public ones.

    `targets` holds a line `origin|label|site` for each of the host's indexes. The release that a
    host runs does not matter: every mirror has all of them. Third parties have another origin.
    """
    found: dict[str, str] = {}
    for line in targets.splitlines():
        origin, label, site = [*line.split("|", 2), "", ""][:3]
        if site.startswith("mirror+file:"):  # Debian's own cloud images have these
            site = _first_word(Path("/" + site.removeprefix("mirror+file:").lstrip("/")))
        if origin == "Debian" and urlsplit(site).scheme in ("http", "https"):
            found.setdefault(label, site.rstrip("/"))
    return found.get("Debian", PUBLIC[0]), found.get("Debian-Security", PUBLIC[1])


def sources(suite: str, debian: str, security: str) -> str:
    """Return the sources.list of an image."""
    return "".join(
        f"deb [signed-by={KEYRING}] {site} {name} main\n"
        for site, name in (
            (debian, suite),
            (debian, f"{suite}-updates"),
            (security, f"{suite}-security"),
        )
    )


def for_guest(site: str, public: str) -> str:
    """Return the mirror that a guest can use: its own localhost is not the host's.

    One with a password is for this host alone.
    """
    found = urlsplit(site)
    name = found.hostname or ""
    is_hosts_own = name in ("localhost", "::1") or name.startswith("127.") or found.username
    return public if is_hosts_own else site


def apt_settings(dump: str) -> tuple[list[str], list[str]]:
    """Split the host's `apt-config dump` into what belongs to its mirrors and to its own network.

    The former (may a mirror be old) stays in an image, the latter (proxies, …) counts during the
    build only.
    """
    lines = dump.splitlines()
    mirror = ("Acquire::Check-Valid-Until ", "Acquire::Check-Date ", "Acquire::Max-ValidTime")
    network = ("Acquire::http", "Acquire::Retries ", "Acquire::ForceIPv")
    return (
        [line for line in lines if line.startswith(mirror)],
        [line for line in lines if line.startswith(network)],
    )


def boot_code(boot: bytes, core: bytes, core_sector: int) -> tuple[bytes, bytes]:
    """Return GRUB's code for the first sector and for `core_sector` on, knowing of each other.

    What `grub-bios-setup` does, which needs a block device. Offsets: GRUB's include/grub/i386/pc/
    boot.h, GRUB_BOOT_MACHINE_KERNEL_SECTOR, and the block list at the end of diskboot.S. The
    partition table in the first sector starts at 446, the disk's signature at 440.
    """
    first, rest = bytearray(boot[:440]), bytearray(core)
    struct.pack_into("<Q", first, 0x5C, core_sector)
    struct.pack_into("<Q", rest, 512 - 12, core_sector + 1)
    return bytes(first), bytes(rest)


def build_box(host: Host, suite: str, source: Path, work: Path, folder: Path) -> None:
    """Build the box of the recipe in `source` into `folder`, in the folder `work`.

    Raises ProviderError when a step fails.
    """
    bootstrap(host, suite, source, work, work / "root")
    disk, core = work / "disk.raw", work / "core.img"
    _step(host, "partition", "truncate", f"--size={BOX_SIZE}G", str(disk))
    _step(
        host,
        "partition",
        *("parted", "--script", str(disk), "mklabel", "gpt"),
        *("mkpart", "bios", "1MiB", "2MiB", "set", "1", "bios_grub", "on"),
        *("mkpart", "root", "ext4", "2MiB", f"{BOX_SIZE * 1024 - 1}MiB"),
    )
    # No features that a newer host's mke2fs may have and the guest's GRUB or fsck has not.
    _step(
        host,
        "make the file system",
        *_as_root(),
        *("mke2fs", "-q", "-t", "ext4", "-L", "root", "-m", "1", "-d", str(work / "root")),
        *("-O", "^metadata_csum_seed,^orphan_file", "-E", f"offset={2 * MIB}"),
        *(str(disk), f"{BOX_SIZE * 1024 - 3}M"),
    )
    _step(
        host,
        "make the boot loader",
        *("grub-mkimage", "-O", "i386-pc", "-p", "(,gpt2)/boot/grub", "-o", str(core)),
        *("biosdisk", "part_gpt", "ext2", "normal", "linux"),
    )
    if not host.dry:
        first, rest = boot_code((GRUB / "boot.img").read_bytes(), core.read_bytes(), CORE_SECTOR)
        with disk.open("r+b") as file:
            file.write(first)
            file.seek(CORE_SECTOR * 512)
            file.write(rest)
    host.make_dir(folder)
    _step(
        host,
        "compress",
        *("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd"),
        *(str(disk), str(folder / "box.img")),
    )
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": BOX_SIZE}
    host.write(folder / "metadata.json", json.dumps(metadata))
    if not host.dry:
        host.write(folder / KERNEL, (work / "root/vmlinuz").read_bytes())


def bootstrap(host: Host, suite: str, source: Path, work: Path, target: Path) -> None:
    """Install the recipe in `source`, of a Debian suite, into `target`, a folder or a .tar file.

    Raises ProviderError when a step fails.
    """
    sites = mirrors(host.answer(INDEXES))
    lasting, passing = apt_settings(host.answer(["apt-config", "dump"]))
    inside = [for_guest(site, public) for site, public in zip(sites, PUBLIC, strict=True)]
    host.write(work / "apt.conf", "\n".join(passing) + "\n", 0o644)
    host.write(work / "sources.list", sources(suite, *inside), 0o644)
    hooks = {
        # A checkout's own owners and umask do not matter: all is root's, and everyone's to read.
        "setup": f"tar --directory={_quote(source / 'files')} --create --owner=root:0 "
        '--group=root:0 --mode=u=rwX,go=rX . | tar --directory="$1" --extract && '
        f'cp {_quote(work / "apt.conf")} "$1/etc/apt/apt.conf.d/00host"',
        "customize": f'rm "$1/etc/apt/apt.conf.d/00host" && '
        f'cp {_quote(work / "sources.list")} "$1/etc/apt/sources.list" && '
        f'sh {_quote(source / "finish")} "$1"',
    }
    argv = [
        *_as_root(),
        *("mmdebstrap", "--verbose", "--mode=root", "--variant=minbase"),
        f"--hook-dir={MERGED_USR}",
        f"--include={','.join(packages((source / 'packages').read_text()))}",
        *(f"--aptopt={line}" for line in lasting),
        *(f"--{when}-hook={command}" for when, command in hooks.items()),
        *(suite, str(target), sources(suite, *sites)),
    ]
    count = PackageCount()
    host.progress.done(lambda: str(count))
    what = "install packages"
    host.change(argv, what=what, timeout=3600, note=count.take, explain=apts_reason)


@dataclass
class PackageCount:
    """How many packages apt and dpkg have set up, by what they tell."""

    wanted: int = 0  # by now: apt is run more than once
    done: set[str] = field(default_factory=set)  # by name, as one may be upgraded by the next run

    def take(self, line: str) -> None:
        """Take a line of their output."""
        if found := re.match(r"(\d+) upgraded, (\d+) newly installed", line):
            self.wanted += int(found[1]) + int(found[2])
        if found := re.match(r"Setting up (\S+)", line):
            self.done.add(found[1])

    def __str__(self) -> str:
        return f"package {len(self.done)} of {self.wanted}" if self.wanted else ""


def apts_reason(lines: list[str]) -> str:
    """Pick the line that matters: apt's own error is the first, and mmdebstrap's come behind it."""
    return next((line.removeprefix("E: ") for line in lines if line.startswith("E: ")), "")


def _upload(host: Host, box: Box, file: Path) -> None:
    """Put a box into the pool, so that vagrant-libvirt finds it there and does not do it itself.

    Its own upload, killed, leaves half a volume that the next one takes for a whole one. Ours
    goes to another name; the server then makes the copy, unpacked, under the right one. While
    `.part` is there the other one does not count, so it is never half either.
    """
    part = f"{box.volume}.part"
    size = str(box.virtual_size)

    def volume(verb: str, *arguments: str) -> None:
        _step(host, "upload to libvirt", *virsh(verb, "--pool", POOL, *arguments))

    def remove() -> None:
        for name in (box.volume, part):
            deadline = monotonic() + COPY_TIMEOUT
            while name in volumes_in_pool(host) and not host.dry:
                try:
                    volume("vol-delete", name)
                except ProviderError:
                    # A killed client's copy goes on in the server: "still being allocated".
                    if monotonic() > deadline:
                        raise
                    sleep(0.5)

    def remove_half() -> None:
        if not host.dry and not _is_uploaded(host, box):
            remove()

    remove()
    with cleaned_up_by(remove_half):
        volume("vol-create-as", part, size, "--format", "qcow2")
        volume("vol-upload", part, str(file))
        # The server opens what the copy names, as root; the file may have changed since the check.
        with host.scratch(vagrant_home()) as folder:
            volume("vol-download", part, str(folder / "header"), f"--length={disks.HEADER}")
            if not host.dry:
                header = (folder / "header").read_bytes()
                disks.refuse_other(box.name, header, box.virtual_size)
        volume("vol-clone", part, box.volume)
        volume("vol-delete", part)


def _is_uploaded(host: Host, box: Box) -> bool:
    volumes = volumes_in_pool(host)
    return box.volume in volumes and f"{box.volume}.part" not in volumes


def volumes_in_pool(host: Host) -> list[str]:
    """Return the names of all volumes in the storage pool of VMs."""
    lines = host.answer(virsh("vol-list", "--pool", POOL)).splitlines()
    return [line.split()[0] for line in lines if line.strip()]


@contextmanager
def _folder(host: Host, name: str) -> Iterator[Path]:
    """Give a build a folder, empty at the start and gone at the end.

    It is in the file system of the boxes, so that a finished one gets there by a rename. Whoever
    has it holds the lock, so one that is there already is a killed build's.
    """
    path = vagrant_home() / "tmp" / name
    # The tree belongs to other ids when an ordinary user built it. Nothing is mounted in it (a
    # build has its own mount namespace), and were it so, nothing there would be touched.
    remove = (*_as_root(), "rm", "-rf", "--one-file-system", str(path))
    if path.exists():
        _step(host, "clean up", *remove)
    host.make_dir(path)
    with cleaned_up_by(lambda: _step(host, "clean up", *remove)):
        yield path


def _as_root() -> list[str]:
    """Return what makes a command root in namespaces of its own.

    All that it started ends with it, killed or not, and nothing that it mounts is seen outside.
    An ordinary user is root there with the ids of /etc/subuid.
    """
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return argv if os.getuid() == 0 else [*argv, "--map-root-user", "--map-auto"]


def _step(host: Host, what: str, *argv: str, timeout: float = 600) -> None:
    host.change(argv, what=what, timeout=timeout)


def cache() -> Path:
    """Return our folder for what can be had again."""
    return xdg("CACHE", ".cache")


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def _first_word(path: Path) -> str:
    try:
        return (path.read_text().split() or [""])[0]
    except OSError:
        return ""
