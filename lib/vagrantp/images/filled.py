"""Images that have what our own playbooks install: which there are, and which of them go."""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import Any

from vagrantp.core.answers import as_json
from vagrantp.core.system import Host
from vagrantp.images.store import step

# Labels: what is in it; what it was made from; its own name, as what is made from it has them, too.
KEY, BASE, NAME = "vagrantp.preset", "vagrantp.base", "vagrantp.name-of-preset"
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
    return [Filled(name, *facts) for name in names]


def find(host: Host, key: str) -> str:
    """Return the reference of the newest image with this key, "" where none is fresh."""
    found = (one.reference for one in images(host) if one.key == key and one.age < FRESH)
    return next(found, "")


def remove_stale(host: Host) -> None:
    """Remove those that no new guest would start from and that no container is made of.

    A day after the last one could: an `up` may have found one just now.
    """
    found = images(host)
    if not found:
        return
    names = set(host.answer(["podman", "images", "--format", "{{.Repository}}:{{.Tag}}"]).split())
    stale = [one for one in found if one.age > FRESH + 1 or one.base not in names]
    if not stale:
        return
    used = host.answer(["podman", "ps", "--all", "--no-trunc", "--format", "{{.ImageID}}"]).split()
    for one in stale:
        if one.id not in used and f"sha256:{one.id}" not in used:
            step(host, "remove an old image", "podman", "image", "rm", one.reference)
