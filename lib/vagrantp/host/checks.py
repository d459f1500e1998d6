"""What this host must have and be before an instance is made: asked by `up` and by `doctor`.

A check is a function that returns a Finding, or raises the error that `up` is to end in. To add
one, write it and name it in `before_create`, and in doctor.py when it needs no project.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vagrantp_guard import contract

from vagrantp.core import documents, libvirt
from vagrantp.core.answers import as_json, as_xml
from vagrantp.core.errors import (
    ConflictError,
    HostLimitError,
    NameTakenError,
)
from vagrantp.core.libvirt import virsh
from vagrantp.core.places import SET_UP
from vagrantp.core.system import Host
from vagrantp.host import container_checks, vm_checks
from vagrantp.host.finding import Finding, HostCheck, look, refuse, tools
from vagrantp.host.room import build_room
from vagrantp.images import bootstrap, boxes, built, store
from vagrantp.instance.record import Instance, machines
from vagrantp.net import isolation, lan, ports
from vagrantp.providers.libvirt import domain
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import BUILT_IMAGES

TOOLS = {
    "vm": ("vagrant", "ssh", "ssh-keygen", "virsh", "xorriso", "dnsmasq"),
    "container": ("vagrant", "ssh", "ssh-keygen", "podman", "dnsmasq"),
}
IMAGE_TOOLS = {
    "vm": ("mmdebstrap", "parted", "mke2fs", "grub-mkimage", "qemu-img"),
    "container": ("mmdebstrap",),
}
MOUNT_TOOLS = ("bindfs", "bwrap", "fusermount3")
VHOST = Path("/usr/share/qemu/vhost-user")  # QEMU's docs/interop/vhost-user.json
MEMINFO = Path("/proc/meminfo")


@dataclass
class Learned:
    """What the checks have found out, for the steps that make the instance."""

    card: contract.LanNic | None = None  # on a bridge of the host
    forwards: list[ports.Forward] = field(default_factory=list)


def before_create(host: Host, instance: Instance, settings: Settings, is_left: bool) -> Learned:
    """Return what was found out if `instance` can be made here; report warnings.

    `is_left`: a killed `up` of it has left parts. Raises all reasons why it cannot, as one error.
    """
    learned = Learned()
    infra_type = settings.infra_type
    is_vm = infra_type == "vm"
    is_ours = boxes.is_built_here(settings.image) if is_vm else settings.image in BUILT_IMAGES
    if is_ours:
        is_built = partial(built.is_built, host, infra_type, settings.image)
    elif is_vm:  # somebody else's: there already, or to be downloaded
        is_built = partial(boxes.is_there, settings.image)
    else:
        is_built = partial(built.is_in_podman, host, settings.image)
    checks: list[HostCheck] = [partial(tools, [name]) for name in TOOLS[infra_type]]
    if is_vm:
        checks += [
            partial(vm_checks.libvirt_answers, host),
            partial(vm_checks.libvirt_network, host),
            partial(vm_checks.pool, host, is_built, settings.disk),
        ]
        if not is_built():  # two seconds, where it would be minutes until Vagrant says so
            checks += [partial(vm_checks.vagrant_libvirt, host)]
    else:
        checks += [
            partial(container_checks.podman, host),
            partial(container_checks.cgroup, host),
            partial(container_checks.podman_network, host),
            partial(container_checks.user_ids, host),
            partial(container_checks.container_storage, host, is_built, settings.disk),
            partial(container_checks.starts_containers, settings),
            partial(container_checks.routable, settings),
            partial(container_checks.nestable, settings),
        ]
    checks += [
        partial(isolated, host, infra_type),
        partial(mountable, host, settings),
        partial(on_lan, host, instance, settings, learned),
        partial(own_mac, host, instance, settings),
        partial(free_ports, host, instance, settings, learned),
        partial(name_is_free, host, instance, is_left),
        partial(memory, settings.memory),
        partial(cpus, settings.cpus),
        partial(build_room, infra_type, is_built),
    ]
    if is_ours:
        checks += [
            partial(image_tools, infra_type, is_built),
            partial(age, host, infra_type, settings.image),
        ]
    refuse(host, [look(check) for check in checks])
    return learned


def before_start(host: Host, instance: Instance, settings: Settings) -> None:
    """Raise all reasons why a stopped instance cannot be started; report warnings."""
    checks = (
        *(
            [partial(container_checks.routable, settings)]
            if settings.infra_type == "container"
            else []
        ),
        partial(isolated, host, settings.infra_type),
        partial(mountable, host, settings),
        partial(on_lan, host, instance, settings, Learned()),
        partial(free_ports, host, instance, settings, Learned()),
        partial(memory, settings.memory),
    )
    refuse(host, [look(check) for check in checks])


def before_growth(host: Host, settings: Settings) -> None:
    """Raise the reason why a VM's disk cannot grow, as no room is left; report warnings."""
    refuse(host, [look(partial(vm_checks.pool, host, lambda: True, settings.disk))])


