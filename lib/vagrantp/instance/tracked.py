"""Closed names that HEAD has only since the folder was first given to a protected guest.

The guest may have committed them itself: they stay closed until the person agrees.
vagrantp_guard/released.py records them at each start.
"""

from __future__ import annotations

import json

from vagrantp_guard.contract import Tracked

from vagrantp.core import documents
from vagrantp.core.system import Host
from vagrantp.core.text import plain
from vagrantp.instance.record import Instance

MOST_BYTES = 64 << 20
MOST_SHOWN = 10  # lines


def _recorded(instance: Instance) -> Tracked:
    try:
        text = documents.text(instance.tracked, at_most=MOST_BYTES)
        return Tracked.from_json(documents.from_json(text))
    except ValueError:  # none, or one that cannot be read, and releases nothing
        return Tracked(frozenset())


def release(host: Host, instance: Instance) -> str:
    """Let the next guest write what was listed; return what is said of that, "" for nothing."""
    known = _recorded(instance)
    if known.since:
        now = Tracked(known.released | known.since)
        host.write(instance.tracked, json.dumps(now.to_json()))
    return _text("the guest may write these from now on:", known.since)


def waiting(instance: Instance) -> str:
    """Return what HEAD has and the guest may not write, as a person is shown it; "" for nothing."""
    return _text(
        "HEAD has these since, and the guest may have added them: it cannot write them until you "
        "stop it and say fab up --accept",
        _recorded(instance).since,
    )


def _text(head: str, names: frozenset[str]) -> str:
    lines = [plain(name) for name in sorted(names)[:MOST_SHOWN]]
    if len(names) > MOST_SHOWN:
        lines.append(f"and {len(names) - MOST_SHOWN} more")
    return "\n  ".join([head, *lines]) if lines else ""
