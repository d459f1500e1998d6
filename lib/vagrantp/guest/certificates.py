"""CA_CERTS in a running guest."""

from __future__ import annotations

from vagrantp.core.progress import Check, compare
from vagrantp.core.system import Host
from vagrantp.guest import session
from vagrantp.guest.facts import Facts
from vagrantp.instance import certificates, ssh
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings


def check(instance: Instance, settings: Settings, facts: Facts) -> list[Check]:
    """Return whether a guest, by its facts, trusts CA_CERTS and nothing that was in it before."""
    wanted, found = certificates.of(instance, settings), facts.certificates
    if not wanted and not found:
        return []
    promised = f"{len(wanted)} trusted" if wanted else "none"
    if not found:
        return [compare("certificates", promised, "none")]
    if found.digest != certificates.digest(wanted):
        return [compare("certificates", promised, "others")]
    missing = f"{found.missing} not in the system's store" if found.missing else promised
    return [compare("certificates", promised, missing)]


def ensure(
    host: Host, instance: Instance, settings: Settings, facts: Facts, argv: list[str]
) -> bool:
    """Have a running guest trust CA_CERTS; say whether it did not, by its facts, before.

    `argv`: the ssh that reaches it, from its state folder. Raises ProviderError.
    """
    if all(found.outcome == "ok" for found in check(instance, settings, facts)):
        return False
    with host.progress.stage("trust CA_CERTS"):
        script = certificates.script(certificates.of(instance, settings))
        for part in (script, ssh.RELOAD_SSHD):
            session.as_root(host, argv, part, "trusting CA_CERTS", instance.state_dir)
        ssh.close_connections(host, instance, "stop")  # sshd sets variables as of the login
    return True