def image_tools(infra_type: str, is_built: Callable[[], bool]) -> Finding:
    """Look for what builds a base image, where there is none yet."""
    found = tools(IMAGE_TOOLS[infra_type])
    boot = bootstrap.GRUB / "boot.img"
    if found.outcome == "ok" and infra_type == "vm" and not boot.exists():
        found = Finding("failed", f"{boot} is not there", SET_UP)
    return Finding("ok", "not needed") if found.outcome == "failed" and is_built() else found


def isolated(host: Host, infra_type: str) -> Finding:
    """See that guests are kept from the LAN; put the rules back where they were lost."""
    isolation.ensure(host, infra_type)
    return Finding("ok", "the rules are in force")


def sandboxed(host: Host) -> Finding:
    """See that programs run in a sandbox here, by running one."""
    host.require_sandbox()
    return Finding("ok", "a program runs in one")


def mountable(host: Host, settings: Settings) -> Finding:
    """See that the project folder can be shared, if the guest is to have it."""
    if settings.mount == "none":
        return Finding("ok", "not needed")
    found = tools(MOUNT_TOOLS)
    if found.outcome == "ok" and settings.infra_type == "vm":
        answer = libvirt.capabilities(host)
        daemons = [documents.json_file(path) for path in VHOST.glob("*.json")]
        if "<value>virtiofs</value>" not in answer or not any(d["type"] == "fs" for d in daemons):
            return Finding("failed", "QEMU and libvirt have no virtiofs, which MOUNT needs", SET_UP)
    return found


def on_lan(host: Host, instance: Instance, settings: Settings, learned: Learned) -> Finding:
    """See that a guest can get its card on a bridge, if it is to have one."""
    own = learned.card = lan.card(host, instance, settings)
    if own:
        lan.refuse_taken(host, own)
    return Finding("ok", f"on {own.bridge}" if own else "not needed")


def own_mac(host: Host, instance: Instance, settings: Settings) -> Finding:
    """See that no other guest has the MAC that is asked for: a running one, or one of this user."""
    holders = {
        name: {guest.nic.mac, guest.policy.lan and guest.policy.lan.mac}
        for name, guest in (isolation.live(host).guests.items() if settings.mac else ())
    }
    for name, machine in machines().items() if settings.mac else ():
        holders.setdefault(name, set()).add(machine.get("settings", {}).get("mac"))
    for name, macs in holders.items():
        if settings.mac in macs and name != instance.full_name:
            text = f"MAC={settings.mac} is taken by {name}"
            return Finding("failed", text, "take another one, or take MAC out", ConflictError)
    return Finding("ok", "not asked for, or nobody else's")


def free_ports(host: Host, instance: Instance, settings: Settings, learned: Learned) -> Finding:
    """See that nobody has a port of the host that is to lead to the guest."""
    learned.forwards = ports.settle(host, instance, settings)
    return Finding("ok", "free")


