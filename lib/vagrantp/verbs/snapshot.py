"""fab snapshot"""

from __future__ import annotations

from vagrantp.core.system import Host
from vagrantp.verbs.tasks import chore, not_built


@chore
def snapshot(
    host: Host,
    name: str = "",
    list: bool = False,
    delete: str = "",
    verbose: bool = False,
    wait: bool = True,
) -> None:
    """Not supported yet: keep its disk as it is now."""
    raise not_built("snapshot")
