"""The keys of `.env`, in one place: value, default, meaning, example, and what makes no sense.

A validator takes the raw text of a value and returns the typed one. A locator, for a value that
names files, takes the folder that relative paths start from and the typed value, finds the files,
looks into them and returns the value with absolute paths. Both raise `voluptuous.Invalid` with a
text that reads on from the key: "must be …".
"""

from __future__ import annotations

import csv
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from itertools import combinations
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from vagrantp_guard.contract import LanRule
from voluptuous import All, Invalid, Schema

from vagrantp.core import documents

CATALOGUE = ("debian-12", "debian-13", "ubuntu-24.04", "fedora", "alpine", "arch")
BUILT_IMAGE = "debian-12"  # the one of the catalogue that this version can make
SSH_USER = "vagrant"  # whom boxes made for Vagrant have, by another name perhaps
OUR_PLAYBOOKS = ("base", "agent")
MAX_LENGTH = 8192  # characters of a value: twice what a path may have

LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")  # 15 bytes: IFNAMSIZ, linux/if.h
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")  # what useradd(8) takes
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
JINJA = re.compile(r"## *template: *jinja *\n", re.IGNORECASE)  # cloud-init's, its templater.py
SHA256 = re.compile(r"[0-9a-f]{64}")
SIZE = re.compile(r"([0-9]{1,9})\s*([MGT])(I?B)?")
ADDRESS = r"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[0-9A-Fa-f:.]+)\])"
FORWARD = re.compile(
    rf"(?:{ADDRESS}:)?(?P<host>[0-9]{{1,5}}):(?P<guest>[0-9]{{1,5}})(?P<udp>/udp)?"
)
AUTO_FORWARD = re.compile(r"auto:(?P<guest>[0-9]{1,5})(?P<udp>/udp)?")
RULE = re.compile(
    r"(?:(?P<host>host)|(?P<v4>[0-9.]+(?:/[0-9]{1,2})?)|\[(?P<v6>[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<udp>/udp)?"
)
VAGRANT_BOX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
# github.com/distribution/reference, regexp.go
_DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
OCI_REFERENCE = re.compile(
    rf"(?:{_DOMAIN}(?:\.{_DOMAIN})*(?::[0-9]{{1,5}})?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,128})?"
)

Protocol = Literal["tcp", "udp"]
Validator = Callable[[str], Any]
Locator = Callable[[Path, Any], Any]


@dataclass(frozen=True)
class PortForward:
    """A port of the host that leads to one of the guest. `host` None: any free one, then kept."""

    address: IPv4Address | IPv6Address
    host: int | None
    guest: int
    protocol: Protocol

    def __str__(self) -> str:
        address = f"[{self.address}]:" if ":" in str(self.address) else f"{self.address}:"
        start = "auto" if self.host is None else f"{address}{self.host}"
        return f"{start}:{self.guest}{'/udp' if self.protocol == 'udp' else ''}"


@dataclass(frozen=True)
class Provisioner:
    """A step of provisioning: a playbook or script at `path`, or one of OUR_PLAYBOOKS."""

    kind: Literal["ours", "playbook", "script"]
    path: Path

    def __str__(self) -> str:
        text = str(self.path)
        return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text


@dataclass(frozen=True)
class Misfit:
    """A sound value of `key` that makes no sense beside the others. `text` reads on from the key.

    `is_idle`: nothing would use it, which is no mistake where values for all projects stand.
    """

    key: str
    text: str
    hint: str
    is_idle: bool = True


def one_line(raw: str) -> str:
    """Validate what no value may be, whatever its key: long, or with control characters."""
    if len(raw) > MAX_LENGTH:
        raise Invalid(f"must be shorter than {MAX_LENGTH} characters")
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in raw):
        raise Invalid("must be on one line, without control characters")
    return raw


