"""Playbooks as people have them, in the sandbox: with files of their own, and a guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import guest, status
from tests.e2e.test_provision import provided

SITE = """\
- hosts: all
  become: true
  gather_facts: false
  vars:
    seen: "{{ lookup('pipe', 'id -u; ls -d /proc /sys /var /root/.ssh /home/* 2>&- || :') }}"
  tasks:
    - {name: lookup, copy: {content: "{{ lookup('file', 'files/motd') }}", dest: /etc/looked-up}}
    - {name: a secret, copy: {content: "{{ secret }}", dest: /etc/secret}, no_log: true}
    - {name: a filter of our own, copy: {content: "{{ 'abc' | backwards }}", dest: /etc/filtered}}
    - {name: sandboxed, copy: {content: "{{ seen }}", dest: /etc/seen}, notify: tell}
    - {name: at the same time, command: sleep 1, async: 30, poll: 1}
    - {name: into the project, fetch: {src: /etc/looked-up, dest: out/}}
    - {name: flat, fetch: {src: /etc/looked-up, dest: "{{ playbook_dir }}/flat/", flat: true}}
    - {name: elsewhere, fetch: {src: /etc/looked-up, dest: ../../../../up, flat: true}}
    - {name: wait, wait_for_connection: }
    - {name: unpack, unarchive: {src: files/it.tar, dest: /opt}}
  handlers:
    - {name: tell, copy: {content: told, dest: /etc/told}}
- hosts: localhost
  tasks: [{name: here, command: "test -e /etc/told"}]
"""
FILTER = """\
class FilterModule:
    def filters(self):
        return {"backwards": lambda text: text[::-1]}
"""
CFG = """\
[defaults]
vault_password_file = .vault_password
forks = 3
fact_caching = jsonfile
fact_caching_connection = facts
"""  # facts of one guest would be there for the next one of this name


def vaulted(folder: Path) -> str:
    """Return a file of variables with an encrypted value."""
    from ansible.parsing.vault import VaultLib, VaultSecret

    secret = VaultSecret((folder / ".vault_password").read_bytes().strip())
    text = VaultLib([("default", secret)]).encrypt("hidden", secret).decode()
    return "secret: !vault |\n" + "".join(f"  {line}\n" for line in text.splitlines())


def test_a_playbook_finds_its_own_and_nothing_else(guests: MakeProject) -> None:
    import tarfile

    own = {"site.yml": SITE, "files/motd": "it's there", "ansible.cfg": CFG}
    app = provided(guests("it's my app"), **own, **{"filter_plugins/own.py": FILTER})
    password = app.folder / ".vault_password"
    password.write_text("pass word\n")
    password.chmod(0o600)
    (app.folder / "group_vars/all.yml").write_text(vaulted(app.folder))
    with tarfile.open(app.folder / "files/it.tar", "w") as archive:
        archive.add(password, "archived")
    before = files(app)
    app.write({**CONTAINER, "PROVISION_SCRIPT": "site.yml"})
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    assert "plays for localhost set up the guest" in up.stderr
    assert guest(app, "cat /etc/looked-up /etc/filtered /etc/told") == "it's therecbatold"
    assert guest(app, "sudo cat /etc/secret /opt/archived") == "hiddenpass word\n"
    user, *seen = guest(app, "cat /etc/seen").splitlines()
    assert user != "0"
    assert {*seen} <= {"/home/vagrant"}  # of the guest's user, made in the sandbox
    assert files(app) == before | {".env"}
    fetched = (
        Path(app.environment["XDG_STATE_HOME"]) / f"vagrantp/{status(app)['instance']}/fetched"
    )
    assert f"fetched into {fetched}\n" in up.stderr
    found = {str(path.relative_to(fetched)) for path in fetched.rglob("*") if path.is_file()}
    name = guest(app, "hostname").strip()
    assert found == {f"out/{name}/etc/looked-up", "flat/looked-up", "up"}


def files(app: Project) -> set[str]:
    """Return what is in the project's folder."""
    return {str(path.relative_to(app.folder)) for path in app.folder.rglob("*")}


@pytest.mark.soak
def test_a_playbook_reboots_a_vm(guests: MakeProject) -> None:
    app = provided(guests(), **{"site.yml": REBOOT})
    app.write({**VM, "PROVISION_SCRIPT": "site.yml"})
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    first, second = guest(app, "cat /etc/first /etc/second").splitlines()
    assert first != second


REBOOT = """\
- hosts: all
  become: true
  gather_facts: false
  tasks:
    - {shell: cat /proc/sys/kernel/random/boot_id > /etc/first}
    - {reboot: {reboot_timeout: 900}}
    - {shell: cat /proc/sys/kernel/random/boot_id > /etc/second}
"""
