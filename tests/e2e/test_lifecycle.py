"""The main job, from `.env` to nothing: up, ssh, stop, up, rm."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import time
from pathlib import Path
from random import Random

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.images import built
from vagrantp.providers.podman import ids
from vagrantp.settings.env import id_from

from tests.certificates import ONE, TWO
from tests.conftest import CONTAINER, FAB, MASTER, VM, MakeProject, Project
from tests.e2e.conftest import VIRSH, guest, lets_in, own_key, run, status, trusts_them, wait_for

BOTH = pytest.mark.parametrize("values", [CONTAINER, VM], ids=["container", "vm"])
SIZES = {"MEMORY": 1536, "CPUS": 2, "DISK": 6}
# What would take effect if any of it reached Vagrant, Podman or ssh.
HOSTILE = {
    "VAGRANT_VAGRANTFILE": "/nonexistent",
    "VAGRANT_HOME": "/nonexistent",
    "VAGRANT_CWD": "/nonexistent",
    "VAGRANT_DOTFILE_PATH": "/nonexistent",
    "VAGRANT_DEFAULT_PROVIDER": "virtualbox",
    "DOCKER_HOST": "tcp://192.0.2.1:1",
    "CONTAINER_HOST": "tcp://192.0.2.1:1",
    "LIBVIRT_DEFAULT_URI": "test:///default",
    "ANSIBLE_CONFIG": "/nonexistent",
    "RUBYOPT": "-r/nonexistent",
}


@pytest.mark.parametrize("seed", [1, 2])
def test_podman_has_what_was_drawn(guests: MakeProject, seed: int) -> None:
    draw = Random(seed)
    memory, cpus = draw.randrange(64, 2048), draw.randrange(1, (os.cpu_count() or 1) + 1)
    name = "".join(draw.choices("abc-0123", k=40)).strip("-")
    drawn = {"MEMORY": memory, "CPUS": cpus, "NAME": name, "PORTS": "auto:80,auto:53/udp"}
    app = guests("drawn").write({**CONTAINER, **drawn})
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    [found] = json.loads(run("podman", "inspect", status(app)["instance"]))
    given = found["HostConfig"]
    assert (given["Memory"], given["MemorySwap"]) == (memory * 1024**2, memory * 1024**2)
    assert given["NanoCpus"] == cpus * 10**9
    assert found["Config"]["Hostname"] == name
    assert found["Name"] == f"{name}-{id_from(app.folder)}"
    assert list(found["NetworkSettings"]["Networks"]) == ["vagrantp"]
    assert not {"CAP_NET_ADMIN", "CAP_NET_RAW"} & set(found["EffectiveCaps"])
    assert not any(given["PortBindings"].values())  # exposed, and not published


def test_a_user_and_a_key_of_ones_own(guests: MakeProject, tmp_path: Path) -> None:
    key = own_key(tmp_path)
    app = guests("mine").write({**CONTAINER, "SSH_USER": "av", "SSH_KEY": f"'{key}.pub'"})
    # by somebody who has logged in, as the guest knows: pam_loginuid(8)
    script = 'echo 4242 > /proc/self/loginuid; exec "$@"'
    done = app.run("sh", "-c", script, "sh", *app.argv(["up"]))
    assert done.returncode == 0, done.stderr
    lets_in(app, key)
    guest(app, "echo 'ssh-ed25519 AAAAother' >> .ssh/authorized_keys")
    assert app.fab("stop").returncode == 0
    assert app.fab("up").returncode == 0
    assert guest(app, "wc -l < .ssh/authorized_keys") == "3\n"  # each once, and the person's own
    done = app.write({**CONTAINER, "SSH_USER": "root"}).fab("up")
    assert done.returncode == 8
    assert "SSH_USER: av → root" in done.stderr
    assert app.fab("rm", "--force").returncode == 0
    assert app.fab("up").returncode == 0
    assert guest(app, "id -un") == "root\n"


@pytest.mark.parametrize(
    "values", [CONTAINER, pytest.param(VM, marks=pytest.mark.soak)], ids=["container", "vm"]
)
def test_authorities_of_ones_own(guests: MakeProject, values: dict[str, object]) -> None:
    app = guests().write({**values, "CA_CERTS": 'ca.pem,"it\'s two.pem"'})
    (app.folder / "ca.pem").write_text(f"# a comment\n{ONE}")
    (app.folder / "it's two.pem").write_text(TWO)
    assert app.fab("up").returncode == 0
    trusts_them(app, [ONE, TWO])
    app.write({**values, "CA_CERTS": "ca.pem"})
    done = app.fab("up")
    assert (done.returncode, "CA_CERTS: " in done.stderr) == (0, True)
    trusts_them(app, [ONE])
    (app.folder / "ca.pem").write_text(TWO)  # the same name
    assert app.fab("verify").returncode == 9
    assert app.fab("up").returncode == 0
    trusts_them(app, [TWO])
    assert app.fab("stop").returncode == 0
    app.write(values)
    assert app.fab("up").returncode == 0
    trusts_them(app, [])


def test_what_another_instance_has_is_told(guests: MakeProject) -> None:
    one, two = guests("one"), guests("two")
    assert one.write({**CONTAINER, "MAC": "52:54:00:AB:cd:01"}).fab("up").returncode == 0
    found = status(one)
    taken = {"FIXED_IP": found["address"], "MAC": "52:54:00:ab:CD:01"}
    for key in ("FIXED_IP", "MAC"):
        done = two.write({**CONTAINER, key: taken[key]}).fab("up")
        assert done.returncode == 6, done.stderr
        assert f"{key}={taken[key].lower()} is taken by {found['instance']}" in done.stderr
        assert status(two)["state"] == "absent"


@BOTH
def test_the_main_job(
    guests: MakeProject, tripwires: tuple[str, Path], tmp_path: Path, values: dict[str, object]
) -> None:
    kind = str(values["INFRA_TYPE"])
    sign = tmp_path / "sign"
    name = 'it\'s my "app"'
    app = _beset(guests(name).write({**values, **SIZES}), tmp_path / "home", sign)
    files = sorted(app.folder.iterdir())

    disk = "6 GiB disk" if kind == "vm" else "disk not limited"
    first = app.fab("up")
    assert first.returncode == 0, first.stderr
    assert re.fullmatch(
        rf"it-s-my-app is running \({kind}, 2 CPUs, 1\.5 GiB memory, {disk}\), up in .+\n"
        r"  address    10\.\d+\.\d+\.\d+\n"
        r"  isolation  LAN blocked\n"
        r"  next       fab ssh\n",
        first.stdout,
    )
    assert sorted(app.folder.iterdir()) == files
    found = status(app)
    name = found["instance"]
    assert found["state"] == "running"
    assert (found["memory_mib"], found["cpus"], found["disk_gib"]) == (
        1536,
        2,
        6 if kind == "vm" else None,
    )
    _is_as_promised(app, kind, name)
    _is_private(app, name)
    _is_a_place_to_work(app, kind)
    if kind == "vm":
        _has_a_console_and_a_screen(app, name)
        _leaves_containers_their_network(app)

    # up again: Vagrant is not called, nothing is restarted
    identity = _identity(kind, name)
    path, called = tripwires
    (Path(path.split(":")[0]) / "podman").unlink()
    (Path(path.split(":")[0]) / "virsh").unlink()
    again = app.fab("up", PATH=path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("it-s-my-app is running already (")
    assert not called.exists()
    assert _identity(kind, name) == identity

    # ssh passes everything through
    assert app.fab("ssh", "--command", "exit 42").returncode == 42
    assert app.fab("ssh", "--command", "echo out; echo err >&2").stderr == "err\n"
    assert app.fab_bytes("ssh", "--command", "cat", stdin=b"a\0b\xff\r\n").stdout == b"a\0b\xff\r\n"
    assert guest(app, "printf '%s|' \"it's\" 'a  b' '$HOME'") == "it's|a  b|$HOME|"
    on_terminal = f"{FAB} -r {MASTER} ssh --command 'tty; exit 42'"  # of script(1)'s
    done = app.run("script", "--quiet", "--return", "--command", on_terminal, "/dev/null")
    assert (done.returncode, "/dev/pts/" in done.stdout) == (42, True), done.stdout
    big = os.urandom(1024 * 1024) * 100
    echoed = app.fab_bytes("ssh", "--command", "cat", stdin=big)
    assert hashlib.sha256(echoed.stdout).digest() == hashlib.sha256(big).digest()

    # --dry holds everything back
    for verb in (["stop"], ["stop", "--force"], ["rm", "--force"], ["up"]):
        assert app.fab("--dry", *verb).returncode == 0
    assert _identity(kind, name) == identity

    # works without a .env, loses nothing over stop and up
    guest(app, "echo this stays > note; sync")
    text = (app.folder / ".env").read_text()
    (app.folder / ".env").write_text("MEMORY=")
    assert app.fab("stop").stdout == f"{name} is stopped\n"
    assert status(app)["state"] == "stopped"
    assert app.fab("stop").stdout == f"{name} is stopped already\n"
    if kind == "vm":
        volume = Path(run(*VIRSH, "vol-path", f"{name}.img", "--pool", "default").strip())
        aside = volume.rename(volume.with_name("aside"))  # by others, and libvirt does not know
        (app.folder / ".env").write_text(text)
        done = app.fab("up")
        aside.rename(volume)
        assert (done.returncode, done.stdout) == (8, "")
        assert f"{name} is lost: libvirt no longer has its disk" in done.stderr
        (app.folder / ".env").write_text("MEMORY=")
    for command in ("true", ""):
        done = app.fab("ssh", "--command", command)
        assert (done.returncode, done.stdout) == (8, "")
        assert done.stderr == f"{name} is not running\n  hint: fab up starts it\n"
    subnet, _, last = found["address"].rpartition(".")
    address = f"{subnet}.{2 + (int(last) - 1) % 253}"
    (app.folder / ".env").write_text(f"{text}FIXED_IP={address}\n")
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    assert f"  FIXED_IP: nothing → {address}\n" in done.stderr
    assert guest(app, "cat note") == "this stays\n"
    assert (status(app)["address"], status(app)["changes"]) == (address, [])
    assert app.fab("verify").returncode == 0
    _is_as_promised(app, kind, name)

    # rm asks before it takes a running one, then takes everything
    refused = app.fab("rm")
    assert (refused.returncode, refused.stdout) == (8, "")
    assert app.fab("rm", "--force").stdout == f"{name} is removed\n"
    assert app.fab("rm").stdout == f"nothing to remove for {app.folder}\n"
    assert status(app)["state"] == "absent"
    assert sorted(app.folder.iterdir()) == files
    assert not sign.exists()
    left = sorted(path.name for path in (tmp_path / "state/vagrantp").iterdir())
    assert left == ["lock", "metrics.jsonl"]


def _is_as_promised(app: Project, kind: str, name: str) -> None:
    """Compare what the provider and the guest say with SIZES."""
    assert guest(app, "hostname") == "it-s-my-app\n"
    assert guest(app, "date +%Z") == run("date", "+%Z")
    if kind == "vm":
        info = run(*VIRSH, "dominfo", name)
        assert re.search(r"^CPU\(s\): +2$", info, re.MULTILINE)
        assert re.search(r"^Max memory: +1572864 KiB$", info, re.MULTILINE)
        assert guest(app, "nproc") == "2\n"
        assert guest(app, "lsblk --bytes --nodeps --noheadings -o SIZE /dev/vda").strip() == str(
            6 * 1024**3
        )
        root = int(guest(app, "df --block-size=1 --output=size / | tail -1"))
        assert root >= 5.7 * 1024**3
    else:
        cgroup = run("podman", "inspect", "--format", "{{.State.CgroupPath}}", name).strip()
        base = Path("/sys/fs/cgroup")
        if (base / "cgroup.controllers").exists():
            assert (base / cgroup[1:] / "memory.max").read_text() == "1610612736\n"
            assert (base / cgroup[1:] / "cpu.max").read_text() == "200000 100000\n"
        else:
            memory = base / "memory" / cgroup[1:] / "memory.limit_in_bytes"
            assert memory.read_text() == "1610612736\n"
            assert (base / "cpu" / cgroup[1:] / "cpu.cfs_quota_us").read_text() == "200000\n"
            assert (base / "cpu" / cgroup[1:] / "cpu.cfs_period_us").read_text() == "100000\n"


# A tool that is put where `npm install --global` and pip put theirs says what it finds.
WORK = """
mkdir -p ~/.local/bin && cat > ~/.local/bin/tool <<'END' && chmod +x ~/.local/bin/tool
#!/bin/sh
echo $(id -un) $LANG $(locale 2>&1 | grep -c '="C.UTF-8"$') $PATH
END
tool; bash -lc tool; sudo tool; sudo sh -c tool; sudo bash -lc tool
"""
LIMITS = "ulimit -Sn; ulimit -Hn; cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max"
# As Docker and Podman do in a guest. networkd would take them, and the one off its bridge.
VETHS = r"""
ip link add c0 type bridge && ip link add c1 type veth peer name c2 && ip link set c1 master c0
for link in c0 c1 c2; do ip link set $link up; done
systemctl restart systemd-networkd
for link in c1 c2; do
    until networkctl status $link | grep -oE '\((unmanaged|configur(ing|ed))\)'; do sleep 0.2; done
