"""Whether VMs can be made here: libvirt, its network and pool, vagrant-libvirt."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from vagrantp.core import libvirt
from vagrantp.core.answers import as_xml
from vagrantp.core.errors import (
    ConflictError,
    ProviderError,
)
from vagrantp.core.libvirt import virsh
from vagrantp.core.places import SET_UP, state_root
from vagrantp.core.system import Host
from vagrantp.host.finding import Finding, tried
from vagrantp.host.room import room
from vagrantp.images import store
from vagrantp.instance import vagrant
from vagrantp.instance.record import Instance
from vagrantp.net import subnets
from vagrantp.providers.libvirt import domain

NO_VOLUME = re.compile("Storage volume not found|No such file or directory")
MAKERS_VAGRANT = Path("/opt/vagrant")  # not a distribution's own


def libvirt_answers(host: Host) -> Finding:
    """Ask libvirt for its version, and for a QEMU that it can use."""
    version = re.search(r"^Running hypervisor: (.*)$", libvirt.version(host), re.MULTILINE)
    libvirt.capabilities(host)
    return Finding("ok", f"answers, {version[1] if version else 'QEMU'}")


def libvirt_network(host: Host) -> Finding:
    """See that vagrantp made libvirt's network of our name; say which one it would make."""
    if subnets.NAME not in host.answer(virsh("net-list", "--all", "--name")).split():
        subnet = subnets.free_subnet(host, subnets.FOR_LIBVIRT, also_taken=[])
        return Finding("ok", f"the first up makes it, {subnet}")
    xml = as_xml(host.answer(virsh("net-dumpxml", subnets.NAME)))
    if not subnets.is_ours(xml):
        text = f"vagrantp did not make the libvirt network {subnets.NAME}"
        tool = "virsh -c qemu:///system"
        fix = f"{tool} net-destroy {subnets.NAME}; {tool} net-undefine {subnets.NAME}"
        return Finding("failed", text, fix, ConflictError)
    return Finding("ok", "there")


def pool(host: Host, is_built: Callable[[], bool], disk: int = 0) -> Finding:
    """See that the storage pool is active and has room for what a VM takes at once.

    A `disk` in GiB that would not fit is a warning.
    """
    if store.POOL not in host.answer(virsh("pool-list", "--name")).split():
        return Finding("failed", f"libvirt has no active storage pool {store.POOL}", SET_UP)
    xml = as_xml(host.answer(virsh("pool-dumpxml", store.POOL)))
    path = Path(xml.findtext("target/path", "/"))
    # libvirt's own figure for a folder is as old as its last look, and includes root's reserve
    is_folder = xml.get("type") == "dir" and path.is_dir()
    free = shutil.disk_usage(path).free if is_folder else int(xml.findtext("available", "0"))
    return room(str(path), free, "vm", is_built, disk)


def has_disk(host: Host, instance: Instance) -> bool:
    """Say whether the disk of a VM is in the pool, as far as libvirt knows.

    vol-info looks at the file; vol-list knows only what libvirt itself has removed.
    """
    answer = host.ask(virsh("vol-info", domain.volumes(instance)[0], "--pool", store.POOL))
    return answer.ok or not NO_VOLUME.search(answer.stderr)


def vagrant_libvirt(host: Host) -> Finding:
    """See that Vagrant, with our VAGRANT_HOME, loads vagrant-libvirt and connects to libvirt."""
    home = store.vagrant_home()
    host.make_dir(home)
    with host.scratch(state_root()) as folder:
        argv, env = vagrant.probe(folder, home)
        what = "loading vagrant-libvirt"
        try:
            with host.progress.stage("try vagrant-libvirt"):
                host.change(argv, what=what, timeout=120, env=env, cwd=folder, explain=_reason)
        except ProviderError as error:
            # Its makers' package has no plugins, and our home hides those in ~/.vagrant.d.
            install = f"VAGRANT_HOME={shlex.quote(str(home))} vagrant plugin install"
            fix = f"{install} vagrant-libvirt" if MAKERS_VAGRANT.exists() else SET_UP
            raise ProviderError(error.message, fix) from None
    return tried(host, "loads and connects to libvirt")


def _reason(lines: list[str]) -> str:
    """Pick the line that matters: Vagrant prints an error in a Vagrantfile as a paragraph."""
    marked = [line for line in lines if line.startswith("Message: ")]
    return (marked or lines[1:] or [""])[0].removeprefix("Message: ")
