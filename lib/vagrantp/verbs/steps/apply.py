"""Applies changes in `.env` to a running instance, as far as that is possible now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vagrantp.core.errors import ProviderError, VagrantpError, cleaning_up_after
from vagrantp.core.places import SET_UP
from vagrantp.core.system import Host
from vagrantp.host import checks
from vagrantp.instance import plan, ssh
from vagrantp.instance import record as instances
from vagrantp.instance.drift import AT_START, Change
from vagrantp.instance.record import Instance
from vagrantp.net import isolation, ports
from vagrantp.providers import provider_for
from vagrantp.providers.libvirt import domain
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import KEYS
from vagrantp.settings.schema import NEXT_START
from vagrantp.verbs.steps import check as checking


def apply(host: Host, instance: Instance, settings: Settings, step: plan.Apply) -> None:
    """Apply to a running instance what applies at once, and restore what it has lost."""
    for change in step.changes:
        host.progress.say(f"{change} {change.applies}")
    settings = _until_next_start(instance.settings or settings, settings)
    is_larger = step.resizes and resize(host, instance, settings)
    if is_larger:
        checking.grow(host, instance, ssh.ssh(instance))
    record_pending(host, instance, settings, step.now)
    is_isolated = _isolate(host, instance, settings)
    if host.dry:
        return
    provider = provider_for(instance.infra_type)
    if step.now:
        provider.enforce(host, instance, settings)
    if is_larger:
        checking.check(host, instance, settings, instance.ssh_config)
    if step.now or not is_isolated:
        provider.isolate(host, instance, settings)
        isolation.restore(host, instance)
        try:
            checking.check_isolation(host, instance, settings)
        except BaseException as error:
            with cleaning_up_after(error):
                provider.stop(host, instance, force=True)
            raise
    if settings.ca_certs or any(change.key == "CA_CERTS" for change in step.now):
        checking.trust(host, instance, settings)
    is_lost = bool(ports.forwards(instance)) and not ports.is_served(instance)
    if is_lost and not step.forwards:
        host.progress.say("its ports were not forwarded any more; they are again")
    if is_lost or step.forwards:
        ports.ensure(host, instance, provider.pid(host, instance), restart=step.forwards)
    record_applied(host, instance, settings, step.now)


def _until_next_start(had: Settings, settings: Settings) -> Settings:
    """Return what an instance that has the settings `had` is to have while it goes on running."""
    later = [k.field for k in KEYS.values() if k.applies_to(had.infra_type) == NEXT_START]
    return replace(settings, **{field: getattr(had, field) for field in later})


def _isolate(host: Host, instance: Instance, settings: Settings) -> bool:
    """Say whether a running instance is isolated; where it is not, put the host's rules back.

    Stops it where that fails.
    """
    if why := isolation.why_not_installed():  # the present rules may be in force all the same
        raise ProviderError(f"guests cannot be kept from the LAN: {why}", SET_UP)
    try:
        is_isolated = isolation.check(host, instance, settings).outcome == "ok"
        if not is_isolated:
            isolation.ensure(host, instance.infra_type)
    except VagrantpError as error:
        with cleaning_up_after(error):
            provider_for(instance.infra_type).stop(host, instance, force=True)
        raise
    return is_isolated


def resize(host: Host, instance: Instance, settings: Settings) -> bool:
    """Make the disk larger; return whether a file system has to follow.

    The change is recorded only after that, so what fails in between is done again.
    """
    if instance.infra_type == "vm":
        checks.before_growth(host, settings)
    provider_for(instance.infra_type).resize(host, instance, settings)
    return instance.infra_type == "vm"


def record_pending(
    host: Host, instance: Instance, settings: Settings, changes: Sequence[Change]
) -> None:
    """Record changes for those who apply them; if that is interrupted, they are still changes."""
    _record(host, instance, settings, changes, is_applied=False)


def record_applied(
    host: Host, instance: Instance, settings: Settings, changes: Sequence[Change]
) -> None:
    """Record changes as what the instance now has."""
    _record(host, instance, settings, changes, is_applied=True)


def _record(
    host: Host,
    instance: Instance,
    settings: Settings,
    changes: Sequence[Change],
    is_applied: bool,
) -> None:
    if not changes:
        return
    keys = [change.key.lower() for change in changes]
    document = instances.amended(instance, settings, keys)
    provider = document["provider"]
    sizes = (*AT_START, "disk")
    provider |= {key: document["settings"][key] for key in sizes if key in provider}
    if "ports" in keys:
        provider["forwards"] = ports.settle(host, instance, settings)
        ports.write(host, instance, provider)
    if "metadata" in provider:
        address = provider["address"]
        provider["metadata"] = domain.metadata(instance, settings, address, instance.lan)
    if not is_applied:
        document["settings"] = instance.machine()["settings"]
    host.write(instance.machine_json, instances.as_text(document))