def memory(wanted: int) -> Finding:
    """Compare `wanted` MiB with what the host has, and has left."""
    amounts = dict(re.findall(r"^(\w+): +(\d+) kB$", MEMINFO.read_text(), re.MULTILINE))
    total, free = (int(amounts[key]) // 1024 for key in ("MemTotal", "MemAvailable"))
    if wanted > total:
        text = f"MEMORY={wanted} is more than this host's {total} MB"
        return Finding("failed", text, f"MEMORY={free} would fit now", HostLimitError)
    if wanted > free:
        text = f"MEMORY={wanted} is more than the {free} MB that this host has left now, of {total}"
        return Finding("warning", text, "stop something else first")
    return Finding("ok", f"{total} MB, {free} MB of it available")


def age(host: Host, infra_type: str, image: str) -> Finding:
    """See that a base image is not so old that it lacks many updates."""
    days = built.days_old(host, infra_type, image)
    if days is None:
        return Finding("ok", "not built yet")
    text = f"base image {image} ({infra_type}) is {days} day{'s' * (days != 1)} old"
    return Finding("warning", text, built.RENEW) if days > built.OLD else Finding("ok", text)


def require_room_to_renew(host: Host, infra_type: str) -> None:
    """Raise HostLimitError where there is no room to build a base image beside the one there is."""
    storage = vm_checks.pool if infra_type == "vm" else container_checks.container_storage
    asked = (partial(build_room, infra_type, lambda: False), partial(storage, host, lambda: False))
    refuse(host, [found for found in map(look, asked) if found.outcome == "failed"])


def cpus(wanted: int) -> Finding:
    """Compare with the host's processors: more of them in a guest work, but make it slower."""
    count = os.cpu_count() or 1
    if wanted > count:
        text = f"CPUS={wanted} is more than this host's {count}: they will take turns"
        return Finding("warning", text, f"CPUS={count} is faster")
    return Finding("ok", str(count))


def name_is_free(host: Host, instance: Instance, is_left: bool) -> Finding:
    """Refuse a name that is taken by something which is not this project's; say whose it is.

    Only for a project without an instance.
    """
    name, kind = instance.full_name, instance.infra_type
    owner = _owner_of_domain(host, name) if kind == "vm" else _owner_of_container(host, name)
    if owner is None and kind == "vm" and not is_left:
        there = store.volumes_in_pool(host)
        for volume in domain.volumes(instance):
            if volume in there:
                text = f"a volume {volume} is in the pool {store.POOL}, and not this project's"
                fix = f"'virsh -c qemu:///system vol-delete {volume} {store.POOL}' removes it"
                return Finding("failed", text, fix, NameTakenError)
    if owner is None:
        return Finding("ok", f"{name} is free")
    program = "virsh -c qemu:///system dumpxml" if kind == "vm" else "podman inspect"
    return Finding(
        "failed",
        f"a {kind} called {name} exists and is not this project's: {owner}",
        f"'{program} {name}' shows it; NAME in .env gives yours another name",
        NameTakenError,
    )


def _owner_of_domain(host: Host, name: str) -> str | None:
    """Say who made the domain `name`, as far as its metadata shows; None if there is none."""
    if not host.ask(virsh("domstate", name)).ok:
        return None
    metadata = host.ask(virsh("metadata", name, contract.METADATA_URI))
    # libvirt 11 answers with nothing, and no error, where there is none
    is_there = metadata.ok and metadata.stdout.strip()
    return _owner(dict(as_xml(metadata.stdout).attrib) if is_there else {})


def _owner_of_container(host: Host, name: str) -> str | None:
    """Say who made the container `name`, as far as its labels show; None if there is none."""
    template = "{{json .Config.Labels}}"
    answer = host.ask(["podman", "inspect", "--type=container", f"--format={template}", name])
    if not answer.ok:
        return None
    labels = {} if answer.stdout == "null\n" else as_json("podman", answer.stdout, dict)
    return _owner({k.removeprefix("vagrantp."): v for k, v in labels.items() if "vagrantp." in k})


def _owner(values: dict[str, str]) -> str:
    if not {"uid", "folder"} <= set(values):
        return "vagrantp did not make it"
    try:
        user = pwd.getpwuid(int(values["uid"])).pw_name
    except (KeyError, ValueError):
        user = "unknown"
    return f"it belongs to user {user} (uid {values['uid']}), in {values['folder']}"
