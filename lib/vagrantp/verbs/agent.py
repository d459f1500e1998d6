"""fab agent"""

from __future__ import annotations

from invoke.exceptions import Exit

from vagrantp.core.errors import ConfigError, ProviderError, StateError
from vagrantp.core.system import Host
from vagrantp.guest import agents, git_identity
from vagrantp.instance import plan
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings
from vagrantp.verbs import steps
from vagrantp.verbs.steps import login
from vagrantp.verbs.tasks import here, verb


@verb
def agent(
    host: Host,
    agent: str = "",
    session: str = "",
    prompt: str = "",
    timeout: int = 0,
    verbose: bool = False,
) -> None:
    """Open a coding agent in it, or run it once with --prompt."""
    if timeout < 0 or (timeout and not prompt):
        raise ConfigError("--timeout must be a number of minutes, and is for --prompt")
    if session and not agents.SESSION.fullmatch(session):
        raise ConfigError("--session must have 1 to 32 letters, digits, - and _")
    found, pid = login.look(host, here())
    steps.take(host, plan.decide(found, [], plan.Want.LOGIN), found)
    settings, name = _chosen(found.instance, agent)
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
        raise ProviderError("AGENT_ENV could not be given to the guest")
    command = agents.opened(settings, name, session or name, variables)
    return login.leave_to_ssh(host, found.instance, pid, command)


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
