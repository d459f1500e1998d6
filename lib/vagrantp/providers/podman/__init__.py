"""Containers: Podman's, asked through podman(1)."""

from __future__ import annotations

import os
import re
from functools import partial
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

from vagrantp_guard import contract

from vagrantp.core.answers import as_json
from vagrantp.core.errors import (
    HostLimitError,
    ProviderError,
    ProvisionError,
    StateError,
    VagrantpError,
)
from vagrantp.core.progress import Check, compare
from vagrantp.core.system import Host
from vagrantp.core.text import plain
from vagrantp.guest import provision
from vagrantp.images import built, oci
from vagrantp.instance import certificates, guard, network
from vagrantp.instance.found import UP, Found, State, uid_from
from vagrantp.instance.record import Instance
from vagrantp.net import subnets
from vagrantp.providers.podman import addresses, cgroup, ids, nested, options, presets, quota, walls
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import BUILT_IMAGES

STATES: dict[str, State] = {
    "running": "running",
    "paused": "paused",
    "created": "stopped",  # if it never ran it has no ssh_config, and is shown as broken
    "initialized": "stopped",
    "exited": "stopped",
    "stopped": "stopped",
    "stopping": "running",
}
MIB, GIB = 1024**2, 1024**3


def list_all(host: Host) -> list[Found]:
    """Return each of this user's containers that vagrantp made, by one podman call."""
    listing = _ask(host, "ps", "--all", "--filter", "label=vagrantp.id", "--format", "json")
    found = []
    for container in as_json("podman", listing or "[]", list):
        labels = container["Labels"]
        instance = Instance(
            labels.get("vagrantp.name", ""),
            labels["vagrantp.id"],
            Path(labels.get("vagrantp.folder", "/")),
            "container",
        )
        if instance.full_name not in container["Names"]:
            continue
        made = instance.machine()
        settings, provider = made.get("settings", {}), made.get("provider", {})
        now = STATES.get(container["State"], "broken")
        memory, cpus = settings.get("memory"), settings.get("cpus")
        disk = settings.get("disk") if instance.is_disk_limited() else None
        if now in UP:
            given, cpus = cgroup.limits(container["Pid"])
            memory = given and given // MIB
            disk = disk and quota.live(container["Pid"])
        found.append(
            Found(
                instance,
                now,
                uid=uid_from(labels.get("vagrantp.uid", "")),
                reason=None if now != "broken" else f"podman says {container['State']}",
                address=provider.get("address", labels.get("vagrantp.address")),
                memory=memory,
                cpus=cpus,
                disk=disk,
            )
        )
    return found


def prepare(
    host: Host,
    instance: Instance,
    settings: Settings,
    card: contract.LanNic | None,
    is_filled: bool,
) -> dict[str, Any]:
    """Make the image, the network and the address of a container that is to be created.

    `is_filled`: the image may have what our own playbooks install.
    """
    without = quota.why_none(host)
    if without:
        host.progress.say(f"DISK={settings.disk} is not enforced: {without}")
    own, uid = walls.walls(host, instance), os.getuid()
    image = _image(host, instance, settings, own)
    preset = {provision.PRESET: provision.preset_name(settings) if is_filled else ""}
    if preset[provision.PRESET]:
        try:
            image = presets.ensure(host, instance, settings, image)
        except ProvisionError as error:
            if not (settings.lan_access or settings.lan_allow):
                raise
            host.progress.say(f"no image could be filled, without the LAN: {error.message}")
            preset[provision.PRESET] = ""
    size = ids.SIZE
    if settings.nested:
        own, size = walls.walls(host, instance, is_nested=True), ids.NESTED_SIZE
    first_id = ids.take(host, instance.state_dir, size) if uid == 0 else None
    host.write(instance.isolation_json, guard.isolation(instance, settings, card, first_id))
    if first_id is None:
        return preset | options.rootless_container(instance, settings, image, uid, own)
    ids.share_namespaces(host)
    address = addresses.take_address(host, instance.state_dir, network.fixed_ip(settings))
    if card and card.dns:
        host.write(instance.resolv_conf, f"nameserver {card.dns}\n", 0o644)
    own_ids, has_quota = range(first_id, first_id + size), without is None
    return preset | options.container(
        instance, settings, image, subnets.NAME, address, uid, own_ids, card, has_quota, own
    )


def _image(host: Host, instance: Instance, settings: Settings, own: list[str]) -> str:
    if settings.image in BUILT_IMAGES:
        return built.ensure_container_image(host, settings.image)

    def builder(folder: Path) -> list[str]:
        if os.getuid() != 0:
            return [*own, *options.BUILDER]
        address = addresses.take_address(host, folder, None)
        return [*own, *options.BUILDER, f"--network={subnets.NAME}", f"--ip={address}"]

    return oci.ensure(host, settings.image, builder, certificates.of(instance, settings))


