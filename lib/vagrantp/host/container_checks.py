"""Whether containers can be made here: Podman, its network and storage, limits and ids."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vagrantp.core.answers import as_json
from vagrantp.core.errors import (
    ConflictError,
    HostLimitError,
)
from vagrantp.core.places import SET_UP
from vagrantp.core.system import Host
from vagrantp.core.text import last_line
from vagrantp.host.finding import Finding
from vagrantp.host.room import free, room
from vagrantp.net import subnets
from vagrantp.providers.podman import nested, quota
from vagrantp.settings.env import Settings

SYSTEMD = Path("/run/systemd/system")
STARTER = Path("/etc/systemd/system/vagrantp-autostart.service")  # playbooks/host.yml
# Settings by which a kernel denies namespaces to ordinary users, the value that does so, and one
# that allows them: Debian's own, Ubuntu's own, everyone's.
NAMESPACE_SETTINGS = {
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user.max_user_namespaces": ("0", "15000"),
}
# As playbooks/host.yml sets them: never reached before a container's MEMORY is.
SHARED_LIMITS = {
    "fs.inotify.max_user_instances": 2**31 - 1,
    "fs.inotify.max_user_watches": 2**31 - 1,
    "fs.file-max": 2**63 - 1,
}
CGROUP_HELP = "https://rootlesscontaine.rs/getting-started/common/cgroup2/"


def starts_containers(settings: Settings) -> Finding:
    """See that containers can start with the host, where one is to: by a unit of systemd."""
    if settings.autostart and not (STARTER.exists() and SYSTEMD.exists()):
        text = "AUTOSTART=yes of a container needs systemd, and what host set-up puts there"
        return Finding("failed", text, SET_UP if SYSTEMD.exists() else "take AUTOSTART out")
    return Finding("ok", "not needed, or there")


def routable(settings: Settings) -> Finding:
    """See that a container to which the host is to route is one of root's."""
    for key, value in (("FIXED_IP", settings.fixed_ip), ("MAC", settings.mac)):
        if value and os.getuid() != 0:
            text = f"{key} is not for a user's container: it is on no network of this host"
            return Finding("failed", text, f"take {key} out; PORTS leads to it")
    return Finding("ok", "not needed, or given")


def podman(host: Host) -> Finding:
    """Ask podman for its version."""
    return Finding("ok", f"answers, {quota.podman_info(host)['version']['Version']}")


def podman_network(host: Host) -> Finding:
    """See that podman's network of our name, if there is one, was made by vagrantp."""
    listing = as_json("podman", host.answer(["podman", "network", "ls", "--format", "json"]), list)
    named = [item for item in listing if item["name"] == subnets.NAME]
    if os.getuid() != 0:
        return Finding("ok", "not needed by a user's containers")
    if not named:
        return Finding("ok", "the first up makes it")
    if not subnets.is_our_podman_network(named[0]):
        fix = f"podman network rm {subnets.NAME}"
        text = f"vagrantp did not make the podman network {subnets.NAME}"
        return Finding("failed", text, fix, ConflictError)
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
    """See that a user can be root of a namespace with the ids of /etc/subuid, by newuidmap."""
    if os.getuid() == 0:
        return Finding("ok", "root needs none")
    answer = host.ask(["unshare", "--map-root-user", "--map-auto", "true"])
    if answer.ok:
        return Finding("ok", "newuidmap gives those of /etc/subuid and /etc/subgid")
    why = last_line(answer.stderr)
    return Finding("failed", f"no namespace with ids of its own: {why}", namespaces_fix())


def shared_limits() -> Finding:
    """See that no container can use up what the kernel counts for it and this host's root together.

    What it takes there is in its MEMORY, which is the limit.
    """
    found = {name: int(Path("/proc/sys", *name.split(".")).read_text()) for name in SHARED_LIMITS}
    low = [
        f"{name} is {found[name]}" for name, enough in SHARED_LIMITS.items() if found[name] < enough
    ]
    if low:
        text = f"a container can use up what this host shares with it: {', '.join(low)}"
        return Finding("warning", text, SET_UP)
    return Finding("ok", "no container can use up inotify, or open files")


def nestable(settings: Settings) -> Finding:
    """See that containers can be made in a container, if NESTED=yes asks for it.

    What only a running one shows is tried when it runs: providers/podman/nested.py.
    """
    if not settings.nested:
        return Finding("ok", "not asked for")
    if os.getuid() != 0:
        text = "NESTED=yes is for root: root of a user's container could lift its own limits"
        return Finding("failed", text, error=HostLimitError)
    if missing := nested.missing():
        text = f"NESTED=yes needs {' and '.join(missing)}, for everybody"
        fix = f"sudo modprobe --all fuse tun; sudo chmod a+rw {' '.join(missing)}"
        return Finding("failed", text, fix, HostLimitError)
    for name, (denying, allowing) in NAMESPACE_SETTINGS.items():
        path = Path("/proc/sys", *name.split("."))
        if path.exists() and path.read_text().strip() == denying:
            text = f"NESTED=yes needs namespaces, and {name} is {denying}"
            return Finding("failed", text, f"sudo sysctl --write {name}={allowing}", HostLimitError)
    return Finding("ok", f"{' and '.join(nested.DEVICES)} are there")


def namespaces_fix() -> str:
    """Return the command that allows ordinary users namespaces, if a setting denies them."""
    for name, (denying, allowing) in NAMESPACE_SETTINGS.items():
        path = Path("/proc/sys", *name.split("."))
        if os.getuid() != 0 and path.exists() and path.read_text().strip() == denying:
            return f"sudo sysctl --write {name}={allowing}"
    return SET_UP


def container_storage(host: Host, is_built: Callable[[], bool], disk: int = 0) -> Finding:
    """See that podman's storage has room for what a container takes at once, as `pool` does.

    Where it has, say whether it can also keep a container to its DISK.
    """
    root = quota.podman_info(host)["store"]["graphRoot"]
    found = room(root, free(Path(root)), "container", is_built, disk)
    if found.outcome != "ok":
        return found
    why = quota.why_none(host)
    limits = f"DISK is not enforced: {why}" if why else "DISK is enforced"
    return replace(found, found=f"{found.found}; {limits}")
