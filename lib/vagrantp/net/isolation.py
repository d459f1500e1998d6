"""Whether guests are kept from the LAN: what `guard` finds in force now. docs/isolation.md"""

from __future__ import annotations

import os
from ipaddress import IPv4Interface

from vagrantp_guard import contract

from vagrantp.core import documents
from vagrantp.core.errors import ProviderError
from vagrantp.core.places import SET_UP
from vagrantp.core.progress import Check
from vagrantp.core.system import Host
from vagrantp.core.text import last_line
from vagrantp.instance import guard
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings

BROKEN = "broken: not isolated"


def is_rootless(infra_type: str) -> bool:
    """Say whether the guest is a user's container, with rules in its own network namespace."""
    return infra_type == "container" and os.getuid() != 0


def why_not_installed() -> str | None:
    """Return why `guard` is not installed as this checkout has it, None when it is.

    Its starter names the modules by their digest, and is written only after them.
    """
    starter = contract.starter(contract.LIB / contract.version())
    try:
        is_ours = contract.GUARD.read_bytes() == starter.encode()
    except OSError:
        return f"{contract.GUARD}, which keeps guests from the LAN, is not installed"
    if not is_ours:
        return f"{contract.GUARD} belongs to another version of vagrantp"
    hook = contract.OCI_HOOK
    return None if hook.exists() else f"{hook}, which starts it, is not there"


def live(host: Host) -> contract.Report:
    """Return `guard`'s report on the live rules. Raises ProviderError when it cannot be asked."""
    return _report(host, guard.argv("check"))


def _report(host: Host, argv: list[str]) -> contract.Report:
    answer = host.ask(argv)
    try:
        return contract.Report.from_json(documents.from_json(answer.stdout))
    except ValueError:
        why = f"the packet filter cannot be looked at: {last_line(answer.stderr)}"
        raise ProviderError(why, SET_UP) from None


def closed_by_others(host: Host) -> dict[str, list[str]]:
    """Return what other firewalls keep from guests, by the bridges that there are now.

    Raises ProviderError where that cannot be tried.
    """
    answer = host.ask(guard.argv("try"))
    try:
        found: dict[str, list[str]] = documents.from_json(answer.stdout)
    except ValueError:
        why = f"packets of guests cannot be tried: {last_line(answer.stderr)}"
        raise ProviderError(why, SET_UP) from None
    return found


def ensure(host: Host, infra_type: str) -> None:
    """Put this host's rules back if they were lost. Raises ProviderError when that fails."""
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
    return "; ".join(live(host).problems)


def text(policy: contract.Policy) -> str:
    """Return what a guest may reach, in words."""
    if policy.lan_access:
        return "LAN open"
    open_ = ", ".join(map(str, policy.lan_allow))
    return f"LAN blocked, but for {open_}" if open_ else "LAN blocked"


def policy_of(instance: Instance) -> contract.Policy | None:
    """Return what an instance may reach, by its record; None where that is lost."""
    settings = instance.settings
    return guard.policy(settings, instance.lan) if settings else None


def check(host: Host, instance: Instance, settings: Settings) -> Check:
    """Return whether the rules of a running instance are in force, and are those of `settings`."""
    policy = guard.policy(settings, instance.lan)
    why = why_not(host, instance, policy)
    found = f"{BROKEN}: {why}" if why else text(policy)
    return Check("isolation", text(policy), found, "FAILED" if why else "ok")


def why_not(host: Host, instance: Instance, policy: contract.Policy) -> str:
    """Return why a running instance is not isolated as `policy` has it, or nothing."""
    if why := why_not_installed():
        return why
    if is_rootless(instance.infra_type):
        return "; ".join(_problems_inside(host, instance))
    found = live(host)
    if found.problems:
        return "; ".join(found.problems)
    guest = found.guests.get(instance.full_name)
    if guest is None:
        return instance.hooks_reason() or "no rules were loaded for it"
    loaded = guest.policy
    if (loaded.lan_access, loaded.lan_allow) != (policy.lan_access, policy.lan_allow):
        return "its rules are for other settings"
    if _address_of(loaded) != _address_of(policy):
        return "its rules are for another address on the LAN"
    address = instance.machine()["provider"]["address"]
    return "" if str(guest.ip) == address else f"its rules are for {guest.ip}, not {address}"


def _address_of(policy: contract.Policy) -> IPv4Interface | None:
    return policy.lan.address if policy.lan else None


def leased(host: Host, lan: contract.LanNic) -> list[str]:
    """Return the addresses that DHCP has given to a guest's card on a bridge."""
    return live(host).leased.get(lan.port, [])


def restore(host: Host, instance: Instance) -> None:
    """Load the rules of a running instance again, from its current settings."""
    if is_rootless(instance.infra_type):
        pid = _pid(host, instance)
        host.change(guard.inside("load", pid, instance), what="isolating it", timeout=60)
    else:
        _sync(host)


def _sync(host: Host) -> None:
    host.change(guard.argv("sync"), what="isolating guests", timeout=60)


def _problems_inside(host: Host, instance: Instance) -> tuple[str, ...]:
    try:
        argv = guard.inside("check", _pid(host, instance), instance)
        return _report(host, argv).problems
    except ProviderError as error:
        return (error.message,)


def _pid(host: Host, instance: Instance) -> str:
    query = ("inspect", "--type", "container", "--format", "{{.State.Pid}}")
    return host.answer(["podman", *query, instance.full_name]).strip()
