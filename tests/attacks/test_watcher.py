"""The process that watches, and the resolver that it starts: in namespaces of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.conftest import MASTER

RECORD = {"name": "box-00000002", "bridge": "vagrantp1", "port": "veth2", "pid": 1}
RECORD |= {"mac": "52:54:00:00:00:02", "ip": "10.201.128.5", "lan_access": False, "lan_allow": []}
ISOLATION = {"lan_access": False, "lan_allow": []}
GUARD = f"""
import sys
sys.path.insert(0, {str(MASTER / "lib")!r})
from vagrantp_guard.cli import main
sys.exit(main(sys.argv[1:]))
"""
# Has a connection to the resolver, and goes on in the background.
CONNECT = """
import os, socket, time
link = socket.create_connection(("169.254.77.5", 53))
time.sleep(0.2)
if not os.fork():
    time.sleep(60)
"""
BEGIN = """
mount -t tmpfs none /run
ip link set lo up
guard() { "$python" -ISc "$program" "$@"; }
"""
HOST = """
mkdir /run/own /run/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/own,workdir=/run/work none /etc
mkdir -p /etc/libvirt/hooks/qemu.d /etc/containers/oci/hooks.d
touch /etc/libvirt/hooks/qemu.d/vagrantp /etc/containers/oci/hooks.d/vagrantp.json
ip link add vagrantp1 type bridge && ip address add 10.201.128.1/24 dev vagrantp1
ip link set vagrantp1 up
ip link add veth2 type veth peer name eth2 && ip link set veth2 master vagrantp1 up
is_up() { ip link show veth2 | grep -q '[<,]UP[,>]'; }
watcher() { cat /run/vagrantp/watch.lock; }
is_held() { nft list table inet vagrantp_held > /dev/null 2>&1; }
never() { if "$@" > /dev/null 2>&1; then exit 1; fi; }
resolver() { pidof dnsmasq || true; }
mkdir -p "/run/vagrantp/guests"
echo "$record" > "/run/vagrantp/guests/box-00000002.json"

guard load # and wait for the resolver
guard check
ip address show dev lo | grep -q 169.254.77.5/32
first=$(resolver)
kill -KILL $first
guard check || true
while [ -z "$(resolver)" ] || [ "$(resolver)" = $first ]; do sleep 0.05; done
ip address flush dev lo scope host label lo to 169.254.0.0/16
until ip address show dev lo | grep -q 169.254.77.5/32; do sleep 0.05; done
nft flush ruleset
is_held # and nobody can remove it
never nft delete table inet vagrantp_held
while ! nft list table inet vagrantp > /dev/null 2>&1; do sleep 0.05; done
guard load
guard check

"$python" -c "$connect" && before=$(resolver) # with a process for a connection by TCP
on_link() { nft list set inet vagrantp on_link | grep -q "$1"; }
ip link add club type bridge && ip link set club up
ip address add 192.0.2.1/24 dev club
until on_link 192.0.2.0/24; do sleep 0.05; done
for pid in $before; do while grep -qs . /proc/$pid/cmdline; do sleep 0.05; done; done
ip route add 198.51.100.0/24 dev club
until on_link 198.51.100.0/24; do sleep 0.05; done
ip link delete club
while on_link 192.0.2.0/24 || on_link 198.51.100.0/24; do sleep 0.05; done
guard check

watcher=$(cat /run/vagrantp/watch.lock) nft=$(command -v nft)
kill -STOP $watcher && nft flush ruleset
mount --bind /bin/false $nft && kill -CONT $watcher
while is_up; do sleep 0.05; done
guard check || true
until umount $nft 2> /dev/null; do sleep 0.05; done # the watcher may be running it
until guard check > /dev/null; do sleep 0.05; done
is_up

kill -KILL $watcher # another one stands by
while [ "$(watcher)" = $watcher ]; do sleep 0.05; done
guard check # waits for the second wall
until is_held && [ "$(resolver)" ]; do sleep 0.05; done
watcher=$(watcher)
until standby=$(pgrep --parent $watcher --oldest python) && [ $standby ]; do sleep 0.05; done
kill -KILL $standby
until [ "$(pgrep --parent $watcher --oldest python)" != $standby ]; do sleep 0.05; done
until pgrep --parent $watcher --oldest python > /dev/null; do sleep 0.05; done

kill -TERM $watcher # and the one that stands by
while [ "$(resolver)" ]; do sleep 0.05; done
guard check || true
never is_held
guard load
guard check
rm "/run/vagrantp/guests/box-00000002.json"
guard load
while [ "$(resolver)" ]; do sleep 0.05; done
while ip address show dev lo | grep -q 169.254; do sleep 0.05; done
while is_held; do sleep 0.05; done
guard check

echo "$record" > "/run/vagrantp/guests/box-00000002.json"
guard load
guard unload
never is_held
never pgrep --full "$python -ISc"
[ ! -e /run/vagrantp ]
"""


# A user's container: its first process, in a network namespace of its own, and its state folder.
INSIDE = """
mkdir /run/state && echo "$isolation" > /run/state/isolation.json
unshare --net sleep 60 & pid=$!
while [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
inside() { nsenter --target=$pid --net nft "$@"; }
closed() { inside list set inet vagrantp "$1" | grep -q "$2"; }
ip link add club type bridge && ip link set club up

guard inside load $pid /run/state
ip address add 192.0.2.1/24 dev club
until closed host 192.0.2.1 && closed on_link 192.0.2.0/24; do sleep 0.05; done
guard inside check $pid /run/state
inside flush ruleset
guard inside check $pid /run/state || true
ip route add 198.51.100.0/24 dev club
until closed on_link 198.51.100.0/24; do sleep 0.05; done
guard inside check $pid /run/state
kill $pid
"""


def problems(script: str) -> list[list[str]]:
    """Run a script of sh(1) in namespaces; return the problems that each `guard check` found."""
    return [answer["problems"] for answer in answers(script)]


def answers(script: str) -> list[Any]:
    """Run a script of sh(1) in namespaces; return what it prints, a JSON document a line."""
    own = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    names = {"python": sys.executable, "program": GUARD, "record": json.dumps(RECORD)}
    names["connect"] = CONNECT
    done = subprocess.run(
        (*own, "timeout", "120", "sh", "-euc", BEGIN + script),
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            **names,
            "isolation": json.dumps(ISOLATION),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [*map(json.loads, done.stdout.splitlines())]


def test_the_watcher_keeps_rules_resolver_and_networks() -> None:
    silent, gone = (
        ["no resolver runs for box-00000002"],
        [
            "the rules are gone: something has flushed nftables",
            "guests have no network, as rules cannot be loaded: nft: it failed",
        ],
    )
    unwatched = ["nothing is at work that would put lost rules back"]
    assert problems(HOST) == [[], silent, [], [], gone, [], unwatched, [], []]


def test_the_rules_of_a_users_container_are_kept_up_to_date() -> None:
    """And put back, by the next look at the latest, of which a changed network makes one."""
    assert problems(INSIDE) == [[], [], ["it has no rules"], []]
