"""What this host must have and be before an instance is made: asked by `up` and by `doctor`.

A check is a function that returns a Finding, or raises the error that `up` is to end in. To add
one, write it and name it in `before_create`, and in doctor.py when it needs no project.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from vagrantp_guard.contract import METADATA_URI

from vagrantp.core.errors import (
    ConflictError,
    HostLimitError,
    NameTakenError,
    ProviderError,
    UnansweredError,
    VagrantpError,
)
from vagrantp.core.places import MASTER, state_root
from vagrantp.core.system import SET_UP, Host, as_json, as_xml, is_installed
from vagrantp.images import boxes, built
from vagrantp.instance import commands
from vagrantp.instance.record import Instance, machines
from vagrantp.net import isolation, lan, ports, subnets
from vagrantp.providers import quota
from vagrantp.settings.env import Settings

TOOLS = {
    "vm": ("vagrant", "ssh", "ssh-keygen", "virsh", "xorriso"),
    "container": ("vagrant", "ssh", "ssh-keygen", "podman", "dnsmasq"),
}
IMAGE_TOOLS = {
    "vm": ("mmdebstrap", "parted", "mke2fs", "grub-mkimage", "qemu-img"),
    "container": ("mmdebstrap",),
}
# MiB, from what was seen, rounded up: an instance's first boot; a base image in the provider's
# storage, with the copy that is there for a moment; the build of one.
ROOM_TO_BOOT = {"vm": 512, "container": 256}
ROOM_FOR_IMAGE = {"vm": 1024, "container": 512}
ROOM_TO_BUILD = {"vm": 2048, "container": 1024}
MOUNT_TOOLS = ("bindfs", "bwrap", "fusermount3")
VHOST = Path("/usr/share/qemu/vhost-user")  # QEMU's docs/interop/vhost-user.json
MAKERS_VAGRANT = Path("/opt/vagrant")  # not a distribution's own
SYSTEMD = Path("/run/systemd/system")
STARTER = Path("/etc/systemd/system/vagrantp-autostart.service")  # playbooks/host.yml
GIB, MIB = 1024**3, 1024**2
MEMINFO = Path("/proc/meminfo")
# Settings by which a kernel keeps ordinary users from namespaces, the value with which they do so,
# and one that lets them: Debian's own, Ubuntu's own, everyone's.
NAMESPACE_SETTINGS = {
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user.max_user_namespaces": ("0", "15000"),
}
CGROUP_HELP = "https://rootlesscontaine.rs/getting-started/common/cgroup2/"


@dataclass(frozen=True)
class Finding:
    """What a check found. `mend` is the command, or else the advice, that makes it well;
    a failed one ends `up` in `error`."""

    outcome: Literal["ok", "warning", "failed"]
    found: str
    mend: str | None = None
    error: type[VagrantpError] = ProviderError


HostCheck = Callable[[], Finding]


def before_create(host: Host, instance: Instance, settings: Settings) -> None:
    """Raise every reason why `instance` cannot be made here, all at once; tell the warnings."""
    infra_type = settings.infra_type
    is_ours = settings.image in built.SUITES
    if is_ours:
        is_built = partial(built.is_built, host, infra_type, settings.image)
    elif infra_type == "vm":  # of others: there, or downloaded
        is_built = partial(boxes.is_there, settings.image)
    else:
        is_built = partial(built.is_in_podman, host, settings.image)
    checks: list[HostCheck] = [partial(tools, [name]) for name in TOOLS[infra_type]]
    if infra_type == "vm":
        checks += [
            partial(libvirt, host),
            partial(libvirt_network, host),
            partial(pool, host, is_built, settings.disk),
        ]
        if not is_built():  # two seconds, where it would be minutes until Vagrant says so
            checks += [partial(vagrant_libvirt, host)]
    else:
        checks += [
            partial(podman, host),
            partial(cgroup, host),
            partial(podman_network, host),
            partial(user_ids, host),
            partial(container_storage, host, is_built, settings.disk),
            partial(starts_containers, settings),
            partial(routable, settings),
        ]
    checks += [
        partial(isolated, host, infra_type),
        partial(mountable, host, instance, settings),
        partial(on_lan, host, instance, settings),
        partial(own_mac, host, instance, settings),
        partial(free_ports, host, instance, settings),
        partial(name_is_free, host, instance),
        partial(memory, settings.memory),
        partial(cpus, settings.cpus),
        partial(build_room, infra_type, is_built),
    ]
    if is_ours:
        checks += [partial(image_tools, infra_type, is_built)]
    refuse(host, [look(check) for check in checks])


def before_start(host: Host, instance: Instance, settings: Settings) -> None:
    """Raise every reason why a stopped instance cannot be started; tell the warnings."""
    checks = (
        *([partial(routable, settings)] if settings.infra_type == "container" else []),
        partial(isolated, host, settings.infra_type),
        partial(mountable, host, instance, settings),
        partial(on_lan, host, instance, settings),
        partial(free_ports, host, instance, settings),
        partial(memory, settings.memory),
    )
    refuse(host, [look(check) for check in checks])


def before_growth(host: Host, settings: Settings) -> None:
    """Raise the reason why a VM's disk cannot grow, with no room left; tell the warnings."""
    refuse(host, [look(partial(pool, host, lambda: True, settings.disk))])


