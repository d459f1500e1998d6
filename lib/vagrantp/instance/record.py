"""Who an instance is and where its files are. Settings <-> machine.json."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vagrantp_guard import contract

from vagrantp.core import documents
from vagrantp.core.errors import StateError
from vagrantp.core.places import state_root, xdg
from vagrantp.settings.env import Settings, id_from
from vagrantp.settings.saved import as_json, from_json

# Of machine.json, of domain metadata and of container labels. 2: settings say what was `written`.
VERSION = 2


@dataclass(frozen=True)
class Instance:
    """One VM or container and its places. `folder` is the resolved project folder."""

    name: str
    id: str
    folder: Path
    infra_type: str

    @property
    def full_name(self) -> str:
        """`<name>-<id>`: the domain's or container's name."""
        return f"{self.name}-{self.id}"

    @property
    def state_dir(self) -> Path:
        """The folder of everything that belongs to this instance alone."""
        return state_root() / self.full_name

    @property
    def machine_json(self) -> Path:
        """What the Vagrantfile reads."""
        return self.state_dir / "machine.json"

    @property
    def ssh_config(self) -> Path:
        """How ssh reaches it. It is there only once the instance was made in full."""
        return self.state_dir / "ssh_config"

    @property
    def ssh_config_draft(self) -> Path:
        """What `ssh_config` will be at the end of the `up` that makes it."""
        return self.state_dir / "ssh_config.new"

    @property
    def key(self) -> Path:
        """Its private key; the public one stands beside it in `.pub`."""
        return self.state_dir / "id_ed25519"

    @property
    def host_key(self) -> Path:
        """The private host key that the guest gets at creation, in the folder mounted there."""
        return self.state_dir / contract.SEED / "ssh_host_ed25519_key"

    @property
    def user_script(self) -> Path:
        """What lets the user log in, in the folder that a new guest reads."""
        return self.host_key.with_name("user.sh")

    @property
    def resolv_conf(self) -> Path:
        """The /etc/resolv.conf of a container on a bridge whose resolver is fixed."""
        return self.host_key.with_name("resolv.conf")

    @property
    def known_hosts(self) -> Path:
        """The one host key that ssh accepts."""
        return self.state_dir / "known_hosts"

    @property
    def provision_log(self) -> Path:
        """What provisioning said the last time."""
        return self.state_dir / "logs" / "provision.log"

    @property
    def fetched(self) -> Path:
        """Where a playbook's module fetch puts what it brings from the guest."""
        return self.state_dir / "fetched"

    @property
    def mac(self) -> str:
        """A MAC in QEMU's range, stable and as unique as the id is."""
        pairs = [self.id[i : i + 2] for i in range(0, 8, 2)]
        return ":".join(["52", "54", *pairs])

    @property
    def lan_mac(self) -> str:
        """The MAC of its card on a bridge of the host, as unique."""
        return self.mac.replace("52:54:", "56:54:", 1)

    @property
    def habits(self) -> Path:
        """What its guest could change in the folder for programs on this host: habits.py."""
        return self.state_dir / "habits.json"

    @property
    def tracked(self) -> Path:
        """Which closed names of HEAD its guest may write: vagrantp_guard/released.py."""
        return contract.tracked_path(self.state_dir)

    @property
    def forwards(self) -> Path:
        """What vagrantp_guard/forward.py carries; its lock file is beside it."""
        return self.state_dir / contract.FORWARDS

    @property
    def isolation_json(self) -> Path:
        """What a container may reach, for the OCI hook."""
        return self.state_dir / contract.ISOLATION

    @property
    def seccomp(self) -> Path:
        """The filter of system calls that its container was created with."""
        return self.state_dir / "seccomp.json"

    @property
    def container_id(self) -> Path:
        """The id of its container, by which the OCI hook knows it; there before its first start."""
        return self.state_dir / contract.CONTAINER_ID

    @property
    def hook_error(self) -> Path:
        """Why the OCI hook has kept a container from starting, if it has."""
        return self.state_dir / contract.HOOK_ERROR

    def hooks_reason(self) -> str:
        """Return the content of `hook_error`, "" where there is none."""
        try:
            return documents.text(self.hook_error).strip()
        except documents.Unreadable:
            return ""

    @property
    def sources(self) -> Path:
        """What `.env` names, as it was granted; during a verb: verbs/steps/grant.py."""
        return state_root() / contract.GRANTS / self.id

    def source(self, path: Path) -> Path:
        """Return the path to read for a file that `.env` names.

        That is its copy; of a playbook or an image, which is too large for one, the real path.
        """
        kept = self.kept(path)
        if kept.is_symlink():
            return kept.readlink()
        return kept if kept.exists() else path

    def kept(self, path: Path) -> Path:
        """Return where a file that `.env` names is copied to, or a link to its real path is."""
        return self.sources / hashlib.sha256(os.fsencode(path)).hexdigest()[:16] / path.name

    def is_complete(self) -> bool:
        """Say whether an `up` has made it in full."""
        return self.ssh_config.exists()

    def machine(self) -> dict[str, Any]:
        """Return machine.json, as this version would have written it.

        Nothing when it is gone, cannot be read or is a newer version's.
        """
        return _machine(self.machine_json)

    def is_disk_limited(self) -> bool:
        """Say whether it was made with a limit for DISK, which a container need not have."""
        return self.infra_type == "vm" or bool(self.machine().get("provider", {}).get("has_quota"))

    @property
    def settings(self) -> Settings | None:
        """What it was made with, as far as machine.json can be read."""
        machine = self.machine()
        return from_json(machine["settings"]) if machine else None

    def why_newer(self) -> str:
        """Return why this version must leave it alone, "" where it need not."""
        version = _version(_document(self.machine_json))
        if version <= VERSION:
            return ""
        return (
            f"a newer vagrantp made it (machine.json version {version}, this one reads {VERSION})"
        )

    def refuse_newer(self) -> None:
        """Raise StateError when a newer vagrantp made it, which may have made more than we know."""
        if why := self.why_newer():
            raise StateError(f"{self.full_name}: {why}", "use the checkout that made it")

    @property
    def lan(self) -> contract.LanNic | None:
        """Its card on a bridge of the host, as lan.py makes it, None where it has none."""
        found = self.machine().get("provider", {}).get("lan")
        return contract.LanNic.from_json(found) if found else None


