"""Settings and instances -> argv lists and documents for other programs. Pure: runs nothing."""

from __future__ import annotations

import json
import os
import shlex
import sys
import xml.etree.ElementTree as ET
from base64 import b64encode
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from vagrantp_guard import contract

from vagrantp.core.places import MASTER, PACKAGE, SCRIPTS
from vagrantp.instance.record import VERSION, Instance
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import BUILT_IMAGE, SSH_USER

SHIM = PACKAGE / "providers/shim"  # holds `docker`, which is podman, for Vagrant's eyes only
PLAY = PACKAGE / "guest/play.py"
SHELLS = ("bash", "sh", "dash", "ash")  # that tell in which line a script fails
USER_SCRIPT = SCRIPTS / "user.sh"
MOUNT_SCRIPT = SCRIPTS / "mount.sh"
RELOAD_SSHD = "kill -HUP $(cat /run/sshd.pid) || true"  # one that systemd starts at need has no pid
FIRST_BOOT = SCRIPTS / "first_boot.sh"
PROBES = PACKAGE / "host/probes"
LOOPBACK = "127.0.0.1"
KEPT = 600  # seconds that an idle ssh connection is kept for the next `ssh`
# Podman's default copies http_proxy and the like, with the password in it.
NO_PROXY = "--http-proxy=false"
# What systemd gives a service: soft and hard DefaultLimitNOFILE=, systemd-system.conf(5) …
OPEN_FILES = (1024, 524288)
# … and DefaultTasksMax=, in hundredths of what the kernel can have: at least Podman's own limit, at
# most what a container of systemd's has (systemd-nspawn@.service).
TASKS, FEWEST_TASKS, MOST_TASKS = 15, 2048, 16384


def vagrant(
    instance: Instance, home: Path, path: str, *arguments: str
) -> tuple[list[str], dict[str, str]]:
    """Return argv and environment of a Vagrant command for `instance`.

    `home` is VAGRANT_HOME, `path` the PATH of the child.
    """
    environment = {
        **vagrant_environment(home, instance.state_dir),
        "VAGRANTP_MACHINE": str(instance.machine_json),
        "VAGRANTP_ID": instance.id,
        "VAGRANT_VAGRANTFILE": str(MASTER / "Vagrantfile"),
        "VAGRANT_DOTFILE_PATH": str(instance.state_dir / "vagrant"),
    }
    if instance.infra_type == "container":
        environment["PATH"] = f"{SHIM}:{path}"
    return ["vagrant", *arguments], environment


def mark(instance: Instance) -> str:
    """Return what Vagrant and all that it starts have in their environment."""
    return f"VAGRANTP_ID={instance.id}"


def vagrant_probe(folder: Path, home: Path) -> tuple[list[str], dict[str, str]]:
    """Return argv and environment of a Vagrant command that fails without vagrant-libvirt.

    `folder` is an empty one for it, `home` VAGRANT_HOME.
    """
    environment = {
        **vagrant_environment(home, folder),
        "VAGRANT_VAGRANTFILE": str(PROBES / "vagrant-libvirt.rb"),
        "VAGRANT_DOTFILE_PATH": str(folder / "vagrant"),
    }
    return ["vagrant", "status"], environment


def vagrant_environment(home: Path, cwd: Path) -> dict[str, str]:
    """Return the environment of any Vagrant command.

    `cwd` is a folder of our own, since Vagrant loads `.vagrantplugins` and `Vagrantfile` found
    there as Ruby, even for `status`.
    """
    return {
        "VAGRANT_CWD": str(cwd),
        "VAGRANT_HOME": str(home),
        "VAGRANT_CHECKPOINT_DISABLE": "1",  # asks no server for newer versions
        "VAGRANT_NO_COLOR": "1",
    }


