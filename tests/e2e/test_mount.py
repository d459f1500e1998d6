"""MOUNT: the project folder in a guest, whose files are the person's; and what it may change."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from shlex import quote

import pytest
from vagrantp.core.libvirt import virsh

from tests.conftest import CONTAINER, VM, MakeProject, Project
from tests.e2e.conftest import guest, run, status

PERSON = 12345
# What root in a guest tries, each a file of its own in the project folder.
TRIES = """\
cd /project
echo root > of-root; chown 0:0 of-root; chmod 600 of-root
mkdir -m 2775 folder; echo deep > folder/deep
cp /bin/true setuid; chmod 4755 setuid; chmod u+s setuid; chmod g+s setuid folder
python3 -c "import os; os.close(os.open('made', os.O_CREAT, 0o6755)); os.mknod('node', 0o106755)"
mknod device c 1 3; mknod block b 7 0
setcap cap_net_admin+ep setuid
ln -s /etc/passwd link; ln -s ../../../../../../../../etc/shadow up; ln of-root hard
mv folder moved; echo more >> moved/deep
rm -f gone
exit 0
"""


def shared(app: Project, values: dict[str, object], how: str) -> Project:
    """Put files into a project, of a person who is not root, and share it with its guest."""
    (app.folder / "given").write_text("given\n")
    (app.folder / "gone").write_text("")
    (app.folder / "private").write_text("secret\n")
    (app.folder / "private").chmod(0o600)
    app.write({**values, "MOUNT": how})
    for path in (app.folder, *app.folder.iterdir()):
        os.chown(path, PERSON, PERSON)
    return app


def belongs_to_the_person(folder: Path) -> None:
    """See that nothing in a folder is root's, a device, or setuid."""
    for path in (folder, *folder.rglob("*")):
        facts = path.lstat()
        assert (facts.st_uid, facts.st_gid) == (PERSON, PERSON), path
        assert not stat.S_ISCHR(facts.st_mode) and not stat.S_ISBLK(facts.st_mode), path
        assert not facts.st_mode & (stat.S_ISUID | stat.S_ISGID), path
        assert "security.capability" not in os.listxattr(path, follow_symlinks=False)


def writes_as_the_person(app: Project) -> None:
    """Let users of a guest write, with all the tricks of root."""
    assert guest(app, "cat /project/given /project/private") == "given\nsecret\n"
    assert guest(app, "stat -c %U /project/given /project").split() == ["vagrant", "vagrant"]
    guest(app, "cd /project && echo mine > mine && git --version >/dev/null 2>&1 || true")
    assert (app.folder / "mine").read_text() == "mine\n"
    guest(app, f"sudo sh -c {quote(TRIES)}")
    belongs_to_the_person(app.folder)
    assert (app.folder / "of-root").read_text() == "root\n"
    assert (app.folder / "moved/deep").read_text() == "deep\nmore\n"
    assert not (app.folder / "gone").exists()
    # a link is followed in the guest, and nowhere else
    for name in ("link", "up"):
        assert guest(app, f"sudo cat /project/{name}") == guest(
            app, f"sudo cat /etc/{'passwd' if name == 'link' else 'shadow'}"
        )
    # and what the person changes is seen there
    (app.folder / "given").write_text("another\n")
    assert guest(app, "sleep 2; cat /project/given") == "another\n"


def only_reads(app: Project) -> None:
    """See that nobody in a guest can write."""
    before = {path.name: path.stat() for path in app.folder.iterdir()}
    assert guest(app, "cat /project/given") == "given\n"
    tries = "echo x > /project/new; echo x >> /project/given; rm /project/given"
    remount = "mount -o remount,rw /project; mount -o remount,bind,rw /project"
    guest(app, f"sudo sh -c {quote(f'{tries}; {remount}; {tries}; touch /project/t; true')}")
    after = {path.name: path.stat() for path in app.folder.iterdir()}
    for facts in (*before.values(), *after.values()):
        assert facts.st_uid == PERSON
    assert {n: (f.st_size, f.st_mtime) for n, f in after.items()} == {
        n: (f.st_size, f.st_mtime) for n, f in before.items()
    }


