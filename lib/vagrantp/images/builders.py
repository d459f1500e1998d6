"""Containers in which images are made. What a killed verb has left of one, the next one removes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from vagrantp.core.errors import ProviderError, StateError, cleaned_up_by
from vagrantp.core.places import state_root
from vagrantp.core.system import Host
from vagrantp.images.store import cache

NAME = "vagrantp-build"
MARK = "builder"  # in a builder's state folder: an instance called like one has none


def name(digest: str) -> str:
    """Return what the builder of an image with this digest is called, as its state folder is."""
    return f"{NAME}-{digest[:8]}"


@contextmanager
def lock(host: Host, digest: str, what: str) -> Iterator[None]:
    """Hold the lock of the image with this digest. `what`: it, in words."""
    with host.lock(cache(), f"image {name(digest)}", f"another build of {what}"):
        yield


@contextmanager
def folder(host: Host, digest: str) -> Iterator[Path]:
    """Yield a state folder, by which guard takes a builder for a guest. The lock is held.

    At the end, the folder and the container of its name are removed.
    """
    path = state_root() / name(digest)
    _remove(host, path)
    host.make_dir(path)
    host.write(path / MARK, "")
    with cleaned_up_by(partial(_remove, host, path)):
        yield path


def left() -> list[Path]:
    """Return the state folders of builders: at work, or left by killed verbs."""
    paths = sorted(state_root().glob(f"{NAME}-*"))
    return [path for path in paths if (path / MARK).exists() or _is_empty(path)]


def _is_empty(path: Path) -> bool:
    with suppress(FileNotFoundError):  # another verb has just removed it
        return not any(path.iterdir())
    return False


def sweep(host: Host) -> None:
    """Remove the builders that killed verbs have left. Those that are at work stay."""
    for path in left():
        with (
            suppress(StateError, ProviderError),
            host.lock(cache(), f"image {path.name}", "", is_patient=False),
        ):
            _remove(host, path)


def _remove(host: Host, path: Path) -> None:
    """Remove a builder, then its folder: its mark last, so that a kill leaves nothing unknown.

    An empty folder may also be that of an instance which `up` is about to fill: it alone goes.
    """
    if not host.dry:
        with suppress(OSError):
            path.rmdir()
    if not (path / MARK).exists():
        return
    argv = ["podman", "rm", "--force", "--ignore", "--time", "0", "--volumes", path.name]
    remove = partial(host.change, argv, what="removing a builder", timeout=60)
    try:
        remove()
    except ProviderError:  # of Podman 4.3, whose cleanup by conmon was at the same files
        remove()
    for pid in _monitors(path.name):
        host.end(pid)
    for child in path.iterdir():
        if child.name != MARK:
            host.remove(child)
    host.remove(path / MARK)
    host.remove(path)


def _monitors(container: str) -> list[int]:
    """Return the conmon(8) processes of one of our containers.

    A Podman that is killed as it starts a container leaves one, which `podman rm` does not end.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            is_ours = path.stat().st_uid == os.getuid()
            if is_ours and words[0].endswith(b"conmon") and container.encode() in words:
                found.append(int(path.parent.name))
    return found
