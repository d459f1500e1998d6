"""The seed of a VM, which is an ISO image in the pool."""

from __future__ import annotations

from vagrantp_guard import contract

from vagrantp.core.libvirt import ask, change
from vagrantp.core.system import Host
from vagrantp.guest import session
from vagrantp.images import store
from vagrantp.images.store import POOL
from vagrantp.instance import seed
from vagrantp.instance.record import Instance
from vagrantp.providers.libvirt import domain
from vagrantp.settings.env import Settings


def make(
    host: Host, instance: Instance, settings: Settings, box: store.Box, own: contract.LanNic | None
) -> str:
    """Put the seed into the pool, as QEMU cannot read our private folder. Return its path there."""
    _, volume = domain.volumes(instance)
    folder = instance.state_dir / "seed"
    iso = folder / volume
    host.make_dir(folder)
    texts = {"hostname": settings.hostname or instance.name}
    if own:
        texts |= seed.networks(own, instance.mac)
    theirs = None
    if settings.cloud_init:
        theirs = instance.source(settings.cloud_init).read_text("utf-8-sig")
    is_for_cloud_init = bool(theirs) or box.kind == "cloud"
    if is_for_cloud_init:
        read = (lambda _: "") if host.dry else (lambda path: path.read_text("utf-8"))
        script = read(instance.user_script) if box.kind == "cloud" else None
        key = read(instance.host_key)
        texts |= seed.cloud_init(instance, settings, theirs, script, key)
    for name, text in texts.items():
        host.write(folder / name, text)
    made = [folder / name for name in texts]
    private = [instance.host_key, instance.user_script]
    label = "CIDATA" if is_for_cloud_init else "VAGRANTP"
    argv = seed.iso(iso, [session.BOOT, session.GROW, *private, *made], label)
    host.change(argv, what="packing the seed", timeout=60)
    size = 0 if host.dry else iso.stat().st_size
    change(host, "vol-create-as", POOL, volume, str(size), "--format", "raw")
    change(host, "vol-upload", volume, str(iso), "--pool", POOL)
    host.remove(folder)
    return "" if host.dry else ask(host, "vol-path", volume, "--pool", POOL).strip()
