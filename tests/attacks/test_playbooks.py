"""F3: a hostile project, as Ansible reads it in its sandbox: what ran reached nothing outside.

The numbers are those of README.md.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

SECRET = "the-secret-of-this-host"
# Reports that it ran, in the one file that is writable; then does what it can.
PAYLOAD = """\
import json, os
def attack(name):
    with open("/run/vagrantp/events", "a") as file:
        file.write(json.dumps({"ran": name}) + "\\n")
    for path in ("PLACE/" + name, "PROJECT/" + name):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        except OSError:
            pass
    try:
        print(open("PLACE/secret").read())
    except OSError:
        pass
"""
PLUGIN = f"{PAYLOAD}attack(NAME)\n"
SCRIPT = f"#!/usr/bin/python3 -I\n{PLUGIN}print('password')\n"
CONNECTION = "from ansible.plugins.connection.local import Connection, DOCUMENTATION\n"
CONFIG = """\
[defaults]
vault_password_file = vault.py
callbacks_enabled = own
callback_plugins = plugins
strategy_plugins = plugins
library = modules
inventory = hosts.py
log_path = PLACE/log
fact_caching = jsonfile
fact_caching_connection = PLACE/cache
retry_files_enabled = True
retry_files_save_path = PLACE/retry
connection_plugins = connections
collections_path = .
[ssh_connection]
ssh_executable = PROJECT/ssh.py
ssh_common_args = -o ProxyCommand=PROJECT/ssh.py
control_path = PLACE/control
"""
EARLY = """\
- hosts: "{{ lookup('pipe', './hosts.py') and 'all' }}"
  gather_facts: false
  vars_files: ["{{ lookup('pipe', './vars_files.py') and 'v.yml' }}"]
  vars_prompt: [{name: asked, default: "{{ lookup('pipe', './prompt.py') }}"}]
  tasks: [{debug: msg=early}]
"""
LATE = """\
- hosts: all
  gather_facts: false
  vars:
    inner: !unsafe "{{ lookup('pipe', './unsafe.py') }}"
    outer: "{{ inner }}"
  tasks:
    - debug: {msg: "{{ lookup('pipe', './pipe.py') }}"}
      ignore_errors: true
    - set_fact: {kept: "{{ outer }}"}
    - debug: {msg: "{{ hostvars[inventory_hostname]['kept'] }}"}
    - debug: {msg: "{{ lookup('file', 'PLACE/secret') }}"}
      ignore_errors: true
    - debug: {msg: "{{ lookup('fileglob', 'PLACE/*') }}{{ lookup('unvault', 'PLACE/secret') }}"}
      ignore_errors: true
    - include_vars: {dir: PLACE}
      ignore_errors: true
    - include_vars: PLACE/vars.yml
      ignore_errors: true
    - debug: {msg: "{{ lookup('csvfile', 'x file=PLACE/secret col=0') }}"}
      ignore_errors: true
    - debug: {msg: "{{ lookup('template', 'PLACE/secret') }}"}
      ignore_errors: true
    - debug: {msg: "{{ lookup('file', 'link') }}"}
      ignore_errors: true
    - debug: {msg: "{{ lookup('password', 'PLACE/password') }}"}
      ignore_errors: true
    - debug: {msg: "environment {{ lookup('env', 'SSH_AUTH_SOCK', 'https_proxy', 'TOKEN') }}"}
    - debug: {msg: "{{ lookup('url', 'http://127.0.0.1:PORT/') }}"}
      ignore_errors: true
    - {pause: {prompt: "Go on?", seconds: 1}}
    - add_host: {name: "{{ item }}", ansible_connection: "{{ item }}", groups: added}
      loop: [local, ansible.builtin.local, ansible.legacy.local, psrp, chroot, own]
    - command: PROJECT/ssh.py
      delegate_to: "{{ item }}"
      loop: [local, ansible.builtin.local, ansible.legacy.local, psrp, chroot, own, localhost]
      ignore_errors: true
      ignore_unreachable: true
    - command: "true"
      ignore_unreachable: true
