"""Where things are: the checkout, and the person's folders, as the XDG specification has them."""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

MASTER = Path(__file__).resolve().parents[3]  # the checkout: Vagrantfile, playbooks, …
PACKAGE = Path(__file__).resolve().parents[1]
SCRIPTS = PACKAGE / "guest/scripts"  # what runs in guests


def xdg(kind: str, fallback: str) -> Path:
    """Return our folder under `$XDG_<kind>_HOME`, which is ignored if relative, as XDG says."""
    base = os.environ.get(f"XDG_{kind}_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / fallback) / "vagrantp"


def state_root() -> Path:
    """Return `$XDG_STATE_HOME/vagrantp`."""
    return xdg("STATE", ".local/state")


def defaults_path() -> Path:
    """Return where values for all projects of this host can stand."""
    return xdg("CONFIG", ".config") / "defaults.env"


def secrets_path() -> Path:
    """Return where the values of AGENT_ENV stand."""
    return xdg("CONFIG", ".config") / "secrets.env"


def id_from(folder: Path) -> str:
    """Return the first 8 hex digits of the SHA-256 of the folder's resolved path."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]


# The command that fixes most problems of a host, in any folder.
SET_UP = f"make -C {shlex.quote(str(MASTER))} setup"