def refuse(host: Host, findings: Iterable[Finding]) -> None:
    """Tell the warnings, and raise all failures as one error, of the first one's kind."""
    failed = []
    for finding in findings:
        if finding.outcome == "warning":
            host.progress.say(f"warning: {finding.found}")
        if finding.outcome == "failed":
            failed.append(finding)
    if failed:
        # when libvirt or podman is away, several checks say the same
        texts = dict.fromkeys(str(VagrantpError(each.found, each.mend)) for each in failed)
        raise failed[0].error("\n".join(texts))


def look(check: HostCheck) -> Finding:
    """Return what a check found: an error that it raises is a failure."""
    try:
        return check()
    except UnansweredError:  # once is enough
        raise
    except ProviderError as error:
        return Finding("failed", error.message, error.hint or SET_UP)
    except VagrantpError as error:
        return Finding("failed", error.message, error.hint, type(error))


def tools(names: Iterable[str]) -> Finding:
    """Look for programs."""
    missing = [name for name in names if not is_installed(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        return Finding("failed", f"{', '.join(missing)} {verb} not installed", SET_UP)
    return Finding("ok", "all there")


def image_tools(infra_type: str, is_built: Callable[[], bool]) -> Finding:
    """Look for what builds a base image, where there is none yet."""
    found = tools(IMAGE_TOOLS[infra_type])
    boot = built.GRUB / "boot.img"
    if found.outcome == "ok" and infra_type == "vm" and not boot.exists():
        found = Finding("failed", f"{boot} is not there", SET_UP)
    return Finding("ok", "not needed") if found.outcome == "failed" and is_built() else found


def isolated(host: Host, infra_type: str) -> Finding:
    """See that guests are kept from the LAN; put the rules back where they were lost."""
    isolation.ensure(host, infra_type)
    return Finding("ok", "the rules are in force")


def starts_containers(settings: Settings) -> Finding:
    """See that containers can start with the host, where one is to: by a unit of systemd."""
    if settings.autostart and not (STARTER.exists() and SYSTEMD.exists()):
        text = "AUTOSTART=yes of a container needs systemd, and what host set-up puts there"
        return Finding("failed", text, SET_UP if SYSTEMD.exists() else "take AUTOSTART out")
    return Finding("ok", "not needed, or there")


def routable(settings: Settings) -> Finding:
    """See that a container of root's is asked for, where the host is to route to it."""
    for key, value in (("FIXED_IP", settings.fixed_ip), ("MAC", settings.mac)):
        if value and os.getuid() != 0:
            text = f"{key} is not for a user's container: it is on no network of this host"
            return Finding("failed", text, f"take {key} out; PORTS leads to it")
    return Finding("ok", "not needed, or given")


def mountable(host: Host, instance: Instance, settings: Settings) -> Finding:
    """See that the project folder can be shared, where a guest is to have it."""
    if settings.mount == "none":
        return Finding("ok", "not needed")
    for place in (Path.home(), MASTER, state_root()):
        if place.is_relative_to(instance.folder):
            text = f"MOUNT={settings.mount} would give the guest {place}"
            return Finding("failed", text, "put the project into a folder of its own")
    found = tools(MOUNT_TOOLS)
    if found.outcome == "ok" and settings.infra_type == "vm":
        answer = host.answer(commands.virsh("domcapabilities", "--virttype", "qemu"))
        daemons = [json.loads(path.read_text(encoding="utf-8")) for path in VHOST.glob("*.json")]
        if "<value>virtiofs</value>" not in answer or not any(d["type"] == "fs" for d in daemons):
            return Finding("failed", "QEMU and libvirt have no virtiofs, which MOUNT needs", SET_UP)
    return found


def on_lan(host: Host, instance: Instance, settings: Settings) -> Finding:
    """See that a guest can have its place on a LAN, where it is to have one."""
    own = lan.card(host, instance, settings)
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
            return Finding("failed", text, "take another one, or MAC out", ConflictError)
    return Finding("ok", "not asked for, or nobody else's")


def free_ports(host: Host, instance: Instance, settings: Settings) -> Finding:
    """See that nobody has a port of the host that is to lead to the guest."""
    ports.settle(host, instance, settings)
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


def cpus(wanted: int) -> Finding:
    """Compare with the host's processors: more of them in a guest work, but make it slower."""
    count = os.cpu_count() or 1
    if wanted > count:
        text = f"CPUS={wanted} is more than this host's {count}: they will take turns"
        return Finding("warning", text, f"CPUS={count} is faster")
    return Finding("ok", str(count))


def libvirt(host: Host) -> Finding:
    """Ask libvirt for its version, and for a QEMU that it can use."""
    answer = host.answer(commands.virsh("version"))
    host.answer(commands.virsh("domcapabilities", "--virttype", "qemu"))
    version = re.search(r"^Running hypervisor: (.*)$", answer, re.MULTILINE)
    return Finding("ok", f"answers, {version[1] if version else 'QEMU'}")


def libvirt_network(host: Host) -> Finding:
    """Look whether libvirt's network of our name is one of ours, or which one would be made."""
    if subnets.NAME not in host.answer(commands.virsh("net-list", "--all", "--name")).split():
        subnet = subnets.free_subnet(host, subnets.FOR_LIBVIRT, also_taken=[])
        return Finding("ok", f"the first up makes it, {subnet}")
    xml = as_xml(host.answer(commands.virsh("net-dumpxml", subnets.NAME)))
    if not subnets.is_ours(xml):
        text = f"the libvirt network {subnets.NAME} is not one of ours"
        virsh = "virsh -c qemu:///system"
        mend = f"{virsh} net-destroy {subnets.NAME}; {virsh} net-undefine {subnets.NAME}"
        return Finding("failed", text, mend, ConflictError)
    return Finding("ok", "there")


def pool(host: Host, is_built: Callable[[], bool], disk: int = 0) -> Finding:
    """See that the storage pool is active and has room for what a VM takes at once.

    A `disk` in GiB that would not fit is a warning.
    """
    if built.POOL not in host.answer(commands.virsh("pool-list", "--name")).split():
        return Finding("failed", f"libvirt has no active storage pool {built.POOL}", SET_UP)
    xml = as_xml(host.answer(commands.virsh("pool-dumpxml", built.POOL)))
    path = Path(xml.findtext("target/path", "/"))
    # libvirt's own figure of a folder is as old as its last look, and has what only root may fill
    is_folder = xml.get("type") == "dir" and path.is_dir()
    free = shutil.disk_usage(path).free if is_folder else int(xml.findtext("available", "0"))
    return _room(str(path), free, "vm", is_built, disk)


def podman(host: Host) -> Finding:
    """Ask podman for its version."""
    return Finding("ok", f"answers, {quota.podman_info(host)['version']['Version']}")


def podman_network(host: Host) -> Finding:
    """Look whether podman's network of our name is one of ours, or which one would be made."""
    listing = as_json("podman", host.answer(["podman", "network", "ls", "--format", "json"]), list)
    named = [item for item in listing if item["name"] == subnets.NAME]
    if os.getuid() != 0:
        return Finding("ok", "not needed by a user's containers")
    if not named:
        return Finding("ok", "the first up makes it")
    if not subnets.is_ours_of_podman(named[0]):
        mend = f"podman network rm {subnets.NAME}"
        text = f"the podman network {subnets.NAME} is not one of ours"
        return Finding("failed", text, mend, ConflictError)
    return Finding("ok", "there")


def cgroup(host: Host) -> Finding:
    """See that MEMORY and CPUS of a container can be enforced (rootless on cgroup v1: no)."""
    host_info = quota.podman_info(host)["host"]
    missing = {"cpu", "memory"} - set(host_info.get("cgroupControllers") or [])
    if missing:
        return Finding(
            "failed",
            f"podman cannot enforce MEMORY and CPUS here: its cgroup {host_info['cgroupVersion']} "
            f"has no {' and no '.join(sorted(missing))} controller for this user",
            f"boot with cgroup v2 and delegate the controllers ({CGROUP_HELP}), or run it as root",
            HostLimitError,
        )
    return Finding("ok", f"{host_info['cgroupVersion']}: cpu, memory")


def user_ids(host: Host) -> Finding:
    """Become root of a namespace with the ids of /etc/subuid, which newuidmap gives."""
    if os.getuid() == 0:
        return Finding("ok", "root needs none")
    answer = host.ask(["unshare", "--map-root-user", "--map-auto", "true"])
    if answer.ok:
        return Finding("ok", "newuidmap gives those of /etc/subuid and /etc/subgid")
    why = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Finding("failed", f"no namespace with ids of its own: {why}", namespaces_mend())


def namespaces_mend() -> str:
    """Return the command that lets an ordinary user have namespaces, where a setting forbids it."""
    for name, (forbidding, allowing) in NAMESPACE_SETTINGS.items():
        path = Path("/proc/sys", *name.split("."))
        if os.getuid() != 0 and path.exists() and path.read_text().strip() == forbidding:
            return f"sudo sysctl --write {name}={allowing}"
    return SET_UP


def container_storage(host: Host, is_built: Callable[[], bool], disk: int = 0) -> Finding:
    """See that podman's storage has room for what a container takes at once, as `pool` does.

    Where it has, say whether it can also keep a container to its DISK.
    """
    root = quota.podman_info(host)["store"]["graphRoot"]
    found = _room(root, _free(Path(root)), "container", is_built, disk)
    if found.outcome != "ok":
        return found
    why = quota.why_none(host)
    limits = f"DISK is not enforced: {why}" if why else "DISK is enforced"
    return replace(found, found=f"{found.found}; {limits}")


def build_room(infra_type: str, is_built: Callable[[], bool]) -> Finding:
    """See that there is room to build a base image, where there is none yet."""
    folder, needed = built.vagrant_home(), ROOM_TO_BUILD[infra_type]
    free = _free(folder)
    if free < needed * MIB and not is_built():
        text = f"{folder} has {free // MIB} MB free, and building the base image takes {needed} MB"
        return Finding("failed", text, f"make room: df -h {_existing(folder)}", HostLimitError)
    return Finding("ok", f"{free // GIB} GB free in {folder}")


def name_is_free(host: Host, instance: Instance) -> Finding:
    """Refuse a name that something holds which is not this project's, and say whose it is.

    To be asked only where this project has no instance.
    """
    name, kind = instance.full_name, instance.infra_type
    owner = _owner_of_domain(host, name) if kind == "vm" else _owner_of_container(host, name)
    if owner is None and kind == "vm" and not instance.state_dir.is_dir():
        # nothing is known of it: not what a killed `up` of ours left
        there = built.volumes_in_pool(host)
        for volume in commands.volumes(instance):
            if volume in there:
                text = f"a volume {volume} is in the pool {built.POOL}, and not this project's"
                mend = f"'virsh -c qemu:///system vol-delete {volume} {built.POOL}' removes it"
                return Finding("failed", text, mend, NameTakenError)
    if owner is None:
        return Finding("ok", f"{name} is free")
    program = "virsh -c qemu:///system dumpxml" if kind == "vm" else "podman inspect"
    return Finding(
        "failed",
        f"a {kind} called {name} exists and is not this project's: {owner}",
        f"'{program} {name}' shows it; NAME in .env gives yours another name",
        NameTakenError,
    )


def has_disk(host: Host, instance: Instance) -> bool:
    """Say whether the disk of a VM is in the pool."""
    return commands.volumes(instance)[0] in built.volumes_in_pool(host)


def vagrant_libvirt(host: Host) -> Finding:
    """Let Vagrant load vagrant-libvirt from our own VAGRANT_HOME, and that connect to libvirt."""
    home = built.vagrant_home()
    host.make_dir(home)
    with host.scratch(state_root()) as folder:
        argv, env = commands.vagrant_probe(folder, home)
        what = "loading vagrant-libvirt"
        try:
            with host.progress.stage("try vagrant-libvirt"):
                host.change(argv, what=what, timeout=120, env=env, cwd=folder, explain=_reason)
        except ProviderError as error:
            # Its makers' package has no plugins, and one in ~/.vagrant.d is not seen from our home.
            install = f"VAGRANT_HOME={shlex.quote(str(home))} vagrant plugin install"
            mend = f"{install} vagrant-libvirt" if MAKERS_VAGRANT.exists() else SET_UP
            raise ProviderError(error.message, mend) from None
    return tried(host, "loads and connects to libvirt")


def tried(host: Host, found: str) -> Finding:
    """Return what a trial found that went well, unless --dry held it back."""
    return Finding("warning", "not tried") if host.dry else Finding("ok", found)


def _reason(lines: list[str]) -> str:
    """Pick the line that matters: Vagrant tells errors of a Vagrantfile in a paragraph."""
    marked = [line for line in lines if line.startswith("Message: ")]
    return (marked or lines[1:] or [""])[0].removeprefix("Message: ")


def _room(
    place: str, free: int, infra_type: str, is_built: Callable[[], bool], disk: int
) -> Finding:
    """Judge `free` bytes by what an instance takes at once and, in GiB, over its life."""
    needed = ROOM_TO_BOOT[infra_type]
    if free < (needed + ROOM_FOR_IMAGE[infra_type]) * MIB and not is_built():
        needed += ROOM_FOR_IMAGE[infra_type]
    if free < needed * MIB:
        text = f"{place} has {free // MIB} MB free, and {needed} MB are needed at once"
        return Finding("failed", text, f"make room: df -h {place}", HostLimitError)
    if free < disk * GIB:
        text = f"DISK={disk} is more than the {free // GIB} GB that are free in {place}"
        return Finding("warning", text, "it works until they are full")
    return Finding("ok", f"{free // GIB} GB free in {place}")


def _free(path: Path) -> int:
    return shutil.disk_usage(_existing(path)).free


def _existing(path: Path) -> Path:
    """Return the path, or what there is of it."""
    return next(p for p in (path, *path.parents) if os.access(p, os.F_OK))


def _owner_of_domain(host: Host, name: str) -> str | None:
    """Say who made the domain `name`, as far as its metadata tells; None: there is none."""
    if not host.ask(commands.virsh("domstate", name)).ok:
        return None
    metadata = host.ask(commands.virsh("metadata", name, METADATA_URI))
    # libvirt 11 answers with nothing, and no error, where there is none
    is_there = metadata.ok and metadata.stdout.strip()
    return _owner(dict(as_xml(metadata.stdout).attrib) if is_there else {})


def _owner_of_container(host: Host, name: str) -> str | None:
    """Say who made the container `name`, as far as its labels tell; None: there is none."""
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
