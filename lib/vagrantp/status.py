"""Instances and settings, as text and as JSON (docs/json.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from vagrantp import instance as instances
from vagrantp import isolation, lifecycle, ports
from vagrantp.config import Settings
from vagrantp.providers import Found
from vagrantp.run import Host
from vagrantp.schema import KEYS

SCHEMA = 1


def text(host: Host, folder: Path, as_json: bool) -> str:
    """Return the status of a project's instance."""
    facts = _facts(host, folder)
    if as_json:
        return json.dumps({"schema": SCHEMA, **facts}, indent=2)
    closed = "" if facts.get("state") != "running" else " (nothing carries it: fab up)"
    facts["ports"] = ", ".join(
        ports.shown(port) + ("" if port["open"] else closed) for port in facts.get("ports", [])
    )
    units = {"memory_mib": "MiB", "disk_gib": "GiB"}
    shown = {
        key.removesuffix("_mib").removesuffix("_gib"): f"{value} {units.get(key, '')}".strip()
        for key, value in facts.items()
        if value not in (None, "")
    }
    width = max(map(len, shown))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in shown.items())


def settings_text(settings: Settings) -> str:
    """Return the resolved settings, one `KEY=value` a line, as a `.env` would have them."""
    values = instances.as_json(settings)
    values["box"] = values["image"]
    lines = [
        f"  {key.name}={instances.as_written(name, values[name])}"
        for key in KEYS.values()
        if values.get(name := key.name.lower()) not in (None, [])
        and key.infra_type in (None, settings.infra_type)
    ]
    return "\n".join([".env is valid", *lines])


def _on_lan(host: Host, found: Found) -> dict[str, Any]:
    """Return where an instance is on a LAN; an address by DHCP is there once it has one."""
    lan = found.instance.lan
    if not lan:
        return {"bridge": None, "lan_address": None}
    fixed = lan["address"] and lan["address"].partition("/")[0]
    is_asked = not fixed and found.state == "running"
    leased = isolation.leased(host, lan) if is_asked else []
    return {"bridge": lan["bridge"], "lan_address": fixed or next(iter(leased), None)}


def _facts(host: Host, folder: Path) -> dict[str, Any]:
    found = lifecycle.find(host, folder)
    if found is None:
        return {"state": "absent", "folder": str(folder.resolve())}
    settings = found.instance.machine().get("settings", {"lan_access": False, "lan_allow": []})
    isolated: str | None = isolation.text(settings)
    why = isolation.why_not(host, found.instance, settings) if found.state == "running" else ""
    if why:
        found, isolated = replace(found, state="broken", reason=f"not isolated: {why}"), None
    is_open = ports.is_served(found.instance)
    return {
        "state": found.state,
        "reason": found.reason,
        "instance": found.instance.full_name,
        "name": found.instance.name,
        "id": found.instance.id,
        "type": found.instance.infra_type,
        "folder": str(found.instance.folder),
        "address": found.address,
        **_on_lan(host, found),
        "memory_mib": found.memory,
        "cpus": found.cpus,
        "disk_gib": found.disk,
        "ports": [
            {
                **{key: forward[key] for key in ("address", "host", "guest", "protocol")},
                "open": is_open,
            }
            for forward in ports.forwards(found.instance)
        ],
        "isolation": isolated,
        "console": found.console,
        "vnc": found.vnc,
    }
