"""Runs the playbooks of PROVISION_SCRIPT for a guest, and says in words what came of it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from vagrantp.core import relay
from vagrantp.core.errors import ConfigError, HostLimitError, ProviderError, ProvisionError
from vagrantp.core.places import MASTER
from vagrantp.core.system import Host
from vagrantp.core.text import plain
from vagrantp.guest import events, galaxy, playbooks
from vagrantp.guest.events import Events, Failure
from vagrantp.guest.playbooks import Playbook
from vagrantp.images import store
from vagrantp.instance import grants
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings
from vagrantp.settings.parsers import Provisioner

LOCALHOST = "plays for localhost set up the guest"  # as play.py prints it
CHECK_TIMEOUT = 300  # seconds
TIMEOUT = 4 * 3600  # seconds: some compile
CONNECT_TIMEOUT = 10  # seconds


def check(host: Host, instance: Instance, settings: Settings, step: Provisioner) -> None:
    """Find mistakes in a playbook; get the roles that it requires. Raises ProvisionError."""
    playbook = _playbook(host, instance, settings, step)
    with host.scratch(store.cache()) as folder:
        host.write(folder / "events", "")
        seen = playbooks.sandbox(playbook, folder)
        try:
            host.change(
                playbooks.check(playbook),
                what=str(step),
                timeout=CHECK_TIMEOUT,
                explain=_complaint,
                sandbox=seen,
            )
        except ProviderError as error:
            found = events.read(folder / "events")
            _refuse(found)
            raise _missing(step, found) or ProvisionError(
                error.message, _role_to_name(error.message)
            ) from None


def run(host: Host, instance: Instance, settings: Settings, step: Provisioner, home: str) -> str:
    """Run a playbook for a guest that has Python; return " (2 ok, 1 changed)".

    `home`: the folder of the guest's user, as the guest says.
    Raises ProvisionError; ConfigError where a play is not for the guest.
    """
    playbook = _playbook(host, instance, settings, step)
    user, _, _ = _login(host, instance, settings)
    with _playground(host, instance, settings) as folder:
        host.progress.done(lambda: _at_task(events.read(folder / "events")))

        def report(line: str) -> None:
            if line == LOCALHOST:
                host.progress.say(f"{step.path.name}: {line}")

        try:
            host.change(
                playbooks.run(playbook),
                what=str(step),
                timeout=TIMEOUT,
                note=report,
                explain=_complaint,
                sandbox=playbooks.sandbox(
                    playbook, folder, instance, playbooks.environment(user, home)
                ),
            )
        except (ProviderError, HostLimitError) as error:
            found = events.read(folder / "events")
            _refuse(found)
            why = error.message.removeprefix(f"{step} failed: ")
            raise failure(
                host, step, _where(found.failures[-1]) if found.failures else why
            ) from None
        found = events.read(folder / "events")
    if found.for_nobody:
        raise failure(host, step, found.for_nobody[0])
    return f" ({found.ok} ok, {found.changed} changed)" if found.has_ended else ""


@contextmanager
def _playground(host: Host, instance: Instance, settings: Settings) -> Iterator[Path]:
    """Yield a folder with what a playbook's sandbox has of a guest, and a relay that reaches it.

    What the module fetch has brought moves to the instance's `fetched`, and its path is printed.
    """
    user, address, port = _login(host, instance, settings)
    with host.scratch(instance.state_dir) as folder:
        host.write(folder / "events", "")
        host.write(folder / "connection.json", playbooks.connection(instance, user))
        host.write(folder / "ssh_config", playbooks.ssh_config(instance, user))
        host.make_dir(folder / "fetched")
        if host.dry:
            yield folder
            return
        reach = partial(_connect, address, port)
        try:
            with relay.serve(folder / "ssh", reach):
                yield folder
        finally:
            if host.adopt(folder / "fetched", instance.fetched):
                host.progress.say(f"fetched into {instance.fetched}")


def _connect(address: str, port: int) -> socket.socket:
    """Connect to a guest's sshd. Raises OSError."""
    found = socket.create_connection((address, port), CONNECT_TIMEOUT)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as ssh does: 40 ms a command
    return found


