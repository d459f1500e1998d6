"""What a disk image is, by its own header: no program guesses, or opens, what it may name.

QEMU takes a file for whatever it looks like, and opens what that names: the extents of a VMDK, the
backing file of a qcow2, any file of this host.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal
from uuid import UUID

from vagrantp.core.documents import at_once
from vagrantp.core.errors import ConfigError

HEADER = 512  # bytes that are read; those of qcow2 below are 104, a partition table ends at 512
SECTOR = 512
HEAD = 34  # sectors of a disk: a boot sector, GPT's header and its usual 128 entries (UEFI, 5.3)
EFI_SYSTEM = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le
EFI_SYSTEM_MBR = 0xEF
BOOT_CODE = 440  # bytes of the first sector, which a BIOS runs
GIB = 1024**3
QCOW2 = b"QFI\xfb"
# QEMU's docs/interop/qcow2.rst: dirty, corrupt, compression type, extended L2 entries. What is
# missing is bit 2, an external data file.
HARMLESS = 0b11011
# By the offset of what they start with; only for a message that helps: what is not qcow2 is raw.
OTHERS = (
    *((0, magic, "VMDK") for magic in (b"KDMV", b"COWD", b"# Disk DescriptorFile")),
    (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD"),
    (64, b"\x7f\x10\xda\xbe", "VDI"),
    (0, b"QED\0", "QED"),
    *((0, magic, "Parallels") for magic in (b"WithoutFreeSpace", b"WithouFreSpacExt")),
    (0, b"Bochs Virtual HD Image", "Bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"\xfd7zXZ\0", "packed by xz"),
    (0, b"\x1f\x8b", "packed by gzip"),
    (0, b"BZh", "packed by bzip2"),
    (0, b"\x28\xb5\x2f\xfd", "packed by zstd"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (257, b"ustar", "a tar archive"),
)
AT_THE_END = ((b"conectix", "VHD"), (b"koly", "DMG"))  # of the last sector's start
HINT = "unpack it; 'qemu-img convert -O qcow2' makes a qcow2 of an image that you trust"


@dataclass(frozen=True)
class Disk:
    """What a disk image is. `virtual_size` in bytes."""

    format: Literal["qcow2", "raw"]
    virtual_size: int


class Unusable(ValueError):
    """A file that is no disk image, or not safe to open. The text says what it is or has."""


def look(name: str, file: Path) -> Disk:
    """Return what the disk image BOX=`name` is. Raises ConfigError for what cannot be used."""
    with opened(name, file) as stream:
        return examine(name, stream)


@contextmanager
def opened(
    name: str, file: Path, opener: Callable[[str, int], int] = at_once
) -> Iterator[BinaryIO]:
    """Open the disk image BOX=`name`. Raises ConfigError where it is not there, or no file."""
    try:
        stream = open(file, "rb", opener=opener)  # noqa: SIM115  # no error of the block is its own
    except OSError as error:
        raise _refusal(name, f"cannot be read: {error.strerror}") from None
    with stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise _refusal(name, "is not a regular file")
        yield stream


def examine(name: str, stream: BinaryIO) -> Disk:
    """Return what the open disk image BOX=`name` is. Raises ConfigError as `look` does."""
    try:
        return _examine(stream)
    except Unusable as why:
        raise _refusal(name, str(why)) from None
    except OSError as error:
        raise _refusal(name, f"cannot be read: {error.strerror}") from None


def _refusal(name: str, why: str) -> ConfigError:
    text = f".env: BOX must be a disk image in the format qcow2 or raw; {name} {why}"
    return ConfigError(text, HINT)


def require_room(name: str, disk: Disk, room: int) -> None:
    """Raise ConfigError for an image that is larger than DISK, `room` in GiB."""
    if disk.virtual_size > room * GIB:
        least = -(-disk.virtual_size // GIB)
        raise ConfigError(f'.env: DISK must be at least {least}, the size of {name}, got "{room}"')


def refuse_uefi(head: bytes) -> None:
    """Raise ConfigError where only UEFI can start the disk that begins with `head`, HEAD sectors.

    It has an EFI system partition, and nothing that a BIOS could run.
    """
    if any(head[:BOOT_CODE]):
        return
    types = [head[at] for at in range(450, 510, 16)] if head[510:512] == b"\x55\xaa" else []
    has_system = EFI_SYSTEM_MBR in types
    if head[SECTOR:].startswith(b"EFI PART"):
        start, count, size = struct.unpack_from("<QII", head, SECTOR + 72)
        entries = head[start * SECTOR :]
        size, count = max(size, 128), min(count, 128)
        has_system |= any(entries[n * size :].startswith(EFI_SYSTEM) for n in range(count))
    if has_system:
        text = ".env: BOX must be an image that a BIOS can start; this one needs UEFI"
        raise ConfigError(text, "its makers may have one for BIOS, or for both")


def refuse_other(name: str, header: bytes, disk_size: int) -> None:
    """Raise ConfigError where a copy's header is not that of a qcow2 of `disk_size` bytes."""
    try:
        is_same = header.startswith(QCOW2) and _virtual_size(header) == disk_size
    except Unusable as why:
        raise _refusal(name, str(why)) from None
    if not is_same:
        raise _refusal(name, "changed while it was copied")


def _examine(stream: BinaryIO) -> Disk:
    size = os.fstat(stream.fileno()).st_size
    header = os.pread(stream.fileno(), HEADER, 0)
    end = os.pread(stream.fileno(), SECTOR, max(0, size - SECTOR))
    if not header:
        raise Unusable("is empty")
    if header.startswith(QCOW2):
        virtual_size = _virtual_size(header)
        tables = struct.unpack_from(">QQ", header, 40)  # where the L1 and the refcount table are
        if max(tables) >= size:
            raise Unusable("is cut off")
        return Disk("qcow2", virtual_size)
    found = [what for offset, magic, what in OTHERS if header[offset:].startswith(magic)]
    found += [what for magic, what in AT_THE_END if end.startswith(magic)]
    if found:
        raise Unusable(f"is {found[0]}")
    if header[510:] != b"\x55\xaa":  # UEFI, 5.2.1: so ends the first sector of a disk
        raise Unusable("is neither: it has no partition table")
    return Disk("raw", -(-size // SECTOR) * SECTOR)


def _virtual_size(header: bytes) -> int:
    """Return the size, in bytes, of the disk in a qcow2. Raises Unusable for an unsafe one."""
    version = int.from_bytes(header[4:8], "big")
    if len(header) >= 8 and version not in (2, 3):
        raise Unusable(f"is qcow, version {version}")
    if len(header) < 104:
        raise Unusable("is cut off")
    backing, _, cluster_bits, size, encryption = struct.unpack_from(">QIIQI", header, 8)
    (features,) = struct.unpack_from(">Q", header, 72)
    if backing:
        raise Unusable("has a backing file")
    if version == 3 and features & ~HARMLESS:
        raise Unusable("has an external data file, or an unknown feature")
    if encryption:
        raise Unusable("is encrypted")
    if not 9 <= cluster_bits <= 21 or not size:
        raise Unusable("has a header that is not valid")
    return int(size)
