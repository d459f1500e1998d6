"""Runs programs that read what a folder, an image or a guest brings, where they reach nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vagrantp.core.places import PACKAGE

JAIL = PACKAGE / "core/jail.py"
USER = "vagrantp-sandbox"  # whom playbooks/host.yml makes: runs what root starts
HOME = "/home"  # in the sandbox, empty
# Where vagrantp's own Python and packages are; /usr is there anyway.
PYTHON = [path for path in map(Path, (sys.prefix, sys.base_prefix)) if path != Path("/usr")]


@dataclass(frozen=True)
class Sandbox:
    """What a program sees beside /usr, and may use.

    `reads`, `writes`: files and folders at their own paths; `writes` become the sandbox's user's,
    where root starts it. `places`: read-only at other paths, inside → here; `writable`: the same,
    read-write. `memory`: MB of address space; `file_size`: MB of one file; `tmp`: MB in /tmp;
    `cpu`: seconds of CPU time.
    """

    reads: Sequence[Path] = ()
    writes: Sequence[Path] = ()
    places: Mapping[str, Path] = field(default_factory=dict)
    writable: Mapping[str, Path] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    memory: int = 4096
    file_size: int = 4096
    tmp: int = 512
    cpu: int | None = None


def argv(sandbox: Sandbox, command: Sequence[str]) -> list[str]:
    """Return argv that runs `command` in a sandbox.

    Without a network, a terminal, a home, /proc and /sys. Where none can be made, it ends with an
    error of bwrap's or of jail.py's, and runs nothing.
    """
    binds = [
        *((str(path), str(path), False) for path in sandbox.reads),
        *((str(here), inside, False) for inside, here in sandbox.places.items()),
        *((str(path), str(path), True) for path in sandbox.writes),
        *((str(here), inside, True) for inside, here in sandbox.writable.items()),
    ]
    env = {"HOME": HOME, "LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin", **sandbox.env}
    spec = {
        "binds": binds,
        "env": env,
        "cwd": sandbox.cwd,
        "memory": sandbox.memory,
        "file_size": sandbox.file_size,
        "tmp": sandbox.tmp,
        "cpu": sandbox.cpu,
        "user": USER,
    }
    return [sys.executable, "-IS", str(JAIL), json.dumps(spec), *command]
