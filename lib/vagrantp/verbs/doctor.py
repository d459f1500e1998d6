"""fab doctor"""

from __future__ import annotations

from vagrantp.core.system import Host
from vagrantp.host import doctor as host_doctor
from vagrantp.verbs.tasks import chore


@chore
def doctor(host: Host, json: bool = False, verbose: bool = False) -> None:
    """Check this host, and show what fixes it; needs no project."""
    host_doctor.examine(host, as_json=json)