"""
PLUGINS = (
    "callback",
    "filter",
    "test",
    "lookup",
    "vars",
    "strategy",
    "action",
    "cache",
    "inventory",
)


def script(path: Path, name: str) -> None:
    """Write a program that attacks."""
    path.write_text(SCRIPT.replace("NAME", repr(name)))
    path.chmod(0o755)


def hostile(project: Path, place: Path, port: int) -> None:
    """Fill a project with all that Ansible might load."""
    for folder in ("callback_plugins", "plugins", "modules", "connections", "host_vars"):
        (project / folder).mkdir()
    for kind in PLUGINS:
        (project / f"{kind}_plugins").mkdir(exist_ok=True)
        (project / f"{kind}_plugins/own.py").write_text(PLUGIN.replace("NAME", repr(kind)))
    (project / "plugins/own.py").write_text(PLUGIN.replace("NAME", repr("configured")))
    for name in ("ssh", "own"):
        text = PLUGIN.replace("NAME", repr("connection")) + CONNECTION
        (project / f"connections/{name}.py").write_text(text)
    for name in ("json", "ansible", "yaml", "sitecustomize", "jinja2", "usercustomize"):
        (project / f"{name}.py").write_text(PLUGIN.replace("NAME", repr("shadow")))
    builtin = project / "ansible_collections/ansible/builtin/plugins/connection"
    builtin.mkdir(parents=True)
    (builtin / "ssh.py").write_text(PLUGIN.replace("NAME", repr("shadow")))
    for name in ("vault", "hosts", "vars_files", "prompt", "pipe", "unsafe", "ssh"):
        script(project / f"{name}.py", name)
    for name, text in {"ansible.cfg": CONFIG, "early.yml": EARLY, "late.yml": LATE}.items():
        (project / name).write_text(text)
    (project / "v.yml").write_text("a: 1\n")
    own = "ansible_ssh_executable: PROJECT/ssh.py\nansible_connection: local\n"
    (project / "host_vars/app.yml").write_text(own)
    (project / "link").symlink_to(place / "secret")
    for path in filter(Path.is_file, project.rglob("*")):
        text = path.read_text().replace("PLACE", str(place)).replace("PROJECT", str(project))
        path.write_text(text.replace("PORT", str(port)))


def run(path: Path, folder: Path, *options: str, timeout: float = 60) -> tuple[str, set[str]]:
    """Run a playbook in its sandbox; return what it printed, and what reported that it ran."""
    from vagrantp.core import sandbox
    from vagrantp.guest import playbooks
    from vagrantp.guest.playbooks import Playbook

    events = folder / "events"
    events.write_text("")
    playbook = Playbook(path, path.parent, "app", None, None)
    argv = playbooks.check(playbook)
    at = argv.index("--syntax-check")
    argv[at : at + 1] = options
    done = subprocess.run(
        sandbox.argv(playbooks.sandbox(playbook, folder), argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, "TOKEN": SECRET, "SSH_AUTH_SOCK": SECRET, "https_proxy": SECRET},
    )
    found = [json.loads(line) for line in events.read_text().splitlines()]
    return done.stdout, {str(event["ran"]) for event in found if "ran" in event}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Check and run the hostile project; yield all that came of it."""
    from vagrantp.guest import playbooks

    root = tmp_path_factory.mktemp("hostile")
    project, place, work = root / "app", root / "place", root / "work"
    for folder in (project, place, work):
        folder.mkdir()
    root.chmod(0o755)
    place.chmod(0o777)
    (place / "secret").write_text(SECRET)
    (place / "vars.yml").write_text(f"secret: {SECRET}\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        hostile(project, place, server.getsockname()[1])
        before = {*project.rglob("*")}
        checked, early = run(project / "early.yml", work, "--syntax-check")
        guest = playbooks.connection(SimpleNamespace(full_name="app"), "root")  # type: ignore[arg-type]
        printed, late = run(project / "late.yml", work, "-vv", f"--extra-vars={guest}")
        try:
            server.accept()[0].close()
            was_called = True
        except BlockingIOError:
            was_called = False
    yield {
        "early": early,
        "late": late,
        "printed": checked + printed,
        "place": {path.name for path in place.iterdir()},
        "project": {*project.rglob("*")} - before,
        "was_called": was_called,
    }
    shutil.rmtree(root)


def test_what_ran_reached_nothing(attacked: dict[str, object]) -> None:
    """1 to 9, 11."""
    assert SECRET not in str(attacked["printed"])
    assert attacked["place"] == {"secret", "vars.yml"}
    assert not attacked["project"]
    assert not attacked["was_called"]


def test_it_was_an_attack(attacked: dict[str, object]) -> None:
    """The code of the project did run, in the sandbox: in c0773ba, it would have here."""
    assert attacked["early"] >= {"hosts", "prompt", "vars_files", "vault"}  # type: ignore[operator]
    assert attacked["late"] >= {"pipe", "callback", "connection", "ssh"}  # type: ignore[operator]


def test_data_is_no_program_and_no_module_is_shadowed(attacked: dict[str, object]) -> None:
    """10, 11."""
    ran = attacked["early"] | attacked["late"]  # type: ignore[operator]
    assert not ran & {"shadow", "unsafe"}


@pytest.mark.parametrize(
    "name", ["--bind", "a\nb", "$(id)", "%h", "{{ 7*7 }}", "caf\udce9", "a'b\"c", " ", "#a,b:c"]
)
def test_a_project_of_any_name(tmp_path: Path, name: str) -> None:
    """19, 20: it is one argument and one path, also by a link."""
    from vagrantp.core import sandbox

    (tmp_path / name).mkdir()
    (tmp_path / name / "file").write_text("found")
    (tmp_path / name / "out").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / name)
    (tmp_path / "secret").write_text(SECRET)
    for folder in (tmp_path / name, tmp_path / "link"):
        asked = sandbox.Sandbox(reads=[folder], cwd=str(folder))
        argv = sandbox.argv(asked, ["sh", "-c", "cat file; cat out/secret; touch file new"])
        done = subprocess.run(argv, capture_output=True, check=False, timeout=20)
        assert done.stdout == b"found"
    assert {path.name for path in (tmp_path / name).iterdir()} == {"file", "out"}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize("how", ["a bomb", "/dev/zero"])
