"""Containers in a container, with NESTED=yes: what Podman is given for it, and whether they work.

docs/adr/0033-containers-in-a-container.md
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vagrantp_guard import contract

from vagrantp.core.errors import ProviderError
from vagrantp.core.progress import Check, compare
from vagrantp.core.system import Host
from vagrantp.core.text import last_line
from vagrantp.instance.record import Instance
from vagrantp.providers.podman import ids
from vagrantp.settings.env import Settings

DEVICES = ("/dev/fuse", "/dev/net/tun")  # fuse-overlayfs(1); slirp4netns(1), pasta(1)
# The kernel mounts no new /proc or /sys where parts of those that are there are covered:
# mount_too_revealing() in its fs/namespace.c. AppArmor's profile of Podman denies every mount.
OPTIONS = (
    "--security-opt=unmask=ALL",
    "--security-opt=apparmor=unconfined",
    *(f"--device={device}" for device in DEVICES),
)
YES, NO = "yes", "no"
NOBODY = "65534:65534"
# What a rootless Podman does first, by an ordinary user: unshare(2), mount(2).
TRIAL = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def do(what, result):
    if result:
        sys.exit(what + ": " + os.strerror(ctypes.get_errno()))
do("a user namespace", libc.unshare(0x10000000 | 0x20000 | 0x20000000))
child = os.fork()
if not child:
    do("mounting /proc in it", libc.mount(b"proc", b"/proc", b"proc", ctypes.c_ulong(0), None))
    do("mounting /sys in it", libc.unshare(0x40000000) or libc.mount(
        b"sysfs", b"/sys", b"sysfs", ctypes.c_ulong(1), None))
    os._exit(0)
sys.exit(bool(os.waitpid(child, 0)[1]))
"""


def was_asked_for(instance: Instance) -> bool:
    """Say whether a container was made with NESTED=yes; one of an older version was not."""
    made = instance.settings
    return bool(made and made.nested)


def missing() -> list[str]:
    """Return what of DEVICES is not there for everybody, as their container's users are nobody."""
    return [one for one in DEVICES if not _is_open(Path(one))]


def _is_open(device: Path) -> bool:
    try:
        facts = device.stat()
    except OSError:
        return False
    return stat.S_ISCHR(facts.st_mode) and facts.st_mode & 0o006 == 0o006


def check(host: Host, instance: Instance, settings: Settings, pid: str) -> list[Check]:
    """Look whether containers can be made in a container: by trying, or by the kernel's limit.

    `pid`: its first process. Of a container without a user namespace of its own (a user's, or an
    older version's), the filter alone keeps them from being made: walls.check.
    """
    promised = YES if settings.nested else NO
    if was_asked_for(instance):
        return [compare("nested", promised, _tried(host, instance))]
    if os.getuid() != 0 or ids.of(instance) is None:
        return [compare("nested", promised, NO)] if settings.nested else []
    limit = host.ask(["nsenter", f"--target={pid}", "--user", "cat", contract.NAMESPACES_LIMIT])
    found = limit.stdout.strip() if limit.ok else None
    return [compare("nested", promised, NO if found == "0" else found and f"{found} namespaces")]


def _tried(host: Host, instance: Instance) -> str:
    argv = ["podman", "exec", f"--user={NOBODY}", instance.full_name, "python3", "-c", TRIAL]
    try:
        answer = host.ask(argv, timeout=30)
    except ProviderError as error:  # whatever the guest calls python3
        return error.message
    return YES if answer.ok else last_line(answer.stderr) or "it ended"