done
ip -o link show master c0 | wc -l
ip link delete c1; ip link delete c0
"""


def _is_a_place_to_work(app: Project, kind: str) -> None:
    """See that commands, logins and root have one PATH and UTF-8, and enough of everything."""
    said = [line.split() for line in guest(app, WORK).splitlines()]
    assert [words[:3] for words in said] == [
        *([user, "C.UTF-8", "12"] for user in ("vagrant", "vagrant", "root", "root", "root"))
    ]
    [path] = {words[3] for words in said}
    assert path.startswith("/home/vagrant/.local/bin:/home/vagrant/bin:/usr/local/sbin:")
    login = f"echo 'echo =$PATH=; exit' | script -qc '{FAB} -r {MASTER} ssh' /dev/null"
    assert f"={path}=" in app.run("sh", "-c", login).stdout
    assert guest(app, "command -v setfacl") == "/usr/bin/setfacl\n"
    if kind == "container":
        assert guest(app, "df -m /dev/shm | awk 'END {print $2}'") == "768\n"
        soft, hard, tasks = guest(app, LIMITS).split()
        most = int(run("sh", "-c", "ulimit -Hn"))  # more, where this host may raise it
        assert (soft, int(hard)) == ("1024", 524288 if most > 524288 else most)
        assert int(tasks) >= 2048


def _leaves_containers_their_network(app: Project) -> None:
    assert guest(app, f"sudo sh -c {shlex.quote(VETHS)}") == 2 * "(unmanaged)\n" + "1\n"


def _is_private(app: Project, name: str) -> None:
    """See that only the owner can get at the keys, and only with the own key into the guest."""
    state = Path(app.environment["XDG_STATE_HOME"]) / "vagrantp" / name
    assert state.stat().st_mode & 0o777 == 0o700
    for path in state.rglob("*"):
        if path.is_file() and "PRIVATE KEY" in path.read_text(errors="replace"):
            assert path.stat().st_mode & 0o077 == 0, path
    keys = guest(app, "sudo cat /home/vagrant/.ssh/authorized_keys")
    assert keys == (state / "id_ed25519.pub").read_text()
    assert guest(app, "ls /etc/ssh/ssh_host_*_key | wc -l") == "1\n"
    # the second field of shadow: no password opens it
    assert guest(app, "sudo cut -d: -f1,2 /etc/shadow | grep -v ':[!*]' | wc -l") == "0\n"


def _identity(kind: str, name: str) -> str:
    """Return what changes when an instance is started anew."""
    if kind == "vm":
        return run(*VIRSH, "domid", name)
    return run("podman", "inspect", "--format", "{{.Id}} {{.State.Pid}}", name)


def _has_a_console_and_a_screen(app: Project, name: str) -> None:
    """See that a VM's screen is for its owner only, and its devices are virtio."""
    xml = run(*VIRSH, "dumpxml", "--security-info", name)
    graphics = re.search(r"<graphics (?:[^>]*[^/])?/?>", xml)
    assert graphics is not None
    assert "type='vnc'" in graphics[0]
    assert not re.search(r" (port|listen|websocket|passwd)=", graphics[0])
    listens = re.findall(r"<listen [^>]*>", xml)
    assert len(listens) == 1
    assert "type='socket'" in listens[0]
    assert "/vnc.sock" in listens[0]
    assert status(app)["vnc"] == f"virt-viewer --connect qemu:///system --attach {name}"
    assert "<console type='pty'" in xml
    for device in (
        r"<driver name='qemu' type='qcow2' discard='unmap'",
        r"<memballoon model='virtio' freePageReporting='on'",
        r"<panic model='isa'",
        r"<suspend-to-mem enabled='no'/>",
        r"<timer name='hpet' present='no'/>",
        r"<backend model='random'>/dev/u?random</backend>",
    ):
        assert re.search(device, xml), device
    assert "<target dev='vda' bus='virtio'/>" in xml
    assert re.search(r"<interface .*?<model type='virtio'/>", xml, re.DOTALL)
    pairs = [name[-8:][i : i + 2] for i in range(0, 8, 2)]
    assert f"<mac address='52:54:{':'.join(pairs)}'/>" in xml
    owner = run(*VIRSH, "metadata", name, "urn:vagrantp:instance")
    assert f"uid='{os.getuid()}'" in owner.replace('"', "'")


