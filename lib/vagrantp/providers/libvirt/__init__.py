"""VMs: domains, volumes and the NAT network of the system's libvirt, asked through virsh(1)."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ET
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from vagrantp_guard import contract

from vagrantp.core.answers import as_xml
from vagrantp.core.errors import HostLimitError, KvmError, ProviderError, StateError
from vagrantp.core.libvirt import ask, change, virsh
from vagrantp.core.places import state_root
from vagrantp.core.progress import Check, compare
from vagrantp.core.system import Host
from vagrantp.images import boxes, store
from vagrantp.instance import network
from vagrantp.instance.found import UP, Found, State, uid_from
from vagrantp.instance.record import Instance, as_text
from vagrantp.net import subnets
from vagrantp.providers.libvirt import accel, addresses, domain, ended, seed
from vagrantp.settings.env import Settings

POOL = store.POOL
RUNNING = Path("/run/libvirt/qemu")
STATES: dict[str, State] = {
    "running": "running",
    "in shutdown": "running",
    "paused": "paused",
    "pmsuspended": "paused",
    "shut off": "stopped",
    "crashed": "stopped",
}
DESCRIPTION = re.compile(r"made by vagrantp for uid (\d+)")  # as the Vagrantfile has it
OURS = re.compile(rf"^ *(?:-|\d+) +(\S+-{contract.ID}) +(\S.*?) *$", re.MULTILINE)
OLD_SCREEN = "vnc_password"  # in a record of a version whose VMs have their screen on the loopback
BOOT_TIMEOUT = 600  # seconds until ssh must answer; software emulation is slow
STOP_TIMEOUT = 120  # seconds that a guest has to shut down


def list_all(host: Host) -> list[Found]:
    """Return each VM that vagrantp made, for any user, by two virsh calls."""
    states = dict(OURS.findall(ask(host, "list", "--all")))
    if not states:
        return []
    domains = "; ".join(f"dumpxml {shlex.quote(name)}" for name in states)
    answer = host.ask(virsh(f"{domains}; net-dumpxml {subnets.NAME}"))
    xml = answer.stdout if answer.ok else ask(host, domains)  # without the network
    everything = as_xml(f"<all>{xml}</all>")
    entries = everything.findall("network/ip/dhcp/host")
    reserved = {addresses.id_of(entry): entry.get("ip") for entry in entries}
    found = []
    for one in everything.findall("domain"):
        name = one.findtext("name", "")
        instance, uid = _whose(one)
        if instance.full_name != name:
            continue  # a foreign one, or a copy of an instance
        now = STATES.get(states[name], "broken")
        found.append(
            Found(
                instance,
                now,
                uid=uid,
                reason=None if now != "broken" else f"libvirt says {states[name]}",
                address=reserved.get(instance.id),
                memory=int(one.findtext("memory", "0")) // 1024,
                cpus=int(one.findtext("vcpu", "0")),
                disk=instance.machine().get("settings", {}).get("disk"),
                console=f"virsh --connect qemu:///system console {name}",
                vnc=_screen(one) if now in UP else None,
            )
        )
    return found


def _screen(domain: ET.Element) -> str | None:
    """Return how to reach the screen of a running domain, None where it has none.

    A domain that an older version started has it on a port of the loopback.
    """
    graphics = domain.find("devices/graphics[@type='vnc']")
    if graphics is None:
        return None
    if port := graphics.get("port"):
        return f"127.0.0.1:{port}"
    return f"virt-viewer --connect qemu:///system --attach {domain.findtext('name')}"


def _whose(xml: ET.Element) -> tuple[Instance, int]:
    """Return the instance that a domain says it is, and its owner's uid.

    Its metadata is written just before its first start. Its description has the uid as soon as
    Vagrant defines it, so that what an `up` leaves that is killed in between is known as ours.
    """
    values = xml.find(f"metadata/{contract.METADATA}")
    if values is not None:
        place = Path(values.get("folder", "/"))
        made = Instance(values.get("name", ""), values.get("id", ""), place, "vm")
        return made, uid_from(values.get("uid", ""))
    described = DESCRIPTION.fullmatch(xml.findtext("description", ""))
    if not described:
        return Instance("", "", Path("/"), "vm"), -1
    name, _, identity = xml.findtext("name", "").rpartition("-")
    made = Instance(name, identity, Path("/"), "vm")
    return replace(made, folder=Path(made.machine().get("folder", "/"))), int(described[1])


def prepare(
    host: Host, instance: Instance, settings: Settings, card: contract.LanNic | None, _: bool
) -> dict[str, Any]:
    """Make the box, the network, the address and the seed of a VM that is to be created."""
    acceleration = accel.choose(host, settings.accel)
    image = settings.image
    if image.startswith("/"):
        image = str(instance.source(Path(image)))
    box = boxes.ensure(host, image, settings.image_sha256, settings.disk)
    with host.lock(state_root(), "network", "another vagrantp that takes an address"):
        subnet = addresses.ensure_network(host, instance)
        fixed = network.fixed_ip(settings)
        address = addresses.reserve(host, instance, settings, subnet, fixed)
    if card and box.kind != "ours":
        raise ProviderError(
            f"NETWORK_TYPE=bridge is not for {settings.image}: nothing in it sets its second "
            "network card up",
            "use BOX=debian-13 or debian-12",
        )
    with host.progress.stage("seed"):
        iso = seed.make(host, instance, settings, box, card)
    return domain.vm(
        instance,
        settings,
        **(
            {"hostname": settings.hostname}
            if box.kind == "vagrant"
            else {"key": str(instance.key), "grows": box.kind == "ours"}
        ),
        accel=acceleration,
        box=box.name,
        boot_timeout=BOOT_TIMEOUT,
        address=address,
        lan=card,
        subnet=str(subnet),
        network=subnets.NAME,
        pool=POOL,
        seed=iso,
        user=settings.ssh_user,
    )


def keep_address(host: Host, instance: Instance, settings: Settings) -> str:
    """See that a stopped VM gets FIXED_IP, or the address that it had; return it."""
    had = str(instance.machine()["provider"]["address"])
    wanted = network.fixed_ip(settings) or IPv4Address(had)
    entry = next((e for e in addresses.dhcp_hosts(host) if addresses.id_of(e) == instance.id), None)
    if had == str(IPv4Interface(wanted).ip) and entry is not None and entry.get("ip") == had:
        return had
    with host.lock(state_root(), "network", "another vagrantp that takes an address"):
        return addresses.reserve(
            host, instance, settings, addresses.ensure_network(host, instance), wanted
        )


def endpoint(host: Host, instance: Instance, made: dict[str, Any]) -> tuple[str, int]:
    """Return the address and port of its ssh server."""
    return made["address"], 22


def isolate(host: Host, instance: Instance, settings: Settings) -> None:
    """Record in the domain what it may reach and how it gets its project, for libvirt's hook."""
    address = instance.machine()["provider"]["address"]
    values = domain.metadata(instance, settings, address, instance.lan)
    when = ("--config", "--live") if live(host, instance)[0] in UP else ("--config",)
    argv = domain.set_metadata(instance, values, *when)
    host.change(argv, what="virsh metadata", timeout=60)


