"""What libvirt and the Vagrantfile are given for a VM."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from ipaddress import IPv4Network
from typing import Any

from vagrantp_guard import contract

from vagrantp.core.libvirt import virsh
from vagrantp.instance import guard, network
from vagrantp.instance.record import VERSION, Instance
from vagrantp.settings.env import Settings

DNSMASQ = "http://libvirt.org/schemas/network/dnsmasq/1.0"  # formatnetwork.html
SCREEN = '<graphics type="vnc"><listen type="socket"/></graphics>'  # as the Vagrantfile has it


def volumes(instance: Instance) -> tuple[str, str]:
    """Return the names of a VM's volumes: disk and seed."""
    return f"{instance.full_name}.img", f"{instance.full_name}-seed.iso"


def vm(
    instance: Instance, settings: Settings, lan: contract.LanNic | None, **facts: object
) -> dict[str, Any]:
    """Return what the Vagrantfile needs for a VM. `facts`: box, address, network, seed, …

    `lan`: its card on a bridge of the host, None where it has none.
    """
    return {
        **acceleration(str(facts["accel"])),
        "memory": settings.memory,
        "cpus": settings.cpus,
        "disk": settings.disk,
        "mount": settings.mount,
        "mac": network.mac(instance, settings),
        "port": f"{contract.TAPS}{instance.id}",
        "metadata": metadata(instance, settings, str(facts["address"]), lan),
        "lan": lan and lan.to_json(),
        **facts,
    }


def acceleration(accel: str) -> dict[str, Any]:
    """Return what the Vagrantfile needs for a VM's processor. `accel`: kvm or tcg."""
    if accel == "kvm":
        return {"accel": accel, "driver": "kvm", "cpu": {"mode": "host-model"}}
    # all that QEMU emulates: numpy and agents' programs stop at qemu64, which lacks SSE4.2 and AVX
    return {"accel": accel, "driver": "qemu", "cpu": {"mode": "maximum"}}


def metadata(
    instance: Instance, settings: Settings, address: str, lan: contract.LanNic | None
) -> dict[str, str]:
    """Return a domain's metadata: whose it is, and for `guard` what it may reach.

    `lan`: its card on a bridge of the host, None where it has none.
    """
    allowed, shared = guard.policy(settings), guard.mount(instance, settings)
    return {
        "id": instance.id,
        "name": instance.name,
        "folder": str(instance.folder),
        "uid": str(os.getuid()),
        "gid": str(os.getgid()),
        "state": str(instance.state_dir),
        "version": str(VERSION),
        "address": address,
        "lan_access": "yes" if allowed.lan_access else "no",
        "lan_allow": json.dumps(allowed.to_json()["lan_allow"]),
        "lan": json.dumps(lan and lan.to_json()),
        "mount": json.dumps(shared and shared.to_json()),
    }


def set_metadata(instance: Instance, values: dict[str, str], *when: str) -> list[str]:
    """Return argv that replaces a domain's metadata. `when`: --config, --live."""
    element = ET.Element("instance", values)
    xml = ET.tostring(element, encoding="unicode")
    which = ("--uri", contract.METADATA_URI, "--key", "vagrantp")
    return virsh("metadata", instance.full_name, *which, *when, "--set", xml)


def nat_network(name: str, subnet: IPv4Network) -> str:
    """Return the XML of our NAT network."""
    network = ET.Element("network")
    ET.SubElement(network, "name").text = name
    ET.SubElement(network, "forward", mode="nat")
    # no spanning tree: guests have no say in it
    ET.SubElement(network, "bridge", name=contract.BRIDGES["vm"], stp="off", delay="0")
    ip = ET.SubElement(network, "ip", address=str(subnet[1]), netmask=str(subnet.netmask))
    dns = ET.SubElement(network, "dns")
    here = ET.SubElement(dns, "host", ip=str(subnet[1]))
    ET.SubElement(here, "hostname").text = contract.HOST_NAME
    dhcp = ET.SubElement(ip, "dhcp")
    leases = ET.SubElement(dhcp, "range", start=str(subnet[2]), end=str(subnet[-2]))
    # short, as nobody gets the address of a removed VM before its lease has ended
    ET.SubElement(leases, "lease", expiry="5", unit="minutes")
    hide_hosts(network)
    return ET.tostring(network, encoding="unicode")


def knows_hosts(network: ET.Element) -> bool:
    """Say whether the resolver of a network answers with the names in this host's /etc/hosts."""
    return network.find(f"{{{DNSMASQ}}}options/{{{DNSMASQ}}}option[@value='no-hosts']") is None


def hide_hosts(network: ET.Element) -> None:
    """Keep the names in this host's /etc/hosts from the resolver of a network."""
    ET.register_namespace("dnsmasq", DNSMASQ)
    options = ET.SubElement(network, f"{{{DNSMASQ}}}options")
    ET.SubElement(options, f"{{{DNSMASQ}}}option", value="no-hosts")


def dhcp_host(instance: Instance, mac: str, address: str) -> str:
    """Return the DHCP entry that keeps an address for a VM.

    Its name is not the instance's: libvirt wants a letter first, dnsmasq 63 characters at most.
    """
    host = ET.Element("host", mac=mac, name=f"vagrantp-{instance.id}", ip=address)
    return ET.tostring(host, encoding="unicode")
