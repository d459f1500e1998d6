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
from pathlib import Path

from vagrantp.core.system import Host
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

GIB = 1024**3


def ensure_box(host: Host, image: str) -> Box:
    """Return the box of `image`, built and put into libvirt's pool where it was not there yet.

    Raises ProviderError when a tool or the pool is missing or a step fails.
    """
    name = _name(image, "vm")

    def build(work: Path, folder: Path) -> None:
        with host.progress.stage("build base image", f"{image} (once)"):
            build_box(host, BUILT_IMAGES[image], RECIPES / "vm", work, folder)

    return put_into_pool(host, Box(name, GIB), build)


def ensure_container_image(host: Host, image: str) -> str:
    """Return the Podman reference of `image`, built where it was not there yet.

    Raises ProviderError when a tool is missing or a step fails.
    """
    name = _name(image, "container")
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


def kernel(image: str) -> Path:
    """Return where the kernel of a base image for VMs is, once that is built."""
    return vagrant_home() / "boxes" / _name(image, "vm") / VERSION / "libvirt" / KERNEL


def is_in_podman(host: Host, reference: str) -> bool:
    """Say whether Podman has an image already."""
    return bool(host.ask(["podman", "image", "exists", reference]).ok)


def _name(image: str, infra_type: str) -> str:
    return f"vagrantp-{image}-{recipe(RECIPES / infra_type)}"


def _remove_old_container_images(host: Host, image: str, name: str) -> None:
    """Remove images of older recipes, except those that a container is based on."""
    listing = host.answer(["podman", "images", "--noheading", "--format", "{{.Repository}}"])
    pattern = re.compile(rf"localhost/(vagrantp-{re.escape(image)}-[0-9a-f]{{10}})")
    for old in map(pattern.fullmatch, listing.split()):
        if old and old[1] != name:
            used = ("podman", "ps", "--all", "--quiet", f"--filter=ancestor={old[0]}")
            if not host.answer(used).strip():
                step(host, "remove an old image", "podman", "rmi", f"{old[0]}:latest")


def recipe(folder: Path) -> str:
    """Return the digest of everything that determines an image: its recipe and our own code."""
    digest = hashlib.sha256(BUILD.encode() + USER_SCRIPT.read_bytes())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            mode = b"x" if os.access(path, os.X_OK) else b"-"
            for part in (os.fsencode(path.relative_to(folder)), mode, path.read_bytes()):
                digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()[:10]
