"""What `.env` asks for now and an instance was not made with, and when it can have that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vagrantp.instance import record as instances
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings

# Settings by when a change can be had. The others need a new instance, as does a smaller DISK.
AT_START = ("memory", "cpus", "mount")
PROVISIONING = ("provision_script", "provision_vars")
AT_ONCE = {
    "vm": ("disk", "lan_access", "lan_allow", "ports", "autostart", *PROVISIONING),
    "container": ("disk", "lan_access", "lan_allow", "ports", *PROVISIONING),
}
When = Literal["at once", "at the next start", "to a new instance"]


@dataclass(frozen=True)
class Change:
    """A setting that differs from what the instance has, and when it can be had."""

    key: str
    old: str
    new: str
    applies: When

    def __str__(self) -> str:
        return f"{self.key}: {self.old} → {self.new}"


def drift(instance: Instance, settings: Settings) -> list[Change]:
    """Return what `settings` ask for and the instance was not made with."""
    old = instance.machine().get("settings", {})
    when: dict[str, Any] = dict.fromkeys((*AT_START, "fixed_ip"), "at the next start")
    when |= dict.fromkeys(AT_ONCE[settings.infra_type], "at once")
    if settings.infra_type == "vm" and settings.disk < old.get("disk", 0):
        del when["disk"]  # a file system may be shrunk, or be lost
    if settings.network_type != "default":
        del when["fixed_ip"]  # on a bridge it is told to the guest, when that is made
    return [
        Change(key, was, now, when.get(key.lower(), "to a new instance"))
        for key, was, now in instances.differences(old, settings)
    ]
