"""What BOX names, put into libvirt's pool. Here: boxes that others made for Vagrant.

A box gets a name and a version of ours by a folder of links to its files: so its volume is this
user's own, arrives whole or not at all, and goes when nothing stands on it any more.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from vagrantp import cloud_images, commands, images
from vagrantp.errors import ProviderError
from vagrantp.images import Box, vagrant_home
from vagrantp.run import Host


def ensure(host: Host, name: str, sha256: str | None = None) -> Box:
    """Return the box that BOX=`name` stands for, in libvirt's pool. `sha256`: of a cloud image.

    Raises ProviderError when it cannot be had, or is not one that can be used.
    """
    if name in images.SUITES:
        return images.ensure_box(host, name)
    if cloud := cloud_images.source(name):
        return cloud_images.ensure(host, name, cloud, sha256)
    source = find(name)
    if source is None:
        with host.progress.stage("download box", name):
            _download(host, name)
        if host.dry:
            return Box(f"vagrantp-{images.slug(name)}-not-known-yet", 0, kind="vagrant")
        source = find(name)
        if source is None:
            raise ProviderError(f"vagrant box add {name}: it is for another provider than libvirt")
    disk = _disk(source)
    facts = disk.stat()
    digest = hashlib.sha256(f"{disk} {facts.st_mtime_ns} {facts.st_size}".encode()).hexdigest()
    info = images.disk(host, name, disk)
    if info.format != "qcow2":
        raise ProviderError(f"the box {name} has a disk of format {info.format}, not qcow2")
    box = Box(f"vagrantp-{images.slug(name)}-{digest[:10]}", info.virtual_size, kind="vagrant")

    def link(_work: Path, folder: Path) -> None:
        images.describe(host, folder)
        host.link(folder / "box.img", disk)
        for path in source.iterdir():
            if path != disk and path.name not in ("metadata.json", "box.img"):
                host.link(folder / path.name, path)

    return images.put_into_pool(host, box, link)


def is_there(name: str) -> bool:
    """Say whether what BOX names is on this host, or would be downloaded."""
    if cloud := cloud_images.source(name):
        return isinstance(cloud.place, Path)
    return find(name) is not None


def find(name: str) -> Path | None:
    """Return the folder of the newest version of a box for libvirt, or None.

    Vagrant's own folder counts as well as ours. From Vagrant 2.4 on there may be a folder for the
    architecture in between.
    """
    escaped = name.replace("/", "-VAGRANTSLASH-")  # as Vagrant's box_collection.rb does
    for home in (vagrant_home(), Path.home() / ".vagrant.d"):
        folders = [
            path.parent
            for pattern in ("*/libvirt/metadata.json", "*/amd64/libvirt/metadata.json")
            for path in (home / "boxes" / escaped).glob(pattern)
        ]
        if folders:
            depth = len((home / "boxes" / escaped).parts)
            return max(folders, key=lambda folder: _version(folder.parts[depth]))
    return None


def _download(host: Host, name: str) -> None:
    home = vagrant_home()
    host.make_dir(home)
    host.change(
        ["vagrant", "box", "add", "--provider", "libvirt", "--clean", name],
        what=f"downloading the box {name}",
        timeout=images.DOWNLOAD_TIMEOUT,
        env=commands.vagrant_environment(home, home),
    )


def _disk(source: Path) -> Path:
    """Return the one disk of a box. Raises ProviderError when there are more, or none."""
    metadata = json.loads((source / "metadata.json").read_text(encoding="utf-8"))
    disks = metadata.get("disks") or [{"path": "box.img"}]
    if len(disks) > 1:
        raise ProviderError(f"the box in {source} has {len(disks)} disks: only one is supported")
    disk = source / str(disks[0].get("path"))
    if not disk.is_file():
        raise ProviderError(f"the box in {source} has no {disk.name}")
    return disk


def _version(text: str) -> list[tuple[int, str]]:
    """Return what versions sort by: numbers as such, and before words (a prerelease) nothing."""
    parts = re.split(r"[.-]", text)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
