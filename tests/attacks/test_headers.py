"""F2: headers of disk images that other parsers fell for: none opens a file, or takes long.

The numbers are those of README.md. qemu-img itself sees those that look sound, in its sandbox.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

GIB = 1024**3
SIZE = 0x60000  # bytes of a file, so that its tables may be where the header says
ENCRYPTION, DATA_FILE, BITMAPS, NAMES = 0x0537BE77, 0x44415441, 0x23852875, 0x6803F857


def qcow2(tail: bytes = b"", **fields: int) -> bytes:
    """Return the header of a qcow2 of 1 GiB, but for `fields`, and what comes after it."""
    sound = {"version": 3, "backing": 0, "backing_size": 0, "cluster_bits": 16, "size": GIB}
    sound |= {"encryption": 0, "l1_size": 2, "l1": 0x30000, "refcounts": 0x10000}
    sound |= {"refcount_clusters": 1, "snapshots": 0, "snapshots_at": 0, "incompatible": 0}
    sound |= {"compatible": 0, "autoclear": 0, "refcount_order": 4, "length": 104}
    return b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQQQQII", *(sound | fields).values()) + tail


def extension(kind: int, data: bytes, length: int | None = None) -> bytes:
    """Return a header extension; `length`: what it says its length is."""
    size = len(data) if length is None else length
    return struct.pack(">II", kind, size) + data.ljust(-(-len(data) // 8) * 8, b"\0")


SECRET = b"/etc/shadow"
HEADERS = {
    "backing file, json:": qcow2(b'json:{"driver":"file"}', backing=104, backing_size=22),
    "backing file, nbd:": qcow2(b"nbd:127.0.0.1:80", backing=104, backing_size=16),
    "backing file without a length": qcow2(SECRET, backing=104),
    "backing file of version 2": qcow2(SECRET, version=2, backing=104, backing_size=11),
    "data file": qcow2(extension(DATA_FILE, SECRET), incompatible=4),
    "data file, json:": qcow2(extension(DATA_FILE, b'json:{"driver":"file"}'), incompatible=4),
    "LUKS": qcow2(extension(ENCRYPTION, b"\xff" * 16), encryption=2),
    "an unknown feature": qcow2(incompatible=1 << 40),
    "L1 table": qcow2(l1_size=0xFFFFFFFF),
    "L1 table beyond the end": qcow2(l1=1 << 62),
    "refcount table": qcow2(refcount_clusters=0xFFFFFFFF),
    "refcount order": qcow2(refcount_order=63),
    "snapshots": qcow2(snapshots=0x7FFFFFFF, snapshots_at=0x10000),
    "clusters": qcow2(cluster_bits=63),
    "no size": qcow2(size=0),
    "8 EiB": qcow2(size=1 << 63),
    "an extension that is longer than the file": qcow2(extension(NAMES, b"", 0xFFFFFFFF)),
    "a header that is longer than the file": qcow2(length=0xFFFFFFF8),
    "version 1": qcow2(version=1),
    "version 99": qcow2(version=99),
    **{f"cut off at {at}": qcow2()[:at] for at in (4, 8, 20, 71, 72, 103)},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_lies(tmp_path: Path, kind: str) -> None:
    """47, 48, 49."""
    from invoke.context import Context
    from vagrantp.core.errors import VagrantpError
    from vagrantp.core.system import Host
    from vagrantp.images import disks, store

    image, target = tmp_path / "image", tmp_path / "made.qcow2"
    image.write_bytes(HEADERS[kind].ljust(0 if kind.startswith("cut") else SIZE, b"\0"))
    with pytest.raises(VagrantpError):
        found = disks.look("image", image)
        disk = disks.Disk(found.format, min(found.virtual_size, GIB))
        store.to_qcow2(Host(Context()), tmp_path, disk, image, target)
    assert not target.exists()


@pytest.mark.parametrize("kind", ["data file", "bitmaps"])
def test_what_counts_for_nothing_is_not_in_the_copy(tmp_path: Path, kind: str) -> None:
    """47, 48: extensions without the bit that makes them count."""
    from invoke.context import Context
    from vagrantp.core.system import Host
    from vagrantp.images import disks, store

    bitmaps = struct.pack(">IIQQ", 0xFFFF, 0, 1 << 40, 0x10000)
    tail = {"data file": extension(DATA_FILE, SECRET), "bitmaps": extension(BITMAPS, bitmaps)}
    image, target = tmp_path / "image", tmp_path / "made.qcow2"
    image.write_bytes(qcow2(tail[kind]).ljust(SIZE, b"\0"))
    store.to_qcow2(Host(Context()), tmp_path, disks.look("image", image), image, target)
    assert SECRET not in target.read_bytes()


BOOT = bytes(510) + b"\x55\xaa"
RAW = {
    "VHD at the end": BOOT + bytes(1024) + b"conectix".ljust(512, b"\0"),
    "DMG at the end": BOOT + bytes(1024) + b"koly".ljust(512, b"\0"),
    "VDI": (bytes(64) + b"\x7f\x10\xda\xbe").ljust(510, b"\0") + b"\x55\xaa",
    "tar": (bytes(257) + b"ustar").ljust(510, b"\0") + b"\x55\xaa",
    "COW": b"COWD".ljust(510, b"\0") + b"\x55\xaa",
    "VHDX": b"vhdxfile".ljust(510, b"\0") + b"\x55\xaa",
}


@pytest.mark.parametrize("kind", RAW)
def test_a_raw_image_that_is_something_else_too(tmp_path: Path, kind: str) -> None:
    """50."""
    from vagrantp.core.errors import VagrantpError
    from vagrantp.images import disks

    (tmp_path / "image").write_bytes(RAW[kind])
    with pytest.raises(VagrantpError):
        disks.look("image", tmp_path / "image")
