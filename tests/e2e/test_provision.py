"""PROVISION_SCRIPT and CLOUD_INIT: what they say is so in the guest, and what fails is told."""

from __future__ import annotations

import signal
from pathlib import Path
from time import monotonic

import pytest

from tests.boxes import arch
from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import forget_box, guest, lets_in, own_key, status

PLAYBOOK = """\
- name: a box of mine
  hosts: all
  become: true
  vars_prompt: [{name: group, prompt: Which group?, default: games}]
  roles: [greeter, fetched]
  tasks:
    - name: of a collection
      ansible.builtin.include_role:
        name: mine.own.named
    - name: write a file
      ansible.builtin.copy:
        content: "{{ greeting }}"
        dest: /etc/greeting
    - name: look for something
      ansible.builtin.command: test -e /etc/greeting{{ suffix | default("") }}
      changed_when: false
    - name: fill a template in
      ansible.builtin.template:
        src: it's.j2
        dest: /etc/filled
      notify: reload
    - name: give the user a group
      ansible.builtin.user:
        name: "{{ ansible_user }}"
        groups: "{{ group }}"
        append: true
    - name: see that it is there
      ansible.builtin.stat:
        path: /etc/filled
    - name: be somebody else
      become_user: nobody
      ansible.builtin.command: id -u
      changed_when: false
  handlers:
    - name: reload
      ansible.builtin.file:
        path: /etc/reloaded
        state: directory
"""
FOR_NOBODY = """\
- hosts: all
  tasks: [set_fact: {whom: web}]
- name: late
  hosts: "{{ hostvars.app.whom | default('all') }}"
"""
# Would let the tasks run on this host, log in as somebody else, ask, and write another kind of log.
CFG = """\
[defaults]
transport = local
remote_user = nobody
host_key_checking = no
stdout_callback = yaml
callbacks_enabled = nobodys.own.callback
ask_pass = yes
ask_vault_pass = yes
[privilege_escalation]
become_ask_pass = yes
[ssh_connection]
ssh_args = -o ProxyCommand=false
"""
OWN = "collections/ansible_collections/mine/own"
FILES = {
    "site.yml": PLAYBOOK,
    "roles/greeter/tasks/main.yml": "- {name: make it, file: {path: /opt/g, state: directory}}",
    "templates/it's.j2": "{{ inventory_hostname }} {{ of_group }}",
    "group_vars/all.yml": "of_group: 7",
    "roles/fetched/meta/main.yml": "galaxy_info: {}",
    "roles/fetched/tasks/main.yml": "- {name: fetched, file: {path: /opt/f, state: directory}}",
    f"{OWN}/roles/named/tasks/main.yml": "- {name: named, file: {path: /opt/n, state: directory}}",
    "vars.yml": 'greeting: it\'s "me"',
    "ansible.cfg": CFG,
}


def provided(app: Project, **files: str) -> Project:
    """Put the playbook and `files` into a project."""
    for name, text in {**FILES, **files}.items():
        path = app.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644 if path.suffix else 0o755)
    return app


def is_as_the_playbook_says(app: Project) -> None:
    """Look in the guest."""
    assert guest(app, "cat /etc/greeting") == 'it\'s "me"'
    assert guest(app, "cat /etc/filled") == f"{guest(app, 'hostname').strip()} 7"
    assert "games" in guest(app, "id -nG").split()
    assert guest(app, "ls -d /opt/* /etc/reloaded") == "/etc/reloaded\n/opt/f\n/opt/g\n/opt/n\n"


@pytest.mark.parametrize(
    "values", [CONTAINER, pytest.param(VM, marks=pytest.mark.soak)], ids=["container", "vm"]
)
def test_a_playbook(guests: MakeProject, values: dict[str, object]) -> None:
    app = provided(guests("it's my app"))
    app.write({**values, "PROVISION_SCRIPT": "site.yml", "PROVISION_VARS": "vars.yml"})
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    assert "provisioned: " in up.stderr
    assert "site.yml (12 ok, 7 changed)" in up.stderr
    is_as_the_playbook_says(app)
    again = app.fab("up")
    assert (again.returncode, "provision" in again.stderr) == (0, False)
    opened = app.start("ssh", "--command", "touch on; while [ -e on ]; do sleep 0.1; done; echo on")
    anew = app.fab("provision")
    assert anew.returncode == 0, anew.stderr
    assert anew.stdout.endswith("site.yml (11 ok, 0 changed)\n")
    guest(app, "rm on")
    assert opened.communicate(timeout=30) == ("on\n", "")

    # what the user's shell files print is no answer
    guest(app, "sed -i '1i echo hello; echo cpus many' ~/.bashrc; echo 'echo rc' > ~/.ssh/rc")
    again = app.fab("up")
    assert (again.returncode, "provision" in again.stderr) == (0, False), again.stderr
    verify = app.fab("verify")
    assert verify.returncode == 0, verify.stdout

    # what is done is known in the guest alone
    assert app.fab("rm", "--force").returncode == 0
    up = app.fab("up")
    assert "site.yml (12 ok, 7 changed)" in up.stderr
    is_as_the_playbook_says(app)
    assert app.fab("verify").returncode == 0
    guest(app, "sudo rm /var/lib/vagrantp/provisioned")
    verify = app.fab("verify")
    assert verify.returncode == 9
    assert "provisioned" in next(line for line in verify.stdout.splitlines() if "FAILED" in line)


