"""Leaves this process to ssh, by a connection that is kept for the next one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from vagrantp.core.errors import ProviderError, UnansweredError
from vagrantp.core.system import Host
from vagrantp.guest import session, terminal
from vagrantp.instance import record as instances
from vagrantp.instance import ssh
from vagrantp.instance.found import Found
from vagrantp.instance.record import Instance
from vagrantp.providers import provider_for
from vagrantp.settings import env
from vagrantp.verbs.steps.find import find, refuse_others


def has_terminal() -> bool:
    """Say whether the person can type here, and sees what is printed."""
    return os.isatty(0) and os.isatty(1)


def look(host: Host, folder: Path) -> tuple[Found, str]:
    """Return the instance and the process id of its guest: by one query if it is sound."""
    known = instances.remembered(folder)
    refuse_others(env.id_from(folder))
    if known is None or not known.is_complete() or not known.infra_type:
        return find(host, folder), ""  # says what is wrong, as far as a provider knows it
    host.progress.about(known.full_name, known.infra_type)
    state, pid = provider_for(known.infra_type).live(host, known)
    if state == "absent":
        return find(host, folder), ""
    is_gone = state == "broken" or (state == "running" and not pid)
    return Found(known, "stopped" if is_gone else state, os.getuid()), pid


def leave_to_ssh(
    host: Host, instance: Instance, pid: str, command: str = "", ports: Sequence[int] = ()
) -> None:
    """Replace this process by ssh: a shell, or `command` as the guest's login shell reads it.

    `pid`: of the guest's QEMU or first process. `ports` of 127.0.0.1 lead to those of the guest
    meanwhile.
    """
    _keep_connection(host, instance, pid)
    is_typed = has_terminal()
    rest = [*(["-t"] if is_typed else []), "--", command] if command else []
    argv = ssh.kept_ssh(instance, pid, *rest)
    if ports:  # those of a kept connection would stay with it
        forwards = [f"-L127.0.0.1:{port}:127.0.0.1:{port}" for port in ports]
        argv = ["ssh", *forwards, *ssh.ssh(instance, *rest)[1:]]
    name = os.environ.get("TERM", "")
    if is_typed and name:
        name = terminal.known_in(host, instance, pid, name)
    host.exec_process(argv, cwd=instance.state_dir, env={"TERM": name} if name else None)


def give_to_ssh(host: Host, instance: Instance, pid: str, command: str, data: bytes) -> int:
    """Run a command in the guest with `data` on its stdin; return its exit status.

    Its stdin ends when this process does.
    """
    _keep_connection(host, instance, pid)
    argv = ssh.kept_ssh(instance, pid, "--", command)
    return host.feed(argv, data, instance.state_dir)


def _keep_connection(host: Host, instance: Instance, pid: str) -> None:
    """Make the connection that is kept for `ssh`, if there is none.

    Under a lock, as several that make it at the same time complain on stderr. If it cannot be made,
    the ssh that follows says why. Raises ProviderError where the guest will never let us in.
    """
    if host.dry:
        return
    socket = instance.state_dir / ssh.kept_socket(pid)
    with suppress(OSError, UnansweredError):
        if not socket.exists():
            with host.flock(instance.ssh_config):
                if not socket.exists():
                    _connect(host, instance, ssh.kept_ssh(instance, pid, "true"))


def _connect(host: Host, instance: Instance, argv: list[str]) -> None:
    """Run ssh until it is let in, or is refused for longer than a guest takes to start."""
    end = monotonic() + session.REFUSED_SECONDS
    while True:
        try:
            answer = host.ask(argv, cwd=instance.state_dir)
        except ProviderError:
            return
        why = None if answer.ok else session.why_refused(instance, answer.stderr)
        if why is None:
            return
        if monotonic() > end:
            raise why
        sleep(0.25)
