"""Base images, built by this project out of Debian's packages: a box for VMs, an image for Podman.

Their recipes are in `recipes/debian/<vm or container>/`: `packages`, `files/` (copied over the root
folder) and `finish` (a script that runs at the end). An image is made once for each recipe; its
name has the recipe's digest, so a changed recipe never meets an old image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import time

from vagrantp.core import documents
from vagrantp.core.answers import as_number
from vagrantp.core.errors import cleaned_up_by
from vagrantp.core.places import MASTER, xdg
from vagrantp.core.process import is_installed
from vagrantp.core.system import Host
from vagrantp.images import builders, filled
from vagrantp.images.bootstrap import KERNEL, bootstrap, build_box
from vagrantp.images.store import (
    VERSION,
    Box,
    cache,
    discard,
    put_into_pool,
    remove_old_boxes,
    remove_work,
    step,
    vagrant_home,
    work_folder,
)
from vagrantp.instance.seed import USER_SCRIPT
from vagrantp.settings.keys import BUILT_IMAGES

RECIPES = Path(__file__).parent / "recipes/debian"
FIRST = next(iter(BUILT_IMAGES))
BUILD = "2"  # part of the digest: raise it when the code below changes what comes out

RENEW = f"make -C {shlex.quote(str(MASTER))} images"
OLD = 30  # days, after which it lacks a month's security updates
DAY = 24 * 60 * 60

GIB = 1024**3


def ensure_box(host: Host, image: str, renewed: str | None = None) -> Box:
    """Return the box of `image`, built and put into libvirt's pool where it was not there yet.

    `renewed`: see `renew`. Raises ProviderError when a tool or the pool is missing or a step fails.
    """
    name = _name(image, "vm", renewed)

    def build(work: Path, folder: Path) -> None:
        with host.progress.stage("build base image", _shown(image, renewed)):
            build_box(host, BUILT_IMAGES[image], RECIPES / "vm", work, folder)

    return put_into_pool(host, Box(name, GIB), build, is_renewal=renewed is not None)


def ensure_container_image(host: Host, image: str, renewed: str | None = None) -> str:
    """Return the Podman reference of `image`, built where it was not there yet.

    `renewed`: see `renew`. Raises ProviderError when a tool is missing or a step fails.
    """
    name = _name(image, "container", renewed)
    reference = f"localhost/{name}:latest"
    if is_in_podman(host, reference):
        return reference
    with host.lock(cache(), f"image {name}", f"another build of {name}"):
        if is_in_podman(host, reference):
            return reference
        with (
            host.progress.stage("build base image", _shown(image, renewed)),
            work_folder(host, name) as work,
        ):
            bootstrap(host, BUILT_IMAGES[image], RECIPES / "container", work, work / "root.tar")
            entry = ["/usr/bin/catatonit", "--", "/usr/local/sbin/vagrantp-entry"]
            changes = (
                f"ENTRYPOINT {json.dumps(entry)}",
                "EXPOSE 22/tcp",
                f"LABEL vagrantp.image={image}",
            )
            host.change(
                [
                    *("podman", "import", "--quiet"),
                    *(f"--change={change}" for change in changes),
                    *(str(work / "root.tar"), reference),
                ],
                what="import into podman",
                timeout=600,
            )
        if renewed is None:
            _remove_old_container_images(host, image, {name})
    return reference


def _shown(image: str, renewed: str | None) -> str:
    return f"{image} (once)" if renewed is None else image


def is_built(host: Host, infra_type: str, image: str) -> bool:
    """Say whether this user has the base image already."""
    name = _name(image, infra_type)
    if infra_type == "vm":
        return (vagrant_home() / "boxes" / name).is_dir()
    return is_installed("podman") and is_in_podman(host, f"localhost/{name}:latest")


def days_old(host: Host, infra_type: str, image: str) -> int | None:
    """Return how many days ago this user's base image was built, None where there is none.

    Raises ProviderError when Podman does not say.
    """
    name = _name(image, infra_type)
    if infra_type == "vm":
        box = vagrant_home() / "boxes" / name / VERSION / "libvirt/box.img"
        try:
            built: int | None = int(box.stat().st_mtime)
        except FileNotFoundError:
            built = None
    else:
        created = "--format={{.Created.Unix}}"
        answer = host.ask(["podman", "image", "inspect", created, f"localhost/{name}:latest"])
        built = as_number("podman", answer.stdout) if answer.ok else None
    return None if built is None else max(0, int(time() - built) // DAY)


def renew(host: Host, require_room: Callable[[str], None]) -> list[str]:
    """Build each base image that this user has once more; return their names.

    Guests go on with the image that they were made from. The image of before stays until the next
    renewal, as an `up` may be about to make a guest of it; what is older goes when no guest has it.
    `require_room` is called with the type of each, and raises where this host has no room for it.
    Raises ProviderError when a tool is missing or a step fails: then the image of before stays, and
    nothing of the new one.
    """
    done = []
    with host.lock(xdg("DATA", ".local/share"), "renew", "another make images"):
        for infra_type in ("vm", "container"):
            if left := _renewed().get(_unfinished(infra_type)):  # by one that was killed
                _discard(host, infra_type, left)
            for image in BUILT_IMAGES:
                if is_built(host, infra_type, image):
                    require_room(infra_type)
                    _renew(host, infra_type, image)
                    done.append(_kind(image, infra_type))
        if is_installed("podman"):
            builders.sweep(host)
            filled.remove_stale(host)  # what stood on those of before
    return done


def _renew(host: Host, infra_type: str, image: str) -> None:
    renewed = datetime.now(UTC).isoformat()
    had, name = _name(image, infra_type), _name(image, infra_type, renewed)

    def discard_unless_known() -> None:
        if _name(image, infra_type) != name:
            _discard(host, infra_type, name)

    host.write(_renewals(), json.dumps(_renewed() | {_unfinished(infra_type): name}))
    with cleaned_up_by(discard_unless_known):
        ensure = ensure_box if infra_type == "vm" else ensure_container_image
        ensure(host, image, renewed)
        known = _renewed() | {_kind(image, infra_type): renewed}
        known.pop(_unfinished(infra_type), None)
        host.write(_renewals(), json.dumps(known))
    if infra_type == "vm":
        remove_old_boxes(host, Box(name, GIB), {had})
    else:
        _remove_old_container_images(host, image, {had, name})


def _discard(host: Host, infra_type: str, name: str) -> None:
    """Remove what a renewal has made that did not come to its end."""
    if host.dry:
        return
    remove_work(host, name)
    if infra_type == "vm":
        discard(host, Box(name, GIB))
    elif is_in_podman(host, f"localhost/{name}:latest"):
        step(host, "clean up", "podman", "rmi", f"localhost/{name}:latest")
    known = _renewed()
    known.pop(_unfinished(infra_type), None)
    host.write(_renewals(), json.dumps(known))


def _kind(image: str, infra_type: str) -> str:
    return f"{image} ({infra_type})"


def _unfinished(infra_type: str) -> str:
    """Return the key of the name, in renewed.json, of an image that is being renewed."""
    return f"unfinished ({infra_type})"


def _renewals() -> Path:
    return xdg("DATA", ".local/share") / "renewed.json"


def _renewed() -> dict[str, str]:
    """Return when each base image was renewed last."""
    with suppress(ValueError, OSError, TypeError, AttributeError):
        found = documents.from_json(documents.text(_renewals()))
        return {str(kind): str(when) for kind, when in found.items()}
    return {}


def kernel(image: str) -> Path:
    """Return where the kernel of a base image for VMs is, once that is built."""
    return vagrant_home() / "boxes" / _name(image, "vm") / VERSION / "libvirt" / KERNEL


def is_in_podman(host: Host, reference: str) -> bool:
    """Say whether Podman has an image already."""
    return bool(host.ask(["podman", "image", "exists", reference]).ok)


def _name(image: str, infra_type: str, renewed: str | None = None) -> str:
    if renewed is None:
        renewed = _renewed().get(_kind(image, infra_type), "")
    return f"vagrantp-{image}-{recipe(RECIPES / infra_type, renewed)}"


def _remove_old_container_images(host: Host, image: str, keep: Collection[str]) -> None:
    """Remove images of older recipes, except `keep` and those that a container is based on."""
    listing = host.answer(["podman", "images", "--noheading", "--format", "{{.Repository}}"])
    pattern = re.compile(rf"localhost/(vagrantp-{re.escape(image)}-[0-9a-f]{{10}})")
    for old in map(pattern.fullmatch, listing.split()):
        if old and old[1] not in keep:
            used = ("podman", "ps", "--all", "--quiet", f"--filter=ancestor={old[0]}")
            if not host.answer(used).strip():
                step(host, "remove an old image", "podman", "rmi", f"{old[0]}:latest")


def recipe(folder: Path, renewed: str = "") -> str:
    """Return the digest of what determines an image: its recipe, our own code, and `renew`."""
    digest = hashlib.sha256(BUILD.encode() + USER_SCRIPT.read_bytes() + renewed.encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            mode = b"x" if os.access(path, os.X_OK) else b"-"
            for part in (os.fsencode(path.relative_to(folder)), mode, path.read_bytes()):
                digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()[:10]
