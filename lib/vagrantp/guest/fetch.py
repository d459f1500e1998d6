"""A program in a sandbox, with a way to the internet: `fetch.py GATE FOLDER PROGRAM ARGUMENT…`.

GATE: the unix socket of core/gate.py, which becomes a proxy on this sandbox's loopback; FOLDER:
where PROGRAM writes, and is ended when that is more than anybody needs. The exit status is its own.
"""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from vagrantp.core import relay

MAX_BYTES = 1024**3  # of all that is fetched, with what it is made from
MAX_FILES = 200_000
LOOK = 1.0  # seconds between two looks at them


def main() -> int:
    """Run PROGRAM and return its exit status."""
    gate, folder, *command = sys.argv[1:]
    (Path(folder) / "tmp").mkdir(exist_ok=True)

    def lead(client: socket.socket, stop: int) -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as out:
            out.connect(gate)
            relay.carry(client, out, stop)

    bound = socket.create_server(("127.0.0.1", 0))
    with bound, relay.serving(bound, os.eventfd(0), lead):
        way = f"http://127.0.0.1:{bound.getsockname()[1]}"
        env = {**os.environ, "http_proxy": way, "https_proxy": way}
        with subprocess.Popen(command, env=env) as program:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return program.wait(LOOK)
                if is_too_much(Path(folder)):
                    program.kill()
                    print(f"ERROR! {TOO_MUCH}")
                    return 1


TOO_MUCH = f"more than {MAX_BYTES // 1024**3} GB or {MAX_FILES} files"


def is_too_much(folder: Path) -> bool:
    """Say whether a folder has more than MAX_BYTES or MAX_FILES; links are not followed."""
    size = count = 0
    for place, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        for name in files:
            with suppress(OSError):  # it has just gone
                found = os.lstat(Path(place, name))
                size += found.st_blocks * 512 if stat.S_ISREG(found.st_mode) else 0
        if count > MAX_FILES or size > MAX_BYTES:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
