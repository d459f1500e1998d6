"""What is written out of keys.py: a commented `.env`, and docs/configuration.md."""

from __future__ import annotations

import os
from pathlib import Path

from vagrantp.core.errors import StateError
from vagrantp.core.system import Host
from vagrantp.settings.keys import KEYS
from vagrantp.settings.schema import Key

HEAD = """\
# This project's {what}: 'fab validate' checks what is written here, 'fab up' makes it.
# What starts with # is a comment: take the # away to set a key.
"""
DOCUMENT = """\
# Configuration

<!-- made by 'make docs' out of lib/vagrantp/settings/keys.py -->

A project's `.env` has one `KEY=value` a line, as
[python-dotenv](https://saurabh-kumar.com/python-dotenv/reference/) reads it, but a `$` in a value
is no variable. A value with a `#` or with blanks at its ends is quoted. Paths start from the folder
of the file that they are written in, `~/` is the home folder. Keys of the project's own are left
alone; one that is nearly one of these is told, as it may be a mistake.

| key | default | value | meaning | example |
| --- | --- | --- | --- | --- |
"""
TAIL = """
Where the table says "so far", other values are checked, and then refused as "not supported yet".
`fab init` writes a `.env` with all of this as comments, and `.env.example` is one.

Values for all projects of a host can stand in `$XDG_CONFIG_HOME/vagrantp/defaults.env`, which is
`~/.config/vagrantp/defaults.env` by default. What the project's own `.env` says wins.

## DISK of a container

The kernel keeps root's containers to it where Podman's storage is on XFS with project quotas. Few
hosts have that: elsewhere, and for a user's own containers, `up` says that it is not enforced and
why, `verify` as well, and `fab doctor` beforehand, under "container storage".

    make setup CONTAINER_STORE=100

gives a host 100 GB of it: a sparse file, `/var/lib/vagrantp-containers.xfs`, with an entry in
`/etc/fstab`, mounted where Podman keeps images and containers. What there was would be hidden, so
it refuses while there is any. To take it back, remove containers and images, unmount it, and delete
the file and the entry.

The quota counts what the container writes to its own file system, wherever in it: an image's
volumes are directories like any other. It is against accidents, not attacks: root in a container
can take files out of the count (`chattr -p 0`).
"""


def init(host: Host, folder: Path, infra_type: str) -> str:
    """Write a commented `.env` into the project `folder`; return what was done.

    Raises StateError when anything of that name is there.
    """
    path = folder / ".env"
    if os.path.lexists(path):
        raise StateError(f"{path} is there already", "fab validate checks it")
    host.write(path, env_text(infra_type), 0o666)
    if host.dry:
        return f"{path} would be written"
    return f"{path} is written: fab up makes what it says"


def env_text(infra_type: str) -> str:
    """Return a sound `.env` with every key: required ones set, all others as comments."""
    blocks = [_block(key, infra_type) for key in KEYS.values()]
    what = "virtual machine" if infra_type == "vm" else "container"
    return HEAD.format(what=what) + "".join(blocks)


def documents() -> dict[str, str]:
    """Return the files of this checkout that are made of the schema, by their paths in it."""
    rows = "".join(map(_row, KEYS.values()))
    return {".env.example": env_text("vm"), "docs/configuration.md": DOCUMENT + rows + TAIL}


def _block(key: Key, infra_type: str) -> str:
    value = infra_type if key.name == "INFRA_TYPE" else key.example
    default = f"default: {key.default or key.otherwise}" if key.default or key.otherwise else ""
    told = "; ".join(filter(None, [key.value, "required" if key.is_required else default]))
    mark = "" if key.is_required else "# "
    return f"\n# {_meaning(key)}\n# {told}\n{mark}{key.name}={value}\n"


def _meaning(key: Key) -> str:
    limits = [
        f"only for INFRA_TYPE={key.infra_type}" if key.infra_type else "",
        f"so far only {key.so_far}" if key.so_far else "",
    ]
    told = "; ".join(filter(None, limits))
    return key.doc + (f" ({told})" if told else "")


def _row(key: Key) -> str:
    default = "required" if key.is_required else key.otherwise or "-"
    cells = [
        f"`{key.name}`",
        f"`{key.default}`" if key.default else default,
        key.value,
        _meaning(key),
        f"`{key.example}`",
    ]
    return f"| {' | '.join(cells)} |\n"
