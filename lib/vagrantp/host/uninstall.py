"""What host set-up, base images and links left on this host, and its removal.

Only the places of links are remembered: everything is looked for where it would be, and known as
ours by its name and form. What somebody still uses, or has made under one of our names, stays.
"""

from __future__ import annotations

import os
import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vagrantp_guard import contract

from vagrantp.core import sandbox
from vagrantp.core.answers import as_json, as_xml
from vagrantp.core.errors import ProviderError, StateError, VagrantpError
from vagrantp.core.libvirt import virsh
from vagrantp.core.places import MASTER, state_root, xdg
from vagrantp.core.process import is_installed
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.host import fabricyaml, links
from vagrantp.images import builders, store
from vagrantp.instance.found import Found
from vagrantp.net import subnets
from vagrantp.providers import provider_for
from vagrantp.providers.libvirt import accel

# What playbooks/host.yml writes; the first of them keep guests from the LAN.
SET_UP_FILES = (
    *(str(path.relative_to("/")) for path in (contract.LIB, contract.QEMU_HOOK, contract.OCI_HOOK)),
    "etc/apparmor.d/vagrantp-bwrap",
    "etc/sudoers.d/vagrantp",
    "etc/sysctl.d/60-vagrantp.conf",
    "etc/systemd/network/05-vagrantp.network",
    "etc/systemd/system/vagrantp-guard.service",
    "etc/systemd/system/multi-user.target.wants/vagrantp-guard.service",
    "etc/systemd/system/vagrantp-watch.service",
    "etc/systemd/system/vagrantp-autostart.service",
    "etc/systemd/system/multi-user.target.wants/vagrantp-autostart.service",
    "etc/systemd/user/vagrantp-autostart.service",
    "etc/systemd/user/default.target.wants/vagrantp-autostart.service",
    "etc/containers/containers.conf.d/50-vagrantp.conf",
    "etc/firewalld/zones/vagrantp.xml",
)
# The rest of it, once the files are gone.
SET_UP_REST = f"""
! id {sandbox.USER} >/dev/null 2>&1 || userdel {sandbox.USER}
! command -v ufw >/dev/null || ufw show added |
    sed -n "s/^ufw \\(route \\|\\)\\(.*\\) comment 'vagrantp'$/\\1delete \\2/p" |
    while read -r rule; do ufw $rule </dev/null; done
! firewall-cmd --state >/dev/null 2>&1 || firewall-cmd --quiet --reload
"""
# The volume's version names the user: store.VERSION.
VOLUME = re.compile(
    rf"vagrantp-.+-[0-9a-f]{{10}}_vagrant_box_image_1\.{os.getuid()}_box\.img(\.part)?"
)
PROBE = re.compile(rf"vagrantp-(kvm|qemu)-probe-{os.getuid()}")  # of a killed trial: accel.py
IMAGE = re.compile(r"localhost/vagrantp-.+-[0-9a-f]{10}:latest")


@dataclass(frozen=True)
class Leftover:
    """Something that vagrantp left on this host, and how to remove it; `stays`: why not."""

    name: str
    remove: Callable[[], None]
    stays: str | None = None

    def __str__(self) -> str:
        return f"  keep    {self.name}: {self.stays}" if self.stays else f"  remove  {self.name}"


def uninstall(host: Host, is_sure: Callable[[], bool], root: Path = Path("/")) -> None:
    """Print, then remove, what vagrantp left to this user or this host. `root`: the host's `/`.

    Raises StateError, with nothing removed, while the user has an instance, or is not sure;
    ProviderError when something cannot be asked or removed.
    """
    instances = _instances(host)
    mine = [found for found in instances if found.uid == os.getuid()]
    _refuse(mine)
    others = len(instances) > len(mine)
    last = [*_set_up(host, root, others)]
    found = [*_find(host), *last]
    going = [thing for thing in found if not thing.stays]
    for thing in found:
        show(thing)
    if not going:
        return show("nothing to remove")
    if not host.dry and not is_sure():
        raise StateError("nothing was removed", "make uninstall YES=1 does not ask")
    for thing in going:
        if thing not in last:
            thing.remove()
    if not host.dry:
        if left := [thing.name for thing in _find(host) if not thing.stays]:
            raise ProviderError("still there:\n  " + "\n  ".join(left))
        show(f"removed; what stays: packages, services, groups, pool default, {MASTER}/.venv")
    for thing in last:  # may end in sudo, which asks for a password
        if not thing.stays:
            thing.remove()


