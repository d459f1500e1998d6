"""Which closed names a guest may write since HEAD has them: as a person knows it, not the guest.

What HEAD has when a folder is first given to a protected guest is recorded outside of the folder. A
guest can commit more, which stays closed until the person agrees. docs/isolation.md
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from vagrantp_guard.contract import Tracked, tracked_path
from vagrantp_guard.protected import Parts
from vagrantp_guard.system import Refused

MOST_BYTES = 64 << 20


def open_record(state: Path, person: tuple[int, int]) -> int:
    """Open the record of an instance, or make it, as the person (uid, gid) in whose home it is.

    `state`: the instance's folder. Raises Refused.
    """
    path = tracked_path(state)
    was, group = os.geteuid(), os.getegid()
    is_other = was == 0 != person[0]
    try:
        if is_other:  # what is there may be a link of theirs
            os.setegid(person[1])
            os.seteuid(person[0])
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    finally:
        if is_other:
            os.seteuid(was)
            os.setegid(group)


def released(tracked: frozenset[Parts], record: int) -> frozenset[Parts]:
    """Return which of the tracked names a guest may write; record them at first.

    `record`: the open file; one that cannot be read releases nothing. Raises OSError.
    """
    names = frozenset("/".join(parts) for parts in tracked)
    text = os.pread(record, MOST_BYTES, 0)
    try:
        known = Tracked.from_json(json.loads(text)) if text else Tracked(names)
    except ValueError:
        known = Tracked(frozenset())
    now = Tracked(known.released, names - known.released)
    content = json.dumps(now.to_json()).encode()
    if content != text:
        # an empty record would be a first one; one that was cut off in the middle cannot be read
        if os.pwrite(record, content, 0) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(record, len(content))
    return frozenset(tuple(name.split("/")) for name in names & known.released)
