"""A process that has imported what `fab` imports, and forks for each call of it.

Half a second of every start of `fab` goes into imports. A call here runs the same script with the
argv, folder, environment and streams of a new process, and ends as that would.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType, TracebackType

BIN = Path(__file__).resolve().parents[1] / ".venv/bin"
MAX_REQUEST = 128 * 1024  # bytes; less than a socket's buffer
ends = [0]  # the last one is the exit status
READ_AT_START = ("LANG", "LC_", "PYTHON")  # of the environment, by Python itself


class Warm:
    """The process, as seen by tests; safe in threads."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [BIN / "python3", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )

    def close(self) -> None:
        """End it."""
        self._requests.close()
        self._process.communicate()

    def run(
        self,
        argv: Sequence[str | Path],
        cwd: Path,
        env: Mapping[str, str],
        input: bytes | int = b"",
        timeout: float = 900,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a script of .venv/bin, or its `python3 -m MODULE`, to its end, as subprocess.run.

        `input`: what is on its stdin, at most as much as a pipe holds, or a file descriptor.
        Raises subprocess.TimeoutExpired.
        """
        for name in {*env, *os.environ}:
            if name.startswith(READ_AT_START) and env.get(name) != os.environ.get(name):
                raise ValueError(f"{name} differs: this takes a new process")
        command = [str(word) for word in argv]
        request = json.dumps([command, str(cwd), dict(env)]).encode()
        with ExitStack() as ours, ThreadPoolExecutor(2) as readers:
            replies, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.enter_context(replies)
            with theirs, ExitStack() as given:
                if isinstance(input, bytes):
                    stdin, writer = os.pipe()
                    given.callback(os.close, stdin)
                    os.write(writer, input)
                    os.close(writer)
                else:
                    stdin = input
                outputs = [os.pipe() for _ in ("stdout", "stderr")]
                for _, end in outputs:
                    given.callback(os.close, end)
                descriptors = [theirs.fileno(), stdin, *(end for _, end in outputs)]
                socket.send_fds(self._requests, [request], descriptors)
            texts = [readers.submit(_read, end) for end, _ in outputs]
            replies.settimeout(timeout)
            pid = int(replies.recv(16))
            try:
                status = int(replies.recv(16))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(command, timeout) from None
            stdout, stderr = (text.result() for text in texts)
        return subprocess.CompletedProcess(command, status, stdout, stderr)


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def _serve(requests: socket.socket) -> tuple[list[str], str, dict[str, str]]:
    """Fork for every request, and return it in the child; exit when nobody can ask any more.

    The replies to each: the child's process id and, once it has ended, its exit status.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = select.poll()
    events.register(requests, select.POLLIN)
    children: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    while True:
        for ready, _ in events.poll():
            if ready in children:
                events.unregister(ready)
                pid, reply = children.pop(ready)
                os.close(ready)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with reply, suppress(OSError):  # who asked may have given up
                    reply.send(b"%-16d" % status)
                continue
            data, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST, 4)
            if not data:
                sys.exit()
            if not (pid := os.fork()):
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for stream, descriptor in enumerate(descriptors[1:]):
                    os.dup2(descriptor, stream)
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                requests.detach()
                for _, reply in children.values():
                    reply.detach()
                argv, cwd, environment = json.loads(data)
                return argv, cwd, environment
            reply = socket.socket(fileno=descriptors[0])
            with suppress(OSError):
                reply.send(b"%-16d" % pid)
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            pidfd = os.pidfd_open(pid)
            events.register(pidfd, select.POLLIN)
            children[pidfd] = pid, reply


def _become(argv: list[str], cwd: str, environment: dict[str, str]) -> None:
    """Run a program as a process would that has just begun; its uncaught errors end ours."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    script = argv[0]
    Path("/proc/self/comm").write_text(Path(script).name)
    ends.append(1)
    try:
        if argv[1:2] == ["-m"]:
            sys.path[0], sys.argv = cwd, [script, *argv[3:]]
            runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
        else:
            sys.path[0], sys.argv, sys.excepthook = str(BIN), argv, _print_without_ours
            main = sys.modules["__main__"] = ModuleType("__main__")
            main.__file__ = script
            exec(compile(Path(script).read_bytes(), script, "exec"), vars(main))
        ends.append(0)
    except SystemExit as end:
        ends.append(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


def _print_without_ours(
    kind: type[BaseException], error: BaseException, at: TracebackType | None
) -> None:
    while at and at.tb_frame.f_code.co_filename != sys.argv[0]:
        at = at.tb_next
    sys.__excepthook__(kind, error.with_traceback(at), at)


def _leave() -> None:
    """End without taking apart, object by object, what was imported before the fork."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ends[-1])


if __name__ == "__main__":
    atexit.register(_leave)  # it comes last
    path = sys.path[:] = [str(BIN), *sys.path[1:]]
    import fabric.main  # noqa: F401
    import vagrantp.cli
    import vagrantp.fab  # noqa: F401

    runpy.run_path(str(BIN.parents[1] / "fabfile.py"))
    runpy.run_module("vagrantp.make")
    sys.path[:] = path
    gc.collect()
    gc.freeze()  # else every child looks through all this for garbage, and so copies it
    _become(*_serve(socket.socket(fileno=int(sys.argv[1]))))