def _instances(host: Host) -> list[Found]:
    """Return every instance that a provider here knows, of any user."""
    tools = {"vm": "virsh", "container": "podman"}
    return [
        found
        for infra_type, tool in tools.items()
        if is_installed(tool)
        for found in provider_for(infra_type).list_all(host)
    ]


def _refuse(instances: list[Found]) -> None:
    """Raise StateError when there is an instance, or only its state folder."""
    listed = {
        found.instance.full_name: f"{found.instance.infra_type}, {found.state}, in "
        f"{found.instance.folder}"
        for found in instances
    }
    for path in sorted(state_root().glob("*")):
        if contract.NAME.fullmatch(path.name) and path.is_dir() and path not in builders.left():
            listed.setdefault(path.name, f"its state folder only: {path}")
    if listed:
        lines = [f"\n  {name}: {what}" for name, what in listed.items()]
        raise StateError(
            f"you still have instances:{''.join(lines)}", "fab rm in its folder removes each"
        )


def _find(host: Host) -> Iterator[Leftover]:
    if is_installed("virsh"):
        yield from _of_libvirt(host)
    if is_installed("podman"):
        yield from _of_podman(host)
    for path in links.ours():
        yield Leftover(f"link {path}", partial(host.remove, path))
    yield from _search_root(host)
    for path in (xdg("CACHE", ".cache"), xdg("DATA", ".local/share"), state_root()):
        if os.path.lexists(path):
            yield Leftover(f"folder {path}", partial(_remove_folder, host, path))


def _of_libvirt(host: Host) -> Iterator[Leftover]:
    for name in _names(host, "list", "--all"):
        if PROBE.fullmatch(name):
            yield Leftover(f"domain {name}", partial(accel.remove, host, name))
    domains = _documents(host, [f"dumpxml {shlex.quote(n)}" for n in _names(host, "list", "--all")])
    volumes = _volumes(host)
    for volume in volumes:
        name = volume.findtext("name", "")
        if volume.get("pool") == store.POOL and VOLUME.fullmatch(name):
            path = volume.findtext("target/path", "")
            user = _user_of_volume(path, volumes, domains)
            argv = virsh("vol-delete", name, "--pool", store.POOL)
            yield Leftover(
                f"volume {name} in pool {store.POOL}",
                partial(_run, host, argv),
                f"{user} is based on it" if user else None,
            )
    if subnets.NAME in _names(host, "net-list", "--all"):
        xml = as_xml(host.answer(virsh("net-dumpxml", subnets.NAME)))
        stays = None if subnets.is_ours(xml) else "vagrantp did not make it"
        bridge = contract.BRIDGES["vm"]
        for domain in domains:
            for source in domain.iterfind("devices/interface/source"):
                if source.get("network") == subnets.NAME or source.get("bridge") == bridge:
                    stays = f"{domain.findtext('name')} is on it"
        yield Leftover(
            f"libvirt network {subnets.NAME}", partial(_remove_libvirt_network, host), stays
        )


def _volumes(host: Host) -> list[ET.Element]:
    """Return the XML of every volume in an active pool, with the pool's name as `pool`.

    Raises ProviderError when one has gone meanwhile: none may be overlooked.
    """
    volumes = []
    for pool in _names(host, "pool-list"):
        host.ask(virsh("pool-refresh", pool))  # else files made past libvirt do not show
        listing = host.answer(virsh("vol-list", pool))
        names = re.findall(r"^ *(\S.*?) {2,}/.*$", listing, re.MULTILINE)
        where = f"--pool {shlex.quote(pool)}"
        found = _documents(host, [f"vol-dumpxml {shlex.quote(n)} {where}" for n in names])
        for volume in found:
            volume.set("pool", pool)
        volumes += found
    return volumes


def _user_of_volume(path: str, volumes: list[ET.Element], domains: list[ET.Element]) -> str | None:
    """Return what is based on the file `path`, or has it as its disk."""
    for volume in volumes:
        if volume.findtext("backingStore/path") == path:
            return f"volume {volume.findtext('name')}"
    for domain in domains:
        if any(source.get("file") == path for source in domain.iter("source")):
            return f"VM {domain.findtext('name')}"
    return None


