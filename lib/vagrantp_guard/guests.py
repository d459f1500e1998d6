"""Who may start and what it may reach: records, domains, containers."""

from __future__ import annotations

import json
import os
import re
import stat
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from vagrantp_guard.contract import (
    ANNOTATION,
    BRIDGES,
    LAN_CARD,
    LAN_TAPS,
    METADATA,
    NAME,
    RECORD,
    RUN,
    SEED,
    SEED_MOUNT,
)
from vagrantp_guard.system import VIRSH, Refused, is_private, run, run_inside, write

CARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
Guest = dict[str, Any]


def guests() -> list[Guest]:
    """Return the guests that are admitted now."""
    found = []
    for path in sorted((RUN / "guests").glob("*.json")):
        found.append(checked(json.loads(path.read_text(encoding="utf-8"))))
    return found


def record(guest: Guest) -> None:
    write(record_of(guest["name"]), json.dumps(checked(guest)))


def record_of(name: str) -> Path:
    return RUN / "guests" / f"{name}.json"


def guest_of_domain(xml: str) -> Guest | None:
    """Return what a domain's XML says of a guest of ours, None for a foreign one.

    Raises Refused when it is ours, and not as it must be.
    """
    domain = ET.fromstring(xml)
    values = domain.find(f"metadata/{METADATA}")
    name = domain.findtext("name", "")
    if values is None or name != f"{values.get('name')}-{values.get('id')}":
        return None
    cards = domain.findall("devices/interface")
    wishes = json.loads(values.get("lan", "null"))
    types = [card.get("type") for card in cards]
    if types[0:1] not in (["network"], ["bridge"]) or types[1:] != (["bridge"] if wishes else []):
        raise Refused(f"{name} must have the network cards that vagrantp gave it, and no other")
    facts = []
    for card in cards:
        mac, tap, source = card.find("mac"), card.find("target"), card.find("source")
        if mac is None or tap is None or source is None:
            raise Refused(f"a network card of {name} has no name")
        # one on a network of libvirt's gets the bridge only now
        facts.append(
            {
                "port": tap.get("dev", ""),
                "mac": mac.get("address", ""),
                "bridge": source.get("bridge", BRIDGES["vm"]),
            }
        )
    return checked(
        {
            "name": name,
            **facts[0],
            "ip": values.get("address", ""),
            "lan_access": values.get("lan_access") == "yes",
            "lan_allow": json.loads(values.get("lan_allow", "[]")),
            "lan": {**wishes, **facts[1]} if wishes else None,
        }
    )


def checked(guest: Guest) -> Guest:
    """Return a guest whose values can go into a rule as they are. Raises Refused, ValueError."""
    if not NAME.fullmatch(guest["name"]) or guest["bridge"] not in BRIDGES.values():
        raise Refused(f"{guest['name']} is no name of a guest")
    if not CARD.fullmatch(guest["port"]):
        raise Refused(f"{guest['name']} has no network card with a name of ours")
    if not MAC.fullmatch(guest["mac"]):
        raise Refused(f"{guest['name']} has no MAC address")
    guest["ip"] = str(IPv4Address(guest["ip"]))
    guest |= _checked_wishes(guest)
    return guest


def _checked_wishes(wishes: Guest) -> Guest:
    allowed = []
    for rule in wishes["lan_allow"]:
        network = rule["network"] and str(IPv4Network(rule["network"]))
        port = rule["port"] and int(rule["port"])
        if rule["protocol"] not in (None, "tcp", "udp") or not (network or port):
            raise Refused(f"{rule} is no rule")
        allowed.append({"network": network, "port": port, "protocol": rule["protocol"]})
    lan = _checked_lan(wishes["lan"]) if wishes.get("lan") else None
    return {"lan_access": wishes["lan_access"] is True, "lan_allow": allowed, "lan": lan}


def _checked_lan(lan: Guest) -> Guest:
    """Return the card on a bridge of the host: its `address` is None where DHCP gives it one."""
    if not (CARD.fullmatch(lan["port"]) and lan["port"].startswith(LAN_TAPS)):
        raise Refused(f"{lan['port']} is no name of ours for a card on a bridge")
    if not CARD.fullmatch(lan["bridge"]) or not MAC.fullmatch(lan["mac"]):
        raise Refused(f"{lan} is no card on a bridge")
    address = lan["address"] and IPv4Interface(lan["address"])
    return {
        **{key: lan[key] for key in ("port", "bridge", "mac")},
        "address": address and str(address),
        "ip": address and str(address.ip),
        "gateway": address and str(IPv4Address(lan["gateway"])),
        "resolvers": [str(IPv4Address(resolver)) for resolver in lan["resolvers"]],
    }