def test_a_container_that_somebody_half_started_keeps_what_is_in_it(guests: MakeProject) -> None:
    app = guests("kept").write(CONTAINER)
    assert app.fab("up").returncode == 0
    guest(app, "echo mine > note")
    assert app.fab("stop").returncode == 0
    run("podman", "init", status(app)["instance"])
    assert status(app)["state"] == "stopped"
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    assert guest(app, "cat note") == "mine\n"


KITTY = """\
xterm-kitty|KovIdTTY,
\tam, colors#256, cols#80, lines#24, clear=\\E[H\\E[2J, cup=\\E[%i%p1%d;%p2%dH,
\tSu, Smulx=\\E[4:%p1%dm,
"""


def test_a_terminal_that_the_guest_does_not_know(guests: MakeProject, tmp_path: Path) -> None:
    app = guests("terminal").write(CONTAINER)
    assert app.fab("up").returncode == 0

    def seen(command: str, **environment: str) -> str:
        argv = f"{FAB} -r {MASTER} ssh --command {shlex.quote(command)}"
        there = app.having(**environment)
        done = there.run("script", "--quiet", "--return", "--command", argv, "/dev/null")
        assert done.returncode == 0, done.stdout
        return done.stdout.replace("\r", "").replace("^@", "")

    assert seen("echo $TERM; tput colors", TERM="xterm-kitty") == "xterm-256color\n256\n"
    assert seen("echo $TERM", TERM="$(reboot)") == "xterm-256color\n"
    (tmp_path / "kitty").write_text(KITTY)
    run("tic", "-x", "-o", str(tmp_path / "own"), str(tmp_path / "kitty"))
    own = {"TERM": "xterm-kitty", "TERMINFO": str(tmp_path / "own")}  # as kitty sets them
    known = seen("echo $TERM; infocmp -x; sudo tput -T xterm-kitty Smulx 3", **own)
    assert known.startswith("xterm-kitty\n")
    assert "Smulx=\\E[4:%p1%dm" in known
    assert known.endswith("\x1b[4:3m")
    assert seen("echo $TERM", TERM="xterm-kitty") == "xterm-kitty\n"


