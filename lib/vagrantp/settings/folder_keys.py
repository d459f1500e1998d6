"""The keys about the project folder in the guest: MOUNT, and what of it PROTECT and HIDE keep."""

from __future__ import annotations

from voluptuous import All

from vagrantp.settings import files, parsers
from vagrantp.settings.parsers import one_of, yes_or_no
from vagrantp.settings.schema import NEXT_START, Grant, key

MOUNT = key(
    "none, ro or rw",
    "the project folder in the guest, at /project; what it makes there is yours on this host",
    "none",
    one_of("none", "ro", "rw"),
    default="none",
    hint="MOUNT=ro lets the guest read the project folder, MOUNT=rw write it, too",
    grant=Grant(
        {"ro": "the guest reads this folder", "rw": "the guest changes this folder"},
        is_plain="none".__eq__,
        covers=parsers.order("ro", "rw"),
    ),
    applies=NEXT_START,
    verified="mount",
)
PROTECT = key(
    "yes or no",
    "with MOUNT=rw: whether the guest is kept from what programs on this host run or obey in the "
    "folder, such as git's settings and hooks, or an editor's; it can still commit and fetch",
    "yes",
    yes_or_no,
    default="yes",
    before="no",
    is_kept=False,
    hint="PROTECT=no lets the guest write whatever programs on this host run in the folder",
    grant=Grant(
        "the guest writes what programs on this host run in this folder, git among them",
        is_plain=bool,
        by_mount=("rw",),
    ),
    applies=NEXT_START,
    verified="protect",
)
HIDE = key(
    "path(s) in the folder, comma-separated",
    "what is empty in the guest, with MOUNT, and stays what it is on this host; what the guest "
    "writes there is lost when it stops",
    ".env,secrets",
    All(parsers.items, (parsers.inside,), parsers.apart),
    locate=files.hidden,
    in_project=True,
    hint="HIDE=.env,secrets keeps a file and a folder of the project from the guest",
    grant=Grant(
        "the guest sees what was hidden from it before, if it is not among this",
        covers=parsers.hides_no_less,
        by_mount=("ro", "rw"),
        only_wider=True,
        as_a_whole=True,
    ),
    applies=NEXT_START,
    verified="hide",
)