def whole_number(unit: str, at_most: int, sizes: Mapping[str, int]) -> Validator:
    """Return a validator for a whole number of `unit` from 1 to `at_most`.

    `sizes` has the units, in MiB, that people write behind it, and under "" what `unit` is.
    """

    def validate(raw: str) -> int:
        if sizes and (size := SIZE.fullmatch(raw.upper())):
            amount, rest = divmod(int(size[1]) * sizes[size[2]], sizes[""])
            if amount and not rest:
                raise Invalid(f"must be a whole number{unit} without a unit, {amount} here")
        if not re.fullmatch(r"[0-9]+", raw, re.ASCII) or int(raw[:20]) < 1:
            raise Invalid(f"must be a whole number{unit} above 0")
        if int(raw[:20]) > at_most:
            raise Invalid(f"must be a whole number{unit}, {at_most} at most")
        return int(raw)

    return validate


def one_of(*words: str) -> Validator:
    """Return a validator for exactly one of `words`."""

    def validate(raw: str) -> str:
        if raw not in words:
            raise Invalid(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return raw

    return validate


def yes_or_no(raw: str) -> bool:
    """Validate `yes` or `no`."""
    if raw not in ("yes", "no"):
        raise Invalid("must be yes or no")
    return raw == "yes"


def matching(pattern: re.Pattern[str], what: str) -> Validator:
    """Return a validator for text that matches `pattern` as a whole; `what` says it in words."""

    def validate(raw: str) -> str:
        if not pattern.fullmatch(raw):
            raise Invalid(f"must be {what}")
        return raw

    return validate


def mac(raw: str) -> str:
    """Validate the MAC address of a guest; return it in lower case."""
    if not MAC.fullmatch(address := raw.lower()):
        raise Invalid("must be a MAC address: six pairs of hexadecimal digits, joined by colons")
    if int(address[:2], 16) & 1 or address == "00:00:00:00:00:00":
        raise Invalid("must be the MAC address of one machine: its first pair even, not all zero")
    if address.startswith("fe:"):
        raise Invalid("must not start with fe, which libvirt keeps for its own end of the cable")
    return address


def host_address(raw: str) -> IPv4Address:
    """Validate the IPv4 address of one machine."""
    try:
        address = IPv4Address(raw)
    except AddressValueError:
        raise Invalid("must be an IPv4 address") from None
    if address.is_loopback or address.is_multicast or address.is_reserved or address in _THIS:
        raise Invalid("must be the address of a machine, not a loopback, multicast or reserved one")
    return address


_THIS = IPv4Network("0.0.0.0/8")  # RFC 1122, section 3.2.1.3: "this host on this network"


def fixed_ip(raw: str) -> IPv4Address:
    """Validate the address of the guest: an IPv4Interface where a prefix is written."""
    text, slash, prefix = raw.partition("/")
    address = host_address(text)
    if not slash:
        return address
    if not re.fullmatch(r"[0-9]{1,2}", prefix, re.ASCII) or not 8 <= int(prefix) <= 30:
        raise Invalid("must have a prefix from /8 to /30, or none")
    interface = IPv4Interface(f"{text}/{prefix}")
    if interface.ip == interface.network.network_address:
        raise Invalid(f"must be the address of a machine, not of the network {interface.network}")
    if interface.ip == interface.network.broadcast_address:
        raise Invalid(f"must be the address of a machine, not the broadcast of {interface.network}")
    return interface


def items(raw: str) -> tuple[str, ...]:
    """Split at commas. As in a line of CSV, double quotes keep one that an item holds."""
    try:
        [found] = csv.reader([raw], skipinitialspace=True, strict=True) if raw else [[""]]
    except csv.Error:
        raise Invalid('must have a closing " and then a comma behind what is quoted') from None
    texts = tuple(item.strip() for item in found)
    if not all(texts):
        raise Invalid("must have something before, between and after its commas")
    return texts


def port_forward(text: str) -> PortForward:
    """Validate one item of PORTS."""
    match = FORWARD.fullmatch(text) or AUTO_FORWARD.fullmatch(text)
    if not match:
        raise Invalid("must be [ADDR:]HOST:GUEST[/udp] or auto:GUEST[/udp], comma-separated")
    found = {"v4": None, "v6": None, "host": None, **match.groupdict()}
    try:
        address = ip_address(found["v4"] or found["v6"] or "127.0.0.1")
        is_usable = not address.is_multicast and (address.version == 6) == bool(found["v6"])
    except ValueError:
        is_usable = False
    if not is_usable:
        raise Invalid("must have an address of this host before its ports, when it has one")
    host = None if found["host"] is None else port(found["host"])
    return PortForward(address, host, port(match["guest"]), "udp" if match["udp"] else "tcp")


def port(text: str) -> int:
    """Validate a port that is written in digits."""
    if not 1 <= int(text) <= 65535:
        raise Invalid("must have ports from 1 to 65535")
    return int(text)


def each_port_once(forwards: tuple[PortForward, ...]) -> tuple[PortForward, ...]:
    """Validate that no two forwards want the same port of the host, or the same free one."""
    for one, other in combinations(forwards, 2):
        if one.protocol != other.protocol or one.host != other.host:
            continue
        if one.host is None and one.guest == other.guest:
            raise Invalid(f"must not have auto:{one.guest} twice")
        is_everywhere = one.address.is_unspecified or other.address.is_unspecified
        overlap = is_everywhere and one.address.version == other.address.version
        if one.host is not None and (overlap or one.address == other.address):
            raise Invalid(f"must not have port {one.host} of the host twice")
    return forwards


def lan_rule(text: str) -> LanRule:
    """Validate one item of LAN_ALLOW."""
    if not (match := RULE.fullmatch(text)):
        raise Invalid("must be CIDR[:PORT][/udp] or host:PORT[/udp], comma-separated")
    number = None if match["port"] is None else port(match["port"])
    protocol: Protocol | None = "udp" if match["udp"] else "tcp" if number else None
    if match["host"]:
        if number is None:
            raise Invalid("must name a port behind host, as in host:11434")
        return LanRule(None, number, protocol)
    try:
        network = (
            IPv4Network(match["v4"], False) if match["v4"] else IPv6Network(match["v6"], False)
        )
    except ValueError:
        raise Invalid("must have a network such as 192.168.1.0/24 or [fd00::/8]") from None
    if ip_address((match["v4"] or match["v6"]).partition("/")[0]) != network.network_address:
        raise Invalid(f"must have the network's own address, {network} here")
    return LanRule(network, number, protocol)


def path(raw: str) -> Path:
    """Validate the path of a file, as it is written."""
    if not raw.strip():
        raise Invalid("must be the path of a file")
    return Path(raw)


def provisioner(text: str) -> Provisioner:
    """Validate one item of PROVISION_SCRIPT."""
    if text in OUR_PLAYBOOKS:
        return Provisioner("ours", Path(text))
    is_playbook = text.lower().endswith((".yml", ".yaml"))
    return Provisioner("playbook" if is_playbook else "script", Path(text))


def box(raw: str) -> str | Path:
    """Validate BOX: a Path for an image file, else a name or URL."""
    if raw.startswith(("./", "/", "~/")):
        return path(raw)
    if "://" in raw:
        try:
            url = urlsplit(raw)
            is_url = url.scheme in ("http", "https") and url.hostname and url.port != 0
        except ValueError:  # of a bad port, or what looks like an IPv6 address
            is_url = False
        if not is_url or re.search(r"\s", raw):
            raise Invalid("must be an http or https URL with a host, when it is a URL")
        return raw
    if not VAGRANT_BOX.fullmatch(raw):
        raise Invalid("must be debian-12, a Vagrant box, or a cloud image at ./, /, ~/ or a URL")
    return raw


def located(base: Path, named: Path) -> Path:
    """Find a file that a value names: `~/` is the home folder, else `base` is where it starts."""
    home = named.parts[:1] == ("~",)
    found = Path.home().joinpath(*named.parts[1:]) if home else base / named
    try:
        mode = found.stat().st_mode
    except FileNotFoundError:
        raise Invalid("must name a file that is there") from None
    except OSError as error:
        raise Invalid(f"must name a file that can be read ({error.strerror})") from None
    if stat.S_ISDIR(mode):
        raise Invalid("must name a file, not a folder")
    if not stat.S_ISREG(mode):
        raise Invalid("must name a regular file")
    if not os.access(found, os.R_OK, effective_ids=True):
        raise Invalid("must name a file that you may read")
    return found


def content(file: Path) -> str:
    """Return the text of a file. Raises Invalid where it has none."""
    with readable():
        return documents.text(file)


@contextmanager
def readable() -> Iterator[None]:
    """Raise Invalid for a document that cannot be used."""
    try:
        yield
    except documents.Unreadable as error:
        raise Invalid(f"must name a file {error}") from None


def first_line(script: Path) -> bytes:
    """Return what a script starts with, as far as a kernel reads it (BINPRM_BUF_SIZE)."""
    with script.open("rb") as file:
        return file.readline(256)


def yaml_shape(text: str) -> tuple[str, list[list[str]]]:
    """Return what a YAML document is: sequence, mapping or scalar, "" when empty; and of each item
    of a sequence its keys.
    """
    with readable():
        root = documents.compose(text)
    if root is None or root.id != "sequence":
        return root.id if root else "", []
    return root.id, [documents.keys(item) if item.id == "mapping" else [] for item in root.value]


def provisioners(base: Path, steps: tuple[Provisioner, ...]) -> tuple[Provisioner, ...]:
    """Find the playbooks and scripts."""
    found: tuple[Provisioner, ...] = Schema((partial(_step, base),))(steps)
    return found


def _step(base: Path, step: Provisioner) -> Provisioner:
    if step.kind == "ours":
        return step
    found = located(base, step.path)
    if step.kind == "script":
        if not found.stat().st_mode & 0o111:
            raise Invalid("must name a script that is executable, or a playbook that ends in .yml")
        if first_line(found).endswith(b"\r\n"):
            raise Invalid("must name a script whose lines end as on Unix, without CR")
    if step.kind == "playbook" and not _is_encrypted(text := content(found)):
        _, plays = yaml_shape(text)
        if not plays or not all(map(_is_play, plays)):
            raise Invalid("must name a playbook, which is a list of plays, each with hosts")
    return replace(step, path=found)


def _is_play(keys: list[str]) -> bool:
    return any(key == "hosts" or key.endswith("import_playbook") for key in keys)


def _is_encrypted(text: str) -> bool:
    """Say whether ansible-vault(1) made it; only Ansible can look inside."""
    return text.startswith("$ANSIBLE_VAULT;")


def variables(base: Path, named: Path) -> Path:
    """Find a file of variables for a playbook, in YAML or JSON."""
    found = located(base, named)
    if _is_encrypted(text := content(found)):
        return found
    if yaml_shape(text)[0] not in ("mapping", ""):
        raise Invalid("must name a file of variables, each a line such as name: value")
    return found


def cloud_config(base: Path, named: Path) -> Path:
    """Find a user's cloud-config. One that is a template only cloud-init can look into."""
    found = located(base, named)
    text = content(found)
    is_template = JINJA.match(text)
    if not text.removeprefix(is_template[0] if is_template else "").startswith("#cloud-config"):
        raise Invalid("must name a file whose first line is #cloud-config")
    if not is_template:
        with readable():
            keys = documents.load(text)
        if not isinstance(keys, dict | None):
            raise Invalid("must name a file of cloud-config keys, each a line such as packages: …")
    return found


def public_keys(base: Path, named: tuple[str, ...]) -> tuple[Path, ...]:
    """Find files of public SSH keys."""
    found: tuple[Path, ...] = Schema((partial(_public_key, base),))(named)
    return found


def _public_key(base: Path, named: str) -> Path:
    found = located(base, Path(named))
    lines = [line for line in content(found).splitlines() if line.strip() and line[0] != "#"]
    if any("PRIVATE KEY" in line for line in lines):
        raise Invalid("must name a public key, not the private one")
    if not lines or not all(re.match(r"(ssh|ecdsa|sk)-\S+ AAAA\S+", line) for line in lines):
        raise Invalid("must name a file of public keys, each a line such as ssh-ed25519 AAAA…")
    return found


def image_file(base: Path, value: str | Path) -> str | Path:
    """Find the cloud image, where BOX names a file."""
    return located(base, value) if isinstance(value, Path) else value


def always(value: object) -> bool:
    """Say that every value of a key works."""
    return True


@dataclass(frozen=True)
class Key:
    """One key of `.env`.

    `value` says what may be written, `doc` what it does, `example` is a value that is sound;
    `default` is the raw text it has when it is not written, `otherwise` says in words what holds
    then. `infra_type`: the one type it makes sense for; `words`: what other tools call it.
    `is_built` says of a typed value whether this version can honour it; `so_far`, where it can
    honour some, which ones.
    """

    name: str
    value: str
    doc: str
    example: str
    validate: Validator
    locate: Locator | None = None
    default: str | None = None
    otherwise: str = ""
    is_required: bool = False
    hint: str | None = None
    infra_type: str | None = None
    words: tuple[str, ...] = ()
    is_built: Callable[[Any], bool] = always
    so_far: str = ""


_MIB = {"M": 1, "G": 1024, "T": 1024**2}

KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        Key(
            "INFRA_TYPE",
            "vm or container",
            "a virtual machine of libvirt, or a container of Podman",
            "vm",
            one_of("vm", "container"),
            is_required=True,
            hint="INFRA_TYPE=vm makes a virtual machine, INFRA_TYPE=container a Podman container",
            words=("TYPE",),
        ),
        Key(
            "MEMORY",
            "whole number of MB",
            "exactly this much RAM, in MiB as Vagrant counts; the guest's kernel keeps a little",
            "2048",
            whole_number(" of MB", 16 * 1024 * 1024, _MIB | {"": 1}),
            is_required=True,
            hint="MEMORY=2048 gives the guest 2 GB",
            words=("RAM", "MEM"),
        ),
        Key(
            "CPUS",
            "whole number",
            "exactly this many processors",
            "2",
            whole_number("", 1024, {}),
            is_required=True,
            hint="CPUS=2 gives the guest two",
            words=("CPU", "VCPU", "VCPUS"),
        ),
        Key(
            "DISK",
            "whole number of GB",
            "a disk of exactly this size, in GiB; a VM's may grow, a container's needs a quota",
            "20",
            whole_number(" of GB", 64 * 1024, _MIB | {"": 1024}),
            is_required=True,
            hint="DISK=20 gives the guest a disk of 20 GB",
            words=("DISK_SIZE",),
        ),
        Key(
            "NAME",
            "host name",
            "name of the instance, and the guest's host name",
            "my-project",
            matching(LABEL, "a host name of 1 to 63 letters, digits and inner dashes"),
            otherwise="the folder's name",
            hint="NAME=my-project is one",
            words=("INFRA_ID",),
        ),
        Key(
            "BOX",
            "debian-12, a Vagrant box, or a cloud image: ./…, /…, ~/… or a URL",
            "image of a VM",
            "debian-12",
            box,
            image_file,
            default="debian-12",
            hint="BOX=debian-12 is built here; BOX=generic/debian12 is a Vagrant box",
            infra_type="vm",
        ),
        Key(
            "IMAGE",
            "debian-12 or an OCI reference",
            "image of a container; ssh and Python are added where they are missing",
            "debian-12",
            matching(OCI_REFERENCE, "debian-12 or an OCI reference"),
            default="debian-12",
            hint="IMAGE=debian-12 is built here; IMAGE=docker.io/library/node:22 is a reference",
            infra_type="container",
        ),
        Key(
            "ACCEL",
            "auto, kvm or tcg",
            "how a VM's processor is made: KVM, software emulation, or KVM where it really works",
            "auto",
            one_of("auto", "kvm", "tcg"),
            default="auto",
            infra_type="vm",
            hint="auto takes KVM where a guest really runs under it, else software emulation",
        ),
        Key(
            "LAN_ACCESS",
            "yes or no",
            "whether the guest can reach your LAN; this host and other guests only on a bridge",
            "no",
            yes_or_no,
            default="no",
            hint="LAN_ACCESS=no keeps the guest from your LAN; LAN_ALLOW opens single services",
        ),
        Key(
            "NETWORK_TYPE",
            "default or bridge",
            "behind the host's address (NAT), or a peer on its LAN",
            "default",
            one_of("default", "bridge"),
            default="default",
            hint="NETWORK_TYPE=bridge puts the guest on the host bridge BRIDGE",
            words=("NETWORK_MODE",),
        ),
        Key(
            "BRIDGE",
            "name of an interface",
            "host bridge for NETWORK_TYPE=bridge",
            "br0",
            matching(INTERFACE, "the name of an interface, 15 characters at most"),
            otherwise="the only one that leads out of this host",
            hint="'ip link show type bridge' lists the bridges of this host",
        ),
        Key(
            "FIXED_IP",
            "IPv4[/prefix]",
            "the guest's address, the same at every start",
            "192.168.1.50/24",
            fixed_ip,
            hint="FIXED_IP=192.168.1.50/24 is one",
            words=("IP_ADDRESS", "STATIC_IP"),
        ),
        Key(
            "GATEWAY",
            "IPv4",
            "router of a FIXED_IP on a bridge",
            "192.168.1.1",
            host_address,
            otherwise="this host's own router on that bridge",
            hint="GATEWAY=192.168.1.1 is one",
        ),
        Key(
            "DNS",
            "IPv4",
            "resolver of a FIXED_IP on a bridge",
            "192.168.1.1",
            host_address,
            otherwise="GATEWAY",
            hint="DNS=192.168.1.1 is one",
        ),
        Key(
            "MAC",
            "MAC address",
            "MAC address of the guest",
            "52:54:00:12:34:56",
            mac,
            otherwise="derived from the project",
            hint="MAC=52:54:00:12:34:56 is one",
        ),
        Key(
            "PORTS",
            "[ADDR:]HOST:GUEST[/udp] or auto:GUEST[/udp], comma-separated",
            "ports of the host that lead to the guest; on 127.0.0.1 unless ADDR says otherwise",
            "8080:80,auto:3000",
            All(items, (port_forward,), each_port_once),
            hint="PORTS=8080:80 leads from port 8080 of this host to port 80 of the guest",
        ),
        Key(
            "LAN_ALLOW",
            "CIDR[:PORT][/udp] or host:PORT[/udp], comma-separated; IPv6 in brackets",
            "what the guest may reach in spite of LAN_ACCESS=no; host is this host itself",
            "192.168.1.0/24:443,host:11434",
            All(items, (lan_rule,)),
            hint="LAN_ALLOW=192.168.1.7/32:443,host:11434 allows two services",
            is_built=lambda rules: all(r.network is None or r.network.version == 4 for r in rules),
            so_far="IPv4, which is all that guests have",
        ),
        Key(
            "PROVISION_SCRIPT",
            "path(s), base or agent, comma-separated",
            "what sets the guest up: a playbook (.yml), a script, or a playbook of ours",
            "base,setup.yml,./install",
            All(items, (provisioner,)),
            provisioners,
            hint="paths start from the folder of this file; quote one that holds a comma",
            words=("PROVISIONING_PLAYBOOK", "PLAYBOOK"),
        ),
        Key(
            "PROVISION_VARS",
            "path",
            "extra variables for the playbook, in YAML or JSON",
            "vars.yml",
            path,
            variables,
            hint="a path starts from the folder of this file",
        ),
        Key(
            "IMAGE_SHA256",
            "64 hexadecimal digits",
            "checksum of the file or URL in BOX",
            "0123456789abcdef" * 4,
            All(str.lower, matching(SHA256, "64 hexadecimal digits")),
            hint="sha256sum prints it",
            infra_type="vm",
        ),
        Key(
            "CLOUD_INIT",
            "path",
            "your own #cloud-config",
            "cloud-init/user-data",
            path,
            cloud_config,
            hint="a path starts from the folder of this file",
            infra_type="vm",
        ),
        Key(
            "SSH_USER",
            "user name",
            "who ssh logs in as",
            "vagrant",
            matching(USER, "a user name: 1 to 32 of a-z, 0-9, _ and -, a letter or _ first"),
            default=SSH_USER,
            hint="SSH_USER=vagrant is there in every guest",
        ),
        Key(
            "SSH_KEY",
            "path(s), comma-separated",
            "further public keys that may log in",
            "~/.ssh/id_ed25519.pub",
            items,
            public_keys,
            hint="a public key's name ends in .pub; a path starts from the folder of this file",
        ),
        Key(
            "MOUNT",
            "none, ro or rw",
            "the project folder inside the guest, at /project",
            "none",
            one_of("none", "ro", "rw"),
            default="none",
            hint="MOUNT=ro lets the guest read the project folder, MOUNT=rw write it, too",
        ),
        Key(
            "AUTOSTART",
            "yes or no",
            "start with the host",
            "no",
            yes_or_no,
            default="no",
            hint="AUTOSTART=yes starts the guest with the host",
        ),
    )
}


