"""VMs: domains, volumes and the NAT network of the system's libvirt, asked through virsh(1)."""

from __future__ import annotations

import re
import secrets
import shlex
import xml.etree.ElementTree as ET
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from vagrantp_guard import contract

from vagrantp.core.errors import (
    ConflictError,
    HostLimitError,
    KvmError,
    ProviderError,
    StateError,
    VagrantpError,
)
from vagrantp.core.places import state_root
from vagrantp.core.progress import Check, compare, plain
from vagrantp.core.system import Host, as_xml
from vagrantp.guest import session
from vagrantp.images import boxes, built
from vagrantp.instance import commands
from vagrantp.instance.record import Instance, as_text
from vagrantp.net import lan, subnets
from vagrantp.providers import Found, State, accel
from vagrantp.settings.env import Settings

POOL = built.POOL
RUNNING = Path("/run/libvirt/qemu")
LOGS = Path("/var/log/libvirt/qemu")
LOG_TAIL = 64 * 1024  # bytes of a log that are looked at
# A line of QEMU's own, neither libvirt's nor a warning.
QEMUS = re.compile(r"^(?!\d{4}-\d\d-\d\d )(?!.*: warning: ).*(qemu-system|kvm)", re.IGNORECASE)
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\S+ ")
# What virsh says of a VM that does not run, and will not go on. "unknown": QEMU has paused it by
# itself, which it does at an internal error (qemuMonitorVMStatusToPausedReason of libvirt).
ENDED = {
    "paused (unknown)": "was halted by QEMU, at an internal error",
    "paused (I/O error)": "was halted by QEMU, at an error of its disk",
    "paused (crashed)": "has crashed",
    "crashed (panicked)": "has crashed",
    "shut off (crashed)": "is gone, as its QEMU has ended",
    "shut off (destroyed)": "was switched off",
    "shut off (shutdown)": "has shut down",
}
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
BOOT_TIMEOUT = 600  # seconds until ssh must answer; software emulation is slow
STOP_TIMEOUT = 120  # seconds that a guest has to shut down


def list_all(host: Host) -> list[Found]:
    """Return every VM of ours, of any user. Two virsh calls, however many there are."""
    states = dict(OURS.findall(_ask(host, "list", "--all")))
    if not states:
        return []
    domains = "; ".join(f"dumpxml {shlex.quote(name)}" for name in states)
    answer = host.ask(commands.virsh(f"{domains}; net-dumpxml {subnets.NAME}"))
    xml = answer.stdout if answer.ok else _ask(host, domains)  # without the network
    everything = as_xml(f"<all>{xml}</all>")
    entries = everything.findall("network/ip/dhcp/host")
    addresses = {_id_of(entry): entry.get("ip") for entry in entries}
    found = []
    for domain in everything.findall("domain"):
        name = domain.findtext("name", "")
        instance, uid = _whose(domain)
        if instance.full_name != name:
            continue  # not ours, be it a copy of one of ours
        state = STATES.get(states[name], "broken")
        port = domain.find("devices/graphics[@type='vnc']")
        found.append(
            Found(
                instance,
                state,
                uid=uid,
                reason=None if state != "broken" else f"libvirt says {states[name]}",
                address=addresses.get(instance.id),
                memory=int(domain.findtext("memory", "0")) // 1024,
                cpus=int(domain.findtext("vcpu", "0")),
                disk=instance.machine().get("settings", {}).get("disk"),
                console=f"virsh --connect qemu:///system console {name}",
                vnc=f"127.0.0.1:{port.get('port')}"
                if port is not None and state == "running"
                else None,
            )
        )
    return found


def _whose(domain: ET.Element) -> tuple[Instance, int]:
    """Return the instance that a domain says it is, and its owner's uid.

    Its metadata is put in just before its first start. The uid is in its description from the
    moment on in which Vagrant defines it, so that one which was killed in between is ours, too.
    """
    values = domain.find(f"metadata/{contract.METADATA}")
    if values is not None:
        place = Path(values.get("folder", "/"))
        made = Instance(values.get("name", ""), values.get("id", ""), place, "vm")
        return made, int(values.get("uid", "-1"))
    described = DESCRIPTION.fullmatch(domain.findtext("description", ""))
    if not described:
        return Instance("", "", Path("/"), "vm"), -1
    name, _, identity = domain.findtext("name", "").rpartition("-")
    made = Instance(name, identity, Path("/"), "vm")
    return replace(made, folder=Path(made.machine().get("folder", "/"))), int(described[1])


