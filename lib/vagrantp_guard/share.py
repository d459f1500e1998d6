"""MOUNT: the project folder of a guest, by bindfs(1). docs/adr/0016-the-folder-by-bindfs.md"""

from __future__ import annotations

import os
import pwd
import stat
import struct
import subprocess
from contextlib import suppress
from errno import EPERM
from pathlib import Path

from vagrantp_guard.contract import MOUNTS, PROJECT, Mount
from vagrantp_guard.guests import config_of
from vagrantp_guard.system import PATH, Refused, is_rootless, run

SANDBOX = (
    *("bwrap", "--unshare-ipc", "--unshare-net", "--unshare-uts", "--ro-bind", "/usr", "/usr"),
    *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
    *("--symlink", "usr/lib64", "/lib64", "--dir", "/dev", "--dev-bind", "/dev/fuse", "/dev/fuse"),
    *("--dir", "/none"),
)
FUSERMOUNT = Path(__file__).with_name("fusermount3.py")
# The calls that can make a file setuid: their numbers by processor (fchmodat2 has the same on all),
# and which argument is the mode. man7.org, syscalls(2)
SETS_MODE = {
    "x86_64": (0xC000003E, {90: 1, 91: 1, 133: 1, 259: 2, 268: 2, 452: 2}),
    "aarch64": (0xC00000B7, {33: 2, 52: 1, 53: 2, 452: 2}),
}


def share(target: Path, mount: Mount, person: tuple[int, int], *enter: str) -> None:
    """Mount a project folder at `target`, as a guest is to see it, by bindfs(1).

    All in it belongs to one user of the guest. What the guest does there, a process of the owner
    does (`person`: uid, gid; for root's projects, the folder's owner): it has no capabilities, sees
    nothing but this folder, cannot make a file setuid, and ends with the mount. `enter`: the start
    of a command that is to run in the mount namespace with `target`.
    """
    uid, gid = person
    if os.path.realpath(mount.folder) != str(mount.folder):
        raise Refused(f"{mount.folder} is no longer a folder: it leads elsewhere")
    groups = "--keep-groups"  # as they are for a user's container
    if not is_rootless():
        if uid == 0:
            facts = mount.folder.stat()
            uid, gid = facts.st_uid, facts.st_gid
        numbers = os.getgrouplist(pwd.getpwuid(uid).pw_name, gid) if person[0] else [gid]
        groups = f"--groups={','.join(map(str, numbers))}"
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    calls = os.memfd_create("calls")
    try:
        os.write(calls, no_setuid(os.uname().machine))
        os.lseek(calls, 0, os.SEEK_SET)
        options = f"{mount.mode},nosuid,nodev,allow_other,default_permissions,fd={fuse}"
        options += ",rootmode=40000,user_id=0,group_id=0"
        kind = ("--types", "fuse", "--options", options)
        run(*enter, "mount", "--internal-only", *kind, "vagrantp", str(target), fds=(fuse,))
        argv = (
            *(*SANDBOX, "--bind", str(mount.folder), "/project", "--seccomp", str(calls)),
            # As bindfs is not root, libfuse asks this for the device, at the path built into it.
            *("--ro-bind", str(FUSERMOUNT), "/usr/bin/fusermount3", "--setenv", "FUSE", str(fuse)),
            *("setpriv", f"--reuid={uid}", f"--regid={gid}", groups, "--inh-caps=-all"),
            *("--bounding-set=-all", "bindfs", "-f", "-o", mount.mode, "--xattr-none"),
            *(f"--force-user={mount.uid}", f"--force-group={mount.gid}"),
            *("--create-as-mounter", "--chown-ignore", "--chgrp-ignore", "/project", "/none"),
        )
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": PATH},
            start_new_session=True,
            pass_fds=(fuse, calls),
        )
    finally:
        os.close(calls)
        os.close(fuse)  # the server alone has it now: without it, the mount answers with an error
    try:
        run(*enter, "ls", str(target))
    except Refused:
        run(*enter, "umount", "--lazy", str(target), check=False)
        raise Refused(f"{mount.folder} cannot be shared: see that bindfs and bwrap run") from None


def no_setuid(machine: str) -> bytes:
    """Return a filter of seccomp(2) that lets no file become setuid or setgid. Pure.

    Like systemd's RestrictSUIDSGID, but without open(2) and mkdir(2): bindfs passes no such bits.
    Each instruction: code, jumps if true and if false, value; a call is its number at 0, the kind
    of processor at 4, and from 16 on its arguments of 8 bytes.
    """
    if machine not in SETS_MODE:
        raise Refused(f"MOUNT is not known on {machine} processors")
    load, equals, has_bits, end = 0x20, 0x15, 0x45, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | EPERM, 0x80000000
    processor, calls = SETS_MODE[machine]
    program = [(load, 0, 0, 4), (equals, 1, 0, processor), (end, 0, 0, kill)]
    for number, argument in calls.items():
        program += [
            (load, 0, 0, 0),
            (equals, 0, 3, number),
            (load, 0, 0, 16 + 8 * argument),
            (has_bits, 0, 1, stat.S_ISUID | stat.S_ISGID),
            (end, 0, 0, refuse),
        ]
    return b"".join(struct.pack("HBBI", *each) for each in [*program, (end, 0, 0, allow)])


def unmount(name: str) -> None:
    """Unmount a VM's project folder, if it is mounted."""
    place = MOUNTS / name
    if MOUNTS.is_dir() and place in MOUNTS.iterdir():  # stat(2) of it fails without its server
        run("umount", "--lazy", str(place), check=False)
        place.rmdir()


def project_in(bundle: Path) -> Path:
    """Return the place for the project in a container that is about to start."""
    found: Path = bundle / config_of(bundle)["root"]["path"] / PROJECT.name
    with suppress(FileExistsError):
        found.mkdir()
    if not stat.S_ISDIR(found.lstat().st_mode):  # a link would lead out of the container
        raise Refused(f"{PROJECT} of the container is no folder")
    return found
