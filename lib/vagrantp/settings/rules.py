"""Which keys conflict, and when a change of one applies."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vagrantp.settings.keys import KEYS, NOT_BUILT, Settings
from vagrantp.settings.schema import AT_ONCE, NEW, When
from vagrantp.settings.unshared import why_no_project


@dataclass(frozen=True)
class KeyConflict:
    """A sound value of `key` that makes no sense beside the others. `text` follows the key's name.

    `is_idle`: nothing would use it, which is no mistake in defaults.env.
    """

    key: str
    text: str
    hint: str
    is_idle: bool = True


def conflicts(
    values: Mapping[str, Any], written: Collection[str], folder: Path
) -> Iterator[KeyConflict]:
    """Yield what makes no sense together, or in this project's `folder`.

    `values`: the sound typed values, defaults among them; `written`: all keys that were written.
    """
    infra_type, network = values.get("INFRA_TYPE"), values.get("NETWORK_TYPE")
    for key in sorted(written, key=list(KEYS).index):
        only = KEYS[key].infra_type
        if only and infra_type and infra_type != only:
            yield KeyConflict(key, f"is for INFRA_TYPE={only}", f"take {key} out")
        elif key in ("BRIDGE", "GATEWAY", "DNS") and network == "default":
            hint = f"take {key} out, or write NETWORK_TYPE=bridge"
            yield KeyConflict(key, "is for NETWORK_TYPE=bridge", hint)
        elif key in ("GATEWAY", "DNS") and "FIXED_IP" not in written:
            hint = f"take {key} out, or give the guest a FIXED_IP"
            yield KeyConflict(key, "is for a guest with FIXED_IP", hint)
        elif key == "IMAGE_SHA256" and _is_name(values.get("BOX")):
            hint = "take IMAGE_SHA256 out; what BOX names is checked in its own way"
            yield KeyConflict(key, "is for a file or URL in BOX", hint)
        elif key == "BOX" and "IMAGE_SHA256" not in written and _is_http(values.get("BOX")):
            hint = "use https, or give IMAGE_SHA256"
            yield KeyConflict(key, "must not be http without IMAGE_SHA256", hint, is_idle=False)
        elif (
            key == "MOUNT" and values.get(key, "none") != "none" and (why := why_no_project(folder))
        ):
            hint = "put the project into a folder of its own, or write MOUNT=none"
            yield KeyConflict(key, f"must be none here, as {why}", hint, is_idle=False)
        elif key == "HIDE" and values.get("MOUNT") == "none":
            yield KeyConflict(key, "is for MOUNT=ro or rw", "take HIDE out, or write MOUNT=ro")
        elif key == "AGENT_ENV" and "AGENT" not in written:
            yield KeyConflict(key, "is for AGENT", "take AGENT_ENV out, or write AGENT=claude")
        elif key == "PROVISION_VARS" and not _has_playbook(values, written):
            hint = "take PROVISION_VARS out, or name a playbook"
            yield KeyConflict(key, "is for a playbook in PROVISION_SCRIPT", hint)
        elif key == "GATEWAY" and (text := _unreachable(values.get(key), values.get("FIXED_IP"))):
            hint = "it is the router of the network that the guest is on"
            yield KeyConflict(key, text, hint, is_idle=False)


def _is_name(image: object) -> bool:
    return isinstance(image, str) and "://" not in image


def _is_http(image: object) -> bool:
    return isinstance(image, str) and urlsplit(image).scheme == "http"


def _has_playbook(values: Mapping[str, Any], written: Collection[str]) -> bool:
    if "PROVISION_SCRIPT" in written and "PROVISION_SCRIPT" not in values:
        return True  # there may be one once its mistake is fixed
    playbooks = (step for step in values.get("PROVISION_SCRIPT", ()) if step.kind != "script")
    return bool(values.get("AGENT")) or any(playbooks)


def _unreachable(gateway: IPv4Address | None, address: IPv4Address | None) -> str:
    """Return why a guest at `address` could not reach `gateway`, or nothing."""
    if gateway is None or address is None:
        return ""
    if gateway == IPv4Address(int(address)):
        return "must be another address than FIXED_IP"
    if isinstance(address, IPv4Interface):
        net = address.network
        if gateway not in net or gateway in (net.network_address, net.broadcast_address):
            return f"must be a machine on FIXED_IP's network {net}"
    return ""


def applies(name: str, old: Settings, new: Settings) -> When:
    """Return when a change of the key `name` applies to an instance that has the settings `old`."""
    if name not in KEYS or (name == "FIXED_IP" and new.network_type == "bridge"):
        return NEW  # on a bridge the guest is given its address when it is made
    key = KEYS[name]
    when = key.applies_to(new.infra_type)
    if when != "grow only":
        return when
    return AT_ONCE if getattr(new, key.field) >= getattr(old, key.field) else NEW


def meant(name: str) -> str | None:
    """Return the key that a foreign one was probably meant to be, or None."""
    from difflib import get_close_matches  # few need it

    word = name.upper().replace("-", "_")
    for key in KEYS.values():
        is_twisted = len(word) > 4 and sorted(word) == sorted(key.name)  # MEMROY
        if word in (key.name, *key.aliases) or is_twisted:
            return key.name
    near = [key for key in (*KEYS, *NOT_BUILT) if abs(len(key) - len(word)) <= 1]
    # 0.88 takes one letter more or less (PORT, MEMRY); SSL_KEY is nobody's SSH_KEY
    return next(iter(get_close_matches(word, near, n=1, cutoff=0.88)), None)
