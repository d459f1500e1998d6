"""TERM in a guest, which may not know the person's terminal."""

from __future__ import annotations

import os
import re
import shlex

from vagrantp.core.errors import VagrantpError
from vagrantp.core.system import Host
from vagrantp.guest import session
from vagrantp.instance.record import Instance

# What every distribution has without a package of its own.
EVERYWHERE = (
    *("dumb", "linux", "screen", "screen-256color", "tmux", "tmux-256color", "vt100"),
    *("xterm", "xterm-256color"),
)
OTHERWISE = "xterm-256color"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
LARGEST = 32 * 1024  # bytes of an entry; foot's, a large one, has 4 KB
FOLDERS = ("TERMINFO", "TERMINFO_DIRS")  # kitty and Ghostty have an entry of their own there
# With $name, and $entry, "" for none, set before it. By root, as `sudo` has to know it as well.
TAKE = """
! infocmp "$name" > /dev/null 2>&1 || exit 0
[ "$entry" ] || exit 1
printf '%s\\n' "$entry" | sudo -n tic -x - || printf '%s\\n' "$entry" | tic -x -
infocmp "$name"
"""


def known_in(host: Host, instance: Instance, pid: str, name: str) -> str:
    """Return what the terminal `name` of this host is called in a running guest.

    Where the guest does not know it, it gets the entry that this host has; where that fails, it is
    OTHERWISE. `pid`: of its QEMU or first process.
    """
    if name in EVERYWHERE or host.dry:
        return name
    if not NAME.fullmatch(name):
        return OTHERWISE
    values = {"name": name, "entry": _entry(host, name)}
    start = "".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items())
    return name if session.run(host, instance, pid, start + TAKE).ok else OTHERWISE


def _entry(host: Host, name: str) -> str:
    """Return the terminfo(5) source of a terminal, "" where this host has none."""
    places = {key: os.environ[key] for key in FOLDERS if key in os.environ}
    try:
        answer = host.ask(["infocmp", "-x", name], timeout=10, env=places, at_most=LARGEST)
    except VagrantpError:  # there is no infocmp
        return ""
    return str(answer.stdout) if answer.ok else ""