def test_a_playbook_that_fails_goes_on_once_it_is_mended(guests: MakeProject) -> None:
    app = provided(guests()).write(
        {**CONTAINER, "PROVISION_SCRIPT": "site.yml", "PROVISION_VARS": "vars.yml"}
    )
    (app.folder / "vars.yml").write_text("greeting: hello\nsuffix: -lost\n")
    up = app.fab("up")
    assert up.returncode == 7
    where = f"{app.folder}/site.yml:14"
    assert f'play "a box of mine", task "look for something" ({where}): ' in up.stderr
    assert "exit status 1" in up.stderr
    assert guest(app, "cat /etc/greeting") == "hello"  # it stays for a look

    # a play for nobody, as only a run shows
    (app.folder / "site.yml").write_text(FOR_NOBODY)
    up = app.fab("up")
    assert up.returncode == 7, up.stderr
    assert f'play "late" ({app.folder}/site.yml:3): no host matched' in up.stderr

    (app.folder / "site.yml").write_text(PLAYBOOK)
    (app.folder / "vars.yml").write_text(FILES["vars.yml"])
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    assert "is running already" in up.stdout
    is_as_the_playbook_says(app)


def test_mistakes_are_found_before_anything_is_made(guests: MakeProject) -> None:
    app = provided(guests(), **{"site.yml": "- hosts: all\n  roles: [nowhere]\n"})
    app.write({**CONTAINER, "PROVISION_SCRIPT": "site.yml"})
    up = app.fab("up")
    assert up.returncode == 7
    assert "role 'nowhere' was not found" in up.stderr  # The, since ansible-core 2.20
    assert f"{app.folder}/site.yml:2" in up.stderr
    assert "create" not in up.stderr
    assert status(app)["state"] == "absent"

    # a collection that nothing here has, as ansible-core alone is installed
    provided(app, **{"site.yml": "- hosts: all\n  tasks: [{community.general.ufw: {}}]\n"})
    up = app.fab("up")
    assert (up.returncode, "create" in up.stderr) == (7, False)
    assert f"{app.folder}/site.yml needs what is not in ansible-core" in up.stderr
    assert "community.general (for community.general.ufw)" in up.stderr
    hint = f"write to {app.folder}/requirements.yml\n  collections:\n    - community.general\n"
    assert f"  hint: {hint}" in up.stderr, up.stderr


def test_scripts(guests: MakeProject) -> None:
    """Each in its way: a name with spaces, stdin, a daemon, a failure in a line of its own."""
    app = guests()
    scripts = {
        "it's mine": "#!/bin/bash\nread line || echo no stdin\nid -u > /etc/who\nprintf 'no end'\n",
        "daemon": "#!/bin/sh\nset -e\nsleep 1000 &\necho $! > /run/daemon\n"
        "service ssh restart\necho done\n",
        "own/beside": "it is there\n",
        "own/looks": '#!/bin/sh\ncd "$(dirname "$0")"\ncat beside > /etc/beside\n',
        "python": "#!/usr/bin/env python3\nimport os\nopen('/etc/py', 'w').write(os.getcwd())\n",
    }
    provided(app, **scripts)
    listed = "./it's mine,./daemon,./python,own/looks"
    app.write({**CONTAINER, "PROVISION_SCRIPT": listed, "MOUNT": "ro"})
    up = app.fab("up", "--verbose")
    assert up.returncode == 0, up.stderr
    for said in ("no stdin\n", "done\n", "no end"):
        assert said in up.stderr
    assert guest(app, "cat /etc/who /etc/py") == "0\n/root"
    assert guest(app, "cat /etc/beside") == "it is there\n"
    guest(app, "ps -o args= -p $(cat /run/daemon) | grep -x 'sleep 1000'")
    assert guest(app, "sudo ls -A /var/lib/vagrantp") == "provisioned\nzone\n"

    # a changed PROVISION_SCRIPT takes effect at once
    (app.folder / "no-run-bit").write_text("#!/bin/sh\n")
    app.write({**CONTAINER, "PROVISION_SCRIPT": "./no-run-bit", "MOUNT": "ro"})
    up = app.fab("up")
    assert (up.returncode, "must name a script that is executable" in up.stderr) == (2, True)


