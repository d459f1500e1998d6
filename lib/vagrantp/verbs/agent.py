"""fab agent"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from invoke.exceptions import Exit
from vagrantp_guard import contract

from vagrantp.core.errors import ConfigError, ProviderError, StateError
from vagrantp.core.system import Host
from vagrantp.guest import agents, git_identity, logins
from vagrantp.instance import plan
from vagrantp.instance import record as instances
from vagrantp.instance.found import Found
from vagrantp.instance.record import Instance
from vagrantp.providers import provider_for
from vagrantp.settings.agents import AGENTS
from vagrantp.settings.env import Settings
from vagrantp.verbs import steps
from vagrantp.verbs.steps import login
from vagrantp.verbs.steps.find import find_by, refuse_others
from vagrantp.verbs.tasks import agrees, here, verb


@verb
def agent(
    host: Host,
    agent: str = "",
    session: str = "",
    prompt: str = "",
    timeout: int = 0,
    login_from: str = "",
    verbose: bool = False,
) -> None:
    """Open a coding agent in it, or run it once with --prompt.

    --login-from NAME-ID first copies its login from another instance, as fab ls shows it.
    """
    if timeout < 0 or (timeout and not prompt):
        raise ConfigError("--timeout must be a number of minutes, and is for --prompt")
    if session and not agents.SESSION.fullmatch(session):
        raise ConfigError("--session must have 1 to 32 letters, digits, - and _")
    found, pid = login.look(host, here())
    steps.take(host, plan.decide(found, [], plan.Want.LOGIN), found)
    settings, name = _chosen(found.instance, agent)
    if login_from:
        _copy_login(host, found, pid, name, login_from)
    if prompt:
        text = prompt.encode(errors="surrogateescape")
        command, data = agents.run(settings, name, text, timeout * 60)
        command, data = git_identity.given_before(host, command, data)
        if status := login.give_to_ssh(host, found.instance, pid, command, data):
            raise Exit(code=status)
        return None
    if not login.has_terminal() and not host.dry:
        raise StateError(
            "fab agent needs a terminal", "fab agent --prompt TEXT runs it once without one"
        )
    variables, command = "", ""
    if data := agents.exports(settings):
        variables, command = agents.kept(len(data))
    command, data = git_identity.given_before(host, command, data)
    if command and login.give_to_ssh(host, found.instance, pid, command, data):
        what = "AGENT_ENV could not be given to the guest"
        raise ProviderError(what if variables else "the guest does not answer")
    command = agents.opened(settings, name, session or name, variables)
    return login.leave_to_ssh(host, found.instance, pid, command, _open_callbacks(host, name))


def _copy_login(host: Host, found: Found, pid: str, name: str, source: str) -> None:
    """Copy the login of an agent from the instance called `source`, after a yes.

    Raises StateError without one, or where there is no such instance or login.
    """
    if not contract.NAME.fullmatch(source):
        raise StateError(f"{source} is not the name of an instance", "fab ls shows them: NAME-ID")
    identity = source[-8:]
    refuse_others(identity)
    known = instances.by_id(identity) or Instance("", identity, Path("/"), "")
    other = find_by(host, identity, known)
    if other.name != source or identity == found.instance.id:
        raise StateError(f"{source} is not another instance of yours", "fab ls shows them: NAME-ID")
    steps.take(host, plan.decide(other, [], plan.Want.LOGIN), other)
    its_pid = provider_for(other.instance.infra_type).pid(host, other.instance)
    data = logins.of(host, other.instance, its_pid, name)
    host.progress.about(found.instance.full_name, found.instance.infra_type)
    host.progress.say(
        f"both guests then have the same login of {name}: many services replace its token when"
    )
    host.progress.say("it is used, which logs the other one out. One that is there is replaced")
    if not host.dry and not agrees(f"Copy it from {source}?"):
        raise StateError("no login was copied", "run it in a terminal, and answer yes")
    if login.give_to_ssh(host, found.instance, pid, logins.kept(name, len(data)), data):
        raise ProviderError(f"the login of {name} could not be given to the guest")


def _open_callbacks(host: Host, name: str) -> list[int]:
    """Return the ports that lead to the guest while an agent is open; say which do not, and why."""
    found = []
    for port in AGENTS[name].callbacks:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
                found.append(port)
            except OSError as error:
                why = f"port {port} of this host: {error.strerror}"
                host.progress.say(f"{why}; a browser's login of {name} ends at what listens there")
    here, *rest = os.environ.get("SSH_CONNECTION", "").split()[2:] or [""]
    if found and here:
        ports = " ".join(f"-L {port}:127.0.0.1:{port}" for port in found)
        at = f" -p {rest[0]}" if rest and rest[0] != "22" else ""
        host.progress.say(f"to log in by a browser where you are: ssh {ports}{at} {here}")
    return found


def _chosen(instance: Instance, wanted: str) -> tuple[Settings, str]:
    """Return the settings of an instance, and the agent to open in it.

    Raises ConfigError where it has no such one.
    """
    settings = instance.settings
    if settings is None or not settings.agent:
        raise ConfigError(
            "the instance has no AGENT", "write AGENT=claude, say, into .env; then fab up"
        )
    if wanted and wanted not in settings.agent:
        names = ", ".join(settings.agent)
        text = f"--agent must be of the instance's AGENT, which has {names}"
        raise ConfigError(text, "write it into .env as well; fab up then installs it")
    return settings, wanted or settings.agent[0]
