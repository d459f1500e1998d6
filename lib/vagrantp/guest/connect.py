"""ssh's ProxyCommand in a sandbox: copies bytes between its stdin, stdout and a unix socket.

`connect.py SOCKET`. The relay behind it (core/relay.py) leads to the guest's sshd.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

CHUNK = 64 * 1024  # bytes


def main() -> None:
    """Copy until the other side has ended."""
    with socket.socket(socket.AF_UNIX) as guest:
        guest.connect(sys.argv[1])

        def send() -> None:
            while chunk := os.read(0, CHUNK):
                guest.sendall(chunk)
            guest.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        while chunk := guest.recv(CHUNK):
            while chunk:
                chunk = chunk[os.write(1, chunk) :]


if __name__ == "__main__":
    main()
