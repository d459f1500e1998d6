"""F16: YAML of a project that stands for far more than it says, or for what it cannot."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from tests.conftest import CONTAINER, FAB, MASTER, VM, MakeProject

MEMORY = 400 * 1024**2  # bytes of address space; a `validate` without the bomb takes half of it
SECONDS = 10  # under load; alone it takes one
NAMES = "abcdefghij"


def bomb(line: str) -> str:
    """Return YAML in which each of ten lines stands for ten times the one above. {}: ten of that.

    The last one is *j.
    """
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]\n"]
    for above, name in pairwise(NAMES):
        lines.append(f"{name}: &{name} {line.format(', '.join([f'*{above}'] * 10))}\n")
    return "".join(lines)


LISTS = bomb("[{}]")
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name}\n  <<: [{', '.join([f'*{above}'] * 20)}]\n" for above, name in pairwise(NAMES)
)
CLOUD_INIT = {
    "host name": f"{LISTS}hostname: *j\n",
    "users": f"{LISTS}users: [{{name: *j}}]\n",
    "merges": MERGES,
    "sexagesimal": f"hostname: 1{':59' * 300_000}\n",
    "no integer": 'hostname: !!int ""\n',
}
KEYS = f"- {LISTS.replace(chr(10), chr(10) + '  ')}? *j\n  : hosts\n"


def end(make: MakeProject, verb: str, key: str, text: str) -> None:
    """See that a verb refuses a file in time, with little memory, and in words."""
    app = make().write({**(VM if key == "CLOUD_INIT" else CONTAINER), key: "it.yml"})
    if key == "PROVISION_VARS":
        app.write({**CONTAINER, key: "it.yml", "PROVISION_SCRIPT": "base"})
    (app.folder / "it.yml").write_text(text)
    start = time.monotonic()
    done = app.run("prlimit", f"--as={MEMORY}", "timeout", "60", FAB, "-r", MASTER, verb)
    assert time.monotonic() - start < SECONDS
    assert done.returncode == 2, done.stderr[-2000:]
    assert f".env:5: {key} must name a file of" in done.stderr
    assert "a bug" not in done.stderr


@pytest.mark.parametrize("content", CLOUD_INIT.values(), ids=CLOUD_INIT)
def test_a_cloud_config(project: MakeProject, content: str) -> None:
    end(project, "validate", "CLOUD_INIT", f"#cloud-config\n{content}")


def test_up(project: MakeProject) -> None:
    end(project, "up", "CLOUD_INIT", f"#cloud-config\n{CLOUD_INIT['host name']}")


@pytest.mark.parametrize(
    ("key", "content"), [("PROVISION_SCRIPT", KEYS), ("PROVISION_VARS", LISTS)]
)
def test_what_ansible_reads(project: MakeProject, key: str, content: str) -> None:
    end(project, "validate", key, content)


def test_what_people_write(project: MakeProject) -> None:
    app = project().write({**VM, "CLOUD_INIT": "user-data", "PROVISION_SCRIPT": "site.yml"})
    (app.folder / "user-data").write_text(
        "#cloud-config\nx-name: &name {hostname: mine.example.org}\n<<: *name\n"
        "users: [&one {name: av, shell: /bin/sh}, {<<: *one, name: you}]\n1: [2, null: 3]\n"
    )
    (app.folder / "site.yml").write_text("- &all {hosts: all, tasks: []}\n- <<: *all\n")
    done = app.fab("validate")
    assert done.returncode == 0, done.stderr


def test_a_template_is_no_program_for_this_host(project: MakeProject) -> None:
    """cloud-init 23 renders it, to look at what comes out: that is Jinja, which reaches Python."""
    asked = {"CLOUD_INIT": "user-data", "PROVISION_SCRIPT": "site.yml", "NAME": "mine"}
    app = project().write({**VM, **asked})
    template = "{{ cycler.__init__.__globals__.os.system('touch owned') }}"
    (app.folder / "user-data").write_text(f"## template: jinja\n#cloud-config\na: {template}\n")
    (app.folder / "site.yml").write_text("- hosts: all\n")
    (app.folder / "requirements.yml").write_text("roles: 2001-99-99\n")  # ends it in time
    up = app.fab("up", "--dry")
    assert "requirements.yml must be a file of plain YAML" in up.stderr
    assert up.returncode == 2
    (app.folder / "user-data").write_text("#cloud-config\na: 1\n")
    called = app.folder / "called"
    program = app.folder / "bin/cloud-init"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{called}'\n")
    program.chmod(0o755)
    app.fab("up", "--dry", PATH=f"{program.parent}:{app.environment['PATH']}")
    assert not called.exists()
    assert not list(app.folder.glob("**/owned"))
