"""What both sides of the root boundary know: names, places, and the records that they exchange.

The records are JSON on disk and in the metadata of domains; those of older versions can be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal

LIB = Path("/usr/local/lib/vagrantp")  # root's
GUARD = LIB / "guard"  # starts the modules in one of the folders beside it
FORWARD = Path(__file__).with_name("forward.py")
QEMU_HOOK = Path("/etc/libvirt/hooks/qemu.d/vagrantp")
OCI_HOOK = Path("/etc/containers/oci/hooks.d/vagrantp.json")
RUN = Path("/run/vagrantp")  # root's: guests/<name>.json, the rules as they were loaded
MOUNTS = RUN / "mounts"  # by name of the VM: its project folder as virtiofsd(1) is to see it
PROJECT = Path("/project")  # the project folder in a guest

NETWORK = "vagrantp"  # of libvirt and of Podman, each with a bridge
BRIDGES = {"vm": f"{NETWORK}0", "container": f"{NETWORK}1"}
HOST_NAME = "host.containers.internal"  # what guests call this host; Podman has the same
TAPS = "vgp"  # what the names of VMs' network cards begin with, on the host
LAN_TAPS = "vgl"  # the same of guests' cards on a bridge of the host
LAN_CARD = "lan0"  # a container's card on a bridge of the host, as it sees it
RESOLVER_NAME = "resolver.vagrantp.internal"  # only guests' own resolvers know it
# Where these listen on this host: the first half is for VMs, the other for containers.
RESOLVERS = IPv4Network("169.254.76.0/23")
RULE_PRIORITY = 77  # among the rules of ip-rule(8)
# RFC 6890, and multicast and class E: what is not the internet, wherever it is routed to.
PRIVATE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "224.0.0.0/3"),
)

ID = "[0-9a-f]{8}"
NAME = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?-{ID}")  # of an instance
METADATA_URI = "urn:vagrantp:instance"
METADATA = f"{{{METADATA_URI}}}instance"  # of a domain, as ElementTree writes it
ANNOTATION = "io.vagrantp.state"  # of a container: its state folder, which has …
ISOLATION = "isolation.json"  # … its policy and its mount
CONTAINER_ID = "container"  # … the container's id, written down before its first start
FORWARDS = "forwards.json"  # … what forward.py carries
FIRST_ID = "first_id"  # … in it: which id of this host root in it is
NESTED = "nested"  # … in it: whether containers may be made in this one
NAMESPACES_LIMIT = "/proc/sys/user/max_user_namespaces"
GRANTS = "grants"  # beside it: what persons have granted, and by folder …
TRACKED = "tracked.json"  # … what a protected guest may write since HEAD has it
HOOK_ERROR = "hook.error"  # … why it was kept from starting
SEED, SEED_MOUNT = "guest", "/run/vagrantp-seed"  # … and what the container sees there

_LINK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True)
class LanRule:
    """What a guest may reach. `network` None: the host itself; `port`, `protocol` None: all."""

    network: IPv4Network | IPv6Network | None
    port: int | None
    protocol: Literal["tcp", "udp"] | None

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self.network or 'host'}{port}{'/udp' if self.protocol == 'udp' else ''}"

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> LanRule:
        """Read a rule. Raises ValueError."""
        with _reading("rule"):
            network = ip_network(found["network"]) if found["network"] else None
            port, protocol = found["port"] and int(found["port"]), found["protocol"]
            if protocol not in (None, "tcp", "udp") or not (network or port):
                raise ValueError(f"{found} is no rule")
            return cls(network, port, protocol)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        network = self.network and str(self.network)
        return {"network": network, "port": self.port, "protocol": self.protocol}


@dataclass(frozen=True)
class Nic:
    """A guest's network card. `port`: its name on the host, where it is on `bridge`."""

    port: str
    bridge: str
    mac: str

    def __post_init__(self) -> None:
        if not _LINK.fullmatch(self.port) or not _LINK.fullmatch(self.bridge):
            raise ValueError(f"{self.port!r} on {self.bridge!r} is no network card")
        if not _MAC.fullmatch(self.mac):
            raise ValueError(f"{self.mac!r} is no MAC address")

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"port": self.port, "bridge": self.bridge, "mac": self.mac}


@dataclass(frozen=True)
class LanNic(Nic):
    """A guest's card on a bridge of the host. `address` None: DHCP gives it one.

    `resolvers`: those that it may ask although they are on the LAN. With a fixed address it has a
    `gateway`, too, and may have `dns`, the resolver that it asks.
    """

    address: IPv4Interface | None
    gateway: IPv4Address | None
    dns: IPv4Address | None
    resolvers: tuple[IPv4Address, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.port.startswith(LAN_TAPS):
            raise ValueError(f"{self.port} does not start with {LAN_TAPS}, as cards on a bridge do")
        if self.address and not self.gateway:
            raise ValueError(f"{self.port} has an address and no gateway")

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> LanNic:
        """Read a card. Raises ValueError."""
        with _reading("card on a bridge"):
            is_fixed = bool(found["address"])
            return cls(
                port=found["port"],
                bridge=found["bridge"],
                mac=found["mac"],
                address=IPv4Interface(found["address"]) if is_fixed else None,
                gateway=IPv4Address(found["gateway"]) if is_fixed else None,
                dns=IPv4Address(found["dns"]) if is_fixed and found.get("dns") else None,
                resolvers=tuple(map(IPv4Address, found["resolvers"])),
            )

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            **super().to_json(),
            "address": self.address and str(self.address),
            "gateway": self.gateway and str(self.gateway),
            "dns": self.dns and str(self.dns),
            "resolvers": [*map(str, self.resolvers)],
        }