FAILING = [  # each in line 7
    ("#!/bin/sh", "set -e\ntrue\nf() {\n  true\n}\nf; echo $(false) said; test -e /lost"),
    ("#!/bin/sh -e", "true\ntrue\nx='two\nlines'\necho said\ntest \"$x\" = one"),
    ("#!/bin/bash", "set -eu\nf() {\n  true\n}\ntrap 'echo said' EXIT\nf; test -e /lost"),
    ("#!/usr/bin/env bash", "if false; then\n  :\nfi\nfalse\necho said\nexit 1"),
]


def test_a_script_that_fails_is_told_with_its_line(guests: MakeProject) -> None:
    app = guests().write({**CONTAINER, "PROVISION_SCRIPT": "./it fails"})
    for shebang, text in FAILING:
        provided(app, **{"it fails": f"{shebang}\n{text}\necho never\n"})
        done = app.fab("up")
        assert done.returncode == 7
        assert "it fails: line 7: exit status 1\n" in done.stderr, done.stderr
        assert "  said\n" in done.stderr
        assert "never" not in done.stderr
    # and what has no lines
    provided(app, **{"it fails": "#!/usr/bin/env python3\nimport nothing\n"})
    done = app.fab("provision")
    assert done.returncode == 7
    assert "it fails: exit status 1\n" in done.stderr
    assert "No module named 'nothing'" in done.stderr


@pytest.mark.parametrize("kind", ["playbook", "script"])
def test_an_interrupted_one_leaves_nothing_at_work(guests: MakeProject, kind: str) -> None:
    app = provided(guests(), **{"wait": "#!/bin/sh\nsleep 1717 & sleep 1718\n"})
    waiting = "- hosts: all\n  tasks: [{name: wait, command: sleep 1718}]\n"
    provided(app, **{"wait.yml": waiting})
    step = "wait.yml" if kind == "playbook" else "./wait"
    app.write({**CONTAINER, "PROVISION_SCRIPT": step})
    up = app.start("up")
    while "sleep\x001718" not in _commands():
        assert up.poll() is None
    up.send_signal(signal.SIGINT)
    _, said = up.communicate(timeout=60)
    assert up.returncode == 130, said
    assert "/run/vagrantp/play.py" not in _commands()
    deadline = monotonic() + 5  # the guest's own kernel ends the rest, a moment later
    while "\x00171" in _commands():
        assert monotonic() < deadline
    provided(app, **{"wait": "#!/bin/sh\n", "wait.yml": "- hosts: all\n  tasks: [ping: ]\n"})
    up_again = app.fab("up")
    assert up_again.returncode == 0, up_again.stderr
    assert f"provisioned: {step.removeprefix('./')}" in up_again.stderr


def _commands() -> str:
    """Return the command lines of all processes of this host, containers' among them."""
    files = Path("/proc").glob("[0-9]*/cmdline")
    return "\n".join(_text(path) for path in files)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""


# The person's own file, with the names that Debian has for the same.
USER_DATA = """\
#cloud-config
hostname: base
manage_etc_hosts: true

users:
  - default
  - name: root
    lock_passwd: false
    ssh_authorized_keys:
      - {key}
  - name: av
    lock_passwd: false
    plain_text_passwd: changeme
    shell: /bin/bash
    sudo: ALL=(ALL) NOPASSWD:ALL
    groups: adm
    ssh_authorized_keys:
      - {key}

ssh_pwauth: true
disable_root: false

packages:
  - rsync
  - tmux

runcmd:
  - systemctl enable --now ssh
  - touch /etc/ran
  - resize2fs /dev/vda2
"""


@pytest.mark.soak  # test_cloud_images.py has a short one
def test_todays_cloud_config(guests: MakeProject, tmp_path: Path) -> None:
    """It works as it is, with a playbook after it; a command of its own that fails is told."""
    key = own_key(tmp_path)
    app = provided(guests("it's today's"))
    text = USER_DATA.format(key=key.with_suffix(".pub").read_text().strip())
    (app.folder / "user-data").write_text(text + "  - test -e /lost\n")
    asked = {"CLOUD_INIT": "user-data", "SSH_USER": "av", "DISK": 4}
    app.write({**VM, **asked, "PROVISION_SCRIPT": "site.yml", "PROVISION_VARS": "vars.yml"})
    up = app.fab("up")
    assert up.returncode == 7
    assert "cloud-init: " in up.stderr
    assert "runcmd" in up.stderr

    lets_in(app, key)
    assert (
        guest(app, "hostname; id -nG; getent passwd av | cut -d: -f7")
        == "base\nav adm\n/bin/bash\n"
    )
    assert guest(app, "ls /etc/ran /usr/bin/rsync /usr/bin/tmux").count("\n") == 3
    assert (
        guest(app, "sudo sshd -T | grep -i ^passwordauthentication")
        == "passwordauthentication yes\n"
    )
    assert "base" in guest(app, "cat /etc/hosts")
    assert int(guest(app, "df -BM --output=size / | tail -n 1").strip(" M\n")) > 3500

    again = app.fab("up")  # goes on: cloud-init's failure is told once
    assert again.returncode == 0, again.stderr
    assert "site.yml (12 ok, 7 changed)" in again.stderr
    is_as_the_playbook_says(app)