def keep_address(host: Host, instance: Instance, settings: Settings) -> str:
    """See that a stopped container gets FIXED_IP, or the address that it had; return it."""
    had = str(instance.machine()["provider"]["address"])
    own = instance.state_dir / "address"
    if had == network.LOOPBACK or not own.exists():
        return had  # a user's: it is on no network of this host
    wanted = network.fixed_ip(settings) or IPv4Address(had)
    if had == str(IPv4Interface(wanted).ip) == own.read_text(encoding="ascii"):
        return had
    address = addresses.take_address(host, instance.state_dir, wanted)
    # The file and machine.json differ until the end: a start that is killed before is repeated.
    name, where = instance.full_name, ["podman", "network"]
    card = [f"--ip={address}", f"--mac-address={network.mac(instance, settings)}"]
    if subnets.NAME in _inspect(host, instance, "{{json .NetworkSettings.Networks}}"):
        argv = [*where, "disconnect", subnets.NAME, name]
        host.change(argv, what="giving its address up", timeout=60)
    argv = [*where, "connect", *card, subnets.NAME, name]
    host.change(argv, what="giving it its address", timeout=60)
    return str(address)


def endpoint(host: Host, instance: Instance, made: dict[str, Any]) -> tuple[str, int]:
    """Return the address and port of its ssh server."""
    if made["address"] != network.LOOPBACK:
        return made["address"], 22
    published = _ask(host, "port", instance.full_name, "22/tcp")  # 127.0.0.1:40123
    return network.LOOPBACK, int(published.rpartition(":")[2])


def isolate(host: Host, instance: Instance, settings: Settings) -> None:
    """Record what the container may reach and how it gets its project, for the OCI hook."""
    document = guard.isolation(instance, settings, instance.lan, ids.of(instance))
    host.write(instance.isolation_json, document)


def adopt(host: Host, instance: Instance) -> None:
    """Record the id of a container that an older version made, for the OCI hook."""
    if not instance.container_id.exists():
        host.write(instance.container_id, _inspect(host, instance, "{{.Id}}"))


def live(host: Host, instance: Instance) -> tuple[State, str]:
    """Return the state of a container and the process id, on the host, of its first process."""
    query = ("inspect", "--type", "container", "--format", "{{.State.Status}} {{.State.Pid}}")
    answer = host.ask(["podman", *query, instance.full_name])
    if not answer.ok and "no such container" in answer.stderr.lower():
        return "absent", ""
    said = answer.stdout if answer.ok else _ask(host, *query, instance.full_name)  # says why
    status, _, number = said.strip().partition(" ")
    return STATES.get(status, "broken"), number


def pid(host: Host, instance: Instance) -> str:
    """Return the process id, on the host, of its first process, "" when it does not run."""
    state, number = live(host, instance)
    return number if state == "running" else ""


def why_ended(host: Host, instance: Instance) -> VagrantpError | None:
    """Return why a container that was started does not run: its exit status and last line.

    None where it runs, or never did.
    """
    template = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}"
    status, code, is_out_of_memory = [*_inspect(host, instance, template).split(), "", "", ""][:3]
    if status == "paused":
        return StateError(f"{instance.full_name} is paused", "fab up resumes it")
    if not status:
        return ProviderError(f"Podman does not know {instance.full_name} any more")
    if status not in ("exited", "stopped"):
        return None
    script = 'podman logs --tail 20 "$1" 2>&1 | tail -c 4096'  # a line may have any length
    log = host.ask(["sh", "-c", script, "sh", instance.full_name]).stdout
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "")
    memory = ", as its MEMORY was used up" if is_out_of_memory == "true" else ""
    return ProviderError(
        f"{instance.full_name} ended with exit status {code}{memory}"
        + (f", and said last: {plain(last)}" if last else ", and said nothing")
    )


def start(host: Host, instance: Instance) -> None:
    """Start the container."""
    argv, what = ["podman", "start", instance.full_name], "starting the container"
    if os.getuid() == 0:
        ids.share_namespaces(host)
    host.remove(instance.hook_error)
    host.change(argv, what=what, timeout=60, explain=lambda _: instance.hooks_reason())


def resume(host: Host, instance: Instance) -> None:
    """Resume the paused container."""
    host.change(["podman", "unpause", instance.full_name], what="resuming it", timeout=60)


