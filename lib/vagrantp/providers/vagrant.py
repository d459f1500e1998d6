"""Runs Vagrant, which makes every instance, and keeps its index clean.

docs/adr/0019-why-vagrant-stays.md
"""

from __future__ import annotations

import json

from vagrantp.core import documents
from vagrantp.core.process import environment
from vagrantp.core.system import Host
from vagrantp.images import store
from vagrantp.instance import vagrant
from vagrantp.instance.record import Instance

TIMEOUT = 900  # seconds for Vagrant to create a VM, under software emulation too


def run(host: Host, instance: Instance, *arguments: str) -> None:
    """Run a Vagrant command for `instance`. Raises ProviderError when it fails."""
    host.make_dir(store.vagrant_home())
    argv, env = command(instance, *arguments)
    host.change(
        argv,
        what=f"vagrant {arguments[0]}",
        timeout=TIMEOUT,
        env=env,
        cwd=instance.folder if instance.folder.is_dir() else instance.state_dir,
        explain=lambda lines: instance.hooks_reason() or _reason(lines),
    )


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
    index = store.vagrant_home() / "data/machine-index/index"
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
