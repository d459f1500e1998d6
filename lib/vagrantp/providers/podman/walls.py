"""What keeps a container's processes to themselves: a filter of system calls, and limits."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

from vagrantp.core import documents
from vagrantp.core.answers import as_json
from vagrantp.core.errors import ProviderError
from vagrantp.core.places import SET_UP
from vagrantp.core.progress import Check, compare
from vagrantp.core.system import Host
from vagrantp.instance.record import Instance
from vagrantp.providers.podman import nested, options, quota, seccomp

FILTERED = "filtered"
BY_FILTER = "2"  # proc_pid_status(5), Seccomp


def walls(host: Host, instance: Instance, is_nested: bool = False) -> list[str]:
    """Return podman's options for a container to be created; write the filter that they name.

    `is_nested`: containers may be made in it, NESTED=yes.
    Raises ProviderError where Podman has no filter to start from.
    """
    profile = seccomp.closed(_podmans_profile(host), is_nested)
    host.write(instance.seccomp, json.dumps(profile))
    own = [f"--security-opt=seccomp={instance.seccomp}", *_process_limits(host)]
    return [*own, *(nested.OPTIONS if is_nested else ())]


def _podmans_profile(host: Host) -> dict[str, Any]:
    match quota.podman_info(host):
        case {"host": {"security": {"seccompEnabled": True, "seccompProfilePath": str(path)}}}:
            try:
                return as_json(path, documents.text(Path(path)), dict)
            except documents.Unreadable as error:
                raise ProviderError(f"{path} must be a file {error}", SET_UP) from None
    raise ProviderError("Podman filters no system calls here", SET_UP)


def _process_limits(host: Host) -> list[str]:
    """Return podman's options for as many processes and open files as this host may give."""
    hard = None
    if not host.ask(options.with_open_files("true")).ok:  # this host is itself a container
        kinds = (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
        files, processes = (resource.getrlimit(kind)[1] for kind in kinds)
        hard = files, processes
    kernel = Path("/proc/sys/kernel")
    most = min(int((kernel / name).read_text()) for name in ("pid_max", "threads-max"))
    return options.process_limits(most, hard)


def check(instance: Instance, number: str, configuration: str) -> Check:
    """Look whether system calls of a container are filtered as they were when it was made.

    `number`: its first process, "" where it does not run; `configuration`: the path of the
    configuration that its OCI runtime was given.
    """
    is_nested = nested.was_asked_for(instance)
    if not seccomp.is_closed(_json(instance.seccomp), is_nested):
        found = "as an older version made it"
        return Check("system calls", FILTERED, found, "not enforced")
    given = _json(Path(configuration)).get("linux", {}).get("seccomp", {})
    is_ours = seccomp.is_closed(given, is_nested)
    is_filtered = is_ours and _status(number).get("Seccomp") == BY_FILTER
    return compare("system calls", FILTERED, FILTERED if is_filtered else "not filtered")


def _json(path: Path) -> dict[str, Any]:
    """Return a JSON object, an empty one where the file is none."""
    try:
        found = documents.json_file(path)
    except documents.Unreadable:
        return {}
    return found if isinstance(found, dict) else {}


def _status(number: str) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{number}/status").read_text(errors="replace").splitlines()
    except OSError:  # it has just stopped
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