def prepare(host: Host, instance: Instance, settings: Settings) -> dict[str, Any]:
    """Make the box, the network, the address and the seed of a VM that is to be created."""
    acceleration = accel.choose(host, settings.accel)
    box = boxes.ensure(host, settings.image, settings.image_sha256, settings.disk)
    with host.lock(state_root(), "network", "another vagrantp that takes an address"):
        subnet = _ensure_network(host, instance)
        fixed = commands.fixed_ip(settings)
        address = _reserve(host, instance, settings, subnet, fixed)
    own = lan.card(host, instance, settings)
    if own and box.kind != "ours":
        raise ProviderError(
            f"NETWORK_TYPE=bridge is not for {settings.image}: nothing in it sets its second "
            "network card up",
            "use BOX=debian-12",
        )
    with host.progress.stage("seed"):
        seed = _make_seed(host, instance, settings, box, own)
    return commands.vm(
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
        lan=own,
        subnet=str(subnet),
        network=subnets.NAME,
        pool=POOL,
        seed=seed,
        user=settings.ssh_user,
        vnc_password=secrets.token_hex(4),  # VNC takes eight characters at most (RFC 6143)
    )


def keep_address(host: Host, instance: Instance, settings: Settings) -> str:
    """See that a stopped VM gets FIXED_IP, or the address that it had; return it."""
    had = str(instance.machine()["provider"]["address"])
    wanted = commands.fixed_ip(settings) or IPv4Address(had)
    entry = next((e for e in _dhcp_hosts(host) if _id_of(e) == instance.id), None)
    if had == str(IPv4Interface(wanted).ip) and entry is not None and entry.get("ip") == had:
        return had
    with host.lock(state_root(), "network", "another vagrantp that takes an address"):
        return _reserve(host, instance, settings, _ensure_network(host, instance), wanted)


def endpoint(host: Host, instance: Instance, made: dict[str, Any]) -> tuple[str, int]:
    """Return the address and port of its ssh server."""
    return made["address"], 22


def isolate(host: Host, instance: Instance, settings: Settings) -> None:
    """Write into the domain what it may reach, and has of its project, for the hook of libvirt."""
    address = instance.machine()["provider"]["address"]
    values = commands.domain_metadata(instance, settings, address, instance.lan)
    when = ("--config", "--live") if pid(host, instance) else ("--config",)
    argv = commands.set_domain_metadata(instance, values, *when)
    host.change(argv, what="virsh metadata", timeout=60)


def adopt(host: Host, instance: Instance) -> None:
    """Do nothing: all of a VM's records are in its domain."""


def pid(host: Host, instance: Instance) -> str:
    """Return the process id of its QEMU, which libvirt writes down for all to read."""
    argv = commands.virsh("domstate", instance.full_name)
    answer = host.ask(argv)
    if not answer.ok and "failed to get domain" not in answer.stderr:
        host.answer(argv)  # says why it is not known
    if answer.stdout.strip() != "running":
        return ""
    try:
        return (RUNNING / f"{instance.full_name}.pid").read_text().strip()
    except FileNotFoundError:  # it has ended since
        return ""


def why_ended(host: Host, instance: Instance) -> VagrantpError | None:
    """Return why a VM that was started does not run; None where it does, or never did.

    A KvmError where QEMU has halted it by itself under KVM, or its last words are about KVM.
    """
    name = instance.full_name
    argv = commands.virsh("domstate", "--reason", name)
    answer = host.ask(argv)
    if not answer.ok and "failed to get domain" in answer.stderr:
        return ProviderError(f"libvirt does not know {name} any more")
    state = answer.stdout.strip() if answer.ok else host.answer(argv)  # says why it is not known
    if state == "paused (user)":
        return StateError(f"{name} is paused", "resume it as you paused it")
    errors = host.ask(commands.virsh("domblkerror", name)) if state.startswith("paused") else None
    if errors and "no space" in errors.stdout:  # QEMU halts a guest whose disk finds no room
        text = f"{name} was halted: the storage pool {POOL} has no room for what it writes"
        return HostLimitError(text, "make room there")
    if state not in ENDED:
        return None
    last, hint = _last_words(name)
    is_kvms = "kvm" in last.replace(name, "").lower() or state == "paused (unknown)"
    kind = KvmError if is_kvms and _is_by_kvm(host, name) else ProviderError
    return kind(f"{name} {ENDED[state]}" + (f": {plain(last)}" if last else ""), hint)


def _is_by_kvm(host: Host, name: str) -> bool:
    return "<domain type='kvm'" in host.ask(commands.virsh("dumpxml", name)).stdout


def why_not_kvm(host: Host, instance: Instance, error: ProviderError) -> str | None:
    """Return why KVM is to blame for the `error` in which a start has ended, None where it is not.

    Where the error does not say so and the VM does not run, KVM is tried once more.
    """
    if isinstance(error, KvmError):
        accel.remember(host, error.message)
        return error.message
    if pid(host, instance) or not _is_by_kvm(host, instance.full_name):
        return None
    why = accel.why_not_kvm(host, afresh=True)
    return None if why == accel.NO_KERNEL else why


