"""Vagrant's command lines, with an environment without the user's variables."""

from __future__ import annotations

from pathlib import Path

from vagrantp.core.places import MASTER, PACKAGE
from vagrantp.instance.record import Instance

SHIM = PACKAGE / "providers/shim"  # holds `docker`, which is podman, for Vagrant's eyes only
WAITS = "VAGRANTP_WAITS"  # has the Vagrantfile wait for "go" on stdin
PROBES = PACKAGE / "host/probes"


def command(
    instance: Instance, home: Path, path: str, *arguments: str
) -> tuple[list[str], dict[str, str]]:
    """Return argv and environment of a Vagrant command for `instance`.

    `home` is VAGRANT_HOME, `path` the PATH of the child.
    """
    environment = {
        **base_environment(home, instance.state_dir),
        "VAGRANTP_MACHINE": str(instance.machine_json),
        "VAGRANTP_ID": instance.id,
        "VAGRANT_VAGRANTFILE": str(MASTER / "Vagrantfile"),
        "VAGRANT_DOTFILE_PATH": str(instance.state_dir / "vagrant"),
    }
    if instance.infra_type == "container":
        environment["PATH"] = f"{SHIM}:{path}"
    return ["vagrant", *arguments], environment


def mark(instance: Instance) -> str:
    """Return what Vagrant and all that it starts have in their environment."""
    return f"VAGRANTP_ID={instance.id}"


def probe(folder: Path, home: Path) -> tuple[list[str], dict[str, str]]:
    """Return argv and environment of a Vagrant command that fails without vagrant-libvirt.

    `folder` is an empty one for it, `home` VAGRANT_HOME.
    """
    environment = {
        **base_environment(home, folder),
        "VAGRANT_VAGRANTFILE": str(PROBES / "vagrant-libvirt.rb"),
        "VAGRANT_DOTFILE_PATH": str(folder / "vagrant"),
    }
    return ["vagrant", "status"], environment


def base_environment(home: Path, cwd: Path) -> dict[str, str]:
    """Return the environment of any Vagrant command.

    `cwd` is a folder of our own, since Vagrant loads `.vagrantplugins` and `Vagrantfile` found
    there as Ruby, even for `status`.
    """
    return {
        "VAGRANT_CWD": str(cwd),
        "VAGRANT_HOME": str(home),
        "VAGRANT_CHECKPOINT_DISABLE": "1",  # asks no server for newer versions
        "VAGRANT_NO_COLOR": "1",
    }
