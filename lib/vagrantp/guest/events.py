"""What a playbook did, as callbacks/vagrantp.py writes it: JSON, one object a line.

A playbook runs whatever it likes beside that callback: so every line is parsed, typed and bounded,
and one that is something else does not count.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_BYTES = 8 * 1024**2  # of all events; what comes later does not count
MOST_TEXT = 4000  # characters of a message
MOST_LINES = 100  # of a kind; the last ones count
MOST_TASKS = 10**6


@dataclass(frozen=True)
class Failure:
    """A task that failed. `place`: file:line, "" where it is not known."""

    play: str
    task: str
    place: str
    message: str


@dataclass(frozen=True)
class Events:
    """What is known of a run. `task`: number of the one that started last, and of how many."""

    task: tuple[int, int] | None = None
    failures: tuple[Failure, ...] = ()
    refused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # collections, each with its modules
    for_nobody: tuple[str, ...] = ()
    ok: int = 0
    changed: int = 0
    has_ended: bool = False


def read(file: Path) -> Events:
    """Return the events in a file, which may still be written."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES)
    except FileNotFoundError:
        return Events()
    found: dict[str, Any] = {}
    failures: deque[Failure] = deque(maxlen=MOST_LINES)
    refused: deque[str] = deque(maxlen=MOST_LINES)
    missing: deque[str] = deque(maxlen=MOST_LINES)
    for_nobody: deque[str] = deque(maxlen=MOST_LINES)
    for kind, value in _pairs(data):
        match kind, value:
            case "tasks", [int(number), int(total)] if _are_counts(number, total):
                found["task"] = number, total
            case "failed", {
                "play": str(play),
                "task": str(task),
                "place": str(place),
                "message": str(message),
            }:
                texts = (text[:MOST_TEXT] for text in (play, task, place, message))
                failures.append(Failure(*texts))
            case "refused", list(lines):
                refused.extend(line[:MOST_TEXT] for line in lines if isinstance(line, str))
            case "missing", dict(collections):
                for name, modules in [*collections.items()][:MOST_LINES]:
                    if isinstance(modules, list):
                        text = f"{name} (for {', '.join(map(str, modules[:MOST_LINES]))})"
                        missing.append(text[:MOST_TEXT])
            case "nobody", str(text):
                for_nobody.append(text[:MOST_TEXT])
            case "counts", {"ok": int(ok), "changed": int(changed)} if _are_counts(ok, changed):
                found |= {"ok": ok, "changed": changed, "has_ended": True}
    return Events(
        failures=tuple(failures),
        refused=tuple(refused),
        missing=tuple(missing),
        for_nobody=tuple(for_nobody),
        **found,
    )


def _are_counts(*numbers: int) -> bool:
    return all(0 <= number <= MOST_TASKS for number in numbers)


def _pairs(data: bytes) -> Iterator[tuple[str, object]]:
    for line in data.split(b"\n"):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            yield from event.items()
