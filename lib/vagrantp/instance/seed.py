"""What a new guest reads at its first boot."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from vagrantp_guard import contract

from vagrantp.core.places import SCRIPTS
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings

USER_SCRIPT = SCRIPTS / "user.sh"
FIRST_BOOT = SCRIPTS / "first_boot.sh"
ZONE = SCRIPTS / "zone.sh"
ZONE_NAME = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")


def zone(localtime: Path = Path("/etc/localtime")) -> str:
    """Return the name of this host's time zone, "" where it has none."""
    _, _, name = os.path.realpath(localtime).partition("/zoneinfo/")
    return name if ZONE_NAME.fullmatch(name) else ""


def user_script(user: str, keys: str, is_made_later: bool = False, zone: str = "") -> str:
    """Return a script that lets a user log into a guest by `keys`, and become root there by sudo.

    It works in any guest, any number of times: what the user has there already stays.
    `is_made_later`: cloud-init will make the user, as a person's #cloud-config says. `zone`: what
    is the guest's time zone, if it is new.
    """
    later = "yes" if is_made_later else "no"
    values = {"user": user, "keys": keys.strip(), "is_made_later": later, "zone": zone}
    start = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return start + ZONE.read_text(encoding="utf-8") + USER_SCRIPT.read_text(encoding="utf-8")


def networks(lan: contract.LanNic, mac: str) -> dict[str, str]:
    """Return the systemd.network(5) files of a VM with a card on a bridge: the way out is there.

    `mac` is that of its card on our network, which is for this host alone.
    """
    no = ("UseRoutes", "UseDNS", "UseDomains", "UseNTP", "UseGateway", "UseHostname")
    here = ["[Network]", "DHCP=ipv4", "[DHCPv4]", *(f"{what}=no" for what in no)]
    own = ["DHCP=ipv4", "[DHCPv4]", "UseHostname=no"]
    if lan.address:
        own = [f"Address={lan.address}", f"Gateway={lan.gateway}", f"DNS={lan.dns}"]
    there = ["[Network]", "LinkLocalAddressing=no", *own]
    return {
        # a bridge that the guest makes has the address of its card, and a kind
        f"10-{name}.network": "\n".join(["[Match]", f"MACAddress={address}", "Kind=!*", *lines, ""])
        for name, address, lines in (("host", mac, here), ("lan", lan.mac, there))
    }


def cloud_init(
    instance: Instance, settings: Settings, theirs: str | None, user_script: str | None, key: str
) -> dict[str, str]:
    """Return the files of a NoCloud seed. `theirs`: a person's #cloud-config, which stays as it is.

    Nothing is merged into that: a script prepares the guest before all modules (`user_script`, and
    the host key; None where the image does so without cloud-init). Only a NAME in `.env` outranks
    its `hostname`, by a part of its own that replaces it (cloud-init's default is to keep what an
    earlier part says).
    """
    from email.mime.multipart import MIMEMultipart  # takes 0.04 s, and few need it
    from email.mime.text import MIMEText

    parts = [theirs] if theirs else []
    if theirs and settings.hostname == settings.name:
        name = {"hostname": settings.name, "prefer_fqdn_over_hostname": False}
        how = {"merge_how": "dict(replace)+list()+str()"}
        parts.append("#cloud-config\n" + json.dumps(how | name))
    if user_script is not None:
        start = f"#cloud-boothook\n#!/bin/sh\nkey={shlex.quote(key)}\n"
        parts.append(start + FIRST_BOOT.read_text("utf-8") + user_script)
    message = MIMEMultipart()
    for part in parts:
        message.attach(MIMEText(part, "plain", "utf-8"))  # cloud-init looks itself what it is
    meta = {
        "instance-id": instance.full_name,
        "local-hostname": settings.hostname or settings.name,
    }
    # The host key is ours, and sudo looks the name up. What a person says outranks both.
    defaults = {"ssh_deletekeys": False, "manage_etc_hosts": "localhost"}
    return {
        "meta-data": json.dumps(meta),
        "user-data": message.as_string(),
        "vendor-data": "#cloud-config\n" + json.dumps(defaults),
    }


def iso(target: Path, files: Iterable[Path], label: str = "VAGRANTP") -> list[str]:
    """Return argv that packs a seed of these files. One with the label CIDATA is cloud-init's."""
    options = ["-quiet", "-volid", label, "-joliet", "-rock"]
    return ["xorriso", "-as", "genisoimage", *options, "-output", str(target), *map(str, files)]
