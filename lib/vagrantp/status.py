"""Instances and settings, as text and as JSON (docs/json.md)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vagrantp import lifecycle
from vagrantp.config import Settings
from vagrantp.run import Host
from vagrantp.schema import KEYS

SCHEMA = 1


def text(host: Host, folder: Path, as_json: bool) -> str:
    """Return the status of a project's instance."""
    facts = _facts(host, folder)
    if as_json:
        return json.dumps({"schema": SCHEMA, **facts}, indent=2)
    units = {"memory_mib": "MiB", "disk_gib": "GiB"}
    shown = {
        key.removesuffix("_mib").removesuffix("_gib"): f"{value} {units.get(key, '')}".strip()
        for key, value in facts.items()
        if value is not None
    }
    width = max(map(len, shown))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in shown.items())


def settings_text(settings: Settings) -> str:
    """Return the resolved settings, one `KEY=value` a line, as a `.env` would have them."""
    values = {key.upper(): value for key, value in asdict(settings).items()}
    values["BOX"] = values["IMAGE"]
    values["LAN_ACCESS"] = "yes" if settings.lan_access else "no"
    lines = [
        f"  {key.name}={values[key.name]}"
        for key in KEYS.values()
        if key.name in values and key.infra_type in (None, settings.infra_type)
    ]
    return "\n".join([".env is valid", *lines])


def _facts(host: Host, folder: Path) -> dict[str, Any]:
    found = lifecycle.find(host, folder)
    if found is None:
        return {"state": "absent", "folder": str(folder.resolve())}
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
        "isolation": "none",
        "console": found.console,
        "vnc": found.vnc,
    }
