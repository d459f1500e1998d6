"""Whether a VM and a container could be made on this host: the checks of `up`, and trials."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vagrantp.core.errors import ProviderError, cleaned_up_by
from vagrantp.core.libvirt import virsh
from vagrantp.core.places import SET_UP, state_root
from vagrantp.core.process import environment, is_installed
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.host import checks, container_checks, room, vm_checks
from vagrantp.host.finding import Finding, HostCheck, look, tools, tried
from vagrantp.images import built, filled
from vagrantp.images.oci import NO_PROXY
from vagrantp.instance.vagrant import PROBES
from vagrantp.net import isolation
from vagrantp.providers.libvirt import accel
from vagrantp.settings.keys import BUILT_IMAGES

SMALLEST = 512  # MiB that a guest needs
# `podman run --init` looks for it there, too.
CATATONIT = ("catatonit", "/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit")


def examine(host: Host, as_json: bool) -> None:
    """Print every check of this host as it is made.

    Raises the error of the first one that failed: then a VM or a container cannot be made.
    """
    listed, failed = [], []
    for name, check in all_checks(host):
        finding = look(check)
        listed.append({"name": name, **_shown(finding)})
        if finding.outcome == "failed":
            failed.append(finding)
        if not as_json:
            show(_line(name, finding))
    if as_json:
        show(json.dumps({"schema": 1, "ok": not failed, "checks": listed}, indent=2))
    if failed:
        raise failed[0].error(f"{len(failed)} of {len(listed)} checks failed")


def all_checks(host: Host) -> Iterator[tuple[str, HostCheck]]:
    """Yield every check with its name. Those that try something do so when they are called."""
    box = partial(built.is_built, host, "vm", built.FIRST)
    image = partial(built.is_built, host, "container", built.FIRST)
    needed = dict.fromkeys([*checks.TOOLS["vm"], *checks.TOOLS["container"], "nft", "ip"])
    yield "tools", partial(tools, needed)
    for infra_type in ("vm", "container"):
        # as if none were built: the next version may bring a new recipe
        check = partial(checks.image_tools, infra_type, lambda: False)
        yield f"image tools ({infra_type})", check
    yield "memory", partial(checks.memory, SMALLEST)
    yield "processors", partial(checks.cpus, 1)
    yield "sandbox", partial(checks.sandboxed, host)
    yield "room to build images", partial(room.build_room, "vm", box)
    for name in BUILT_IMAGES:
        for infra_type in ("vm", "container"):
            if built.is_built(host, infra_type, name):
                yield f"{name} ({infra_type})", partial(checks.age, host, infra_type, name)
    yield "filled images", partial(filled_images, host)
    yield "libvirt", partial(vm_checks.libvirt_answers, host)
    yield "vagrant-libvirt", partial(vm_checks.vagrant_libvirt, host)
    yield "storage pool", partial(vm_checks.pool, host, box)
    yield "libvirt network", partial(vm_checks.libvirt_network, host)
    yield "libvirt nwfilter", partial(nwfilter, host)
    yield "kvm", partial(kvm, host)
    yield "vm", partial(vm, host)
    yield "podman", partial(container_checks.podman, host)
    yield "cgroup controllers", partial(container_checks.cgroup, host)
    yield "shared limits", container_checks.shared_limits
    yield "user ids", partial(container_checks.user_ids, host)
    yield "container storage", partial(container_checks.container_storage, host, image)
    yield "podman network", partial(container_checks.podman_network, host)
    yield "container", partial(container, host)
    yield "mounts", partial(tools, checks.MOUNT_TOOLS)
    yield "isolation", partial(isolated, host)
    yield "packet filter", partial(packet_filter, host)
    yield "other firewalls", partial(other_firewalls, host)


def filled_images(host: Host) -> Finding:
    """Count the images that have what our own playbooks install, and their bytes."""
    from humanize import naturalsize

    try:
        found = filled.images(host)
    except ProviderError:  # a check of its own says that there is no Podman
        found = []
    size = naturalsize(sum(one.size for one in found), binary=True)
    return Finding("ok", f"{len(found)}, {size} with what they stand on" if found else "none")


def nwfilter(host: Host) -> Finding:
    """Ask libvirt's driver of packet filters."""
    names = host.answer(virsh("nwfilter-list"))
    return Finding("ok", f"answers, {len(names.split()) // 2} filters")


