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
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import time

from vagrantp.core import documents
from vagrantp.core.answers import as_number
from vagrantp.core.places import MASTER, xdg
from vagrantp.core.process import is_installed
from vagrantp.core.system import Host
from vagrantp.images import builders, filled
from vagrantp.images.bootstrap import KERNEL, bootstrap, build_box
from vagrantp.images.store import (
    VERSION,
    Box,
    cache,
    put_into_pool,
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
        with host.progress.stage("build base image", f"{image} (once)"):
            build_box(host, BUILT_IMAGES[image], RECIPES / "vm", work, folder)

    return put_into_pool(host, Box(name, GIB), build)


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
            host.progress.stage("build base image", f"{image} (once)"),
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
        _remove_old_container_images(host, image, name)
    return reference


def is_built(host: Host, infra_type: str, image: str) -> bool:
    """Say whether this user has the base image already."""
    name = _name(image, infra_type)
    if infra_type == "vm":
        return (vagrant_home() / "boxes" / name).is_dir()
    return is_in_podman(host, f"localhost/{name}:latest")


def days_old(host: Host, infra_type: str, image: str) -> int | None:
    """Return how many days ago this user's base image was built, None where there is none.

    Raises ProviderError when Podman does not say.
    """
    name = _name(image, infra_type)
    if infra_type == "vm":
        box = vagrant_home() / "boxes" / name / VERSION / "libvirt/box.img"
        built = int(box.stat().st_mtime) if box.exists() else None
    else:
        created = "--format={{.Created.Unix}}"
        answer = host.ask(["podman", "image", "inspect", created, f"localhost/{name}:latest"])
        built = as_number("podman", answer.stdout) if answer.ok else None
    return None if built is None else max(0, int(time() - built) // DAY)


def renew(host: Host) -> list[str]:
    """Build each base image that this user has once more; return their names.

    Guests go on with the image that they were made from, which is removed when none has it.
    Raises ProviderError when a tool is missing or a step fails: then the image of before stays.
    """
    renewed = datetime.now(UTC).isoformat(timespec="seconds")
    done = []
    with host.lock(xdg("DATA", ".local/share"), "renew", "another make images"):
        for image in BUILT_IMAGES:
            for infra_type, ensure in (("vm", ensure_box), ("container", ensure_container_image)):
                if is_built(host, infra_type, image):
                    ensure(host, image, renewed)
                    kind = f"{image} ({infra_type})"
                    host.write(_renewals(), json.dumps(_renewed() | {kind: renewed}))
                    done.append(kind)
        if is_installed("podman"):
            builders.sweep(host)
            filled.remove_stale(host)  # what stood on those of before
    return done


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
        renewed = _renewed().get(f"{image} ({infra_type})", "")
    return f"vagrantp-{image}-{recipe(RECIPES / infra_type, renewed)}"


def _remove_old_container_images(host: Host, image: str, name: str) -> None:
    """Remove images of older recipes, except those that a container is based on."""
    listing = host.answer(["podman", "images", "--noheading", "--format", "{{.Repository}}"])
    pattern = re.compile(rf"localhost/(vagrantp-{re.escape(image)}-[0-9a-f]{{10}})")
    for old in map(pattern.fullmatch, listing.split()):
        if old and old[1] != name:
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
