"""Which instance a project has, asked of its provider; and the lock of what changes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vagrantp.core.errors import ProviderError, StateError, UnansweredError
from vagrantp.core.files import refuse_open
from vagrantp.core.places import state_root
from vagrantp.core.system import Host
from vagrantp.host import vm_checks
from vagrantp.instance import plan
from vagrantp.instance import record as instances
from vagrantp.instance.found import Found, absent, judged, lost
from vagrantp.instance.record import Instance
from vagrantp.providers import provider_for
from vagrantp.settings import env


def find(host: Host, folder: Path) -> Found:
    """Return the instance of a project, live from its provider, in state `absent` for none.

    Works without `.env`: by the state folder, or, where that is gone, by the metadata.
    """
    identity, known = env.id_from(folder), instances.remembered(folder)
    return find_by(host, identity, known or Instance("", identity, folder, ""))


def find_by(host: Host, identity: str, known: Instance) -> Found:
    """Return the instance with an id. `known`: what is known of it, as by its state folder."""
    if known.infra_type:
        host.progress.about(known.full_name, known.infra_type)
    types = [known.infra_type] if known.infra_type else ["vm", "container"]
    for infra_type in types:
        try:
            listing = provider_for(infra_type).list_all(host)
        except ProviderError as error:
            if len(types) == 1 or isinstance(error, UnansweredError):
                raise
            continue  # nothing shows that this provider was ever used here
        for found in listing:
            if found.instance.id == identity and found.uid == os.getuid():
                host.progress.about(found.name, found.instance.infra_type)
                return judged(found)
    if not known.infra_type or not known.is_complete():
        return absent(known)
    provider = "libvirt" if known.infra_type == "vm" else "Podman"
    has_disk = known.infra_type == "vm" and vm_checks.has_disk(host, known)
    return lost(known, f"{provider} no longer has it{', but still has its disk' * has_disk}")


def running(host: Host, folder: Path) -> Found:
    """Return the running instance of a project. Raises StateError when it does not run."""
    refuse_others(env.id_from(folder))
    found = find(host, folder)
    for refusal in plan.decide(found, [], plan.Want.LOGIN):
        if isinstance(refusal, plan.Refuse):
            raise StateError(refusal.message, refusal.hint)
    return found


@contextmanager
def locked(host: Host, identity: str) -> Iterator[Host]:
    """Yield the host with the project's log, while this verb has the project to itself."""
    other, log = "another verb in this project", instances.log(identity)
    with host.lock(state_root(), identity, other, is_patient=host.is_patient):
        refuse_others(identity)
        try:
            yield replace(host, log=log)
        except ProviderError as error:
            if log.exists() and "hint: " not in str(error):  # several may be reported as one
                error.hint = f"the full log is {log}"
            raise


def refuse_others(identity: str) -> None:
    """Raise StateError when somebody else could have changed keys or settings.

    Also when a newer vagrantp made the instance, as this one does not know all of it.
    """
    root = state_root()
    for folder in (root, *root.glob(f"*-{identity}")):
        refuse_open(folder)
    for known in instances.all_by_id(identity):
        known.refuse_newer()
