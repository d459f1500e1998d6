"""NETWORK_TYPE=bridge: a peer on the LAN that it does not reach, and that reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from time import monotonic, sleep

import pytest

from tests import network
from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import guest, rules_come_back, run, status
from tests.e2e.test_isolation import opened
from tests.network import BRIDGE, ON_BRIDGE, SERVER, StandIn
from tests.network.ways import REPLY_PORTS, Probe, named

FIXED = {"FIXED_IP": f"{ON_BRIDGE}.40", "MAC": "52:54:00:ab:cd:7e"}
ON = {"NETWORK_TYPE": "bridge", "BRIDGE": BRIDGE}
PEER, HOST, GATEWAY = f"{ON_BRIDGE}.9", f"{ON_BRIDGE}.5", f"{ON_BRIDGE}.1"
INTERNET: list[Probe] = [(kind, SERVER, port, None) for kind, port in (("tcp", 80), ("udp", 7000))]
INTERNET += [("icmp", SERVER, 0, None), ("fragments", SERVER, 7000, None)]
RESOLVER: list[Probe] = [("dns", GATEWAY, 53, None)]
LAN: list[Probe] = [
    *((kind, PEER, port, None) for kind in ("tcp", "udp") for port in (22, 53, 5353, 7000)),
    *((kind, PEER, 7000, {"port": port}) for kind in ("tcp", "udp") for port in REPLY_PORTS[1:]),
    *((kind, HOST, 7000, None) for kind in ("tcp", "udp")),
    *((kind, GATEWAY, 80, None) for kind in ("tcp",)),
    *(("icmp", address, 0, None) for address in (PEER, HOST, GATEWAY)),
    ("fragments", PEER, 7000, None),
]


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[tuple[StandIn, StandIn]]:
    with network.bridge(tmp_path) as found, network.echo_of_host(tmp_path):
        yield found


def up(app: Project, **changes: object) -> str:
    """Run `up` on the bridge, and return what it told."""
    kind = CONTAINER if "container" in app.folder.name else VM
    done = app.write({**kind, **ON, **changes}).fab("up")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def address_of(app: Project) -> str:
    """Return its address on the LAN, once it has one."""
    deadline = monotonic() + 120
    while not (found := status(app)["lan_address"]):
        assert monotonic() < deadline
        sleep(0.5)
    return str(found)


def reaches_what_env_says(app: Project, lan: tuple[StandIn, StandIn], **own: object) -> None:
    """Hold a running guest to `.env`, and to what changes in it."""
    peer, _ = lan
    address = address_of(app)
    before = peer.packets()
    assert opened(app, [*LAN, *RESOLVER, *INTERNET]) == set(named([*RESOLVER, *INTERNET]))
    assert peer.packets() == before
    # the LAN reaches the guest, and is answered
    ways: dict[str, Probe] = {"ping": ("icmp", address, 0, None), "ssh": ("tcp", address, 22, None)}
    assert peer.opened(ways) == {"ping"}  # sshd is no echo
    banner = f"import socket; print(socket.create_connection(('{address}', 22), 5).recv(4))"
    assert peer.inside("python3", "-c", banner) == "b'SSH-'\n"
    done = app.fab("verify")
    assert done.returncode == 0, done.stdout
    assert "LAN_ACCESS: no → yes" in up(app, LAN_ACCESS="yes", **own)
    served = f"udp {PEER} 7000 {{'port': 67}}"  # as a DHCP server: never
    assert opened(app, [*LAN, *INTERNET]) == set(named([*LAN, *INTERNET])) - {served}
    assert app.fab("verify").returncode == 0
    up(app, LAN_ALLOW=f"{PEER}/32:7000,host:7000", **own)
    found = {
        n for n, p in named(LAN).items() if p[0] == "tcp" and p[2] == 7000 and p[1] in (PEER, HOST)
    }
    assert opened(app, LAN) == found
    up(app, **own)
    before = peer.packets()
    assert opened(app, LAN) == set()
    assert peer.packets() == before


def is_as_before(app: Project, lan: tuple[StandIn, StandIn], address: str) -> None:
    """See that a guest that was started anew has its address, and reaches nothing of the LAN."""
    assert address_of(app) == address
    before = lan[0].packets()
    assert opened(app, [*LAN, *INTERNET]) == set(named(INTERNET))
    assert lan[0].packets() == before
    assert app.fab("verify").returncode == 0


@pytest.mark.parametrize("fixed", [False, True], ids=["dhcp", "fixed"])
def test_a_container_on_a_bridge(
    guests: MakeProject, lan: tuple[StandIn, StandIn], fixed: bool
) -> None:
    app = guests("container")
    own = FIXED if fixed else {}
    said = up(app, PORTS="18091:22", **own)
    assert f"{f'{ON_BRIDGE}.40/24' if fixed else 'an address by DHCP'} on {BRIDGE}" in said
    address = address_of(app)
    assert (address == f"{ON_BRIDGE}.40") == fixed
    if fixed:
        assert lan[0].opened({"ping": ("icmp", address, 0, None)}) == {"ping"}
        assert "52:54:00:ab:cd:7e" in lan[0].inside("ip", "neigh", "show", address)
    # whoever starts it, and after the rules were lost
    name = status(app)["instance"]
    run("podman", "restart", "--time", "0", name)
    run("sh", "-c", "nft delete table bridge vagrantp; nft delete table inet vagrantp")
    rules_come_back()
    up(app, PORTS="18091:22", **own)
    is_as_before(app, lan, address)
    on_ours = status(app)["address"].rpartition(".")[0] + ".1"
    asks = guest(app, "grep -m 1 ^nameserver /etc/resolv.conf")  # older Podman adds the host's
    assert asks == f"nameserver {GATEWAY if fixed else on_ours}\n"


@pytest.mark.soak
def test_a_container_on_a_bridge_reaches_what_env_says(
    guests: MakeProject, lan: tuple[StandIn, StandIn]
) -> None:
    app = guests("container")
    up(app, PORTS="18091:22", **FIXED)
    reaches_what_env_says(app, lan, PORTS="18091:22", **FIXED)


def test_a_vm_on_a_bridge(guests: MakeProject, lan: tuple[StandIn, StandIn]) -> None:
    app, peer = guests("machine"), lan[0]
    up(app)
    reaches_what_env_says(app, lan)
    card = guest(app, f"ip route get {SERVER} | grep -o 'dev [^ ]*'").split()[1]
    mac = guest(app, f"cat /sys/class/net/{card}/address").strip()
    before = peer.packets()

    def sudo(commands: str) -> None:
        guest(app, f"sudo sh -ec {quote(commands)}")

    outside = [p for p in (*LAN, *INTERNET) if p[0] != "icmp"]
    stolen = f"{ON_BRIDGE}.77"
    sudo(f"ip addr add {stolen}/24 dev {card}; ip addr add fd77::5/64 dev {card} nodad")
    assert opened(app, [(*p[:3], {"source": stolen}) for p in outside]) == set()
    assert "lladdr" not in peer.inside("ip", "neigh", "show", stolen)
    sudo(f"ip addr del {stolen}/24 dev {card}")
    other_mac = f"ip link set {card} address 52:54:00:00:00:99"
    assert opened(app, outside, other_mac, f"ip link set {card} address {mac}") == set()
    assert peer.packets() == before


@pytest.mark.soak
def test_a_vm_on_a_bridge_is_where_it_was_at_its_next_start(
    guests: MakeProject, lan: tuple[StandIn, StandIn]
) -> None:
    app = guests("machine")
    up(app)
    address = address_of(app)
    assert app.fab("stop").returncode == 0
    up(app)
    is_as_before(app, lan, address)


def test_what_cannot_be_on_a_lan_is_told_before(
    guests: MakeProject, lan: tuple[StandIn, StandIn]
) -> None:
    app = guests("container")

    def refused(code: int, text: str, **changes: object) -> None:
        done = app.write({**CONTAINER, **ON, **changes}).fab("up")
        assert done.returncode == code, done.stderr
        assert text in done.stderr
        assert status(app)["state"] == "absent"

    refused(
        6, f"nowhere is not a bridge of this host\n  hint: this host has {BRIDGE}", BRIDGE="nowhere"
    )
    refused(6, f"FIXED_IP={PEER} is taken by ", FIXED_IP=PEER)
    refused(6, f"FIXED_IP={HOST} is taken by this host itself", FIXED_IP=HOST)
    refused(2, "FIXED_IP must have a prefix", FIXED_IP="10.1.2.3")
    refused(2, "missing key GATEWAY: this host knows no router", FIXED_IP="10.1.2.3/24")
    network.ip("address", "flush", "dev", BRIDGE)
    for access in ("no", "yes"):
        why = "a guest by DHCP cannot be isolated: this host has no address on"
        refused(5, why, LAN_ACCESS=access)
