"""What BOX names, put into libvirt's pool. Here: boxes that others made for Vagrant.

A box gets our own name and version by a folder of links to its files: so its volume belongs to this
user, arrives whole or not at all, and is removed once no disk is based on it.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from vagrantp.core import documents
from vagrantp.core.errors import ProviderError
from vagrantp.core.system import Host
from vagrantp.images import built, cloud, disks, store
from vagrantp.images.store import Box, vagrant_home
from vagrantp.instance import vagrant
from vagrantp.settings.keys import BUILT_IMAGES

METADATA = "metadata.json"
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


def ensure(host: Host, name: str, sha256: str | None, room: int) -> Box:
    """Return the box that BOX=`name` stands for, in libvirt's pool.

    `sha256`: of a cloud image; `room`: DISK, in GiB. Raises ProviderError when it cannot be had,
    ConfigError for one that cannot be used.
    """
    if image := cloud.source(name):
        return cloud.ensure(host, name, image, sha256, room)
    if name in BUILT_IMAGES:
        return built.ensure_box(host, name)
    source = find(name)
    if source is None:
        with host.progress.stage("download box", name):
            _download(host, name)
        if host.dry:
            return Box(f"vagrantp-{store.slug(name)}-not-known-yet", 0, kind="vagrant")
        source = find(name)
        if source is None:
            raise ProviderError(f"vagrant box add {name}: it is for another provider than libvirt")
    file = _disk(source)
    disk = disks.look(name, file)
    disks.require_room(name, disk, room)
    facts = file.stat()
    identity = f"{store.MADE} {file} {facts.st_mtime_ns} {facts.st_size}"
    digest = hashlib.sha256(identity.encode()).hexdigest()
    box = Box(f"vagrantp-{store.slug(name)}-{digest[:10]}", disk.virtual_size, kind="vagrant")

    def link(work: Path, folder: Path) -> None:
        store.put_image(host, work, folder, disk, file)
        for path in source.iterdir():
            if path != file and path.name not in (METADATA, "box.img") and _is_within(source, path):
                host.link(folder / path.name, path)

    return store.put_into_pool(host, box, link)


def is_of_others(name: str) -> bool:
    """Say whether a name in BOX is that of a Vagrant box, which others made."""
    return name not in BUILT_IMAGES and cloud.source(name) is None


def is_built_here(name: str) -> bool:
    """Say whether BOX names an image that is built here; the person's catalogue comes first."""
    return name in BUILT_IMAGES and cloud.source(name) is None


def is_there(name: str) -> bool:
    """Say whether what BOX names is on this host, or would be downloaded."""
    if image := cloud.source(name):
        return isinstance(image.place, Path)
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
            for pattern in (f"*/libvirt/{METADATA}", f"*/amd64/libvirt/{METADATA}")
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
        timeout=store.DOWNLOAD_TIMEOUT,
        cwd=home,  # else Vagrant would take a file of that name in the project
        env=vagrant.base_environment(home, home),
    )


def _disk(source: Path) -> Path:
    """Return the one disk of a box. Raises ProviderError when there are more, or none."""
    try:
        metadata = documents.json_file(source / METADATA)
    except documents.Unreadable as error:
        raise ProviderError(f"{source / METADATA} must be a file {error}") from None
    disks = (isinstance(metadata, dict) and metadata.get("disks")) or [{"path": "box.img"}]
    if isinstance(disks, list) and len(disks) > 1:
        raise ProviderError(f"the box in {source} has {len(disks)} disks: only one is supported")
    match disks:
        case [{"path": str(name)}] if PLAIN_NAME.fullmatch(name):
            disk = source / name
        case _:
            raise ProviderError(f"{source / METADATA} must give its disk a plain name as path")
    if not disk.is_file() or not _is_within(source, disk):
        raise ProviderError(f"the box in {source} has no file {disk.name}")
    return disk


def _is_within(folder: Path, path: Path) -> bool:
    """Say whether what is at `path`, a link perhaps, lies in `folder`."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _version(text: str) -> list[tuple[int, str]]:
    """Return a version's sort key: numbers as such, and before them words, as of a prerelease."""
    parts = re.split(r"[.-]", text)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
