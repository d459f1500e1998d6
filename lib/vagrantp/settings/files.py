"""The files that values of `.env` name.

A locator takes a Base and the typed value, finds the files, looks into those that may be read, and
returns the value with absolute paths. It raises `voluptuous.Invalid` with a text that reads on from
the key: "must name …".
"""

from __future__ import annotations

import os
import re
import stat
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from voluptuous import Invalid, Schema

from vagrantp.core import documents
from vagrantp.core.documents import at_once, without_links
from vagrantp.settings.parsers import Provisioner

# What ansible-galaxy installs from, beside a playbook or above it.
REQUIREMENTS = tuple(
    f"{folder}requirements.{ending}"
    for folder in ("", "roles/", "collections/")
    for ending in ("yml", "yaml")
)
JINJA = re.compile(r"## *template: *jinja *\n", re.IGNORECASE)  # cloud-init's, its templater.py

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s([^-]+)-----END CERTIFICATE-----")
MAX_PEM = 64 * 1024  # characters: a guest gets them in an argument, of 128 KB at most


@dataclass(frozen=True)
class Base:
    """The folder of a settings file, where relative paths start.

    `granted`: the real paths outside of it that may be opened; None: any, as `defaults.env` is the
    person's own.
    """

    folder: Path
    granted: Collection[Path] | None = ()


Locator = Callable[[Base, Any], Any]


def readable(base: Base, file: Path) -> Path | None:
    """Return the real path of a file, None where it may not be opened, as nobody granted it yet."""
    real = Path(os.path.realpath(file))
    is_within = real.is_relative_to(os.path.realpath(base.folder))
    return real if base.granted is None or is_within or real in base.granted else None


def paths_in(value: object) -> list[Path]:
    """Return the paths in a value of a key that has a locator."""
    if isinstance(value, tuple):
        return [path for item in value for path in paths_in(item)]
    if isinstance(value, Provisioner):
        return [] if value.kind == "ours" else [value.path]
    if isinstance(value, str):  # an image
        return [Path(value)] if value.startswith("/") else []
    return [value] if isinstance(value, Path) else []


def folders_up(playbook: Path, project: Path) -> list[Path]:
    """Return the folders in which a playbook's config, roles and requirements may be.

    From its own up to the project's; of one outside of the project, its own alone. Both are real.
    """
    folders = [playbook.parent]
    while folders[-1] != project and folders[-1].is_relative_to(project):
        folders.append(folders[-1].parent)
    return folders


def requirements(playbook: Path, project: Path) -> list[Path]:
    """Return the files that say which roles and collections a playbook needs."""
    found = (folder / name for folder in folders_up(playbook, project) for name in REQUIREMENTS)
    return [path for path in found if os.path.lexists(path)]


def located(folder: Path, named: Path) -> Path:
    """Find a file that a value names: `~/` is the home folder, else it starts from `folder`."""
    home = named.parts[:1] == ("~",)
    found = Path.home().joinpath(*named.parts[1:]) if home else folder / named
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


def content(base: Base, file: Path) -> str | None:
    """Return the text of a file, None where it may not be read yet. Raises Invalid."""
    real = readable(base, file)
    with usable():
        return documents.text(real, without_links) if real else None


@contextmanager
def usable() -> Iterator[None]:
    """Raise Invalid for a document that cannot be used."""
    try:
        yield
    except documents.Unreadable as error:
        raise Invalid(f"must name a file {error}") from None


def first_line(script: Path, opener: Callable[[str, int], int] = at_once) -> bytes:
    """Return what a script starts with, as far as a kernel reads it (BINPRM_BUF_SIZE)."""
    with open(script, "rb", opener=opener) as file:
        return file.readline(256)


def yaml_shape(text: str) -> tuple[str, list[list[str]]]:
    """Return what a YAML document is: sequence, mapping or scalar, "" when empty; and of each item
    of a sequence its keys.
    """
    with usable():
        root = documents.compose(text)
    if root is None or root.id != "sequence":
        return root.id if root else "", []
    return root.id, [documents.keys(item) if item.id == "mapping" else [] for item in root.value]


def provisioners(base: Base, steps: tuple[Provisioner, ...]) -> tuple[Provisioner, ...]:
    """Find the playbooks and scripts."""
    found: tuple[Provisioner, ...] = Schema((partial(_step, base),))(steps)
    return found


def _step(base: Base, step: Provisioner) -> Provisioner:
    if step.kind == "ours":
        return step
    found = located(base.folder, step.path)
    if step.kind == "script":
        if not found.stat().st_mode & 0o111:
            raise Invalid("must name a script that is executable, or a playbook that ends in .yml")
        real = readable(base, found)
        if real and first_line(real, without_links).endswith(b"\r\n"):
            raise Invalid("must name a script whose lines end as on Unix, without CR")
    text = content(base, found) if step.kind == "playbook" else None
    if text is not None and not _is_encrypted(text):
        _, plays = yaml_shape(text)
        if not plays or not all(map(_is_play, plays)):
            raise Invalid("must name a playbook, which is a list of plays, each with hosts")
    return replace(step, path=found)


