"""MOUNT: the project folder of a guest, by bindfs(1). docs/adr/0016-the-folder-by-bindfs.md"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from vagrantp_guard.contract import MOUNTS, PROJECT, Mount
from vagrantp_guard.guests import config_of
from vagrantp_guard.released import open_record
from vagrantp_guard.seccomp import no_setuid, program
from vagrantp_guard.system import PATH, Refused, is_rootless, run

HIDDEN_MAX = 64 * 2**20  # bytes that a guest may write to what is hidden from it
SANDBOX = (
    *("bwrap", "--unshare-ipc", "--unshare-net", "--unshare-uts", "--ro-bind", "/usr", "/usr"),
    *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
    *("--symlink", "usr/lib64", "/lib64", "--dir", "/dev", "--dev-bind", "/dev/fuse", "/dev/fuse"),
    *("--dev-bind", "/dev/null", "/dev/null", "--dir", "/none", "--dir", "/guard"),
    *("--ro-bind", str(Path(__file__).parent), "/guard/vagrantp_guard"),
    *("--perms", "1777", "--size", str(HIDDEN_MAX), "--tmpfs", "/hidden"),
)
FUSERMOUNT = Path(__file__).with_name("fusermount3.py")


def share(target: Path, mount: Mount, state: Path, person: tuple[int, int], *enter: str) -> None:
    """Mount a project folder at `target`, as a guest is to see it, by bindfs(1).

    All in it belongs to one user of the guest. What the guest does there, a process of the owner
    does (`person`: uid, gid; for root's projects, the folder's owner): it has no capabilities, sees
    nothing but this folder, cannot make a file setuid, and ends with the mount. `state`: the
    instance's own folder. `enter`: the start of a command that is to run in the mount namespace
    with `target`.
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
    fds = [fuse, calls]
    try:
        if mount.protect:
            fds.append(open_record(state, person))
        os.write(calls, program(os.uname().machine, no_setuid()))
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
            *(
                "--bounding-set=-all",
                *_supervisor(mount, fds[2:]),
                "bindfs",
                "-f",
                "-o",
                mount.mode,
                "--xattr-none",
            ),
            *(f"--force-user={mount.uid}", f"--force-group={mount.gid}"),
            *("--create-as-mounter", "--chown-ignore", "--chgrp-ignore", "/project", "/none"),
        )
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": PATH, "TMPDIR": "/hidden"},
            start_new_session=True,
            pass_fds=fds,
        )
    finally:
        for each in fds:  # the server alone has them now: without it, the mount is an error
            os.close(each)
    try:
        run(*enter, "ls", str(target))
    except Refused:
        run(*enter, "umount", "--lazy", str(target), check=False)
        raise Refused(f"{mount.folder} cannot be shared: see that bindfs and bwrap run") from None


def _supervisor(mount: Mount, record: list[int]) -> tuple[str, ...]:
    """Return the start of a command that lets a supervisor run bindfs, if one is to.

    `record`: of what is released, where something is protected.
    """
    if not (mount.protect or mount.hide):
        return ()
    return (
        "/usr/bin/python3",
        "-IS",
        "/guard/vagrantp_guard/supervisor.py",
        *(map(str, record) if record else ("no",)),
        *mount.hide,
        "--",
    )


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
