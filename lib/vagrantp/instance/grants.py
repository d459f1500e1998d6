"""What `.env` asks of this host beyond a plain guest, and what of it a person has granted.

A grant is a part of a value: an item of LAN_ALLOW, the real path of a file. What has been granted
is remembered for the very folder, outside of it. docs/adr/0023-trust-by-grants.md
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vagrantp_guard import contract

from vagrantp.core import documents
from vagrantp.core.places import state_root
from vagrantp.core.system import Host
from vagrantp.core.text import escaped
from vagrantp.instance import record
from vagrantp.settings import env, files
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import KEYS
from vagrantp.settings.parsers import Provisioner
from vagrantp.settings.saved import as_written
from vagrantp.settings.schema import Key

REQUIRED = "REQUIREMENTS"  # no key: roles and collections that a playbook requires
UNREAD = "?"  # in place of the digest of what may not be read before it is granted
OUTSIDE = "outside of this folder, read on this host"
BESIDE = "outside of this folder, run with all that lies beside it there"
FETCHED = "what it names is fetched from the internet"
BOX = "a box of others, whose own Vagrantfile is run on this host"

Granted = Mapping[str, Collection[str]]  # parts of values as text, by key


@dataclass(frozen=True)
class Grant:
    """One grant that `.env` asks for. `part`: of the value of `key`; `lets`: what it does."""

    key: str
    part: str
    lets: str

    def __str__(self) -> str:
        """Return it as a person is shown it."""
        path, _, _ = self.part.rpartition(" ")
        return escaped(path if self.key == REQUIRED else f"{self.key}={self.part}", keep="")


def asked(
    settings: Settings,
    folder: Path,
    granted: Granted,
    shared: Collection[Path] = (),
    is_box: Callable[[str], bool] = lambda name: True,
) -> list[Grant]:
    """Return the grants that the `.env` in `folder` asks for, in the order of its keys.

    `granted`: only what lies in the folder, or is granted, is opened; `shared`: the folders that
    guests of other projects write; `is_box`: whether a name in BOX is that of a Vagrant box.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for key in _own_keys(settings):
        value = getattr(settings, key.field)
        parts = [
            *_parts(key, value, settings, granted),
            *((str(path), why) for path, why in _paths(key, value, folder, shared)),
        ]
        if key.name == "BOX" and not value.startswith("/") and "://" not in value and is_box(value):
            parts.append((value, BOX))
        for part, lets in parts:
            found.setdefault((key.name, part), []).append(lets)
    base = files.Base(folder, paths(granted))
    if "provision_script" in own_fields(settings):
        for part in _required(settings, base):
            found.setdefault((REQUIRED, part), []).append(FETCHED)
    return [Grant(*what, "; ".join(lets)) for what, lets in found.items()]


def wider(granted: Granted, asks: Iterable[Grant]) -> list[Grant]:
    """Return those of the grants that nothing granted covers."""
    return [one for one in asks if not _is_covered(granted, one)]


def _is_covered(granted: Granted, ask: Grant) -> bool:
    had = granted.get(ask.key, ())
    if ask.key == REQUIRED:
        return ask.part in had or f"{ask.part.rpartition(' ')[0]} {UNREAD}" in had
    grant = KEYS[ask.key].grant
    if grant is None:
        return ask.part in had
    if grant.only_wider and not had:
        return True
    return any(grant.covers(part, ask.part) for part in (*had, *granted.get(grant.within, ())))


def _is_beyond_plain(ask: Grant) -> bool:
    grant = KEYS[ask.key].grant if ask.key in KEYS else None
    return grant is None or not grant.only_wider or grant.as_a_whole


def together(asks: Iterable[Grant]) -> Granted:
    """Return grants by their key."""
    found: dict[str, list[str]] = {}
    for one in asks:
        found.setdefault(one.key, []).append(one.part)
    return found


