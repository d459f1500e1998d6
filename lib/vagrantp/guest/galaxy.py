"""Roles and collections that a playbook requires, fetched in a sandbox.

ansible-galaxy sees neither the playbook's folder nor this host, and of the network only what
core/gate.py leads to. It is given what requirements.py understood, not the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.metadata import version
from ipaddress import ip_network
from pathlib import Path

from vagrantp.core import documents, gate
from vagrantp.core.answers import as_json
from vagrantp.core.errors import (
    ConfigError,
    ProviderError,
    ProvisionError,
    StateError,
    cleaned_up_by,
)
from vagrantp.core.places import PACKAGE
from vagrantp.core.sandbox import PYTHON, Sandbox
from vagrantp.core.system import Host
from vagrantp.guest import fetch, requirements
from vagrantp.guest.requirements import Requirements
from vagrantp.images import store
from vagrantp.settings import files

KINDS = {"roles": ("role", "--role-file"), "collections": ("collection", "--requirements-file")}
TIMEOUT = 3600  # seconds
FILE_SIZE = 512  # MB
WIDEST = 8  # a route to more than a /8 is a default one in parts, as VPNs write it
ASKED, FETCHED = "/asked", "/fetched"  # folders in the sandbox
# Where a host's own certificate authorities stand, for ansible-galaxy and git.
AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
ENV = {
    "ANSIBLE_CONFIG": f"{ASKED}/ansible.cfg",
    "ANSIBLE_LOCAL_TEMP": f"{FETCHED}/tmp",
    "ANSIBLE_NOCOLOR": "1",
    "GIT_ALLOW_PROTOCOL": "https",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TEMPLATE_DIR": "",  # whose hooks would run
    "GIT_TERMINAL_PROMPT": "0",
    "TMPDIR": f"{FETCHED}/tmp",
}


def ensure(
    host: Host, playbook: Path, project: Path, source: Callable[[Path], Path] = lambda path: path
) -> Path | None:
    """Return the folder of the roles and collections that a playbook requires, None for none.

    `source`: where to read a file that is there (Instance.source). There is one folder for all that
    require the same; it exists as a whole or not at all. Raises ConfigError, with every problem of
    the requirements, and ProvisionError where they cannot be fetched.
    """
    wanted = required(playbook, project, source)
    if wanted == Requirements():
        return None
    asked = {kind: wanted.to_json(kind) for kind in KINDS if getattr(wanted, kind)}
    text = json.dumps([version("ansible-core"), asked])
    cache = store.cache() / "galaxy"
    target = cache / hashlib.sha256(text.encode()).hexdigest()[:20]
    if target.is_dir():
        return target
    waiting_for = "another fetch of the same roles and collections"
    with host.lock(store.cache(), f"galaxy {target.name}", waiting_for):
        if not target.is_dir():
            with host.progress.stage("fetch roles and collections"):
                _fetch(host, asked, cache, target)
    return target


def required(
    playbook: Path, project: Path, source: Callable[[Path], Path] = lambda path: path
) -> Requirements:
    """Return what the files beside and above a playbook require. Raises ConfigError."""
    texts, problems = {}, []
    root = files.folders_up(playbook, project)[-1].resolve()
    for path in files.requirements(playbook, project):
        if not Path(os.path.realpath(path)).is_relative_to(root):
            problems.append(f"{path} must be a file in this project, and is a link out of it")
            continue
        if not os.path.lexists(source(path)):
            raise StateError(f"{path} was not there a moment ago", "try again")
        try:
            texts[str(path)] = documents.text(source(path))
        except documents.Unreadable as error:
            problems.append(f"{path} must be a file {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return requirements.parse(texts)


def command(kind: str) -> list[str]:
    """Return argv that fetches what `asked` names, in the sandbox. `kind`: roles or collections."""
    name, option = KINDS[kind]
    place = f"{FETCHED}/galaxy/roles" if kind == "roles" else f"{FETCHED}/galaxy"
    ansible = (sys.executable, "-I", "-m", "ansible", "galaxy", name, "install")
    start = (sys.executable, "-I", fetch.__file__, f"{ASKED}/gate", FETCHED)
    return [*start, *ansible, f"{option}={ASKED}/{kind}.yml", f"-p={place}"]


def _fetch(host: Host, asked: dict[str, str], cache: Path, target: Path) -> None:
    """Fetch into `target`, whole or not at all. Raises ProvisionError."""
    with host.scratch(cache) as work:
        host.make_dir(work / "asked")
        host.make_dir(work / "fetched")
        for kind, text in asked.items():
            host.write(work / "asked" / f"{kind}.yml", text)
        host.write(work / "asked/ansible.cfg", "")  # else it looks for one
        sandbox = _sandbox(work)
        try:
            with (
                cleaned_up_by(partial(host.make_plain, work / "fetched")),
                nullcontext() if host.dry else _way_out(host, work / "asked/gate"),
            ):
                for kind in asked:
                    host.change(
                        command(kind),
                        what=f"ansible-galaxy {KINDS[kind][0]} install",
                        timeout=TIMEOUT,
                        explain=_why,
                        sandbox=sandbox,
                    )
        except ProviderError as error:
            raise ProvisionError(error.message, error.hint) from None
        found = work / "fetched/galaxy"
        if not host.dry:
            if fetch.is_too_much(work / "fetched"):
                raise ProvisionError(f"the roles and collections are {fetch.TOO_MUCH}")
            if found.is_symlink() or not found.is_dir():
                raise ProvisionError("ansible-galaxy has fetched nothing")
        host.make_plain(found)  # a link must lead nowhere else once it stands alone
        host.move(found, target)


def _sandbox(work: Path) -> Sandbox:
    """Return the sandbox that sees `asked` and `fetched` in `work`, and what Ansible runs with."""
    given = {name: os.environ.get(name, "") for name in AUTHORITIES}
    own = {
        name: path for name, path in given.items() if path.startswith("/") and Path(path).is_file()
    }
    return Sandbox(
        reads=(*PYTHON, PACKAGE, *map(Path, {*own.values()})),
        places={ASKED: work / "asked"},
        writable={FETCHED: work / "fetched"},
        env={**ENV, **own},
        cwd=FETCHED,
        file_size=FILE_SIZE,
    )


def _why(lines: list[str]) -> str:
    """Pick out of ansible-galaxy's output why it failed."""
    lines = [line for line in lines if "--ignore-errors" not in line]
    errors = [line for line in lines if line.startswith(("[ERROR]: ", "ERROR! ", "fatal: "))]
    reasons = errors or [line for line in lines if "NOT installed" in line]
    return reasons[0].partition(" ")[2].removeprefix("- ") if reasons else ""


def _way_out(host: Host, path: Path) -> AbstractContextManager[None]:
    return gate.serve(path, _near(host), gate.upstream(os.environ))


def _near(host: Host) -> list[gate.Network]:
    """Return this host's own addresses, and the networks that it is directly on."""
    found = []
    for family in ("-4", "-6"):
        query = ["ip", family, "-json", "route", "show", "table", "all"]
        for route in as_json("ip", host.answer(query) or "[]", list):
            if route["dst"] != "default" and not {"gateway", "via", "nexthops"} & route.keys():
                found.append(ip_network(route["dst"], strict=False))
    return [network for network in found if network.prefixlen >= WIDEST]