def _last_words(name: str) -> tuple[str, str]:
    """Return QEMU's last words in a VM's log, as far as this user may read it, and a hint."""
    log = LOGS / f"{name}.log"
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL))
            return last_words(file.read().decode(errors="replace")), f"QEMU's log is {log}"
    except PermissionError:
        return "", f"QEMU's log is {log}, for root to read"
    except OSError:
        return "", f"QEMU's log would be {log}"


def last_words(log: str) -> str:
    """Return the last line of QEMU's own in a log of libvirt's, "" where it has said nothing.

    Each start begins with a line of libvirt's and the command line, all but the last line of which
    end with a \\.
    """
    last = ""
    for line in log.splitlines():
        if ": starting up libvirt" in line:
            last = ""
        elif QEMUS.search(line) and not line.endswith("\\"):
            last = TIME.sub("", line)
    return last


def emulate(host: Host, instance: Instance) -> None:
    """End a VM that KVM fails; its next start by Vagrant is by software emulation."""
    document = instance.machine()
    document["provider"] |= commands.acceleration("tcg")
    host.write(instance.machine_json, as_text(document))
    if instance.full_name in _ask(host, "list", "--name").split():
        _change(host, "destroy", instance.full_name)


def start(host: Host, instance: Instance) -> None:
    """Start the domain."""
    _change(host, "start", instance.full_name)


def stop(host: Host, instance: Instance, force: bool) -> None:
    """Shut the domain down through ACPI and wait for it, or pull the plug."""
    name = instance.full_name
    if force:
        return _change(host, "destroy", name)
    _change(host, "shutdown", name, "--mode", "acpi")
    deadline = monotonic() + STOP_TIMEOUT
    while not host.dry and pid(host, instance):
        if monotonic() > deadline:
            raise StateError(
                f"{name} did not shut down in {STOP_TIMEOUT} seconds",
                f"'virsh -c qemu:///system console {name}' shows why; "
                "'fab stop --force' pulls the plug",
            )
        sleep(0.25)


def resize(host: Host, instance: Instance, settings: Settings) -> None:
    """Make the disk larger, running or not. Partitions and file system are the guest's to grow."""
    [volume, _], size = commands.volumes(instance), f"{settings.disk}G"
    # What it is by now counts, not what was written down: qemu makes a running one smaller, too.
    found = _numbers(_ask(host, "vol-info", "--pool", POOL, "--bytes", volume))
    if found["Capacity"] >= settings.disk * 1024**3:
        return
    with host.progress.stage("grow the disk"):
        if pid(host, instance):
            _change(host, "blockresize", instance.full_name, "vda", size)
        else:
            _change(host, "vol-resize", volume, size, "--pool", POOL)


def enforce(host: Host, instance: Instance, settings: Settings) -> None:
    """Let the domain start with the host, or not; the rest libvirt keeps."""
    if _starts_with_host(_ask(host, "dominfo", instance.full_name)) != settings.autostart:
        options = [] if settings.autostart else ["--disable"]
        _change(host, "autostart", instance.full_name, *options)


def check(host: Host, instance: Instance, settings: Settings) -> list[Check]:
    """Compare the domain, as it runs now, and its disk with the settings."""
    name = instance.full_name
    answer = _ask(host, f"dominfo {name}; vol-info --pool {POOL} --bytes {name}.img")
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
        # In this order: a start that a killed verb left at work ends in a running one.
        if name in _ask(host, "list", "--all", "--persistent", "--name").split():
            _change(host, "undefine", name, "--managed-save", "--snapshots-metadata", "--nvram")
        if name in _ask(host, "list", "--name").split():
            _change(host, "destroy", name)
    for volume in built.volumes_in_pool(host):
        if volume in commands.volumes(instance):
            _change(host, "vol-delete", volume, "--pool", POOL)
    made = instance.machine().get("provider", {})
    for entry in _dhcp_hosts(host):
        if _id_of(entry) == instance.id or entry.get("mac", "") == made.get("mac"):
            _update_dhcp(host, "delete", ET.tostring(entry, encoding="unicode").strip())


