"""PORTS: tcp and udp through to the guest, for as long as it runs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from time import sleep

import pytest

from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import guest, run, status

SERVICE = (
    "import socket, threading\n"
    "tcp = socket.create_server(('', 8000))\n"
    "udp = socket.socket(type=socket.SOCK_DGRAM)\n"
    "udp.bind(('', 8000))\n"
    "inside = socket.create_server(('127.0.0.1', 9000))\n"
    "def datagrams():\n"
    "    while True:\n"
    "        data, peer = udp.recvfrom(65535)\n"
    "        udp.sendto(data.upper(), peer)\n"
    "def connections(server):\n"
    "    while True:\n"
    "        client = server.accept()[0]\n"
    "        client.sendall(client.makefile('rb').read().upper())\n"
    "        client.close()\n"
    "for server in (tcp, inside):\n"
    "    threading.Thread(target=connections, args=(server,)).start()\n"
    "datagrams()\n"
)


def serve(app: Project) -> None:
    """Have a service in the guest that shouts back: 8000, 8000/udp; on its loopback 9000."""
    done = app.fab("ssh", "--command", "cat > service.py", stdin=SERVICE.encode())
    assert done.returncode == 0
    guest(app, "setsid python3 service.py </dev/null >/dev/null 2>&1 & sleep 1")


def said(address: str, port: int, text: bytes, is_udp: bool = False) -> bytes:
    """Send something to a port of this host; return what comes back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM
    with socket.socket(family, kind) as client:
        client.settimeout(10)
        client.connect((address, port))
        client.sendall(text)
        if is_udp:
            return client.recv(65535)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def ports(app: Project) -> dict[int, int]:
    """Return where the ports of the host lead, by `status`; all are open."""
    found = status(app)["ports"]
    assert all(port["open"] for port in found)
    return {port["guest"]: port["host"] for port in found}


def carrier(app: Project) -> int:
    """Return the process that carries a project's ports."""
    [lock] = (Path(app.environment["XDG_STATE_HOME"]) / "vagrantp").glob("*/forwards.lock")
    return int(lock.read_text())


def failed(app: Project) -> list[str]:
    """Return the promises that `verify` finds broken."""
    done = app.fab("verify", "--json")
    checks = json.loads(done.stdout)["checks"]
    found = [check["name"] for check in checks if check["outcome"] == "FAILED"]
    assert done.returncode == (9 if found else 0)
    return found


@contextmanager
def holding(port: int) -> Iterator[int]:
    """Hold a port of this host as a web server does; return its process."""
    argv = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port))
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            sleep(0.05)
        try:
            yield server.pid
        finally:
            server.kill()


