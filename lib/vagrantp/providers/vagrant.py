"""Runs Vagrant, which makes every instance, and keeps its index clean.

docs/adr/0019-why-vagrant-stays.md
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from vagrantp.core import documents
from vagrantp.core.places import state_root
from vagrantp.core.process import environment, is_installed
from vagrantp.core.start import Held, command_line
from vagrantp.core.system import Host
from vagrantp.images import store
from vagrantp.instance import vagrant
from vagrantp.instance.record import Instance

TIMEOUT = 900  # seconds for Vagrant to create a VM, under software emulation too


def run(host: Host, instance: Instance, *arguments: str, held: Held | None = None) -> None:
    """Run a Vagrant command for `instance`. Raises ProviderError when it fails.

    `held`: the command, if it is loaded already.
    """
    host.make_dir(store.vagrant_home())
    argv, env = command(instance, *arguments)
    host.change(
        argv,
        what=f"vagrant {arguments[0]}",
        timeout=TIMEOUT,
        env=env,
        cwd=_folder(instance),
        explain=lambda lines: instance.hooks_reason() or _reason(lines),
        held=held,
    )


@contextmanager
def loading(host: Host, instance: Instance, *arguments: str) -> Iterator[Callable[[], None]]:
    """Have Vagrant load itself for a command, and yield what runs it, as `run` does.

    It takes a second of a processor, while the caller asks other programs and waits for them. Not
    where parts of the instance are there, nor before Vagrant has made its own folder whole: it may
    be ended at any moment.
    """
    is_fresh = not instance.state_dir.is_dir()
    is_whole = _index().exists() and is_installed("vagrant") and os.access(state_root(), os.W_OK)
    if host.dry or not (is_fresh and is_whole):
        yield partial(run, host, instance, *arguments)
        return
    host.make_dir(instance.state_dir)
    argv, env = command(instance, *arguments)
    held = Held(
        command_line(argv, _folder(instance)), {**environment(), **env, vagrant.WAITS: "yes"}
    )
    try:
        yield partial(run, host, instance, *arguments, held=held)
    finally:
        held.end()


def _index() -> Path:
    return store.vagrant_home() / "data/machine-index/index"


def _folder(instance: Instance) -> Path:
    return instance.folder if instance.folder.is_dir() else instance.state_dir


def command(instance: Instance, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return argv and environment of a Vagrant command for `instance`."""
    return vagrant.command(instance, store.vagrant_home(), environment()["PATH"], *arguments)


def _reason(lines: list[str]) -> str:
    """Pick the line that matters out of the paragraphs that Vagrant prints."""
    candidates = [line for line in lines if not line.startswith(("==>", "from /"))]
    for sign in ("Stderr: ", "Error: ", "failed: ", "rror", "The container started either never"):
        for line in candidates:
            if sign in line:
                return line.removeprefix("Stderr: ")
    return candidates[-1] if candidates else ""


def forget(host: Host, instance: Instance) -> None:
    """Take it out of Vagrant's index, under Vagrant's own lock (lib/vagrant/machine_index.rb)."""
    index = _index()
    if not index.exists():
        return
    with host.flock(index.with_name("index.lock")):
        try:
            known = documents.json_file(index)
        except documents.Unreadable:
            return
        machines = known.get("machines", {})
        kept = {key: m for key, m in machines.items() if m.get("name") != instance.full_name}
        if kept != machines:
            host.write(index, json.dumps({**known, "machines": kept}), 0o644)
