"""fab ssh-config"""

from __future__ import annotations

from vagrantp.core.errors import StateError
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.instance import record as instances
from vagrantp.verbs.tasks import here, not_built, verb


@verb
def ssh_config(host: Host, install: bool = False, verbose: bool = False) -> None:
    """Print an OpenSSH Host block, for IDEs, scp and rsync.

    --install is not supported yet.
    """
    if install:
        raise not_built("ssh-config --install")
    folder = here()
    known = instances.remembered(folder)
    if known is None or not known.is_complete():
        raise StateError(f"there is no instance for {folder}", "fab up makes it")
    known.refuse_newer()
    show(known.ssh_config.read_text(encoding="utf-8").rstrip())
