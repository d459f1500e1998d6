"""Images that have what our own playbooks install: which there are, and which of them go."""

from __future__ import annotations

import json
import re
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

from vagrantp.core import documents
from vagrantp.core.answers import as_json
from vagrantp.core.places import xdg
from vagrantp.core.system import Host
from vagrantp.images.store import step

# Labels: what is in it; what it was made from; its own name, as what is made from it has them, too.
KEY, BASE, NAME = "vagrantp.preset", "vagrantp.base", "vagrantp.name-of-preset"
NAMED = re.compile(r"localhost/vagrantp-[a-z0-9._-]+-with-[a-z0-9._-]+-[0-9a-f]{10}:latest")
FRESH = 7  # days that one is used for new guests
DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Filled:
    """An image. `age` in days, `size` in bytes; `id`: Podman's."""

    reference: str
    id: str
    key: str
    base: str
    age: float
    size: int


def images(host: Host) -> list[Filled]:
    """Return this user's, the newest first. Raises ProviderError."""
    argv = ["podman", "images", f"--filter=label={KEY}", "--format", "json"]
    listed = as_json("podman", host.answer(argv) or "[]", list)
    return sorted((one for found in listed for one in _named(found)), key=lambda one: one.age)


def _named(found: dict[str, Any]) -> list[Filled]:
    labels, age = found.get("Labels") or {}, (time() - found["Created"]) / DAY
    names = (name for name in found.get("Names") or [] if name == labels.get(NAME))
    facts = (found["Id"], labels.get(KEY, ""), labels.get(BASE, ""), age, found.get("Size", 0))
    return [Filled(name, *facts) for name in names if NAMED.fullmatch(name)]


def _record(key: str) -> Path:
    return xdg("DATA", ".local/share") / "filled" / key


def keep(host: Host, key: str, made: str) -> None:
    """Record that the image called `made` is the one with this key: labels anybody can write."""
    identity = host.answer(["podman", "image", "inspect", "--format={{.Id}}", made]).strip()
    host.make_dir(_record(key).parent)
    host.write(_record(key), json.dumps({"id": identity, "made": time()}))


def find(host: Host, key: str) -> str:
    """Return the reference of the image on record with this key, "" where there is no fresh one."""
    with suppress(ValueError, OSError, TypeError, KeyError):
        found = documents.from_json(documents.text(_record(key)))
        if 0 <= time() - found["made"] < FRESH * DAY:
            listed = (one.reference for one in images(host) if one.id == found["id"])
            return next(listed, "")
    return ""


def _forget(host: Host, there: Container[str]) -> None:
    """Remove the records of images that are not there."""
    for path in _record("x").parent.glob("*"):
        with suppress(ValueError, OSError, TypeError, KeyError):
            if documents.from_json(documents.text(path))["id"] not in there:
                host.remove(path)


def remove_stale(host: Host) -> None:
    """Remove those that no new guest would start from and that no container is made of.

    A day after the last one could: an `up` may have found one just now.
    """
    found = images(host)
    _forget(host, [one.id for one in found])
    if not found:
        return
    names = set(host.answer(["podman", "images", "--format", "{{.Repository}}:{{.Tag}}"]).split())
    stale = [one for one in found if not 0 <= one.age <= FRESH + 1 or one.base not in names]
    if not stale:
        return
    used = host.answer(["podman", "ps", "--all", "--no-trunc", "--format", "{{.ImageID}}"]).split()
    for one in stale:
        if one.id not in used and f"sha256:{one.id}" not in used:
            step(host, "remove an old image", "podman", "image", "rm", one.reference)
