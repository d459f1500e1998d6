"""Which guests run, according to libvirt and Podman."""

from __future__ import annotations

import json
import stat
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vagrantp_guard.contract import (
    ANNOTATION,
    BRIDGES,
    CONTAINER_ID,
    LAN_CARD,
    METADATA,
    NAME,
    RUN,
    Guest,
    Nic,
    Policy,
)
from vagrantp_guard.guests import checked, guests, has_seed, is_recorded, policy_of, record
from vagrantp_guard.system import VIRSH, Refused, is_private, run, run_inside, write

if TYPE_CHECKING:
    import xml.etree.ElementTree as ET


def guest_of_domain(xml: str) -> Guest | None:
    """Return the guest that a domain's XML describes, None for a foreign domain.

    Raises Refused or ValueError for an instance that is not as it must be.
    """
    domain, values = parsed(xml)
    name = domain.findtext("name", "")
    if values is None or name != f"{values.get('name')}-{values.get('id')}":
        return None
    cards = domain.findall("devices/interface")
    lan = json.loads(values.get("lan", "null"))
    types = [card.get("type") for card in cards]
    if types[0:1] not in (["network"], ["bridge"]) or types[1:] != (["bridge"] if lan else []):
        raise Refused(f"{name} must have the network cards that vagrantp gave it, and no other")
    own, *other = map(_nic, cards)
    policy = {
        "lan_access": values.get("lan_access") == "yes",
        "lan_allow": json.loads(values.get("lan_allow", "[]")),
        "lan": {**lan, **other[0].to_json()} if lan else None,
    }
    address = IPv4Address(values.get("address", ""))
    return Guest(name, own, address, checked(Policy.from_json(policy)))


def parsed(xml: str) -> tuple[ET.Element, ET.Element | None]:
    """Return a domain and our metadata in it, if it has any. Raises ValueError."""
    import xml.etree.ElementTree as ET  # takes 5 ms, and containers need none

    try:
        domain = ET.fromstring(xml)
    except ET.ParseError as error:
        raise ValueError(f"its XML: {error}") from None
    return domain, domain.find(f"metadata/{METADATA}")


def _nic(card: ET.Element) -> Nic:
    mac, tap, source = card.find("mac"), card.find("target"), card.find("source")
    if mac is None or tap is None or source is None:
        raise Refused("a network card has no name")
    # a card on a libvirt network gets its bridge only now
    bridge = source.get("bridge", BRIDGES["vm"])
    return Nic(tap.get("dev", ""), bridge, mac.get("address", ""))


def adopt() -> None:
    """Record the ids of the caller's containers that an older version of vagrantp made."""
    for container in _containers("--all"):
        folder, identity = Path(container["Config"]["Annotations"][ANNOTATION]), container["Id"]
        mounts = ((m["Destination"], m["Source"]) for m in container["Mounts"])
        if container["Name"] != folder.name or not has_seed(folder, mounts):
            continue
        if is_private(folder.lstat(), stat.S_ISDIR) and not is_recorded(folder, identity):
            write(folder / CONTAINER_ID, f"{identity}\n", 0o600)
            print(f"adopted {folder.name}")


def sync() -> None:
    """Record the guests that run; if libvirt or Podman does not answer, keep its records.

    Never in a hook: libvirt and Podman wait for its end.
    """
    found: list[Guest] = []
    for kind, running in (("vm", _running_vms), ("container", _running_containers)):
        try:
            found += running()
        except Refused:
            found += [guest for guest in guests() if guest.nic.bridge == BRIDGES[kind]]
    for path in (RUN / "guests").glob("*.json"):
        path.unlink()
    for guest in found:
        record(guest)


def _running_vms() -> list[Guest]:
    names = filter(NAME.fullmatch, run(*VIRSH, "list", "--name").split())
    found = (guest_of_domain(run(*VIRSH, "dumpxml", name)) for name in names)
    return [guest for guest in found if guest]


def _running_containers() -> list[Guest]:
    found: list[Guest] = []
    for container in _containers("--filter=status=running", "--filter=status=paused"):
        folder = Path(container["Config"]["Annotations"][ANNOTATION])
        with suppress(Refused, OSError, ValueError):  # without a record it reaches nothing
            if is_recorded(folder, container["Id"]):
                found.append(guest_of_container(folder, container["State"]["Pid"]))
    return found


def _containers(*which: str) -> list[dict[str, Any]]:
    """Return what podman(1) says about those containers in `which` state that name a folder."""
    ids = run("podman", "ps", "--quiet", *which).split()
    found = json.loads(run("podman", "inspect", "--type=container", *ids)) if ids else []
    return [one for one in found if ANNOTATION in (one["Config"].get("Annotations") or {})]


def guest_of_container(folder: Path, pid: int) -> Guest:
    """Return a rootful container as a guest. `pid`: its first process. Raises Refused."""
    [card] = [
        link
        for link in json.loads(run_inside(pid, "ip", "-json", "address"))
        if link.get("link_type") == "ether" and link["ifname"] != LAN_CARD
    ]
    ends = json.loads(run("ip", "-json", "link"))
    [port] = [end for end in ends if end["ifindex"] == card["link_index"]]
    if port.get("master") != BRIDGES["container"]:
        raise Refused(f"it is not on {BRIDGES['container']} but on {port.get('master')}")
    [address] = [a["local"] for a in card["addr_info"] if a["family"] == "inet"]
    nic = Nic(port["ifname"], BRIDGES["container"], card["address"])
    return Guest(folder.name, nic, IPv4Address(address), policy_of(folder), pid)
