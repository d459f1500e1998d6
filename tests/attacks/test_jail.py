"""F2, F3: ways out of the sandbox that other sandboxes had. The numbers are those of README.md."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def ordinary() -> Iterator[None]:
    """Be an ordinary user, and start programs as one."""
    if os.getuid() != 0:
        yield
        return
    os.setresgid(65534, 65534, 0)
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


def python(script: str, *words: str, inherit: bool = False, **asked: object) -> str:
    """Run a script of Python in a sandbox; return what it printed."""
    from vagrantp.core import sandbox

    argv = sandbox.argv(
        sandbox.Sandbox(**asked),  # type: ignore[arg-type]
        ["/usr/bin/python3", "-IS", "-c", script, *words],
    )
    done = subprocess.run(
        argv,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=60,
        close_fds=not inherit,
    )
    return done.stdout + done.stderr


DESCRIPTORS = """
import fcntl
for number in range(4096):
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
        print(number)
    except OSError:
        pass
"""


def test_nothing_is_inherited() -> None:
    """25, by one descriptor below and one above what Python itself opens."""
    low = os.open("/", os.O_RDONLY)
    os.dup2(low, 1000, inheritable=True)
    os.set_inheritable(low, True)
    try:
        assert python(DESCRIPTORS, inherit=True) == "0\n1\n2\n"
    finally:
        os.close(low)
        os.close(1000)


CALLS = """
import ctypes, errno, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
HIGH = 1 << 32
machine = os.uname().machine == "aarch64"
REFUSALS = (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT)

def call(name, x86, arm, *arguments, refusals=REFUSALS):
    ctypes.set_errno(0)
    words = [ctypes.c_uint64(one) if isinstance(one, int) else one for one in arguments]
    done = libc.syscall(ctypes.c_long(arm if machine else x86), *words)
    if done >= 0 or ctypes.get_errno() not in refusals:
        print(name, done, ctypes.get_errno())

call("TIOCSTI", 16, 29, 0, HIGH | 0x5412, b"x")
call("TIOCLINUX", 16, 29, 0, HIGH | 0x541C, b"x")
call("clone", 56, 220, HIGH | 0x10000000 | 17, 0, 0, 0, 0)
call("socket", 41, 198, HIGH | 16, 3, 0)
call("socket", 41, 198, 38, 5, 0)
call("unshare", 272, 97, HIGH | 0x10000000)
for number in range(444, 512):
    call(number, number, number, 0, 0, 0, 0, 0, 0, refusals=[errno.ENOSYS])
print("done")
"""


def test_a_number_with_higher_bits_is_the_same_call() -> None:
    """27, 28, 29."""
    assert python(CALLS) == "done\n"


INT80 = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))  # getpid, as 32-bit programs call it
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
"""
X32 = "import ctypes; print(ctypes.CDLL(None).syscall(0x40000000 + 39))"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="of x86_64")
@pytest.mark.parametrize("script", [INT80, X32], ids=["int 0x80", "x32"])
def test_calls_of_other_architectures_kill(script: str) -> None:
    """30."""
    assert python(script) == ""


FORK = """
import os, time
count = 0
try:
    while count < 5000:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except OSError:
    print("refused")
"""


def test_a_fork_bomb_is_limited() -> None:
    """31."""
    assert python(FORK) == "refused\n"


SHARED = """
import ctypes
libc = ctypes.CDLL(None)
print(libc.shmget(4711, 4096, 0o666), libc.msgget(4711, 0o666), libc.semget(4711, 1, 0o666))
print(libc.mq_open(b"/vagrantp-attack", 0))
"""


def test_memory_is_not_shared() -> None:
    """32."""
    import ctypes

    libc = ctypes.CDLL(None)
    made = libc.shmget(4711, 4096, 0o1666)
    try:
        assert python(SHARED) == "-1 -1 -1\n-1\n"
    finally:
        libc.shmctl(made, 0, None)


def test_no_daemon_stays() -> None:
    """33."""
    word = f"49.{os.getpid()}"
    twice = f"os.fork() or (os.setsid(), os.fork() or os.execvp('sleep', ['sleep', '{word}']))"
    python(f"import os, time; {twice}; time.sleep(0.3)")
    found = subprocess.run(["ps", "-e", "-o", "args"], capture_output=True, text=True, check=True)
    assert f"sleep {word}" not in found.stdout.splitlines()


OWN = """
import os, shutil, subprocess, sys
for name in ("sudo", "su", "pkexec", "mount", "newuidmap", "passwd", "PROJECT/setuid"):
    if path := shutil.which(name):
        done = subprocess.run([path, "-u"], capture_output=True, stdin=subprocess.DEVNULL)
        if done.stdout == b"0\\n":
            print(name)
for path in (sys.executable, "/usr/bin/sh", "/proc/self/exe", "/etc/passwd", "/dev/null/x"):
    try:
        os.close(os.open(path, os.O_WRONLY))
        print("writes", path)
    except OSError:
        pass
for name in ("mem", "kmsg", "disk"):
    try:
        os.close(os.open(f"PROJECT/{name}", os.O_RDONLY))
        print("opens", name)
    except OSError:
        pass
print(os.path.exists("/etc/shadow"), os.path.exists("/root"))
"""