def test_every_process_gets_sigterm_and_time(guests: MakeProject) -> None:
    """A database, say, that writes what it has: the user's own, root's, and one that is stopped."""
    app = guests("database").write(CONTAINER)
    assert app.fab("up").returncode == 0
    script = "trap 'sleep 2; date > \"$1\"; exit' TERM; $2; while :; do sleep 0.1; done"
    detached = "> /dev/null 2>&1 < /dev/null &"
    for how, place, first in (
        ("setsid", "/home/vagrant/own", ":"),
        ("sudo setsid", "/root/of root", ":"),
        ("setsid", "/home/vagrant/stopped", "kill -STOP $$"),
    ):
        told = shlex.join(["sh", "-c", script.replace("$2", first), "sh", place])
        guest(app, f"{how} {told} {detached}")
    started = time.monotonic()
    assert app.fab("stop").returncode == 0
    assert time.monotonic() - started < 9  # as long as they need, and no longer
    assert app.fab("up").returncode == 0
    guest(app, "cat own stopped; sudo cat '/root/of root'")
    guest(app, f"setsid sh -c 'trap : TERM; while :; do sleep 1; done' {detached}")
    assert app.fab("stop").returncode == 0  # in spite of who does not end


def namespaces() -> set[str]:
    return {entry["name"] for entry in json.loads(run("ip", "-json", "netns") or "[]")}


