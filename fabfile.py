"""The verbs. A task loads, decides, runs; what it needs is in lib/vagrantp."""

from __future__ import annotations

import sys
from pathlib import Path

# `fab` may come here through a link, and puts the link's folder on sys.path, not ours.
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from invoke.collection import Collection
from vagrantp.core import metrics
from vagrantp.core.system import Host
from vagrantp.host import doctor as examination
from vagrantp.instance import record
from vagrantp.settings import docs, env
from vagrantp.verbs import lifecycle
from vagrantp.verbs import status as states
from vagrantp.verbs import verify as proof
from vagrantp.verbs.tasks import accepts, chore, here, is_sure, not_built, verb

HERE = here()


@verb
def up(
    host: Host,
    provision: bool = False,
    no_provision: bool = False,
    accept: bool = False,
    from_: str = "",
    verbose: bool = False,
    wait: bool = True,
) -> None:
    """Create or start this project's VM or container.

    Provisions it the first time, with --provision again, with --no-provision not at all. With
    --accept, takes what its guest may have changed (MOUNT=rw) without a question.
    --from is not supported yet.
    """
    if from_:
        raise not_built("up --from")
    when = lifecycle.when_to_provision(provision, no_provision)
    settings = env.load(HERE, host.progress.say)
    print(lifecycle.up(host, settings, HERE, when, accepts(accept)))


@verb
def ssh(host: Host, command: str = "", verbose: bool = False) -> None:
    """Open a shell in it, or run --command there."""
    lifecycle.login(host, HERE, command)


@verb
def stop(host: Host, force: bool = False, verbose: bool = False, wait: bool = True) -> None:
    """Stop it gracefully; --force pulls the plug."""
    print(lifecycle.stop(host, HERE, force))


@verb
def rm(
    host: Host, force: bool = False, name: str = "", verbose: bool = False, wait: bool = True
) -> None:
    """Remove it and everything made for it.

    --name NAME-ID removes an instance of any project, as ls calls it.
    """
    print(lifecycle.remove(host, HERE, is_sure(force), name))


@verb
def provision(host: Host, accept: bool = False, verbose: bool = False, wait: bool = True) -> None:
    """Run PROVISION_SCRIPT again; --accept as for up."""
    settings = env.load(HERE, host.progress.say)
    print(lifecycle.provision_anew(host, settings, HERE, accepts(accept)))


@verb
def validate(host: Host, verbose: bool = False) -> None:
    """Check .env and print the resolved settings; create nothing."""
    settings = env.load(HERE, host.progress.say)
    wanted = record.new(settings, HERE)
    host.progress.about(wanted.full_name, wanted.infra_type)
    print(states.settings_text(settings))


@verb
def init(host: Host, container: bool = False, verbose: bool = False) -> None:
    """Write a commented .env, for a VM or a --container."""
    print(docs.init(host, HERE, "container" if container else "vm"))


@verb
def status(host: Host, json: bool = False, verbose: bool = False) -> None:
    """Show this project's instance, live from its provider."""
    print(states.text(host, HERE, as_json=json))


@verb
def ls(host: Host, json: bool = False, verbose: bool = False) -> None:
    """Show every instance of yours on this host."""
    print(states.listing(host, as_json=json))


@verb
def ssh_config(host: Host, install: bool = False, verbose: bool = False) -> None:
    """Print an OpenSSH Host block, for IDEs, scp and rsync.

    --install is not supported yet.
    """
    if install:
        raise not_built("ssh-config --install")
    print(lifecycle.ssh_config(HERE))


@verb
def verify(host: Host, json: bool = False, verbose: bool = False) -> None:
    """Prove that the running instance is what .env says."""
    proof.verify(host, env.load(HERE, host.progress.say), HERE, as_json=json)


@verb
def stats(host: Host, json: bool = False, verbose: bool = False) -> None:
    """Show the measured times of all operations, per verb and type."""
    print(metrics.stats(as_json=json))


@chore
def doctor(host: Host, json: bool = False, verbose: bool = False) -> None:
    """Check this host, and show what fixes it; needs no project."""
    examination.examine(host, as_json=json)


@chore
def agent(
    host: Host,
    agent: str = "",
    session: str = "",
    prompt: str = "",
    timeout: int = 0,
    verbose: bool = False,
    wait: bool = True,
) -> None:
    """Not supported yet: open a coding agent in it."""
    raise not_built("agent")


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


@chore
def restore(
    host: Host, name: str = "", force: bool = False, verbose: bool = False, wait: bool = True
) -> None:
    """Not supported yet: put back a disk that snapshot kept."""
    raise not_built("restore")


@chore
def egress(host: Host, follow: bool = False, json: bool = False, verbose: bool = False) -> None:
    """Not supported yet: show what it asked of the internet."""
    raise not_built("egress")


ns = Collection(
    *(up, ssh, stop, rm, provision, validate, init, status, ls, ssh_config, verify, stats, doctor),
    *(agent, snapshot, restore, egress),
)
