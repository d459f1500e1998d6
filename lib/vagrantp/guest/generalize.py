"""Takes out of a guest what is its own, before it becomes an image."""

from __future__ import annotations

import shlex

from vagrantp.core.places import SCRIPTS


def script(key: str) -> str:
    """Return a script for that, which root runs in it. `key`: the line that let vagrantp in."""
    return f"key={shlex.quote(key)}\n" + (SCRIPTS / "generalize.sh").read_text("utf-8")