def test_a_container_reaps_children_and_stops_at_once(guests: MakeProject) -> None:
    app = guests("init").write(CONTAINER)
    before = namespaces()
    if not [*ids.NAMESPACES.glob("*")]:  # as on a host that has had no network namespace
        run("sh", "-c", f"while umount {ids.NAMESPACES} 2>/dev/null; do :; done")
    assert app.fab("up").returncode == 0
    guest(app, "ping -c 1 127.0.0.1")  # without CAP_NET_RAW
    # an orphan that ends is PID 1's to reap
    guest(app, "(setsid sleep 0.1 &) ; sleep 1")
    assert guest(app, "grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l") == "0\n"
    start = time.monotonic()
    run("podman", "stop", "--time", "30", status(app)["instance"])
    assert time.monotonic() - start < 10
    assert namespaces() == before
    assert app.fab("up").returncode == 0  # its address is free again


def test_ssh_keeps_its_connection_as_long_as_the_guest_runs(guests: MakeProject) -> None:
    app = guests("kept").write(CONTAINER)
    assert app.fab("up").returncode == 0
    name = status(app)["instance"]
    state = Path(app.environment["XDG_STATE_HOME"]) / "vagrantp" / name
    ends = "echo $SSH_CONNECTION"
    first = guest(app, ends)
    assert guest(app, ends) == first

    # forty at once, which make it or find it, are sessions of it and no more
    [socket] = state.glob("ssh-*")
    argv = f"ssh -F ssh_config -oControlMaster=auto -oControlPath={socket.name}"
    run("sh", "-c", f"cd {state} && {argv} -Oexit {name}")
    ssh = [app.start("ssh", "--command", f"sleep 2; {ends}") for _ in range(3)]
    while not socket.exists():
        assert ssh[0].poll() is None
    crowd = f"for i in $(seq 37); do {argv} {name} 'sleep 2; {ends}' & done; wait"
    done = app.run("sh", "-c", f"cd {state}; {crowd}")
    said = [one.communicate() for one in ssh] + [(done.stdout, done.stderr)]
    assert {err for _, err in said} == {""}
    connections = "".join(out for out, _ in said).splitlines()
    assert (len(connections), len(set(connections))) == (40, 1)
    [socket] = state.glob("ssh-*")
    run("podman", "kill", name)
    run("podman", "start", name)
    assert app.fab("up").returncode == 0
    second = guest(app, ends)  # never by the connection to what had its address before
    assert second != first
    [socket] = set(state.glob("ssh-*")) - {socket}
    kept = next(
        line for line in run("ps", "axo", "pid,args").splitlines() if f" {socket.name} [m" in line
    )
    os.kill(int(kept.split()[0]), signal.SIGKILL)
    assert guest(app, ends) not in (first, second)
    assert app.fab("stop").returncode == 0
    assert not list(state.glob("ssh-*"))


