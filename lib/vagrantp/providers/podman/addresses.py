"""Our Podman network, with NAT, and the addresses of containers on it."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from itertools import chain
from pathlib import Path

from vagrantp_guard import contract

from vagrantp.core import documents
from vagrantp.core.answers import as_json
from vagrantp.core.places import state_root
from vagrantp.core.system import Host
from vagrantp.net import subnets

NETWORK = Path("/etc/containers/networks") / f"{subnets.NAME}.json"


def take_address(host: Host, folder: Path, fixed: IPv4Address | None) -> IPv4Address:
    """Choose an address for the container whose state is in `folder`, and write it down there."""
    own = folder / "address"
    with host.lock(state_root(), "podman network", "another vagrantp that takes an address"):
        subnet = _ensure_network(host)
        # by files: there may be no container yet from which Podman knows that an address is taken
        files = [path for path in state_root().glob("*/address") if path != own]
        taken = {path.read_text(encoding="ascii"): path.parent.name for path in files}
        address = subnets.choose_address(subnet, folder.name[-8:], taken, fixed)
        host.write(own, str(address))
    return address


def _ensure_network(host: Host) -> IPv4Network:
    """Make the NAT network if it is not there and return its subnet."""
    listed = {
        item["name"]: [IPv4Network(s["subnet"]) for s in item["subnets"] if "." in s["subnet"]]
        for item in as_json(
            "podman", host.answer(["podman", "network", "ls", "--format", "json"]), list
        )
        if item.get("subnets")
    }
    if subnets.NAME in listed:
        return listed[subnets.NAME][0]
    taken = chain(*listed.values())
    subnet = subnets.free_subnet(host, subnets.FOR_PODMAN, also_taken=taken)
    argv = ["podman", "network", "create", f"--subnet={subnet}", subnets.NAME]
    host.change(argv, what="making the network", timeout=60)
    _name_bridge(host)
    return subnet


def _name_bridge(host: Host) -> None:
    """Give the network's bridge the name that `guard` knows. Podman 4.3 has no option for it.

    The file is Podman's own record of the network; no container has used it so far.
    """
    if host.dry:
        return
    record = documents.json_file(NETWORK)
    record["network_interface"] = contract.BRIDGES["container"]
    host.write(NETWORK, json.dumps(record), 0o644)
