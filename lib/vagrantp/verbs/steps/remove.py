"""Removes an instance and whatever was made for it."""

from __future__ import annotations

from contextlib import suppress

from vagrantp.core.errors import ProviderError
from vagrantp.core.system import Host
from vagrantp.instance import record as instances
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance
from vagrantp.instance.vagrant import mark
from vagrantp.net import ports
from vagrantp.providers import provider_for, vagrant


def remove(host: Host, instance: Instance) -> None:
    """Remove all that exists of the instance, as a stage."""
    with host.progress.stage("remove"):
        clean_up(host, instance)


def clean_up(host: Host, instance: Instance) -> None:
    """Remove all that exists of the instance, then its folder.

    Without Vagrant, which takes seconds to start and knows nothing more.
    """
    host.wait_for_orphans(mark(instance))
    host.remove(instance.ssh_config)  # it is complete no more: a killed `rm` has lost nothing
    if instance.infra_type:
        provider_for(instance.infra_type).clean_up(host, instance)
    else:  # its machine.json is lost, and no provider knows it: parts may be there
        for infra_type in ("vm", "container"):
            with suppress(ProviderError):
                provider_for(infra_type).clean_up(host, instance)
    ports.end(host, instance)
    ssh.close_connections(host, instance)
    vagrant.forget(host, instance)
    host.remove(instance.state_dir)


def remove_leftovers(host: Host, wanted: Instance) -> None:
    """Remove what a killed `up` with another NAME has left."""
    for known in instances.all_by_id(wanted.id, wanted.folder):
        if known.full_name != wanted.full_name:
            remove(host, known)


def remove_logs(host: Host, identity: str) -> None:
    """Remove the logs of what the providers printed during an instance's last verbs."""
    for path in instances.log(identity).parent.glob(f"{identity}.log*"):
        host.remove(path)