def packet_filter_probe(is_root: bool, python: str, nonce: str) -> list[str]:
    """Return argv that tries a packet filter in namespaces of its own, which end with it."""
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"]
    as_root = [] if is_root else ["--map-root-user"]
    return [*own, *as_root, str(PROBES / "packet-filter"), python, nonce]


def container_probe(name: str, root: Path) -> list[str]:
    """Return argv that runs the file `init` in the folder `root` as a container with limits."""
    limits = ["--memory=64m", "--memory-swap=64m", "--cpus=1"]
    options = ["--rm", "--init", "--network=none", NO_PROXY, *limits, f"--name={name}"]
    return ["podman", "run", *options, "--rootfs", str(root), "/init", "-V"]


def virsh(*arguments: str) -> list[str]:
    """Return argv of one virsh command on the system's libvirt."""
    return ["virsh", "--quiet", "--connect", "qemu:///system", *arguments]


def ssh(instance: Instance, *arguments: str, config: Path | None = None) -> list[str]:
    """Return argv of ssh to `instance`, by our own configuration only."""
    return ["ssh", "-F", str(config or instance.ssh_config), instance.full_name, *arguments]


def kept_ssh(
    instance: Instance, pid: str, *arguments: str, config: Path | None = None
) -> list[str]:
    """Return argv of ssh by a connection that is kept for the next one, to be run in `state_dir`.

    It belongs to one run of the guest, whose first process or QEMU is `pid`, and notices within 30
    seconds when that is gone. The socket's path is relative, since one of over 100 characters
    cannot be had (unix(7), ControlPath in ssh_config(5)).
    """
    options = {
        "ControlMaster": "auto",
        "ControlPath": kept_socket(pid),
        "ControlPersist": KEPT,
        "ServerAliveInterval": 10,
        "ServerAliveCountMax": 3,
    }
    [program, *rest] = ssh(instance, *arguments, config=config)
    return [program, *(f"-o{name}={value}" for name, value in options.items()), *rest]


def kept_socket(pid: str) -> str:
    """Return the name, in `state_dir`, of the socket of a kept connection."""
    return f"ssh-{pid}"


def hang_up(instance: Instance, socket: str, how: str = "exit") -> list[str]:
    """Return argv that ends a kept connection, to be run in `state_dir`.

    `how`: exit, at once; stop, once the shells that are open in it have ended.
    """
    return ["ssh", "-F/dev/null", f"-O{how}", f"-oControlPath={socket}", instance.full_name]


def shell(script: str, *arguments: str) -> str:
    """Return the command that runs a shell script in a guest.

    The user's login shell reads it, and fish or tcsh quote otherwise: so nothing in it is special.
    """
    text = b64encode(script.encode()).decode()
    return shlex.join(["sh", "-c", f'eval "$(echo {text} | base64 -d)"', "sh", *arguments])


def as_root(script: str, *arguments: str) -> str:
    """Return the command that runs a shell script as root in a guest."""
    return f"sudo -n {shell(script, *arguments)}"


def connection(instance: Instance, user: str, port: int) -> str:
    """Return the variables of Ansible by which every host of a playbook is the guest.

    As extra variables they count more than anything that a playbook, its folder or an ansible.cfg
    says. Each goes by all its names, as the last one counts (ansible.builtin.ssh).
    """
    names = {
        ("ansible_connection",): "ssh",
        ("ansible_host", "ansible_ssh_host"): instance.full_name,
        ("ansible_port", "ansible_ssh_port"): port,
        ("ansible_user", "ansible_ssh_user"): user,
        ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"): "",
        ("ansible_host_key_checking", "ansible_ssh_host_key_checking"): True,
        ("ansible_ssh_executable",): "ssh",
        ("ansible_ssh_args",): "-C -o ControlMaster=auto -o ControlPersist=60s",
        ("ansible_ssh_common_args",): shlex.join(["-F", str(instance.ssh_config)]),
        ("ansible_ssh_extra_args",): "",
    }
    return json.dumps({name: value for all_names, value in names.items() for name in all_names})


