"""Makes an instance from nothing, or leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vagrantp.core.errors import ProviderError, UnansweredError, cleaning_up_after
from vagrantp.core.system import Host
from vagrantp.guest import clock, mirrors, session
from vagrantp.host import checks
from vagrantp.instance import certificates, seed, ssh
from vagrantp.instance import record as instances
from vagrantp.instance.record import Instance
from vagrantp.net import ports
from vagrantp.providers import provider_for, vagrant
from vagrantp.settings import cloud_config
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import SSH_USER
from vagrantp.verbs.steps import check as checking
from vagrantp.verbs.steps.remove import clean_up
from vagrantp.verbs.steps.start import boot

# Vagrant must not destroy it: nobody could say then why it ended.
UP = ("up", "--no-provision", "--no-destroy-on-error")


def create(host: Host, instance: Instance, settings: Settings, is_filled: bool) -> None:
    """Create an instance from nothing, or leave nothing behind.

    `is_filled`: from an image that has what our own playbooks install, where it can have one.
    """
    host.progress.about(instance.full_name, instance.infra_type)
    is_left = instance.state_dir.is_dir()  # by a killed `up`: without it nothing else was made
    is_begun = False
    try:
        with vagrant.loading(host, instance, *UP) as run_vagrant:
            learned = checks.before_create(host, instance, settings, is_left)
            if is_left:
                clean_up(host, instance)
            is_begun = True
            _make(host, instance, settings, is_filled, learned, run_vagrant)
    except BaseException as error:
        with cleaning_up_after(error):  # where that fails, the next `up` or `rm` tries again
            if is_begun:
                host.progress.say(f"taking back what was made of {instance.full_name}")
                clean_up(host, instance)
            elif not is_left:
                host.remove(instance.state_dir)
        raise


def _make(
    host: Host,
    instance: Instance,
    settings: Settings,
    is_filled: bool,
    learned: checks.Learned,
    run_vagrant: Callable[[], None],
) -> None:
    """Make an instance that can be made here: its files first, which `run_vagrant` reads."""
    provider = provider_for(instance.infra_type)
    host.make_dir(instance.host_key.parent)
    _make_keys(host, instance, settings)
    made = provider.prepare(host, instance, settings, learned.card, is_filled)
    made["forwards"] = learned.forwards
    ports.write(host, instance, made)
    host.write(instance.machine_json, instances.document(instance, settings, made))

    def make() -> None:
        with host.progress.stage("create"), checking.explained(host, instance):
            run_vagrant()

    def reach() -> None:
        _connect(host, instance, settings, made)
        checking.check(host, instance, settings, instance.ssh_config_draft)

    def check() -> None:
        try:
            reach()
        except UnansweredError:
            raise
        except ProviderError:
            if not settings.cloud_init:
                raise
            # a reboot that the #cloud-config asks for may have come in between
            ssh.close_connections(host, instance)
            reach()
        _look_at_mirrors(host, instance, settings)

    if host.dry:
        return make()
    boot(host, instance, settings, make, check)
    checking.check_isolation(host, instance, settings)
    ports.ensure(host, instance, provider.pid(host, instance))
    host.move(instance.ssh_config_draft, instance.ssh_config)


def _look_at_mirrors(host: Host, instance: Instance, settings: Settings) -> None:
    """Say which mirrors of its packages a new instance may not reach."""
    argv = ssh.ssh(instance, config=instance.ssh_config_draft)
    with suppress(ProviderError):
        answer = session.tolerant(host, argv, mirrors.SCRIPT, None)
        for what in mirrors.out_of_reach(host, settings, answer.stdout):
            host.progress.say(f"warning: {what}")


def _connect(host: Host, instance: Instance, settings: Settings, made: dict[str, Any]) -> None:
    """Write the ssh_config of a new instance. `made`: what its provider prepared."""
    draft = instance.ssh_config_draft
    address, port = provider_for(instance.infra_type).endpoint(host, instance, made)
    if "key" in made:
        host.write(draft, ssh.ssh_config(instance, address, port, made["user"]))
        if not made.get("grows", True):
            _complete(host, instance, ssh.ssh(instance, config=draft))
        return
    # Vagrant alone knows the user of a box that was made for it, and the key that it put there.
    argv, environment = vagrant.command(instance, "ssh-config")
    answer = host.answer(argv, env=environment)
    lines = (line.strip().partition(" ") for line in answer.splitlines())
    login = {name: value.strip('"') for name, _, value in lines}
    user, key = login["User"], login["IdentityFile"]
    host.write(instance.key, Path(key).read_bytes())
    host.remove(instance.key.with_suffix(".pub"))  # it belongs to another key, and ssh would use it
    host.write(instance.known_hosts, "")
    host.write(draft, ssh.ssh_config(instance, address, port, user, first=True))
    by_draft = ssh.ssh(instance, config=draft)
    _complete(host, instance, by_draft)
    if settings.ssh_user != SSH_USER or settings.ssh_key:
        asked = settings.ssh_user if settings.ssh_user != SSH_USER else user
        own = host.answer(["ssh-keygen", "-y", "-f", str(instance.key)])
        script = seed.user_script(asked, own + _keys_in(map(instance.source, settings.ssh_key)))
        session.as_root(host, by_draft, script, "letting the user in")
        session.as_root(host, by_draft, ssh.RELOAD_SSHD, "having sshd read its settings")
        user = asked
    host.write(draft, ssh.ssh_config(instance, address, port, user))


def _complete(host: Host, instance: Instance, argv: list[str]) -> None:
    """Do to a VM of other people's image what our own do at boot. `argv`: ssh that reaches it."""
    checking.grow(host, instance, argv)
    try:
        session.as_root(host, argv, clock.script(), "having its clock follow this host's")
    except ProviderError as error:
        host.progress.say(f"warning: {error.message}")


def _make_keys(host: Host, instance: Instance, settings: Settings) -> None:
    """Make the key that logs in and the key that the guest shows, both before it exists."""
    for key in (instance.key, instance.host_key):
        argv = ssh.keygen(key, instance.full_name)
        host.change(argv, what="making a key pair", timeout=30)
    if host.dry:
        return
    public = instance.host_key.with_suffix(".pub").read_text(encoding="utf-8")
    host.write(instance.known_hosts, f"{instance.full_name} {public}")
    files = [instance.key.with_suffix(".pub"), *map(instance.source, settings.ssh_key)]
    user, theirs = settings.ssh_user, settings.cloud_init
    is_made_later = theirs is not None and user in cloud_config.users_of(instance.source(theirs))
    script = seed.user_script(user, _keys_in(files), is_made_later, seed.zone())
    if instance.infra_type == "vm" and settings.ca_certs:  # cloud-init may need them already
        trust = certificates.script(certificates.of(instance, settings))
        # `up` sees what failed of it, and tries again
        script = f"set -e\n(\n{script})\n(\n{trust}) || true\n"
    host.write(instance.user_script, script)


def _keys_in(files: Iterable[Path]) -> str:
    """Return the lines of files of public keys, without comments and empty ones."""
    lines = [line.strip() for path in files for line in path.read_text("utf-8").splitlines()]
    return "\n".join(line for line in lines if line and line[0] != "#")
