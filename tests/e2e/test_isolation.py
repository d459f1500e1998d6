"""LAN_ACCESS and LAN_ALLOW: what a guest reaches, tried from inside, and counted outside."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from time import monotonic, sleep

import pytest
from invoke.context import Context
from vagrantp.core.libvirt import virsh
from vagrantp.core.system import Host
from vagrantp.net import subnets as addresses

from tests import network
from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import (
    GUARD,
    guest,
    leave_lost_rules,
    restart_libvirt,
    rules_come_back,
    run,
    status,
)
from tests.network import SERVER, StandIn
from tests.network.ways import LAN, PROBE, Probe, named, never, to_host, to_internet, to_lan

IPTABLES = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@dataclass(frozen=True)
class Place:
    """The stand-ins of a test."""

    lan: StandIn
    internet: StandIn


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Have a LAN, an internet, and a service on this host."""
    with (
        network.lan(tmp_path) as lan,
        network.internet(tmp_path) as internet,
        network.echo_of_host(tmp_path),
    ):
        yield Place(lan, internet)


def opened(
    app: Project, probes: Iterable[Probe], first: str = "true", last: str = "true"
) -> set[str]:
    """Try the probes in the guest, between two commands; return those that got through."""
    stdin = json.dumps([(name, *probe) for name, probe in named(probes).items()]).encode()
    script = f'{first}; found=$(python3 -c {quote(PROBE)}); {last}; echo "$found"'
    done = app.fab("ssh", "--command", f"sudo sh -c {quote(script)}", stdin=stdin)
    assert done.returncode == 0, done.stderr
    return {name for name, outcome in json.loads(done.stdout).items() if outcome == "open"}


def up(app: Project, **changes: object) -> str:
    """Run `up` with these settings, and return what it told."""
    kind = CONTAINER if "container" in app.folder.name else VM
    done = app.write({**kind, "LAN_ACCESS": "no", **changes}).fab("up")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def reaches_what_env_says(app: Project, other: Project, place: Place, **own: object) -> None:
    """Hold a running guest to `.env`, and to what changes in it."""
    address, neighbour = status(app)["address"], status(other)["address"]
    gateway, far = (a.rpartition(".")[0] + ".1" for a in (address, neighbour))
    closed = [*to_lan(), *to_host(gateway, far), *never(neighbour)]
    of_lan, of_host = named(to_lan()), named(to_host(gateway, far))
    before = place.lan.packets()
    assert len(closed) >= 40
    assert opened(app, closed) == set()
    sleep(1.1)  # who tried the router itself is kept from what is behind it for a second
    assert opened(app, to_internet()) == set(named(to_internet()))
    assert opened(app, [("dns", gateway, 53, None)]) == {f"dns {gateway} 53"}
    assert place.lan.packets() == before

    started = guest(app, "cat /proc/1/stat")
    said = up(app, LAN_ACCESS="yes", **own)
    assert "LAN_ACCESS: no → yes at once" in said and "LAN open" in said
    assert opened(app, closed) == set(of_lan)
    assert place.lan.packets() > before

    allow = f"{LAN}.9/32:80,{LAN}.0/24:53/udp,10.0.0.0/8,host:7000"
    up(app, LAN_ALLOW=allow, **own)
    allowed = {f"tcp {LAN}.9 80", f"udp {LAN}.9 53"}
    allowed |= {name for name in of_lan if " 10.77.0.9 " in name}
    assert opened(app, closed) == allowed | set(of_host)
    up(app, **own)
    assert opened(app, closed) == set()
    assert (
        guest(app, "cat /proc/1/stat").split()[21] == started.split()[21]
    )  # the same first process


def test_a_container_reaches_what_env_says(guests: MakeProject, place: Place) -> None:
    app, other = guests("container"), guests("other-container")
    up(app)
    up(other)
    reaches_what_env_says(app, other, place)
    # root in it has nothing to change an address, a route or a rule with
    for command in (
        "ip addr add 10.201.128.250/24 dev eth0",
        "ip route del default",
        "ip link set eth0 down",
    ):
        assert "not permitted" in guest(app, f"sudo {command} 2>&1 || true")
    raw = "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"
    refused = "OSError: [Errno 97] Address family not supported by protocol"
    assert refused in guest(app, f"sudo python3 -c '{raw}' 2>&1 || true")


def test_rules_of_other_settings_are_told_and_put_right(guests: MakeProject) -> None:
    app = guests("container")
    up(app)
    name = status(app)["instance"]
    wishes = Path(app.environment["XDG_STATE_HOME"]) / "vagrantp" / name / "isolation.json"
    wishes.write_text('{"lan_access": true, "lan_allow": []}')
    run(GUARD, "sync")
    done = app.fab("verify")
    assert done.returncode == 9
    assert "broken: not isolated: its rules are for other settings" in done.stdout
    up(app)
    assert app.fab("verify").returncode == 0


