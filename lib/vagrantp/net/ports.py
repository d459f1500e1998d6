"""PORTS: which port of the host leads where, and the process that carries what goes through."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import socket
import sys
from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from vagrantp_guard.contract import FORWARD

from vagrantp.core.answers import as_json
from vagrantp.core.errors import ConflictError, ProviderError
from vagrantp.core.locks import holder_of
from vagrantp.core.places import state_root
from vagrantp.core.progress import Check
from vagrantp.core.system import Host
from vagrantp.guest import session
from vagrantp.instance import network, ssh
from vagrantp.instance.record import Instance, machines
from vagrantp.net.isolation import is_rootless
from vagrantp.settings.env import Settings
from vagrantp.settings.forwards import PortForward

# For `auto`: below what Linux gives to outgoing connections (ip_local_port_range, from 32768 on).
AUTO = range(20000, 32768)
FIRST_FREE = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
ECHO_SECONDS = 15
ASK_SECONDS = 5
# Of the kernel's proc_net_tcp.rst: number, local address and port, the other end's, state.
SOCKETS = ("tcp", "tcp6", "udp", "udp6")
SOCKET = re.compile(
    r"^(tcp|udp)6?: *\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ ([0-9A-F]{2}) ", re.MULTILINE
)
LISTENS = "0A"  # of tcp
# 127/8 and ::1, as words of a little-endian processor
ON_LOOPBACK = re.compile(r"(0{16}FFFF0000)?[0-9A-F]{6}7F|0{24}01000000")
# In the guest: sends a word to the first client.
ECHO = """
import socket, sys
port, kind, word = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("", port))
    if kind == "tcp":
        server.listen()
        server.accept()[0].sendall(word)
    else:
        server.sendto(word, server.recvfrom(100)[1])
"""

# address, host, guest, protocol, as forward.py reads them; auto: we chose `host`
Forward = dict[str, Any]


def shown(forward: Forward) -> str:
    """Return a forward in readable form."""
    udp = "/udp" if forward["protocol"] == "udp" else ""
    return f"{_end(forward)} -> {forward['guest']}{udp}"


def _end(forward: Forward) -> str:
    address = forward["address"]
    return f"{f'[{address}]' if ':' in address else address}:{forward['host']}"


def settle(host: Host, instance: Instance, settings: Settings) -> list[Forward]:
    """Return the forwards of `settings`, each with a port of the host that is free for it.

    The instance keeps those that it has. Raises ConflictError, which says who holds a port.
    """
    had = forwards(instance)
    serving = [(f["host"], f["protocol"]) for f in had] if is_served(instance) else []
    given = [(wanted.host, wanted.protocol) for wanted in settings.ports]
    settled: list[Forward] = []
    for wanted in settings.ports:
        forward: Forward = {
            "address": str(wanted.address),
            "host": wanted.host,
            "guest": wanted.guest,
            "protocol": wanted.protocol,
            "auto": wanted.host is None,
        }
        if wanted.host is None:
            kept = [f["host"] for f in had if {**f, "host": None} == forward]
            forward["host"] = kept[0] if kept else _free(instance, forward, given)
            given.append((forward["host"], wanted.protocol))
        if (forward["host"], wanted.protocol) not in serving:
            _refuse_taken(host, forward)
        settled.append(forward)
    return settled


def _free(instance: Instance, forward: Forward, given: Collection[tuple[int | None, str]]) -> int:
    """Return a free port of the host, the same for the same project as long as it is free.

    `given`: ports that this project's other forwards have, with their protocols.
    """
    start: int = int(instance.id, 16) + forward["guest"]
    for step in range(len(AUTO)):
        port: int = AUTO[(start + step) % len(AUTO)]
        is_given = (port, forward["protocol"]) in given
        if not is_given and not _why_not({**forward, "host": port}):
            return port
    raise ConflictError(f"no port from {AUTO[0]} to {AUTO[-1]} is free on {forward['address']}")


def _why_not(forward: Forward) -> OSError | None:
    """Return why a port cannot be had now, None when it can."""
    address = forward["address"]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    is_udp = forward["protocol"] == "udp"
    with socket.socket(family, socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM) as trial:
        if family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if not is_udp:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, forward["host"]))
            if not is_udp:
                trial.listen()
        except OSError as error:
            return error
    return None


def _refuse_taken(host: Host, forward: Forward) -> None:
    error = _why_not(forward)
    if error is None:
        return
    port, place = forward["host"], f"port {_end(forward)}/{forward['protocol']} of PORTS"
    if isinstance(error, PermissionError):
        first = FIRST_FREE.read_text().strip()
        setting = f"net.ipv4.{FIRST_FREE.name}={port}"
        hint = f"take one from {first} on, or: sudo sysctl --write {setting}"
        raise ConflictError(f"{place} is not for ordinary users", hint)
    if holder := _holder(host, forward):
        raise ConflictError(f"{place} is taken by {holder}", "take another one, or auto:GUEST")
    links = as_json("ip", host.answer(["ip", "-json", "address"]), list)
    own = [a["local"] for link in links for a in link["addr_info"]]
    raise ConflictError(
        f"{place} cannot be had: {error.strerror}", f"this host is {', '.join(own)}"
    )


def _holder(host: Host, forward: Forward) -> str:
    """Return who listens on a port: one of this user's projects, or a process; "" for nobody."""
    kind = "--udp" if forward["protocol"] == "udp" else "--tcp"
    query = ["ss", "--no-header", "--listening", "--numeric", "--processes", kind]
    listing = host.ask([*query, f"sport = :{forward['host']}"]).stdout
    pids = set(map(int, re.findall(r"pid=(\d+)", listing)))
    for name, machine in machines().items():
        if holder_of(state_root() / name / "forwards.lock") in pids:
            return f"{name}, the project in {machine.get('folder')}"
    names = re.findall(r'\("([^"]+)",pid=(\d+)', listing)
    if names:
        return f"{names[0][0]} (process {names[0][1]})"
    return "a process of another user" if listing.strip() else ""


