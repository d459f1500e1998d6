"""fab provision"""

from __future__ import annotations

from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.instance import grants
from vagrantp.instance.drift import drift
from vagrantp.instance.plan import Want, decide
from vagrantp.settings import env, saved
from vagrantp.verbs import steps
from vagrantp.verbs.steps.find import find, locked
from vagrantp.verbs.steps.grant import granted
from vagrantp.verbs.tasks import accepts, here, verb


@verb
def provision(host: Host, accept: bool = False, verbose: bool = False, wait: bool = True) -> None:
    """Run PROVISION_SCRIPT again; --accept as for up."""
    folder = here()
    asked = grants.load(folder, host.progress.say)
    with (
        locked(host, env.id_from(folder)) as host,
        granted(host, folder, asked, accepts(host, accept)) as settings,
    ):
        if settings is None:
            return
        found = find(host, folder)
        plan = decide(found, drift(found.instance, settings), Want.PROVISIONED)
        settings = saved.kept(found.instance.settings, settings)
        done = steps.take(host, plan, found, settings=settings)
        show(
            f"{found.name} is provisioned: {done}"
            if done
            else f"{found.name} has no PROVISION_SCRIPT"
        )
