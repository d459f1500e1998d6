"""From the state an instance is in to the state a verb wants, in stages that are timed and told."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from vagrantp_guard import contract

from vagrantp.core.errors import (
    HostLimitError,
    ProviderError,
    StateError,
    UnansweredError,
    VagrantpError,
)
from vagrantp.core.places import state_root
from vagrantp.core.system import SET_UP, Host, environment, refuse_open
from vagrantp.guest import mount, provision, session
from vagrantp.host import checks
from vagrantp.images import built
from vagrantp.instance import commands, trust
from vagrantp.instance import record as instances
from vagrantp.instance.record import Instance
from vagrantp.net import isolation, ports
from vagrantp.providers import Found, libvirt, provider_for
from vagrantp.settings import env, rules, saved, schema
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import SSH_USER

UP_TIMEOUT = 900  # seconds for Vagrant to create a VM, under software emulation too
AT_START = ("memory", "cpus", "mount")  # settings that the Vagrantfile gives to a VM as it starts
PROVISIONING = ("provision_script", "provision_vars")
When = Literal["once", "always", "never"]
SSH_TIMEOUT = {"vm": 600, "container": 60}  # seconds until ssh must answer


@dataclass(frozen=True)
class Change:
    """A setting that differs from what the instance has, and when it can be had."""

    key: str
    old: str
    new: str
    applies: schema.When

    def __str__(self) -> str:
        return f"{self.key}: {self.old} → {self.new}"


def find(host: Host, folder: Path) -> Found | None:
    """Return the instance of a project, live from its provider, or None when there is none.

    Works without `.env`: by the state folder, or, where that is gone, by the metadata.
    """
    return _find(host, env.id_from(folder), instances.remembered(folder))


def _find(host: Host, wanted: str, known: Instance | None) -> Found | None:
    if known:
        host.progress.about(known.full_name, known.infra_type)
    types = [known.infra_type] if known and known.infra_type else ["vm", "container"]
    for infra_type in types:
        try:
            listing = provider_for(infra_type).list_all(host)
        except ProviderError as error:
            if len(types) == 1 or isinstance(error, UnansweredError):
                raise
            continue  # nothing tells that this provider was ever used here
        for found in listing:
            if found.instance.id == wanted and found.uid == os.getuid():
                host.progress.about(found.instance.full_name, found.instance.infra_type)
                return judged(found)
    return None


def judged(found: Found) -> Found:
    """Tell an instance that cannot be used as it is from a sound one."""
    found = replace(found, is_up=found.state in ("running", "paused"))
    if not found.instance.state_dir.is_dir():
        return replace(found, state="broken", reason="its state folder with the keys is gone")
    if why := found.instance.why_newer():
        return replace(found, state="broken", reason=why)
    if not found.instance.is_complete():
        return replace(found, state="broken", reason="it was never made in full")
    if not found.instance.machine():
        return replace(found, state="broken", reason="its machine.json is gone or cannot be read")
    return found


def up(
    host: Host,
    settings: Settings,
    folder: Path,
    provisioning: When,
    is_sure: Callable[[str], bool],
) -> str:
    """Create or start the instance that `settings` ask for; return the summary.

    `provisioning`: once, where the guest does not say that it was done; always; or never.
    `is_sure` is asked before what its guest may have changed is used (trust.py).
    """
    wanted = instances.new(settings, folder)
    host.progress.about(wanted.full_name, wanted.infra_type)
    with _locked(host, env.id_from(folder)) as host:
        started = monotonic()
        trust.accept(host, wanted, settings, is_sure)
        if settings.mount == "rw":
            host.progress.say(f"warning: {mount.WARNING}")
        found = find(host, folder)
        is_half_made = found and found.instance.machine() and not found.instance.is_complete()
        if found and found.state == "broken" and is_half_made:
            host.progress.say(
                f"{found.instance.full_name} is broken: {found.reason}; making it anew"
            )
            _remove(host, found.instance)
            found = None
        if found is None:
            _clear_the_way(host, wanted)
            if provisioning != "never":
                provision.check(host, wanted, settings)
            _create(host, wanted, settings)
        elif found.state == "broken":
            raise StateError(
                f"{found.instance.full_name} is broken: {found.reason}", "fab rm, then fab up"
            )
        else:
            settings = saved.kept(found.instance.settings, settings)
            changes = drift(found.instance, settings)
            _refuse_what_needs_rm(found.instance, changes)
            wanted = found.instance
            provider_for(wanted.infra_type).adopt(host, wanted)
            if found.state == "running":
                _refresh(host, wanted, settings, changes)
            else:
                _start(host, found, settings, changes)
        _provision(host, wanted, settings, provisioning)
        if host.dry:
            return f"{wanted.full_name} would be running"
        if found and found.state == "running":
            return summary(wanted, "is running already")
        return summary(wanted, "is running", monotonic() - started)


def _clear_the_way(host: Host, wanted: Instance) -> None:
    """Remove what an `up` by another NAME has left when it was killed.

    Raises StateError where the domain of a complete VM is gone, and its disk is not.
    """
    for known in instances.all_by_id(wanted.id, wanted.folder):
        if known.is_complete() and known.infra_type == "vm" and checks.has_disk(host, known):
            text = f"libvirt has {known.full_name} no more, but its disk"
            raise StateError(text, "fab rm removes that as well, then fab up")
        if known.full_name != wanted.full_name:
            _remove(host, known)


def provision_anew(
    host: Host, settings: Settings, folder: Path, is_sure: Callable[[str], bool]
) -> str:
    """Provision the running instance of a project, done before or not; return what was done.

    `is_sure`: as of `up`.
    """
    with _locked(host, env.id_from(folder)) as host:
        found = running(host, folder)
        settings = saved.kept(found.instance.settings, settings)
        trust.accept(host, found.instance, settings, is_sure)
        name = found.instance.full_name
        changes = drift(found.instance, settings)
        _take(host, found.instance, settings, [c for c in changes if c.key.lower() in PROVISIONING])
        done = _provision(host, found.instance, settings, "always")
        return f"{name} is provisioned: {done}" if done else f"{name} has no PROVISION_SCRIPT"


def _provision(host: Host, instance: Instance, settings: Settings, when: When) -> str:
    """Provision a running instance where that is due; return what was done, nothing if nothing."""
    if not provision.is_asked(settings):
        return ""
    pid = provider_for(instance.infra_type).pid(host, instance)
    is_due = when == "always" or not pid or provision.is_due(host, instance, settings, pid)
    if is_due and when == "never":
        host.progress.say("not provisioned, as you said; fab provision does it")
    if not is_due or when == "never":
        return ""
    try:
        done = provision.run(host, instance, settings, pid)
    finally:  # sshd knows the groups of a user as of the login
        _hang_up(host, instance, "stop")
    if not host.dry:
        host.progress.say(f"provisioned: {done}")
    return done


def when_to_provision(always: bool, never: bool) -> When:
    """Return what --provision and --no-provision ask for."""
    if always and never:
        raise VagrantpError("--provision and --no-provision exclude each other")
    return "always" if always else "never" if never else "once"


def stop(host: Host, folder: Path, force: bool) -> str:
    """Stop the instance of a project; return what was done."""
    with _locked(host, env.id_from(folder)) as host:
        found = existing(host, folder)
        name = found.instance.full_name
        if not found.is_up:
            return f"{name} is stopped already"
        provider = provider_for(found.instance.infra_type)
        with host.progress.stage("stop"):
            provider.stop(host, found.instance, force)
            ports.end(host, found.instance)
            _hang_up(host, found.instance)
        if host.dry:
            return f"{name} would be stopped"
        if provider.pid(host, found.instance):
            raise ProviderError(f"{name} still runs")
        return f"{name} is stopped"


def remove(host: Host, folder: Path, is_sure: Callable[[str], bool], name: str = "") -> str:
    """Remove the instance of a project and everything made for it; return what was done.

    `is_sure` is asked before a running one is removed. `name`: of an instance, wherever its project
    is or was.
    """
    if name and not contract.NAME.fullmatch(name):
        raise StateError(f"{name} is no name of an instance", "fab ls shows them: NAME-ID")
    identity = name[-8:] or env.id_from(folder)
    with _locked(host, identity) as host:
        known = instances.by_id(identity, None if name else folder.resolve())
        found = _find(host, identity, known)
        known = found.instance if found else known
        if known is None:
            _remove_logs(host, identity)
        if known is None or (name and name != known.full_name):
            return f"nothing to remove for {name or folder}"
        if found and found.is_up and not is_sure(known.full_name):
            raise StateError(
                f"{known.full_name} is running", "fab stop first, or remove it with fab rm --force"
            )
        _remove(host, known)
        if host.dry:
            return f"{known.full_name} would be removed"
        trust.forget(host, known)
        if _find(host, identity, known):
            raise ProviderError(f"{known.full_name} is still there")
        _remove_logs(host, identity)
        return f"{known.full_name} is removed"


def ssh_config(folder: Path) -> str:
    """Return how OpenSSH reaches the instance of a project, for its own configuration."""
    known = instances.remembered(folder)
    if known is None or not known.is_complete():
        raise StateError(f"there is no instance for {folder}", "fab up makes it")
    known.refuse_newer()
    return known.ssh_config.read_text(encoding="utf-8").rstrip()


def login(host: Host, folder: Path, command: str) -> None:
    """Become ssh to a project's instance: a shell, or `command`, on a terminal if this is one."""
    known = instances.remembered(folder)
    _refuse_open(env.id_from(folder))
    if known is None or not known.is_complete() or not known.infra_type:
        found = existing(host, folder)  # says what is wrong, as far as a provider knows it
        raise StateError(
            f"{found.instance.full_name} is broken: {found.reason}", "fab rm, then fab up"
        )
    host.progress.about(known.full_name, known.infra_type)
    pid = provider_for(known.infra_type).pid(host, known)
    if not pid:
        raise StateError(f"{known.full_name} is not running", "fab up starts it")
    if not host.dry:
        _keep_connection(host, known, pid)
    terminal = ["-t"] if os.isatty(0) and os.isatty(1) else []
    argv = commands.kept_ssh(known, pid, *([*terminal, "--", command] if command else []))
    host.become(argv, cwd=known.state_dir)