def write(host: Host, instance: Instance, made: dict[str, Any]) -> None:
    """Write down what is to be forwarded, for whatever starts the instance."""
    is_inside = is_rootless(instance.infra_type)
    by_ssh = ["setpriv", "--pdeathsig=KILL", *ssh.kept_ssh(instance, "{pid}")]
    spec = {
        "target": network.LOOPBACK if is_inside else made["address"],
        "pid": 0,  # of the guest: known once it runs
        "netns": None,
        "ssh": by_ssh if instance.infra_type == "vm" else None,
        "forwards": made["forwards"],
    }
    host.write(instance.forwards, json.dumps(spec))


def is_served(instance: Instance) -> bool:
    """Say whether the forwards of an instance are carried now."""
    return _carrier(instance) is not None


def end(host: Host, instance: Instance) -> None:
    """End the process that carries the forwards, if there is one."""
    if carrier := _carrier(instance):
        host.end(carrier)


def _carrier(instance: Instance) -> int | None:
    """Return the process that carries the forwards, None when there is none."""
    return holder_of(instance.forwards.with_name("forwards.lock"))


def ensure(host: Host, instance: Instance, pid: str, restart: bool = False) -> None:
    """Start carrying the forwards of a running instance, unless that is done already.

    `pid`: of its first process, or QEMU's; `restart`: in any case, as they are written now. Raises
    ProviderError where one cannot be carried.
    """
    if restart:
        end(host, instance)
    if not forwards(instance) or is_served(instance):
        return
    argv = [sys.executable, "-IS", str(FORWARD), str(instance.forwards), "--pid", pid]
    if instance.infra_type == "container":
        argv += ["--netns", f"/proc/{pid}/ns/net"]
    if is_rootless(instance.infra_type):
        argv = ["podman", "unshare", *argv]
    host.change(argv, what="forwarding ports", timeout=30)


def forwards(instance: Instance) -> list[Forward]:
    """Return the forwards that an instance has."""
    found: list[Forward] = instance.machine().get("provider", {}).get("forwards", [])
    return found


def checks(host: Host, instance: Instance, settings: Settings, pid: str) -> list[Check]:
    """Return whether each port leads to the guest; if nothing listens in it, we do for a moment.

    `pid`: of the guest's QEMU or first process.
    """
    if not settings.ports:
        return []
    sockets = listeners(_sockets(host, instance, pid))
    had = {_written(forward): forward for forward in forwards(instance)}
    return [_check(host, instance, str(p), had.get(str(p)), sockets, pid) for p in settings.ports]


