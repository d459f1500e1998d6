"""The addresses of an instance on our own network."""

from __future__ import annotations

from ipaddress import IPv4Address

from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings

LOOPBACK = "127.0.0.1"


def mac(instance: Instance, settings: Settings) -> str:
    """Return a guest's MAC address on our network; MAC belongs to its card on a bridge, if any."""
    is_here = settings.network_type == "default"
    return settings.mac if is_here and settings.mac else instance.mac


def fixed_ip(settings: Settings) -> IPv4Address | None:
    """Return the address wanted on our network; FIXED_IP belongs to a card on a bridge, if any."""
    return settings.fixed_ip if settings.network_type == "default" else None
