"""Vagrant boxes as others make them, for tests: built from Debian's packages, without cloud-init.

Every one has /boot on a partition of its own, user vagrant and Vagrant's insecure key.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Literal

from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.images import bootstrap

Layout = Literal["mbr-lvm", "gpt-btrfs"]

HERE = Path(__file__).parent
MIB = 1024**2
BOOT, ROOT = 4, 130  # where partitions start, in MiB
PARTITIONS: dict[Layout, str] = {
    "mbr-lvm": f"mklabel msdos mkpart primary ext4 {BOOT} {ROOT - 1} "
    f"mkpart extended {ROOT} 100% mkpart logical {ROOT + 1} 100%",
    "gpt-btrfs": f"mklabel gpt mkpart bios 1 2 set 1 bios_grub on "
    f"mkpart boot ext4 {BOOT} {ROOT - 1} mkpart root btrfs {ROOT} 100%",
}
GRUB_CFG = """\
set timeout=0
menuentry "Debian" {{
    linux {kernel} root={root} rootfstype={type} ro console=ttyS0,115200
    initrd {initrd}
}}
"""
BTRFS = """
mount --bind "$1" "$1/mnt" && mount -t proc none "$1/proc" && mount -t tmpfs none "$1/run"
touch "$1/run/image"
mount --bind "$2" "$1/run/image"
chroot "$1" mkfs.btrfs --quiet --rootdir /mnt /run/image
"""
# LVM needs no device mapper as long as nothing is activated, and a volume can be restored to where
# it never was. Extents are 4 MiB, the first one starts after 1 MiB.
SWAP_EXTENTS, SPARE_EXTENTS = 4, 20
LVM = """
mount --bind /dev "$1/dev" && mount -t proc none "$1/proc" && mount -t tmpfs none "$1/run"
cp "$3" "$1/run/volumes"
chroot "$1" sh -e -c '
    pvcreate -q "$1" && vgcreate -q plain "$1" && vgcfgbackup -q -f /run/plain plain
    sed -i "/^}$/d" /run/plain && cat /run/volumes >> /run/plain
    vgcfgrestore -q -f /run/plain plain' sh "$2"
"""
VOLUME = """\
  {name} {{
   id = "{id}-0000-0000-0000-0000-0000-000000"
   status = ["READ","WRITE","VISIBLE"]
   segment_count = 1
   segment1 {{
    start_extent = 0
    extent_count = {count}
    type = "striped"
    stripe_count = 1
    stripes = ["pv0", {first}]
   }}
  }}
"""


def build(
    layout: Layout,
    work: Path,
    suite: str = "bookworm",
    source: Path = HERE / "plain",
    size: int = 1,
) -> Path:
    """Return a folder with a box's files, built in `work`: one layout, a disk of `size` GiB.

    `source`: what goes in. About a minute.
    """
    work.mkdir(exist_ok=True)
    root, disk, part = work / "root", work / "disk.raw", work / "part.raw"
    bootstrap.bootstrap(Host(Context()), suite, source, work, root)
    mib = size * 1024
    (root / "etc/fstab").write_text(_fstab(layout))
    with disk.open("wb") as file:
        file.truncate(mib * MIB)
    run("parted", "--script", disk, "unit", "MiB", *PARTITIONS[layout].split())
    boot = work / "boot"
    run("cp", "-a", f"{root}/boot/.", boot)
    kernel, initrd = (sorted(boot.glob(f"{kind}*"))[0].name for kind in ("vmlinuz", "initrd.img"))
    device, kind = (
        ("/dev/mapper/plain-root", "ext4") if layout == "mbr-lvm" else ("/dev/vda3", "btrfs")
    )
    (boot / "grub").mkdir(exist_ok=True)
    (boot / "grub/grub.cfg").write_text(
        GRUB_CFG.format(kernel=f"/{kernel}", initrd=f"/{initrd}", root=device, type=kind)
    )
    _mke2fs(boot, part, ROOT - BOOT - 1)
    _put(part, disk, BOOT)
    if layout == "mbr-lvm":
        extents = (mib - ROOT - 2) // 4 - SWAP_EXTENTS - SPARE_EXTENTS
        _make_volumes(root, disk, work, mib, extents)
        _mke2fs(root, part, 4 * extents)
        _put(part, disk, ROOT + 1 + 1 + 4 * SWAP_EXTENTS)
        core_sector, modules, prefix = 1, ["part_msdos"], "(,msdos1)/grub"
    else:
        with part.open("wb") as file:
            file.truncate((mib - ROOT - 1) * MIB)
        run("unshare", "--mount", "sh", "-e", "-c", BTRFS, "sh", root, part)
        _put(part, disk, ROOT)
        core_sector, modules, prefix = 2048, ["part_gpt"], "(,gpt2)/grub"
    core = work / "core.img"
    modules += ["biosdisk", "ext2", "normal", "linux"]
    run("grub-mkimage", "-O", "i386-pc", "-p", prefix, "-o", core, *modules)
    boot_img = (bootstrap.GRUB / "boot.img").read_bytes()
    first_sector, rest = bootstrap.boot_code(boot_img, core.read_bytes(), core_sector)
    with disk.open("r+b") as file:
        file.write(first_sector)
        file.seek(core_sector * 512)
        file.write(rest)
    made = work / "box"
    made.mkdir()
    compressed = ("-c", "-O", "qcow2", "-o", "compression_type=zstd")
    run("qemu-img", "convert", *compressed, disk, made / "box.img")
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": size}
    (made / "metadata.json").write_text(json.dumps(metadata))
    return made


def _fstab(layout: Layout) -> str:
    if layout == "mbr-lvm":
        return "/dev/mapper/plain-root / ext4 defaults 0 1\n/dev/vda1 /boot ext4 defaults 0 2\n"
    return "/dev/vda3 / btrfs defaults 0 0\n/dev/vda2 /boot ext4 defaults 0 2\n"


def _make_volumes(root: Path, disk: Path, work: Path, mib: int, extents: int) -> None:
    """Make the logical partition a physical volume with the logical volumes swap and root.

    `mib`: the disk's size, `extents`: that of root.
    """
    volumes = VOLUME.format(name="swap", id="swap00", first=0, count=SWAP_EXTENTS)
    volumes += VOLUME.format(name="root", id="root00", first=SWAP_EXTENTS, count=extents)
    listed = work / "volumes"
    listed.write_text(f" logical_volumes {{\n{volumes} }}\n}}\n")
    offset, size = (ROOT + 1) * MIB, (mib - ROOT - 1) * MIB
    where = (f"--offset={offset}", f"--sizelimit={size}")
    loop = run("losetup", "--find", "--show", *where, disk).strip()
    try:
        run("unshare", "--mount", "sh", "-e", "-c", LVM, "sh", root, loop, listed)
    finally:
        run("losetup", "--detach", loop)


def _mke2fs(folder: Path, image: Path, mib: int) -> None:
    image.unlink(missing_ok=True)
    run("mke2fs", "-q", "-t", "ext4", "-d", folder, image, f"{mib}M")


def _put(part: Path, disk: Path, mib: int) -> None:
    run(
        "dd",
        f"if={part}",
        f"of={disk}",
        "bs=1M",
        f"seek={mib}",
        "conv=notrunc,sparse",
        "status=none",
    )


def run(*argv: object) -> str:
    return subprocess.run([*map(str, argv)], check=True, stdout=subprocess.PIPE, text=True).stdout