def _keep_connection(host: Host, instance: Instance, pid: str) -> None:
    """Make the connection that is kept for `ssh`, where there is none.

    Several that make it at the same time write on stderr that they are in each other's way. Where
    it cannot be made, ssh tells why.
    """
    socket = instance.state_dir / commands.kept_socket(pid)
    with suppress(ProviderError, OSError):
        if not socket.exists():
            with host.flock(instance.ssh_config):
                if not socket.exists():
                    host.ask(commands.kept_ssh(instance, pid, "true"), cwd=instance.state_dir)


def drift(instance: Instance, settings: Settings) -> list[Change]:
    """Return what `settings` ask for and the instance was not made with."""
    old = instance.settings
    if old is None:
        return []
    settings = saved.kept(old, settings)
    return [
        Change(key, was, now, rules.applies(key, old, settings))
        for key, was, now in saved.differences(old, settings)
    ]


def summary(instance: Instance, what: str, seconds: float | None = None) -> str:
    """Return what `up` ends with."""
    from humanize import naturalsize, precisedelta

    settings, provider = instance.settings, instance.machine()["provider"]
    assert settings
    leads = ", ".join(map(ports.shown, ports.forwards(instance)))
    shared = settings.mount
    cpus = f"{settings.cpus} CPU" + ("s" if settings.cpus != 1 else "")
    memory = naturalsize(settings.memory * 1024**2, binary=True)
    is_limited = settings.infra_type == "vm" or provider.get("has_quota")
    disk = f"{settings.disk} GiB disk" if is_limited else "disk not limited"
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
            *([f"  mount      {mount.PLACE}, {shared}"] if shared != "none" else []),
            f"  isolation  {isolation.text(commands.policy(settings))}",
            "  next       fab ssh",
        ]
    )