# The person's own file, unchanged.
ARCH = """\
#cloud-config
hostname: base
manage_etc_hosts: true

users:
  - default
  - name: root
    lock_passwd: false
    ssh_authorized_keys:
      - ssh-rsa AAAA...
  - name: av
    lock_passwd: false
    plain_text_passwd: changeme
    shell: /bin/bash
    sudo: ALL=(ALL) NOPASSWD:ALL
    groups: wheel
    ssh_authorized_keys:
      - ssh-rsa AAAA...

ssh_pwauth: true
disable_root: false

packages:
  - ansible
  - emacs
  - git
  - networkmanager
  - openssh
  - python
  - rsync
  - sudo
  - tmux
  - vim

runcmd:
  - systemctl enable --now sshd
  - systemctl enable --now NetworkManager
  - btrfs filesystem resize max /
"""


@pytest.mark.soak
def test_a_cloud_config_for_arch_as_it_is(guests: MakeProject, tmp_path: Path) -> None:
    """On a btrfs root, GPT with a BIOS boot partition, and what the file names."""
    app = guests("it's for arch")
    arch.image(app.folder / "arch.qcow2", tmp_path / "arch")
    (app.folder / "user-config").write_text(ARCH)
    asked = {"BOX": "./arch.qcow2", "CLOUD_INIT": "user-config", "SSH_USER": "av", "DISK": 6}
    app.write({**VM, "MEMORY": 1024, **asked})
    try:
        up = app.fab("up")
        assert up.returncode == 0, up.stderr
        assert guest(app, "hostname; id -nG; findmnt -no FSTYPE /") == "base\nav wheel\nbtrfs\n"
        assert {*guest(app, "id -nG arch").split()} == {"arch", "wheel", "users"}
        assert guest(app, "systemctl is-active sshd NetworkManager") == "active\nactive\n"
        guest(app, "dpkg -s ansible emacs networkmanager openssh python")
        assert int(guest(app, "df -BM --output=size / | tail -n 1").strip(" M\n")) > 5000
        verify = app.fab("verify")
        assert verify.returncode == 0, verify.stdout
    finally:
        assert app.fab("rm", "--force").returncode == 0
        forget_box("arch")


PROXMOX = """\
#cloud-config
hostname: dev
fqdn: dev.example.org
user: dev
ssh_pwauth: false
byobu_by_default: enable
package_reboot_if_required: true
packages: [hello]
bootcmd:
  - [cloud-init-per, instance, marker, touch, /run/reboot-required]
  - echo boot >> /etc/boots
runcmd:
  - echo ran >> /etc/ran
  - reboot
power_state: {mode: reboot}
write_files:
  - {path: /etc/written, content: "once\\n", append: true}
"""
COUNTED = "#!/bin/sh\necho provisioned >> /etc/ran\n"


@pytest.mark.soak
def test_a_cloud_config_that_reboots(guests: MakeProject) -> None:
    """After packages, by a command, by power_state: `up` waits, and provisions once."""
    app = guests("it's proxmox")
    provided(app, **{"user-data": PROXMOX, "count": COUNTED})
    app.write({**VM, "CLOUD_INIT": "user-data", "SSH_USER": "dev", "PROVISION_SCRIPT": "./count"})
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    # a boot that ends before anybody could log in is not seen
    assert "cloud-init rebooted the guest" in up.stderr
    assert guest(app, "cat /etc/boots").count("boot\n") >= 3
    assert "warning: CLOUD_INIT: byobu_by_default: the image leaves out the module" in up.stderr
    assert guest(app, "hostname; cat /etc/ran /etc/written") == "dev\nran\nprovisioned\nonce\n"
    assert guest(app, "id -nG").split()[:3] == ["dev", "adm", "sudo"]
    guest(app, "command -v hello")
    again = app.fab("up")
    assert (again.returncode, "provision" in again.stderr) == (0, False)