def _refuse(found: Events) -> None:
    """Raise ConfigError where play.py has refused the playbook."""
    if found.refused:
        raise ConfigError("\n".join(found.refused))


def _missing(step: Provisioner, found: Events) -> ProvisionError | None:
    """Return the error for collections that a playbook needs and nothing brings."""
    if not found.missing:
        return None
    names = [one.partition(" ")[0] for one in found.missing]
    listed = "".join(f"\n    - {plain(name)}" for name in names)
    return ProvisionError(
        f"{step} needs what is not in ansible-core, nor in the project: "
        + ", ".join(map(plain, found.missing)),
        f"write to {step.path.parent}/requirements.yml\n  collections:{listed}",
    )


def _role_to_name(complaint: str) -> str | None:
    """Return what helps against Ansible's complaint, where it lacks a role of Galaxy."""
    found = re.search(r"role '(\w+\.[\w.]+)' was not found", complaint)
    return found and f"name it in requirements.yml\n  roles:\n    - name: {found[1]}"


def _name(settings: Settings) -> str:
    """Return what the inventory calls the guest."""
    return settings.hostname or settings.name


def _variables(instance: Instance, settings: Settings) -> Path | None:
    return settings.provision_vars and instance.source(settings.provision_vars)


def _login(host: Host, instance: Instance, settings: Settings) -> tuple[str, str, int]:
    """Return who logs in, at which address and port, as the ssh_config says: a box has its user."""
    if host.dry:
        return settings.ssh_user, "", 22
    words = instance.ssh_config.read_text("utf-8").split()
    user, address, port = (words[words.index(key) + 1] for key in ("User", "HostName", "Port"))
    return user, address, int(port)


def failure(host: Host, step: Provisioner | str, why: str) -> ProvisionError:
    """Return the error for a step of provisioning that failed."""
    return ProvisionError(
        f"provisioning failed: {step}: {why}",
        f"the instance stays up for a look (fab ssh); fab up continues. The full log is {host.log}",
    )


def _where(failure: Failure) -> str:
    """Return where and why a playbook failed."""
    place = f" ({failure.place})" if failure.place else ""
    return f'play "{failure.play}", task "{failure.task}"{place}: {failure.message}'


def _at_task(found: Events) -> str:
    return "task {} of {}".format(*found.task) if found.task else ""


def _complaint(lines: list[str]) -> str:
    """Pick what matters out of Ansible's output: its error, and where it found it."""
    start = next(
        (n for n, line in enumerate(lines) if line.startswith(("[ERROR]", "ERROR!"))), None
    )
    if start is None:
        return lines[-1] if lines else ""
    text = lines[start].partition(" ")[2].removeprefix(": ")
    origin = next((line for line in lines[start:] if line.startswith("Origin: ")), "")
    return f"{text} ({origin.removeprefix('Origin: ')})" if origin else text


def _playbook(host: Host, instance: Instance, settings: Settings, step: Provisioner) -> Playbook:
    """Return a playbook with what belongs to it; gets the roles that it requires."""
    own = MASTER / "playbooks"
    path = own / f"{step.path}.yml" if step.kind == "ours" else instance.source(step.path)
    # The root is a folder that no guest can replace by a link while it is opened, and never one
    # that has the home folder in it: then the playbook sees itself alone.
    roots = [instance.folder, own, *grants.shared_folders(instance.folder), path.parent]
    within = (root for root in roots if path.is_relative_to(root))
    home = Path.home().resolve()
    root = next((root for root in within if not home.is_relative_to(root)), path)
    return Playbook(
        path,
        root,
        _name(settings),
        _variables(instance, settings),
        galaxy.ensure(host, path, instance.folder, instance.source if host.dry else instance.kept),
    )
