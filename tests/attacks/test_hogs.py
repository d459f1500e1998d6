"""A guest that takes all it can get: this host's root, and other guests, notice nothing."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

import pytest
from vagrantp.providers.podman.options import FEWEST_TASKS, MOST_TASKS

from tests.conftest import CONTAINER, MakeProject, Project
from tests.e2e.conftest import guest, run, status

# As root and as two other users of the guest, each for itself: prints how many it got.
HOG = """
import ctypes, os, resource, signal, sys, time
libc, kind, most = ctypes.CDLL(None), sys.argv[1], int(sys.argv[2])
def take():
    try:
        if kind == "processes":
            if os.fork() == 0:
                libc.prctl(1, 9)  # PR_SET_PDEATHSIG: all end with the first
                time.sleep(600)
            return True
        if kind == "files":
            return os.open("/dev/null", os.O_RDONLY) > 0
        if kind == "signals":
            return libc.sigqueue(os.getpid(), signal.SIGRTMIN, None) == 0
        if kind == "queues":
            name = b"/%d-%d" % (os.getpid(), time.monotonic_ns())
            return libc.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
        return libc.inotify_init1(0) >= 0
    except OSError:
        return False
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
for user in (0, 4242, 4243):
    ours, theirs = os.pipe()
    try:
        child = os.fork()
    except OSError:  # another user of the guest has all processes
        print(0, flush=True)
        continue
    if child == 0:
        os.setuid(user)
        libc.prctl(1, 9)
        got = 0
        while got < most and take():
            got += 1
        os.write(theirs, b"%d" % got)
        time.sleep(600)
    print(int(os.read(ours, 99)), flush=True)
print("done", flush=True)
sys.stdin.read()
"""
SECRET = b"vagrantp-of-this-host"
ADD_KEY, USER_KEYRING = 248, -4  # of x86-64


@contextmanager
def hogging(app: Project, kind: str, most: int) -> Iterator[list[int]]:
    """Have a guest take what it gets of a kind; give how much each user of it has got."""
    name = status(app)["instance"]
    argv = ("podman", "exec", "--interactive", name, "python3", "-c", HOG, kind, str(most))
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin and process.stdout
        said = iter(process.stdout.readline, "done\n")
        yield [int(line) for line in said]
        process.stdin.close()  # it ends


QUEUE = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
queued = [libc.sigqueue(os.getpid(), signal.SIGRTMIN, None) for _ in range(1000)]
is_open = libc.mq_open(b"/vagrantp-test", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
libc.mq_unlink(b"/vagrantp-test")
sys.exit(any(queued) or not is_open)
"""


def _queues() -> bool:
    """Say whether this host's root queues signals, and messages."""
    return subprocess.run((sys.executable, "-c", QUEUE), check=False).returncode == 0


def _has_inotify() -> bool:
    """Say whether a new process of this host's root gets an inotify instance."""
    script = "import ctypes, sys; sys.exit(ctypes.CDLL(None).inotify_init1(0) < 0)"
    return subprocess.run((sys.executable, "-c", script), check=False).returncode == 0


def _opens(user: int) -> bool:
    """Say whether a user of this host, who may not exceed fs.file-max, opens files."""
    argv = ("setpriv", f"--reuid={user}", "--clear-groups", "cat", "/etc/hostname")
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def test_a_guest_that_takes_all(guests: MakeProject) -> None:
    app = guests("hog").write({**CONTAINER, "MEMORY": 512})
    assert app.fab("up").returncode == 0
    name = status(app)["instance"]
    pid = run("podman", "inspect", "--format", "{{.State.Pid}}", name).strip()

    with hogging(app, "inotify", 500) as got:
        assert got == [500] * 3  # as many as it wants: what it has is in its MEMORY …
        assert _has_inotify()  # … and this host's root has its own

    with hogging(app, "files", 15000) as got:
        assert min(got) > 1000
        assert _opens(65534)
        # struct file alone has more than 100 bytes, and is in its MEMORY
        assert int(Path("/proc/sys/fs/file-max").read_text()) > 512 * 1024**2 // 100

    # the kernel counts these for this host's root, too, who keeps half
    kinds = {"signals": resource.RLIMIT_SIGPENDING, "queues": resource.RLIMIT_MSGQUEUE}
    for kind, resource_ in kinds.items():
        most = resource.getrlimit(resource_)[1]
        with hogging(app, kind, most) as got:
            size_of_one = 1 if kind == "signals" else 10 * 8192  # mq_overview(7), defaults
            assert 0 < sum(got) * size_of_one <= most // 2
            assert _queues()

    limit = _limit_of_processes(pid)
    tasks = int(limit.read_text())
    assert FEWEST_TASKS <= tasks <= MOST_TASKS
    kernels = (Path("/proc/sys/kernel", one).read_text() for one in ("pid_max", "threads-max"))
    assert tasks < min(map(int, kernels)) / 2
    limit.write_text("300")  # to have it soon; `podman update` of 4.3 cannot
    with hogging(app, "processes", 10**6) as got:
        assert 200 < sum(got) < 300
        assert subprocess.run(("true",), check=False).returncode == 0

    size = run("podman", "exec", name, "sh", "-c", "df -k --output=size /dev/shm | tail -n 1")
    assert int(size) == 256 * 1024


def _limit_of_processes(pid: str) -> Path:
    """Return the file of a cgroup that has it."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        unified = Path("/sys/fs/cgroup", path.lstrip("/"), "pids.max")
        if not kinds and unified.exists():
            return unified
        if "pids" in kinds.split(","):
            return Path("/sys/fs/cgroup/pids", path.lstrip("/"), "pids.max")
    raise LookupError(pid)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
@pytest.mark.parametrize("nested", ["no", "yes"])
def test_a_guest_reads_no_key_of_this_host(
    guests: MakeProject, nestable: None, nested: str
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    key = libc.syscall(ADD_KEY, b"user", SECRET, b"x", 1, USER_KEYRING)
    if key < 0:
        pytest.skip(f"no keyrings here: {os.strerror(ctypes.get_errno())}")
    app = guests("reader").write({**CONTAINER, "NESTED": nested})
    assert app.fab("up").returncode == 0
    script = f"""
import ctypes, json
libc = ctypes.CDLL(None, use_errno=True)
room = ctypes.create_string_buffer(100)
listed = open("/proc/keys").read()
libc.syscall(250, 11, {key}, room, 100)  # keyctl(KEYCTL_READ)
print(json.dumps([{SECRET.decode()!r} in listed, ctypes.get_errno(), room.value.decode()]))
"""
    for who in ("", "sudo "):
        assert json.loads(guest(app, f"{who}python3 -c {quote(script)}")) == [False, 38, ""]
