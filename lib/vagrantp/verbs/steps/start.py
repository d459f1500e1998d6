"""Starts a stopped instance."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from vagrantp.core.errors import ProviderError, StateError, UnansweredError, cleaning_up_after
from vagrantp.core.system import Host
from vagrantp.host import checks, vm_checks
from vagrantp.instance import plan, ssh
from vagrantp.instance import record as instances
from vagrantp.instance.record import Instance
from vagrantp.net import ports
from vagrantp.providers import libvirt, provider_for, vagrant
from vagrantp.settings.env import Settings
from vagrantp.verbs.steps import apply
from vagrantp.verbs.steps import check as checking


def start(host: Host, instance: Instance, settings: Settings, step: plan.Start) -> None:
    """Start a stopped instance: directly, or by Vagrant if the domain must be written again."""
    provider = provider_for(instance.infra_type)
    if instance.infra_type == "vm" and not vm_checks.has_disk(host, instance):
        text = f"{instance.full_name} is lost: libvirt no longer has its disk"
        raise StateError(text, "fab rm, then fab up")
    checks.before_start(host, instance, settings)
    for change in step.changes:
        host.progress.say(str(change))
    is_larger = step.resizes and apply.resize(host, instance, settings)

    def begin() -> None:
        with host.progress.stage("start"):
            _write_address(host, instance, provider.keep_address(host, instance, settings))
            apply.record_pending(host, instance, settings, step.changes)
            provider.isolate(host, instance, settings)
            if step.by_vagrant:
                vagrant.run(host, instance, "up", "--no-provision")
            else:
                provider.start(host, instance)

    def check() -> None:
        _check_isolation(host, instance, settings)
        with checking.explained(host, instance):
            ports.ensure(host, instance, provider.pid(host, instance))
        if is_larger:
            checking.grow(host, instance, ssh.ssh(instance))
        apply.record_applied(host, instance, settings, step.changes)
        checking.check(host, instance, settings, instance.ssh_config)

    if host.dry:
        return begin()
    boot(host, instance, settings, begin, check)


def _check_isolation(host: Host, instance: Instance, settings: Settings) -> None:
    """See that a started instance is isolated; if not, stop it and raise the reason."""
    provider = provider_for(instance.infra_type)
    try:
        checking.check_isolation(host, instance, settings)
    except BaseException as error:
        why: BaseException | None = None
        if isinstance(error, ProviderError):
            with cleaning_up_after(error):
                why = provider.why_ended(host, instance)
        if why:  # it may not have to be stopped
            with suppress(ProviderError):
                provider.stop(host, instance, force=True)
            raise why from None
        with cleaning_up_after(error):  # it may be reaching what it must not
            provider.stop(host, instance, force=True)
        raise


def boot(
    host: Host,
    instance: Instance,
    settings: Settings,
    start: Callable[[], None],
    check: Callable[[], None],
) -> None:
    """Start an instance and check it; if KVM fails and ACCEL=auto, start it again by emulation.

    Its disk stays.
    """
    try:
        start()
        check()
    except ProviderError as error:
        is_vm = instance.infra_type == "vm" and not isinstance(error, UnansweredError)
        why = None
        with cleaning_up_after(error):
            why = libvirt.why_not_kvm(host, instance, error) if is_vm else None
        if why is None or settings.accel != "auto":
            raise
        host.progress.say(f"KVM failed: {why}; going on by emulation")
        libvirt.emulate(host, instance)
        ports.end(host, instance)
        ssh.close_connections(host, instance)
        with host.progress.stage("start", "by emulation"):
            vagrant.run(host, instance, "up", "--no-provision")
        check()


def _write_address(host: Host, instance: Instance, address: str) -> None:
    """Record the address that an instance has from this start on."""
    document = instance.machine()
    if document["provider"]["address"] != address:
        ssh_config = instance.ssh_config.read_text("utf-8")
        text = re.sub(r"^(  HostName ).*$", rf"\g<1>{address}", ssh_config, flags=re.MULTILINE)
        host.write(instance.ssh_config, text)
        document["provider"]["address"] = address
        host.write(instance.machine_json, instances.as_text(document))
    ports.write(host, instance, document["provider"])
