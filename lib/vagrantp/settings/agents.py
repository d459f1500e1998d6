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
    - `login`: the file below the home folder that it keeps its login in, a JSON object; `keeps`:
      which of its entries a copy has, by name, or all of a `type` of `kinds`. Others may make the
      program that reads them run something
    - `callbacks`: ports of 127.0.0.1 to which its login leads a browser
    """

    package: str
    command: str
    prompt: tuple[str, ...]
    login: str
    keeps: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    node: int = 22
    callbacks: tuple[int, ...] = ()


AGENTS = {
    # code.claude.com/docs/en/headless, /iam
    "claude": Agent(
        "@anthropic-ai/claude-code",
        "claude",
        ("--print",),
        ".claude/.credentials.json",
        keeps=("claudeAiOauth",),
    ),
    # developers.openai.com/codex/noninteractive, /auth
    "codex": Agent(
        "@openai/codex",
        "codex",
        ("exec", "--skip-git-repo-check", "-"),  # else not in the home folder
        ".codex/auth.json",
        keeps=("OPENAI_API_KEY", "auth_mode", "tokens", "last_refresh"),
        callbacks=(1455,),
    ),
    # opencode.ai/docs/cli
    "opencode": Agent(
        "opencode-ai",
        "opencode",
        ("run",),
        ".local/share/opencode/auth.json",
        kinds=("oauth", "api"),
    ),
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
