"""Stops an instance, and what serves it on this host."""

from __future__ import annotations

from vagrantp.core.system import Host
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance
from vagrantp.net import ports
from vagrantp.providers import provider_for


def stop(host: Host, instance: Instance, force: bool) -> None:
    """Stop a running instance: gracefully, or at once."""
    with host.progress.stage("stop"):
        provider_for(instance.infra_type).stop(host, instance, force)
        ports.end(host, instance)
        ssh.close_connections(host, instance)
