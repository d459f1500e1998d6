"""Reports what changed in the project folder, of what people run there out of habit."""

from __future__ import annotations

from pathlib import Path

from vagrantp.core.system import Host
from vagrantp.instance import habits
from vagrantp.instance.found import UP, Found
from vagrantp.instance.habits import Changed, Seen
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings


def look(folder: Path, settings: Settings | None) -> Seen | None:
    """Return what is in a folder that a guest with these settings can write, else None."""
    is_writable = settings is not None and settings.mount == "rw" and folder.is_dir()
    return habits.look(folder) if is_writable else None


def changed(found: Found, seen: Seen | None) -> list[Changed]:
    """Return what a guest may have changed since it was started: not what others did, once it
    was stopped.
    """
    last = habits.last(found.instance)
    if seen is None or last is None or (last.is_stopped and found.live not in UP):
        return []
    return habits.changes(last.seen, seen)


def started(host: Host, found: Found, instance: Instance, seen: Seen | None) -> None:
    """Report what changed until `up` found an instance so; remember what a started one sees.

    `instance`: what was made or started, if only its provisioning failed; `seen`: before that.
    """
    if not instance.is_complete():
        return
    _say(host, changed(found, seen), seen)
    if seen and (found.live not in UP or habits.last(instance) is None):
        habits.remember(host, instance, seen, is_stopped=False)


def stopped(host: Host, found: Found) -> None:
    """Report what changed until an instance was stopped; remember what is there now."""
    seen = look(found.instance.folder, found.instance.settings)
    _say(host, changed(found, seen), seen)
    if seen:
        habits.remember(host, found.instance, seen, is_stopped=True)


def _say(host: Host, found: list[Changed], seen: Seen | None) -> None:
    if text := habits.text(found, is_whole=seen is None or seen.is_whole):
        host.progress.say(text.replace("\n", "\n  "))  # as far in as what is said