def adopt(host: Host, instance: Instance) -> None:
    """Do nothing: all of a VM's records are in its domain."""


def live(host: Host, instance: Instance) -> tuple[State, str]:
    """Return the state of a VM and its QEMU's process id, from libvirt's pid file."""
    argv = virsh("domstate", instance.full_name)
    answer = host.ask(argv)
    if not answer.ok and "failed to get domain" in answer.stderr:
        return "absent", ""
    said = answer.stdout if answer.ok else host.answer(argv)  # says why it is not known
    try:
        number = (RUNNING / f"{instance.full_name}.pid").read_text().strip()
    except FileNotFoundError:  # it does not run, or has ended since
        number = ""
    return STATES.get(said.strip(), "broken"), number


def pid(host: Host, instance: Instance) -> str:
    """Return the process id of its QEMU, "" when it does not run."""
    state, number = live(host, instance)
    return number if state == "running" else ""


why_ended = ended.why_ended


def why_not_kvm(host: Host, instance: Instance, error: ProviderError) -> str | None:
    """Return why KVM is to blame for the `error` that a start ended in, None where it is not.

    Where the error does not say so and the VM does not run, KVM is tried once more.
    """
    if isinstance(error, KvmError):
        accel.remember(host, error.message)
        return error.message
    if pid(host, instance) or not ended.is_by_kvm(host, instance.full_name):
        return None
    why = accel.why_not_kvm(host, retry=True)
    return None if why == accel.NO_KERNEL else why


def emulate(host: Host, instance: Instance) -> None:
    """End a VM that KVM fails; Vagrant starts it next under software emulation."""
    document = instance.machine()
    document["provider"] |= domain.acceleration("tcg")
    host.write(instance.machine_json, as_text(document))
    if instance.full_name in ask(host, "list", "--name").split():
        change(host, "destroy", instance.full_name)


def start(host: Host, instance: Instance) -> None:
    """Start the domain."""
    document = instance.machine()
    if OLD_SCREEN in document["provider"]:  # Vagrant has not written the domain since
        file = instance.state_dir / "screen.xml"  # virsh reads this from a file only
        host.write(file, domain.SCREEN)
        change(host, "update-device", instance.full_name, str(file), "--config")
        host.remove(file)
        del document["provider"][OLD_SCREEN]
        host.write(instance.machine_json, as_text(document))
    change(host, "start", instance.full_name)