def _remove_libvirt_network(host: Host) -> None:
    if subnets.NAME in _names(host, "net-list"):
        _run(host, virsh("net-destroy", subnets.NAME))
    _run(host, virsh("net-undefine", subnets.NAME))


def _of_podman(host: Host) -> Iterator[Leftover]:
    for path in builders.left():
        yield Leftover(f"{path.name} of a killed build", partial(builders.sweep, host))
    containers = _json(host, "ps", "--all")
    for image in _json(host, "images"):
        users = [_name(c) for c in containers if c["ImageID"] == image["Id"]]
        for name in filter(IMAGE.fullmatch, image.get("Names") or []):
            yield Leftover(
                f"podman image {name}",
                partial(_run, host, ["podman", "image", "rm", name]),
                f"container {users[0]} is made of it" if users else None,
            )
    for found in _json(host, "network", "ls"):
        if found["name"] == subnets.NAME:
            users = [_name(c) for c in containers if subnets.NAME in (c["Networks"] or [])]
            stays = f"container {users[0]} is on it" if users else None
            yield Leftover(
                f"podman network {subnets.NAME}",
                partial(_run, host, ["podman", "network", "rm", subnets.NAME]),
                stays if subnets.is_our_podman_network(found) else "vagrantp did not make it",
            )


def _name(container: dict[str, Any]) -> str:
    return str((container["Names"] or [container["Id"]])[0])


def _search_root(host: Host) -> Iterator[Leftover]:
    name = f"tasks.search_root in {fabricyaml.path()}"
    try:
        text = fabricyaml.edited(fabricyaml.without_root, MASTER)
    except VagrantpError as error:
        if os.fsencode(MASTER) in fabricyaml.path().read_bytes():
            yield Leftover(name, lambda: None, error.message)
    else:
        if text is not None:
            yield Leftover(name, partial(fabricyaml.write, host, text))


def _set_up(host: Host, root: Path, others: bool) -> Iterator[Leftover]:
    files = [path for name in SET_UP_FILES if os.path.lexists(path := root / name)]
    if not files:
        return
    guard = root / contract.GUARD.relative_to("/")
    script = f"{shlex.quote(str(guard))} unload; rm -rf -- {shlex.join(map(str, files))}"
    if root == Path("/"):
        script += SET_UP_REST
    remove, stays = partial(_run, host, ["sh", "-c", script]), None
    if not all(os.access(path.parent, os.W_OK) for path in files):
        remove = partial(host.exec_process, ["sudo", "sh", "-c", script])
        stays = None if is_installed("sudo") else "only root can remove it"
    if others:
        stays = "other users have instances"
    listed = ", ".join(map(str, files))
    yield Leftover(f"the rules that keep guests from the LAN, and {listed}", remove, stays)


def _remove_folder(host: Host, path: Path) -> None:
    """Remove one of our folders. A killed build's files in it belong to ids of /etc/subuid."""
    builds = store.vagrant_home() / "tmp"
    if os.getuid() != 0 and builds.is_relative_to(path) and builds.exists():
        unshare = ["unshare", "--map-root-user", "--map-auto"]
        _run(host, [*unshare, "rm", "-rf", "--one-file-system", str(builds)])
    host.remove(path)


def _names(host: Host, *listing: str) -> list[str]:
    lines = host.answer(virsh(*listing, "--name")).splitlines()
    return [line.strip() for line in lines if line.strip()]


def _documents(host: Host, queries: list[str]) -> list[ET.Element]:
    """Return the XML documents that virsh answers to several queries. Raises ProviderError."""
    text = host.answer(virsh("; ".join(queries))) if queries else ""
    documents = list(as_xml(f"<all>{text}</all>"))
    if len(documents) != len(queries):
        raise ProviderError("libvirt's volumes or VMs are changing just now", "try again")
    return documents


def _json(host: Host, *query: str) -> list[dict[str, Any]]:
    return as_json("podman", host.answer(["podman", *query, "--format", "json"]) or "[]", list)


def _run(host: Host, argv: list[str]) -> None:
    host.change(argv, what=shlex.join(argv), timeout=60)
