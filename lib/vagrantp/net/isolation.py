"""Whether guests are kept from the LAN: what `guard` finds in force now. docs/isolation.md"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vagrantp.core.errors import ProviderError
from vagrantp.core.places import PACKAGE
from vagrantp.core.progress import Check
from vagrantp.core.system import SET_UP, Host
from vagrantp.instance import commands
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings

PROGRAMS = PACKAGE / "programs"
OCI_HOOK = Path("/etc/containers/oci/hooks.d/vagrantp.json")
BROKEN = "broken: not isolated"


def is_rootless(infra_type: str) -> bool:
    """Say whether the guest is a user's container, with rules in its own network namespace."""
    return infra_type == "container" and os.getuid() != 0


def why_not_installed() -> str | None:
    """Return why `guard` is not there as this checkout has it, None when it is."""
    for name in ("guard", "forward"):
        installed = commands.GUARD.with_name(name)
        try:
            is_ours = installed.read_bytes() == (PROGRAMS / f"{name}.py").read_bytes()
        except OSError:
            return f"{installed}, which keeps guests from the LAN, is not installed"
        if not is_ours:
            return f"{installed} is of another version of vagrantp"
    return None if OCI_HOOK.exists() else f"{OCI_HOOK}, which starts it, is not there"


def live(host: Host) -> dict[str, Any]:
    """Return what `guard` says of the live rules: `problems`, and the `guests` by name.

    Raises ProviderError when it cannot be asked.
    """
    answer = host.ask(commands.guard("check"))
    try:
        found: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:
        why = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ProviderError(f"the packet filter cannot be looked at: {why}", SET_UP) from None
    return found


def ensure(host: Host, infra_type: str) -> None:
    """Put this host's rules back where they were lost. Raises ProviderError when that fails."""
    why = why_not_installed()
    if not why and not is_rootless(infra_type) and (why := _problems(host)):
        host.progress.say(f"guests were not isolated: {why}")
        try:
            _sync(host)
            why = "" if host.dry else _problems(host)
        except ProviderError as error:
            why = error.message
    if why:
        raise ProviderError(f"guests cannot be kept from the LAN: {why}", SET_UP)


def _problems(host: Host) -> str:
    return "; ".join(live(host)["problems"])


def text(settings: Settings) -> str:
    """Return what a guest may reach, in words."""
    if settings.lan_access:
        return "LAN open"
    open_ = ", ".join(map(str, settings.lan_allow))
    return f"LAN blocked, but for {open_}" if open_ else "LAN blocked"


def check(host: Host, instance: Instance, settings: Settings) -> Check:
    """Return whether the rules of a running instance are in force, and are those of `settings`."""
    why = why_not(host, instance, settings)
    found = f"{BROKEN}: {why}" if why else text(settings)
    return Check("isolation", text(settings), found, "FAILED" if why else "ok")


def why_not(host: Host, instance: Instance, settings: Settings) -> str:
    """Return why a running instance is not isolated as `settings` have it, or nothing."""
    if why := why_not_installed():
        return why
    if is_rootless(instance.infra_type):
        return "; ".join(_inside(host, instance, "check")["problems"])
    found = live(host)
    if found["problems"]:
        return "; ".join(found["problems"])
    guest = found["guests"].get(instance.full_name)
    if guest is None:
        return "no rules were loaded for it"
    if any(guest[key] != value for key, value in commands.isolation(settings).items()):
        return "its rules are of other settings"
    address, nowhere = instance.machine()["provider"]["address"], {"address": None}
    if (guest["lan"] or nowhere)["address"] != (instance.lan or nowhere)["address"]:
        return "its rules are of another address on the LAN"
    return "" if guest["ip"] == address else f"its rules are for {guest['ip']}, not {address}"


def leased(host: Host, lan: dict[str, Any]) -> list[str]:
    """Return the addresses that DHCP has given to a guest's card on a bridge."""
    found: list[str] = live(host)["leased"].get(lan["port"], [])
    return found


def restore(host: Host, instance: Instance) -> None:
    """Load the rules of a running instance anew, from what it may reach by now."""
    if is_rootless(instance.infra_type):
        pid = _pid(host, instance)
        host.change(commands.guard_inside("load", pid, instance), what="isolating it", timeout=60)
    else:
        _sync(host)


def _sync(host: Host) -> None:
    host.change(commands.guard("sync"), what="isolating guests", timeout=60)


def _inside(host: Host, instance: Instance, verb: str) -> dict[str, Any]:
    answer = host.ask(commands.guard_inside(verb, _pid(host, instance), instance))
    try:
        found: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:
        return {"problems": [(answer.stderr.strip().splitlines() or ["no reason given"])[-1]]}
    return found


def _pid(host: Host, instance: Instance) -> str:
    query = ("inspect", "--type", "container", "--format", "{{.State.Pid}}")
    return host.answer(["podman", *query, instance.full_name]).strip()
