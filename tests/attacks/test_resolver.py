"""What a container learns of others from the resolver at its gateway: nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from shlex import quote

import pytest

from tests.attacks.lab import CONTAINER as CONTAINER_IN_LAB
from tests.attacks.lab import Lab, Namespace
from tests.conftest import CONTAINER, MakeProject
from tests.e2e.conftest import guest, run, status
from tests.network import HERE

ASK = HERE / "ask.py"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
HOST_NAME, RESOLVER_PORT = "host.containers.internal", 53053
FOUND, NO_SUCH_NAME = 0, 3  # response codes: RFC 1035, 4.1.1
Question = tuple[str, str, str]


def reverse(address: str) -> str:
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"


def of_all(*addresses: str) -> list[Question]:
    """Return questions for the names of addresses, each by UDP and by TCP."""
    return [(reverse(a), "PTR", transport) for a in addresses for transport in ("udp", "tcp")]


@contextmanager
def serving(host: Namespace, *argv: str) -> Iterator[None]:
    """Run a resolver in the namespace of a lab's host."""
    with host.inside():
        server = subprocess.Popen(argv, env={"PATH": PATH}, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.kill()
        server.wait()


def asked(there: Namespace, address: str, port: int, questions: list[Question]) -> object:
    with there.inside():
        done = subprocess.run(
            (sys.executable, ASK, address, str(port)),
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(done.stdout)


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


def test_questions_of_containers_get_to_the_resolver_of_ours(lab: Lab) -> None:
    from vagrantp_guard.resolver import DNSMASQ  # which older versions have not

    own, other = CONTAINER_IN_LAB["ip"], "10.201.128.7"
    questions = of_all(own, other)
    questions += [("app-00000001", "A", "udp"), ("app-00000001.dns.podman", "A", "tcp")]
    plain: list[Question] = [(HOST_NAME, "A", "udp"), (HOST_NAME, "A", "tcp")]
    names = [f"--host-record=box-00000002,{own}"]
    names += [f"--host-record=app-00000001,app-00000001.dns.podman,{other}"]
    theirs: tuple[str, ...] = (
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file",
    )
    theirs += ("--user=root", "--no-resolv", "--no-hosts", "--bind-interfaces", *names)
    gateway, far = "10.201.128.1", "10.201.0.1"
    ours = ("timeout", "60", *DNSMASQ)
    with serving(lab.host, *theirs), serving(lab.host, *ours):
        deadline = time.monotonic() + 5
        while lab.host.call(gateway, RESOLVER_PORT) != "open" or lab.host.call(far, 53) != "open":
            assert time.monotonic() < deadline
        assert asked(lab.container, gateway, 53, questions) == [[FOUND, 1]] * 6  # as without rules
        lab.load()
        assert asked(lab.container, gateway, 53, questions) == [[NO_SUCH_NAME, 0]] * 6
        assert asked(lab.container, gateway, 53, plain) == [[FOUND, 1]] * 2
        # VMs have libvirt's, at its own port
        assert asked(lab.vm, far, 53, questions) == [[FOUND, 1]] * 6
        # it is there at the gateway's port 53 only
        closed = [["OSError"], ["ConnectionRefusedError"]]  # as the rules refuse either
        for address in (gateway, far, "192.168.77.1"):
            assert asked(lab.container, address, RESOLVER_PORT, plain) == closed
            assert asked(lab.vm, address, RESOLVER_PORT, plain) == closed
        assert asked(lab.container, "192.168.77.1", 53, plain) == closed
        assert asked(lab.container, far, 53, plain) == closed


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
    script = f"printf %s {quote(json.dumps(questions))} | python3 -c {quote(ASK.read_text())}"
    found = json.loads(guest(app, f"{script} {gateway} 53"))
    assert found == [[NO_SUCH_NAME, 0]] * 9 + [[FOUND, 1]]

    # it comes back, and a container that starts meanwhile waits for it
    run("pkill", "--full", f"^dnsmasq .*--port={RESOLVER_PORT} ")
    done = app.fab("stop", "--force")
    assert done.returncode == 0, done.stderr
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    assert json.loads(guest(app, f"{script} {gateway} 53")) == found
    assert app.fab("verify").returncode == 0
