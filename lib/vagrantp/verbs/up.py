"""fab up"""

from __future__ import annotations

from functools import partial
from time import monotonic

from vagrantp_guard.contract import LanNic

from vagrantp.core.errors import VagrantpError, cleaned_up_by
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.guest import mount
from vagrantp.instance import grants, guard, tracked
from vagrantp.instance import record as instances
from vagrantp.instance.drift import drift
from vagrantp.instance.found import UP
from vagrantp.instance.plan import Do, WantUp, When, decide
from vagrantp.instance.record import Instance
from vagrantp.net import isolation, ports
from vagrantp.providers import provider_for
from vagrantp.settings import saved
from vagrantp.verbs import steps
from vagrantp.verbs.steps import report
from vagrantp.verbs.steps.find import find, locked
from vagrantp.verbs.steps.grant import granted
from vagrantp.verbs.tasks import accepts, here, not_built, verb


@verb
def up(
    host: Host,
    provision: bool = False,
    no_provision: bool = False,
    accept: bool = False,
    from_: str = "",
    verbose: bool = False,
    wait: bool = True,
) -> None:
    """Create or start this project's VM or container.

    Provisions it the first time, with --provision again, with --no-provision not at all. With
    --accept, grants what .env asks of this host without a question, and lets the guest write files
    that the last start has listed as closed although HEAD has them.
    --from is not supported yet.
    """
    if from_:
        raise not_built("up --from")
    wanted = WantUp(_when_to_provision(provision, no_provision))
    folder = here()
    asked = grants.load(folder, host.progress.say)
    instance = instances.new(asked, folder)
    host.progress.about(instance.full_name, instance.infra_type)
    with (
        locked(host, instance.id) as host,
        granted(host, folder, asked, accepts(host, accept)) as settings,
    ):
        if settings is None:
            return
        instance = instances.new(settings, folder)
        started = monotonic()
        found = find(host, folder)
        plan = decide(found, drift(found.instance, settings), wanted)
        if Do.CREATE not in plan:
            instance, settings = found.instance, saved.kept(found.instance.settings, settings)
        has = found.instance.settings if found.live in UP else None  # until its next start
        if mount.is_unprotected(has or settings):
            host.progress.say(f"warning: {mount.WARNING}")
        if settings.mount != "none" and (why := mount.why_no_repository(instance.folder)):
            host.progress.say(f"warning: {why}")
        is_started = found.live not in UP and settings.protect and settings.mount == "rw"
        if is_started and accept and (text := tracked.release(host, instance)):
            host.progress.say(text.replace("\n", "\n  "))
        seen = report.look(folder, settings)
        with cleaned_up_by(partial(report.started, host, found, instance, seen)):
            steps.take(host, plan, found, settings=settings, wanted=instance)
        if host.dry:
            show(f"{instance.full_name} would be running")
            return
        if is_started and (text := tracked.waiting(instance)):
            host.progress.say(text.replace("\n", "\n  "))
        if ports.forwards(instance):
            pid = provider_for(instance.infra_type).pid(host, instance)
            whys = dict.fromkeys(ports.why_silent(host, instance, pid))
            if why := "; ".join(filter(None, whys)):
                host.progress.say(why)
        if found.state == "running":
            show(summary(instance, "is running already"))
        else:
            show(summary(instance, "is running", monotonic() - started))


def _when_to_provision(always: bool, never: bool) -> When:
    """Return what --provision and --no-provision ask for."""
    if always and never:
        raise VagrantpError("--provision and --no-provision exclude each other")
    return "always" if always else "never" if never else "once"


def summary(instance: Instance, what: str, seconds: float | None = None) -> str:
    """Return what `up` ends with."""
    from humanize import naturalsize, precisedelta

    settings, provider = instance.settings, instance.machine()["provider"]
    assert settings
    leads = ", ".join(map(ports.shown, ports.forwards(instance)))
    shared = mount.shown(settings)
    cpus = f"{settings.cpus} CPU" + ("s" if settings.cpus != 1 else "")
    memory = naturalsize(settings.memory * 1024**2, binary=True)
    disk = f"{settings.disk} GiB disk" if instance.is_disk_limited() else "disk not limited"
    took = ""
    if seconds is not None:
        took = f", up in {precisedelta(seconds, format='%.0f' if seconds >= 10 else '%.1f')}"
    return "\n".join(
        [
            f"{instance.name} {what} ({settings.infra_type}, {cpus}, {memory} memory, "
            f"{disk}){took}",
            f"  address    {provider['address']}",
            *([f"  network    {_on_lan(instance.lan)}"] if instance.lan else []),
            *([f"  ports      {leads}"] if leads else []),
            *([f"  mount      {shared}"] if shared else []),
            f"  isolation  {isolation.text(guard.policy(settings))}",
            f"  next       fab {'agent' if settings.agent else 'ssh'}",
        ]
    )


def _on_lan(lan: LanNic) -> str:
    return f"{lan.address or 'an address by DHCP'} on {lan.bridge}"
