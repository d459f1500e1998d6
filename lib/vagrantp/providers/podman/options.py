"""What Podman and the Vagrantfile are given for a container."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from vagrantp_guard import contract

from vagrantp.images.oci import NO_PROXY
from vagrantp.instance.network import LOOPBACK, mac
from vagrantp.instance.record import VERSION, Instance
from vagrantp.providers.podman import ids
from vagrantp.settings.env import Settings

# What systemd gives a service: soft and hard DefaultLimitNOFILE=, systemd-system.conf(5) …
OPEN_FILES = (1024, 524288)
# … and DefaultTasksMax=, in hundredths of what the kernel can have: at least Podman's own limit, at
# most what systemd's own containers have (systemd-nspawn@.service).
TASKS, FEWEST_TASKS, MOST_TASKS = 15, 2048, 16384
# What a package manager needs, and its limits, where ssh is added to an image.
BUILDER = (
    *("--memory=2g", "--memory-swap=2g", "--cpus=2", "--cap-drop=all"),
    "--cap-add=CHOWN,DAC_OVERRIDE,FOWNER,FSETID,KILL,SETFCAP,SETGID,SETUID,SYS_CHROOT",
)


def container(
    instance: Instance,
    settings: Settings,
    image: str,
    network: str,
    address: IPv4Address,
    uid: int,
    own_ids: range,
    lan: contract.LanNic | None,
    has_quota: bool,
    walls: list[str],
) -> dict[str, Any]:
    """Return what the Vagrantfile needs for one of root's containers: image and options.

    `own_ids`: those of this host that are its own. `lan`: its card on a bridge of the host, which
    `guard` makes. `has_quota`: DISK is enforced. `walls`: podman's options for its processes, of
    walls.py.
    """
    options = [
        *walls,
        f"--uidmap=0:{own_ids.start}:{len(own_ids)}",
        f"--gidmap=0:{own_ids.start}:{len(own_ids)}",
        f"--sysctl=net.ipv4.ping_group_range=0 {len(own_ids) - 1}",  # all, without CAP_NET_RAW
        f"--network={network}",
        f"--ip={address}",
        f"--mac-address={mac(instance, settings)}",
    ]
    if lan and lan.dns:  # Podman 5 gives --dns to its own resolver instead (netavark pull 452)
        options.append(f"--volume={instance.resolv_conf}:/etc/resolv.conf:ro,Z")
    if has_quota:  # a volume would be beside it
        options += [f"--storage-opt=size={settings.disk}G", "--image-volume=ignore"]
    made = _container(instance, settings, image, str(address), uid, options)
    return {**made, "lan": lan and lan.to_json(), "has_quota": has_quota, ids.NAME: own_ids.start}


OF_A_USER = (f"--publish={LOOPBACK}::22",)


def rootless_container(
    instance: Instance, settings: Settings, image: str, uid: int, walls: list[str]
) -> dict[str, Any]:
    """Return what the Vagrantfile needs for a user's container.

    The host cannot route to it: ssh goes to a port of the loopback, which Podman picks and keeps.
    `walls`: podman's options for its processes, of walls.py.
    """
    options = [*walls, *OF_A_USER]
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
        *of_all(instance, settings, special),
        *(f"--label={key}={value}" for key, value in labels.items()),
    ]
    return {
        "image": image,
        "address": address,
        "user": settings.ssh_user,
        "key": str(instance.key),
        "options": options,
    }


def of_all(instance: Instance, settings: Settings, special: list[str]) -> list[str]:
    """Return podman's options for a container with an ssh server, its `special` ones among them."""
    return [
        "--init",
        f"--hostname={settings.hostname}",
        *limits(settings),
        f"--shm-size={shared_memory(settings)}k",
        *special,
        f"--volume={instance.host_key.parent}:{contract.SEED_MOUNT}:ro,Z,U",
        f"--annotation={contract.ANNOTATION}={instance.state_dir}",
        "--cap-drop=NET_ADMIN",
        "--cap-drop=NET_RAW",
        NO_PROXY,
    ]


def limits(settings: Settings) -> list[str]:
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
