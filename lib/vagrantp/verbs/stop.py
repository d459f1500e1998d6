"""fab stop"""

from __future__ import annotations

from vagrantp.core.errors import ProviderError
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.instance.found import UP
from vagrantp.instance.plan import WantStopped, decide
from vagrantp.providers import provider_for
from vagrantp.settings import env
from vagrantp.verbs import steps
from vagrantp.verbs.steps import peek, report
from vagrantp.verbs.steps.find import find, locked
from vagrantp.verbs.tasks import here, verb


@verb
def stop(host: Host, force: bool = False, verbose: bool = False, wait: bool = True) -> None:
    """Stop it gracefully; --force pulls the plug."""
    folder = here()
    with locked(host, env.id_from(folder)) as host:
        found = find(host, folder)
        plan = decide(found, [], WantStopped(force))
        sessions = () if force else peek.sessions(host, found)
        steps.take(host, plan, found)
        if host.dry and plan:
            return show(f"{found.name} would be stopped")
        if plan:
            state, _ = provider_for(found.instance.infra_type).live(host, found.instance)
            if state in UP:
                raise ProviderError(f"{found.name} is still {state}")
        if not host.dry:
            report.stopped(host, found)
        if sessions:
            host.progress.say(f"its sessions ended: {', '.join(sessions)}")
        show(f"{found.name} is stopped" if plan else f"{found.name} is stopped already")
