"""IMAGE as any OCI reference: what ssh and Ansible need is added to it, once for each image.

That is done in a container that is isolated like every guest, since it runs the image's own
programs.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from vagrantp_guard import contract

from vagrantp.core.answers import as_json
from vagrantp.core.errors import ProviderError
from vagrantp.core.places import SCRIPTS
from vagrantp.core.system import Host
from vagrantp.images import builders, built, filled, store
from vagrantp.instance import certificates

ADD = SCRIPTS / "add_ssh.sh"
# Podman's default copies http_proxy and the like, with the password in it.
NO_PROXY = "--http-proxy=false"
ENTRY = built.RECIPES / "container/files/usr/local/sbin/vagrantp-entry"
BUILD = "2"  # part of the digest: raise it when the code below makes another image
ADD_TIMEOUT = 3600  # seconds; packages from the mirrors of the image's own distribution
NOT_FOR_SSH = ("HOME", "HOSTNAME", "PATH", "TERM", "USER", "container")
LOCALE = ("LANG", "LC_ALL", "LC_CTYPE")  # what says how text is encoded: locale(7)


def ensure(
    host: Host, reference: str, options: Callable[[Path], list[str]], trusted: list[str]
) -> str:
    """Return the Podman reference of an image with ssh, made where it is not there yet.

    `options`: returns podman's for the walls and the network of a container with this state folder;
    `trusted`: the certificates of CA_CERTS, which the image trusts.
    Raises ProviderError when the image cannot be pulled, or nothing can be added to it.
    """
    if not built.is_in_podman(host, reference):
        with host.progress.stage("download image", reference):
            pull = ["podman", "pull", "--quiet", reference]
            host.change(pull, what=f"downloading {reference}", timeout=store.DOWNLOAD_TIMEOUT)
    if host.dry and not built.is_in_podman(host, reference):
        return reference
    identity, environment = _facts(host, reference)
    script = _script(environment, trusted)
    parts = f"{BUILD}{identity}{script}{ENTRY.read_text()}"
    digest = hashlib.sha256(parts.encode()).hexdigest()
    made = f"localhost/vagrantp-{store.slug(reference)}-{digest[:10]}:latest"
    if built.is_in_podman(host, made):
        return made
    with builders.lock(host, digest, reference):
        if not built.is_in_podman(host, made):
            with host.progress.stage("add ssh to the image", reference):
                _build(host, reference, identity, script, made, digest, options)
    return made


def _facts(host: Host, reference: str) -> tuple[str, list[str]]:
    """Return the id of an image and the environment that its containers have."""
    [found] = as_json("podman", host.answer(["podman", "image", "inspect", reference]), list)
    return found["Id"], (found.get("Config") or {}).get("Env") or []


def _script(environment: list[str], trusted: list[str]) -> str:
    """Return add_ssh.sh, with the image's environment for those who log in by ssh."""
    variables = dict(pair.split("=", 1) for pair in environment if "=" in pair)
    path = variables.get("PATH", "")
    lang = "" if any(name in variables for name in LOCALE) else "C.UTF-8"
    for name in NOT_FOR_SSH:
        variables.pop(name, None)
    pairs = {name: f"{name}={value}" for name, value in variables.items()}
    quoted = (pair.replace("\\", "\\\\").replace('"', '\\"') for pair in pairs.values())
    names = [name for name in pairs if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)]
    values = {
        "exports": "".join(f"export {shlex.quote(pairs[name])}\n" for name in names),
        "settings": " ".join(f'"{pair}"' for pair in quoted if "\n" not in pair),
        "names": " ".join(names),
        "path": path,
        "lang": lang,
        "entry": ENTRY.read_text("utf-8"),
        "trust": certificates.script(trusted) if trusted else "",
    }
    start = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return start + ADD.read_text("utf-8")


def _build(
    host: Host,
    reference: str,
    identity: str,
    script: str,
    made: str,
    digest: str,
    options: Callable[[Path], list[str]],
) -> None:
    changes = (
        'ENTRYPOINT ["/usr/local/sbin/vagrantp-entry"]',
        "CMD []",
        "USER 0",
        "WORKDIR /",
        "STOPSIGNAL SIGTERM",
        "LABEL vagrantp.image=" + json.dumps(reference),
        *(f'LABEL {name}=""' for name in (filled.KEY, filled.BASE, filled.NAME)),
    )

    builder = builders.name(digest)
    closed = contract.Policy(lan_access=False, lan_allow=())
    try:
        with builders.folder(host, digest) as folder:
            host.write(folder / contract.ISOLATION, json.dumps(closed.to_json()))
            host.write(folder / contract.FORWARDS, json.dumps({"forwards": []}))
            host.change(
                [
                    *("podman", "create", f"--name={builder}", "--user=0:0", "--workdir=/"),
                    *(f"--annotation={contract.ANNOTATION}={folder}", *options(folder)),
                    *(NO_PROXY, "--entrypoint=/bin/sh", identity, "-c", script),
                ],
                what=f"preparing {reference}",
                timeout=60,
            )
            query = ["podman", "inspect", "--type=container", "--format={{.Id}}", builder]
            host.write(folder / contract.CONTAINER_ID, "" if host.dry else host.answer(query))
            host.change(
                ["podman", "start", "--attach", builder],
                what=f"adding ssh to {reference}",
                timeout=ADD_TIMEOUT,
                explain=_why,
            )
            host.change(
                ["podman", "commit", "--quiet", *(f"--change={c}" for c in changes), builder, made],
                what=f"keeping {reference} with ssh",
                timeout=600,
            )
    except ProviderError as error:
        needs = "an image needs a shell and apt-get, apk, dnf or pacman"
        error.hint = f"{needs}; {error.hint}" if error.hint else needs
        raise


def _why(lines: list[str]) -> str:
    errors = [line for line in lines if "rror" in line or line.startswith("E: ")]
    return (errors or lines or [""])[-1]
