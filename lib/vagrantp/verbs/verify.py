"""fab verify: one check for each promise."""

from __future__ import annotations

import json as jsons
from dataclasses import asdict

from vagrantp.core.errors import PromiseError
from vagrantp.core.progress import Check, compare, table
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.guest import certificates, mount, provision, session
from vagrantp.guest.facts import Facts
from vagrantp.instance import grants, network, ssh
from vagrantp.instance import record as instances
from vagrantp.instance.found import Found
from vagrantp.net import isolation, ports, reach
from vagrantp.providers import provider_for
from vagrantp.settings import saved
from vagrantp.settings.env import Settings
from vagrantp.verbs.steps.find import running
from vagrantp.verbs.tasks import here, verb


@verb
def verify(host: Host, json: bool = False, verbose: bool = False) -> None:
    """Prove that the running instance is what .env says."""
    folder = here()
    settings = grants.load(folder, host.progress.say)
    found = running(host, folder)
    settings = saved.kept(found.instance.settings, settings)
    checks = checks_of(host, found, settings)
    show(_json(found, checks) if json else _table(checks))
    failed = sum(check.outcome == "FAILED" for check in checks)
    if failed:
        said = next(check.found for check in checks if check.name == "ssh")
        refused = session.why_refused(found.instance, said)
        hint = refused.hint if refused else None
        raise PromiseError(f"{failed} of {len(checks)} promises are broken", hint)


def checks_of(host: Host, found: Found, settings: Settings) -> list[Check]:
    """Return every check of a running instance. Changes nothing."""
    instance = found.instance
    facts, why = session.ask(host, ssh.ssh(instance))
    promised = str(settings.fixed_ip or instance.machine()["provider"]["address"]).partition("/")[0]
    own = [str(address) for address in facts.addresses]
    addresses = [*own]
    if not why:  # a rootless container has none that the host can route: it answered at a port
        addresses.append(network.LOOPBACK)
    pid = provider_for(instance.infra_type).pid(host, instance)
    return [
        compare("type", settings.infra_type, instance.infra_type),
        *provider_for(instance.infra_type).check(host, instance, settings),
        *session.check(facts, settings),
        *mount.check(instance, settings, facts),
        *certificates.check(instance, settings, facts),
        *(mount.check_kept(host, instance, settings, ssh.ssh(instance)) if not why else []),
        compare("address", promised, promised if promised in addresses else " ".join(addresses)),
        *_on_lan(host, instance, facts),
        isolation.check(host, instance, settings),
        *provision.proof(settings, facts),
        compare("ssh", "answers", why or "answers"),
        *(reach.checks(host, instance, settings, pid, own) if not why else []),
        *(ports.checks(host, instance, settings, pid) if not why else []),
    ]


def _on_lan(host: Host, instance: instances.Instance, facts: Facts) -> list[Check]:
    """Return what a guest on a bridge of the host has there."""
    lan = instance.lan
    if not lan:
        return []
    gateway = facts.gateway and str(facts.gateway)
    if lan.address:
        return [compare("gateway", str(lan.gateway), gateway)]
    leased = isolation.leased(host, lan)
    given = [address for address in map(str, facts.addresses) if address in leased]
    here = instance.machine()["provider"]["address"].rpartition(".")[0] + ".1"
    return [
        compare(f"address on {lan.bridge}", "by DHCP", "by DHCP" if given else "none"),
        compare(
            "gateway", "not this host", gateway if gateway in (None, here) else "not this host"
        ),
    ]


def _table(checks: list[Check]) -> str:
    return table(
        [("promise", "promised", "found", ""), *(tuple(asdict(c).values()) for c in checks)]
    )


def _json(found: Found, checks: list[Check]) -> str:
    document = {
        "schema": 1,
        "instance": found.instance.full_name,
        "ok": all(check.outcome != "FAILED" for check in checks),
        "checks": [asdict(check) for check in checks],
    }
    return jsons.dumps(document, indent=2)
