"""The verbs. A task loads, decides, runs; what it needs is in lib/vagrantp."""

from __future__ import annotations

import sys
from pathlib import Path

# `fab` may come here through a link, and puts the link's folder on sys.path, not ours.
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from invoke.collection import Collection
from invoke.context import Context
from vagrantp import config, lifecycle
from vagrantp import status as states
from vagrantp import verify as proof
from vagrantp.tasks import host_for, is_sure, verb

HERE = Path.cwd()


@verb
def up(c: Context, verbose: bool = False) -> None:
    """Create or start this project's VM or container."""
    print(lifecycle.up(host_for(c, verbose), config.load(HERE), HERE))


@verb
def ssh(c: Context, command: str = "", verbose: bool = False) -> None:
    """Open a shell in it, or run --command there."""
    lifecycle.login(host_for(c, verbose), HERE, command)


@verb
def stop(c: Context, force: bool = False, verbose: bool = False) -> None:
    """Stop it gracefully; --force pulls the plug."""
    print(lifecycle.stop(host_for(c, verbose), HERE, force))


@verb
def rm(c: Context, force: bool = False, verbose: bool = False) -> None:
    """Remove it and everything made for it."""
    print(lifecycle.remove(host_for(c, verbose), HERE, is_sure(force)))


@verb
def validate(c: Context, verbose: bool = False) -> None:
    """Check .env and print the resolved settings; create nothing."""
    print(states.settings_text(config.load(HERE)))


@verb
def status(c: Context, json: bool = False, verbose: bool = False) -> None:
    """Show this project's instance, live from its provider."""
    print(states.text(host_for(c, verbose), HERE, as_json=json))


@verb
def verify(c: Context, json: bool = False, verbose: bool = False) -> None:
    """Prove that the running instance is what .env says."""
    proof.verify(host_for(c, verbose), config.load(HERE), HERE, as_json=json)


ns = Collection(up, ssh, stop, rm, validate, status, verify)