FIRST = """
import socket, time
while True:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        made = socket.socket(socket.AF_INET, kind)
        made.setblocking(False)
        made.connect_ex(("192.168.77.9", 7000))
        try: made.send(b"first")
        except OSError: pass
    time.sleep(0.05)
"""


def test_no_packet_gets_out_however_a_container_starts(guests: MakeProject, place: Place) -> None:
    app = guests("container")
    up(app)
    name = status(app)["instance"]
    guest(app, "sudo tee /usr/local/sbin/first >/dev/null <<'END'\n" + FIRST + "END")
    guest(app, "sudo sed -i '2i python3 /usr/local/sbin/first &' /usr/local/sbin/vagrantp-entry")
    before = place.lan.packets()
    for start in (
        ("podman", "restart", "--time", "0", name),
        ("podman", "stop", "--time", "0", name),
        ("podman", "start", name),
    ):
        run(*start)
    assert app.fab("stop", "--force").returncode == 0
    up(app)
    assert "first" in guest(app, "ps ax 2>/dev/null || cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert place.lan.packets() == before
    up(app, LAN_ACCESS="yes")
    guest(app, "sleep 1")
    assert place.lan.packets() > before


def vm_subnet() -> str:
    """Return the first three numbers of the network `vagrantp` of VMs, or of what it will be."""
    host = Host(Context())
    found = host.ask(virsh("net-dumpxml", addresses.NAME))
    if found.ok:
        return str(found.stdout).partition("<ip address='")[2].partition(".1'")[0]
    return str(addresses.free_subnet(host, addresses.FOR_LIBVIRT, [])).removesuffix(".0/24")


def test_a_vm_reaches_what_env_says(guests: MakeProject, place: Place) -> None:
    app, other = guests("machine"), guests("container")
    up(other)
    subnet = vm_subnet()
    address = f"{subnet}.77"
    own = {"FIXED_IP": address, "PORTS": "18090:22,auto:9000/udp", "MAC": "52:54:00:aB:cd:7e"}
    up(app, **own)
    assert status(app)["address"] == address
    assert app.fab("verify").returncode == 0
    reaches_what_env_says(app, other, place, **own)
    gateway, neighbour, stolen = f"{subnet}.1", f"{subnet}.254", f"{subnet}.250"
    outside = [probe for probe in (*to_lan(), *to_internet()) if probe[0] != "icmp"]
    card = guest(app, f"ip route get {SERVER} | grep -o 'dev [^ ]*'").split()[1]
    mac = guest(app, f"cat /sys/class/net/{card}/address").strip()
    assert mac == "52:54:00:ab:cd:7e"
    before = place.lan.packets()

    def sudo(commands: str) -> None:
        guest(app, f"sudo sh -ec {quote(commands)}")

    with network.neighbour(f"{neighbour}/24", place.lan.received.parent) as beside:
        assert opened(app, [("tcp", neighbour, 80, None), ("udp", neighbour, 53, None)]) == set()
        # another address, IPv6 of its own, routes past the gateway
        sudo(f"ip addr add {stolen}/24 dev {card}; ip addr add fd77::5/64 dev {card} nodad")
        assert opened(app, [(*p[:3], {"source": stolen}) for p in outside]) == set()
        assert opened(app, never()) == set()
        sudo(f"ip addr del {stolen}/24 dev {card}")
        sudo(f"ip route add {LAN}.0/24 dev {card}; ip route add 10.77.0.0/24 via {neighbour}")
        assert opened(app, to_lan()) == set()
        sudo(f"ip route del {LAN}.0/24; ip route del 10.77.0.0/24")
        # frames that a guest does not send
        with network.frames() as arrived:
            host_mac = Path("/sys/class/net/vagrantp0/address").read_text().strip()
            tricks = (network.HERE / "tricks.py").read_text()
            facts = (card, mac, address, gateway, host_mac, neighbour)
            guest(app, f"sudo python3 -c {quote(tricks)} {' '.join(facts)}")
        # once more where the guest's ICMP error quotes what the server has sent back
        assert {*arrived()} == {b"trick: none"}
        assert "trick" not in (place.lan.received.parent / "host").read_text()
        # another MAC, and back, as nothing gets through meanwhile
        other_mac = f"ip link set {card} address 52:54:00:00:00:99"
        assert opened(app, outside, other_mac, f"ip link set {card} address {mac}") == set()
        assert opened(app, to_internet()) == set(named(to_internet()))
        assert beside.packets() == 0
    assert place.lan.packets() == before

    # it tries from its first moments on, whoever starts it
    unit = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/usr/bin/python3 /first.py\n"
    files = {"/first.py": FIRST, "/etc/systemd/system/first.service": unit}
    for path, text in files.items():
        sudo(f"printf %s {quote(text)} > {path}")
    sudo("systemctl add-wants sysinit.target first.service; sync")
    name = status(app)["instance"]
    run(*virsh("destroy", name))
    run(*virsh("start", name))
    up(app, **own)
    deadline = monotonic() + 300
    while app.fab("ssh", "--command", "true").returncode and monotonic() < deadline:
        sleep(1)
    assert guest(app, "systemctl is-active first.service").strip() == "active"
    restart_libvirt()
    assert place.lan.packets() == before
    assert app.fab("verify").returncode == 0  # its port and its address among the rest
    up(app, LAN_ACCESS="yes", **own)
    guest(app, "sleep 1")
    assert place.lan.packets() > before


BREAKAGES = {
    "the rules are gone": "nft delete table inet vagrantp; nft delete table bridge vagrantp",
    "the rules are not as they were loaded": "nft flush chain inet vagrantp forward",
    # and another in its place that systemd-networkd takes away: it is not marked as the kernel's
    "the routing rule of vagrantp0 is gone": "ip rule delete priority 77 iif vagrantp0; "
    "ip rule add priority 77 iif vagrantp0 lookup main suppress_prefixlength 1 realms 77",
    "nothing is at work that would put lost rules back": "true",
}


def test_lost_rules_are_told_and_put_back(guests: MakeProject) -> None:
    app = guests("container")
    up(app)
    for why, breaking in BREAKAGES.items():
        leave_lost_rules()
        run("sh", "-c", breaking)
        done = app.fab("status", "--json")
        assert json.loads(done.stdout)["state"] == "broken"
        assert f"not isolated: {why}" in json.loads(done.stdout)["reason"]
        done = app.fab("verify")
        assert done.returncode == 9 and f"broken: not isolated: {why}" in done.stdout
        if "rules are gone" in why or "at work" in why:  # `doctor` takes its time for all it tries
            done = app.fab("doctor", "--json")
            [check] = [c for c in json.loads(done.stdout)["checks"] if c["name"] == "isolation"]
            assert check["outcome"] == "failed" and why in check["found"]
        done = app.fab("up")
        assert done.returncode == 0 and why in done.stderr
        assert status(app)["isolation"] == "LAN blocked"
        assert app.fab("verify").returncode == 0


# What breaks each network line of `verify` from outside, while guard's rules are as they were.
WRONG = [
    # a guest's own choice, and what is at its gateway
    ("resolver", "hook input priority -20; iifname vagrantp1 udp dport 53 reject"),
    # Podman's, which would answer
    (
        "resolver of its own",
        "hook prerouting priority -120; iifname vagrantp1 udp dport 53 redirect",
    ),
    ("LAN_ALLOW host:7000", "hook input priority -20; iifname vagrantp1 tcp dport 7000 reject"),
    # in the guest's namespace: the host's rules decide before any DNAT there
    (
        "this host",
        f"hook output priority -100; ip daddr {LAN}.1 "
        f"tcp dport != {{ 53, 7000 }} dnat ip to {SERVER}:80",
    ),
    (
        "router of the LAN",
        "hook prerouting priority -100; iifname vagrantp1 ip daddr @routers "
        f"tcp dport 443 dnat ip to {SERVER}:80",
    ),
]


def test_each_network_line_of_verify_can_fail(guests: MakeProject, place: Place) -> None:
    app = guests("container")
    up(app, LAN_ALLOW="host:7000")

    def failed() -> set[str]:
        checks = json.loads(app.fab("verify", "--json").stdout)["checks"]
        assert {check["name"] for check in checks} >= {*dict(WRONG), "this host by IPv6"}
        return {check["name"] for check in checks if check["outcome"] == "FAILED"}

    assert failed() == set()
    routes = json.loads(run("ip", "-4", "-json", "route", "show", "default"))
    routers = ", ".join(route["gateway"] for route in routes)
    pid = run("podman", "inspect", "--format", "{{.State.Pid}}", status(app)["instance"]).strip()
    for line, rule in WRONG:
        inside = ("nsenter", f"--target={pid}", "--net") if "hook output" in rule else ()
        nft = (*inside, "nft")
        kind = "nat" if "dnat" in rule or "redirect" in rule else "filter"
        sets = f"set routers {{ type ipv4_addr; elements = {{ {routers} }}; }}"
        chain = f"chain wrong {{ type {kind} {rule}; }}"
        run(*nft, f"table inet wrong {{\n{sets}\n{chain}\n}}")
        also = {"resolver of its own"} if line == "resolver" else set()
        try:
            assert failed() == {line} | also
        finally:
            run(*nft, "delete", "table", "inet", "wrong")
    # IPv6, which nothing but guard's rules keeps away, once somebody gives it an address
    its_ip = f"nsenter --target={pid} --net ip -6"
    script = f"{its_ip} address add fd79::2/64 dev eth0 nodad"
    script += f" && {its_ip} route add default via fd79::1"
    script += " && nft delete table inet vagrantp && nft delete table bridge vagrantp"
    network.ip("-6", "address", "add", "fd79::1/64", "dev", "vagrantp1", "nodad")
    leave_lost_rules()
    try:
        run("sh", "-ec", script)
        assert failed() >= {"isolation", "this host", "this host by IPv6"}
    finally:
        network.ip("-6", "address", "del", "fd79::1/64", "dev", "vagrantp1")
        run(GUARD, "sync")
    assert failed() == set()


def test_a_flushed_host_has_our_rules_again_at_once(guests: MakeProject, place: Place) -> None:
    app = guests("container")
    up(app)
    run("sh", "-c", "nft flush ruleset; ip rule delete priority 77 iif vagrantp1")
    try:
        rules_come_back()
        assert status(app)["isolation"] == "LAN blocked"
        obstacle = Path("/run/vagrantp/rules.new")  # as where there is no room: it tries again
        obstacle.mkdir()
        run("sh", "-c", "nft flush ruleset; ip rule delete priority 77 iif vagrantp1; sleep 0.5")
        obstacle.rmdir()
        rules_come_back()
    finally:  # what was others'
        run("podman", "network", "reload", "--all")
        restart_libvirt()
    before, through_iptables = place.lan.packets(), IPTABLES.exists() and IPTABLES.read_text()
    try:
        if through_iptables:
            IPTABLES.write_text("0")  # filters of others that rely on it let everything pass now
        assert opened(app, to_lan()) == set()
    finally:
        if through_iptables:
            IPTABLES.write_text(through_iptables)
    assert place.lan.packets() == before


@contextmanager
def taken(address: str) -> Iterator[None]:
    """Listen at the port of DNS of an address that this host may have later."""
    with socket.socket() as other:
        other.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND, ip(7)
        other.bind((address, 53))
        other.listen()
        yield


def test_nothing_starts_where_rules_cannot_be_written(guests: MakeProject) -> None:
    app = guests("container").write({**CONTAINER, "LAN_ACCESS": "no"})
    for away in (
        "mount --bind /dev/null /usr/local/lib/vagrantp/guard;",
        "mount -t tmpfs none /etc/containers/oci/hooks.d;",
        "nft delete table inet vagrantp; mount --bind /bin/false $(command -v nft);",
    ):
        try:
            done = app.fab_amid(away, "up")
        finally:
            run(GUARD, "sync")
        assert done.returncode == 5, done.stderr
        assert "guests cannot be kept from the LAN" in done.stderr
        assert app.fab("status", "--json").stdout.count('"absent"') == 1
    up(app)
    [resolver] = re.findall(r"169\.254\.\d+\.\d+", run("ip", "address", "show", "dev", "lo"))
    assert app.fab("stop").returncode == 0
    name = json.loads(app.fab("status", "--json").stdout)["instance"]
    # a hook that fails keeps it from starting, whoever starts it
    unshared = ("unshare", "--mount", "sh", "-c")
    script = 'mount --bind /bin/false /usr/local/lib/vagrantp/guard; podman start "$0"'
    assert app.run(*unshared, script, name).returncode != 0
    assert json.loads(app.fab("status", "--json").stdout)["state"] == "stopped"
    folder = Path(app.environment["XDG_STATE_HOME"]) / "vagrantp" / name
    written = (folder / "isolation.json").read_text()
    ids = json.loads(written)
    (folder / "isolation.json").write_text(json.dumps({**ids, "first_id": ids["first_id"] + 1}))
    assert app.run("podman", "start", name).returncode != 0
    assert "its uid_map is not its own" in (folder / "hook.error").read_text()
    # what fails only when Podman has connected it
    with taken(resolver):
        done = app.fab("up")
    assert done.returncode == 5
    assert "no resolver runs for it" in done.stderr
    done = app.fab_amid("mount --bind /bin/false $(command -v nsenter);", "up")
    assert done.returncode == 5
    assert "starting the container failed: nsenter: it failed" in done.stderr
    up(app)