def _on_lan(lan: contract.LanNic) -> str:
    return f"{lan.address or 'an address by DHCP'} on {lan.bridge}"


def _create(host: Host, instance: Instance, settings: Settings) -> None:
    """Create an instance from nothing, or leave nothing behind."""
    provider = provider_for(instance.infra_type)
    host.progress.about(instance.full_name, instance.infra_type)
    checks.before_create(host, instance, settings)
    _clean_up(host, instance)
    try:
        host.make_dir(instance.host_key.parent)
        _make_keys(host, instance, settings)
        forwards = ports.settle(host, instance, settings)
        made = {**provider.prepare(host, instance, settings), "forwards": forwards}
        ports.write(host, instance, made)
        host.write(instance.machine_json, instances.document(instance, settings, made))

        def create() -> None:
            # what Vagrant destroys cannot say why it has ended
            with host.progress.stage("create"), _explained(host, instance):
                _vagrant(host, instance, "up", "--no-provision", "--no-destroy-on-error")

        def check() -> None:
            _connect(host, instance, settings, made)
            _check(host, instance, settings, instance.ssh_config_draft)

        if host.dry:
            return create()
        _boot(host, instance, settings, create, check)
        _check_isolation(host, instance, settings)
        ports.ensure(host, instance, provider.pid(host, instance))
        host.move(instance.ssh_config_draft, instance.ssh_config)
    except BaseException:
        host.progress.say(f"taking back what was made of {instance.full_name}")
        try:
            _clean_up(host, instance)
            trust.forget(host, instance)
        except ProviderError as failure:  # the next `up` or `rm` tries again
            host.progress.say(f"that failed, too: {failure.message}")
        raise


