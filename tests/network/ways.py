"""Ways out of a guest, as probe.py takes them: kind, address, port, and where each starts from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tests.network import HERE, LAN_NETWORKS, ROUTER, SERVER

PROBE = (HERE / "probe.py").read_text()
LAN = "192.168.77"
REPLY_PORTS = (22, 53, 67, 8000)  # what a rule without memory takes for an answer

Probe = tuple[str, str, int, Mapping[str, object] | None]


def to_lan() -> Iterator[Probe]:
    """What LAN_ACCESS decides."""
    for net in LAN_NETWORKS:
        yield "tcp", f"{net}.9", 80, None
        yield "udp", f"{net}.9", 53, None
        yield "icmp", f"{net}.9", 0, None
    for port in (22, 53, 7000):
        yield "tcp", f"{LAN}.9", port, None
    yield "udp", f"{LAN}.9", 5353, None
    yield "fragments", f"{LAN}.9", 7000, None
    for port in REPLY_PORTS:
        yield "udp", f"{LAN}.9", 7000, {"port": port}
        if port != 22:  # the guest's own sshd has it
            yield "tcp", f"{LAN}.9", 7000, {"port": port}
    yield "tcp", f"{ROUTER}.2", 80, None


def to_internet() -> Iterator[Probe]:
    """What is always open."""
    for kind, port in (("tcp", 80), ("udp", 53), ("icmp", 0), ("fragments", 7000)):
        yield kind, SERVER, port, None


def to_host(*gateways: str) -> Iterator[Probe]:
    """What only LAN_ALLOW=host:7000 opens."""
    for address in (*gateways, f"{LAN}.1", f"{LAN_NETWORKS[-1]}.1", f"{ROUTER}.1"):
        yield "tcp", address, 7000, None
        for port in REPLY_PORTS[1:]:
            yield "tcp", address, 7000, {"port": port}


def never(*others: str) -> Iterator[Probe]:
    """What nothing opens: IPv6, and other guests."""
    for kind in ("tcp", "udp"):
        for address in ("fd77::9", "fd77::1", "ff02::1"):
            yield kind, address, 7000, None
    for address in others:
        yield "tcp", address, 22, None
        yield "icmp", address, 0, None
        yield "udp", address, 5353, {"port": 53}


def named(probes: Iterable[Probe]) -> dict[str, Probe]:
    """Return the probes, each with a name."""
    return {f"{p[0]} {p[1]} {p[2]} {p[3] or ''}".strip(): p for p in probes}
