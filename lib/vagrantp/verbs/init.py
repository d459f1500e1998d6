"""fab init"""

from __future__ import annotations

from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.settings import docs
from vagrantp.verbs.tasks import here, verb


@verb
def init(host: Host, container: bool = False, verbose: bool = False) -> None:
    """Write a commented .env, for a VM or a --container."""
    show(docs.init(host, here(), "container" if container else "vm"))