def playbook(
    instance: Instance,
    pid: str,
    playbook: Path,
    name: str,
    variables: Path | None,
    galaxy: Path | None,
    folder: Path,
) -> list[str]:
    """Return argv that runs a playbook. `folder` has `connection.json`, and gets `events`.

    `pid`: of the guest's QEMU or first process; `name`: the guest's, as the inventory has it;
    `galaxy`: roles and collections that it requires.
    """
    options = [*_options(name, variables), f"--extra-vars=@{folder / 'connection.json'}"]
    places = (str(instance.state_dir), kept_socket(pid), str(folder / "events"))
    return _play(places, galaxy, *options, str(playbook))


def playbook_check(
    playbook: Path, name: str, variables: Path | None, galaxy: Path | None, folder: Path
) -> list[str]:
    """Return argv that looks for mistakes in a playbook, and touches no guest.

    The rest as of `playbook`.
    """
    places = ("/", "", str(folder / "events"))
    return _play(places, galaxy, "--syntax-check", *_options(name, variables), str(playbook))


def _options(name: str, variables: Path | None) -> list[str]:
    return [f"--inventory={name},", *([f"--extra-vars=@{variables}"] if variables else [])]


def _play(places: tuple[str, str, str], galaxy: Path | None, *arguments: str) -> list[str]:
    return [sys.executable, str(PLAY), *places, str(galaxy or ""), *arguments]


def galaxy(kind: str, requirements: Path, folder: Path) -> list[str]:
    """Return argv that puts what `requirements` name into `folder`. `kind`: role or collection."""
    place = folder / "roles" if kind == "role" else folder
    program = Path(sys.executable).with_name("ansible-galaxy")
    option = "--role-file" if kind == "role" else "--requirements-file"
    return [str(program), kind, "install", f"{option}={requirements}", f"-p={place}"]


def provision_script(script: Path, first_line: bytes) -> list[str]:
    """Return the arguments of script.sh for a script that starts with `first_line`.

    script.sh adds an option to a plain sh, which is called as its `#!` says.
    """
    if not first_line.startswith(b"#!"):
        return [script.name, "none"]
    interpreter = first_line[2:].decode(errors="replace").strip()
    names = [Path(word).name for word in interpreter.split() if word[0] != "-"]
    shell = next((name for name in names if name != "env"), "")
    if shell not in SHELLS:
        return [script.name, "none"]
    if shell == "bash":
        return [script.name, "bash"]
    # as the kernel does: what follows the interpreter is one argument
    return [script.name, "sh", *interpreter.split(maxsplit=1)]


def ssh_config(instance: Instance, address: str, port: int, user: str, first: bool = False) -> str:
    """Return the ssh_config(5) of an instance.

    Its host key is known before it first boots, so a connection that would end at another guest
    fails before anything is sent. A box made for Vagrant shows one of its own: `first` takes it.
    """
    options: dict[str, Any] = {
        "HostName": address,
        "Port": port,
        "User": user,
        "IdentityFile": _quoted(instance.key),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": _quoted(instance.known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": instance.full_name,
        "StrictHostKeyChecking": "accept-new" if first else "yes",
        "PreferredAuthentications": "publickey",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ConnectTimeout": 10,
        "LogLevel": "ERROR",
    }
    lines = [f"  {name} {value}" for name, value in options.items()]
    return "\n".join([f"Host {instance.full_name}", *lines, ""])


def keygen(path: Path, comment: str) -> list[str]:
    """Return argv that makes an Ed25519 key pair without a passphrase."""
    return ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]


def user_script(user: str, keys: str, is_made_later: bool = False) -> str:
    """Return a script that lets a user log into a guest by `keys`, and become root there by sudo.

    For any guest, and any number of times: what the user has there already stays. `is_made_later`:
    by cloud-init, as a person's #cloud-config says.
    """
    values = {"user": user, "keys": keys.strip(), "is_made_later": "yes" if is_made_later else "no"}
    start = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return start + USER_SCRIPT.read_text(encoding="utf-8")


