"""The Makefile's own tasks, about this host and no project: python -m vagrantp.make --list."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.program import Program

from vagrantp import links, template
from vagrantp import uninstall as leftovers
from vagrantp.instance import MASTER
from vagrantp.run import Host
from vagrantp.tasks import agrees, chore


@chore
def link(host: Host, root: str = "") -> None:
    """Make plain `fab` work in every folder below --root."""
    links.link(host, root)


@chore
def link_global(host: Host) -> None:
    """Make plain `fab` work in every folder."""
    links.link_global(host)


@chore
def uninstall(host: Host, yes: bool = False) -> None:
    """Remove what set-up, images and links left on this host; --yes does not ask."""
    leftovers.uninstall(host, lambda: yes or agrees("Remove all this?"))


@chore
def docs(host: Host) -> None:
    """Write .env.example and docs/configuration.md anew, from schema.py."""
    for name, text in template.documents().items():
        host.write(MASTER / name, text, 0o666)


ns = Collection(link, link_global, uninstall, docs)

if __name__ == "__main__":
    Program(namespace=ns).run()  # not fab: it fails at a broken ~/.fabric.yaml before we say so