def paths(granted: Granted) -> set[Path]:
    """Return the real paths of granted files."""
    parts = [part for key, own in granted.items() if key in KEYS for part in own]
    parts += [part.rpartition(" ")[0] for part in granted.get(REQUIRED, ())]
    return {Path(part) for part in parts if part.startswith("/")}


def listed(asks: Sequence[Grant]) -> str:
    """Return grants as a person is asked about them, a line each."""
    width = max(len(str(one)) for one in asks)
    lines = [f"\n  {one!s:<{width}}  {one.lets}" for one in asks]
    return ".env asks this host for more than a plain guest has:" + "".join(lines)


def own_fields(settings: Settings) -> Collection[str]:
    """Return the fields that `.env` sets itself: `defaults.env` is the person's own."""
    return settings.written if settings.in_env is None else settings.in_env


def _own_keys(settings: Settings) -> Iterator[Key]:
    own = own_fields(settings)
    for key in KEYS.values():
        is_asked = key.field in own or (key.grant and key.grant.as_a_whole)
        if is_asked and key.infra_type in (None, settings.infra_type):
            yield key


def _parts(
    key: Key, value: object, settings: Settings, granted: Granted
) -> Iterator[tuple[str, str]]:
    """Yield what is to be granted of a value, and what it lets."""
    if not (grant := key.grant) or (grant.by_bridge and settings.network_type != "bridge"):
        return
    if grant.by_mount and settings.mount not in grant.by_mount:
        return
    if grant.as_a_whole:
        if value or key.name in granted:
            yield as_written(value) if value else "", str(grant.lets)
        return
    for part in value if isinstance(value, tuple) else (value,):
        if part is not None and not grant.is_plain(part):
            text = os.path.realpath(part) if isinstance(part, Path) else as_written(part)
            yield text, grant.lets if isinstance(grant.lets, str) else grant.lets[text]


def _paths(
    key: Key,
    value: object,
    folder: Path,
    shared: Collection[Path],
) -> Iterator[tuple[Path, str]]:
    """Yield the real paths of a value that somebody else may write, or that lie outside."""
    for one in value if isinstance(value, tuple) else (value,):
        for path in files.paths_in(one) if key.locate else ():
            real = Path(os.path.realpath(path))
            is_playbook = isinstance(one, Provisioner) and one.kind == "playbook"
            if writer := next((other for other in shared if real.is_relative_to(other)), None):
                yield real, f"the guest of {escaped(str(writer), keep='')} can change it"
            elif not real.is_relative_to(os.path.realpath(folder)):
                yield real, BESIDE if is_playbook else OUTSIDE


def _required(settings: Settings, base: files.Base) -> Iterator[str]:
    """Yield the real path of each file of requirements, and a digest of its content."""
    for step in settings.provision_script:
        playbook = Path(os.path.realpath(step.path))
        project = Path(os.path.realpath(base.folder))
        for path in files.requirements(playbook, project) if step.kind == "playbook" else ():
            digest = UNREAD
            if real := files.readable(base, path):
                try:
                    content = documents.content(real, documents.without_links)
                    digest = hashlib.sha256(content).hexdigest()
                except documents.Unreadable:
                    digest = "unreadable"
            yield f"{os.path.realpath(path)} {digest}"


# What is remembered of a folder.


def path(folder: Path) -> Path:
    """Return where the grants of a project's folder are."""
    return state_root() / contract.GRANTS / f"{env.id_from(folder)}.json"


def remembered(folder: Path) -> Granted:
    """Return what was granted to this very folder.

    An instance that a version before grants has made: what its settings ask for counts as granted.
    """
    file = path(folder)
    if os.path.lexists(file):
        found = _read(file)
        granted = found.pop("granted", None)
        is_it = folder.is_dir() and found == _identity(folder)
        return granted if is_it and _is_sound(granted) else {}
    made = record.remembered(folder)
    if not made or not (settings := made.settings):
        return {}
    if settings.in_env is not None:
        return {"INFRA_TYPE": [settings.infra_type]}
    asks = asked(settings, folder, {}, shared=[Path("/")])  # wherever its files lie
    if settings.mount == "rw":  # its guest may have written requirements, and links to anywhere
        links = _by_links(settings, folder.resolve())
        asks = [one for one in asks if one.key != REQUIRED and one.part not in links]
    granted = {**together(asks), "INFRA_TYPE": [settings.infra_type]}
    required = [f"{one.rpartition(' ')[0]} {UNREAD}" for one in granted.get(REQUIRED, ())]
    return {**granted, REQUIRED: required}


