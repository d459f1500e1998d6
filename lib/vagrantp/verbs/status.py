"""fab status"""

from __future__ import annotations

import json as jsons
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vagrantp.core.errors import ConfigError
from vagrantp.core.system import Host
from vagrantp.core.text import escaped, show
from vagrantp.instance import grants, habits
from vagrantp.instance.drift import drift
from vagrantp.instance.found import Found
from vagrantp.instance.habits import Changed
from vagrantp.instance.record import Instance
from vagrantp.net import isolation, ports
from vagrantp.providers import provider_for
from vagrantp.settings import saved
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import BUILT_IMAGES
from vagrantp.verbs.ls import NOT_LIMITED, SCHEMA, facts_of, is_disk_unlimited
from vagrantp.verbs.steps import peek, report
from vagrantp.verbs.steps.find import find
from vagrantp.verbs.tasks import here, verb

PROTECTION = {True: "protected", False: "unprotected"}
HOW = {  # to get what `.env` asks for now
    "at once": "fab up applies it",
    "at the next start": "applies at the next start",
    "to a new instance": "needs fab rm, then fab up",
}


@verb
def status(host: Host, json: bool = False, verbose: bool = False) -> None:
    """Show this project's instance, live from its provider."""
    show(_text(host, here(), as_json=json))


def _text(host: Host, folder: Path, as_json: bool) -> str:
    """Return the status of a project's instance."""
    found = find(host, folder)
    facts = _facts(host, folder, found)
    if as_json:
        return jsons.dumps({"schema": SCHEMA, **facts}, indent=2)
    files = [Changed(**one) for one in facts.pop("files_changed", [])]
    facts["ports"] = ", ".join(
        ports.shown(port) + (f" ({port['why']})" if port["why"] else "")
        for port in facts.get("ports", [])
    )
    if protect := PROTECTION.get(facts.pop("protect", None)):
        facts["mount"] += f", {protect}"
    if kind := facts.pop("image_kind", None):
        facts["image"] += f", {kind}"
    changes = facts.pop("changes", [])
    facts["changes"] = "; ".join(
        f"{change['key']}: {change['old']} → {change['new']} ({HOW[change['applies']]})"
        for change in changes
    )
    facts["sessions"] = ", ".join(facts.get("sessions") or [])
    facts["hide"] = ", ".join(facts.get("hide", []))
    facts["kept"] = ", ".join(
        f"{one['key']}={one['value']} (the default is {one['default']})"
        for one in facts.get("kept", [])
    )
    units = {"memory_mib": "MiB", "disk_gib": "GiB"}
    if is_disk_unlimited(found):
        facts["disk_gib"], units["disk_gib"] = NOT_LIMITED, ""
    shown = {
        key.removesuffix("_mib").removesuffix("_gib"): escaped(
            f"{value} {units.get(key, '')}".strip(), keep=""
        )
        for key, value in facts.items()
        if value not in (None, "")
    }
    width = max(map(len, shown))
    lines = [f"{key:<{width}}  {value}" for key, value in shown.items()]
    return "\n".join([*lines, *filter(None, [habits.text(files)])])


def _facts(host: Host, folder: Path, found: Found) -> dict[str, Any]:
    if found.state == "absent":
        return {"state": "absent", "folder": str(folder.resolve())}
    settings = found.instance.settings
    policy, why = isolation.policy_of(found.instance), ""
    isolated = isolation.text(policy) if policy else None
    if policy and found.state == "running":
        why = isolation.why_not(host, found.instance, policy)
    if why:
        found = replace(found, state="broken", reason=f"not isolated: {why}: fab up")
        isolated = None
    wanted, seen = _wanted(folder), report.look(found.instance.folder, settings)
    facts = facts_of(found, peek.sessions(host, found))
    return {
        **facts,
        **_image(found.instance, settings),
        **_on_lan(host, found),
        "ports": _ports(host, found, facts["ports"]),
        "isolation": isolated,
        "mount": settings.mount if settings else "none",
        "protect": settings.protect if settings and settings.mount == "rw" else None,
        "hide": [*settings.hide] if settings else [],
        "files_changed": [asdict(one) for one in report.changed(found, seen)],
        "console": found.console,
        "vnc": found.vnc,
        "changes": [asdict(c) for c in drift(found.instance, wanted)] if wanted else [],
        "kept": kept(settings, wanted) if settings and wanted else [],
    }


def _image(instance: Instance, settings: Settings | None) -> dict[str, Any]:
    """Return what an instance was made of. A name may have meant another kind of image then."""
    if not settings:
        return {"image": None, "image_kind": None}
    made = instance.machine()["provider"]
    if instance.infra_type == "container":
        kind = "built here" if settings.image in BUILT_IMAGES else "OCI image"
    elif "key" not in made:
        kind = "Vagrant box"
    else:
        kind = "built here" if made.get("grows", True) else "cloud image"
    return {"image": saved.as_written(settings.image), "image_kind": kind}


def _ports(host: Host, found: Found, had: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ports of an instance, whether each is carried, and why it does not answer."""
    instance, whys = found.instance, [""] * len(had)
    is_open = ports.is_served(instance)
    if had and found.state == "running":
        pid = provider_for(instance.infra_type).pid(host, instance)
        lost = ["nothing carries it: fab up"] * len(had)
        whys = peek.why_silent(host, instance, pid) if is_open else lost
    return [
        {**port, "open": is_open, "why": why or None} for port, why in zip(had, whys, strict=True)
    ]


def _on_lan(host: Host, found: Found) -> dict[str, Any]:
    """Return where an instance is on a LAN; an address by DHCP is there once it has one."""
    lan = found.instance.lan
    if not lan:
        return {"bridge": None, "lan_address": None}
    fixed = lan.address and str(lan.address.ip)
    is_asked = not fixed and found.state == "running"
    leased = isolation.leased(host, lan) if is_asked else []
    return {"bridge": lan.bridge, "lan_address": fixed or next(iter(leased), None)}


def _wanted(folder: Path) -> Settings | None:
    """Return what `.env` asks for now, None where it is gone or broken."""
    try:
        return grants.load(folder)
    except ConfigError:
        return None


def kept(had: Settings, wanted: Settings) -> list[dict[str, str]]:
    """Return what an instance keeps that `.env` never set and whose default has changed since."""
    return [
        {"key": key, "value": value, "default": default}
        for key, default, value in saved.differences(wanted, saved.kept(had, wanted))
    ]
