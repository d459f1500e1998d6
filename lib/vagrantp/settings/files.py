"""The files that values of `.env` name.

A locator takes the folder that relative paths start from and the typed value, finds the files,
looks into them and returns the value with absolute paths. It raises `voluptuous.Invalid` with a
text that reads on from the key: "must name …".
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from voluptuous import Invalid, Schema

from vagrantp.core import documents
from vagrantp.settings.parsers import Provisioner

JINJA = re.compile(r"## *template: *jinja *\n", re.IGNORECASE)  # cloud-init's, its templater.py
Locator = Callable[[Path, Any], Any]


def located(base: Path, named: Path) -> Path:
    """Find a file that a value names: `~/` is the home folder, else `base` is where it starts."""
    home = named.parts[:1] == ("~",)
    found = Path.home().joinpath(*named.parts[1:]) if home else base / named
    try:
        mode = found.stat().st_mode
    except FileNotFoundError:
        raise Invalid("must name a file that is there") from None
    except OSError as error:
        raise Invalid(f"must name a file that can be read ({error.strerror})") from None
    if stat.S_ISDIR(mode):
        raise Invalid("must name a file, not a folder")
    if not stat.S_ISREG(mode):
        raise Invalid("must name a regular file")
    if not os.access(found, os.R_OK, effective_ids=True):
        raise Invalid("must name a file that you may read")
    return found


def content(file: Path) -> str:
    """Return the text of a file. Raises Invalid where it has none."""
    with readable():
        return documents.text(file)


@contextmanager
def readable() -> Iterator[None]:
    """Raise Invalid for a document that cannot be used."""
    try:
        yield
    except documents.Unreadable as error:
        raise Invalid(f"must name a file {error}") from None


def first_line(script: Path) -> bytes:
    """Return what a script starts with, as far as a kernel reads it (BINPRM_BUF_SIZE)."""
    with script.open("rb") as file:
        return file.readline(256)


def yaml_shape(text: str) -> tuple[str, list[list[str]]]:
    """Return what a YAML document is: sequence, mapping or scalar, "" when empty; and of each item
    of a sequence its keys.
    """
    with readable():
        root = documents.compose(text)
    if root is None or root.id != "sequence":
        return root.id if root else "", []
    return root.id, [documents.keys(item) if item.id == "mapping" else [] for item in root.value]


def provisioners(base: Path, steps: tuple[Provisioner, ...]) -> tuple[Provisioner, ...]:
    """Find the playbooks and scripts."""
    found: tuple[Provisioner, ...] = Schema((partial(_step, base),))(steps)
    return found


def _step(base: Path, step: Provisioner) -> Provisioner:
    if step.kind == "ours":
        return step
    found = located(base, step.path)
    if step.kind == "script":
        if not found.stat().st_mode & 0o111:
            raise Invalid("must name a script that is executable, or a playbook that ends in .yml")
        if first_line(found).endswith(b"\r\n"):
            raise Invalid("must name a script whose lines end as on Unix, without CR")
    if step.kind == "playbook" and not _is_encrypted(text := content(found)):
        _, plays = yaml_shape(text)
        if not plays or not all(map(_is_play, plays)):
            raise Invalid("must name a playbook, which is a list of plays, each with hosts")
    return replace(step, path=found)


def _is_play(keys: list[str]) -> bool:
    return any(key == "hosts" or key.endswith("import_playbook") for key in keys)


def _is_encrypted(text: str) -> bool:
    """Say whether ansible-vault(1) made it; only Ansible can look inside."""
    return text.startswith("$ANSIBLE_VAULT;")


def variables(base: Path, named: Path) -> Path:
    """Find a file of variables for a playbook, in YAML or JSON."""
    found = located(base, named)
    if _is_encrypted(text := content(found)):
        return found
    if yaml_shape(text)[0] not in ("mapping", ""):
        raise Invalid("must name a file of variables, each a line such as name: value")
    return found


def cloud_config(base: Path, named: Path) -> Path:
    """Find a user's cloud-config. One that is a template only cloud-init can look into."""
    found = located(base, named)
    text = content(found)
    is_template = JINJA.match(text)
    if not text.removeprefix(is_template[0] if is_template else "").startswith("#cloud-config"):
        raise Invalid("must name a file whose first line is #cloud-config")
    if not is_template:
        with readable():
            keys = documents.load(text)
        if not isinstance(keys, dict | None):
            raise Invalid("must name a file of cloud-config keys, each a line such as packages: …")
    return found


def public_keys(base: Path, named: tuple[str, ...]) -> tuple[Path, ...]:
    """Find files of public SSH keys."""
    found: tuple[Path, ...] = Schema((partial(_public_key, base),))(named)
    return found


def _public_key(base: Path, named: str) -> Path:
    found = located(base, Path(named))
    lines = [line for line in content(found).splitlines() if line.strip() and line[0] != "#"]
    if any("PRIVATE KEY" in line for line in lines):
        raise Invalid("must name a public key, not the private one")
    if not lines or not all(re.match(r"(ssh|ecdsa|sk)-\S+ AAAA\S+", line) for line in lines):
        raise Invalid("must name a file of public keys, each a line such as ssh-ed25519 AAAA…")
    return found


def image_file(base: Path, value: str | Path) -> str | Path:
    """Find the cloud image, where BOX names a file."""
    return located(base, value) if isinstance(value, Path) else value
