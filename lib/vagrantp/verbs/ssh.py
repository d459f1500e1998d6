"""fab ssh"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from vagrantp.core.errors import ProviderError
from vagrantp.core.system import Host
from vagrantp.guest import terminal
from vagrantp.instance import plan
from vagrantp.instance import record as instances
from vagrantp.instance import ssh as openssh
from vagrantp.instance.found import Found
from vagrantp.instance.record import Instance
from vagrantp.providers import provider_for
from vagrantp.settings import env
from vagrantp.verbs import steps
from vagrantp.verbs.steps.find import find, refuse_others
from vagrantp.verbs.tasks import here, verb


@verb
def ssh(host: Host, command: str = "", verbose: bool = False) -> None:
    """Open a shell in it, or run --command there."""
    folder = here()
    found, pid = _look(host, folder)
    steps.take(host, plan.decide(found, [], plan.Want.LOGIN), found)
    if not host.dry:
        _keep_connection(host, found.instance, pid)
    has_terminal = os.isatty(0) and os.isatty(1)
    rest = [*(["-t"] if has_terminal else []), "--", command] if command else []
    argv = openssh.kept_ssh(found.instance, pid, *rest)
    name = os.environ.get("TERM", "")
    if has_terminal and name:
        name = terminal.known_in(host, found.instance, pid, name)
    host.exec_process(argv, cwd=found.instance.state_dir, env={"TERM": name} if name else None)


def _look(host: Host, folder: Path) -> tuple[Found, str]:
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


def _keep_connection(host: Host, instance: Instance, pid: str) -> None:
    """Make the connection that is kept for `ssh`, if there is none.

    Under a lock, as several that make it at the same time complain on stderr. If it cannot be made,
    the ssh that follows says why.
    """
    socket = instance.state_dir / openssh.kept_socket(pid)
    with suppress(ProviderError, OSError):
        if not socket.exists():
            with host.flock(instance.ssh_config):
                if not socket.exists():
                    host.ask(openssh.kept_ssh(instance, pid, "true"), cwd=instance.state_dir)
