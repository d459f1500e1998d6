"""An instance as it is found now, and whether it can be used as it is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Literal

from vagrantp.instance.record import Instance

State = Literal["absent", "running", "paused", "stopped", "broken"]
UP = ("running", "paused")  # a stop ends these


@dataclass(frozen=True)
class Found:
    """One of our instances, as its provider knows it now. `memory` in MiB, `disk` in GiB."""

    instance: Instance
    state: State
    uid: int
    reason: str | None = None
    address: str | None = None
    memory: int | None = None
    cpus: float | None = None
    disk: int | None = None
    console: str | None = None
    vnc: str | None = None
    live: State = "absent"  # as its provider says, even if `state` is broken
    is_unfinished: bool = False  # left by a killed `up`
    is_lost: bool = False  # made in full, and others removed it, or its disk

    @property
    def name(self) -> str:
        """Its name, in full."""
        return self.instance.full_name


def judged(found: Found) -> Found:
    """Return an instance as `broken`, with the reason, if it cannot be used as it is."""
    instance = found.instance
    found = replace(found, live=found.state)
    if not instance.state_dir.is_dir():
        return replace(found, state="broken", reason="its state folder with the keys is gone")
    if why := instance.why_newer():
        return replace(found, state="broken", reason=why)
    if not instance.is_complete():
        why, is_unfinished = "it was never made in full", bool(instance.machine())
        return replace(found, state="broken", reason=why, is_unfinished=is_unfinished)
    if not instance.machine():
        return replace(found, state="broken", reason="its machine.json is gone or cannot be read")
    return found


def uid_from(text: str) -> int:
    """Return the uid that metadata or a label has, which others can write, too; -1 for none."""
    return int(text) if re.fullmatch(r"\d{1,10}", text, re.ASCII) else -1


def absent(instance: Instance) -> Found:
    """Return the finding that there is no such instance."""
    return Found(instance, "absent", os.getuid())


def lost(instance: Instance, reason: str) -> Found:
    """Return the finding that others removed an instance."""
    why = instance.why_newer() or reason
    return Found(instance, "broken", os.getuid(), reason=why, is_lost=True)