def wishes_of(folder: Path) -> Guest:
    """Read what a container may reach."""
    return _checked_wishes(_written(folder))


def _written(folder: Path) -> Guest:
    """Read what is to be of a container. Raises Refused where others could have written that."""
    path = folder / "isolation.json"
    with path.open(encoding="utf-8") as file:
        facts = os.fstat(file.fileno())
        if facts.st_uid != os.getuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Refused(f"{path} may be written by others")
        found: Guest = json.load(file)
    return found


def mount_of(folder: Path) -> Guest | None:
    """Read what a container is to have of its project folder."""
    return checked_mount(_written(folder).get("mount"))


def checked_mount(wish: Guest | None) -> Guest | None:
    if wish is None:
        return None
    if wish["mode"] not in ("ro", "rw") or not wish["folder"].startswith("/"):
        raise Refused(f"{wish} is no folder to be shared")
    numbers = {key: int(wish[key]) for key in ("uid", "gid")}
    return {"mode": wish["mode"], "folder": wish["folder"], **numbers}


def is_recorded(folder: Path, identity: str) -> bool:
    """Say whether a container is the one whose state folder this is, by its id.

    Podman copies annotations of an image to its containers, so any container may name any folder.
    None can know its own id beforehand. The record must be the caller's own and private.
    """
    with suppress(OSError, ValueError):  # whatever an image has put into the annotation
        if not (folder.is_absolute() and is_private(folder.lstat(), stat.S_ISDIR)):
            return False
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(folder / RECORD, opener=lambda path, more: os.open(path, flags | more)) as file:
            is_own = is_private(os.fstat(file.fileno()), stat.S_ISREG)
            return is_own and file.read(len(identity) + 2).strip() == identity
    return False


def _has_seed(folder: Path, mounts: Iterable[tuple[str, str]]) -> bool:
    with suppress(OSError, ValueError):
        return any(
            target == SEED_MOUNT and (folder / SEED).samefile(source) for target, source in mounts
        )
    return False


def refuse_unrecorded(folder: Path, bundle: Path) -> None:
    """Raise Refused for a container of vagrantp whose id is not on record; let any other start.

    It has the seed of that folder, which an image cannot mount.
    """
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    if _has_seed(folder, ((m["destination"], m.get("source", "")) for m in config["mounts"])):
        raise Refused(f"{folder.name} is not on record, as an older version made it: run fab up")


def adopt() -> None:
    """Write down the ids of the caller's containers that an older version of vagrantp made."""
    for container in _containers("--all"):
        folder, identity = Path(container["Config"]["Annotations"][ANNOTATION]), container["Id"]
        mounts = ((m["Destination"], m["Source"]) for m in container["Mounts"])
        if container["Name"] != folder.name or not _has_seed(folder, mounts):
            continue
        if is_private(folder.lstat(), stat.S_ISDIR) and not is_recorded(folder, identity):
            write(folder / RECORD, f"{identity}\n", 0o600)
            print(f"adopted {folder.name}")


def sync() -> None:
    """Take the guests that run from libvirt and Podman; where one does not answer, keep its.

    Never in a hook: they wait for it.
    """
    found: list[Guest] = []
    for kind, running in (("vm", _running_vms), ("container", _running_containers)):
        try:
            found += running()
        except Refused:
            found += [guest for guest in guests() if guest["bridge"] == BRIDGES[kind]]
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
    for container in _containers():
        folder = Path(container["Config"]["Annotations"][ANNOTATION])
        with suppress(Refused, OSError, ValueError):  # without a record it reaches nothing
            if is_recorded(folder, container["Id"]):
                card = card_of(container["State"]["Pid"])
                found.append({"name": folder.name, **card, **wishes_of(folder)})
    return found


def _containers(*which: str) -> list[dict[str, Any]]:
    """Return what podman(1) says of running containers that name a state folder, or of `--all`."""
    ids = run("podman", "ps", "--quiet", *which).split()
    found = json.loads(run("podman", "inspect", "--type=container", *ids)) if ids else []
    return [one for one in found if ANNOTATION in (one["Config"].get("Annotations") or {})]


def card_of(pid: int) -> Guest:
    """Return address, MAC and host's end of a rootful container's network card, and its pid."""
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
    return {
        "bridge": BRIDGES["container"],
        "port": port["ifname"],
        "mac": card["address"],
        "ip": address,
        "pid": pid,
    }
