"""F16: the names in this host's /etc/hosts say what else it has, and are no guest's business."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.attacks.test_resolver import NO_SUCH_NAME, asking, of_all
from tests.conftest import CONTAINER, VM, MakeProject
from tests.e2e.conftest import VIRSH, guest, run, status


@pytest.mark.parametrize("kind", [VM, CONTAINER], ids=["vm", "container"])
def test_no_guest_knows_them(guests: MakeProject, kind: dict[str, object]) -> None:
    words = re.sub("#.*", "", Path("/etc/hosts").read_text()).split()
    names = {word for word in words if re.search(r"[a-z]", word) and "local" not in word}
    names = {name for name in names if not re.match(r"[0-9a-f]*:|ip6-", name)}
    assert names
    app = guests().write(kind)
    up = app.fab("up")
    assert up.returncode == 0, up.stderr
    seen = guest(app, "cat /etc/hosts")
    assert not [name for name in names if re.search(rf"(?<!\S){re.escape(name)}(?!\S)", seen)]
    if kind is VM:  # libvirt's resolver, which its own asked before, would answer with them
        assert "option value='no-hosts'" in run(*VIRSH, "net-dumpxml", "vagrantp", "--inactive")
    own = status(app)
    gateway = own["address"].rpartition(".")[0] + ".1"
    identity = own["instance"].rpartition("-")[2]
    questions = of_all(own["address"], "192.168.1.1")
    questions += [(name, "A", "udp") for name in (f"vagrantp-{identity}", *names, "_gateway")]
    found = json.loads(guest(app, asking(questions, gateway)))
    assert found == [[NO_SUCH_NAME, 0]] * len(questions)
    for name in ("localhost", "$(hostname)", "host.containers.internal"):
        assert guest(app, f"getent hosts {name}").strip()
