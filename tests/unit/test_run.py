"""The one gate for every side effect, and what a child process inherits. Real processes."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.errors import ProviderError, UnansweredError
from vagrantp.core.process import Child, environment
from vagrantp.core.start import Held, command_line
from vagrantp.core.system import Host


@pytest.fixture
def host() -> Host:
    Child.interrupts = 0
    return Host(Context())


def test_ask_returns_output_and_status(host: Host) -> None:
    answer = host.ask(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (answer.stdout, answer.stderr, answer.return_code) == ("out\n", "err\n", 3)


def test_arguments_arrive_as_they_are(host: Host) -> None:
    nasty = ["a b", "$(touch /tmp/x)", "`id`", "'", '"', "\n", ";", "#{x}", "é", ""]
    assert host.ask(["printf", "%s\\0", *nasty]).stdout.split("\0")[:-1] == nasty


def test_a_child_has_nothing_on_its_stdin(host: Host) -> None:
    assert host.ask(["cat"], timeout=5).stdout == ""


def test_a_child_has_no_terminal_to_ask_on() -> None:
    asks = "from invoke.context import Context; from vagrantp.core.system import Host; "
    asks += "print(Host(Context()).ask(['sh', '-c', 'exec 3<>/dev/tty']).return_code)"
    command = shlex.join([sys.executable, "-c", asks])
    argv = ["script", "--quiet", "--return", "--command", command, "/dev/null"]  # on a terminal
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert done.stdout.strip() == b"2"  # of a shell whose redirection failed


def test_a_missing_tool(host: Host) -> None:
    with pytest.raises(ProviderError, match="no-such-tool is not installed"):
        host.ask(["no-such-tool"])


def test_a_tool_that_hangs(host: Host) -> None:
    with pytest.raises(ProviderError, match="sleep did not finish in 1 seconds"):
        host.ask(["sleep", "60"], timeout=0.6)


def test_a_failure_names_the_line_that_matters(host: Host, tmp_path: Path) -> None:
    host = Host(Context(), log=tmp_path / "log")
    with pytest.raises(ProviderError) as caught:
        host.change(
            ["sh", "-c", "echo one; echo 'error: two'; echo three; exit 1"], what="it", timeout=9
        )
    assert caught.value.message == "it failed: error: two"
    assert caught.value.hint == f"the full log is {tmp_path / 'log'}"
    assert "three" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("end", ["", "\\n"])
def test_a_line_that_comes_in_pieces_is_one(host: Host, end: str) -> None:
    script = f"for i in 'error: ' t wo '{end}'; do printf \"$i\" >&2; sleep 0.02; done; exit 1"
    with pytest.raises(ProviderError, match=r"^it failed: error: two$"):
        host.change(["sh", "-c", script], what="it", timeout=9)


def test_an_answer_or_the_reason_why_there_is_none(host: Host) -> None:
    assert host.answer(["printf", "yes"]) == "yes"
    with pytest.raises(ProviderError, match=r"^sh failed: two$") as caught:
        host.answer(["sh", "-c", "printf 'one\\nerror: two\\n' >&2; exit 1"])
    assert caught.value.hint is None


FLOODS = """
import sys
from pathlib import Path
from invoke.context import Context
from vagrantp.core.errors import FloodError, ProviderError
from vagrantp.core.system import Host
log = Path("log")
for script in sys.argv[1:]:
    try:
        Host(Context()).ask(["sh", "-c", script])
    except FloodError as error:
        print(error)
    log.write_bytes(b"")
    try:
        Host(Context(), log=log).change(["sh", "-c", f"{script}; exit 1"], what="it", timeout=60)
    except ProviderError as error:
        print(len(str(error)) < 5000, log.stat().st_size < 5_000_000)
