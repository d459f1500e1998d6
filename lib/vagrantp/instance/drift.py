"""What `.env` asks for now and an instance was not made with, and when that can apply."""

from __future__ import annotations

from dataclasses import dataclass

from vagrantp.instance.record import Instance
from vagrantp.settings import rules, saved
from vagrantp.settings.env import Settings
from vagrantp.settings.schema import When

AT_START = ("memory", "cpus", "mount")  # settings that the Vagrantfile gives to a VM as it starts
PROVISIONING = ("agent", "provision_script", "provision_vars")


@dataclass(frozen=True)
class Change:
    """A setting that differs from what the instance has, and when it can apply."""

    key: str
    old: str
    new: str
    applies: When

    def __str__(self) -> str:
        return f"{self.key}: {self.old} → {self.new}"


def drift(instance: Instance, settings: Settings) -> list[Change]:
    """Return what `settings` ask for and the instance was not made with."""
    old = instance.settings
    if old is None:
        return []
    settings = saved.kept(old, settings)
    return [
        Change(key, was, now, rules.applies(key, old, settings))
        for key, was, now in saved.differences(old, settings)
        if key != "PROTECT" or settings.mount == "rw"
    ]