def test_nothing_in_a_project_gives_rights(tmp_path: Path) -> None:
    """17, 18, 26, 34."""
    if os.getuid() != 0:
        pytest.skip("only root can make them")
    for name, device in {"mem": (1, 1), "kmsg": (1, 11), "disk": (8, 0)}.items():
        os.mknod(tmp_path / name, stat.S_IFCHR | 0o666, os.makedev(*device))
    (tmp_path / "setuid").write_bytes(Path("/usr/bin/id").read_bytes())
    (tmp_path / "setuid").chmod(0o4755)
    script = OWN.replace("PROJECT", str(tmp_path))
    assert python(script, reads=[tmp_path]) == "False False\n"


def test_a_mount_in_a_project_is_read_only(tmp_path: Path) -> None:
    """21."""
    if os.getuid() != 0:
        pytest.skip("only root can mount")
    from vagrantp.core import sandbox

    (tmp_path / "mounted").mkdir()
    asked = sandbox.Sandbox(reads=[tmp_path])
    argv = sandbox.argv(asked, ["touch", str(tmp_path / "mounted/new")])
    mount = 'mount -t tmpfs -o mode=777 none "$0"; exec "$@"'
    amid = ["unshare", "--mount", "sh", "-ec", mount, str(tmp_path / "mounted")]
    done = subprocess.run([*amid, *argv], capture_output=True, text=True, check=False, timeout=20)
    assert "Read-only file system" in done.stderr


def test_a_file_that_is_a_link_is_not_bound(tmp_path: Path) -> None:
    """24: a link that a guest puts where a file was granted."""
    (tmp_path / "vars.yml").symlink_to("/etc/shadow")
    script = f"print(open({str(tmp_path / 'vars.yml')!r}).read())"
    assert "root:" not in python(script, reads=[tmp_path, tmp_path / "vars.yml"])


# What a sandbox has written.


def nested(folder: Path, names: list[str]) -> None:
    """Make folders in each other, deeper than a path may be long."""
    place = os.open(folder, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=place)
        inner = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)


def _special(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/shadow")
    (folder / "folder").symlink_to("/etc")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(folder, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)


def _closed(folder: Path) -> None:
    (folder / "closed").mkdir()
    (folder / "closed/file").touch()
    (folder / "closed").chmod(0)


def _setuid(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "file").chmod(0o7777)


def _odd(folder: Path) -> None:
    (folder / "a\nb").touch()
    (folder / "caf\udce9\x1b]0;x").touch()
    (folder / ("n" * 255)).touch()


WRITTEN: dict[str, tuple[Callable[[Path], None], int]] = {
    "special files": (_special, 0),
    "a closed folder": (_closed, 1),
    "setuid": (_setuid, 1),
    "odd names": (_odd, 3),
    "deep": (lambda folder: nested(folder, ["d"] * 5000), 0),
    "long": (lambda folder: nested(folder, ["n" * 255] * 20), 0),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_was_fetched_is_taken_and_removed(kind: str) -> None:
    """41 to 46, as an ordinary user: root may anything."""
    from vagrantp.core import files

    make, count = WRITTEN[kind]
    with tempfile.TemporaryDirectory(prefix="attack.") as root:
        Path(root).chmod(0o777)
        source, target = Path(root, "source"), Path(root, "target")
        with ordinary():
            source.mkdir()
            target.mkdir()
            (target / "file").mkdir()  # an earlier run's
            make(source)
            files.adopt(source, target)
            files.remove_tree(source)
        assert not source.exists()
        found = [path for path in target.rglob("*") if not path.is_dir()]
        assert len(found) == count
        for path in found:
            mode = path.lstat().st_mode
            assert stat.S_ISREG(mode) and not mode & 0o7000


EVENTS = {
    "deep": b'{"refused": ' + b"[" * 50_000 + b"]" * 50_000 + b"}\n",
    "many failures": b'{"failed": {"play": "", "task": "", "place": "", "message": ""}}\n'
    * 129_000,
    "many lines": b'{"refused": [' + b'"",' * 2_000_000 + b'""]}\n',
    "long numbers": b'{"tasks": [' + b"9" * 4000 + b", 1]}\n",
    "negative numbers": b'{"counts": {"ok": -1, "changed": 1}}\n',
    "no numbers": b'{"tasks": [NaN, Infinity]}\n{"counts": {"ok": 1e999, "changed": null}}\n',
    "many, on one line": b'{"tasks": [1, 2]' + b', "tasks": [1, 2]' * 400_000 + b"}\n",
    "not text": b'\xff\x00\n{"failed": 1}\n[]\n"tasks"\n',
}


@pytest.mark.parametrize("kind", EVENTS)
def test_events_of_a_liar(tmp_path: Path, kind: str) -> None:
    """37, 38, 39: they are read in a second or two, and are few and small."""
    from vagrantp.guest import events

    file = tmp_path / "events"
    file.write_bytes(EVENTS[kind])
    before = time.process_time()
    found = events.read(file)
    assert time.process_time() - before < 5
    assert len(found.failures) + len(found.refused) + len(found.for_nobody) <= 200
    assert not found.has_ended
    assert max(found.task or [0]) < 10**7


EXCHANGE = """
import os
os.symlink("/etc/shadow", "/tmp/link")
for act in (os.unlink, lambda path: os.rename("/tmp/link", path)):
    try:
        act("/run/vagrantp/events")
        print("done")
    except OSError:
        pass
with open("/run/vagrantp/events", "wb") as file:
    file.truncate(1 << 29)
"""


def test_the_file_of_events_stays_itself(tmp_path: Path) -> None:
    """40."""
    from vagrantp.guest import events

    file = tmp_path / "events"
    file.touch()
    assert python(EXCHANGE, writable={"/run/vagrantp/events": file}) == ""
    assert not file.is_symlink()
    assert events.read(file) == events.Events()