def why_silent(host: Host, instance: Instance, pid: str) -> list[str]:
    """Return for each forward of a running instance why nothing in the guest answers there.

    "" where something does, or the guest cannot be asked. `pid`: as of `checks`.
    """
    had, is_inside = forwards(instance), is_rootless(instance.infra_type)
    if not had or not (text := _sockets(host, instance, pid)):
        return [""] * len(had)
    return [_why_silent(forward, listeners(text), is_inside) for forward in had]


def _sockets(host: Host, instance: Instance, pid: str) -> str:
    """Return the sockets of a running guest, "" where it cannot be asked."""
    if instance.infra_type == "container":
        with suppress(OSError):
            return "\n".join(
                f"{name}:{line}"
                for name in SOCKETS
                for line in Path(f"/proc/{pid}/net/{name}").read_text("ascii").splitlines()
            )
        return ""
    script = f"cd /proc/net; grep -sH . {' '.join(SOCKETS)}"
    with suppress(ProviderError):
        return session.run(host, instance, pid, script, timeout=ASK_SECONDS).stdout
    return ""


def listeners(sockets: str) -> dict[tuple[str, int], bool]:
    """Return what listens, by protocol and port, and whether on the loopback only.

    `sockets`: lines of /proc/net/tcp, tcp6, udp and udp6, each after the name of its file.
    """
    found: dict[tuple[str, int], bool] = {}
    for kind, address, port, state in SOCKET.findall(sockets):
        if kind == "udp" or state == LISTENS:
            key = (kind, int(port, 16))
            found[key] = found.get(key, True) and bool(ON_LOOPBACK.fullmatch(address))
    return found


def _why_silent(forward: Forward, sockets: dict[tuple[str, int], bool], is_inside: bool) -> str:
    """Return why nothing answers at a forward, "" where something does.

    `is_inside`: whether udp goes to the guest's loopback, as in a user's container.
    """
    kind, port = forward["protocol"], forward["guest"]
    if (kind, port) not in sockets:
        return f"nothing listens on port {port}{'/udp' if kind == 'udp' else ''} in the guest"
    if kind == "udp" and sockets[kind, port] and not is_inside:
        return f"port {port}/udp is on the guest's loopback only, where only tcp is carried"
    return ""


def _written(forward: Forward) -> str:
    """Return a forward as `.env` has it."""
    address, port = ip_address(forward["address"]), forward["host"]
    port = None if forward["auto"] else port
    return str(PortForward(address, port, forward["guest"], forward["protocol"]))


def _check(
    host: Host,
    instance: Instance,
    written: str,
    forward: Forward | None,
    sockets: dict[tuple[str, int], bool],
    pid: str,
) -> Check:
    if forward is None:
        return Check(f"port {written}", "open", "not forwarded: fab up", "FAILED")
    name, kind, port = f"port {shown(forward)}", forward["protocol"], forward["guest"]
    word = secrets.token_hex(8)
    is_ours = (kind, port) not in sockets
    if not is_served(instance):
        return Check(name, "open", "nothing carries it", "FAILED")
    why = _why_silent(forward, sockets, is_rootless(instance.infra_type))
    if is_ours:
        echo = shlex.join(["python3", "-c", ECHO, str(port), kind, word])
        script = f"sudo -n timeout {ECHO_SECONDS} {echo} </dev/null >/dev/null 2>&1 &"
        session.run(host, instance, pid, f"command -v python3 >/dev/null || exit 3; {script}")
    elif why:
        return Check(name, "open", f"closed: {why}", "not enforced")
    elif kind == "udp":  # what it would answer to is not known
        return Check(name, "open", "carried; a service of the guest has it", "ok")
    deadline, found = monotonic() + ECHO_SECONDS, "closed"
    while found == "closed" and monotonic() < deadline:
        found = _tried(forward, word if is_ours else "")
        sleep(0.1)
    shown_as = f"{found}; {why}" if why else found
    return Check(name, "open", shown_as, "ok" if found == "open" else "FAILED")


def _tried(forward: Forward, word: str) -> str:
    """Connect through a forward; say how it ends. `word`: what must come back, if that is known."""
    address: str = forward["address"]
    address = {"0.0.0.0": network.LOOPBACK, "::": "::1"}.get(address, address)
    is_udp = forward["protocol"] == "udp"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect((address, forward["host"]))
            if is_udp:
                client.send(word.encode())
            found = client.recv(100).decode(errors="replace")
        except TimeoutError:  # a service that waits for us to speak first
            return "closed" if word else "open"
        except OSError:
            return "closed"
    return "open" if found == word or not word else "closed"
