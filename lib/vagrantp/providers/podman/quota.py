"""DISK of a container: a quota on what it writes, where Podman's storage can have one.

The kernel enforces it: a project quota of XFS (xfs_quota(8)), which Podman sets when it makes a
container (`--storage-opt size`, podman-create(1)). Podman has no command to change it afterwards.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from vagrantp.core.answers import as_json
from vagrantp.core.errors import ProviderError
from vagrantp.core.process import is_installed
from vagrantp.core.system import Host

KIB, GIB = 1024, 1024**3


@cache
def podman_info(host: Host) -> dict[str, Any]:
    """Return podman's report on itself and this host. Asked once: it takes 0.2 s."""
    return as_json("podman", host.answer(["podman", "info", "--format", "json"]), dict)


@cache
def why_none(host: Host) -> str | None:
    """Return why no quota can be had for a container that is to be made; None where it can.

    Asked once.
    """
    if os.getuid() != 0:
        return "only root can set a quota"
    store = podman_info(host)["store"]
    driver, where = store["graphDriverName"], store["graphRoot"]
    if driver != "overlay":
        return f"podman's storage driver is {driver}, not overlay"
    file_system = store["graphStatus"]["Backing Filesystem"]
    if file_system != "xfs":
        return f"{where} is on {file_system}, and only XFS has quotas that podman can set"
    if "prjquota" not in _mount_of(host, where)["options"].split(","):
        return f"the XFS of {where} is not mounted with prjquota"
    if not is_installed("xfs_quota"):
        return "xfs_quota is not installed (package xfsprogs)"
    return None


def live(number: str | int) -> int | None:
    """Return DISK, in GiB, of the running container whose first process is `number`.

    As `df /` shows it there: the kernel gives a quota as the size of the file system. None where
    the process has just ended.
    """
    try:
        found = os.statvfs(f"/proc/{number}/root")
    except FileNotFoundError:
        return None
    return found.f_blocks * found.f_frsize // GIB


def limit(host: Host, directory: str) -> int | None:
    """Return the quota, in bytes, of a directory in Podman's storage; None for none."""
    mounted, project = _mount_of(host, directory)["target"], _project(host, directory)
    report = f"report -p -b -n -N -L {project} -U {project}"
    words = host.answer(["xfs_quota", "-x", "-c", report, mounted]).split()
    return int(words[3]) * KIB or None if words else None  # "#5 used soft hard …", in KiB


def set_limit(host: Host, directory: str, gib: int) -> None:
    """Set that quota, in GiB. Existing files stay, even if they are larger."""
    mounted, project = _mount_of(host, directory)["target"], _project(host, directory)
    command = f"limit -p bsoft={gib}g bhard={gib}g {project}"
    argv = ["xfs_quota", "-x", "-c", command, mounted]
    host.change(argv, what="setting the quota", timeout=60)


def _project(host: Host, directory: str) -> int:
    """Return the number of the quota's project that a directory belongs to."""
    answer = host.answer(["xfs_io", "-r", "-c", "lsproj", directory])  # projid = 5
    project = int(answer.rpartition("=")[2])
    if project == 0:  # all of the file system that belongs to no project
        raise ProviderError(f"{directory} has no quota")
    return project


def _mount_of(host: Host, path: str | Path) -> dict[str, str]:
    argv = ["findmnt", "--json", "--output", "target,options", "--target", str(path)]
    found: dict[str, str] = as_json("findmnt", host.answer(argv), dict)["filesystems"][0]
    return found
