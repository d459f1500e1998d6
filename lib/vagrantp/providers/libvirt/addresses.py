"""Our libvirt network, with NAT, and the addresses that it reserves for VMs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from ipaddress import IPv4Address, IPv4Network

from vagrantp.core.answers import as_xml
from vagrantp.core.errors import ConflictError, ProviderError
from vagrantp.core.libvirt import ask, change, virsh
from vagrantp.core.system import Host
from vagrantp.instance import network
from vagrantp.instance.record import Instance
from vagrantp.net import subnets
from vagrantp.providers.libvirt import domain
from vagrantp.settings.env import Settings


def ensure_network(host: Host, instance: Instance) -> IPv4Network:
    """Make the NAT network if it is not there, start it, and return its subnet."""
    xml = host.ask(virsh("net-dumpxml", "--inactive", subnets.NAME))
    if xml.ok:
        known = as_xml(xml.stdout)
        ip = known.find("ip")
        if ip is None:
            raise ProviderError(f"vagrantp did not make the libvirt network {subnets.NAME}")
        subnet = IPv4Network(f"{ip.get('address')}/{ip.get('netmask')}", strict=False)
        if domain.knows_hosts(known):  # an older version made it
            domain.hide_hosts(known)
            _define(host, instance, ET.tostring(known, encoding="unicode"))
            is_used = as_xml(ask(host, "net-dumpxml", subnets.NAME)).get("connections")
            if _is_active(host) and not is_used:  # else it applies when the network starts again
                change(host, "net-destroy", subnets.NAME)
    else:
        subnet = subnets.free_subnet(host, subnets.FOR_LIBVIRT, also_taken=[])
        _define(host, instance, domain.nat_network(subnets.NAME, subnet))
        change(host, "net-autostart", subnets.NAME)
    if not _is_active(host):
        change(host, "net-start", subnets.NAME)
    return subnet


def _is_active(host: Host) -> bool:
    return subnets.NAME in ask(host, "net-list", "--name").split()


def _define(host: Host, instance: Instance, xml: str) -> None:
    file = instance.state_dir / "network.xml"  # virsh reads this from a file only
    host.write(file, xml)
    change(host, "net-define", str(file))
    host.remove(file)


def reserve(
    host: Host,
    instance: Instance,
    settings: Settings,
    subnet: IPv4Network,
    fixed: IPv4Address | None,
) -> str:
    """Reserve an address for the VM by a DHCP entry, which libvirt refuses to give twice."""
    mac = network.mac(instance, settings)
    entries = dhcp_hosts(host)
    others = [entry for entry in entries if id_of(entry) != instance.id]
    if holder := next((e.get("name") for e in others if e.get("mac") == mac), None):
        raise ConflictError(f"MAC {mac} is taken by {holder}")
    # dnsmasq gives a leased address to nobody else, even if its VM was just removed.
    # Under --dry there may be no network yet, and then no lease.
    leases = host.ask(virsh("net-dhcp-leases", subnets.NAME))
    taken = subnets.leased(leases.stdout, but_to=mac)
    taken |= {entry.get("ip", ""): entry.get("name", "") for entry in others}
    address = str(subnets.choose_address(subnet, instance.id, taken, fixed))
    action = "modify" if len(others) < len(entries) else "add-last"
    update_dhcp(host, action, domain.dhcp_host(instance, mac, address))
    return address


def update_dhcp(host: Host, action: str, xml: str) -> None:
    where = ["--config", *(["--live"] if _is_active(host) else [])]
    change(host, "net-update", subnets.NAME, action, "ip-dhcp-host", xml, *where)


def id_of(entry: ET.Element) -> str:
    """Return the id of the instance that a DHCP entry is for."""
    return entry.get("name", "").rpartition("-")[2]


def dhcp_hosts(host: Host) -> list[ET.Element]:
    xml = host.ask(virsh("net-dumpxml", subnets.NAME))
    return as_xml(xml.stdout).findall("ip/dhcp/host") if xml.ok else []