def _connect(host: Host, instance: Instance, settings: Settings, made: dict[str, Any]) -> None:
    """Write down how ssh reaches a new instance. `made`: what its provider prepared."""
    draft = instance.ssh_config_draft
    address, port = provider_for(instance.infra_type).endpoint(host, instance, made)
    if "key" in made:
        host.write(draft, commands.ssh_config(instance, address, port, made["user"]))
        if not made.get("grows", True):
            _grow(host, instance, commands.ssh(instance, config=draft))
        return
    # Vagrant alone knows the user of a box that was made for it, and the key that it put there.
    argv, env = _vagrant_command(instance, "ssh-config")
    lines = (line.strip().partition(" ") for line in host.answer(argv, env=env).splitlines())
    login = {name: value.strip('"') for name, _, value in lines}
    user, key = login["User"], login["IdentityFile"]
    host.write(instance.key, Path(key).read_bytes())
    host.remove(instance.key.with_suffix(".pub"))  # it is of another key, and ssh would go by it
    host.write(instance.known_hosts, "")
    host.write(draft, commands.ssh_config(instance, address, port, user, first=True))
    ssh = commands.ssh(instance, config=draft)
    _grow(host, instance, ssh)
    if settings.ssh_user != SSH_USER or settings.ssh_key:
        asked = settings.ssh_user if settings.ssh_user != SSH_USER else user
        own = host.answer(["ssh-keygen", "-y", "-f", str(instance.key)])
        script = commands.user_script(asked, own + _keys_in(map(instance.source, settings.ssh_key)))
        session.as_root(host, ssh, script, "letting the user in")
        session.as_root(host, ssh, commands.RELOAD_SSHD, "having sshd read its settings")
        user = asked
    host.write(draft, commands.ssh_config(instance, address, port, user))


def _grow(host: Host, instance: Instance, ssh: list[str]) -> None:
    with host.progress.stage("grow the root file system"):
        session.wait(host, ssh, SSH_TIMEOUT["vm"], partial(libvirt.why_ended, host, instance))
        session.grow(host, ssh)


def _start(host: Host, found: Found, settings: Settings, changes: list[Change]) -> None:
    """Start a stopped or paused instance: directly, or through Vagrant when settings changed."""
    instance = found.instance
    provider = provider_for(instance.infra_type)
    if found.state == "paused":
        why = provider.why_ended(host, instance)
        if isinstance(why, HostLimitError):
            why.hint = f"make room; then: virsh -c qemu:///system resume {instance.full_name}"
        elif isinstance(why, ProviderError):
            why.hint = "; ".join(filter(None, ("fab stop --force, then fab up", why.hint)))
        raise why or StateError(f"{instance.full_name} is paused", "resume it as you paused it")
    checks.before_start(host, instance, settings)
    for change in changes:
        host.progress.say(str(change))
    is_larger = _resize(host, instance, settings, changes)

    def start() -> None:
        with host.progress.stage("start"):
            _write_address(host, instance, provider.keep_address(host, instance, settings))
            _take(host, instance, settings, changes, is_done=False)
            provider.isolate(host, instance, settings)
            if instance.infra_type == "vm" and any(c.key.lower() in AT_START for c in changes):
                _vagrant(host, instance, "up", "--no-provision")
            else:
                provider.start(host, instance)

    def check() -> None:
        try:
            _check_isolation(host, instance, settings)
        except BaseException as error:  # it may be reaching what it must not
            why = provider.why_ended(host, instance) if isinstance(error, ProviderError) else None
            with suppress(ProviderError) if why else nullcontext():  # it may have ended
                provider.stop(host, instance, force=True)
            raise why or error from None
        with _explained(host, instance):
            ports.ensure(host, instance, provider.pid(host, instance))
        if is_larger:
            _grow(host, instance, commands.ssh(instance))
        _take(host, instance, settings, changes)
        _check(host, instance, settings, instance.ssh_config)

    if host.dry:
        return start()
    _boot(host, instance, settings, start, check)


