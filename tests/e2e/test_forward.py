"""The carrier of PORTS, into the network namespace of a container that only root may enter."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.unit.test_forward import Carry, Port, carry, free_port, guest

__all__ = ["carry", "free_port", "guest"]


# The address is 127.0.0.2, and what listens there is preferred.
SERVER = """
import socket, subprocess, threading
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
def serve(place):
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    server = socket.create_server(place, family=family)
    while True:
        server.accept()[0].sendall(place[0].encode())
places = ("127.0.0.1", 8000), ("127.0.0.1", 8001), ("127.0.0.2", 8001), ("::1", 8002)
for place in places:
    threading.Thread(target=serve, args=(place,)).start()
print(flush=True)
"""


def test_into_another_namespace(carry: Carry, free_port: Port) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may enter the namespace that this makes")
    argv = ("unshare", "--net", sys.executable, "-c", SERVER)
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as inside:
        try:
            assert inside.stdout and inside.stdout.readline()
            ports = [free_port() for _ in range(4)]
            forwards = [("127.0.0.1", port, 8000 + at, "tcp") for at, port in enumerate(ports)]
            netns = f"/proc/{inside.pid}/ns/net"
            done = carry(*forwards, pid=inside.pid, netns="/proc/self/ns/net")
            assert done.returncode == 1
            assert done.stderr == f"error: process {inside.pid} is not in /proc/self/ns/net\n"
            done = carry(*forwards, target="127.0.0.2", pid=inside.pid, netns=netns)
            assert done.returncode == 0
            for port, expected in zip(ports, (b"127.0.0.1", b"127.0.0.2", b"::1"), strict=False):
                with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                    assert client.recv(100) == expected
            with (
                pytest.raises(ConnectionResetError),  # of connect(2) where the reset is as fast
                socket.create_connection(("127.0.0.1", ports[3]), timeout=20) as client,
            ):
                client.recv(1)
        finally:
            inside.kill()
