"""Where things are: the checkout, and the person's folders, as the XDG specification has them."""

from __future__ import annotations

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


# The command that fixes most problems of a host, in any folder.
SET_UP = f"make -C {shlex.quote(str(MASTER))} setup"