def _boot(
    host: Host,
    instance: Instance,
    settings: Settings,
    start: Callable[[], None],
    check: Callable[[], None],
) -> None:
    """Start an instance and check it; by emulation where KVM fails it and ACCEL=auto.

    Its disk stays.
    """
    try:
        start()
        check()
    except ProviderError as error:
        is_vm = instance.infra_type == "vm" and not isinstance(error, UnansweredError)
        why = libvirt.why_not_kvm(host, instance, error) if is_vm else None
        if why is None or settings.accel != "auto":
            raise
        host.progress.say(f"KVM failed: {why}; going on by emulation")
        libvirt.emulate(host, instance)
        ports.end(host, instance)
        _hang_up(host, instance)
        with host.progress.stage("start", "by emulation"):
            _vagrant(host, instance, "up", "--no-provision")
        check()


@contextmanager
def _explained(host: Host, instance: Instance) -> Iterator[None]:
    """Let what fails as an instance that was started has ended fail with why that is."""
    try:
        yield
    except UnansweredError:
        raise
    except ProviderError as error:
        provider, why = provider_for(instance.infra_type), None
        with suppress(ProviderError):
            if instance.full_name in (f.instance.full_name for f in provider.list_all(host)):
                why = provider.why_ended(host, instance)
        raise why or error from None


def _resize(host: Host, instance: Instance, settings: Settings, changes: list[Change]) -> bool:
    """Make the disk larger where that is due; return whether a file system has to follow.

    Its change is written down only then, so what fails in between is done again.
    """
    if all(change.key != "DISK" for change in changes):
        return False
    if instance.infra_type == "vm":
        checks.before_growth(host, settings)
    provider_for(instance.infra_type).resize(host, instance, settings)
    return instance.infra_type == "vm"


def _refresh(host: Host, instance: Instance, settings: Settings, changes: list[Change]) -> None:
    """Give a running instance what it can have while it runs, and what it has lost."""
    at_once = [change for change in changes if change.applies == "at once"]
    for change in changes:
        host.progress.say(f"{change} {change.applies}")
    is_larger = _resize(host, instance, settings, at_once)
    if is_larger:
        _grow(host, instance, commands.ssh(instance))
    _take(host, instance, settings, at_once, is_done=False)
    provider = provider_for(instance.infra_type)
    if why := isolation.why_not_installed():  # that says nothing of the rules there are
        raise ProviderError(f"guests cannot be kept from the LAN: {why}", SET_UP)
    try:
        is_isolated = isolation.check(host, instance, settings).outcome == "ok"
        if not is_isolated:
            isolation.ensure(host, instance.infra_type)
    except VagrantpError:
        provider.stop(host, instance, force=True)
        raise
    if host.dry:
        return
    had = instance.settings or settings  # until its next start
    by_now = replace(settings, memory=had.memory, cpus=had.cpus, mount=had.mount)
    if at_once:
        provider.enforce(host, instance, by_now)
    if is_larger:
        _check(host, instance, by_now, instance.ssh_config)
    if at_once or not is_isolated:
        provider.isolate(host, instance, settings)
        isolation.restore(host, instance)
        try:
            _check_isolation(host, instance, settings)
        except BaseException:
            provider.stop(host, instance, force=True)
            raise
    is_changed = any(change.key == "PORTS" for change in changes)
    is_lost = bool(ports.forwards(instance)) and not ports.is_served(instance)
    if is_lost and not is_changed:
        host.progress.say("its ports were not forwarded any more; they are again")
    if is_lost or is_changed:
        ports.ensure(host, instance, provider.pid(host, instance), afresh=is_changed)
    _take(host, instance, settings, at_once)


def _take(
    host: Host,
    instance: Instance,
    settings: Settings,
    changes: list[Change],
    is_done: bool = True,
) -> None:
    """Write changed settings down: first for what makes them so, then as what the instance has.

    What is interrupted before it `is_done` is still a change the next time.
    """
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
        provider["metadata"] = commands.domain_metadata(instance, settings, address, instance.lan)
    if not is_done:
        document["settings"] = instance.machine()["settings"]
    host.write(instance.machine_json, instances.as_text(document))


