"""fab rm"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vagrantp_guard import contract

from vagrantp.core.errors import ProviderError, StateError
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.images import builders
from vagrantp.instance import grants
from vagrantp.instance import record as instances
from vagrantp.instance.plan import WantGone, decide
from vagrantp.instance.record import Instance
from vagrantp.settings import env
from vagrantp.verbs import steps
from vagrantp.verbs.steps import peek
from vagrantp.verbs.steps.find import find_by, locked
from vagrantp.verbs.steps.grant import remove_sources
from vagrantp.verbs.steps.remove import remove_logs
from vagrantp.verbs.tasks import agrees, here, verb


@verb
def rm(
    host: Host, force: bool = False, name: str = "", verbose: bool = False, wait: bool = True
) -> None:
    """Remove it and everything made for it.

    --name NAME-ID removes an instance of any project, as ls calls it.
    """
    show(_remove(host, here(), force, name))


def _remove(host: Host, folder: Path, force: bool, name: str) -> str:
    """Remove the instance of a project and everything made for it; return what was done.

    `force`: without a question, even if it runs. `name`: that of an instance, wherever its project
    is or was, in place of the one of `folder`.
    """
    if name and not contract.NAME.fullmatch(name):
        raise StateError(f"{name} is no name of an instance", "fab ls shows them: NAME-ID")
    identity = name[-8:] or env.id_from(folder)
    with locked(host, identity) as host:
        left = instances.by_id(identity, None if name else folder.resolve())
        known = left or Instance("", identity, folder, "")
        found = find_by(host, identity, known)
        if left and found.state == "absent":
            found = replace(found, state="broken", reason="its state folder is all that is left")
        if found.state == "absent":
            remove_logs(host, identity)
            builders.sweep(host)
        plan = decide(found, [], WantGone(force))
        if not plan or (name and name != found.name):
            return f"nothing to remove for {name or folder}"
        if found.state == "stopped" and not force:
            host.progress.say(f"it is stopped: {peek.UNSEEN}")
        steps.take(host, plan, found, _is_sure)
        if host.dry:
            return f"{found.name} would be removed"
        remove_sources(host, found.instance)
        grants.forget(host, found.instance.folder)
        if find_by(host, identity, found.instance).state != "absent":
            raise ProviderError(f"{found.name} is still there")
        remove_logs(host, identity)
        builders.sweep(host)
        return f"{found.name} is removed"


def _is_sure(in_use: str) -> bool:
    end = "\n" if "\n" in in_use else ". "
    return agrees(f"{in_use}{end}Remove it and its disk?")
