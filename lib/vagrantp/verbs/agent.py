"""fab agent"""

from __future__ import annotations

from vagrantp.core.system import Host
from vagrantp.verbs.tasks import chore, not_built


@chore
def agent(
    host: Host,
    agent: str = "",
    session: str = "",
    prompt: str = "",
    timeout: int = 0,
    verbose: bool = False,
    wait: bool = True,
) -> None:
    """Not supported yet: open a coding agent in it."""
    raise not_built("agent")
