"""The Makefile's own tasks, about this host and no project: python -m vagrantp.make --list."""

from __future__ import annotations

from functools import partial

from invoke.collection import Collection
from invoke.program import Program

from vagrantp.core.places import MASTER
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.host import checks, links
from vagrantp.host import uninstall as leftovers
from vagrantp.images import built
from vagrantp.settings import docs as references
from vagrantp.verbs.tasks import agrees, chore


@chore
def link(host: Host, root: str = "") -> None:
    """Make plain `fab` work in every folder below --root."""
    links.link(host, root)


@chore
def link_global(host: Host) -> None:
    """Make plain `fab` work in every folder."""
    links.link_global(host)


@chore
def images(host: Host) -> None:
    """Build again the base images that were built; guests keep the one that they have."""
    names = ", ".join(built.renew(host, partial(checks.require_room_to_renew, host)))
    show(
        f"renewed: {names}" if names else "no base image is there yet; fab up builds what it needs"
    )


@chore
def uninstall(host: Host, yes: bool = False) -> None:
    """Remove what set-up, images and links left on this host; --yes does not ask."""
    leftovers.uninstall(host, lambda: yes or agrees("Remove all this?"))


@chore
def docs(host: Host) -> None:
    """Write .env.example and the tables of keys in docs/ again."""
    for name, text in references.documents().items():
        host.write(MASTER / name, text, 0o666)


ns = Collection(link, link_global, images, uninstall, docs)

if __name__ == "__main__":
    Program(namespace=ns).run()  # not fab: it fails at a broken ~/.fabric.yaml before we say so
