"""A disk image is what its header says, and nothing else is opened."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from uuid import UUID

import pytest
from vagrantp.core.errors import ConfigError
from vagrantp.images import disks
from vagrantp.images.disks import Disk

MBR = bytes(510) + b"\x55\xaa"


def qcow2(
    version: int = 3,
    backing: int = 0,
    bits: int = 16,
    size: int = 5 << 30,
    encryption: int = 0,
    tables: int = 512,
    features: int = 0,
) -> bytes:
    """Return the start of a qcow2 image: QEMU's docs/interop/qcow2.rst."""
    first = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 9, bits, size, encryption)
    second = struct.pack(">IQQIIQ", 1, tables, tables, 1, 0, 0)
    return (first + second + struct.pack(">QQQII", features, 0, 0, 4, 104)).ljust(1024, b"\0")


@pytest.mark.parametrize(
    ("data", "disk"),
    [
        (qcow2(), Disk("qcow2", 5 << 30)),
        (qcow2(version=2, features=0xFF), Disk("qcow2", 5 << 30)),  # where version 3 has features
        (qcow2(features=0b11011), Disk("qcow2", 5 << 30)),
        (qcow2(size=1 << 63), Disk("qcow2", 1 << 63)),
        (MBR, Disk("raw", 512)),
        (MBR + b"x", Disk("raw", 1024)),
    ],
)
def test_qcow2_and_raw(tmp_path: Path, data: bytes, disk: Disk) -> None:
    file = tmp_path / "image"
    file.write_bytes(data)
    assert disks.look("./image", file) == disk


def starting(magic: bytes, offset: int = 0) -> bytes:
    """Return a disk with a partition table, for QEMU's probing of another format."""
    data = bytearray(MBR)
    data[offset : offset + len(magic)] = magic
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (qcow2(backing=104), "has a backing file"),
        (qcow2(version=2, backing=72), "has a backing file"),
        (qcow2(features=0b100), "has an external data file"),
        (qcow2(features=1 << 63), "has an external data file, or an unknown feature"),
        (qcow2(encryption=2), "is encrypted"),
        (qcow2(version=1), "is qcow, version 1"),
        (qcow2(bits=63), "not valid"),
        (qcow2(size=0), "not valid"),
        (qcow2(tables=1 << 40), "is cut off"),
        (qcow2()[:90], "is cut off"),
        (b"QFI\xfb", "is cut off"),
        (starting(b"KDMV"), "is VMDK"),
        (starting(b"# Disk DescriptorFile\n"), "is VMDK"),
        (starting(b"vhdxfile"), "is VHDX"),
        (starting(b"\x7f\x10\xda\xbe", 64), "is VDI"),
        (starting(b"QED\0"), "is QED"),
        (MBR + b"conectix".ljust(512, b"\0"), "is VHD"),
        (MBR + b"koly".ljust(512, b"\0"), "is DMG"),
        (b"\xfd7zXZ\0", "packed by xz"),
        (b"", "is empty"),
        (b"<html>", "is neither: it has no partition table"),
        (bytes(4096), "is neither: it has no partition table"),
    ],
)
def test_what_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    file = tmp_path / "image"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=f"in the format qcow2 or raw; ./image .*{why}") as caught:
        disks.look("./image", file)
    assert caught.value.hint


def test_what_is_no_file(tmp_path: Path) -> None:
    fifo, loop = tmp_path / "fifo", tmp_path / "loop"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    for path, why in (
        (fifo, "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path, "Is a directory"),
        (loop, "Too many levels"),
        (tmp_path / "none", "No such file"),
        (Path("/proc/self/mem"), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=why):
            disks.look("./image", path)


def test_a_sparse_disk_is_too_large(tmp_path: Path) -> None:
    file = tmp_path / "image"
    with file.open("wb") as stream:
        stream.write(MBR)
        stream.truncate(8 << 40)
    disk = disks.look("./image", file)
    with pytest.raises(ConfigError, match=r"DISK must be at least 8192, the size of \./image"):
        disks.require_room("./image", disk, 20)
    disks.require_room("./image", disk, 8192)


def test_a_copy_that_is_another_image() -> None:
    disks.refuse_other("app", qcow2()[:512], 5 << 30)
    for header in (qcow2(size=6 << 30), qcow2(backing=104), MBR, b""):
        with pytest.raises(ConfigError):
            disks.refuse_other("app", header[:512], 5 << 30)


def gpt(*types: str, code: bytes = b"") -> bytes:
    """Return the start of a disk with partitions of these types (UEFI, 5.3)."""
    first = code.ljust(446, b"\0") + bytes([0, 0, 2, 0, 0xEE]).ljust(64, b"\0") + b"\x55\xaa"
    header = b"EFI PART".ljust(72, b"\0") + struct.pack("<QII", 2, 128, 128)
    entries = b"".join(UUID(one).bytes_le.ljust(128, b"\1") for one in types)
    return (first + header.ljust(512, b"\0") + entries).ljust(disks.HEAD * 512, b"\0")


EFI, LINUX = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0fc63daf-8483-4772-8e79-3d69d8477de4"
MBR_EFI = bytes(450) + b"\xef" + bytes(59) + b"\x55\xaa"


@pytest.mark.parametrize("head", [gpt(EFI), gpt(LINUX, EFI), MBR_EFI])
def test_an_image_that_only_uefi_starts_is_refused(head: bytes) -> None:
    with pytest.raises(ConfigError, match="must be an image that a BIOS can start"):
        disks.refuse_uefi(head)


@pytest.mark.parametrize(
    "head",
    [
        gpt(LINUX),
        gpt(LINUX, EFI, code=b"\xeb\x63"),
        bytes(510) + b"\x55\xaa",
        bytes(600),
        b"",
        bytes(512) + b"EFI PART" + b"\xff" * 600,
    ],
)
def test_an_image_that_a_bios_may_start_is_not(head: bytes) -> None:
    disks.refuse_uefi(head)