@dataclass(frozen=True)
class Policy:
    """What a guest may reach, and the card by which it is on a LAN."""

    lan_access: bool
    lan_allow: tuple[LanRule, ...]
    lan: LanNic | None = None

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Policy:
        """Read a policy. Raises ValueError."""
        with _reading("policy"):
            allowed = tuple(map(LanRule.from_json, found["lan_allow"]))
            lan = LanNic.from_json(found["lan"]) if found.get("lan") else None
            return cls(found["lan_access"] is True, allowed, lan)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        allowed = [rule.to_json() for rule in self.lan_allow]
        lan = self.lan and self.lan.to_json()
        return {"lan_access": self.lan_access, "lan_allow": allowed, "lan": lan}


@dataclass(frozen=True)
class Mount:
    """How a guest gets its project folder: all in it belongs to one user of the guest.

    `protect`: what tools of the host obey in it cannot be changed; `hide`: paths in it that are
    empty in the guest, relative to it.
    """

    mode: Literal["ro", "rw"]
    folder: Path
    uid: int
    gid: int
    protect: bool = False
    hide: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Mount:
        """Read a mount, of a version without `protect` and `hide`, too. Raises ValueError."""
        with _reading("mount"):
            mode, folder, hide = found["mode"], found["folder"], tuple(found.get("hide", ()))
            if mode not in ("ro", "rw") or not folder.startswith("/"):
                raise ValueError(f"{found} is no folder to be shared")
            if not all(_is_below(path) for path in hide):
                raise ValueError(f"{found} hides what is not in the folder")
            uid, gid = int(found["uid"]), int(found["gid"])
            return cls(mode, Path(folder), uid, gid, found.get("protect") is True, hide)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "mode": self.mode,
            "folder": str(self.folder),
            "uid": self.uid,
            "gid": self.gid,
            "protect": self.protect,
            "hide": [*self.hide],
        }


@dataclass(frozen=True)
class Tracked:
    """Closed names that HEAD has: `released` to the guest; `since` that, a person has to agree.

    A guest can commit what it must not write.
    """

    released: frozenset[str]
    since: frozenset[str] = frozenset()

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Tracked:
        """Read a record. Raises ValueError."""
        with _reading("record of tracked names"):
            released, since = found["released"], found["since"]
            if not all(isinstance(name, str) for name in (*released, *since)):
                raise ValueError(f"{found} are no names")
            return cls(frozenset(released), frozenset(since))

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"released": sorted(self.released), "since": sorted(self.since)}


def tracked_path(state: Path) -> Path:
    """Return where a Tracked is, of the instance with this state folder. It outlives `rm`."""
    return state.parent / GRANTS / f"{state.name.rpartition('-')[2]}.{TRACKED}"


def _is_below(path: str) -> bool:
    parts = path.split("/")
    return not {"", ".", ".."} & {*parts} and "\0" not in path


@dataclass(frozen=True)
class Guest:
    """An admitted guest. `pid`: a container's first process, None for a VM."""

    name: str
    nic: Nic  # on one of vagrantp's networks
    ip: IPv4Address
    policy: Policy
    pid: int | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name) or self.nic.bridge not in BRIDGES.values():
            raise ValueError(f"{self.name} is no name of a guest")

    @property
    def resolver(self) -> IPv4Address:
        """Where its resolver listens: each of vagrantp's networks has 256 addresses."""
        half = 256 * (self.nic.bridge == BRIDGES["container"])
        return RESOLVERS[half + int(self.ip) % 256]

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Guest:
        """Read a record of a guest. Raises ValueError."""
        with _reading("guest"):
            nic = Nic(found["port"], found["bridge"], found["mac"])
            ip, policy = IPv4Address(found["ip"]), Policy.from_json(found)
            return cls(found["name"], nic, ip, policy, found.get("pid"))

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        flat = {"name": self.name, **self.nic.to_json(), "ip": str(self.ip)}
        pid = {} if self.pid is None else {"pid": self.pid}
        return {**flat, **self.policy.to_json(), **pid}


@dataclass(frozen=True)
class Report:
    """What `guard check` answers. `guests` by name; `leased`: addresses by cards on bridges.

    `one_wall`: why this host cannot have a second one.
    """

    problems: tuple[str, ...]
    guests: Mapping[str, Guest]
    leased: Mapping[str, list[str]]
    one_wall: str = ""

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Report:
        """Read a report. Raises ValueError."""
        with _reading("report"):
            guests = {name: Guest.from_json(guest) for name, guest in found["guests"].items()}
            walls = str(found.get("one_wall", ""))
            return cls(tuple(found["problems"]), guests, found["leased"], walls)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        guests = {name: guest.to_json() for name, guest in self.guests.items()}
        facts = {"leased": {**self.leased}, "one_wall": self.one_wall}
        return {"problems": [*self.problems], "guests": guests, **facts}


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn the errors that JSON of another form causes into a ValueError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no {what}: {error!r}") from None


def files() -> list[Path]:
    """Return what is installed: these modules, and the data beside them."""
    package = Path(__file__).parent
    return sorted([*package.glob("*.py"), *package.glob("*.toml")])


def version() -> str:
    """Return the name of the folder in LIB for these files: a digest of them."""
    from hashlib import sha256  # takes a while, and guard needs it only when it is installed

    digest = sha256()
    for path in files():
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
