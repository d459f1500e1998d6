"""What stands on both sides of the root boundary: names and places."""

from __future__ import annotations

import re
from pathlib import Path

RUN = Path("/run/vagrantp")  # of root's: guests/<name>.json, the rules as they were loaded
MOUNTS = RUN / "mounts"  # of VMs: by name, the project folder as virtiofsd(1) is to see it
BRIDGES = {"vm": "vagrantp0", "container": "vagrantp1"}
METADATA = "{urn:vagrantp:instance}instance"
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?-[0-9a-f]{8}")
TAPS = "vgp"  # what the names of our VMs' network cards begin with, on the host
LAN_TAPS = "vgl"  # the same of their cards on a bridge of the host, and of containers' there
LAN_CARD = "lan0"  # a container's card on a bridge of the host, as it sees it
ANNOTATION = "io.vagrantp.state"  # of a container: the folder that has its isolation.json
RECORD = "container"  # in that folder: the id of the container, written down before its first start
SEED, SEED_MOUNT = "guest", "/run/vagrantp-seed"  # in that folder, and where the container sees it
LIB = Path("/usr/local/lib/vagrantp")  # root's
GUARD = LIB / "guard"  # starts the modules in one of the folders beside it
FORWARD = Path(__file__).with_name("forward.py")
HOOKS = (
    Path("/etc/libvirt/hooks/qemu.d/vagrantp"),
    Path("/etc/containers/oci/hooks.d/vagrantp.json"),
)
PROJECT = "project"  # at the root of a container


def version() -> str:
    """Return the name of the folder in LIB for modules as they are beside this one."""
    from hashlib import sha256  # takes a while, and guard needs it when it is installed only

    digest = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def starter(folder: Path) -> str:
    """Return the program that starts the modules in `folder`."""
    return f"""\
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, {str(folder)!r})
from vagrantp_guard.cli import main

sys.exit(main(sys.argv[1:]))
"""