def resume(host: Host, instance: Instance) -> None:
    """Resume a VM that was paused, or has suspended itself.

    Raises ProviderError or HostLimitError where QEMU has halted it.
    """
    name = instance.full_name
    why = ended.why_ended(host, instance)
    if isinstance(why, HostLimitError):
        why.hint = f"make room; then: virsh -c qemu:///system resume {name}"
    elif isinstance(why, ProviderError):
        why.hint = "; ".join(filter(None, ("fab stop --force, then fab up", why.hint)))
    if why and not isinstance(why, StateError):
        raise why
    is_asleep = ask(host, "domstate", name).strip() == "pmsuspended"
    change(host, "dompmwakeup" if is_asleep else "resume", name)


def stop(host: Host, instance: Instance, force: bool) -> None:
    """Shut the domain down through ACPI and wait for it, or pull the plug."""
    name = instance.full_name
    if force:
        return change(host, "destroy", name)
    change(host, "shutdown", name, "--mode", "acpi")
    deadline = monotonic() + STOP_TIMEOUT
    while not host.dry and live(host, instance)[0] in UP:
        if monotonic() > deadline:
            raise StateError(
                f"{name} did not shut down in {STOP_TIMEOUT} seconds",
                f"'virsh -c qemu:///system console {name}' shows why; "
                "'fab stop --force' pulls the plug",
            )
        sleep(0.25)


def resize(host: Host, instance: Instance, settings: Settings) -> None:
    """Make the disk larger, running or not. Partitions and file system are the guest's to grow."""
    [volume, _], size = domain.volumes(instance), f"{settings.disk}G"
    # The actual size counts, not the recorded one: QEMU would also make a running VM's smaller.
    found = _numbers(ask(host, "vol-info", "--pool", POOL, "--bytes", volume))
    if found["Capacity"] >= settings.disk * 1024**3:
        return
    with host.progress.stage("grow the disk"):
        if pid(host, instance):
            change(host, "blockresize", instance.full_name, "vda", size)
        else:
            change(host, "vol-resize", volume, size, "--pool", POOL)


def enforce(host: Host, instance: Instance, settings: Settings) -> list[Check]:
    """Set whether the domain starts with the host; libvirt keeps the rest. Return the checks."""
    if _starts_with_host(ask(host, "dominfo", instance.full_name)) != settings.autostart:
        options = [] if settings.autostart else ["--disable"]
        change(host, "autostart", instance.full_name, *options)
    return check(host, instance, settings)


def check(host: Host, instance: Instance, settings: Settings) -> list[Check]:
    """Compare the domain, as it runs now, and its disk with the settings."""
    name = instance.full_name
    answer = ask(host, f"dominfo {name}; vol-info --pool {POOL} --bytes {name}.img")
    found = _numbers(answer)  # "Used memory" is what the balloon leaves of "Max memory"
    return [
        compare("memory", settings.memory * 1024, found.get("Max memory"), "KiB"),
        compare("memory in use", settings.memory * 1024, found.get("Used memory"), "KiB"),
        compare("cpus", settings.cpus, found.get("CPU(s)")),
        compare("disk", settings.disk * 1024**3, found.get("Capacity"), "bytes"),
        compare("autostart", settings.autostart, _starts_with_host(answer)),
    ]


def _numbers(answer: str) -> dict[str, int]:
    """Return the numbers in virsh's lines of `name: number unit`."""
    found = re.findall(r"^([\w() ]+): +(\d+)", answer, re.MULTILINE)
    return {name: int(number) for name, number in found}


def _starts_with_host(dominfo: str) -> bool:
    return bool(re.search(r"^Autostart: +enable", dominfo, re.MULTILINE))


def clean_up(host: Host, instance: Instance) -> None:
    """Remove the domain, its volumes and its DHCP entry, as far as they are there."""
    name = instance.full_name
    if any(found.instance.full_name == name for found in list_all(host)):
        # In this order: a start that a killed verb left behind ends in a running domain.
        if name in ask(host, "list", "--all", "--persistent", "--name").split():
            change(host, "undefine", name, "--managed-save", "--snapshots-metadata", "--nvram")
        if name in ask(host, "list", "--name").split():
            change(host, "destroy", name)
    for volume in store.volumes_in_pool(host):
        if volume in domain.volumes(instance):
            change(host, "vol-delete", volume, "--pool", POOL)
    made = instance.machine().get("provider", {})
    for entry in addresses.dhcp_hosts(host):
        if addresses.id_of(entry) == instance.id or entry.get("mac", "") == made.get("mac"):
            addresses.update_dhcp(host, "delete", ET.tostring(entry, encoding="unicode").strip())
