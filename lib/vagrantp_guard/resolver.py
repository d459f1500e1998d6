"""The resolver of root's containers: dnsmasq(8), which asks the host's resolvers.

Podman's own would tell each container the names of all others on the network. The rules redirect to
this one what a container asks at its gateway.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
from contextlib import suppress
from time import monotonic, sleep

from vagrantp_guard.contract import BRIDGES, HOST_NAME, RESOLVER_PORT
from vagrantp_guard.guests import guests
from vagrantp_guard.system import PATH

BRIDGE = BRIDGES["container"]
NOBODY = 65534  # by number, as the name of its group differs between distributions
DNSMASQ = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"),
    *("--bounding-set=-all", "--pdeathsig=KILL"),
    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file"),
    *(f"--port={RESOLVER_PORT}", "--bind-dynamic", f"--interface={BRIDGE}"),
    *("--except-interface=lo", "--no-hosts", "--bogus-priv", "--domain-needed"),
    "--local=/dns.podman/",  # which containers append to each name that does not exist
    *("--localise-queries", "--cache-size=1000", f"--interface-name={HOST_NAME},{BRIDGE}/4"),
)
SECONDS = 3.0  # until it must answer, with the time to start the watcher
SIOCGIFADDR = 0x8915  # netdevice(7); Python has no name for it


class Resolver:
    """The process of dnsmasq, a child of the watcher. `poll` reports its end, by `pidfd`."""

    def __init__(self, poll: select.poll) -> None:
        self.poll = poll
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1

    def keep(self) -> None:
        """Start it if a container needs it and it does not run; end it if none does."""
        if not is_needed():
            return self.end()
        if self.process:
            return
        null = subprocess.DEVNULL
        with suppress(OSError):  # `check` says that it does not answer
            self.process = subprocess.Popen(
                DNSMASQ, env={"PATH": PATH}, stdin=null, stdout=null, stderr=null
            )
            self.pidfd = os.pidfd_open(self.process.pid)
            self.poll.register(self.pidfd, select.POLLIN)

    def end(self) -> None:
        """End it, if it has not ended, and forget it."""
        if self.process:
            self.poll.unregister(self.pidfd)
            os.close(self.pidfd)
            self.process.kill()
            self.process.wait()
            self.process, self.pidfd = None, -1


def is_needed() -> bool:
    """Say whether a container is admitted. Raises ValueError for an invalid record."""
    return any(guest.nic.bridge == BRIDGE for guest in guests())


def answers() -> bool:
    """Say whether it takes connections at the bridge."""
    with socket.socket() as made, suppress(OSError):
        name = struct.pack("256s", BRIDGE.encode())
        address = fcntl.ioctl(made, SIOCGIFADDR, name)[20:24]
        made.settimeout(SECONDS)
        made.connect((socket.inet_ntoa(address), RESOLVER_PORT))
        return True
    return False


def wait() -> bool:
    """Wait until it answers, if a container needs it; return False if it does not in time."""
    end = monotonic() + SECONDS
    while is_needed() and not answers():
        if monotonic() > end:
            return False
        sleep(0.02)
    return True
