"""The keys of `.env`: name, validator, default and one-line doc, in one place.

A validator takes the raw text of a value and returns the typed one; it raises
`voluptuous.Invalid` with a text that reads on from the key: "must be …".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voluptuous import ALLOW_EXTRA, All, Invalid, Optional, Required, Schema

BOX_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")

Validator = Callable[[str], Any]


@dataclass(frozen=True)
class Key:
    """One key of `.env`. `default` is the raw text it has when it is not written."""

    name: str
    doc: str
    validate: Validator
    default: str | None = None
    is_required: bool = False
    hint: str | None = None
    infra_type: str | None = None  # the one type it makes sense for; None: both


def whole_number(unit: str, at_most: int) -> Validator:
    """Return a validator for a whole number of `unit` from 1 to `at_most`."""

    def validate(raw: str) -> int:
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


def label(raw: str) -> str:
    """Validate a host name label (RFC 1123, section 2.1)."""
    if not LABEL.fullmatch(raw):
        raise Invalid("must be a host name of 1 to 63 letters, digits and inner dashes")
    return raw


def catalogue_name(raw: str) -> str:
    """Validate the name of a base image that this version can build."""
    if raw != "debian-12":
        raise Invalid("must be debian-12, the one base image of this version")
    return raw


def box_name(raw: str) -> str:
    """Validate the name of a base image of ours or of a Vagrant box."""
    if not BOX_NAME.fullmatch(raw):
        raise Invalid("must be debian-12 or the name of a Vagrant box")
    return raw


def lan_access(raw: str) -> bool:
    """Validate LAN_ACCESS. Until isolation is built, only an honest `yes` is taken."""
    if raw == "no":
        raise Invalid("must be yes in this version, which cannot isolate a guest yet")
    if raw != "yes":
        raise Invalid("must be yes or no")
    return True


def not_supported(raw: str) -> str:
    """Refuse a key of the contract whose feature is not built."""
    raise Invalid("is not supported yet")


def _later(name: str, doc: str) -> Key:
    return Key(name, doc, not_supported, hint=f"take {name} out; this version cannot honour it")


KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        Key(
            "INFRA_TYPE",
            "vm or container",
            one_of("vm", "container"),
            is_required=True,
            hint="INFRA_TYPE=vm makes a virtual machine, INFRA_TYPE=container a Podman container",
        ),
        Key(
            "MEMORY",
            "whole number of MB",
            whole_number(" of MB", 16 * 1024 * 1024),
            is_required=True,
            hint="MEMORY=2048 gives the guest 2 GB",
        ),
        Key(
            "CPUS",
            "whole number",
            whole_number("", 1024),
            is_required=True,
            hint="CPUS=2 gives the guest two",
        ),
        Key(
            "DISK",
            "whole number of GB",
            whole_number(" of GB", 64 * 1024),
            is_required=True,
            hint="DISK=20 gives the guest a disk of 20 GB",
        ),
        Key(
            "NAME",
            "host name; default: the folder's name",
            label,
            hint="NAME=my-project is one",
        ),
        Key(
            "BOX",
            "image of a VM: debian-12, or the name of a Vagrant box",
            box_name,
            default="debian-12",
            infra_type="vm",
        ),
        Key(
            "IMAGE",
            "image of a container",
            catalogue_name,
            default="debian-12",
            infra_type="container",
        ),
        Key(
            "ACCEL",
            "auto, kvm or tcg: how a VM's processor is made",
            one_of("auto", "kvm", "tcg"),
            default="auto",
            infra_type="vm",
            hint="auto takes KVM where a guest really runs under it, else software emulation",
        ),
        Key(
            "LAN_ACCESS",
            "yes: this version cannot keep the guest off the LAN, so it must be written",
            lan_access,
            is_required=True,
            hint="LAN_ACCESS=yes says that you know the guest can reach your LAN",
        ),
        _later("NETWORK_TYPE", "default or bridge"),
        _later("BRIDGE", "host bridge"),
        _later("FIXED_IP", "IPv4 address of the guest"),
        _later("GATEWAY", "IPv4 address"),
        _later("DNS", "IPv4 address"),
        _later("MAC", "MAC address of the guest"),
        _later("PORTS", "forwarded ports"),
        _later("LAN_ALLOW", "exceptions to LAN_ACCESS=no"),
        _later("PROVISION_SCRIPT", "playbooks and scripts"),
        _later("PROVISION_VARS", "variables for the playbook"),
        _later("IMAGE_SHA256", "checksum of BOX"),
        _later("CLOUD_INIT", "your own #cloud-config"),
        _later("SSH_USER", "who ssh logs in as"),
        _later("SSH_KEY", "further public keys that may log in"),
        _later("MOUNT", "none, ro or rw"),
        _later("AUTOSTART", "yes or no"),
    )
}

SCHEMA = Schema(
    {
        (Required if key.is_required else Optional)(key.name): All(key.validate)
        for key in KEYS.values()
    },
    extra=ALLOW_EXTRA,
)