def _is_play(keys: list[str]) -> bool:
    return any(key == "hosts" or key.endswith("import_playbook") for key in keys)


def _is_encrypted(text: str) -> bool:
    """Say whether ansible-vault(1) made it; only Ansible can look inside."""
    return text.startswith("$ANSIBLE_VAULT;")


def variables(base: Base, named: Path) -> Path:
    """Find a file of variables for a playbook, in YAML or JSON."""
    found = located(base.folder, named)
    text = content(base, found)
    if text is None or _is_encrypted(text):
        return found
    if yaml_shape(text)[0] not in ("mapping", ""):
        raise Invalid("must name a file of variables, each a line such as name: value")
    return found


def cloud_config(base: Base, named: Path) -> Path:
    """Find a user's cloud-config. One that is a template only cloud-init can look into."""
    found = located(base.folder, named)
    text = content(base, found)
    if text is None:
        return found
    is_template = JINJA.match(text)
    if not text.removeprefix(is_template[0] if is_template else "").startswith("#cloud-config"):
        raise Invalid("must name a file whose first line is #cloud-config")
    if not is_template:
        with usable():
            keys = documents.load(text)
        if not isinstance(keys, dict | None):
            raise Invalid("must name a file of cloud-config keys, each a line such as packages: …")
    return found


def public_keys(base: Base, named: tuple[str, ...]) -> tuple[Path, ...]:
    """Find files of public SSH keys."""
    found: tuple[Path, ...] = Schema((partial(_public_key, base),))(named)
    return found


def _public_key(base: Base, named: str) -> Path:
    found = located(base.folder, Path(named))
    text = content(base, found)
    if text is None:
        return found
    lines = [line for line in text.splitlines() if line.strip() and line[0] != "#"]
    if any("PRIVATE KEY" in line for line in lines):
        raise Invalid("must name a public key, not the private one")
    if not lines or not all(re.match(r"(ssh|ecdsa|sk)-\S+ AAAA\S+", line) for line in lines):
        raise Invalid("must name a file of public keys, each a line such as ssh-ed25519 AAAA…")
    return found


def certificates(base: Base, named: tuple[str, ...]) -> tuple[Path, ...]:
    """Find files of certificate authorities, in PEM."""
    found: tuple[Path, ...] = Schema((partial(_certificates, base),))(named)
    texts = [text for path in found if (text := content(base, path))]
    if sum(len(one) for text in texts for one in authorities(text)) > MAX_PEM:
        raise Invalid(f"must name {MAX_PEM // 1024} KB of certificates at most")
    return found


def _certificates(base: Base, named: str) -> Path:
    found = located(base.folder, Path(named))
    text = content(base, found)
    if text is not None:
        authorities(text)
    return found


def authorities(text: str) -> list[str]:
    """Return the certificates in a text as PEM, without what stands between them.

    Raises Invalid where that is none, or one that is no authority's, or private.
    """
    import ssl  # takes 0.01 s, and few need it

    if "PRIVATE KEY" in text:
        raise Invalid("must name a file of certificates, without a private key")
    found = ["".join(one.split()) for one in CERTIFICATE.findall(text)]
    if not found or len(found) != text.count("BEGIN CERTIFICATE"):
        raise Invalid("must name a file of certificates in PEM, each from BEGIN to END")
    for number, one in enumerate(found, 1):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=b64decode(one, validate=True))
            kinds = context.cert_store_stats()
        except (ValueError, ssl.SSLError):
            raise Invalid(f"must name a file of certificates; number {number} is none") from None
        if kinds["x509_ca"] != 1:
            raise Invalid(f"must name certificates of authorities; number {number} is a server's")
    return [ssl.DER_cert_to_PEM_cert(b64decode(one)).strip() for one in found]


def image_file(base: Base, value: str | Path) -> str | Path:
    """Find the cloud image, where BOX names a file."""
    return located(base.folder, value) if isinstance(value, Path) else value


def hidden(base: Base, named: tuple[str, ...]) -> tuple[str, ...]:
    """See that each path in the project folder is there, by no symbolic link."""
    found: tuple[str, ...] = Schema((partial(_hidden, base),))(named)
    return found


def _hidden(base: Base, named: str) -> str:
    place = base.folder
    for part in Path(named).parts:
        place /= part
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            raise Invalid("must name what is there in the project's folder") from None
        except OSError as error:
            raise Invalid(f"must name what can be read ({error.strerror})") from None
        if stat.S_ISLNK(mode):
            raise Invalid("must name no symbolic link, nor what is behind one")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise Invalid("must name a file or a folder")
    return named