def _write_address(host: Host, instance: Instance, address: str) -> None:
    """Write down the address that an instance has from this start on."""
    document = instance.machine()
    if document["provider"]["address"] == address:
        return
    ssh_config = instance.ssh_config.read_text("utf-8")
    text = re.sub(r"^(  HostName ).*$", rf"\g<1>{address}", ssh_config, flags=re.MULTILINE)
    host.write(instance.ssh_config, text)
    document["provider"]["address"] = address
    host.write(instance.machine_json, instances.as_text(document))


def _check_isolation(host: Host, instance: Instance, settings: Settings) -> None:
    found = isolation.check(host, instance, settings)
    if found.outcome == "FAILED":
        raise ProviderError(f"{instance.full_name} is {found.found}; it was stopped", SET_UP)


def _check(host: Host, instance: Instance, settings: Settings, ssh_config: Path) -> None:
    """Wait for ssh and read back what was made, from the provider and from inside."""
    provider = provider_for(instance.infra_type)
    facts, ssh = _reach(host, instance, ssh_config)
    if mount.learn_user(host, instance, settings, facts):
        with host.progress.stage("start again", f"as /project is {settings.ssh_user}'s"):
            _hang_up(host, instance)
            provider.isolate(host, instance, settings)
            provider.stop(host, instance, force=False)
            provider.start(host, instance)
        facts, ssh = _reach(host, instance, ssh_config)
    with host.progress.stage("check"), _explained(host, instance):
        facts = mount.ensure(host, instance, settings, facts, ssh, instance.state_dir)
        provider.enforce(host, instance, settings)
        checks = provider.check(host, instance, settings)
        checks += session.check(facts, settings)
        checks += mount.check(instance, settings, facts)
    failed = [
        f"{check.name}: promised {check.promised}, found {check.found}"
        for check in checks
        if check.outcome == "FAILED"
    ]
    if failed:
        raise ProviderError("it is not what .env says:\n  " + "\n  ".join(failed))


def _reach(host: Host, instance: Instance, config: Path) -> tuple[dict[str, str], list[str]]:
    """Wait for ssh; return the guest's facts, and the argv of the connection that `ssh` will find.

    `config`: its ssh_config. That argv is for the state folder.
    """
    provider = provider_for(instance.infra_type)
    ssh = commands.kept_ssh(instance, provider.pid(host, instance), config=config)
    with host.progress.stage("wait for ssh"):
        facts = session.wait(
            host,
            ssh,
            SSH_TIMEOUT[instance.infra_type],
            partial(provider.why_ended, host, instance),
            cwd=instance.state_dir,
            needs="gateway" if instance.lan else "hostname",
        )
    return facts, ssh


def _remove(host: Host, instance: Instance) -> None:
    with host.progress.stage("remove"):
        _clean_up(host, instance)


def _clean_up(host: Host, instance: Instance) -> None:
    """Remove whatever there is of the instance, then its folder.

    Without Vagrant, which takes seconds to start and knows of nothing that is not found here.
    """
    host.outlast(commands.mark(instance))
    if instance.infra_type:
        provider_for(instance.infra_type).clean_up(host, instance)
    else:  # its machine.json is lost, and no provider knows it: parts may be there
        for infra_type in ("vm", "container"):
            with suppress(ProviderError):
                provider_for(infra_type).clean_up(host, instance)
    ports.end(host, instance)
    _hang_up(host, instance)
    _forget(host, instance)
    host.remove(instance.state_dir)


def _hang_up(host: Host, instance: Instance, how: str = "exit") -> None:
    """End the ssh connections that are kept for `ssh`. `how`: as of commands.hang_up."""
    for socket in instance.state_dir.glob(commands.kept_socket("*")):
        argv = commands.hang_up(instance, socket.name, how)
        with suppress(ProviderError):  # it ended with the instance
            host.change(argv, what=f"ssh -O {how}", timeout=10, cwd=instance.state_dir)
        host.remove(socket)


def _forget(host: Host, instance: Instance) -> None:
    """Take it out of Vagrant's index, under Vagrant's own lock (lib/vagrant/machine_index.rb)."""
    index = built.vagrant_home() / "data/machine-index/index"
    if not index.exists():
        return
    with host.flock(index.with_name("index.lock")):
        try:
            known = json.loads(index.read_text(encoding="utf-8"))
        except ValueError:
            return
        machines = known.get("machines", {})
        kept = {key: m for key, m in machines.items() if m.get("name") != instance.full_name}
        if kept != machines:
            host.write(index, json.dumps({**known, "machines": kept}), 0o644)