def test_two_folders_of_one_name_at_the_same_time_share_one_build(guests: MakeProject) -> None:
    images = run("podman", "images", "--noheading", "--format", "{{.Repository}}").split()
    for image in images:
        if re.fullmatch(rf"localhost/vagrantp-{built.FIRST}-[0-9a-f]{{10}}", image):
            run("podman", "rmi", "--force", image)
    one = guests("app", "one").write(CONTAINER)
    two = guests("app", "two").write(CONTAINER)
    ups = [app.start("up") for app in (one, two)]
    ends = [up.communicate(timeout=600) for up in ups]
    assert [up.returncode for up in ups] == [0, 0], ends
    assert sum("build base image" in err for _, err in ends) == 1
    assert status(one)["instance"] != status(two)["instance"]
    assert status(one)["address"] != status(two)["address"]
    assert one.fab("rm", "--force").returncode == 0
    assert status(two)["state"] == "running"
    assert guest(two, "hostname") == "app\n"
    image = built.ensure_container_image(Host(Context()), built.FIRST)
    done_by_user_sh = "/etc/profile.d/00-vagrantp.sh"
    run("podman", "run", "--rm", "--network=none", "--entrypoint=cat", image, done_by_user_sh)


def _beset(app: Project, home: Path, sign: Path) -> Project:
    """Plant whatever could leak in: where any of it takes effect, `up` fails or `sign` is there."""
    (app.folder / ".vagrantplugins").write_text(f"File.write('{sign}', 'plugin')\n")
    (app.folder / "Vagrantfile").write_text(f"File.write('{sign}', 'project')\n")
    (home / ".vagrant.d").mkdir(parents=True)
    (home / ".vagrant.d/Vagrantfile").write_text(f"File.write('{sign}', 'home')\n")
    (home / ".ssh").mkdir()
    (home / ".ssh/config").write_text("Host *\n  Port 1\n")
    (home / ".fabric.yaml").write_text("run: {echo: true, pty: true, hide: null}\n")
    images = {"XDG_DATA_HOME": ".local/share", "XDG_CACHE_HOME": ".cache"}
    found = {k: os.environ.get(k, str(Path.home() / folder)) for k, folder in images.items()}
    return Project(app.folder, {**app.environment, **HOSTILE, **found, "HOME": str(home)})


