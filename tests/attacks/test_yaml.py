"""F16: YAML of a project that stands for far more than it says, or for what it cannot."""

from __future__ import annotations

import time

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
    for above, name in zip(NAMES, NAMES[1:], strict=False):
        lines.append(f"{name}: &{name} {line.format(', '.join([f'*{above}'] * 10))}\n")
    return "".join(lines)


LISTS = bomb("[{}]")
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name}\n  <<: [{', '.join([f'*{above}'] * 20)}]\n"
    for above, name in zip(NAMES, NAMES[1:], strict=False)
)
CLOUD_INIT = {
    "hostname": f"{LISTS}hostname: *j\n",
    "fqdn": f"{LISTS}fqdn: *j\n",
    "users": f"{LISTS}users: [{{name: *j}}]\n",
    "merges": MERGES,
    "itself": "users: &a [*a]\n",
    "merges itself": "a: &a {<<: *a}\n",
    "hexadecimal": f"hostname: 0x{'f' * 1_000_000}\n",
    "sexagesimal": f"hostname: 1{':59' * 300_000}\n",
    "too large to be a float": f"hostname: 1{':59' * 300}.5\n",
    "no integer": 'hostname: !!int ""\n',
    "no time": "hostname: !!timestamp x\n",
    "no truth": "hostname: !!bool x\n",
    "no day": "hostname: 2001-99-99\n",
    "Python": "hostname: !!python/object/apply:os.getcwd []\n",
}
PLAYBOOK = f"- hosts: all\n  vars:\n    {LISTS.replace(chr(10), chr(10) + '    ')}\n"
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


@pytest.mark.parametrize("verb", ["up", "status"])
def test_a_cloud_config_by_another_verb(project: MakeProject, verb: str) -> None:
    end(project, verb, "CLOUD_INIT", f"#cloud-config\n{CLOUD_INIT['hostname']}")


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("PROVISION_SCRIPT", PLAYBOOK),
        ("PROVISION_SCRIPT", KEYS),
        ("PROVISION_VARS", LISTS),
        ("PROVISION_VARS", "a: &a [*a]\n"),
    ],
    ids=["playbook", "keys of a play", "variables", "variables in themselves"],
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
    app = project().write({**VM, "CLOUD_INIT": "user-data", "NAME": "mine"})
    template = "{{ cycler.__init__.__globals__.os.system('touch owned') }}"
    (app.folder / "user-data").write_text(f"## template: jinja\n#cloud-config\na: {template}\n")
    called = app.folder / "called"
    program = app.folder / "bin/cloud-init"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho >> '{called}'\n")
    program.chmod(0o755)
    path = f"{program.parent}:{app.environment['PATH']}"
    app.fab("up", "--dry", PATH=path)
    assert not called.exists()
    (app.folder / "user-data").write_text("#cloud-config\na: 1\n")
    app.fab("up", "--dry", PATH=path)
    assert called.exists()
