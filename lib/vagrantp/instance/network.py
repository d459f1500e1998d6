"""The addresses of an instance on our own network."""

from __future__ import annotations

from ipaddress import IPv4Address

from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings

LOOPBACK = "127.0.0.1"


def mac(instance: Instance, settings: Settings) -> str:
    """Return the MAC address of a guest on our network; on a bridge, MAC is of its card there."""
    is_here = settings.network_type == "default"
    return settings.mac if is_here and settings.mac else instance.mac


def fixed_ip(settings: Settings) -> IPv4Address | None:
    """Return the address asked for on our network; on a bridge, FIXED_IP is of the card there."""
    return settings.fixed_ip if settings.network_type == "default" else None
