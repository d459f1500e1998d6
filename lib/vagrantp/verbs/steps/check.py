"""Reads back what was made of an instance, from its provider and from inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from vagrantp.core.errors import ProviderError, UnansweredError
from vagrantp.core.places import SET_UP
from vagrantp.core.progress import Check
from vagrantp.core.system import Host
from vagrantp.guest import certificates, mount, session
from vagrantp.guest.facts import Facts
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance
from vagrantp.net import isolation
from vagrantp.providers import libvirt, provider_for
from vagrantp.settings.env import Settings

SSH_TIMEOUT = {"vm": 600, "container": 60}  # seconds until ssh must answer


def check(host: Host, instance: Instance, settings: Settings, ssh_config: Path) -> None:
    """Wait for ssh and read back what was made, from the provider and from inside."""
    provider = provider_for(instance.infra_type)
    facts, argv = _reach(host, instance, ssh_config)
    if mount.learn_user(host, instance, settings, facts):
        with host.progress.stage("start again", f"as /project is {settings.ssh_user}'s"):
            ssh.close_connections(host, instance)
            provider.isolate(host, instance, settings)
            provider.stop(host, instance, force=False)
            provider.start(host, instance)
        facts, argv = _reach(host, instance, ssh_config)
    if certificates.ensure(host, instance, settings, facts, argv):
        facts, argv = _reach(host, instance, ssh_config)
    with host.progress.stage("check"), explained(host, instance):
        facts = mount.ensure(host, instance, settings, facts, argv, instance.state_dir)
        checks = provider.enforce(host, instance, settings)
        checks += session.check(facts, settings)
        checks += mount.check(instance, settings, facts)
        checks += certificates.check(instance, settings, facts)
        checks += mount.check_kept(host, instance, settings, argv, instance.state_dir)
    if instance.is_complete() and (renamed := [c for c in checks if _is_renamed(c)]):
        host.progress.say(f"the guest was renamed: it is {renamed[0].found}")
        checks = [check for check in checks if check not in renamed]
    _require(checks)


def _is_renamed(check: Check) -> bool:
    """Say whether a guest has another name than it was made with, as root in it may set."""
    return check.name == "hostname" and check.outcome == "FAILED"


def trust(host: Host, instance: Instance, settings: Settings) -> None:
    """Have a running instance trust CA_CERTS, where it does not. Raises ProviderError."""
    argv = ssh.kept_ssh(instance, provider_for(instance.infra_type).pid(host, instance))
    facts, why = session.ask(host, argv, instance.state_dir)
    if why:
        raise session.unanswered(instance, why)
    if certificates.ensure(host, instance, settings, facts, argv):
        facts, _ = _reach(host, instance, instance.ssh_config)
        _require(certificates.check(instance, settings, facts))


def _require(checks: list[Check]) -> None:
    """Raise ProviderError where a check has failed."""
    failed = [
        f"{check.name}: promised {check.promised}, found {check.found}"
        for check in checks
        if check.outcome == "FAILED"
    ]
    if failed:
        raise ProviderError("it is not what .env says:\n  " + "\n  ".join(failed))


def _reach(host: Host, instance: Instance, config: Path) -> tuple[Facts, list[str]]:
    """Wait for ssh; return the guest's facts, and the argv of the connection kept for `ssh`.

    `config`: its ssh_config. The argv is to be run in the state folder.
    """
    provider = provider_for(instance.infra_type)
    argv = ssh.kept_ssh(instance, provider.pid(host, instance), config=config)
    with host.progress.stage("wait for ssh"):
        facts = session.wait(
            host,
            argv,
            SSH_TIMEOUT[instance.infra_type],
            partial(provider.why_ended, host, instance),
            cwd=instance.state_dir,
            needs_gateway=bool(instance.lan),
            refusal=partial(session.why_refused, instance),
        )
    return facts, argv


def rejoin(host: Host, instance: Instance) -> None:
    """Wait until an instance that may be rebooting answers. Raises ProviderError where it ended."""
    _reach(host, instance, instance.ssh_config)


def grow(host: Host, instance: Instance, argv: list[str]) -> None:
    """Make the root file system of a VM fill its disk. `argv`: the ssh that reaches it."""
    with host.progress.stage("grow the root file system"):
        session.wait(host, argv, SSH_TIMEOUT["vm"], partial(libvirt.why_ended, host, instance))
        session.grow(host, argv)


def check_isolation(host: Host, instance: Instance, settings: Settings) -> None:
    """Raise ProviderError where a running instance is not isolated as its settings say."""
    found = isolation.check(host, instance, settings)
    if found.outcome == "FAILED":
        raise ProviderError(f"{instance.full_name} is {found.found}; it was stopped", SET_UP)


@contextmanager
def explained(host: Host, instance: Instance) -> Iterator[None]:
    """Raise why a started instance has ended in place of the error that its end causes."""
    try:
        yield
    except UnansweredError:
        raise
    except ProviderError as error:
        provider, why = provider_for(instance.infra_type), None
        with suppress(ProviderError):
            if instance.full_name in (f.name for f in provider.list_all(host)):
                why = provider.why_ended(host, instance)
        raise why or error from None
