"""fab ls"""

from __future__ import annotations

import json as jsons
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from vagrantp.core.errors import ProviderError
from vagrantp.core.progress import table
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.instance import record as instances
from vagrantp.instance.found import Found, judged
from vagrantp.net import ports
from vagrantp.providers import provider_for
from vagrantp.verbs.steps import peek
from vagrantp.verbs.tasks import verb

SCHEMA = 1  # of docs/json.md
SIZES = (("memory_mib", "MiB"), ("cpus", ""), ("disk_gib", "GiB"))
NOT_LIMITED = "not limited"  # of a container without a quota


@verb
def ls(host: Host, json: bool = False, verbose: bool = False) -> None:
    """Show every instance of yours on this host."""
    show(_text(host, as_json=json))


def _text(host: Host, as_json: bool) -> str:
    """Return every instance of this user, live, even if its project is gone."""
    found = sorted(_all(host), key=lambda one: one.name)
    with ThreadPoolExecutor(max_workers=8) as pool:
        sessions = [*pool.map(partial(peek.sessions, host), found)]
    facts = [facts_of(one, names) for one, names in zip(found, sessions, strict=True)]
    if as_json:
        return jsons.dumps({"schema": SCHEMA, "instances": facts}, indent=2)
    if not facts:
        return "no instances"
    head = ("instance", "type", "state", "address", "ports", "memory", "cpus", "disk", "sessions")
    rows: list[tuple[str, ...]] = [(*head, "folder")]
    for one, fact in zip(found, facts, strict=True):
        sizes = [f"{fact[key] or '?'} {unit}" for key, unit in SIZES]
        if is_disk_unlimited(one):
            sizes[-1] = NOT_LIMITED
        leads = ", ".join(map(ports.shown, fact["ports"]))
        rest = (fact["folder"], f"({one.reason})" if one.reason else "")
        count = "?" if fact["sessions"] is None else len(fact["sessions"])
        where = (fact["instance"], fact["type"], fact["state"], fact["address"], leads)
        cells = (*where, *sizes, count)
        rows.append((*(str(cell or "-") for cell in cells), " ".join(filter(None, rest))))
    return table(rows)


def _all(host: Host) -> list[Found]:
    """Return all instances that a provider knows or that have a state folder, orphans marked."""
    made = {
        known.full_name: known
        for name in instances.machines()
        if (known := instances.by_id(name[-8:])) and known.full_name == name
    }
    found: dict[str, Found] = {}
    for infra_type in ("vm", "container"):
        try:
            listed = provider_for(infra_type).list_all(host)
        except ProviderError as error:
            for known in made.values():
                if known.infra_type == infra_type:
                    why = known.why_newer() or f"unknown: {error.message}"
                    found[known.full_name] = Found(known, "broken", os.getuid(), reason=why)
            continue
        for one in listed:
            if one.uid == os.getuid():
                found[one.name] = _with_project(judged(one))
    for name in made.keys() - found.keys():
        provider = "libvirt" if made[name].infra_type == "vm" else "Podman"
        why = made[name].why_newer() or f"{provider} no longer has it: fab rm --name {name}"
        found[name] = Found(made[name], "broken", os.getuid(), reason=why)
    return list(found.values())


def _with_project(found: Found) -> Found:
    if found.instance.folder.is_dir() or found.reason:
        return found
    return replace(found, reason=f"its folder is gone: fab rm --name {found.name}")


def is_disk_unlimited(found: Found) -> bool:
    """Say whether it was made without a limit for DISK, as a container without a quota is."""
    made = found.instance
    return found.state != "absent" and bool(made.machine()) and not made.is_disk_limited()


def facts_of(found: Found, sessions: tuple[str, ...] | None) -> dict[str, Any]:
    """Return what both `ls` and `status` show of an instance with these sessions of agents."""
    return {
        "state": found.state,
        "reason": found.reason,
        "instance": found.name,
        "name": found.instance.name,
        "id": found.instance.id,
        "type": found.instance.infra_type,
        "folder": str(found.instance.folder),
        "address": found.address,
        "memory_mib": found.memory,
        "cpus": found.cpus,
        "disk_gib": found.disk,
        "sessions": sessions if sessions is None else [*sessions],
        "ports": [
            {key: forward[key] for key in ("address", "host", "guest", "protocol")}
            for forward in ports.forwards(found.instance)
        ],
    }
