"""fab stats"""

from __future__ import annotations

from vagrantp.core import metrics
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.verbs.tasks import verb


@verb
def stats(host: Host, json: bool = False, verbose: bool = False) -> None:
    """Show the measured times of all operations, per verb and type."""
    show(metrics.stats(as_json=json))