def misfits(values: Mapping[str, Any], written: Collection[str]) -> Iterator[Misfit]:
    """Yield what makes no sense together.

    `values`: the sound typed values, defaults among them; `written`: all keys that were written.
    """
    infra_type, network = values.get("INFRA_TYPE"), values.get("NETWORK_TYPE")
    for key in sorted(written, key=list(KEYS).index):
        only = KEYS[key].infra_type
        if only and infra_type and infra_type != only:
            yield Misfit(key, f"is for INFRA_TYPE={only}", f"take {key} out")
        elif key in ("BRIDGE", "GATEWAY", "DNS") and network == "default":
            hint = f"take {key} out, or write NETWORK_TYPE=bridge"
            yield Misfit(key, "is for NETWORK_TYPE=bridge", hint)
        elif key in ("GATEWAY", "DNS") and "FIXED_IP" not in written:
            hint = f"take {key} out, or give the guest a FIXED_IP"
            yield Misfit(key, "is for a guest with FIXED_IP", hint)
        elif key == "IMAGE_SHA256" and _is_name(values.get("BOX")):
            hint = "take IMAGE_SHA256 out; what BOX names is checked in its own way"
            yield Misfit(key, "is for a file or URL in BOX", hint)
        elif key == "PROVISION_VARS" and not _has_playbook(values, written):
            hint = "take PROVISION_VARS out, or name a playbook"
            yield Misfit(key, "is for a playbook in PROVISION_SCRIPT", hint)
        elif key == "GATEWAY" and (text := _unreachable(values.get(key), values.get("FIXED_IP"))):
            hint = "it is the router of the network that the guest is on"
            yield Misfit(key, text, hint, is_idle=False)


