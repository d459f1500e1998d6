#!/usr/bin/python3 -IS
"""Runs bindfs(1) and makes, in its place, each change that a guest asks for, or refuses it.

`supervisor.py RECORD HIDDEN… -- bindfs …`, in the sandbox of share.py, with the folder as
/project. RECORD is the descriptor of what released.py records, or `no`, to protect nothing.
bindfs has one thread, so nothing changes by it while a call waits for its answer.
docs/adr/0026-the-folder-by-a-supervisor.md
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from vagrantp_guard import notify
from vagrantp_guard.changes import Changes
from vagrantp_guard.folder import Folder
from vagrantp_guard.seccomp import CALLS, program, supervised

PROJECT = Path("/project")
FILES = 65_536  # open at once
VETTED = 64  # … of these, so many may be written by the supervisor only


def main(arguments: list[str]) -> int:
    """Run until bindfs ends. Raises OSError, Refused."""
    record, *hidden = arguments[: arguments.index("--")]
    bindfs = arguments[arguments.index("--") + 1 :]
    os.umask(0)  # the guest's kernel has applied its own
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = min(most, FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    vetted = range(files - VETTED, files)
    opened = None if record == "no" else int(record)
    folder = Folder(PROJECT, opened, [tuple(path.split("/")) for path in hidden])
    if opened is not None:
        os.close(opened)
    changes = Changes(folder, vetted)
    machine = os.uname().machine
    names = {number: name for name, number in CALLS[machine].items()}
    filters = program(machine, supervised(vetted.start, hides=bool(hidden)))
    listener, process = notify.child(bindfs, filters)
    notify.answer_all(listener, process, lambda call: changes.answer(call, names[call.number]))
    os.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
