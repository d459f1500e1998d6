"""The resolvers of guests: a dnsmasq(8) for each, which asks those of the host.

Podman's and libvirt's own tell each guest the names of all others on the network, and what the LAN
is like. The rules redirect to these what a guest asks at its gateway. One for each, as each guest
may reach something else; so none learns from the cache what another asked, and none can keep
another's busy.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, collapse_addresses
from pathlib import Path
from typing import NamedTuple

from vagrantp_guard.contract import (
    HOST_NAME,
    PRIVATE,
    RESOLVER_NAME,
    RESOLVERS,
    RUN,
    Guest,
    Policy,
)
from vagrantp_guard.guests import guests
from vagrantp_guard.system import PATH, read, run, until_none

NOBODY = 65534  # by number, as the name of its group differs between distributions
MEMORY = 64 << 20  # bytes of address space; it takes a fifth of that
PORT = 53  # what firewalls let guests call: libvirt's rules, Podman's, zones of firewalld
CAPABILITIES = "-all,+net_bind_service"
CONFINED = (
    *("prlimit", f"--as={MEMORY}", "--core=0"),
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig=TERM"),
    *(f"--{which}={CAPABILITIES}" for which in ("inh-caps", "ambient-caps", "bounding-set")),
)
DNSMASQ = (
    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file"),
    *(f"--port={PORT}", "--bind-interfaces", "--cache-size=1000"),
    *("--no-hosts", "--no-ident"),  # the latter would name the host's resolvers
    "--local=/dns.podman/",  # which containers append to each name that does not exist
    "--address=/localhost/127.0.0.1",
    # Guests have no IPv6, and a hint in HTTPS or SVCB is an address that nobody compares.
    *("--bogus-priv", "--domain-needed", "--filter-AAAA", "--filter-rr=ANY,HTTPS,SVCB"),
)
# Of networks at home and at work: RFC 6762 (appendix G), RFC 8375, `localdomain` of many routers.
# "": a name without a dot.
LOCAL = (
    *("", "local", "home.arpa", "localdomain"),
    *("intranet", "internal", "private", "corp", "home", "lan"),
)
LOOPBACK = IPv4Network("127.0.0.0/8")  # the guest's own
# In the second column: address and port; in the fourth the state, in the eighth the user, proc(5).
SOCKETS = (Path("/proc/net/udp"), Path("/proc/net/tcp"))
RECEIVING = ("07", "0A")  # a socket of UDP without a peer; one of TCP that listens
SECONDS = 3.0  # until it must run, with the time to start the watcher


def command(guest: Guest, on_link: Iterable[IPv4Network]) -> tuple[str, ...]:
    """Return what runs the resolver of a guest. Pure.

    `on_link`: the networks that the host is directly on. No guest learns who has an address of
    theirs, or a private one. One that may reach none of them learns no name of the LAN.
    """
    policy, networks = guest.policy, [*on_link]
    sees_lan = policy.lan_access or any(rule.network for rule in policy.lan_allow)
    return (
        *CONFINED,
        *DNSMASQ,
        f"--listen-address={guest.resolver}",
        f"--interface-name={HOST_NAME},{guest.nic.bridge}/4",
        f"--host-record={RESOLVER_NAME},{guest.resolver}",
        *(f"--rev-server={network}" for network in _not_internet(networks)),
        *(f"--bogus-nxdomain={network}" for network in withheld(policy, networks)),
        *(f"--local=/{suffix}/" for suffix in LOCAL if not sees_lan),
    )


def withheld(policy: Policy, on_link: Iterable[IPv4Network]) -> list[IPv4Network]:
    """Return the networks of which a guest learns no address: those that it may not reach. Pure."""
    if policy.lan_access:
        return []
    found = [network for network in _not_internet(on_link) if network != LOOPBACK]
    for rule in policy.lan_allow:
        if isinstance(rule.network, IPv4Network):
            found = [part for network in found for part in _without(network, rule.network)]
    return sorted(found)


def _not_internet(on_link: Iterable[IPv4Network]) -> list[IPv4Network]:
    return [*collapse_addresses([*map(IPv4Network, PRIVATE), *on_link])]


def _without(network: IPv4Network, allowed: IPv4Network) -> list[IPv4Network]:
    if not network.overlaps(allowed):
        return [network]
    return [] if network.subnet_of(allowed) else [*network.address_exclude(allowed)]


class Process(NamedTuple):
    """A resolver that runs. `pidfd` can be read when it has ended."""

    popen: subprocess.Popen[bytes]
    pidfd: int


class Resolvers:
    """The processes of dnsmasq, children of the watcher. `poll` reports the end of each."""

    def __init__(self, poll: select.poll) -> None:
        self.poll = poll
        self.running: dict[tuple[str, ...], Process] = {}

    def keep(self) -> None:
        """Start those that guests need and that do not run; end those that none needs.

        Raises Refused where ip(8) does not run, ValueError for an invalid record.
        """
        on_link = [IPv4Interface(text).network for text in read(RUN / "networks").split()]
        wanted = {command(guest, on_link): guest.resolver for guest in guests()}
        for argv in self.running.keys() - wanted.keys():
            self._end(argv)
        _hold({*wanted.values()})
        null = subprocess.DEVNULL
        for argv in wanted.keys() - self.running.keys():
            with suppress(OSError):  # `check` says that there is none
                made = subprocess.Popen(
                    argv, env={"PATH": PATH}, stdin=null, stdout=null, stderr=null
                )
                self.running[argv] = Process(made, os.pidfd_open(made.pid))
                self.poll.register(self.running[argv].pidfd, select.POLLIN)

    def forget(self, ended: Iterable[int]) -> bool:
        """Forget those that have ended, by what `poll` returned; say whether any has."""
        over = [argv for argv, process in self.running.items() if process.pidfd in {*ended}]
        for argv in over:
            self._end(argv)
        return bool(over)

    def _end(self, argv: tuple[str, ...]) -> None:
        process = self.running.pop(argv)
        self.poll.unregister(process.pidfd)
        os.close(process.pidfd)
        process.popen.terminate()  # which its children for connections of TCP end by, too
        try:
            process.popen.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()


def release() -> None:
    """Remove the addresses of all resolvers. Raises Refused where ip(8) does not run."""
    _hold(set())


def _hold(wanted: set[IPv4Address]) -> None:
    """Have these addresses of resolvers on this host, and no others."""
    listed = json.loads(
        run("ip", "-4", "-json", "address", "show", "dev", "lo", check=False) or "[]"
    )
    own = [IPv4Address(a["local"]) for link in listed for a in link["addr_info"]]
    held = {address for address in own if address in RESOLVERS}
    for verb, addresses in (("delete", held - wanted), ("add", wanted - held)):
        for address in addresses:
            scope = ("scope", "host") if verb == "add" else ()
            run("ip", "address", verb, f"{address}/32", "dev", "lo", *scope, check=False)


def missing() -> list[str]:
    """Return the guests whose resolver does not run. Raises ValueError for an invalid record.

    It is not asked: its guest can keep it busy, and others would seem to be in trouble.
    """
    udp, tcp = (opened(path.read_text(encoding="ascii")) for path in SOCKETS)
    return [guest.name for guest in guests() if _as_listed(guest.resolver) not in udp & tcp]


def opened(table: str) -> set[str]:
    """Return the addresses at which NOBODY receives, by a table of sockets. Pure.

    What others have taken does not count.
    """
    rows = [line.split() for line in table.splitlines()]
    return {row[1] for row in rows if row[7] == str(NOBODY) and row[3] in RECEIVING}


def _as_listed(address: IPv4Address) -> str:
    number = int.from_bytes(socket.inet_aton(str(address)), sys.byteorder)
    return f"{number:08X}:{PORT:04X}"


def wait(name: str = "") -> bool:
    """Wait until a guest's resolver runs, or each; return False if it does not in time."""
    return until_none(missing, name, SECONDS)
