"""Has a person grant what `.env` asks of this host, and keeps that from changing meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from vagrantp.core import documents
from vagrantp.core.errors import ConfigError, StateError, cleaned_up_by
from vagrantp.core.places import state_root
from vagrantp.core.system import Host
from vagrantp.core.text import show
from vagrantp.images import boxes
from vagrantp.instance import grants
from vagrantp.instance import record as instances
from vagrantp.instance.grants import Grant, Granted
from vagrantp.instance.record import Instance
from vagrantp.settings import env, files
from vagrantp.settings.env import Settings
from vagrantp.settings.keys import KEYS
from vagrantp.settings.parsers import Provisioner

LARGEST_SCRIPT = 64 * 1024**2  # bytes
HINT = "fab up --accept"


@contextmanager
def granted(
    host: Host, folder: Path, settings: Settings, is_sure: Callable[[str], bool]
) -> Iterator[Settings | None]:
    """Yield the settings of `.env`, once a person has granted what they ask of this host.

    `is_sure` is asked, with all that was not granted before; where it is not, this raises
    StateError, or, under --dry, yields None. Raises ConfigError for a file that cannot be used.
    Until the end, Instance.source leads to what was granted, whatever happens in the folder.
    """
    had = grants.remembered(folder)
    asks = _asked(settings, folder, had)
    while fresh := grants.wider(had, asks):
        text = grants.listed(fresh)
        if not is_sure(text):
            if not host.dry:
                raise StateError(text, HINT)
            show(f"{text}\nfab up would ask for that; fab --dry up --accept shows what follows")
            yield None
            return
        new = grants.together(fresh)
        had = {key: [*had.get(key, ()), *new.get(key, ())] for key in {*had, *new}}
        settings = env.load(folder, granted=grants.paths(had))  # `.env` may have changed meanwhile
        asks = _asked(settings, folder, had)
    grants.remember(host, folder, asks, settings)
    instance = instances.new(settings, folder)
    remove_sources(host, instance)
    with cleaned_up_by(partial(remove_sources, host, instance)):
        if not host.dry:
            _keep_sources(host, instance, settings, grants.paths(grants.together(asks)))
        yield settings


def _asked(settings: Settings, folder: Path, had: Granted) -> list[Grant]:
    return grants.asked(settings, folder, had, grants.shared_folders(folder), boxes.is_of_others)


def remove_sources(host: Host, instance: Instance) -> None:
    """Remove what `granted` keeps for a moment, and what versions before grants kept."""
    host.remove(instance.sources)
    for path in instance.sources.parent.glob(f".{instance.id}.*"):  # half written
        host.remove(path)
    before = state_root() / "trust"
    for name in (instance.id, f"{instance.id}.next"):
        host.remove(before / name)
    if not host.dry and before.is_dir() and not any(before.iterdir()):
        host.remove(before)


def _keep_sources(host: Host, instance: Instance, settings: Settings, outside: set[Path]) -> None:
    """Copy the files that `.env` names; of what is too large for that, note where it really is.

    `outside`: the real paths that were granted.
    """
    own = grants.own_fields(settings)
    for key in KEYS.values():
        value = getattr(settings, key.field)
        base = files.Base(instance.folder, outside if key.field in own else None)
        for one in value if isinstance(value, tuple) else (value,):
            for path in files.paths_in(one) if key.locate else ():
                keep(host, instance.kept(path), one, path, base)
                if isinstance(one, Provisioner) and one.kind == "playbook":
                    real = instance.source(path)
                    for required in files.requirements(real, instance.folder):
                        keep(host, instance.kept(required), required, required, base)


def keep(host: Host, place: Path, value: object, path: Path, base: files.Base) -> None:
    """Copy the file `path` of a `value` to a place, or link to where it really is.

    Raises StateError where that is no longer granted; ConfigError for one that cannot be used.
    """
    is_script = isinstance(value, Provisioner) and value.kind == "script"
    real = files.readable(base, path)
    if real is None:
        raise StateError(f"{path} leads to another file than a moment ago", HINT)
    host.make_dir(place.parent)
    host.remove(place)
    if isinstance(value, Path) or is_script:
        try:
            most = LARGEST_SCRIPT if is_script else documents.MAX_BYTES
            content = documents.content(real, documents.without_links, most)
        except documents.Unreadable as why:
            raise ConfigError(f"{path} must be a file {why}") from None
        host.write(place, content)
    else:
        host.link(place, real)