def _vagrant(host: Host, instance: Instance, *arguments: str) -> None:
    host.make_dir(built.vagrant_home())
    argv, env = _vagrant_command(instance, *arguments)
    host.change(
        argv,
        what=f"vagrant {arguments[0]}",
        timeout=UP_TIMEOUT,
        env=env,
        cwd=instance.folder if instance.folder.is_dir() else instance.state_dir,
        explain=lambda lines: instance.hooks_reason() or _vagrants_reason(lines),
    )


def _vagrant_command(instance: Instance, *arguments: str) -> tuple[list[str], dict[str, str]]:
    return commands.vagrant(instance, built.vagrant_home(), environment()["PATH"], *arguments)


def _vagrants_reason(lines: list[str]) -> str:
    """Pick the line that matters out of Vagrant's output, which tells it in paragraphs."""
    told = [line for line in lines if not line.startswith(("==>", "from /"))]
    for sign in ("Stderr: ", "Error: ", "failed: ", "rror", "The container started either never"):
        for line in told:
            if sign in line:
                return line.removeprefix("Stderr: ")
    return told[-1] if told else ""


def _make_keys(host: Host, instance: Instance, settings: Settings) -> None:
    """Make the key that logs in and the key that the guest shows, both before it exists."""
    for key in (instance.key, instance.host_key):
        argv = commands.keygen(key, instance.full_name)
        host.change(argv, what="making a key pair", timeout=30)
    if host.dry:
        return
    public = instance.host_key.with_suffix(".pub").read_text(encoding="utf-8")
    host.write(instance.known_hosts, f"{instance.full_name} {public}")
    files = [instance.key.with_suffix(".pub"), *map(instance.source, settings.ssh_key)]
    user, theirs = settings.ssh_user, settings.cloud_init
    is_made_later = theirs is not None and user in env.users_of(instance.source(theirs))
    host.write(instance.user_script, commands.user_script(user, _keys_in(files), is_made_later))


def _keys_in(files: Iterable[Path]) -> str:
    """Return the lines of files of public keys, without comments and empty ones."""
    lines = [line.strip() for path in files for line in path.read_text("utf-8").splitlines()]
    return "\n".join(line for line in lines if line and line[0] != "#")


def existing(host: Host, folder: Path) -> Found:
    """Return the instance of a project. Raises StateError when there is none."""
    found = find(host, folder)
    if found is None:
        raise StateError(f"there is no instance for {folder}", "fab up makes it")
    return found


def running(host: Host, folder: Path) -> Found:
    """Return the running instance of a project. Raises StateError when it does not run."""
    _refuse_open(env.id_from(folder))
    found = existing(host, folder)
    if found.state != "running":
        reason = f": {found.reason}" if found.reason else ""
        raise StateError(f"{found.instance.full_name} is {found.state}{reason}", "fab up starts it")
    return found


def _refuse_what_needs_rm(instance: Instance, changes: list[Change]) -> None:
    fixed = [change for change in changes if change.applies == "to a new instance"]
    if fixed:
        notes = {"DISK": " (a disk grows, and never shrinks)"}
        told = [f"{change}{notes.get(change.key, '')}" for change in fixed]
        raise StateError(
            f"{instance.full_name} was made with other settings:\n  " + "\n  ".join(told),
            "these need a new instance: fab rm, then fab up; or take the change back",
        )


@contextmanager
def _locked(host: Host, identity: str) -> Iterator[Host]:
    """Give the host with the project's log, for a verb that has the project to itself."""
    other, log = "another verb in this project", instances.log(identity)
    with host.lock(state_root(), identity, other, is_patient=host.is_patient):
        _refuse_open(identity)
        try:
            yield replace(host, log=log)
        except ProviderError as error:
            if log.exists() and "hint: " not in str(error):  # several may be told as one
                error.hint = f"the full log is {log}"
            raise


def _refuse_open(identity: str) -> None:
    """Raise StateError when somebody else could have put a key or a setting in.

    Also when a newer vagrantp has, whose instances this one does not know.
    """
    root = state_root()
    for folder in (root, *root.glob(f"*-{identity}")):
        refuse_open(folder)
    for known in instances.all_by_id(identity):
        known.refuse_newer()


def _remove_logs(host: Host, identity: str) -> None:
    for path in instances.log(identity).parent.glob(f"{identity}.log*"):
        host.remove(path)
