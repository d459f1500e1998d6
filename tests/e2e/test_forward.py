"""The carrier of PORTS, into the network namespace of a container that only root may enter."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.unit.test_forward import Carry, Port, carry, free_port, guest

__all__ = ["carry", "free_port", "guest"]


def test_into_another_namespace(carry: Carry, free_port: Port) -> None:
    server = (
        "import socket, subprocess; subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n"
        "s = socket.create_server(('127.0.0.1', 8000)); print(flush=True)\n"
        "while True: s.accept()[0].sendall(b'inside')\n"
    )
    if os.getuid() != 0:
        pytest.skip("only root may enter the namespace that this makes")
    argv = ("unshare", "--net", sys.executable, "-c", server)
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as inside:
        assert inside.stdout and inside.stdout.readline()
        port = free_port()
        netns = f"/proc/{inside.pid}/ns/net"
        assert carry(("127.0.0.1", port, 8000, "tcp"), netns=netns).returncode == 0
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            assert client.recv(100) == b"inside"
        inside.kill()
