"""Other firewalls of this host: guests get through them, and no further than before. See lab.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from vagrantp_guard import forwarding

from tests.attacks.lab import CONTAINER, ON_LAN, VM, Lab, Namespace
from tests.attacks.test_packets import DNAT, ON_THE_BRIDGE, on_a_bridge
from tests.attacks.test_watcher import answers

INTERNET = ("198.51.100.9", 80)
CLOSED = [("192.168.77.9", 80), ("172.17.0.2", 80), ("192.168.77.1", 22), ("10.201.0.1", 22)]
# As Docker 26 writes them.
DOCKER = """\
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


def reached(there: Namespace) -> list[tuple[str, int]]:
    others = [(guest["ip"], 22) for guest in (VM, CONTAINER)]
    return [way for way in (INTERNET, *CLOSED, *others) if there.call(*way) == "open"]


def test_a_policy_to_drop_is_not_for_guests_and_opens_nothing_else(lab: Lab) -> None:
    lab.host.run("nft -f -", DNAT)
    lab.host.run("iptables-restore", DOCKER)
    lab.load()
    own = {lab.vm: (VM["ip"], 22), lab.container: (CONTAINER["ip"], 22)}
    with ExitStack() as services:
        for there in (lab.internet, lab.lan, lab.docker):
            services.enter_context(there.listen(80))
        for there in (lab.host, lab.vm, lab.container):
            services.enter_context(there.listen(22))
        for there, itself in own.items():
            assert reached(there) == [itself]
        with lab.host.inside():
            forwarding.keep()
        for there, itself in own.items():
            assert reached(there) == [INTERNET, itself]
            assert lab.lan.call(*itself) != "open"
        lab.host.run("iptables -I DOCKER-USER -i vagrantp0 -d 198.51.100.9 -j DROP")
        assert reached(lab.vm) == [own[lab.vm]]  # what a person has closed
        with lab.host.inside():
            forwarding.release()
        assert reached(lab.container) == [own[lab.container]]
    assert "vagrantp -j" not in lab.host.run("iptables -S FORWARD")


@pytest.mark.skipif(not forwarding.BR_NETFILTER.exists(), reason="needs br_netfilter")
def test_nor_is_it_for_guests_on_a_bridge(lab: Lab) -> None:
    there, peer = on_a_bridge(lab)
    lab.host.run(f"echo 1 > {forwarding.BR_NETFILTER}; iptables -P FORWARD DROP")
    lab.load(**ON_THE_BRIDGE)
    with peer.listen(80), there.listen(80):
        ways = ((there, f"{ON_LAN}.9"), (peer, f"{ON_LAN}.50"))
        assert [guest.call(address, 80) == "open" for guest, address in ways] == [False, False]
        with lab.host.inside():
            forwarding.keep()
        assert [guest.call(address, 80) == "open" for guest, address in ways] == [True, True]


KEPT = """
ip link add vagrantp1 type bridge && ip address add 10.201.128.1/24 dev vagrantp1
ip link set vagrantp1 up
unshare --net sleep 60 & router=$!
while [ "$(readlink /proc/$router/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
ip link add out type veth peer name eth0 netns $router
ip address add 198.18.77.1/30 dev out && ip link set out up
nsenter --target=$router --net sh -c 'ip address add 198.18.77.2/30 dev eth0; ip link set eth0 up'
ip route add default via 198.18.77.2
echo 1 > /proc/sys/net/ipv4/ip_forward
accepts() { iptables -S FORWARD | grep -c "comment vagrantp -j ACCEPT" || true; }

guard load
ip address add 192.0.2.2/24 dev out # for examples, and in use here
guard try
mkdir -p /run/vagrantp/guests && echo "$record" > /run/vagrantp/guests/box-00000002.json
guard load # and there is a process that watches
accepts
iptables -P FORWARD DROP
while [ "$(accepts)" -lt 4 ]; do sleep 0.05; done
guard try
iptables -F FORWARD && iptables -A FORWARD -i out -o lo -j DROP
while [ "$(accepts)" -lt 4 ]; do sleep 0.05; done
iptables -S FORWARD | sed -n 2p | grep -q -- '-i out' # a new rule of others comes first
guard try
iptables -I FORWARD -j REJECT && guard try && iptables -D FORWARD -j REJECT
iptables -P INPUT DROP && guard try
guard unload
accepts
ip -json link | grep -c '"veth' || true
"""


def test_they_are_kept_and_tried_with_packets() -> None:
    open_, no_internet, no_dns = ({"vagrantp1": closed} for closed in ([], ["internet"], ["DNS"]))
    assert answers(KEPT) == [open_, 0, open_, open_, no_internet, no_dns, 0, 0]