@BOTH
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
def test_an_interrupted_up_leaves_nothing(
    guests: MakeProject, tmp_path: Path, values: dict[str, object], number: int
) -> None:
    app = guests("halfway").write(values)
    up = app.start("up")
    wait_for("halfway-", str(values["INFRA_TYPE"]))
    up.send_signal(number)
    _, err = up.communicate(timeout=120)
    assert up.returncode == 130, err
    assert "Traceback" not in err
    assert status(app)["state"] == "absent"
    left = sorted(path.name for path in (tmp_path / "state/vagrantp").iterdir())
    assert left == ["lock", "metrics.jsonl"]


def test_a_killed_up_is_put_right_by_the_next(guests: MakeProject) -> None:
    app = guests("killed").write(CONTAINER)
    up = app.start("up")
    wait_for("killed-", "container")
    up.kill()
    up.communicate()
    found = status(app)
    assert found["state"] in ("broken", "absent")
    done = app.fab("up")
    assert done.returncode == 0, done.stderr
    assert guest(app, "true") == ""


def test_verbs_of_one_project_wait_for_each_other(guests: MakeProject) -> None:
    app = guests("queue").write(CONTAINER)
    first = app.start("up")
    wait_for("queue-", "container")
    busy = app.fab("up", "--no-wait")
    assert (busy.returncode, busy.stdout) == (8, "")
    assert busy.stderr == "busy: another verb in this project is running\n"
    second = app.fab("up")
    assert first.wait(timeout=60) == 0
    assert "waiting for another verb in this project" in second.stderr
    assert second.stdout.startswith("queue is running already (")


def test_a_lost_state_folder_is_told_and_rm_still_works(guests: MakeProject) -> None:
    app = guests("lost").write(CONTAINER)
    assert app.fab("up").returncode == 0
    shutil.rmtree(Path(app.environment["XDG_STATE_HOME"]) / "vagrantp" / status(app)["instance"])
    found = status(app)
    assert (found["state"], found["reason"]) == ("broken", "its state folder with the keys is gone")
    for verb in ("up", "ssh", "verify"):
        done = app.fab(verb)
        assert (done.returncode, done.stdout) == (8, "")
        assert "is broken: its state folder with the keys is gone" in done.stderr
    assert app.fab("rm", "--force").returncode == 0
    assert status(app)["state"] == "absent"


def test_a_foreign_container_of_our_name_is_never_touched(guests: MakeProject) -> None:
    app = guests("foreign").write(CONTAINER)
    name = f"foreign-{id_from(app.folder)}"
    images = run("podman", "images", "--noheading", "--format", "{{.Repository}}").split()
    ours = next(image for image in images if image.startswith(f"localhost/vagrantp-{built.FIRST}-"))
    run("podman", "create", "--name", name, ours)
    try:
        done = app.fab("up")
        assert (done.returncode, done.stdout) == (3, "")
        assert f"a container called {name} exists and is not this project's" in done.stderr
        assert app.fab("rm", "--force").stdout == f"nothing to remove for {app.folder}\n"
        assert run("podman", "inspect", "--format", "{{.State.Status}}", name) == "created\n"
    finally:
        run("podman", "rm", name)
