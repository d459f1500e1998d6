"""Folders that MOUNT shares with no guest, as they are no projects."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from vagrantp_guard import contract

from vagrantp.core.places import MASTER, defaults_path, state_root, xdg

# What programs keep their secrets in, in a home folder.
SECRETS = (
    *(".ssh", ".gnupg", ".password-store", ".netrc", ".pgpass", ".git-credentials", ".vault-token"),
    *(".aws", ".azure", ".kube", ".oci", ".config/gcloud", ".config/gh", ".config/op"),
    *(".docker/config.json", ".config/containers/auth.json", ".local/share/keyrings", ".mozilla"),
    *(".terraform.d/credentials.tfrc.json", ".config/rclone", ".config/sops", ".vagrant.d"),
)


def why_no_project(folder: Path) -> str:
    """Return why a folder is no project that a guest may have, "" where it may be one.

    By where it really is, and by what stands directly in it.
    """
    real = Path(os.path.realpath(folder))
    if real == Path("/"):
        return "this is the whole file system"
    for home, name in _homes():
        if home == real:
            return f"this is the home folder of {name}"
        if home.is_relative_to(real):
            return f"the home folder of {name} is in it"
    for place in map(Path, map(os.path.realpath, _our_places())):
        if place.is_relative_to(real):
            return f"{place} is in it, which vagrantp itself needs"
        if real.is_relative_to(place):
            return f"it is in {place}, which vagrantp itself needs"
    if MASTER.is_relative_to(real):
        return f"vagrantp itself is in it, at {MASTER}"
    for name in SECRETS:
        if os.path.lexists(real / name):
            return f"there is {name} in it, as in a home folder"
        first = Path(name).parts[0]
        if name == first and first in real.parts:
            return f"it is in a folder called {first}, where programs keep secrets"
    return ""


def _homes() -> Iterator[tuple[Path, str]]:
    """Yield the home folder of each user, and the user's name. One that is a link is not followed:
    it may be mounted only then.
    """
    yield Path(os.path.realpath(Path.home())), "the user who runs this"
    for user in pwd.getpwall():
        place, name = os.path.split(os.path.normpath(user.pw_dir))
        if name:  # some of the system's have /
            yield Path(os.path.realpath(place), name), user.pw_name


def _our_places() -> Iterator[Path]:
    yield from (state_root(), defaults_path().parent, xdg("CACHE", ".cache"))
    yield xdg("DATA", ".local/share")
    yield from (contract.LIB, contract.RUN, contract.QEMU_HOOK, contract.OCI_HOOK)
    yield from (MASTER / ".venv", MASTER / "lib", MASTER / "playbooks")