def stop(host: Host, instance: Instance, force: bool) -> None:
    """Stop the running container: SIGTERM and ten seconds, or SIGKILL."""
    argv = ["podman", "stop", "--time", "0" if force else "10", instance.full_name]
    host.change(argv, what="stopping the container", timeout=60)


def resize(host: Host, instance: Instance, settings: Settings) -> None:
    """Set its quota, larger or smaller; report if it has none."""
    if instance.is_disk_limited():
        quota.set_limit(host, _written_to(host, instance), settings.disk)
    else:
        host.progress.say(f"DISK={settings.disk} is not enforced: {instance.name} has no quota")


def enforce(host: Host, instance: Instance, settings: Settings) -> list[Check]:
    """Set the limits again: a restart forgets `podman update` (4.3.1; not from 5.1 on).

    Return what `check` finds then.
    """
    checks = check(host, instance, settings)
    failed = {found.name: found.found for found in checks if found.outcome == "FAILED"}
    if settings.nested and "nested" in failed:
        text = f"NESTED=yes cannot be had on this host: {failed['nested']}"
        raise HostLimitError(text, "take NESTED out, or INFRA_TYPE=vm")
    if "disk" in failed:
        resize(host, instance, settings)
    if failed.keys() & {"memory", "cpus"}:
        argv = ["podman", "update", *options.limits(settings), instance.full_name]
        host.change(argv, what="setting the limits", timeout=60)
    _resize_shared_memory(host, instance, settings)
    return check(host, instance, settings) if failed else checks


def _resize_shared_memory(host: Host, instance: Instance, settings: Settings) -> None:
    """Make /dev/shm follow MEMORY. Podman has mounted it in a folder of its own on this host."""
    try:
        mounts = Path(f"/proc/{pid(host, instance)}/mountinfo").read_text()
    except FileNotFoundError:  # it has just stopped
        return
    found = re.search(r" /dev/shm .* - tmpfs .*\bsize=(\d+)k", mounts)
    wanted = options.shared_memory(settings)
    if found is None or int(found[1]) == wanted:
        return
    inside = [] if os.getuid() == 0 else ["podman", "unshare"]  # where a user's Podman mounts
    place = f"{_inspect(host, instance, '{{.StaticDir}}')}/shm"
    argv = [*inside, "mount", "-o", f"remount,size={wanted}k", place]
    try:
        host.change(argv, what="setting the size of /dev/shm", timeout=60)
    except ProviderError as error:
        host.progress.say(error.message)


def check(host: Host, instance: Instance, settings: Settings) -> list[Check]:
    """Compare the limits in the container's cgroup with the settings."""
    number = pid(host, instance)
    memory, cpus = cgroup.limits(number)
    starts = _inspect(host, instance, '{{index .Config.Labels "vagrantp.autostart"}}')
    configuration = _inspect(host, instance, "{{.OCIConfigPath}}")
    return [
        compare("memory", settings.memory * 1024**2, memory, "bytes"),
        compare("cpus", float(settings.cpus), cpus),
        _disk(host, instance, settings),
        walls.check(instance, number, configuration),
        compare("autostart", "yes" if settings.autostart else "no", starts),
        *ids.check(instance, number),
        *nested.check(host, instance, settings, number),
    ]


def _disk(host: Host, instance: Instance, settings: Settings) -> Check:
    if not instance.is_disk_limited():
        return Check("disk", f"{settings.disk} GiB", "no quota", "not enforced")
    found = quota.limit(host, _written_to(host, instance))
    return compare("disk", settings.disk * GIB, found, "bytes")


def _written_to(host: Host, instance: Instance) -> str:
    """Return the directory of this host that holds what the container writes."""
    return _inspect(host, instance, "{{.GraphDriver.Data.UpperDir}}")


def clean_up(host: Host, instance: Instance) -> None:
    """Remove the container, if it is there and ours, in whatever state."""
    if any(found.instance.full_name == instance.full_name for found in list_all(host)):
        argv = ["podman", "rm", "--force", "--time", "0", "--volumes", instance.full_name]
        remove = partial(host.change, argv, what="removing the container", timeout=60)
        try:
            remove()
        except ProviderError:  # of Podman 4.3, whose cleanup by conmon was at the same files
            remove()
    presets.leave(host, instance)


def _inspect(host: Host, instance: Instance, template: str) -> str:
    argv = ["podman", "inspect", "--type", "container", "--format", template, instance.full_name]
    return str(host.ask(argv).stdout).strip()


def _ask(host: Host, *arguments: str) -> str:
    """Return podman's answer. Raises ProviderError when it fails."""
    return host.answer(["podman", *arguments])
