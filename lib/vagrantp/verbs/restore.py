"""fab restore"""

from __future__ import annotations

from vagrantp.core.system import Host
from vagrantp.verbs.tasks import chore, not_built


@chore
def restore(
    host: Host,
    name: str = "",
    force: bool = False,
    verbose: bool = False,
    wait: bool = True,
) -> None:
    """Not supported yet: put back a disk that snapshot kept."""
    raise not_built("restore")
