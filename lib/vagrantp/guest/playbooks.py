"""Ansible's command lines."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from vagrantp.core.places import PACKAGE
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance

PLAY = PACKAGE / "guest/play.py"


def connection(instance: Instance, user: str, port: int) -> str:
    """Return the variables of Ansible by which every host of a playbook is the guest.

    As extra variables they outrank anything that a playbook, its folder or an ansible.cfg says.
    Each is set by all its names, of which the last one counts (ansible.builtin.ssh).
    """
    names = {
        ("ansible_connection",): "ssh",
        ("ansible_host", "ansible_ssh_host"): instance.full_name,
        ("ansible_port", "ansible_ssh_port"): port,
        ("ansible_user", "ansible_ssh_user"): user,
        ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"): "",
        ("ansible_host_key_checking", "ansible_ssh_host_key_checking"): True,
        ("ansible_ssh_executable",): "ssh",
        ("ansible_ssh_args",): "-C -o ControlMaster=auto -o ControlPersist=60s",
        ("ansible_ssh_common_args",): shlex.join(["-F", str(instance.ssh_config)]),
        ("ansible_ssh_extra_args",): "",
    }
    return json.dumps({name: value for all_names, value in names.items() for name in all_names})


def playbook(
    instance: Instance,
    pid: str,
    playbook: Path,
    name: str,
    variables: Path | None,
    galaxy: Path | None,
    folder: Path,
) -> list[str]:
    """Return argv that runs a playbook. `folder` has `connection.json`, and gets `events`.

    `pid`: of the guest's QEMU or first process; `name`: the guest's, as the inventory has it;
    `galaxy`: roles and collections that it requires.
    """
    options = [*_options(name, variables), f"--extra-vars=@{folder / 'connection.json'}"]
    places = (str(instance.state_dir), ssh.kept_socket(pid), str(folder / "events"))
    return _play(places, galaxy, *options, str(playbook))


def playbook_check(
    playbook: Path, name: str, variables: Path | None, galaxy: Path | None, folder: Path
) -> list[str]:
    """Return argv that looks for mistakes in a playbook, and touches no guest.

    The rest as of `playbook`.
    """
    places = ("/", "", str(folder / "events"))
    return _play(places, galaxy, "--syntax-check", *_options(name, variables), str(playbook))


def _options(name: str, variables: Path | None) -> list[str]:
    return [f"--inventory={name},", *([f"--extra-vars=@{variables}"] if variables else [])]


def _play(places: tuple[str, str, str], galaxy: Path | None, *arguments: str) -> list[str]:
    return [sys.executable, str(PLAY), *places, str(galaxy or ""), *arguments]
