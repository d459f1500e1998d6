"""fab ssh"""

from __future__ import annotations

from vagrantp.core.system import Host
from vagrantp.instance import plan
from vagrantp.verbs import steps
from vagrantp.verbs.steps import login
from vagrantp.verbs.tasks import here, verb


@verb
def ssh(host: Host, command: str = "", verbose: bool = False) -> None:
    """Open a shell in it, or run --command there."""
    found, pid = login.look(host, here())
    steps.take(host, plan.decide(found, [], plan.Want.LOGIN), found)
    login.leave_to_ssh(host, found.instance, pid, command)