def isolated(host: Host) -> Finding:
    """Ask whether the rules that keep guests from the LAN are in force; change nothing."""
    why, one_wall = isolation.why_not_installed(), ""
    if not why and (os.getuid() == 0 or is_installed("sudo")):
        found = isolation.live(host)
        why, one_wall = "; ".join(found.problems), found.one_wall
    if why:
        return Finding("failed", why, SET_UP)
    if one_wall:
        return Finding("warning", f"its rules are in force, without a second wall: {one_wall}")
    return Finding("ok", "its rules are in force")


def other_firewalls(host: Host) -> Finding:
    """Send packets as a guest does, to its resolver and to the internet."""
    if host.dry:
        return Finding("warning", "not tried")
    if isolated(host).outcome != "ok":
        return Finding("failed", "not tried, as guests are not isolated", SET_UP)
    found = isolation.closed_by_others(host)
    if not found:
        return Finding("ok", "not tried, as no guest runs")
    if closed := [f"{', '.join(names)} from {bridge}" for bridge, names in found.items() if names]:
        return Finding("failed", f"this host lets no guest through to {'; '.join(closed)}", SET_UP)
    return Finding("ok", f"what {' and '.join(found)} need passes")


def kvm(host: Host) -> Finding:
    """Run a kernel under KVM for a moment. A failure is only a warning: VMs are then emulated."""
    why = accel.why_not_kvm(host, retry=True)
    if why == accel.NO_KERNEL:
        return Finding("warning", f"not tried: {why}")
    if why:
        advice = "until KVM works VMs are emulated, and slow; in a VM its own host has to allow it"
        return Finding("warning", why, SET_UP if "Permission denied" in why else advice)
    return Finding("ok", "a kernel runs under it")


def vm(host: Host) -> Finding:
    """Run a guest in software emulation for a moment, as every host with QEMU can."""
    kernel = accel.kernel()
    if host.dry:
        host.change(["virsh", "start", "qemu-probe"], what="trying QEMU", timeout=1)
    elif why := accel.why_not(host, "qemu", kernel):
        raise ProviderError(why)
    return tried(host, f"{'a kernel' if kernel else 'firmware'} runs under QEMU")


def container(host: Host) -> Finding:
    """Run a container for a moment, out of a folder: no image is needed."""
    paths = (shutil.which(place, path=environment()["PATH"]) for place in CATATONIT)
    catatonit = next(filter(None, paths), None)
    if catatonit is None:
        return Finding("failed", "catatonit is not installed, a container's first process", SET_UP)
    name = f"vagrantp-probe-{os.getpid()}"
    with host.scratch(state_root()) as root:
        host.write(root / "init", b"" if host.dry else Path(catatonit).read_bytes(), 0o755)
        remove = ["podman", "rm", "--force", "--ignore", name]
        with cleaned_up_by(lambda: host.change(remove, what="ending the trial", timeout=60)):
            argv = _container_probe(name, root)
            host.change(argv, what="a container", timeout=60)
    return tried(host, "one runs")


def _container_probe(name: str, root: Path) -> list[str]:
    """Return argv that runs the file `init` in the folder `root` as a container with limits."""
    limits = ["--memory=64m", "--memory-swap=64m", "--cpus=1"]
    options = ["--rm", "--init", "--network=none", NO_PROXY, *limits, f"--name={name}"]
    return ["podman", "run", *options, "--rootfs", str(root), "/init", "-V"]


def packet_filter(host: Host) -> Finding:
    """See that nft stops a packet: on a veth pair between network namespaces of their own."""
    nonce = secrets.token_hex(8)
    argv = _packet_filter_probe(os.getuid() == 0, sys.executable, nonce)
    answer = host.ask(argv)
    if answer.stdout.splitlines() == [f"open {nonce}", "closed nothing"]:
        return Finding("ok", "nft stops a packet that passes without it")
    lines = (answer.stdout + answer.stderr).strip().splitlines()
    why = lines[-1] if lines else "no reason given"
    if f"closed {nonce}" in lines:
        why = "a packet passes nft's rule against it"
    return Finding("failed", why, container_checks.namespaces_fix())


def _packet_filter_probe(is_root: bool, python: str, nonce: str) -> list[str]:
    """Return argv that tries a packet filter in namespaces of its own, which end with it."""
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"]
    as_root = [] if is_root else ["--map-root-user"]
    return [*own, *as_root, str(PROBES / "packet-filter"), python, nonce]


def _shown(finding: Finding) -> dict[str, Any]:
    return {"outcome": finding.outcome, "found": finding.found, "mend": finding.fix}


def _line(name: str, finding: Finding) -> str:
    fix = f"; to fix: {finding.fix}" if finding.fix else ""
    return f"{finding.outcome:<7}  {name:<23}  {finding.found}{fix}"
