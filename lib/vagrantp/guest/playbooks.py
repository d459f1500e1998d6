"""ansible-playbook in a sandbox: what it sees there, and its command line."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vagrantp.core.places import PACKAGE
from vagrantp.core.sandbox import PYTHON, Sandbox
from vagrantp.instance import ssh
from vagrantp.instance.record import Instance
from vagrantp.settings.files import folders_up

GUEST = PACKAGE / "guest"
RUN = "/run/vagrantp"  # in the sandbox, vagrantp's own
MOST_FILES = 500_000  # of a project, that are looked at for sockets
MAX_HOME = 1024  # characters
FETCHED = "/fetched"  # in the sandbox, where the module fetch writes
PLAY = f"{RUN}/play.py"
OWN = {
    PLAY: GUEST / "play.py",
    f"{RUN}/callbacks": GUEST / "callbacks",
    f"{RUN}/connect.py": GUEST / "connect.py",
}


@dataclass(frozen=True)
class Playbook:
    """A playbook and what belongs to it. `root`: the folder that it sees, read-only, or itself.

    `name`: the guest's, as the inventory has it; `variables`: a file with more of them; `galaxy`:
    roles and collections that it requires.
    """

    path: Path
    root: Path
    name: str
    variables: Path | None
    galaxy: Path | None


def connection(instance: Instance, user: str) -> str:
    """Return the variables of Ansible by which every host of a playbook is the guest.

    As extra variables they outrank anything that a playbook, its folder or an ansible.cfg says.
    Each is set by all its names, of which the last one counts (ansible.builtin.ssh).
    """
    names = {
        ("ansible_connection",): "ssh",
        ("ansible_host", "ansible_ssh_host"): instance.full_name,
        ("ansible_port", "ansible_ssh_port"): 22,
        ("ansible_user", "ansible_ssh_user"): user,
        ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"): "",
        ("ansible_host_key_checking", "ansible_ssh_host_key_checking"): True,
        ("ansible_ssh_executable",): "ssh",
        ("ansible_ssh_args",): "-C -o ControlMaster=auto -o ControlPersist=60s",
        ("ansible_ssh_common_args",): f"-F {RUN}/ssh_config",
        ("ansible_ssh_extra_args",): "",
    }
    return json.dumps({name: value for all_names, value in names.items() for name in all_names})


def ssh_config(instance: Instance, user: str) -> str:
    """Return the ssh_config(5) by which ssh in the sandbox reaches the guest: by the relay."""
    proxy = shlex.join([sys.executable, "-IS", f"{RUN}/connect.py", f"{RUN}/ssh"])
    own = {
        "User": user,
        "ProxyCommand": proxy.replace("%", "%%"),
        "ProxyUseFdpass": "yes",
        "IdentityFile": f"{RUN}/key",
        "UserKnownHostsFile": f"{RUN}/known_hosts",
    }
    return ssh.config(instance, own)


def environment(user: str, home: str) -> dict[str, str]:
    """Return what a playbook for localhost looks up of who runs it: here, of the guest's user.

    `home`: as the guest says.
    """
    is_path = home.startswith("/") and home.isprintable() and len(home) <= MAX_HOME
    return {"USER": user, "LOGNAME": user, **({"HOME": home} if is_path else {})}


def sandbox(
    playbook: Playbook,
    folder: Path,
    instance: Instance | None = None,
    env: Mapping[str, str] | None = None,
) -> Sandbox:
    """Return the sandbox of a playbook; `instance`: the guest that it reaches, if any.

    `folder` has `events`, which is written there; for a guest also `connection.json`, `ssh_config`,
    the relay's socket `ssh`, and the folder `fetched`.
    """
    reads = [playbook.root, *filter(None, (playbook.variables, playbook.galaxy)), *PYTHON]
    places, writable = dict(OWN), {f"{RUN}/events": folder / "events"}
    places |= {str(path): Path(os.devnull) for path in _pipes(playbook.root)}
    if instance:
        names = ("connection.json", "ssh_config", "ssh")
        places |= {f"{RUN}/{name}": folder / name for name in names}
        places |= {f"{RUN}/key": instance.key, f"{RUN}/known_hosts": instance.known_hosts}
        writable[FETCHED] = folder / "fetched"
    return Sandbox(
        reads=reads,
        places=places,
        writable=writable,
        env={**_above(playbook), **(env or {})},
        cwd=str(playbook.path.parent),
    )


def _above(playbook: Playbook) -> dict[str, str]:
    """Return variables for what a playbook has in the folders above it: see play.py."""
    own, *above = folders_up(playbook.path, playbook.root)
    configs = (folder / "ansible.cfg" for folder in (own, *above))
    config = next((path for path in configs if os.path.lexists(path)), None)
    found = {"VAGRANTP_ABOVE": json.dumps([str(folder) for folder in above])}
    return {**found, **({"ANSIBLE_CONFIG": str(config)} if config else {})}


def _pipes(root: Path) -> Iterator[Path]:
    """Yield sockets and FIFOs below a folder.

    Read-only does not keep anybody from those: a program of this host may be at the other end.
    """
    folders, seen = [root] if root.is_dir() else [], 0
    while folders and seen < MOST_FILES:
        with suppress(PermissionError, FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                seen += 1
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
                    yield Path(entry.path)


def run(playbook: Playbook) -> list[str]:
    """Return argv that runs a playbook in its sandbox."""
    return _argv(playbook, f"--extra-vars=@{RUN}/connection.json")


def check(playbook: Playbook) -> list[str]:
    """Return argv that looks for mistakes in a playbook in its sandbox, and touches no guest."""
    return _argv(playbook, "--syntax-check")


def _argv(playbook: Playbook, *options: str) -> list[str]:
    variables = [f"--extra-vars=@{playbook.variables}"] if playbook.variables else []
    arguments: Sequence[str] = (f"--inventory={playbook.name},", *variables, *options)
    return [sys.executable, "-I", PLAY, str(playbook.galaxy or ""), *arguments, str(playbook.path)]
