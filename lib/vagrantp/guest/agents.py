"""Coding agents in a guest: installed, opened in a session that lasts, or run once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vagrantp.core.places import SCRIPTS
from vagrantp.core.system import Host
from vagrantp.guest import shell
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance
from vagrantp.settings.agents import AGENTS
from vagrantp.settings.env import Settings

INSTALL = SCRIPTS / "agents.sh"
OPEN = SCRIPTS / "agent_session.sh"
RUN = SCRIPTS / "agent_prompt.sh"
TIMEOUT = 3600  # seconds, of an installation: one compiles at times
SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")  # tmux(1) has other uses for : and .


def install(host: Host, instance: Instance, pid: str, names: Sequence[str]) -> None:
    """Install agents for the user who logs in, or their newest versions, and a node for them.

    `pid`: of the guest's QEMU or first process. Raises ProviderError.
    """
    wanted = [AGENTS[name] for name in names]
    node = str(max(agent.node for agent in wanted))
    packages = (f"{agent.package}@latest" for agent in wanted)
    command = shell.shell(INSTALL.read_text("utf-8"), node, *packages)
    host.change(
        ssh.kept_ssh(instance, pid, command),
        what="npm install",
        timeout=TIMEOUT,
        cwd=instance.state_dir,
        explain=npms_reason,
    )


def npms_reason(lines: list[str]) -> str:
    """Pick the line of npm's output that matters: the first one of an error that is no code."""
    errors = (line for line in lines if re.match(r"npm (error|ERR!) (?!code )", line))
    return next(errors, lines[-1] if lines else "")


def opened(settings: Settings, name: str, session: str) -> str:
    """Return the command that opens an agent in a session of the guest, or comes back to it."""
    script = OPEN.read_text("utf-8")
    return shell.shell(script, session, _folder(settings), AGENTS[name].command)


def run(settings: Settings, name: str, prompt: bytes, seconds: int) -> str:
    """Return the command that runs an agent once, with `prompt` on stdin, which stays open.

    It ends after so many `seconds`, 0 for no limit, and when stdin does.
    """
    agent, script = AGENTS[name], RUN.read_text("utf-8")
    limits = str(len(prompt)), str(seconds)
    return shell.shell(script, *limits, _folder(settings), agent.command, *agent.prompt)


def _folder(settings: Settings) -> str:
    """Return where an agent works, "" for the home folder."""
    return "" if settings.mount == "none" else "/project"
