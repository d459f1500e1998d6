"""fab egress"""

from __future__ import annotations

from vagrantp.core.system import Host
from vagrantp.verbs.tasks import chore, not_built


@chore
def egress(
    host: Host,
    follow: bool = False,
    json: bool = False,
    verbose: bool = False,
) -> None:
    """Not supported yet: show what it asked of the internet."""
    raise not_built("egress")