def test_what_has_no_end_ends(tmp_path: Path, how: str) -> None:
    """13, 14: what only Ansible reads is limited by the sandbox's memory."""
    from vagrantp.core import sandbox
    from vagrantp.guest import playbooks

    project, work = tmp_path / "app", tmp_path / "work"
    tasks = project / "roles/r/tasks"
    tasks.mkdir(parents=True)
    work.mkdir()
    (work / "events").touch()
    (project / "site.yml").write_text("- {hosts: all, gather_facts: no, roles: [r]}\n")
    if how == "a bomb":
        (tasks / "main.yml").write_text(f"- debug:\n- vars: {{{', '.join(BOMB.splitlines())}}}\n")
    else:
        (tasks / "main.yml").symlink_to("/dev/zero")
    playbook = playbooks.Playbook(project / "site.yml", project, "app", None, None)
    asked = replace(playbooks.sandbox(playbook, work), memory=512, cpu=10)
    argv = sandbox.argv(asked, playbooks.check(playbook))
    subprocess.run(argv, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "wanted",
    [
        *("/etc/cron.d/x", "../../../etc/cron.d/x", "/project/../x", "/fetched/../x", "a/../../x"),
        *(
            "/run/vagrantp/events",
            "~/x",
            "/",
            "..",
            "",
            ".",
            "/project",
            "/projects/x",
            "a\0b/../x",
        ),
    ],
)
def test_where_fetch_writes(wanted: str) -> None:
    """12."""
    from vagrantp.guest.play import _landing

    place = Path(_landing(Path("/fetched"), "/project", wanted))
    assert place.is_relative_to("/fetched")
    assert ".." not in place.parts


@pytest.mark.parametrize("where", ["home", "home/ansible", "above", "project"])
def test_no_playbook_sees_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """22: one that lies in it sees itself alone, one in a folder below that folder."""
    from invoke.context import Context
    from vagrantp.core.system import Host
    from vagrantp.guest import plays

    home, project = tmp_path / "above/home", tmp_path / "project"
    places = {"home": home, "home/ansible": home / "ansible", "above": home.parent}
    folder = places.get(where, project)
    for path in (home, project, folder):
        path.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (folder / "site.yml").touch()
    instance = SimpleNamespace(folder=project, source=lambda path: path, kept=lambda path: path)
    settings = SimpleNamespace(hostname="app", name="app", provision_vars=None)
    step = SimpleNamespace(kind="playbook", path=folder / "site.yml")
    host = Host(Context())
    found = plays._playbook(host, instance, settings, step)  # type: ignore[arg-type]
    sees_itself = where in ("home", "above")
    assert found.root == (folder / "site.yml" if sees_itself else folder)


PIPES = """
import os, socket
for name in ("sub/socket", "fifo"):
    try:
        if name == "fifo":
            os.close(os.open(name, os.O_WRONLY | os.O_NONBLOCK))
        else:
            socket.socket(socket.AF_UNIX).connect(name)
        if not os.path.samefile(name, "/dev/null"):
            print(name)
    except OSError:
        pass
print(open("sub/file").read())
"""


def test_pipes_of_this_host(tmp_path: Path) -> None:
    """15, 16: "read-only" does not count for sockets and FIFOs."""
    from vagrantp.core import sandbox
    from vagrantp.guest import playbooks

    project = tmp_path / "app"
    (project / "sub").mkdir(parents=True)
    (project / "sub/file").write_text("there")
    (project / "sub/link").symlink_to("/dev/log")
    os.mkfifo(project / "fifo", 0o666)
    (project / "fifo").chmod(0o666)
    (tmp_path / "events").touch()
    reader = os.open(project / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(project / "sub/socket"))
        (project / "sub/socket").chmod(0o777)
        server.listen()
        own = playbooks.Playbook(project / "site.yml", project, "app", None, None)
        seen = playbooks.sandbox(own, tmp_path)
        argv = sandbox.argv(seen, ["/usr/bin/python3", "-I", "-c", PIPES])
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    os.close(reader)
    assert (done.stdout, done.stderr) == ("there\n", "")
