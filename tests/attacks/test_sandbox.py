"""F2, F3: what runs in the sandbox reaches nothing of this host, whoever started it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from vagrantp.core import sandbox
from vagrantp.core.sandbox import Sandbox

NOBODY = 65534
# Prints the name of each thing that could be had.
TRIES = r"""
import ctypes, errno, os, signal, socket, sys

def opens(name, path, mode=os.O_RDONLY):
    try:
        os.close(os.open(path, mode))
        print(name)
    except OSError:
        pass

def calls(name, number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    done, refusals = libc.syscall(number, *arguments), (errno.EPERM, errno.ENOSYS)
    if done >= 0 or ctypes.get_errno() not in refusals:
        print(name, ctypes.get_errno())

home, port, pid, uid = sys.argv[1:]
for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"):
    opens(path, path, os.O_WRONLY)
for path in (home, f"{home}/.ssh", "/proc/self/mem", f"/proc/{pid}/environ", "/proc/1/root"):
    opens(path, path)
for path in ("/etc/shadow", "/etc/sudoers", "/etc/ssl/private", "/run", "/var", "/sys"):
    opens(path, path)
for name in ("kvm", "fuse", "mem", "kmsg", "net/tun", "loop-control", "vhost-net"):
    opens(name, f"/dev/{name}")
for folder in ("/", "/usr/bin", "/etc", "/dev", "/given"):
    opens(f"writes {folder}", f"{folder}/new", os.O_WRONLY | os.O_CREAT)
for address in ("127.0.0.1", "::1", "10.0.2.2", "8.8.8.8"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as stream:
        stream.settimeout(1)
        if stream.connect_ex((address, int(port))) == 0:
            print("connects", address)
for family in (socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK, socket.AF_ALG):
    try:
        socket.socket(family, socket.SOCK_STREAM if family == 40 else socket.SOCK_DGRAM)
        print("family", family)
    except OSError:
        pass
for name in ("\0/org/freedesktop/systemd1/private", "\0vagrantp-test"):  # abstract ones
    with socket.socket(socket.AF_UNIX) as stream:
        if stream.connect_ex(name) == 0:
            print("abstract", name)
try:
    os.kill(int(pid), 0)
    print("signals", pid)
except OSError:
    pass
machine = os.uname().machine == "aarch64"
calls("unshare", 97 if machine else 272, 0x10000000)
calls("clone", 220 if machine else 56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
calls("clone3", 435, 0, 0)
calls("mount", 40 if machine else 165, b"none", b"/tmp", b"tmpfs", 0, 0)
calls("open_by_handle_at", 265 if machine else 304, 3, 0, 0)
calls("bpf", 280 if machine else 321, 0, 0, 0)
calls("keyctl", 219 if machine else 250, 0, 0, 0)
calls("ptrace", 117 if machine else 101, 16, 1, 0, 0)
calls("io_uring_setup", 425, 1, 0)
calls("TIOCSTI", 29 if machine else 16, 0, 0x5412, b"x")
if os.getuid() != int(uid) or os.geteuid() != int(uid):
    print("uid", os.getuid())
for attempt in (lambda: os.setuid(0), lambda: os.chroot("/tmp"), lambda: os.setgroups([0])):
    try:
        attempt()
        print("succeeds")
    except OSError:
        pass
print("done")
"""


@pytest.fixture(params=["root", "user"])
def who(request: pytest.FixtureRequest) -> str:
    """Return who starts the sandbox: root, and an ordinary user."""
    if os.getuid() != 0:
        pytest.skip("only root can be both")
    return str(request.param)


@pytest.fixture
def listening() -> Iterator[int]:
    """Listen on a TCP port of this host, and on an abstract socket."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as other:
        other.bind("\0vagrantp-test")
        other.listen()
        yield server.getsockname()[1]


def run(who: str, asked: Sandbox, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a sandbox that root or an ordinary user starts."""
    argv = sandbox.argv(asked, command)
    if who == "user":  # to whom the checkout may be closed
        copy = shutil.copy(sandbox.JAIL, "/tmp/jail.py")
        copy_argv = ["/usr/bin/python3", "-IS", copy, *argv[3:]]
        argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *copy_argv]
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    finally:
        Path("/tmp/jail.py").unlink(missing_ok=True)


def test_nothing_opens(who: str, listening: int, tmp_path: Path) -> None:
    import pwd

    given = tmp_path / "given"
    given.mkdir()
    (given / "file").write_text("theirs")
    tmp_path.chmod(0o755)
    uid = pwd.getpwnam(sandbox.USER).pw_uid if who == "root" else NOBODY
    with subprocess.Popen(["sleep", "100"]) as other:
        asked = Sandbox(places={"/given": given} if who == "root" else {})
        words = (str(Path.home()), str(listening), str(other.pid), str(uid))
        done = run(who, asked, "/usr/bin/python3", "-IS", "-c", TRIES, *words)
        other.kill()
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_what_is_given_is_there(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("/etc/shadow")
    script = "test -r secret && cat secret; cat link; echo no > secret; echo made > out/it; id -u"
    asked = Sandbox(reads=[tmp_path], writes=[tmp_path / "out"], cwd=str(tmp_path))
    done = run("root", asked, "sh", "-c", script)
    assert done.stdout.startswith("secret")
    assert done.stdout.strip().rpartition("\n")[2] != "0"
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "out/it").read_text() == "made\n"


LIMITS = {
    "memory": "import sys; b = bytearray(600 * 1024**2)",
    "a file": "f = open('/tmp/a', 'wb'); [f.write(bytes(1024**2)) for _ in range(70)]",
    "tmp": "[open(f'/tmp/{n}', 'wb').write(bytes(32 * 1024**2)) for n in range(5)]",
    "shared memory": "[open(f'/dev/shm/{n}', 'wb').write(bytes(32 * 1024**2)) for n in range(5)]",
    "time": "while True: pass",
}


@pytest.mark.parametrize("what", LIMITS)
def test_it_is_limited(who: str, what: str) -> None:
    asked = Sandbox(memory=500, file_size=64, tmp=100, cpu=2)
    done = run(who, asked, "/usr/bin/python3", "-IS", "-c", LIMITS[what])
    assert done.returncode != 0


def test_it_ends_with_who_started_it() -> None:
    mark = f"{os.getpid()}.5"
    script = f"setsid sh -c 'trap \"\" TERM INT HUP; while :; do sleep {mark}; done' & sleep {mark}"
    argv = sandbox.argv(Sandbox(), ["sh", "-c", script])
    with subprocess.Popen(["setpriv", "--pdeathsig=KILL", "--", *argv]) as child:
        while not _at_work(mark):
            assert child.poll() is None
        child.kill()
    for _ in range(500):
        if not _at_work(mark):
            break
        time.sleep(0.01)
    assert not _at_work(mark)


def _at_work(word: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"sleep\0{word}" in path.read_text(errors="replace"):
                return True
        except OSError:
            continue
    return False
