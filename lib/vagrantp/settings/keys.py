"""The keys of `.env`, one record each, as the fields of Settings that they fill.

What is written of them elsewhere comes from here: `make docs` makes .env.example and docs/.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from vagrantp_guard.contract import LanRule
from voluptuous import All

from vagrantp.settings import (
    agent_env,
    agents,
    files,
    folder_keys,
    forwards,
    parsers,
    provision_keys,
)
from vagrantp.settings.forwards import PortForward
from vagrantp.settings.parsers import Provisioner, matching, one_of, yes_or_no
from vagrantp.settings.schema import AT_ONCE, NEW, NEXT_START, Grant, Key, either, key

# Built here, and of which suite of Debian; the first is the default.
BUILT_IMAGES = {"debian-13": "trixie", "debian-12": "bookworm"}
SSH_USER = "vagrant"  # boxes made for Vagrant have such a user, under another name perhaps

_MIB = {"M": 1, "G": 1024, "T": 1024**2}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The resolved settings of a project. `memory` in MiB, `disk` in GiB."""

    infra_type: Literal["vm", "container"] = key(
        "vm or container",
        "a virtual machine of libvirt, or a container of Podman",
        "vm",
        one_of("vm", "container"),
        is_required=True,
        hint="INFRA_TYPE=vm makes a virtual machine, INFRA_TYPE=container a Podman container",
        aliases=("TYPE",),
        grant=Grant(
            "a container shares the kernel of this host",
            covers=parsers.order("vm", "container"),
            only_wider=True,
        ),
        verified="type",
    )
    memory: int = key(
        "whole number of MB",
        "exactly this much RAM, in MiB as Vagrant counts; the guest's kernel keeps a little",
        "2048",
        parsers.whole_number(" of MB", 16 * 1024 * 1024, _MIB | {"": 1}),
        is_required=True,
        hint="MEMORY=2048 gives the guest 2 GB",
        aliases=("RAM", "MEM"),
        applies=NEXT_START,
        verified="memory",
    )
    cpus: int = key(
        "whole number",
        "exactly this many processors",
        "2",
        parsers.whole_number("", 1024, {}),
        is_required=True,
        hint="CPUS=2 gives the guest two",
        aliases=("CPU", "VCPU", "VCPUS"),
        applies=NEXT_START,
        verified="cpus",
    )
    disk: int = key(
        "whole number of GB",
        "a disk of exactly this size, in GiB; a VM's may grow, a container's needs a quota",
        "20",
        parsers.whole_number(" of GB", 64 * 1024, _MIB | {"": 1024}),
        is_required=True,
        hint="DISK=20 gives the guest a disk of 20 GB",
        aliases=("DISK_SIZE",),
        applies={"vm": "grow only", "container": AT_ONCE},
        verified="disk",
    )
    name: str = key(
        "host name",
        "name of the instance, and the guest's host name",
        "my-project",
        matching(parsers.LABEL, "a host name of 1 to 63 letters, digits and inner dashes"),
        otherwise="the folder's name",
        aliases=("INFRA_ID",),
        verified="hostname",
    )
    image: str = either(
        Key(
            "debian-13, debian-12, a Vagrant box, or a cloud image: ./…, /…, ~/… or a URL",
            "image of a VM; arch, ubuntu-24.04, fedora, alpine: cloud images by name",
            "debian-13",
            parsers.box,
            locate=files.image_file,
            default="debian-13",
            before="debian-12",
            hint="BOX=debian-12 is built here; BOX=generic/debian12 is a Vagrant box",
            infra_type="vm",
            name="BOX",
            unverified="an image leaves no mark that its guest could not change",
        ),
        Key(
            "debian-13, debian-12 or an OCI reference",
            "image of a container; ssh and Python are added where they are missing",
            "debian-13",
            matching(parsers.OCI_REFERENCE, "debian-13, debian-12 or an OCI reference"),
            default="debian-13",
            before="debian-12",
            hint="IMAGE=debian-12 is built here; IMAGE=docker.io/library/node:22 is a reference",
            infra_type="container",
            name="IMAGE",
            unverified="an image leaves no mark that its guest could not change",
        ),
    )
    accel: Literal["auto", "kvm", "tcg"] = key(
        "auto, kvm or tcg",
        "how a VM's processor is made: KVM, software emulation, or KVM where it really works",
        "auto",
        one_of("auto", "kvm", "tcg"),
        default="auto",
        infra_type="vm",
        hint="auto takes KVM where a guest really runs under it, else software emulation",
        unverified="auto may end in either; doctor says what this host can",
    )
    lan_access: bool = key(
        "yes or no",
        "whether the guest can reach your LAN; this host and other guests only on a bridge",
        "no",
        yes_or_no,
        default="no",
        hint="LAN_ACCESS=no keeps the guest from your LAN; LAN_ALLOW opens single services",
        grant=Grant("the guest reaches your LAN"),
        applies=AT_ONCE,
        verified="isolation",
    )
    network_type: Literal["default", "bridge"] = key(
        "default or bridge",
        "behind the host's address (NAT), or a peer on its LAN, isolated all the same; bridge is "
        "neither for a user's own container nor for a box made for Vagrant",
        "default",
        one_of("default", "bridge"),
        default="default",
        hint="NETWORK_TYPE=bridge puts the guest on the host bridge BRIDGE",
        aliases=("NETWORK_MODE",),
        grant=Grant("the guest is a machine on the LAN of this host", is_plain="default".__eq__),
        verified="address on ",
    )
    bridge: str | None = key(
        "name of an interface",
        "host bridge for NETWORK_TYPE=bridge",
        "br0",
        matching(parsers.INTERFACE, "the name of an interface, 15 characters at most"),
        otherwise="the only one that leads out of this host",
        hint="'ip link show type bridge' lists the bridges of this host",
        grant=Grant("the bridge that the guest is on", by_bridge=True),
        verified="address on ",
    )
    fixed_ip: IPv4Address | None = key(
        "IPv4[/prefix]",
        "the guest's address, the same at every start; not for a user's own container",
        "192.168.1.50/24",
        parsers.fixed_ip,
        aliases=("IP_ADDRESS", "STATIC_IP"),
        grant=Grant("the guest has this address on your LAN", by_bridge=True),
        applies=NEXT_START,
        verified="address",
    )
    gateway: IPv4Address | None = key(
        "IPv4",
        "router of a FIXED_IP on a bridge",
        "192.168.1.1",
        parsers.host_address,
        otherwise="this host's own router on that bridge",
        grant=Grant("the guest's way out of your LAN", by_bridge=True),
        verified="gateway",
    )
    dns: IPv4Address | None = key(
        "IPv4",
        "resolver of a FIXED_IP on a bridge",
        "192.168.1.1",
        parsers.host_address,
        otherwise="GATEWAY",
        grant=Grant("the guest's resolver on your LAN", by_bridge=True),
        unverified="which resolver it asks is the guest's own affair; up gives it this one",
    )
    mac: str | None = key(
        "MAC address",
        "MAC address of the guest; not for a user's own container",
        "52:54:00:12:34:56",
        parsers.mac,
        otherwise="derived from the project",
        grant=Grant("the guest has this MAC address on your LAN", by_bridge=True),
        unverified="the guest could not be reached by another: its address is bound to it",
    )
    ports: tuple[PortForward, ...] = key(
        "[ADDR:]HOST:GUEST[/udp] or auto:GUEST[/udp], comma-separated",
        "ports of the host that lead to the guest; on 127.0.0.1 unless ADDR says otherwise; ranges "
        "such as 3000-3009:3000-3009 count for each of theirs",
        "8080:80,auto:3000",
        All(
            forwards.port_items,
            (forwards.port_forwards,),
            forwards.together,
            forwards.each_port_once,
        ),
        hint="PORTS=8080:80 leads from port 8080 of this host to port 80 of the guest",
        grant=Grant(
            "other machines reach the guest at this port of this host",
            is_plain=lambda forward: forward.address.is_loopback,
            covers=forwards.is_wider_forward,
        ),
        applies=AT_ONCE,
        verified="port ",
    )
    lan_allow: tuple[LanRule, ...] = key(
        "CIDR[:PORT][/udp] or host:PORT[/udp], comma-separated; IPv6 in brackets",
        "what the guest may reach in spite of LAN_ACCESS=no; host is this host, which the guest "
        "calls host.containers.internal",
        "192.168.1.0/24:443,host:11434",
        All(parsers.items, (parsers.lan_rule,)),
        hint="LAN_ALLOW=192.168.1.7/32:443,host:11434 allows two services",
        grant=Grant("the guest reaches this", covers=parsers.is_wider_rule, within="LAN_ACCESS"),
        is_built=lambda rules: all(r.network is None or r.network.version == 4 for r in rules),
        so_far="IPv4, which is all that guests have",
        applies=AT_ONCE,
        verified="isolation",
    )
    provision_script: tuple[Provisioner, ...] = provision_keys.PROVISION_SCRIPT
    agent: tuple[str, ...] = agents.AGENT
    agent_env: tuple[str, ...] = agent_env.AGENT_ENV
    provision_vars: Path | None = provision_keys.PROVISION_VARS
    image_sha256: str | None = key(
        "64 hexadecimal digits",
        "checksum of the file or URL in BOX; an http URL must have one",
        "0123456789abcdef" * 4,
        All(str.lower, matching(parsers.SHA256, "64 hexadecimal digits")),
        hint="sha256sum prints it",
        infra_type="vm",
        unverified="checked before the image is used",
    )
    cloud_init: Path | None = key(
        "path",
        "your own #cloud-config",
        "cloud-init/user-data",
        parsers.path,
        locate=files.cloud_config,
        hint="a path starts from the folder of this file",
        infra_type="vm",
        unverified="what it does is its own; up waits for cloud-init and reports its errors",
    )
    ssh_user: str = key(
        "user name",
        "who ssh logs in as, made with sudo where there is no such user",
        "vagrant",
        matching(parsers.USER, "a user name: 1 to 32 of a-z, 0-9, _ and -, a letter or _ first"),
        default=SSH_USER,
        hint="SSH_USER=vagrant is there in every guest",
        verified="ssh",
    )
    ssh_key: tuple[Path, ...] = key(
        "path(s), comma-separated",
        "further public keys that may log in",
        "~/.ssh/id_ed25519.pub",
        parsers.items,
        locate=files.public_keys,
        hint="a public key's name ends in .pub; a path starts from the folder of this file",
        grant=Grant("who has the private key to it logs into the guest"),
        unverified="a private key that fits is not ours to try",
    )
    ca_certs: tuple[Path, ...] = key(
        "path(s), comma-separated",
        "certificate authorities that the guest, its node, Python and Java trust as well, in PEM",
        "ca.pem",
        parsers.items,
        locate=files.certificates,
        hint="a path starts from the folder of this file",
        applies=AT_ONCE,
        verified="certificates",
    )
    mount: Literal["none", "ro", "rw"] = folder_keys.MOUNT
    protect: bool = folder_keys.PROTECT
    hide: tuple[str, ...] = folder_keys.HIDE
    autostart: bool = key(
        "yes or no",
        "start with the host, with its ports and its isolation",
        "no",
        yes_or_no,
        default="no",
        hint="AUTOSTART=yes starts the guest with the host",
        grant=Grant("the guest starts with this host"),
        applies={"vm": AT_ONCE, "container": NEW},
        verified="autostart",
    )
    nested: bool = key(
        "yes or no",
        "whether rootless Podman can run in the container; not in a user's own container",
        "no",
        yes_or_no,
        default="no",
        infra_type="container",
        hint="NESTED=yes lets the guest make namespaces, and so containers, in the container",
        grant=Grant("the guest makes namespaces, and so reaches more of this host's kernel"),
        verified="nested",
    )

    hostname: str | None  # None: cloud-init makes it of a template
    written: tuple[str, ...]  # the fields whose keys `.env` or defaults.env has, sorted
    in_env: tuple[str, ...] | None = None  # those of `.env`; None: a version before grants


def _keys() -> dict[str, Key]:
    found = {}
    for field in fields(Settings):
        for one in field.metadata.get("keys", ()):
            name = one.name or field.name.upper()
            found[name] = replace(
                one,
                name=name,
                hint=one.hint or f"{name}={one.example} is one",
                field=field.name,
                nothing=() if str(field.type).startswith("tuple") else None,
            )
    return found


KEYS = _keys()
# Keys that are decided and not built: an error, so that nobody relies on them.
NOT_BUILT = ("EGRESS", "EGRESS_ALLOW")


def is_not_built(name: str) -> bool:
    """Say whether a name in `.env` is a key that this version knows, and cannot honour at all."""
    return name in NOT_BUILT
