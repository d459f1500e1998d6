"""Which address a guest on a bridge has by DHCP, with `guard` at work: leases.py plays it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import MASTER

OWN = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
EXPECTED: dict[str, Any] = {
    "at first": [],
    "without a lease": [],
    "a VM's lease": True,
    "a container's lease": True,
    "status": True,
    "others' addresses": [],
    "ARP scan": True,
    "ARP probes": True,
    "an accomplice on the internet": ["192.168.78.61"],
    "others' addresses, by a server": ["192.168.78.62"],
    "unasked": ["192.168.78.63"],
    "another guest": ["192.168.78.64"],
    "many leases": 1,
    "released": 0,
    "short": True,
    "expired": True,
    "renewed": True,
    "rebound": True,
    "to the old server": 0,
    "refused by the server": True,
    "declined": True,
    "after a flush": True,
    "after the reader's end": True,
    "the reader's rights": ["65534", "0000000000000000", "1"],
    "a client is told to ask again": True,
    "… and has a lease": True,
    "without a watcher": ["nothing is at work that would put lost rules back"],
    "nobody hears": [[], True],
    "with a new one": [[], True],
    "heard again": True,
    "on a network that this host is not on": [],
}


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_a_guest_has_the_address_that_a_server_of_the_lan_gave_it(times: int) -> None:
    argv = (*OWN, "timeout", "200", sys.executable, "-m", "tests.attacks.leases", str(times))
    done = subprocess.run(argv, cwd=MASTER, capture_output=True, text=True, check=False)
    assert dict(map(json.loads, done.stdout.splitlines())) == EXPECTED, done.stderr
    assert done.returncode == 0, done.stderr
