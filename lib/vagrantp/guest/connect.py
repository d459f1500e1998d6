"""ssh's ProxyCommand in a sandbox: `connect.py SOCKET` hands ssh a connection to a unix socket.

The relay behind it (core/relay.py) leads to the guest's sshd. ProxyUseFdpass in ssh_config(5).
"""

from __future__ import annotations

import socket
import sys


def main() -> None:
    """Connect, and pass the descriptor on over stdout, which is a socket of ssh's."""
    with socket.socket(socket.AF_UNIX) as guest, socket.socket(fileno=1) as ssh:
        guest.connect(sys.argv[1])
        socket.send_fds(ssh, [b"\0"], [guest.fileno()])


if __name__ == "__main__":
    main()
