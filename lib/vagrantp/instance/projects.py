"""Which folders are projects, found out without running or importing anything of them."""

from __future__ import annotations

import os
from pathlib import Path

from vagrantp.core import documents
from vagrantp.core.places import defaults_path, id_from, state_root

TYPE = "INFRA_TYPE"


def is_within(path: Path) -> bool:
    """Say whether a path, by its name or really, is a project's folder or below one."""
    places = (path.absolute(), Path(os.path.realpath(path)))
    folders = {folder for place in places for folder in (place, *place.parents)}
    try:
        ids = {made.name.rpartition("-")[2] for made in state_root().iterdir()}
    except OSError:
        ids = set()
    return any(id_from(folder) in ids or _has_settings(folder) for folder in folders)


def _has_settings(folder: Path) -> bool:
    file = folder / ".env"
    return _is_there(file) and (_has_type(file) or _has_type(defaults_path()))


def _is_there(file: Path) -> bool:
    """Say whether something is there that may be settings. A folder `.env` is a venv of Python."""
    return os.path.lexists(file) and not os.path.isdir(file)  # noqa: PTH112 - which never raises


def _has_type(file: Path) -> bool:
    """Say whether settings have our required key. What cannot be read may have it."""
    if not _is_there(file):
        return False
    try:
        text = documents.content(file).decode("utf-8-sig", "replace")
    except documents.Unreadable:
        return True
    if TYPE not in text:
        return False
    from vagrantp.settings.lines import bindings  # few come here

    return any(
        TYPE in binding.original.string
        if binding.error
        else binding.key in (TYPE, f"VAGRANTP_{TYPE}")
        for binding in bindings(text)
    )
