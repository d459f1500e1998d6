"""The name and address in a guest's commits: those that git has on this host, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from vagrantp.core.errors import ProviderError
from vagrantp.core.places import SCRIPTS
from vagrantp.core.system import Host
from vagrantp.guest import shell

SCRIPT = SCRIPTS / "git_identity.sh"
LONGEST = 200  # characters
KEYS = ("user.name", "user.email")


def given_before(host: Host, command: str, data: bytes) -> tuple[str, bytes]:
    """Return a command for a guest, and what it gets on stdin: `command`, which gets `data`.

    First it gives git there what it lacks of name and address. They are in no argument.
    """
    found = _of(host)
    if not found:
        return command, data
    lines = "".join(f"{found.get(key, '')}\n" for key in KEYS)
    together = "; ".join(filter(None, (shell.shell(SCRIPT.read_text("utf-8")), command)))
    return together, lines.encode() + data


def _of(host: Host) -> dict[str, str]:
    """Return what the person's own git configuration has of KEYS; no folder's is looked at."""
    env = {name: os.environ[name] for name in ("XDG_CONFIG_HOME",) if name in os.environ}
    argv = ["git", "config", "--global", "--null", "--get-regexp", r"^user\.(name|email)$"]
    try:
        answer = host.ask(argv, env=env, cwd=Path("/"))
    except ProviderError:  # no git here
        return {}
    found = (item.split("\n", 1) for item in answer.stdout.split("\0") if "\n" in item)
    return {key: value for key, value in found if value.isprintable() and len(value) <= LONGEST}
