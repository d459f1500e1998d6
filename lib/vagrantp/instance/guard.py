"""What `guard`, the keeper of the packet filter, is asked for, and its command lines."""

from __future__ import annotations

import json
import os

from vagrantp_guard import contract

from vagrantp.instance.record import Instance
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import BUILT_IMAGES, SSH_USER


def policy(settings: Settings, lan: contract.LanNic | None = None) -> contract.Policy:
    """Return what a guest may reach. `lan`: its card on a bridge of the host."""
    return contract.Policy(settings.lan_access, settings.lan_allow, lan)


def mount(instance: Instance, settings: Settings) -> contract.Mount | None:
    """Return how `guard` is to share the project folder with a guest, None where it is not.

    All in it belongs to the user who logs in. Only the guest knows that user's id: until it is
    asked, take that of a first user, or in our own image, which has one, that of a second.
    """
    if settings.mount == "none":
        return None
    is_second = settings.ssh_user != SSH_USER and settings.image in BUILT_IMAGES
    likely = 0 if settings.ssh_user == "root" else 1001 if is_second else 1000
    uid, gid = instance.machine().get("provider", {}).get("user_ids", [likely, likely])
    protect = settings.protect and settings.mount == "rw"
    return contract.Mount(settings.mount, instance.folder, uid, gid, protect, settings.hide)


def isolation(
    instance: Instance, settings: Settings, lan: contract.LanNic | None, first_id: int | None
) -> str:
    """Return what a container may reach and how it gets its project, for the OCI hook.

    `first_id`: which id of this host its root is; None without a user namespace of its own.
    """
    wanted = mount(instance, settings)
    document = {
        "mount": wanted and wanted.to_json(),
        contract.FIRST_ID: first_id,
        contract.NESTED: settings.nested,
    }
    return json.dumps(policy(settings, lan).to_json() | document)


def argv(*arguments: str) -> list[str]:
    """Return argv of `guard`, which only root may run."""
    return [*([] if os.getuid() == 0 else ["sudo", "-n"]), str(contract.GUARD), *arguments]


def inside(verb: str, pid: str, instance: Instance) -> list[str]:
    """Return argv for the rules in a user's container. `verb`: check, load."""
    return ["podman", "unshare", str(contract.GUARD), "inside", verb, pid, str(instance.state_dir)]
