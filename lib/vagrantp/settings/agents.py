"""The coding agents that a guest can have, and the key that names them."""

from __future__ import annotations

from dataclasses import dataclass

from voluptuous import All

from vagrantp.settings import parsers
from vagrantp.settings.parsers import one_of
from vagrantp.settings.schema import AT_ONCE, key


@dataclass(frozen=True)
class Agent:
    """A coding agent.

    - `package`: in the npm registry; `node`: the oldest major version that it runs on
    - `command`: what opens it; `prompt`: its arguments for one run with the prompt on stdin
    """

    package: str
    command: str
    prompt: tuple[str, ...]
    node: int = 22


AGENTS = {
    # code.claude.com/docs/en/headless
    "claude": Agent("@anthropic-ai/claude-code", "claude", ("--print",)),
    # developers.openai.com/codex/noninteractive
    "codex": Agent("@openai/codex", "codex", ("exec", "-")),
    # opencode.ai/docs/cli
    "opencode": Agent("opencode-ai", "opencode", ("run",)),
}


AGENT = key(
    "claude, codex or opencode, comma-separated",
    "coding agents, with what PROVISION_SCRIPT=agent installs; fab agent opens the first",
    "claude,codex",
    All(parsers.items, (one_of(*AGENTS),), parsers.each_once),
    hint="AGENT=claude installs Claude Code",
    applies=AT_ONCE,
    verified="provisioned",
)