def new(settings: Settings, folder: Path) -> Instance:
    """Return the instance that `settings` ask for in `folder`."""
    return Instance(settings.name, id_from(folder), folder.resolve(), settings.infra_type)


def remembered(folder: Path) -> Instance | None:
    """Return the instance whose state folder is there for `folder`, whatever `.env` says now."""
    return by_id(id_from(folder), folder.resolve())


def by_id(identity: str, folder: Path | None = None) -> Instance | None:
    """Return the instance whose state folder is there. `folder`: its project, if known."""
    return next(iter(all_by_id(identity, folder)), None)


def all_by_id(identity: str, folder: Path | None = None) -> list[Instance]:
    """Return all with a state folder: more than one where NAME changed after a killed `up`."""
    found = []
    for path in sorted(state_root().glob(f"*-{identity}")):
        made = _document(path / "machine.json")  # of a newer version, too
        project = folder or Path(made.get("folder", "/"))
        infra_type = made.get("settings", {}).get("infra_type", "")
        name = path.name.removesuffix(f"-{identity}")
        found.append(Instance(name, identity, project, infra_type))
    return found


def machines() -> dict[str, dict[str, Any]]:
    """Return machine.json of every instance of this user, by full name."""
    return {path.parent.name: _machine(path) for path in state_root().glob("*/machine.json")}


def _document(path: Path) -> dict[str, Any]:
    """Return a machine.json as it is, nothing where it cannot be read."""
    try:
        facts = path.stat()
    except OSError:
        return {}
    # It is always written whole, as a new file; a verb reads it some twenty times.
    return deepcopy(_parsed(path, facts.st_ino, facts.st_mtime_ns, facts.st_size))


@lru_cache(maxsize=100)
def _parsed(path: Path, _inode: int, _changed: int, _size: int) -> dict[str, Any]:
    try:
        document = documents.json_file(path)
        is_sound = all(isinstance(document[key], dict) for key in ("settings", "provider"))
    except (ValueError, TypeError, LookupError):
        return {}
    return document if is_sound else {}


def _version(document: dict[str, Any]) -> int:
    version = document.get("version")
    return version if isinstance(version, int) else 1


def _machine(path: Path) -> dict[str, Any]:
    document = _document(path)
    if not document or _version(document) > VERSION:
        return {}
    try:
        settings = as_json(from_json(document["settings"]))
    except (ValueError, TypeError, LookupError):
        return {}
    return {**document, "version": VERSION, "settings": settings}


def log(identity: str) -> Path:
    """Return the log of what providers printed during a project's last verbs; `.1` has older ones.

    It is in no instance's folder: an `up` that fails removes that.
    """
    return xdg("CACHE", ".cache") / "logs" / f"{identity}.log"


def amended(instance: Instance, settings: Settings, keys: Collection[str]) -> dict[str, Any]:
    """Return machine.json's document with the settings called `keys` as they are in `settings`."""
    document, values = instance.machine(), as_json(settings)
    had = document["settings"]
    written = ({*had["written"]} - {*keys}) | ({*settings.written} & {*keys})
    changed = {key: values[key] for key in (*keys, "in_env")} | {"written": sorted(written)}
    document["settings"] = had | changed
    return document


def document(instance: Instance, settings: Settings, provider: dict[str, Any]) -> str:
    """Return machine.json: all resolved settings, who it is, and what its provider needs."""
    return as_text(
        {
            "version": VERSION,
            "instance": instance.full_name,
            "name": instance.name,
            "id": instance.id,
            "folder": str(instance.folder),
            "uid": os.getuid(),
            "settings": as_json(settings),
            "provider": provider,
        }
    )


def as_text(document: dict[str, Any]) -> str:
    """Return machine.json's document as it is written."""
    return json.dumps(document, indent=2, sort_keys=True)
