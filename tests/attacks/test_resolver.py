"""What a guest learns from the resolver at its gateway: nothing of other guests, host and LAN."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network, IPv6Address
from pathlib import Path
from shlex import quote

import pytest

from tests.attacks.lab import CONTAINER as CONTAINER_IN_LAB
from tests.attacks.lab import PLAIN, Lab, Namespace, admitted
from tests.attacks.lab import VM as VM_IN_LAB
from tests.conftest import CONTAINER, MakeProject
from tests.e2e.conftest import guest, run, status
from tests.network import HERE

ASK = HERE / "ask.py"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
HOST_NAME = "host.containers.internal"
GATEWAYS = {"vm": "10.201.0.1", "container": "10.201.128.1"}
FOUND, NO_SUCH_NAME, NOT_IMPLEMENTED, REFUSED = 0, 3, 4, 5  # response codes: RFC 1035, 4.1.1
ON_LINK = [IPv4Network("203.0.113.0/24")]  # a network with public addresses
Question = tuple[str, str, str]
Answer = list[object]
# That drops all but what libvirt's and Podman's rules let in.
FIREWALL = """
table inet firewall {
  chain input {
    type filter hook input priority 0; policy drop;
    iifname lo accept
    ct state established,related accept
    iifname vagrantp0 meta l4proto { tcp, udp } th dport 53 accept
    ip saddr 10.201.128.0/24 meta l4proto { tcp, udp } th dport 53 accept
  }
}
"""
PRIVATE6 = IPv6Address("fd77::9").reverse_pointer
# What the host's resolver knows: names of the LAN, and of the internet.
UPSTREAM = f"""
port=53
listen-address=192.0.2.53
bind-interfaces
no-resolv
no-hosts
user=root
host-record=public.example.com,192.0.2.9
host-record=router.example.com,192.168.77.9
host-record=vpn.example.com,100.64.0.9
host-record=none.example.com,0.0.0.0
host-record=mixed.example.com,192.0.2.9
host-record=mixed.example.com,192.168.77.9
host-record=near.example.com,203.0.113.7
host-record=own.example.com,127.0.0.1
host-record=mapped.example.com,::ffff:192.168.77.9
host-record=private6.example.com,fd77::9
cname=chain.example.com,router.example.com
dns-rr=hint.example.com,65,0001000004:00:04:C0:A8:4D:09
dns-rr=hint.example.com,64,0001000004:00:04:C0:A8:4D:09
host-record=nas,192.0.2.9
txt-record=nas,here
host-record=_gateway,192.0.2.9
host-record=nas.lan,192.168.77.9
host-record=nas.local,192.0.2.9
txt-record=nas.home.arpa,here
ptr-record=9.77.168.192.in-addr.arpa,nas.lan
txt-record=9.77.168.192.in-addr.arpa,here
ptr-record=9.0.64.100.in-addr.arpa,vpn.example.com
ptr-record=7.113.0.203.in-addr.arpa,near.example.com
ptr-record={PRIVATE6},private6.example.com
"""
# Questions, the response code and the number of answers: of no resolver but the host's, of a plain
# guest's, of one with LAN_ALLOW=192.168.77.9, of one with LAN_ACCESS=yes.
NOTHING = (NO_SUCH_NAME, 0)
NO_DATA = (FOUND, 0)
ONE, TWO = (FOUND, 1), (FOUND, 2)
TABLE: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [
    ("public.example.com", "A", (ONE, ONE, ONE, ONE)),
    ("own.example.com", "A", (ONE, ONE, ONE, ONE)),  # the guest's loopback
    ("router.example.com", "A", (ONE, NOTHING, ONE, ONE)),
    ("rOuTeR.eXaMpLe.CoM", "A", (ONE, NOTHING, ONE, ONE)),
    ("router.example.com", "ANY", (ONE, NOTHING, ONE, ONE)),
    ("chain.example.com", "A", (TWO, NOTHING, TWO, TWO)),
    ("mixed.example.com", "A", (TWO, NOTHING, TWO, TWO)),
    ("vpn.example.com", "A", (ONE, NOTHING, NOTHING, ONE)),
    ("none.example.com", "A", (ONE, NOTHING, NOTHING, ONE)),
    ("near.example.com", "A", (ONE, NOTHING, NOTHING, ONE)),
    ("mapped.example.com", "AAAA", (ONE, NO_DATA, NO_DATA, NO_DATA)),
    ("private6.example.com", "AAAA", (ONE, NO_DATA, NO_DATA, NO_DATA)),
    ("hint.example.com", "HTTPS", (ONE, NO_DATA, NO_DATA, NO_DATA)),
    ("hint.example.com", "SVCB", (ONE, NO_DATA, NO_DATA, NO_DATA)),
    ("nas", "A", (ONE, NOTHING, NOTHING, NOTHING)),
    ("nas", "ANY", (TWO, NOTHING, NOTHING, NOTHING)),
    ("nas", "TXT", (ONE, NOTHING, ONE, ONE)),
    ("_gateway", "A", (ONE, NOTHING, NOTHING, NOTHING)),
    ("nas.lan", "A", (ONE, NOTHING, ONE, ONE)),
    ("nas.local", "A", (ONE, NOTHING, ONE, ONE)),
    ("nas.home.arpa", "TXT", (ONE, NOTHING, ONE, ONE)),
    ("9.77.168.192.in-addr.arpa", "PTR", (ONE, NOTHING, NOTHING, NOTHING)),
    ("9.77.168.192.IN-ADDR.ARPA", "PTR", (ONE, NOTHING, NOTHING, NOTHING)),
    ("9.77.168.192.in-addr.arpa", "TXT", (ONE, NOTHING, NOTHING, NOTHING)),
    ("9.0.64.100.in-addr.arpa", "PTR", (ONE, NOTHING, NOTHING, NOTHING)),
    ("7.113.0.203.in-addr.arpa", "PTR", (ONE, NOTHING, NOTHING, NOTHING)),
    (PRIVATE6, "PTR", (ONE, NOTHING, NOTHING, NOTHING)),
]
KNOWN: list[tuple[Question, Answer]] = [
    ((HOST_NAME, "A", "udp"), [FOUND, 1]),
    ((HOST_NAME, "A", "tcp"), [FOUND, 1]),
    (("localhost", "A", "udp"), [FOUND, 1]),
    (("www.localhost", "A", "udp"), [FOUND, 1]),
    (("servers.bind", "CHAOS TXT", "udp"), [NOT_IMPLEMENTED, 0]),  # which the host asks
    (("hosts.example.com", "A", "udp"), [REFUSED, 0]),  # by the host's resolver, as is set here
    (("app.dns.podman", "A", "udp"), [NO_SUCH_NAME, 0]),
]


def reverse(address: str) -> str:
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"


def of_all(*addresses: str) -> list[Question]:
    """Return questions for the names of addresses, each by UDP and by TCP."""
    return [(reverse(a), "PTR", transport) for a in addresses for transport in ("udp", "tcp")]


@contextmanager
def serving(host: Namespace, address: str, *argv: str) -> Iterator[None]:
    """Run a resolver in the namespace of a lab's host, at port 53 of an address there."""
    with host.inside():
        server = subprocess.Popen(argv, env={"PATH": PATH}, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 5
        while host.call(address, 53) != "open":
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.02)
        yield
    finally:
        server.kill()
        server.wait()