def test_ports_lead_to_a_container_for_as_long_as_it_runs(guests: MakeProject) -> None:
    wanted = "18080:8000,[::1]:18080:8000,18080:8000/udp,auto:9000"
    app = guests("container").write({**CONTAINER, "PORTS": wanted})
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    auto = ports(app)[9000]
    shown = "127.0.0.1:18080 -> 8000, [::1]:18080 -> 8000, 127.0.0.1:18080 -> 8000/udp"
    assert f"  ports      {shown}, 127.0.0.1:{auto} -> 9000\n" in done.stdout
    ends = ("8000", "8000", "8000/udp", "9000")
    silent = [f"nothing listens on port {end} in the guest" for end in ends]
    assert f"  {'; '.join(silent[1:])}\n" in done.stderr
    assert [port["why"] for port in status(app)["ports"]] == silent
    done = app.fab("verify")
    assert done.returncode == 0 and re.search(rf"  open; {silent[-1]} +ok$", done.stdout, re.M)
    serve(app)
    assert [port["why"] for port in status(app)["ports"]] == [None] * 4
    assert failed(app) == []
    big = os.urandom(1_000_000).hex().encode()
    for address in ("127.0.0.1", "::1"):
        assert said(address, 18080, big) == big.upper()
    assert said("127.0.0.1", 18080, b"datagram", is_udp=True) == b"DATAGRAM"
    assert said("127.0.0.1", auto, b"inside") == b"INSIDE"
    other = json.loads(run("ip", "-json", "-4", "address", "show", "scope", "global"))
    address = other[0]["addr_info"][0]["local"]
    assert socket.socket().connect_ex((address, 18080))  # not there

    # killed: told, and put back by the next up
    os.kill(carrier(app), signal.SIGKILL)
    assert len(failed(app)) == 4
    done = app.fab("up")
    assert done.returncode == 0 and "not forwarded any more" in done.stderr
    assert said("127.0.0.1", 18080, b"again") == b"AGAIN"

    # other ports, the same container; what stays, stays open
    started = run("podman", "inspect", "--format", "{{.State.StartedAt}}", status(app)["instance"])
    app.write({**CONTAINER, "PORTS": "auto:9000,18081:8000"})
    assert failed(app) == ["port 127.0.0.1:18081:8000"]
    done = app.fab("up")
    assert done.returncode == 0 and re.search(r"PORTS: .* → .* at once", done.stderr)
    assert ports(app) == {9000: auto, 8000: 18081}
    assert said("127.0.0.1", 18081, b"moved") == b"MOVED"
    assert socket.socket().connect_ex(("127.0.0.1", 18080))
    for guests_port in (8001, 8000):  # the same port of the host, to another one of the guest
        app.write({**CONTAINER, "PORTS": f"auto:9000,18081:{guests_port}"})
        assert app.fab("up").returncode == 0
        assert ports(app) == {9000: auto, guests_port: 18081}
    assert said("127.0.0.1", 18081, b"back") == b"BACK"
    again = run("podman", "inspect", "--format", "{{.State.StartedAt}}", status(app)["instance"])
    assert started == again

    # stop ends them, up and podman's own start bring them back
    assert app.fab("stop").returncode == 0
    assert {port["open"] for port in status(app)["ports"]} == {False}
    assert socket.socket().connect_ex(("127.0.0.1", 18081))
    run("podman", "start", status(app)["instance"])
    assert ports(app) == {9000: auto, 8000: 18081}
    app.fab("stop", "--force")
    address = status(app)["address"]
    moved = f"{address.rpartition('.')[0]}.{201 if address.endswith('.200') else 200}"
    app.write({**CONTAINER, "PORTS": "auto:9000,18081:8000", "FIXED_IP": moved})
    assert app.fab("up").returncode == 0
    assert status(app)["address"] == moved
    assert ports(app) == {9000: auto, 8000: 18081}
    serve(app)
    assert said("127.0.0.1", 18081, b"elsewhere") == b"ELSEWHERE"
    assert said("127.0.0.1", auto, b"inside") == b"INSIDE"
    app.write(CONTAINER)
    assert app.fab("up").returncode == 0
    assert status(app)["ports"] == []
    assert socket.socket().connect_ex(("127.0.0.1", 18081))


def test_a_port_that_somebody_has(guests: MakeProject) -> None:
    app = guests("container").write({**CONTAINER, "PORTS": "18080:80,18081:81"})
    with holding(18081) as pid:
        done = app.fab("up")
        assert (done.returncode, done.stdout) == (6, "")
        assert re.search(
            rf"port 127.0.0.1:18081/tcp of PORTS is taken by python\S* \(process {pid}\)",
            done.stderr,
        )
        assert app.fab("status").stdout.startswith("state   absent")
    assert app.fab("up").returncode == 0
    other = guests("other").write({**CONTAINER, "PORTS": "18080:80"})
    done = other.fab("up")
    assert done.returncode == 6
    assert f"is taken by {status(app)['instance']}, the project in {app.folder}" in done.stderr
    app.fab("stop")
    with holding(18080):
        assert app.fab("up").returncode == 6
        assert status(app)["state"] == "stopped"
    other.write({**CONTAINER, "PORTS": "192.0.2.99:18080:80"})
    done = other.fab("up")
    assert done.returncode == 6 and "cannot be had" in done.stderr


@pytest.mark.soak
@pytest.mark.parametrize(("values", "times"), [(CONTAINER, 50), (VM, 5)], ids=["container", "vm"])
def test_ports_and_fixed_ip_at_the_first_try(
    guests: MakeProject, values: dict[str, object], times: int
) -> None:
    app = guests("again").write(values)
    assert app.fab("up").returncode == 0
    subnet = status(app)["address"].rpartition(".")[0]
    draw = Random(times)
    for _ in range(times):
        assert app.fab("rm", "--force").returncode == 0
        address = f"{subnet}.{draw.randrange(2, 255)}"
        asked = f"{draw.randrange(18000, 19000)}:{draw.randrange(1, 65536)},auto:53/udp"
        done = app.write({**values, "FIXED_IP": address, "PORTS": asked}).fab("up")
        assert done.returncode == 0, done.stderr
        assert status(app)["address"] == address
        done = app.fab("verify")
        assert done.returncode == 0, done.stdout
