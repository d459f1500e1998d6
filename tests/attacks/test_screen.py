"""F16: a VM's screen is not every local user's."""

from __future__ import annotations

import re
import subprocess

from tests.conftest import VM, MakeProject
from tests.e2e.conftest import VIRSH, run, status

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def test_a_screen(guests: MakeProject) -> None:
    app = guests().write(VM)
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    name = status(app)["instance"]
    assert "qemu" not in run("ss", "-Hltnp")
    found = re.search(r"<listen type='socket' socket='([^']+)'", run(*VIRSH, "dumpxml", name))
    assert found
    connect = ("/usr/bin/python3", "-c", CONNECT, found[1])
    subprocess.run(connect, check=True)
    refused = subprocess.run([*NOBODY, *connect], capture_output=True, text=True)
    assert "PermissionError" in refused.stderr
