"""Raw text of `.env` -> typed values.

A parser takes the raw text of a value and returns the typed one. It raises `voluptuous.Invalid`
with a text that reads on from the key: "must be …".
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Network,
    ip_address,
)
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

from vagrantp_guard.contract import LanRule
from voluptuous import Invalid

OUR_PLAYBOOKS = ("base", "agent")
MAX_LENGTH = 8192  # characters of a value: twice what a path may have

LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")  # 15 bytes: IFNAMSIZ, linux/if.h
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")  # what useradd(8) takes
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
SHA256 = re.compile(r"[0-9a-f]{64}")
SIZE = re.compile(r"([0-9]{1,9})\s*([MGT])(I?B)?")
ADDRESS = r"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[0-9A-Fa-f:.]+)\])"
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
Parser = Callable[[str], Any]


@dataclass(frozen=True)
class Provisioner:
    """A step of provisioning: a playbook or script at `path`, or one of OUR_PLAYBOOKS."""

    kind: Literal["ours", "playbook", "script"]
    path: Path

    def __str__(self) -> str:
        return quoted(str(self.path))


def one_line(raw: str) -> str:
    """Refuse what no key allows: a very long value, or one with control characters."""
    if len(raw) > MAX_LENGTH:
        raise Invalid(f"must be shorter than {MAX_LENGTH} characters")
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in raw):
        raise Invalid("must be on one line, without control characters")
    return raw


def whole_number(unit: str, at_most: int, sizes: Mapping[str, int]) -> Parser:
    """Return a parser of a whole number of `unit` from 1 to `at_most`.

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


def one_of(*words: str) -> Parser:
    """Return a parser of exactly one of `words`."""

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


def matching(pattern: re.Pattern[str], what: str) -> Parser:
    """Return a parser of text that matches `pattern` as a whole; `what` says it in words."""

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


def quoted(item: str) -> str:
    """Return an item as `items` reads it."""
    return '"' + item.replace('"', '""') + '"' if set(item) & set(',"') else item


def port(text: str) -> int:
    """Validate a port that is written in digits."""
    if not 1 <= int(text) <= 65535:
        raise Invalid("must have ports from 1 to 65535")
    return int(text)


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


def order(*words: str) -> Callable[[str, str], bool]:
    """Return a function that says whether a word gives as much as another, or more.

    `words`: from the one that gives least to the one that gives most.
    """
    return lambda one, other: one in words and other in words[: words.index(one) + 1]


def is_wider_rule(one: str, other: str) -> bool:
    """Say whether an item of LAN_ALLOW, or LAN_ACCESS=yes, allows all that another item does."""
    try:
        narrow = lan_rule(other)
        if one == "yes":  # which opens networks, and no service of this host
            return narrow.network is not None
        wide = lan_rule(one)
    except Invalid:
        return False
    if wide.network is None or narrow.network is None:
        return wide == narrow
    is_port = wide.port in (None, narrow.port) and wide.protocol in (None, narrow.protocol)
    outer, inner = wide.network, narrow.network
    return is_port and outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def path(raw: str) -> Path:
    """Validate the path of a file, as it is written."""
    if not raw.strip():
        raise Invalid("must be the path of a file")
    return Path(raw)


def each_once(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Validate that no item is there twice."""
    for text in texts:
        if texts.count(text) > 1:
            raise Invalid(f"must not have {text} twice")
    return texts


def inside(text: str) -> str:
    """Validate a path in the project folder; return it without `.` and needless slashes."""
    named = PurePosixPath(text)
    if named.is_absolute() or ".." in named.parts or not named.parts:
        raise Invalid("must be a path in the project's folder, without ..")
    if any(part.casefold() == ".git" for part in named.parts):
        raise Invalid("must not be .git or in it: git in the guest needs all of it")
    return str(named)


def apart(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Validate that none of several paths is another one, or in it."""
    for number, one in enumerate(paths):
        for other in paths[:number] + paths[number + 1 :]:
            if PurePosixPath(one).is_relative_to(other):
                why = "twice" if one == other else f"in {other}, which is hidden as a whole"
                raise Invalid(f"must not have {one} {why}")
    return paths


def hides_no_less(had: str, now: str) -> bool:
    """Say whether of two values of HIDE as text, "" for none, the second hides all of the first."""
    try:
        before, after = (items(text) if text else () for text in (had, now))
    except Invalid:
        return False
    return all(any(PurePosixPath(one).is_relative_to(other) for other in after) for one in before)


def provisioner(text: str) -> Provisioner:
    """Validate one item of PROVISION_SCRIPT."""
    if text in OUR_PLAYBOOKS:
        return Provisioner("ours", Path(text))
    is_playbook = text.lower().endswith((".yml", ".yaml"))
    return Provisioner("playbook" if is_playbook else "script", Path(text))


def is_web_url(text: str) -> bool:
    """Say whether a text is an http or https URL with a host."""
    try:
        url = urlsplit(text)
        is_web = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # of a bad port, or what looks like an IPv6 address
        return False
    return bool(is_web) and not re.search(r"[\s\x00-\x1f\x7f]", text)


def box(raw: str) -> str | Path:
    """Validate BOX: a Path for an image file, else a name or URL."""
    if raw.startswith(("./", "/", "~/")):
        return path(raw)
    if "://" in raw:
        if not is_web_url(raw):
            raise Invalid("must be an http or https URL with a host, when it is a URL")
        return raw
    if not VAGRANT_BOX.fullmatch(raw):
        raise Invalid("must be debian-13, debian-12, a Vagrant box, or a file or URL of an image")
    return raw