def _make_seed(
    host: Host, instance: Instance, settings: Settings, box: built.Box, own: contract.LanNic | None
) -> str:
    """Put the seed into the pool, as QEMU cannot read our private folder. Return its path there."""
    _, volume = commands.volumes(instance)
    seed = instance.state_dir / "seed"
    iso = seed / volume
    host.make_dir(seed)
    texts = {"hostname": settings.hostname or instance.name}
    if own:
        texts |= commands.seed_networks(own, instance.mac)
    theirs = None
    if settings.cloud_init:
        theirs = instance.source(settings.cloud_init).read_text("utf-8-sig")
    is_for_cloud_init = bool(theirs) or box.kind == "cloud"
    if is_for_cloud_init:
        read = (lambda _: "") if host.dry else (lambda path: path.read_text("utf-8"))
        script = read(instance.user_script) if box.kind == "cloud" else None
        key = read(instance.host_key)
        texts |= commands.seed_cloud_init(instance, settings, theirs, script, key)
    for name, text in texts.items():
        host.write(seed / name, text)
    made = [seed / name for name in texts]
    private = [instance.host_key, instance.user_script]
    label = "CIDATA" if is_for_cloud_init else "VAGRANTP"
    argv = commands.seed_iso(iso, [session.BOOT, session.GROW, *private, *made], label)
    host.change(argv, what="packing the seed", timeout=60)
    size = 0 if host.dry else iso.stat().st_size
    _change(host, "vol-create-as", POOL, volume, str(size), "--format", "raw")
    _change(host, "vol-upload", volume, str(iso), "--pool", POOL)
    host.remove(seed)
    return "" if host.dry else _ask(host, "vol-path", volume, "--pool", POOL).strip()


def _ensure_network(host: Host, instance: Instance) -> IPv4Network:
    """Make the NAT network if it is not there, start it, and return its subnet."""
    xml = host.ask(commands.virsh("net-dumpxml", subnets.NAME))
    if xml.ok:
        ip = as_xml(xml.stdout).find("ip")
        if ip is None:
            raise ProviderError(f"the libvirt network {subnets.NAME} is not one of ours")
        subnet = IPv4Network(f"{ip.get('address')}/{ip.get('netmask')}", strict=False)
    else:
        subnet = subnets.free_subnet(host, subnets.FOR_LIBVIRT, also_taken=[])
        file = instance.state_dir / "network.xml"  # virsh reads this from a file only
        host.write(file, commands.libvirt_network(subnets.NAME, subnet))
        _change(host, "net-define", str(file))
        _change(host, "net-autostart", subnets.NAME)
        host.remove(file)
    if subnets.NAME not in _ask(host, "net-list", "--name").split():
        _change(host, "net-start", subnets.NAME)
    return subnet


def _reserve(
    host: Host,
    instance: Instance,
    settings: Settings,
    subnet: IPv4Network,
    fixed: IPv4Address | None,
) -> str:
    """Reserve an address for the VM by a DHCP entry, which libvirt refuses to give twice."""
    mac = commands.mac(instance, settings)
    everyones = _dhcp_hosts(host)
    entries = [entry for entry in everyones if _id_of(entry) != instance.id]
    if holder := next((e.get("name") for e in entries if e.get("mac") == mac), None):
        raise ConflictError(f"MAC {mac} is taken by {holder}")
    # dnsmasq gives no address away that is leased, be it to a VM that was removed just now.
    # Under --dry there may be no network yet, and then no lease.
    leases = host.ask(commands.virsh("net-dhcp-leases", subnets.NAME))
    taken = subnets.leased(leases.stdout, but_to=mac)
    taken |= {entry.get("ip", ""): entry.get("name", "") for entry in entries}
    address = str(subnets.choose_address(subnet, instance.id, taken, fixed))
    action = "modify" if len(entries) < len(everyones) else "add-last"
    _update_dhcp(host, action, commands.dhcp_host(instance, mac, address))
    return address


def _update_dhcp(host: Host, action: str, xml: str) -> None:
    is_active = subnets.NAME in _ask(host, "net-list", "--name").split()
    where = ["--config", *(["--live"] if is_active else [])]
    _change(host, "net-update", subnets.NAME, action, "ip-dhcp-host", xml, *where)


def _id_of(entry: ET.Element) -> str:
    """Return the id of the instance that a DHCP entry is for."""
    return entry.get("name", "").rpartition("-")[2]


def _dhcp_hosts(host: Host) -> list[ET.Element]:
    xml = host.ask(commands.virsh("net-dumpxml", subnets.NAME))
    return as_xml(xml.stdout).findall("ip/dhcp/host") if xml.ok else []


def _change(host: Host, *arguments: str) -> None:
    """Let virsh change something. Raises ProviderError when libvirt refuses."""
    host.change(commands.virsh(*arguments), what=f"virsh {arguments[0]}", timeout=60)


def _ask(host: Host, *arguments: str) -> str:
    """Return virsh's answer. Raises ProviderError when libvirt refuses it or does not answer."""
    return host.answer(commands.virsh(*arguments))