def seed_networks(lan: contract.LanNic, mac: str) -> dict[str, str]:
    """Return the systemd.network(5) files of a VM with a card on a bridge: the way out is there.

    `mac` is that of its card on our network, which is for this host alone.
    """
    no = ("UseRoutes", "UseDNS", "UseDomains", "UseNTP", "UseGateway", "UseHostname")
    here = ["[Network]", "DHCP=ipv4", "[DHCPv4]", *(f"{what}=no" for what in no)]
    own = ["DHCP=ipv4", "[DHCPv4]", "UseHostname=no"]
    if lan.address:
        own = [f"Address={lan.address}", f"Gateway={lan.gateway}", f"DNS={lan.dns}"]
    there = ["[Network]", "LinkLocalAddressing=no", *own]
    return {
        # a bridge that the guest makes has the address of its card, and a kind
        f"10-{name}.network": "\n".join(["[Match]", f"MACAddress={address}", "Kind=!*", *lines, ""])
        for name, address, lines in (("host", mac, here), ("lan", lan.mac, there))
    }


def seed_cloud_init(
    instance: Instance, settings: Settings, theirs: str | None, user_script: str | None, key: str
) -> dict[str, str]:
    """Return the files of a NoCloud seed. `theirs`: a person's #cloud-config, which stays as it is.

    There is nothing to merge: what we need of a guest a script does before all modules
    (`user_script`, and the host key; None where the image does it without cloud-init). Only a NAME
    that was written counts more than a `hostname` in there: that is a part of its own, which
    replaces (cloud-init's default is to keep what an earlier part says).
    """
    from email.mime.multipart import MIMEMultipart  # takes 0.04 s, and few need it
    from email.mime.text import MIMEText

    parts = [theirs] if theirs else []
    if theirs and settings.hostname == settings.name:
        name = {"hostname": settings.name, "prefer_fqdn_over_hostname": False}
        how = {"merge_how": "dict(replace)+list()+str()"}
        parts.append("#cloud-config\n" + json.dumps(how | name))
    if user_script is not None:
        start = f"#cloud-boothook\n#!/bin/sh\nkey={shlex.quote(key)}\n"
        parts.append(start + FIRST_BOOT.read_text("utf-8") + user_script)
    message = MIMEMultipart()
    for part in parts:
        message.attach(MIMEText(part, "plain", "utf-8"))  # of "plain" it finds out the kind itself
    meta = {
        "instance-id": instance.full_name,
        "local-hostname": settings.hostname or settings.name,
    }
    # The host key is ours, and sudo wants to know the name. What a person says outranks both.
    defaults = {"ssh_deletekeys": False, "manage_etc_hosts": "localhost"}
    return {
        "meta-data": json.dumps(meta),
        "user-data": message.as_string(),
        "vendor-data": "#cloud-config\n" + json.dumps(defaults),
    }


def seed_iso(target: Path, files: Iterable[Path], label: str = "VAGRANTP") -> list[str]:
    """Return argv that packs a seed of these files. One with the label CIDATA is cloud-init's."""
    options = ["-quiet", "-volid", label, "-joliet", "-rock"]
    return ["xorriso", "-as", "genisoimage", *options, "-output", str(target), *map(str, files)]


def libvirt_network(name: str, subnet: IPv4Network) -> str:
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
    return ET.tostring(network, encoding="unicode")


def mac(instance: Instance, settings: Settings) -> str:
    """Return the MAC address of a guest on our network; on a bridge, MAC is of its card there."""
    is_here = settings.network_type == "default"
    return settings.mac if is_here and settings.mac else instance.mac


def fixed_ip(settings: Settings) -> IPv4Address | None:
    """Return the address asked for on our network; on a bridge, FIXED_IP is of the card there."""
    return settings.fixed_ip if settings.network_type == "default" else None


