"""Whether this host has room for what an instance takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from vagrantp.core.errors import (
    HostLimitError,
)
from vagrantp.host.finding import Finding
from vagrantp.images import store

GIB, MIB = 1024**3, 1024**2
# MiB, as measured, rounded up: an instance's first boot; a base image in the provider's storage,
# with its temporary copy; the build of one.
ROOM_TO_BOOT = {"vm": 512, "container": 256}
ROOM_FOR_IMAGE = {"vm": 1024, "container": 512}
ROOM_TO_BUILD = {"vm": 2048, "container": 1024}


def room(
    place: str, free: int, infra_type: str, is_built: Callable[[], bool], disk: int
) -> Finding:
    """Judge `free` bytes by what an instance takes at once and, in GiB, over its life."""
    needed = ROOM_TO_BOOT[infra_type]
    if free < (needed + ROOM_FOR_IMAGE[infra_type]) * MIB and not is_built():
        needed += ROOM_FOR_IMAGE[infra_type]
    if free < needed * MIB:
        text = f"{place} has {free // MIB} MB free, and {needed} MB are needed at once"
        return Finding("failed", text, f"make room: df -h {place}", HostLimitError)
    if free < disk * GIB:
        text = f"DISK={disk} is more than the {free // GIB} GB that are free in {place}"
        return Finding("warning", text, "it works until they are full")
    return Finding("ok", f"{free // GIB} GB free in {place}")


def free(path: Path) -> int:
    """Return how many bytes are free where a path is, or will be."""
    return shutil.disk_usage(existing(path)).free


def existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    return next(p for p in (path, *path.parents) if os.access(p, os.F_OK))


def build_room(infra_type: str, is_built: Callable[[], bool]) -> Finding:
    """See that there is room to build a base image, where there is none yet."""
    folder, needed = store.vagrant_home(), ROOM_TO_BUILD[infra_type]
    there = free(folder)
    if there < needed * MIB and not is_built():
        text = f"{folder} has {there // MIB} MB free, and building the base image takes {needed} MB"
        return Finding("failed", text, f"make room: df -h {existing(folder)}", HostLimitError)
    return Finding("ok", f"{there // GIB} GB free in {folder}")
