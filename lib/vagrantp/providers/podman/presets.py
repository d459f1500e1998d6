"""Images that have what our own playbooks install, so that the next project need not wait for it.

One is made in a container like any instance's, which is provisioned as one; guest/generalize takes
out what is its own. What a person's playbooks do is never in it. docs/adr/0039-presets-as-images.md
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from vagrantp.core.answers import as_json
from vagrantp.core.errors import ProviderError, ProvisionError, VagrantpError
from vagrantp.core.places import MASTER, SCRIPTS
from vagrantp.core.system import Host
from vagrantp.core.text import last_line
from vagrantp.guest import agents, generalize, provision, session
from vagrantp.images import builders, filled, store
from vagrantp.instance import certificates, guard, network, seed, ssh
from vagrantp.instance.record import Instance
from vagrantp.net import subnets
from vagrantp.providers.podman import addresses, options, walls
from vagrantp.settings.env import Settings

BUILD = "1"  # part of the key: raise it when the code below makes another image
BIND = "--cap-add=NET_BIND_SERVICE"  # of sshd, on port 22
SSH_TIMEOUT = 60  # seconds until ssh must answer
COMMIT_TIMEOUT = 600  # seconds
# What it says in an image, of the scripts that take part in making it.
PARTS = (
    agents.INSTALL,
    provision.PYTHON,
    SCRIPTS / "generalize.sh",
    SCRIPTS / "trust.sh",
    SCRIPTS / "user.sh",
)


def ensure(host: Host, instance: Instance, settings: Settings, base: str) -> str:
    """Return the Podman reference of an image with all that `provision.preset` names.

    It is made where there is none of this week. `base`: the image without that. Raises
    ProvisionError where that fails, ProviderError where Podman does.
    """
    trusted = certificates.of(instance, settings)
    key, what = _key(settings, base, trusted), provision.preset_name(settings)
    if found := filled.find(host, key):
        return found
    with builders.lock(host, key, f"an image with {what}"):
        if found := filled.find(host, key):
            return found
        now = datetime.now(UTC).isoformat()
        digest = hashlib.sha256(f"{key} {now}".encode()).hexdigest()
        name = store.slug(f"{settings.image}-with-{what}")
        made = f"localhost/vagrantp-{name}-{digest[:10]}:latest"
        with host.progress.stage("fill an image", f"with {what} (once a week)"):
            _make(host, settings, base, trusted, key, made)
        filled.remove_stale(host)
    return made


def leave(host: Host, instance: Instance) -> None:
    """Remove old images where an instance that is gone was made of one."""
    if instance.machine().get("provider", {}).get(provision.PRESET):
        with suppress(ProviderError):  # the next one does it
            filled.remove_stale(host)


def _key(settings: Settings, base: str, trusted: list[str]) -> str:
    """Return the digest of what determines an image, besides the day."""
    own = sorted((MASTER / "playbooks").glob("tasks/*.yml"))
    own += [MASTER / "playbooks" / f"{step.path}.yml" for step in provision.preset(settings)]
    told = [BUILD, base, provision.preset_name(settings), settings.ssh_user, *trusted]
    told += [
        *agents.packages(settings.agent or ()),
        *(p.read_text("utf-8") for p in (*own, *PARTS)),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _make(
    host: Host, settings: Settings, base: str, trusted: list[str], key: str, made: str
) -> None:
    """Make the image `made` of `base`."""
    with builders.folder(host, key) as folder:
        builder = Instance(builders.NAME, folder.name[-8:], folder, "container")
        own = replace(
            settings,
            name=builder.full_name,
            hostname=builder.full_name,
            mount="none",
            lan_access=False,
            lan_allow=(),
            nested=False,
            network_type="default",
            mac=None,
        )
        public = _prepare(host, builder, own)
        _start(host, builder, own, base)
        if not host.dry:
            _fill(host, builder, own, trusted)
            ssh.close_connections(host, builder)
        argv = ["podman", "exec", "--user=0:0", builder.full_name, "sh", "-c"]
        script = generalize.script(public)
        host.change([*argv, script], what="clearing the image", timeout=300)
        argv = ["podman", "stop", "--time", "0", builder.full_name]
        host.change(argv, what="stopping its container", timeout=60)
        labels = {filled.KEY: key, filled.BASE: base, filled.NAME: made}
        labels["vagrantp.image"] = settings.image
        changes = [f"--change=LABEL {name}={json.dumps(text)}" for name, text in labels.items()]
        host.make_dir(folder / "tmp")
        host.change(
            ["podman", "commit", "--quiet", *changes, builder.full_name, made],
            what="keeping the image",
            timeout=COMMIT_TIMEOUT,
            env={"TMPDIR": str(folder / "tmp")},  # else a killed one leaves gigabytes elsewhere
        )
        if not host.dry:
            filled.keep(host, key, made)


def _prepare(host: Host, builder: Instance, settings: Settings) -> str:
    """Write what a container has of its own before it exists; return the key that logs in."""
    host.make_dir(builder.host_key.parent)
    for key in (builder.key, builder.host_key):
        argv = ssh.keygen(key, builder.full_name)
        host.change(argv, what="making a key pair", timeout=30)
    if host.dry:
        return ""
    shown = builder.host_key.with_suffix(".pub").read_text("utf-8")
    host.write(builder.known_hosts, f"{builder.full_name} {shown}")
    public = builder.key.with_suffix(".pub").read_text("utf-8").strip()
    host.write(builder.user_script, seed.user_script(settings.ssh_user, public))
    return public


def _start(host: Host, builder: Instance, settings: Settings, base: str) -> None:
    """Create and start a container of `base`, and write how ssh reaches it.

    It has no user namespace of its own: Podman would commit its files with the ids of this host.
    """
    own = [*walls.walls(host, builder), *options.BUILDER, BIND]
    host.write(builder.isolation_json, guard.isolation(builder, settings, None, None))
    host.write(builder.forwards, json.dumps({"forwards": []}))
    address = network.LOOPBACK
    if os.getuid() == 0:
        address = str(addresses.take_address(host, builder.state_dir, None))
        own += [f"--network={subnets.NAME}", f"--ip={address}"]
    else:
        own += options.OF_A_USER
    argv = ["podman", "create", f"--name={builder.full_name}"]
    argv += [*options.of_all(builder, settings, own), base]
    host.change(argv, what="preparing a container", timeout=60)
    query = ["podman", "inspect", "--type=container", "--format={{.Id}}", builder.full_name]
    host.write(builder.container_id, "" if host.dry else host.answer(query))
    host.change(
        ["podman", "start", builder.full_name],
        what="starting a container",
        timeout=60,
        explain=lambda _: builder.hooks_reason(),
    )
    if host.dry:
        return
    port = 22
    if address == network.LOOPBACK:
        published = host.answer(["podman", "port", builder.full_name, "22/tcp"])
        port = int(published.rpartition(":")[2])
    host.write(builder.ssh_config, ssh.ssh_config(builder, address, port, settings.ssh_user))


def _fill(host: Host, builder: Instance, settings: Settings, trusted: list[str]) -> None:
    """Install in a container what the image is to have. Raises ProvisionError."""
    pid = _state(host, builder)[1]
    argv = ssh.kept_ssh(builder, pid)
    session.wait(host, argv, SSH_TIMEOUT, partial(_why_ended, host, builder), builder.state_dir)
    if trusted:
        for script in (certificates.script(trusted), ssh.RELOAD_SSHD):
            session.as_root(host, argv, script, "trusting CA_CERTS", builder.state_dir)
        ssh.close_connections(host, builder, "stop")  # sshd sets variables as of the login
    try:
        home = provision.require_answer(host, builder, pid)
        provision.take(host, builder, settings, pid, provision.preset(settings), home)
    except ProvisionError as error:
        error.hint = f"nothing was made; the full log is {host.log}"
        raise


def _state(host: Host, builder: Instance) -> tuple[str, str]:
    """Return Podman's word for a container's state, and the process id of its first process."""
    argv = ["podman", "inspect", "--type=container", "--format={{json .State}}", builder.full_name]
    found = as_json("podman", host.answer(argv), dict)
    return str(found["Status"]), str(found["Pid"])


def _why_ended(host: Host, builder: Instance) -> VagrantpError | None:
    if _state(host, builder)[0] == "running":
        return None
    said = host.ask(["podman", "logs", "--tail", "5", builder.full_name])
    return ProviderError(f"its container ended: {last_line(said.stderr + said.stdout)}")
