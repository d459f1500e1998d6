"""Instances and settings, as text and as JSON (docs/json.md)."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vagrantp.core.errors import ConfigError, ProviderError
from vagrantp.core.progress import table
from vagrantp.core.system import Host
from vagrantp.instance import record as instances
from vagrantp.net import isolation, ports
from vagrantp.providers import Found, provider_for
from vagrantp.settings import env, saved
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import KEYS
from vagrantp.verbs import lifecycle

SCHEMA = 1
HOW = {  # to get what `.env` asks for by now
    "at once": "fab up applies it",
    "at the next start": "applies at the next start",
    "to a new instance": "needs fab rm, then fab up",
}
SIZES = (("memory_mib", "MiB"), ("cpus", ""), ("disk_gib", "GiB"))


def text(host: Host, folder: Path, as_json: bool) -> str:
    """Return the status of a project's instance."""
    facts = _facts(host, folder)
    if as_json:
        return json.dumps({"schema": SCHEMA, **facts}, indent=2)
    closed = "" if facts.get("state") != "running" else " (nothing carries it: fab up)"
    facts["ports"] = ", ".join(
        ports.shown(port) + ("" if port["open"] else closed) for port in facts.get("ports", [])
    )
    changes = facts.pop("changes", [])
    facts["changes"] = "; ".join(
        f"{change['key']}: {change['old']} → {change['new']} ({HOW[change['applies']]})"
        for change in changes
    )
    facts["kept"] = ", ".join(
        f"{one['key']}={one['value']} (the default is {one['default']})"
        for one in facts.get("kept", [])
    )
    units = {"memory_mib": "MiB", "disk_gib": "GiB"}
    shown = {
        key.removesuffix("_mib").removesuffix("_gib"): f"{value} {units.get(key, '')}".strip()
        for key, value in facts.items()
        if value not in (None, "")
    }
    width = max(map(len, shown))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in shown.items())


def listing(host: Host, as_json: bool) -> str:
    """Return every instance of this user, live, whatever became of its project."""
    found = sorted(_all(host), key=lambda one: one.instance.full_name)
    facts = [_of_all(one) for one in found]
    if as_json:
        return json.dumps({"schema": SCHEMA, "instances": facts}, indent=2)
    if not facts:
        return "no instances"
    rows: list[tuple[str, ...]] = [
        ("instance", "type", "state", "address", "ports", "memory", "cpus", "disk", "folder")
    ]
    for one, fact in zip(found, facts, strict=True):
        sizes = [f"{fact[key] or '?'} {unit}" for key, unit in SIZES]
        leads = ", ".join(map(ports.shown, fact["ports"]))
        rest = (fact["folder"], f"({one.reason})" if one.reason else "")
        cells = (fact["instance"], fact["type"], fact["state"], fact["address"], leads, *sizes)
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
                found[one.instance.full_name] = _with_project(lifecycle.judged(one))
    for name in made.keys() - found.keys():
        provider = "libvirt" if made[name].infra_type == "vm" else "Podman"
        why = made[name].why_newer() or f"{provider} no longer has it: fab rm --name {name}"
        found[name] = Found(made[name], "broken", os.getuid(), reason=why)
    return list(found.values())


def _with_project(found: Found) -> Found:
    if found.instance.folder.is_dir() or found.reason:
        return found
    return replace(found, reason=f"its folder is gone: fab rm --name {found.instance.full_name}")


def settings_text(settings: Settings) -> str:
    """Return the resolved settings, one `KEY=value` a line, as a `.env` would have them."""
    lines = [
        f"  {key.name}={saved.as_written(value)}"
        for key in KEYS.values()
        if (value := getattr(settings, key.field)) not in (None, ())
        and key.infra_type in (None, settings.infra_type)
    ]
    return "\n".join([".env is valid", *lines])


def _on_lan(host: Host, found: Found) -> dict[str, Any]:
    """Return where an instance is on a LAN; an address by DHCP is there once it has one."""
    lan = found.instance.lan
    if not lan:
        return {"bridge": None, "lan_address": None}
    fixed = lan.address and str(lan.address.ip)
    is_asked = not fixed and found.state == "running"
    leased = isolation.leased(host, lan) if is_asked else []
    return {"bridge": lan.bridge, "lan_address": fixed or next(iter(leased), None)}


def _of_all(found: Found) -> dict[str, Any]:
    """Return what `ls` and `status` both tell of an instance."""
    return {
        "state": found.state,
        "reason": found.reason,
        "instance": found.instance.full_name,
        "name": found.instance.name,
        "id": found.instance.id,
        "type": found.instance.infra_type,
        "folder": str(found.instance.folder),
        "address": found.address,
        "memory_mib": found.memory,
        "cpus": found.cpus,
        "disk_gib": found.disk,
        "ports": [
            {key: forward[key] for key in ("address", "host", "guest", "protocol")}
            for forward in ports.forwards(found.instance)
        ],
    }


def _facts(host: Host, folder: Path) -> dict[str, Any]:
    found = lifecycle.find(host, folder)
    if found is None:
        return {"state": "absent", "folder": str(folder.resolve())}
    settings = found.instance.settings
    policy, why = isolation.policy_of(found.instance), ""
    isolated = isolation.text(policy) if policy else None
    if policy and found.state == "running":
        why = isolation.why_not(host, found.instance, policy)
    if why:
        found, isolated = replace(found, state="broken", reason=f"not isolated: {why}"), None
    wanted = _wanted(folder)
    is_open = ports.is_served(found.instance)
    facts = _of_all(found)
    return {
        **facts,
        **_on_lan(host, found),
        "ports": [{**port, "open": is_open} for port in facts["ports"]],
        "isolation": isolated,
        "mount": settings.mount if settings else "none",
        "console": found.console,
        "vnc": found.vnc,
        "changes": [asdict(c) for c in lifecycle.drift(found.instance, wanted)] if wanted else [],
        "kept": kept(settings, wanted) if settings and wanted else [],
    }


def _wanted(folder: Path) -> Settings | None:
    """Return what `.env` asks for now, None where it is gone or broken."""
    try:
        return env.load(folder)
    except ConfigError:
        return None


def kept(had: Settings, wanted: Settings) -> list[dict[str, str]]:
    """Return what an instance keeps as `.env` has never had it, though other defaults hold now."""
    return [
        {"key": key, "value": value, "default": default}
        for key, default, value in saved.differences(wanted, saved.kept(had, wanted))
    ]