def _is_name(image: object) -> bool:
    return isinstance(image, str) and "://" not in image


def _has_playbook(values: Mapping[str, Any], written: Collection[str]) -> bool:
    if "PROVISION_SCRIPT" in written and "PROVISION_SCRIPT" not in values:
        return True  # there may be one once its mistake is mended
    return any(step.kind != "script" for step in values.get("PROVISION_SCRIPT", ()))


def _unreachable(gateway: IPv4Address | None, address: IPv4Address | None) -> str:
    """Return why a guest at `address` could not reach `gateway`, or nothing."""
    if gateway is None or address is None:
        return ""
    if gateway == IPv4Address(int(address)):
        return "must be another address than FIXED_IP"
    if isinstance(address, IPv4Interface):
        net = address.network
        if gateway not in net or gateway in (net.network_address, net.broadcast_address):
            return f"must be a machine on FIXED_IP's network {net}"
    return ""


def meant(name: str) -> str | None:
    """Return the key that a foreign one was probably meant to be, or None."""
    from difflib import get_close_matches

    word = name.upper().replace("-", "_")
    for key in KEYS.values():
        is_twisted = len(word) > 4 and sorted(word) == sorted(key.name)  # MEMROY
        if word in (key.name, *key.words) or is_twisted:
            return key.name
    near = [key for key in KEYS if abs(len(key) - len(word)) <= 1]
    # 0.88 takes one letter more or less (PORT, MEMRY); SSL_KEY is nobody's SSH_KEY
    return next(iter(get_close_matches(word, near, n=1, cutoff=0.88)), None)
