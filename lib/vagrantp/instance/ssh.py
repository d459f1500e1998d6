"""How ssh(1) reaches an instance: by our own configuration only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vagrantp.core.errors import ProviderError
from vagrantp.core.system import Host
from vagrantp.instance.record import Instance

KEPT = 600  # seconds that an idle ssh connection is kept for the next `ssh`
RELOAD_SSHD = "kill -HUP $(cat /run/sshd.pid) || true"  # a socket-activated one has no pid file


def ssh(instance: Instance, *arguments: str, config: Path | None = None) -> list[str]:
    """Return argv of ssh to `instance`, by our own configuration only."""
    return ["ssh", "-F", str(config or instance.ssh_config), instance.full_name, *arguments]


def kept_ssh(
    instance: Instance, pid: str, *arguments: str, config: Path | None = None
) -> list[str]:
    """Return argv of ssh by a connection that is kept for the next one, to be run in `state_dir`.

    It belongs to one run of the guest, whose first process or QEMU is `pid`, and notices within 30
    seconds when that is gone. The socket's path is relative, since sockets cannot have one of over
    100 characters (unix(7), ControlPath in ssh_config(5)).
    """
    options = {
        "ControlMaster": "auto",
        "ControlPath": kept_socket(pid),
        "ControlPersist": KEPT,
        "ServerAliveInterval": 10,
        "ServerAliveCountMax": 3,
    }
    [program, *rest] = ssh(instance, *arguments, config=config)
    return [program, *(f"-o{name}={value}" for name, value in options.items()), *rest]


def kept_socket(pid: str) -> str:
    """Return the name, in `state_dir`, of the socket of a kept connection."""
    return f"ssh-{pid}"


def close(instance: Instance, socket: str, how: str = "exit") -> list[str]:
    """Return argv that ends a kept connection, to be run in `state_dir`.

    `how`: exit, at once; stop, once the shells that are open in it have ended.
    """
    return ["ssh", "-F/dev/null", f"-O{how}", f"-oControlPath={socket}", instance.full_name]


def close_connections(host: Host, instance: Instance, how: str = "exit") -> None:
    """End the connections that are kept for `ssh`. `how`: as of `close`."""
    for socket in instance.state_dir.glob(kept_socket("*")):
        argv = close(instance, socket.name, how)
        with suppress(ProviderError):  # it ended with the instance
            host.change(argv, what=f"ssh -O {how}", timeout=10, cwd=instance.state_dir)
        host.remove(socket)


def ssh_config(instance: Instance, address: str, port: int, user: str, first: bool = False) -> str:
    """Return the ssh_config(5) of an instance.

    Its host key is known before it first boots, so a connection that would end at another guest
    fails before anything is sent. A box made for Vagrant has its own: `first` accepts it.
    """
    own: dict[str, Any] = {
        "HostName": address,
        "Port": port,
        "User": user,
        "IdentityFile": _quoted(instance.key),
        "UserKnownHostsFile": _quoted(instance.known_hosts),
    }
    if first:
        own["StrictHostKeyChecking"] = "accept-new"
    return config(instance, own)


def config(instance: Instance, own: Mapping[str, object]) -> str:
    """Return an ssh_config(5) for an instance with its `own` options, and those of all."""
    options = {
        "StrictHostKeyChecking": "yes",
        **own,
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": instance.full_name,
        "PreferredAuthentications": "publickey",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ConnectTimeout": 10,
        "LogLevel": "ERROR",
    }
    lines = [f"  {name} {value}" for name, value in options.items()]
    return "\n".join([f"Host {instance.full_name}", *lines, ""])


def keygen(path: Path, comment: str) -> list[str]:
    """Return argv that makes an Ed25519 key pair without a passphrase."""
    return ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]


def _quoted(path: Path) -> str:
    """Quote a path for ssh_config(5), where % starts a token."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'