@pytest.mark.parametrize("values", [CONTAINER, VM], ids=["container", "vm"])
def test_the_folder_is_there_as_promised(guests: MakeProject, values: dict[str, object]) -> None:
    app = shared(guests("it's mine"), values, "ro")
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    assert "  mount      /project, ro\n" in up.stdout
    only_reads(app)
    if values["INFRA_TYPE"] == "container":
        assert app.fab("verify").returncode == 0

    app.write({**values, "MOUNT": "rw"})
    up = app.fab("up")
    assert "MOUNT: ro → rw at the next start" in up.stderr
    only_reads(app)
    address = status(app)["address"]
    assert app.fab("stop").returncode == 0
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    assert status(app)["address"] == address
    writes_as_the_person(app)
    verify = app.fab("verify")
    assert verify.returncode == 0, verify.stdout
    guest(app, "sudo umount -l /project 2>/dev/null || true")
    verify = app.fab("verify")
    if values["INFRA_TYPE"] == "vm":
        [line] = [line for line in verify.stdout.splitlines() if line.startswith("mount ")]
        assert (verify.returncode, "FAILED" in line) == (9, True)
    else:  # it has no right to
        assert verify.returncode == 0

    # nothing of it outlives the guest, and whoever starts that, it is there again
    name = status(app)["instance"]
    stop = virsh("destroy", name) if values == VM else ("podman", "stop", "-t0", name)
    run(*stop)
    assert "bindfs" not in run("ps", "axo", "comm").split()
    if values == VM:
        return
    run("podman", "start", name)
    assert guest(app, "cat /project/mine") == "mine\n"
    app.write({**values, "MOUNT": "none"})
    assert app.fab("stop").returncode == 0
    assert app.fab("up").returncode == 0
    assert guest(app, "ls /project | wc -l") == "0\n"


@pytest.mark.parametrize(
    "values", [CONTAINER, pytest.param(VM, marks=pytest.mark.soak)], ids=["container", "vm"]
)
def test_what_is_protected_hidden_and_reported(
    guests: MakeProject, values: dict[str, object]
) -> None:
    app = guests()
    (app.folder / "secrets").mkdir()
    (app.folder / "secrets/key").write_text("secret\n")
    (app.folder / "Makefile").write_text("all:\n")
    app = shared(app, {**values, "HIDE": "private,secrets"}, "rw")
    run("git", "-c", "safe.directory=*", "init", "--quiet", str(app.folder))
    run("chown", "--recursive", f"{PERSON}:{PERSON}", str(app.folder))
    before = sorted(path.relative_to(app.folder) for path in app.folder.rglob("*"))
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    assert "  mount      /project, rw, protected\n" in up.stdout
    assert "unprotected" not in up.stderr
    verify = app.fab("verify")
    assert verify.returncode == 0, verify.stdout
    lines = [line.split() for line in verify.stdout.splitlines()]
    assert ["protect", "yes", "yes", "ok"] in lines
    assert ["hide", "private,", "secrets", "private,", "secrets", "ok"] in lines
    assert sorted(path.relative_to(app.folder) for path in app.folder.rglob("*")) == before

    assert guest(app, "cd /project; cat private; ls -A secrets") == ""
    guest(app, "cd /project; echo mine > private; echo mine > secrets/new")
    assert app.fab("verify").returncode == 0
    assert (app.folder / "private").read_text() == "secret\n"
    assert [path.name for path in (app.folder / "secrets").iterdir()] == ["key"]

    # git, of whoever is in the guest; sudo's variable would have git trust the user's folder
    assert "\tdirectory = /project/*\n" in guest(app, "cat /etc/gitconfig")
    get_git = "command -v git || { apt-get -q update && apt-get -qy install git; }"
    guest(app, f"sudo sh -c {quote(get_git)} >/dev/null")
    of_root = "sudo -i env -u SUDO_UID git -C /project rev-parse --is-inside-work-tree"
    assert guest(app, of_root) == "true\n"

    assert status(app)["files_changed"] == []
    guest(
        app, "cd /project; echo more >> Makefile; mkfifo pipe; ln -s /etc/passwd out; touch main.c"
    )
    changed = [
        {"path": "Makefile", "change": "changed", "kind": ""},
        {"path": "out", "change": "new", "kind": "link out of the folder"},
        {"path": "pipe", "change": "new", "kind": "FIFO"},
    ]
    assert status(app)["files_changed"] == changed
    stop = app.fab("stop")
    assert (stop.returncode, "  changed  Makefile\n" in stop.stderr) == (0, True), stop.stderr
    (app.folder / "Makefile").write_text("by the person\n")
    assert status(app)["files_changed"] == []

    # from the next start on as .env has it; what gives the guest more is asked
    app.write({**values, "MOUNT": "rw", "PROTECT": "no"})
    up = app.fab("up", accept=False)
    assert up.returncode == 8
    assert "PROTECT=no  the guest writes" in up.stderr
    assert "HIDE=       the guest sees" in up.stderr
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    assert "warning: MOUNT=rw, unprotected" in up.stderr
    assert "changed in the folder" not in up.stderr
    assert "  mount      /project, rw, unprotected\n" in up.stdout
    assert (status(app)["mount"], status(app)["protect"]) == ("rw", False)
    assert guest(app, "cd /project; cat private; ls -A secrets") == "secret\nkey\n"
    app.write({**values, "MOUNT": "rw"})
    assert "PROTECT: no → yes at the next start" in app.fab("up").stderr
    assert status(app)["protect"] is False
    assert app.fab("verify").returncode == 9
    assert app.fab("rm", "--force").returncode == 0


