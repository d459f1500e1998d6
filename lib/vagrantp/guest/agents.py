"""Coding agents in a guest: installed, opened in a session that lasts, or run once."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Sequence

from vagrantp.core.called import as_called
from vagrantp.core.places import SCRIPTS
from vagrantp.core.system import Host
from vagrantp.guest import shell
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance
from vagrantp.settings import agent_env
from vagrantp.settings.agents import AGENTS
from vagrantp.settings.env import Settings

INSTALL = SCRIPTS / "agents.sh"
OPEN = SCRIPTS / "agent_session.sh"
RUN = SCRIPTS / "agent_prompt.sh"
TIMEOUT = 3600  # seconds, of an installation: one compiles at times
PROVISION = "fab provision"  # installs an agent that the guest does not have
SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")  # tmux(1) has other uses for : and .


def install(host: Host, instance: Instance, pid: str, names: Sequence[str]) -> None:
    """Install agents for the user who logs in, or their newest versions, and a node for them.

    `pid`: of the guest's QEMU or first process. Raises ProviderError.
    """
    command = shell.shell(INSTALL.read_text("utf-8"), *packages(names))
    host.change(
        ssh.kept_ssh(instance, pid, command),
        what="npm install",
        timeout=TIMEOUT,
        cwd=instance.state_dir,
        explain=npms_reason,
    )


def packages(names: Sequence[str]) -> list[str]:
    """Return the oldest major version of node that some agents run on, and their npm packages."""
    wanted = [AGENTS[name] for name in names]
    node = str(max((agent.node for agent in wanted), default=0))
    return [node, *(f"{agent.package}@latest" for agent in wanted)]


def npms_reason(lines: list[str]) -> str:
    """Pick the line of npm's output that matters: the first one of an error that is no code."""
    errors = (line for line in lines if re.match(r"npm (error|ERR!) (?!code )", line))
    return next(errors, lines[-1] if lines else "")


def opened(settings: Settings, name: str, session: str, variables: str) -> str:
    """Return the command that opens an agent in a session of the guest, or comes back to it.

    `variables`: the file in the guest that has those of the agent, "" for none.
    """
    script = OPEN.read_text("utf-8")
    what = session, _folder(settings), AGENTS[name].command, variables
    return shell.shell(script, *what, as_called(PROVISION))


def run(settings: Settings, name: str, prompt: bytes, seconds: int) -> tuple[str, bytes]:
    """Return the command that runs an agent once, and what comes on its stdin, which stays open.

    It ends after so many `seconds`, 0 for no limit, and when stdin does. Raises ConfigError where
    AGENT_ENV lacks values.
    """
    agent, script, variables = AGENTS[name], RUN.read_text("utf-8"), exports(settings)
    limits = str(len(variables)), str(len(prompt)), str(seconds)
    what = _folder(settings), as_called(PROVISION), agent.command, *agent.prompt
    command = shell.shell(script, *limits, *what)
    return command, variables + prompt


def exports(settings: Settings) -> bytes:
    """Return AGENT_ENV as lines of shell, with values. Raises ConfigError where it lacks some."""
    found = agent_env.values(settings.agent_env) if settings.agent_env else {}
    return "".join(f"export {name}={shlex.quote(text)}\n" for name, text in found.items()).encode()


def kept(size: int) -> tuple[str, str]:
    """Return a file in the guest's memory, and the command that fills it with `size` bytes.

    They come on stdin. Only the user who logs in can read it; an agent removes it as it starts.
    """
    file = f"/dev/shm/vagrantp-{secrets.token_hex(8)}"
    return file, shell.shell('umask 077; set -C; head -c "$1" > "$2"', str(size), file)


def _folder(settings: Settings) -> str:
    """Return where an agent works, "" for the home folder."""
    return "" if settings.mount == "none" else "/project"
