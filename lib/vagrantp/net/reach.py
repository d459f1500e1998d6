"""What a guest reaches, tried from inside: services that we offer for a moment, and routers."""

from __future__ import annotations

import re
import shlex
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from vagrantp_guard.contract import HOST_NAME, RESOLVER_NAME

from vagrantp.core.answers import as_json
from vagrantp.core.progress import Check
from vagrantp.core.system import Host
from vagrantp.guest import session
from vagrantp.instance.record import Instance
from vagrantp.net import isolation
from vagrantp.settings.env import Settings

# bash has sockets of its own, so nothing need be installed in a guest. A line of stdin is a number,
# an address and a port that accepts a connection, or does not. A line with colons is a question:
# the response codes that count as open (RFC 1035, 4.1.1: 0, or 3 for a name that does not exist),
# the resolver or nothing for the guest's own choice, what to send with escapes of printf(1).
SCRIPT = r"""
command -v bash >/dev/null || exit 3
exec timeout 20 bash -c '
connect() { exec 3<>"/dev/tcp/$1/$2"; }
resolve() {
    IFS=: read -r codes server question <<< "$1"
    [ "$server" ] || server=$(sed -n "s/^nameserver //p" /etc/resolv.conf | head -n 1)
    exec 3<>"/dev/udp/$server/53" || return
    printf "$question" | dd ibs=1 obs=512 >&3  # in one piece: printf writes line by line
    code=$(head -c 4 <&3 | od -An -tx1)
    [[ $code == *["$codes"] ]]
}
export -f connect resolve
while read -r number what; do
    case $what in *" "*) set -- 4 connect $what ;; *) set -- 15 resolve "$what" ;; esac
    {
        timeout $1 bash -c "\"\$@\"" bash "${@:2}" 2>/dev/null && end=open || end=closed
        echo "$number $end"
    } &
done
wait
'"""
DNS = 53
LAN_PORTS = (DNS, 80, 443)  # what a router has


@dataclass(frozen=True)
class Probe:
    """What to try from a guest: a connection to `port` of `address`, or a `question` to DNS.

    Before the question stand the codes that count as open and the resolver, each with a colon.
    """

    name: str  # of the promise, which may have several probes
    is_open: bool  # as promised
    address: str = ""
    port: int = 0
    question: str = ""


def checks(
    host: Host, instance: Instance, settings: Settings, pid: str, own: list[str]
) -> list[Check]:
    """Try from a running guest what it must reach and must not.

    `pid`: of its QEMU or first process; `own`: its addresses.
    """
    with ExitStack() as services:
        probes = [*_probes(host, instance, settings, own, services)]
        lines = [
            f"{number} {p.question if p.question else f'{p.address} {p.port}'}\n"
            for number, p in enumerate(probes)
        ]
        script = f"printf %s {shlex.quote(''.join(lines))} | ({SCRIPT})"
        answer = session.run(host, instance, pid, script)
    if answer.return_code == 3:
        return [Check("reach", "tried from inside", "the guest has no bash", "not enforced")]
    ends = dict(re.findall(r"^(\d+) (open|closed)$", answer.stdout, re.ASCII | re.MULTILINE))
    found: dict[str, Check] = {}
    for number, probe in enumerate(probes):
        promised, end = "open" if probe.is_open else "closed", ends.get(str(number), "not tried")
        where = f" ({probe.address} port {probe.port})" if probe.port else ""
        if end != promised:
            found[probe.name] = Check(probe.name, promised, f"{end}{where}", "FAILED")
        found.setdefault(probe.name, Check(probe.name, promised, promised, "ok"))
    return [*found.values()]


def _probes(
    host: Host, instance: Instance, settings: Settings, own: list[str], services: ExitStack
) -> Iterator[Probe]:
    """Yield what to try, with services on this host that end with `services`."""
    links = as_json("ip", host.answer(["ip", "-json", "address"]), list)
    addresses = [a["local"] for link in links for a in link["addr_info"] if a["scope"] == "global"]
    of_host = [address for address in addresses if address not in own]  # pasta gives the host's own
    port = services.enter_context(_service(0))
    lan = instance.lan
    bridges = [link for link in links if lan and link["ifname"] == lan.bridge]
    on_lan = [a["local"] for link in bridges for a in link["addr_info"]]
    for address in of_host:
        if settings.lan_access and address in on_lan and ":" not in address:
            continue  # there this host is a machine on the LAN
        kind = "this host by IPv6" if ":" in address else "this host"
        yield Probe(kind, is_open=False, address=address, port=port)
    if not settings.lan_access:
        routes = as_json("ip", host.answer(["ip", "-4", "-json", "route", "show", "default"]), list)
        for router in dict.fromkeys(route["gateway"] for route in routes if "gateway" in route):
            for number in LAN_PORTS:
                if number == DNS and lan and IPv4Address(router) in lan.resolvers:
                    continue
                yield Probe("router of the LAN", is_open=False, address=router, port=number)
    # what the resolvers of our networks know by themselves
    yield Probe("resolver", is_open=True, question=f"03::{_question(HOST_NAME)}")
    if not isolation.is_rootless(instance.infra_type):
        gateway = instance.machine()["provider"]["address"].rpartition(".")[0] + ".1"
        answer = f"0:{gateway}:{_question(RESOLVER_NAME)}"
        yield Probe("resolver of its own", is_open=True, question=answer)
    for rule in settings.lan_allow:
        if rule.network is None and rule.protocol == "tcp" and rule.port:
            services.enter_context(_service(rule.port))
            for address in [a for a in of_host if ":" not in a][:1]:
                yield Probe(f"LAN_ALLOW {rule}", is_open=True, address=address, port=rule.port)


@contextmanager
def _service(port: int) -> Iterator[int]:
    """Accept connections at a port of this host (0: any free one), unless somebody else does."""
    try:
        server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError:
        yield port
        return

    def accept() -> None:
        with suppress(OSError):  # closed
            while True:
                server.accept()[0].close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


def _question(name: str) -> str:
    """Return a question for the address of `name`, as escapes of printf(1) (RFC 1035, 4.1)."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    message = b"vp\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"
    return "".join(f"\\{byte:03o}" for byte in message)
