"""The system's libvirt, asked and changed by virsh(1)."""

from __future__ import annotations

from functools import cache

from vagrantp.core.system import Host


def virsh(*arguments: str) -> list[str]:
    """Return argv of one virsh command on the system's libvirt."""
    return ["virsh", "--quiet", "--connect", "qemu:///system", *arguments]


def ask(host: Host, *arguments: str) -> str:
    """Return virsh's answer. Raises ProviderError when libvirt refuses it or does not answer."""
    return host.answer(virsh(*arguments))


@cache
def version(host: Host) -> str:
    """Return the versions of libvirt and QEMU, as virsh prints them. Asked once."""
    return ask(host, "version")


@cache
def capabilities(host: Host) -> str:
    """Return the XML of what domains can have here under software emulation. Asked once."""
    return ask(host, "domcapabilities", "--virttype", "qemu")


def change(host: Host, *arguments: str) -> None:
    """Let virsh change something. Raises ProviderError when libvirt refuses."""
    host.change(virsh(*arguments), what=f"virsh {arguments[0]}", timeout=60)
