"""An agent's login in a guest: the file in the home folder that its makers' program keeps it in."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode

from vagrantp.core import documents
from vagrantp.core.errors import StateError
from vagrantp.core.system import Host
from vagrantp.guest import session, shell
from vagrantp.instance.record import Instance
from vagrantp.settings.agents import AGENTS

LONGEST = 64 * 1024  # bytes
READ = '[ ! -f "$HOME/$1" ] || head -c "$2" "$HOME/$1" | base64'
WRITE = """
set -eu
umask 077
mkdir -p "$(dirname "$HOME/$1")"
head -c "$2" > "$HOME/$1.new"
[ "$(wc -c < "$HOME/$1.new")" -eq "$2" ] # not cut off
mv "$HOME/$1.new" "$HOME/$1"
"""


def of(host: Host, instance: Instance, pid: str, name: str) -> bytes:
    """Return the login of an agent in a running guest. Raises StateError where it has none.

    It is a JSON object of 64 KB at most, as each of the agents writes one, with no other entries
    than a login has.
    """
    script = f"set -- {AGENTS[name].login} {LONGEST + 1}\n{READ}"
    answer = session.run(host, instance, pid, script)
    try:
        printed = b64decode("".join(answer.stdout.split()), validate=True) if answer.ok else b""
        found = documents.from_json(printed.decode()) if len(printed) <= LONGEST else None
    except (ValueError, binascii.Error):
        found = None
    login = entries(name, found)
    if not login:
        raise StateError(f"{instance.full_name} has no login of {name}", "log in there: fab agent")
    return json.dumps(login).encode()


def entries(name: str, found: object) -> dict[str, object]:
    """Return what of a file of an agent is its login; nothing where it is no such file. Pure."""
    agent = AGENTS[name]
    if not isinstance(found, dict):
        return {}
    return {
        key: value
        for key, value in found.items()
        if key in agent.keeps or (isinstance(value, dict) and value.get("type") in agent.kinds)
    }


def kept(name: str, size: int) -> str:
    """Return the command that makes the `size` bytes on its stdin the login of an agent."""
    return shell.shell(WRITE, AGENTS[name].login, str(size))
