"""F3: what a playbook says, its folder or its ansible.cfg: no task of it runs on this host."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import CONTAINER, MakeProject, Project
from tests.e2e.conftest import guest, status

# Each leaves a folder of its name in PLACE, of the guest or of this host.
PLAYS = """\
- hosts: localhost
  connection: local
  tasks:
    - command: mkdir -p PLACE/localhost/{{ inventory_hostname }}
    - command: "{{ ansible_playbook_python }} -c 'import os; os.mkdir(\\"PLACE/python\\")'"
- hosts: 127.0.0.1
  gather_facts: false
  tasks: [command: mkdir PLACE/address]
- hosts: ["::1"]
  become: true
  tasks: [command: mkdir PLACE/address-of-six]
- hosts: all
  connection: local
  vars: {ansible_connection: local, ansible_host: localhost, ansible_ssh_host: localhost}
  tasks: [command: mkdir PLACE/play]
- hosts: all
  tasks:
    - command: mkdir PLACE/all-as-{{ inventory_hostname }}
    - {command: mkdir PLACE/task, connection: local}
    - {command: mkdir PLACE/task-variable, vars: {ansible_connection: local}}
    - {command: mkdir PLACE/delegated, delegate_to: localhost}
    - {command: mkdir PLACE/delegated-by-address, delegate_to: 127.0.0.1, connection: local}
    - {command: mkdir PLACE/delegated-elsewhere, delegate_to: 127.0.0.2}
    - {command: mkdir PLACE/delegated-once, delegate_to: localhost, run_once: true}
    - local_action: command mkdir PLACE/local-action
    - set_fact: {ansible_connection: local, ansible_host: localhost}
    - {command: mkdir PLACE/fact}
    - include_vars: local.yml
    - {command: mkdir PLACE/included}
    - {add_host: {name: elsewhere, ansible_connection: local, groups: others}}
    - meta: refresh_inventory
    - meta: reset_connection
    - {command: mkdir PLACE/refreshed, delegate_to: localhost}
    - {command: mkdir PLACE/async, async: 20, poll: 1, delegate_to: localhost}
- hosts: others
  tasks: [command: mkdir PLACE/added]
"""
NAMES = {
    *("localhost", "python", "address", "address-of-six", "play", "all-as-app", "task"),
    *("task-variable", "delegated", "delegated-by-address", "delegated-elsewhere"),
    *("delegated-once", "local-action", "fact", "included", "refreshed", "async", "added"),
}
LOCAL = "ansible_connection: local\nansible_host: 127.0.0.1\n"
LOOP = """\
- hosts: all
  gather_facts: false
  tasks:
    - command: mkdir -p PLACE/loop
      loop: [local]
      loop_control: {loop_var: ansible_connection}
"""


def written(app: Project, place: Path, plays: str) -> Project:
    """Put a playbook into a project, in a folder that says "local" in every way."""
    files = {
        "site.yml": plays.replace("PLACE", str(place)),
        "local.yml": LOCAL,
        "group_vars/all.yml": LOCAL,
        "host_vars/localhost.yml": LOCAL,
        "host_vars/app.yml": LOCAL,
        "ansible.cfg": "[defaults]\ntransport = local\ninventory = hosts\n",
        "hosts": "localhost ansible_connection=local\n",
    }
    for name, text in files.items():
        (app.folder / name).parent.mkdir(exist_ok=True)
        (app.folder / name).write_text(text)
    return app.write({**CONTAINER, "PROVISION_SCRIPT": "site.yml", "PROVISION_VARS": "local.yml"})


def test_localhost_is_the_guest(guests: MakeProject, tmp_path: Path) -> None:
    place = tmp_path / "place"
    app = written(guests(), place, PLAYS)
    up = app.fab("up")
    assert not place.exists(), [*place.iterdir()]
    assert up.returncode == 0, up.stderr
    assert "site.yml: plays for localhost set up the guest\n" in up.stderr
    assert {*guest(app, f"ls {place}").split()} == NAMES
    assert guest(app, f"ls {place}/localhost") == "localhost\n"

    # what Ansible lets outrank extra variables is an error
    written(app, place, LOOP)
    done = app.fab("provision")
    assert (done.returncode, place.exists()) == (7, False), done.stderr
    assert "the connection local does not lead to the guest" in done.stderr


PLUGIN = """\
import pathlib
pathlib.Path("PLACE").touch()
"""


def test_a_dry_run_runs_nothing_of_the_folder(project: MakeProject, tmp_path: Path) -> None:
    place = tmp_path / "place"
    app = project().write({**CONTAINER, "PROVISION_SCRIPT": "site.yml"})
    lookup = f"- import_playbook: \"{{{{ lookup('pipe', 'touch {place}') }}}}\"\n"
    (app.folder / "site.yml").write_text(lookup)
    (app.folder / "callback_plugins").mkdir()
    (app.folder / "callback_plugins/own.py").write_text(PLUGIN.replace("PLACE", str(place)))
    (app.folder / "filter_plugins").mkdir()
    (app.folder / "filter_plugins/own.py").write_text(PLUGIN.replace("PLACE", str(place)))
    dry = app.fab("--dry", "up")
    assert not place.exists()
    assert dry.returncode == 0, dry.stderr
    assert "--syntax-check" in dry.stdout
    assert app.fab("validate").returncode == 0
    assert not place.exists()


def test_a_play_for_nobody_makes_nothing(guests: MakeProject) -> None:
    app = guests().write({**CONTAINER, "PROVISION_SCRIPT": "site.yml", "PROVISION_VARS": "v.yml"})
    (app.folder / "v.yml").write_text("whom: web*\n")
    (app.folder / "site.yml").write_text("- hosts: all\n- import_playbook: other.yml\n")
    (app.folder / "other.yml").write_text(
        "- hosts: webservers\n- hosts: '{{ whom }}'\n- hosts: app\n"
    )
    up = app.fab("up")
    assert up.returncode == 2, up.stderr
    for line in (1, 2):
        assert f"{app.folder}/other.yml:{line}: this play is for " in up.stderr
    assert "other.yml:3" not in up.stderr
    assert status(app)["state"] == "absent"