[most] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(int(most) < 200_000)
"""


@pytest.mark.slow
def test_what_a_child_prints_is_bounded(tmp_path: Path) -> None:
    scripts = ["head -c 20000000 /dev/zero", "yes | head -c 20000000 >&2"]
    argv = [sys.executable, "-c", FLOODS, *scripts]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)
    floods = [f"sh printed more than 16 MB: sh -c '{script}'" for script in scripts]
    assert done.stdout.splitlines() == [
        *(line for flood in floods for line in (flood, "True True")),
        "True",
    ]


@pytest.mark.slow
def test_a_log_has_the_first_lines_and_the_last(tmp_path: Path) -> None:
    log = tmp_path / "log"
    Host(Context(), log=log).change(["seq", "1000000"], what="it", timeout=9)
    lines = log.read_text().splitlines()
    [gap] = [number for number, line in enumerate(lines) if line.startswith("…")]
    assert lines[1:gap] == [str(number) for number in range(1, gap)]
    assert lines[gap] == f"… {1_000_001 - gap} more lines, the last of which are:"
    assert lines[gap + 1 :] == [str(number) for number in range(999_001, 1_000_001)]


def test_a_log_and_verbose_have_nothing_that_is_not_printable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = Host(Context(), verbose=True, log=tmp_path / "log")
    script = r"printf '\033]52;c;aGk=\007\twide é\rover\n\342\200\256\377\n'; exit 1"
    with pytest.raises(ProviderError):
        host.change(["sh", "-c", script, "\x1b\udcff"], what="it", timeout=9)
    text = (tmp_path / "log").read_text()
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.endswith("'\\x1b\\udcff'")
    assert lines == [r"\x1b]52;c;aGk=\x07    wide é", "over", "\\u202e�"]
    assert lines == text.splitlines()[1:]


def test_a_character_is_whole_wherever_it_comes_in_two_pieces(host: Host) -> None:
    script = (
        r"printf '\303'; sleep 0.05; printf '\251'; head -c 200001 /dev/zero | tr '\0' x; echo é"
    )
    assert host.ask(["sh", "-c", script]).stdout == f"é{'x' * 200_001}é\n"


def test_dry_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = Host(Context(), dry=True)
    (tmp_path / "old").write_text("old")
    host.change(["touch", str(tmp_path / "a")], what="it", timeout=9)
    host.write(tmp_path / "b", "b")
    host.make_dir(tmp_path / "c")
    host.move(tmp_path / "old", tmp_path / "new")
    host.link(tmp_path / "d", tmp_path / "old")
    host.remove(tmp_path / "old")
    with host.lock(tmp_path / "locks", "key", "it"):
        pass
    host.exec_process(["false"])
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert capsys.readouterr().out.splitlines() == [
        f"would run touch {tmp_path}/a",
        f"would write {tmp_path}/b",
        f"would make folder {tmp_path}/c",
        f"would move {tmp_path}/old to {tmp_path}/new",
        f"would link {tmp_path}/d to {tmp_path}/old",
        f"would remove {tmp_path}/old",
        "would run false",
    ]


def test_hostile_variables_do_not_reach_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAGRANT_HOME", "VAGRANT_VAGRANTFILE", "DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(name, "hostile")
    for name in ("ANSIBLE_CONFIG", "LIBVIRT_DEFAULT_URI", "RUBYOPT", "GEM_HOME", "LD_PRELOAD"):
        monkeypatch.setenv(name, "hostile")
    assert "hostile" not in environment().values()


def test_files_are_private_and_whole(host: Host, tmp_path: Path) -> None:
    host.make_dir(tmp_path / "a/b")
    host.write(tmp_path / "a/b/key", "secret")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a/b/key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["key"]


HOLD = """
import sys, time
from pathlib import Path
from invoke.context import Context
from vagrantp.core.system import Host
host, folder = Host(Context()), Path(sys.argv[1])
with host.lock(folder, "key", "it"):
    with host.lock(folder, "inner", "it"):
        pass
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_waited_for_and_ends_with_its_holder(host: Host, tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    with host.lock(tmp_path, "another key", "it"):
        pass
    start = time.monotonic()
    threading.Timer(0.4, holder.kill).start()
    with host.lock(tmp_path, "key", "it"):
        assert time.monotonic() - start > 0.3
    holder.wait()


CHANGE = """
import os, signal, sys, threading, time
from pathlib import Path
from invoke.context import Context
from vagrantp.core.errors import Interrupted
from vagrantp.core.system import Host

def interrupt():  # what comes while invoke does not wait for the child yet, or again, kills it
    for number in range(int(sys.argv[2])):
        while True:
            # in this order: a child that has said it may find main on its way to wait()
            has_said = said.exists() and said.read_text() == f"{number}\\n"
            at = sys._current_frames()[main].f_code
            if has_said and (Path(at.co_filename).name, at.co_name) == ("runners.py", "wait"):
                break
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

main, said = threading.get_ident(), Path("said")
threading.Thread(target=interrupt, daemon=True).start()
try:
    Host(Context()).change(["sh", "-c", sys.argv[1]], what="it", timeout=60)
except Interrupted:
    print("interrupted")
"""


@pytest.mark.parametrize(
    ("on_interrupt", "count", "last"),
    [("echo cleaned > said; exit 1", 1, "cleaned\n"), ("echo 1 > said", 2, "1\n")],
    ids=["the child ends", "a second one kills it"],
)
def test_an_interrupt_reaches_the_child_and_then_us(
    tmp_path: Path, on_interrupt: str, count: int, last: str
) -> None:
    script = f"trap '{on_interrupt}' INT; echo 0 > said; sleep 31 >/dev/null 2>&1 & wait; sleep 31"
    argv = [sys.executable, "-c", CHANGE, script, str(count)]
    start = time.monotonic()
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout == b"interrupted\n"
    assert (tmp_path / "said").read_text() == last
    assert time.monotonic() - start < 10


def test_a_held_command_does_nothing_until_it_is_released(host: Host, tmp_path: Path) -> None:
    argv = ["sh", "-c", 'echo loaded >> said; [ "$(cat)" = go ] && echo done >> said']
    held = [Held(command_line(argv, tmp_path), environment()) for _ in range(2)]
    said = tmp_path / "said"
    deadline = time.monotonic() + 10
    while not said.exists() or len(said.read_text()) < len("loaded\n" * 2):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    host.change(argv, what="it", timeout=9, cwd=tmp_path, held=held[0])
    for each in held:
        each.end()
    assert said.read_text() == "loaded\nloaded\ndone\n"


def test_a_held_command_that_does_not_end_by_itself_is_killed(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; trap '' TERM; while :; do sleep 0.1; done"
    held = Held(command_line(["sh", "-c", script]), environment())
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    held.end()
    held.end()  # again does nothing
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_held_command_that_has_ended_fails_with_what_it_said(host: Host, tmp_path: Path) -> None:
    argv = ["sh", "-c", "echo error: no >&2; exit 3"]
    held = Held(command_line(argv), environment())
    time.sleep(0.2)
    with pytest.raises(ProviderError, match="it failed: error: no"):
        host.change(argv, what="it", timeout=9, held=held)


def test_what_a_killed_verb_left_running_is_waited_for(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vagrantp.core.system.GRACE", 1.0)
    mark = f"VAGRANTP_ID=test{os.getpid()}"
    name, _, value = mark.partition("=")
    start = time.monotonic()
    for tool in ("podman", "conmon"):
        (tmp_path / tool).symlink_to("/bin/sleep")
    children, others = (
        [
            subprocess.Popen([tmp_path / tool, seconds], env={name: its})
            for tool, seconds, its in each
        ]
        for each in (
            (("podman", "0.1", value), ("podman", "1000", value)),
            (("podman", "1000", f"{value}0"), ("conmon", "1000", value)),
        )
    )
    waiters = [threading.Thread(target=child.wait) for child in children]
    for waiter in waiters:
        waiter.start()
    host.wait_for_orphans(mark)
    assert 1 <= time.monotonic() - start < 5
    assert [child.poll() for child in children] == [0, -signal.SIGTERM]
    assert [other.poll() for other in others] == [None, None]
    for other in others:
        other.kill()
        other.wait()


def test_a_lock_of_another_program_is_waited_for_and_given_up(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vagrantp.core.locks.FLOCK_TIMEOUT", 0.6)
    file = tmp_path / "it's locked"
    argv = ["flock", str(file), "sh", "-c", "echo; sleep 0.2"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        with host.flock(file):
            assert other.wait() == 0
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UnansweredError, match="was held for 1 seconds"), host.flock(file):
            pass