def test_another_user_has_the_folder_as_well(guests: MakeProject) -> None:
    app = shared(guests(), {**CONTAINER, "SSH_USER": "av"}, "rw")
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    assert "start again" not in up.stderr  # the number of our own image's second user is known
    guest(app, "touch /project/mine")
    assert app.fab("rm", "--force").returncode == 0
    app.write({**CONTAINER, "SSH_USER": "root", "MOUNT": "rw"})
    assert app.fab("up").returncode == 0
    assert guest(app, "stat -c %U /project/mine") == "root\n"
    assert app.fab("rm", "--force").returncode == 0


def test_where_it_cannot_be_shared_nothing_is_made(guests: MakeProject) -> None:
    app = shared(guests(), CONTAINER, "rw")
    done = app.fab_amid("mount --bind /dev/null $(command -v bindfs);", "up")
    assert (done.returncode, "bindfs is not installed" in done.stderr) == (5, True), done.stderr
    done = app.fab_amid("mount --bind /bin/false $(command -v bindfs);", "up")
    assert done.returncode == 5, done.stderr
    assert status(app)["state"] == "absent"
    done = app.fab("up", XDG_STATE_HOME=str(app.folder / "state"))
    assert (done.returncode, "MOUNT must be none here, as " in done.stderr) == (2, True)


PLAYBOOK = "- hosts: all\n  roles: [own]\n  tasks: [{name: one, command: 'true'}]\n"
# What a guest does to the project, and what a person is then asked for.
ATTACKS = {
    "sed -i s/LAN_ACCESS=no/LAN_ACCESS=yes/ /project/.env": "LAN_ACCESS=yes  the guest reaches",
    "echo PORTS=0.0.0.0:8080:80 >> /project/.env": "PORTS=0.0.0.0:8080:80  other machines",
    "echo AUTOSTART=yes >> /project/.env": "AUTOSTART=yes  the guest starts",
    "echo PROVISION_VARS=/etc/hostname >> /project/.env": "PROVISION_VARS=/etc/hostname  outside",
    "cd /project; rm site.yml; ln -s /etc/hostname site.yml": (
        "PROVISION_SCRIPT=/etc/hostname  outside of this folder, run with all"
    ),
    "cd /project; ln -s /usr/bin link; sed -i s,site.yml,link/env, .env": (
        "PROVISION_SCRIPT=/usr/bin/env  outside"
    ),
    "echo '- src: x' > /project/requirements.yml": "/requirements.yml  what it names is fetched",
}


def test_what_a_guest_asks_for_it_gets_after_a_yes_only(guests: MakeProject) -> None:
    app = guests()
    env = {**CONTAINER, "MOUNT": "rw", "LAN_ACCESS": "no", "PROVISION_SCRIPT": "site.yml"}

    def put_back() -> None:
        run("sh", "-c", 'find "$0" -mindepth 1 -delete', str(app.folder))
        (app.folder / "roles/own/tasks").mkdir(parents=True)
        (app.folder / "roles/own/tasks/main.yml").write_text("- command: 'true'\n")
        (app.folder / "site.yml").write_text(PLAYBOOK)
        app.write(env)

    put_back()
    up = app.fab("up", accept=False)
    assert (up.returncode, "MOUNT=rw  the guest changes" in up.stderr) == (8, True)
    assert status(app)["state"] == "absent"
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    assert app.fab("up", accept=False).returncode == 0
    for attack, asked in ATTACKS.items():
        guest(app, f"sudo sh -c {quote(attack)}")
        for verb in ("up", "provision"):
            done = app.fab(verb, accept=False)
            assert done.returncode == 8, (attack, done.stdout, done.stderr)
            assert asked in done.stderr, (attack, done.stderr)
        assert status(app)["isolation"] == "LAN blocked"
        put_back()
        assert app.fab("up", accept=False).returncode == 0
    # a fabfile in the folder is not looked at, and not the guest's to write
    guest(app, "! echo x 2>/dev/null > /project/fabfile.py")
    (app.folder / "fabfile.py").write_text(f"import os; os.mkdir('{app.folder}/hacked')\n")
    assert app.fab("up", accept=False).returncode == 0
    assert not (app.folder / "hacked").exists()

    # a changed playbook gives it no more than it has; what was granted outlives `rm`
    guest(app, "echo '# more' >> /project/site.yml")
    assert "(3 ok, " in app.fab("provision", accept=False).stdout
    assert app.fab("rm", "--force").returncode == 0
    done = app.fab("up", accept=False)
    assert done.returncode == 0, done.stderr
    assert app.fab("rm", "--force").returncode == 0