def _by_links(settings: Settings, folder: Path) -> set[str]:
    """Return the real paths, outside of the folder, of what is named as a file in it."""
    values = [getattr(settings, key.field) for key in KEYS.values() if key.locate]
    return {
        real
        for path in files.paths_in(tuple(values))
        if Path(os.path.normpath(path)).is_relative_to(folder)
        and not Path(real := os.path.realpath(path)).is_relative_to(folder)
    }


def load(folder: Path, warn: Callable[[str], None] = lambda text: None) -> Settings:
    """Return the settings of `.env`, as env.load does, with what may be read by what was granted.

    Raises ConfigError.
    """
    return env.load(folder, warn, paths(remembered(folder)))


def remember(host: Host, folder: Path, asks: Collection[Grant], settings: Settings) -> None:
    """Remember what was granted to a folder, and nothing that was granted before."""
    file = path(folder)
    if not any(map(_is_beyond_plain, asks)) and not os.path.lexists(file):
        return
    known = [one for one in asks if one.key != REQUIRED or not one.part.endswith(f" {UNREAD}")]
    granted = {**together(known), "INFRA_TYPE": [settings.infra_type]}
    document = {**_identity(folder), "granted": granted}
    if _read(file) != document:
        host.make_dir(file.parent)
        host.write(file, json.dumps(document, indent=2))


def forget(host: Host, folder: Path) -> None:
    """Forget what was granted to a folder that is gone."""
    if not folder.is_dir():
        host.remove(path(folder))
        host.remove(path(folder).with_suffix(f".{contract.TRACKED}"))


def shared_folders(folder: Path) -> list[Path]:
    """Return the folders that the guests of other projects write."""
    machines = filter(None, record.machines().values())
    writable = [one["folder"] for one in machines if one["settings"]["mount"] == "rw"]
    return [Path(one) for one in writable if one != str(folder.resolve())]


def _identity(folder: Path) -> dict[str, Any]:
    """Return which folder it is: a copy, a clone or a new one of its name is another."""
    facts = folder.stat()
    return {
        "version": 1,
        "folder": str(folder.resolve()),
        "device": facts.st_dev,
        "inode": facts.st_ino,
        "born": _born(folder),  # the number of an inode is soon used again
    }


def _born(path: Path) -> int:
    """Return when a file was made, in nanoseconds; 0 where its file system does not know.

    By statx(2), which Python has from 3.15 on.
    """
    import ctypes  # few come here

    found = ctypes.create_string_buffer(256)  # struct statx, linux/stat.h
    if ctypes.CDLL(None).statx(-100, os.fsencode(path), 0, 0x800, found):  # STATX_BTIME
        return 0
    seconds, nanoseconds = struct.unpack_from("=qI", found, 80)
    return int(seconds * 10**9 + nanoseconds)


def _read(file: Path) -> dict[str, Any]:
    """Return the document in a file of grants, nothing where it is not ours or cannot be read."""
    try:
        facts = file.lstat()
        is_ours = facts.st_uid == os.getuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        found = documents.from_json(documents.text(file, _no_link)) if is_ours else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _no_link(name: str, flags: int) -> int:
    return documents.at_once(name, flags | os.O_NOFOLLOW)


def _is_sound(granted: object) -> bool:
    return isinstance(granted, dict) and all(
        isinstance(own, list) and all(isinstance(part, str) for part in own)
        for own in granted.values()
    )
