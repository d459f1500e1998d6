"""What makes instances: libvirt for `vm`, Podman for `container`. Both have the same functions."""

from __future__ import annotations

from typing import Any, Protocol

from vagrantp_guard.contract import LanNic

from vagrantp.core.errors import VagrantpError
from vagrantp.core.progress import Check
from vagrantp.core.system import Host
from vagrantp.instance.found import Found, State
from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings


class Provider(Protocol):
    """The functions that a provider's module has."""

    def list_all(self, host: Host) -> list[Found]:
        """Return each of our instances that the provider knows, in any state."""

    def prepare(
        self,
        host: Host,
        instance: Instance,
        settings: Settings,
        card: LanNic | None,
        is_filled: bool,
    ) -> dict[str, Any]:
        """Make what the instance needs before Vagrant creates it; return what Vagrant must know.

        `card`: its own on a bridge of the host, None where it gets none. `is_filled`: its image may
        have what our own playbooks install.
        """

    def endpoint(self, host: Host, instance: Instance, made: dict[str, Any]) -> tuple[str, int]:
        """Return the address and port of its ssh server. `made`: what `prepare` returned."""

    def keep_address(self, host: Host, instance: Instance, settings: Settings) -> str:
        """See that a stopped one gets FIXED_IP, or the address that it had; return it."""

    def isolate(self, host: Host, instance: Instance, settings: Settings) -> None:
        """Record what it may reach and how it gets its project, for the hook that starts it."""

    def adopt(self, host: Host, instance: Instance) -> None:
        """Complete the records of an instance that an older version made."""

    def live(self, host: Host, instance: Instance) -> tuple[State, str]:
        """Return its state, and the process id of its QEMU or first process, by one query.

        The id is "" where it is not known.
        """

    def pid(self, host: Host, instance: Instance) -> str:
        """Return that process id if it runs, else ""."""

    def why_ended(self, host: Host, instance: Instance) -> VagrantpError | None:
        """Return why an instance that was started does not run; None where it does, or never did.

        If a start failed, that may be the end of an earlier run.
        """

    def start(self, host: Host, instance: Instance) -> None:
        """Start a stopped instance."""

    def resume(self, host: Host, instance: Instance) -> None:
        """Resume a paused instance. Raises the reason if it was halted and nobody paused it."""

    def stop(self, host: Host, instance: Instance, force: bool) -> None:
        """Stop a running instance: gracefully, or at once."""

    def resize(self, host: Host, instance: Instance, settings: Settings) -> None:
        """Give it the disk that `settings` ask for, which is larger. What is on it stays."""

    def enforce(self, host: Host, instance: Instance, settings: Settings) -> list[Check]:
        """Set limits again that the provider may have forgotten at a restart.

        Return what `check` finds then.
        """

    def check(self, host: Host, instance: Instance, settings: Settings) -> list[Check]:
        """Compare what the provider gives with the settings. Changes nothing."""

    def clean_up(self, host: Host, instance: Instance) -> None:
        """Remove everything of the instance that the provider still holds."""


def provider_for(infra_type: str) -> Provider:
    """Return the provider of a type, `vm` or `container`."""
    from vagrantp.providers import libvirt, podman

    return libvirt if infra_type == "vm" else podman
