"""What play.py reports of a playbook while it runs: real Ansible in its sandbox, no guest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from vagrantp.core import sandbox
from vagrantp.guest import playbooks
from vagrantp.guest.playbooks import Playbook

PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - debug: msg=1
    - block:
        - debug: msg=2
        - fail: msg=3
      rescue:
        - debug: msg=uncounted
      always:
        - debug: msg=4
    - include_tasks: included.yml
- hosts: all
  gather_facts: false
  tasks:
    - debug: msg=6
      when: false
"""


def play(
    folder: Path, *arguments: str, name: str = "site.yml", env: dict[str, str] | None = None
) -> tuple[subprocess.CompletedProcess[str], list[Any]]:
    """Run a playbook of a folder for the guest `app`, in its sandbox; return also the events."""
    playbook = Playbook(folder / name, folder, "app", None, None)
    with TemporaryDirectory() as work:
        (Path(work) / "events").touch()
        argv = playbooks.check(playbook)
        at = argv.index("--syntax-check")
        argv[at : at + 1] = arguments
        done = subprocess.run(
            sandbox.argv(playbooks.sandbox(playbook, Path(work), env=env), argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        lines = (Path(work) / "events").read_text().splitlines()
    return done, [json.loads(line) for line in lines]


def test_tasks_are_counted(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(PLAYBOOK)
    (tmp_path / "included.yml").write_text("- debug: msg=uncounted\n")
    done, told = play(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [event["tasks"] for event in told if "tasks" in event] == [[n, 6] for n in range(1, 7)]


FOR_THE_GUEST = [
    *("all", "'*'", "app", "'app,'", "a*", "'~a.p'", "all:!web", "localhost", "127.0.0.1", "'::1'"),
    *("[web, app]", "web:localhost", "'{{ groups.all }}'", "'{{ known }}'", "'{{ answered }}'"),
    *("ungrouped", "all:&app", "'app[0]'"),
]
GUEST = "the guest is all, localhost and app"
FOR_NOBODY = {
    "web": "web",
    "'web*'": "web*",
    "all:!app": "all:!app",
    "[web, db]": "web, db",
    "[]": "nobody",
    "": "nobody",
    "''": "nobody",
    "LOCALHOST": "LOCALHOST",
    "'~b.*'": "~b.*",
    "'{{ groups.web | default([]) }}'": "nobody",
    "'{{ unanswered }}'": "db",
}


@pytest.mark.parametrize("how", ["--syntax-check", "--check"])
def test_plays_for_nobody_are_refused_before_the_first_task(tmp_path: Path, how: str) -> None:
    asked = "vars_prompt: [{name: answered, default: web}, {name: unanswered, default: db}]"
    plays = [f"- {{hosts: {hosts}, {asked}, gather_facts: no}}" for hosts in FOR_THE_GUEST]
    refused = [
        f"{tmp_path}/other.yml:{number}: this play is for {meant}; {GUEST}"
        for number, meant in enumerate(FOR_NOBODY.values(), 1)
    ]
    others = [f"- {{hosts: {hosts}, {asked}, gather_facts: no}}\n" for hosts in FOR_NOBODY]
    (tmp_path / "other.yml").write_text("".join(others))
    (tmp_path / "site.yml").write_text("\n".join([*plays, "- import_playbook: other.yml", ""]))
    done, told = play(tmp_path, how, "--extra-vars=known=app answered=all")
    assert (done.returncode, len(told)) == (1, 1), done.stderr
    assert told[0]["refused"] == refused

    (tmp_path / "other.yml").write_text("- {hosts: all, gather_facts: no}\n")
    done, told = play(tmp_path, how, "--extra-vars=known=app answered=all")
    assert done.returncode == 0, done.stderr
    assert "refused" not in str(told)
    assert "plays for localhost set up the guest\n" in done.stdout


def test_a_prompt_without_a_value_is_refused(tmp_path: Path) -> None:
    prompts = "[{name: a}, {name: b, prompt: Who?}, {name: c, default: ''}]"
    (tmp_path / "site.yml").write_text(f"- hosts: all\n  vars_prompt: {prompts}\n")
    done, told = play(tmp_path, "--extra-vars=a=1")
    text = "this play asks for b, and PROVISION_VARS has no value for it"
    assert (done.returncode, told) == (1, [{"refused": [f"{tmp_path}/site.yml:1: {text}"]}])


def test_home_and_user_are_those_of_the_guest(tmp_path: Path) -> None:
    asked = "{{ lookup('env', 'HOME') }} {{ lookup('env', 'USER') }} {{ '~/x' | expanduser }}"
    tasks = f"""[debug: {{msg: "{asked}"}}]"""
    (tmp_path / "site.yml").write_text(f"- {{hosts: all, gather_facts: no, tasks: {tasks}}}\n")
    done, _ = play(tmp_path, env=playbooks.environment("av", "/home/a v"))
    assert "/home/a v av /home/a v/x" in done.stdout, done.stdout + done.stderr
    for odd in ("", "x", "/a\nb", "/" + 2000 * "x"):
        assert "HOME" not in playbooks.environment("av", odd)


MISSING = """
- hosts: all
  tasks:
    - npm: name=x
      with_items: [1]
    - block: [community.general.snap: {name: x}]
    - community.docker.docker_image: {name: x}
    - import_tasks: more.yml
  handlers: [{pacman: name=x}]
"""


def test_missing_collections_are_named_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(MISSING)
    (tmp_path / "more.yml").write_text("- openssl_csr: {path: /x}\n")
    there = tmp_path / "collections/ansible_collections/community/docker"
    (there / "plugins/modules").mkdir(parents=True)
    (there / "plugins/modules/docker_image.py").write_text("# a module\n")
    done, told = play(tmp_path, "--syntax-check")
    modules = ["community.general.snap", "npm", "pacman"]
    missing = {"community.general": modules, "community.crypto": ["openssl_csr"]}
    assert (done.returncode, told) == (1, [{"missing": missing}]), done.stderr

    (tmp_path / "more.yml").write_text("- misspelt: {}\n")
    done, told = play(tmp_path, "--syntax-check")
    assert "resolve module/action 'misspelt'" in done.stderr


ADDED = """
- {hosts: all, gather_facts: no, tasks: [block: [{group_by: {key: apps}}]]}
- {hosts: apps, gather_facts: no, tasks: [debug: ]}
- {name: for none, hosts: others, gather_facts: no, tasks: [debug: ]}
"""


def test_a_play_for_hosts_to_come_is_judged_when_they_have_come(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(ADDED)
    done, told = play(tmp_path)
    assert done.returncode == 0, done.stderr
    assert [event["nobody"] for event in told if "nobody" in event] == [
        f'play "for none" ({tmp_path}/site.yml:4): no host matched'
    ]
    assert {"counts": {"ok": 2, "changed": 1}} in told


FAILING = """
- hosts: all
  gather_facts: no
  tasks:
    - assert: {that: "item < 2", fail_msg: "{{ item }} is too much"}
      loop: [1, 2, 3]
"""


def test_a_loop_fails_for_the_reason_of_its_item(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(FAILING)
    _, told = play(tmp_path)
    failed = [event["failed"] for event in told if "failed" in event]
    assert [(one["message"], one["place"]) for one in failed] == [
        ("2 is too much", f"{tmp_path}/site.yml:5")
    ]


CFG = """
[defaults]
stdout_callback = yaml
callbacks_enabled = nobodys.own.callback, timer
bin_ansible_callbacks = yes
display_skipped_hosts = no
force_color = yes
ask_pass = yes
ask_vault_pass = yes
[privilege_escalation]
become_ask_pass = yes
[inventory]
enable_plugins = ini
host_pattern_mismatch = error
"""
ASKING = """
- hosts: all
  gather_facts: no
  vars_prompt: [{name: who, default: me}]
  tasks: [{pause: {prompt: go on?}}, {debug: {msg: "it is {{ who }}"}}]
"""


def test_an_ansible_cfg_neither_asks_nor_takes_the_log(tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").write_text(CFG)
    (tmp_path / "site.yml").write_text(ASKING)
    done, told = play(tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'ok: [app] => {\n    "msg": "it is me"\n}\n' in done.stdout
    assert "\x1b" not in done.stdout
    assert told[-1] == {"counts": {"ok": 2, "changed": 0}}


def test_config_and_roles_above_count_after_its_own(tmp_path: Path) -> None:
    for role, folder in (("near", "plays/web"), ("both", "plays/web"), ("both", "."), ("far", ".")):
        tasks = tmp_path / folder / f"roles/{role}/tasks/main.yml"
        tasks.parent.mkdir(parents=True)
        tasks.write_text(f"- debug: {{msg: '{role} of {folder}'}}\n")
    named = tmp_path / "collections/ansible_collections/my/own/roles/it/tasks/main.yml"
    named.parent.mkdir(parents=True)
    named.write_text("- debug: {msg: of a collection}\n")
    (tmp_path / "ansible.cfg").write_text("[defaults]\ndisplay_args_to_stdout = yes\n")
    roles = "roles: [near, both, far, my.own.it]"
    (tmp_path / "plays/web/site.yml").write_text(f"- {{hosts: all, gather_facts: no, {roles}}}\n")
    done, _ = play(tmp_path, name="plays/web/site.yml")
    for said in ("near of plays/web", "both of plays/web", "far of .", "of a collection"):
        assert f'"msg": "{said}"' in done.stdout, done.stdout
    assert "TASK [near : debug msg=" in done.stdout
    (tmp_path / "plays/ansible.cfg").write_text("[defaults]\ndisplay_args_to_stdout = no\n")
    done, _ = play(tmp_path, name="plays/web/site.yml")
    assert "TASK [near : debug] " in done.stdout, done.stdout