def asked(there: Namespace, address: str, questions: list[Question]) -> list[Answer]:
    with there.inside():
        done = subprocess.run(
            (sys.executable, ASK, address, "53"),
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            check=True,
        )
    found: list[Answer] = json.loads(done.stdout)
    return found


def asking(questions: list[Question], address: str) -> str:
    """Return what asks in a guest."""
    script = f"printf %s {quote(json.dumps(questions))} | python3 -c {quote(ASK.read_text())}"
    return f"{script} {address} 53"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Make a lab whose host has a resolver, and libvirt's and Podman's in its place for guests."""
    made = Lab()
    made.host.run("ip address add 192.0.2.53/32 dev lo; ip address add 192.0.2.9/32 dev lo")
    (tmp_path / "upstream").write_text(UPSTREAM)
    (tmp_path / "hosts").write_text("192.0.2.9 hosts.example.com\n")
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    plain: tuple[str, ...] = ("dnsmasq", "--keep-in-foreground", "--pid-file")
    with ExitStack() as servers:
        upstream = (*plain, f"--conf-file={tmp_path}/upstream")
        servers.enter_context(serving(made.host, "192.0.2.53", *upstream))
        for gateway in GATEWAYS.values():  # as they are without the rules
            theirs = [*plain, "--conf-file=/dev/null", f"--listen-address={gateway}"]
            theirs += ["--bind-interfaces", "--user=root", "--server=192.0.2.53", "--no-resolv"]
            theirs += [f"--host-record=box-00000002,{CONTAINER_IN_LAB['ip']}"]
            servers.enter_context(serving(made.host, gateway, *theirs))
        yield made
    made.close()


@contextmanager
def resolvers(lab: Lab, folder: Path, **policy: object) -> Iterator[None]:
    """Load the rules, and run what they redirect to: by what guard starts."""
    from vagrantp_guard.resolver import command  # which older versions have not

    lab.load(**policy)
    bind = f"for file in hosts resolv.conf; do mount --bind {folder}/$file /etc/$file; done"
    with ExitStack() as servers:
        for own in (VM_IN_LAB, CONTAINER_IN_LAB):
            who = admitted({**PLAIN, **own, **policy})
            argv = ["unshare", "--mount", "sh", "-ec", f'{bind}; exec "$@"', "sh"]
            argv += command(who, ON_LINK)
            servers.enter_context(serving(lab.host, str(who.resolver), *argv))
        yield


ALLOWED = [{"network": "192.168.77.9/32", "port": 443, "protocol": "tcp"}]


def test_what_a_guest_learns_is_what_it_may_reach(lab: Lab, tmp_path: Path) -> None:
    questions: list[Question] = [
        (name, kind, transport) for name, kind, _ in TABLE for transport in ("udp", "tcp")
    ]
    others = of_all(CONTAINER_IN_LAB["ip"], VM_IN_LAB["ip"])
    others += [("box-00000002", "A", transport) for transport in ("udp", "tcp")]
    guests = ((lab.vm, GATEWAYS["vm"]), (lab.container, GATEWAYS["container"]))

    def expected(column: int) -> list[Answer]:
        return [[*columns[column]] for _, _, columns in TABLE for _ in ("udp", "tcp")]

    assert asked(lab.host, "192.0.2.53", questions) == expected(0)
    for there, gateway in guests:  # without the rules
        assert asked(there, gateway, questions) == expected(0)
        assert asked(there, gateway, [others[0], others[4]]) == [[FOUND, 1]] * 2
    policies: list[dict[str, object]] = [{}, {"lan_allow": ALLOWED}, {"lan_access": True}]
    for column, policy in enumerate(policies, start=1):
        with resolvers(lab, tmp_path, **policy):
            for there, gateway in guests:
                assert asked(there, gateway, questions) == expected(column), policy
                assert asked(there, gateway, others) == [[NO_SUCH_NAME, 0]] * len(others)
                assert asked(there, gateway, [q for q, _ in KNOWN]) == [a for _, a in KNOWN]


def test_a_firewall_that_drops_lets_them_ask(lab: Lab, tmp_path: Path) -> None:
    lab.host.run("nft -f -", FIREWALL)
    question: list[Question] = [("public.example.com", "A", way) for way in ("udp", "tcp")]
    with resolvers(lab, tmp_path):
        assert asked(lab.vm, GATEWAYS["vm"], question) == [[FOUND, 1]] * 2
        assert asked(lab.container, GATEWAYS["container"], question) == [[FOUND, 1]] * 2


def test_a_container_learns_no_names_of_others(guests: MakeProject) -> None:
    app, other = guests("container"), guests("other-container")
    for each in (app, other):
        done = each.write(CONTAINER).fab("up")
        assert done.returncode == 0, done.stderr
    own, neighbour = status(app), status(other)
    gateway = own["address"].rpartition(".")[0] + ".1"
    questions = of_all(own["address"], neighbour["address"], "10.201.0.2")
    questions += [(neighbour["instance"], "A", transport) for transport in ("udp", "tcp")]
    questions += [(f"{neighbour['instance']}.dns.podman", "A", "udp"), (HOST_NAME, "A", "udp")]
    found = json.loads(guest(app, asking(questions, gateway)))
    assert found == [[NO_SUCH_NAME, 0]] * 9 + [[FOUND, 1]]

    # it comes back, and a container that starts meanwhile waits for it
    run("pkill", "--full", "^dnsmasq .*--listen-address=169.254.77")
    done = app.fab("stop", "--force")
    assert done.returncode == 0, done.stderr
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    assert json.loads(guest(app, asking(questions, gateway))) == found
    assert app.fab("verify").returncode == 0
