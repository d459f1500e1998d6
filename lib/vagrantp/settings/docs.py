"""What is generated from keys.py: a commented `.env`, and the tables of keys in docs/."""

from __future__ import annotations

import os
from pathlib import Path

from vagrantp.core.errors import StateError
from vagrantp.core.places import MASTER
from vagrantp.core.system import Host
from vagrantp.settings.keys import KEYS, NOT_BUILT
from vagrantp.settings.schema import NEW, Key

HEAD = """\
# This project's {what}: 'fab validate' checks what is written here, 'fab up' makes it.
# What starts with # is a comment: take the # away to set a key.
"""
# What `make docs` writes stands between these two lines of a document.
START = "<!-- by 'make docs', from settings/keys.py -->\n"
END = "<!-- end -->\n"


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
    """Return a sound `.env` with every key of a type: required ones set, all others as comments."""
    blocks = [_block(k, infra_type) for k in KEYS.values() if k.infra_type in (None, infra_type)]
    what = "virtual machine" if infra_type == "vm" else "container"
    return HEAD.format(what=what) + "".join(blocks)


def documents() -> dict[str, str]:
    """Return the texts of this checkout's files that are generated from the keys, by path."""
    tables = {
        "docs/configuration.md": _configuration(),
        "docs/changes.md": _table("VM", "container", *_changes()),
    }
    return {".env.example": env_text("vm")} | {
        name: _with(table, (MASTER / name).read_text(encoding="utf-8"))
        for name, table in tables.items()
    }


def _with(table: str, text: str) -> str:
    head, start, rest = text.partition(START)
    return head + start + table + END + rest.partition(END)[2]


def _block(key: Key, infra_type: str) -> str:
    value = infra_type if key.name == "INFRA_TYPE" else key.example
    default = f"default: {key.default or key.otherwise}" if key.default or key.otherwise else ""
    form = "; ".join(filter(None, [key.value, "required" if key.is_required else default]))
    mark = "" if key.is_required else "# "
    return f"\n# {_meaning(key)}\n# {form}\n{mark}{key.name}={value}\n"


def _meaning(key: Key) -> str:
    conditions = [
        f"only for INFRA_TYPE={key.infra_type}" if key.infra_type else "",
        f"so far only {key.so_far}" if key.so_far else "",
    ]
    limits = "; ".join(filter(None, conditions))
    return key.doc + (f" ({limits})" if limits else "")


def _table(*cells: str | tuple[str, ...]) -> str:
    """Return a table of keys. `cells`: titles of the columns behind `key`, then the rows."""
    titles = [cell for cell in cells if isinstance(cell, str)]
    rows = [cell for cell in cells if isinstance(cell, tuple)]
    lines = [("key", *titles), ("---",) * (len(titles) + 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _default(key: Key) -> str:
    if key.default:
        return f"`{key.default}`"
    return "required" if key.is_required else key.otherwise or "-"


def _configuration() -> str:
    rows = [
        (f"`{key.name}`", _default(key), key.value, _meaning(key), f"`{key.example}`")
        for key in KEYS.values()
    ]
    later = ", ".join(f"`{name}`" for name in NOT_BUILT)
    return (
        _table("default", "value", "meaning", "example", *rows)
        + f"\nNot supported yet, and refused wherever they are written: {later}.\n"
    )


def _changes() -> list[tuple[str, ...]]:
    """Return rows of keys and when a change of them applies, to a VM and to a container."""
    words = {"grow only": "larger: at once; smaller: to a new instance"}
    groups: dict[tuple[str, ...], list[str]] = {}
    for key in KEYS.values():
        answers = [
            key.applies_to(kind) if key.infra_type in (None, kind) else "-"
            for kind in ("vm", "container")
        ]
        cells = tuple(words.get(answer, answer) for answer in answers)
        if {*cells} - {"-", NEW}:
            groups.setdefault(cells, []).append(f"`{key.name}`")
    rows = [(", ".join(keys), *cells) for cells, keys in groups.items()]
    return [*rows, ("every other", NEW, NEW)]