def dhcp_host(instance: Instance, mac: str, address: str) -> str:
    """Return the DHCP entry that keeps an address for a VM.

    Its name is not the instance's: libvirt wants a letter first, dnsmasq 63 characters at most.
    """
    host = ET.Element("host", mac=mac, name=f"vagrantp-{instance.id}", ip=address)
    return ET.tostring(host, encoding="unicode")


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
        "mac": mac(instance, settings),
        "port": f"{contract.TAPS}{instance.id}",
        "metadata": domain_metadata(instance, settings, str(facts["address"]), lan),
        "lan": lan and lan.to_json(),
        **facts,
    }


def acceleration(accel: str) -> dict[str, Any]:
    """Return what the Vagrantfile needs for a VM's processor. `accel`: kvm or tcg."""
    if accel == "kvm":
        return {"accel": accel, "driver": "kvm", "cpu": {"mode": "host-model"}}
    return {"accel": accel, "driver": "qemu", "cpu": {"mode": "custom", "model": "qemu64"}}


def domain_metadata(
    instance: Instance, settings: Settings, address: str, lan: contract.LanNic | None
) -> dict[str, str]:
    """Return what a domain says of itself: whose it is, and to `guard` what it may reach.

    `lan`: its card on a bridge of the host, None where it has none.
    """
    allowed, shared = policy(settings), mount(instance, settings)
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


def mount(instance: Instance, settings: Settings) -> contract.Mount | None:
    """Return how `guard` is to share the project folder with a guest, None where it is not.

    All in it belongs to who logs in. Which number that is the guest knows: until it was asked, it
    is what the first user gets, and in our own image, which has one, the second.
    """
    if settings.mount == "none":
        return None
    is_second = settings.ssh_user != SSH_USER and settings.image == BUILT_IMAGE
    likely = 0 if settings.ssh_user == "root" else 1001 if is_second else 1000
    uid, gid = instance.machine().get("provider", {}).get("user_ids", [likely, likely])
    return contract.Mount(settings.mount, instance.folder, uid, gid)


def mount_inside(mode: str) -> str:
    """Return the script that mounts the project folder in a VM, as root. `mode`: none, ro, rw."""
    return f"mode={mode}\n" + MOUNT_SCRIPT.read_text(encoding="utf-8")


def set_domain_metadata(instance: Instance, values: dict[str, str], *when: str) -> list[str]:
    """Return argv that writes a domain's metadata anew. `when`: --config, --live."""
    element = ET.Element("instance", values)
    xml = ET.tostring(element, encoding="unicode")
    which = ("--uri", contract.METADATA_URI, "--key", "vagrantp")
    return virsh("metadata", instance.full_name, *which, *when, "--set", xml)


def policy(settings: Settings, lan: contract.LanNic | None = None) -> contract.Policy:
    """Return what a guest may reach. `lan`: its card on a bridge of the host."""
    return contract.Policy(settings.lan_access, settings.lan_allow, lan)


def guard(*arguments: str) -> list[str]:
    """Return argv of the keeper of the packet filter, which root alone may be."""
    return [*([] if os.getuid() == 0 else ["sudo", "-n"]), str(contract.GUARD), *arguments]


def guard_inside(verb: str, pid: str, instance: Instance) -> list[str]:
    """Return argv for the rules in a user's container. `verb`: check, load."""
    return ["podman", "unshare", str(contract.GUARD), "inside", verb, pid, str(instance.state_dir)]


def volumes(instance: Instance) -> tuple[str, str]:
    """Return the names of a VM's volumes: disk and seed."""
    return f"{instance.full_name}.img", f"{instance.full_name}-seed.iso"


