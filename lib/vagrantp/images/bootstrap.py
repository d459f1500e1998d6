"""Builds the root folder and the disk of a base image, out of Debian's packages."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import struct
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from vagrantp.core.system import Host
from vagrantp.images.disks import GIB, Disk
from vagrantp.images.store import as_root, step, to_qcow2
from vagrantp.instance.seed import USER_SCRIPT

MIB = 1024**2
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"  # the same on a host and in an image
PUBLIC = ("http://deb.debian.org/debian", "http://deb.debian.org/debian-security")
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"  # else package usrmerge comes, with Perl
INDEXES = ("apt-get", "indextargets", "--format=$(ORIGIN)|$(LABEL)|$(SITE)")
GRUB = Path("/usr/lib/grub/i386-pc")
BOX_SIZE = 1  # GB, of the disk in a base image; a guest's root file system grows to its own disk
CORE_SECTOR = 2048  # where the BIOS boot partition starts: at 1 MiB
KERNEL = "vmlinuz"  # beside box.img, for accel.py


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
    """Return GRUB's code for the first sector and for `core_sector` on, linked to each other.

    As `grub-bios-setup` does, which needs a block device. Offsets: GRUB's include/grub/i386/pc/
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
    step(host, "partition", "truncate", f"--size={BOX_SIZE}G", str(disk))
    step(
        host,
        "partition",
        *("parted", "--script", str(disk), "mklabel", "gpt"),
        *("mkpart", "bios", "1MiB", "2MiB", "set", "1", "bios_grub", "on"),
        *("mkpart", "root", "ext4", "2MiB", f"{BOX_SIZE * 1024 - 1}MiB"),
    )
    # No features that a newer host's mke2fs may have and the guest's GRUB or fsck has not.
    step(
        host,
        "make the file system",
        *as_root(),
        *("mke2fs", "-q", "-t", "ext4", "-L", "root", "-m", "1", "-d", str(work / "root")),
        *("-O", "^metadata_csum_seed,^orphan_file", "-E", f"offset={2 * MIB}"),
        *(str(disk), f"{BOX_SIZE * 1024 - 3}M"),
    )
    step(
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
    options = ("-c", "-o", "compression_type=zstd")
    to_qcow2(host, work, Disk("raw", BOX_SIZE * GIB), disk, folder / "box.img", *options)
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
    host.write(work / "build.list", sources(suite, *sites))  # a mirror may have a password
    user = "user=vagrant keys= is_made_later=no\n" + USER_SCRIPT.read_text("utf-8")
    host.write(work / "user.sh", user)
    hooks = {
        # A checkout's own owners and umask do not matter: all is root's, and everyone's to read.
        "setup": f"tar --directory={_quote(source / 'files')} --create --owner=root:0 "
        '--group=root:0 --mode=u=rwX,go=rX . | tar --directory="$1" --extract && '
        f'cp {_quote(work / "apt.conf")} "$1/etc/apt/apt.conf.d/00host"',
        "customize": f'rm "$1/etc/apt/apt.conf.d/00host" && '
        f'cp {_quote(work / "sources.list")} "$1/etc/apt/sources.list" && '
        f'sh {_quote(source / "finish")} "$1" && cp {_quote(work / "user.sh")} "$1" && '
        'chroot "$1" sh /user.sh && rm "$1/user.sh"',
    }
    argv = [
        *as_root(),
        *("mmdebstrap", "--verbose", "--mode=root", "--variant=minbase"),
        f"--hook-dir={MERGED_USR}",
        f"--include={','.join(packages((source / 'packages').read_text()))}",
        *(f"--aptopt={line}" for line in lasting),
        *(f"--{when}-hook={command}" for when, command in hooks.items()),
        *(suite, str(target), "-"),
    ]
    count = PackageCount()
    host.progress.done(lambda: str(count))
    what = "install packages"
    host.change(
        argv,
        what=what,
        timeout=3600,
        stdin=work / "build.list",
        note=count.take,
        explain=lambda lines: apts_reason(lines, suite),
    )


@dataclass
class PackageCount:
    """How many packages apt and dpkg have set up, by their output."""

    wanted: int = 0  # so far: apt runs more than once
    done: set[str] = field(default_factory=set)  # by name, as one may be upgraded by the next run

    def take(self, line: str) -> None:
        """Take a line of their output."""
        if found := re.match(r"(\d+) upgraded, (\d+) newly installed", line):
            self.wanted += int(found[1]) + int(found[2])
        if found := re.match(r"Setting up (\S+)", line):
            self.done.add(found[1])

    def __str__(self) -> str:
        return f"package {len(self.done)} of {self.wanted}" if self.wanted else ""


def apts_reason(lines: list[str], suite: str) -> str:
    """Pick the line that matters: the first error is apt's own, and mmdebstrap's follow."""
    if any("NO_PUBKEY" in line or "Missing key" in line for line in lines):  # gpgv's, sqv's word
        return f"debian-archive-keyring of this host lacks keys of {suite}: install a newer one"
    full = os.strerror(errno.ENOSPC)
    if any(full in line for line in lines):  # apt's own error is the command line of dpkg
        return full
    return next((line.removeprefix("E: ") for line in lines if line.startswith("E: ")), "")


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def _first_word(path: Path) -> str:
    try:
        return (path.read_text().split() or [""])[0]
    except OSError:
        return ""