def container(
    instance: Instance,
    settings: Settings,
    image: str,
    network: str,
    address: IPv4Address,
    uid: int,
    lan: contract.LanNic | None,
    has_quota: bool,
    limits: list[str],
) -> dict[str, Any]:
    """Return what the Vagrantfile needs for a container of root's: image and options.

    `lan`: its card on a bridge of the host, which `guard` makes. `has_quota`: DISK is enforced.
    `limits`: podman's options for its processes.
    """
    options = [
        *limits,
        f"--network={network}",
        f"--ip={address}",
        f"--mac-address={mac(instance, settings)}",
    ]
    if lan and lan.dns:
        options.append(f"--dns={lan.dns}")
    if has_quota:  # a volume would be beside it
        options += [f"--storage-opt=size={settings.disk}G", "--image-volume=ignore"]
    made = _container(instance, settings, image, str(address), uid, options)
    return {**made, "lan": lan and lan.to_json(), "has_quota": has_quota}


def rootless_container(
    instance: Instance, settings: Settings, image: str, uid: int, limits: list[str]
) -> dict[str, Any]:
    """Return what the Vagrantfile needs for a container of a user's.

    The host cannot route to it: ssh goes to a port of the loopback, which Podman picks and keeps.
    `limits`: podman's options for its processes.
    """
    options = [*limits, f"--publish={LOOPBACK}::22"]
    return _container(instance, settings, image, LOOPBACK, uid, options)


def _container(
    instance: Instance, settings: Settings, image: str, address: str, uid: int, special: list[str]
) -> dict[str, Any]:
    labels = {
        "vagrantp.id": instance.id,
        "vagrantp.name": instance.name,
        "vagrantp.folder": str(instance.folder),
        "vagrantp.uid": str(uid),
        "vagrantp.version": str(VERSION),
        "vagrantp.address": address,
        "vagrantp.autostart": "yes" if settings.autostart else "no",
    }
    options = [
        "--init",
        f"--hostname={settings.hostname}",
        *container_limits(settings),
        f"--shm-size={shared_memory(settings)}k",
        *special,
        f"--volume={instance.host_key.parent}:{contract.SEED_MOUNT}:ro,Z",
        f"--annotation={contract.ANNOTATION}={instance.state_dir}",
        "--cap-drop=NET_ADMIN",
        "--cap-drop=NET_RAW",
        NO_PROXY,
        *(f"--label={key}={value}" for key, value in labels.items()),
    ]
    return {
        "image": image,
        "address": address,
        "user": settings.ssh_user,
        "key": str(instance.key),
        "options": options,
    }


def container_limits(settings: Settings) -> list[str]:
    """Return podman's options for the limits. No swap on top: the memory is what is written."""
    memory = f"{settings.memory}m"
    return [f"--memory={memory}", f"--memory-swap={memory}", f"--cpus={settings.cpus}"]


def shared_memory(settings: Settings) -> int:
    """Return the size of a container's /dev/shm in KiB: half of MEMORY, as in a VM (tmpfs(5))."""
    return settings.memory * 1024 // 2


def with_open_files(*argv: str) -> list[str]:
    """Return argv that runs a command with a container's limits of open files."""
    return ["prlimit", "--nofile={}:{}".format(*OPEN_FILES), *argv]


def process_limits(most: int, hard: tuple[int, int] | None) -> list[str]:
    """Return podman's options for the numbers of processes and open files in a container.

    `most`: processes that this host's kernel can have. `hard`: limits of open files and processes
    that nobody on this host may raise (-1: none), None where the usual ones can be had.
    """
    tasks = min(MOST_TASKS, max(FEWEST_TASKS, most * TASKS // 100))
    (soft, files), processes = OPEN_FILES, -1
    if hard:
        files, processes = min(files, hard[0]), min(most, hard[1])
    options = [f"--pids-limit={tasks}", f"--ulimit=nofile={min(soft, files)}:{files}"]
    if processes != -1:  # Podman's own may be more than that
        options.append(f"--ulimit=nproc={processes}:{processes}")
    return options


def _quoted(path: Path) -> str:
    """Quote a path for ssh_config(5), where % starts a token."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'
