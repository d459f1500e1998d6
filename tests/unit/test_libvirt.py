"""What is read in libvirt's logs, and what it is given for what an older version made."""

from __future__ import annotations

import os
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from invoke.context import Context
from vagrantp.core.system import Host
from vagrantp.providers import libvirt
from vagrantp.providers.libvirt import addresses, ended

from tests.unit.test_record import made

START = """2026-11-27 13:00:00.123+0000: starting up libvirt version: 11.3.0, qemu version: 10.0.13
LC_ALL=C \\
/usr/bin/qemu-system-x86_64 \\
-name guest=kvm-app-0a1b2c3d,debug-threads=on \\
-msg timestamp=on
char device redirected to /dev/pts/3 (label charserial0)
"""
# Recorded from QEMU 11.1, 7.2, 7.2, 7.2.
SAID = {
    "KVM internal error. Suberror: 1": """KVM internal error. Suberror: 1
extra data[0]: 0x0000000200000003
emulation failure
RAX=0000000000000000 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000
Code=00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
2026-11-27 13:01:00.123+0000: shutting down, reason=destroyed
""",
    "qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69": """\
2026-11-27T13:00:01.200000Z qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69
2026-11-27 13:00:02.123+0000: shutting down, reason=failed
""",
    "qemu-system-x86_64: terminating on signal 15 from pid 7 (bash)": """\
2026-11-27T13:00:01.2Z qemu-system-x86_64: terminating on signal 15 from pid 7 (bash)
2026-11-27 13:00:01.600+0000: shutting down, reason=shutdown
""",
    "": """2026-11-27T13:00:01.2Z qemu-system-x86_64: warning: host doesn't support kvm-asyncpf
2026-11-27 13:00:01.600+0000: Domain id=7 is tainted: custom-monitor
""",
}


@pytest.mark.parametrize("last", SAID)
def test_the_last_words_of_qemu(last: str) -> None:
    before = START + SAID["KVM internal error. Suberror: 1"]  # of another run
    assert ended.last_words(before + START + SAID[last]) == last


# Answers with what is in files, and keeps what it is called with, and given in a file.
VIRSH = """\
#!/bin/sh
shift 3
echo "$*" >> "$0.called"
case $* in
    "net-dumpxml --inactive vagrantp") cat "$0.inactive" ;;
    "net-dumpxml vagrantp") cat "$0.active" ;;
    "net-list --name") echo vagrantp ;;
    "net-define "*) cp "$2" "$0.inactive" ;;
    update-device*) cat "$3" >> "$0.called" ;;
esac
"""


@pytest.fixture
def virsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a virsh on PATH; its files are beside it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    virsh = tmp_path / "virsh"
    virsh.write_text(VIRSH)
    virsh.chmod(0o755)
    return virsh


def test_an_old_screen(virsh: Path) -> None:
    app, host = made("c0773ba-vm"), Host(Context())
    libvirt.start(host, app)
    libvirt.start(host, app)
    assert virsh.with_suffix(".called").read_text().splitlines() == [
        f"update-device {app.full_name} {app.state_dir}/screen.xml --config",
        '<graphics type="vnc"><listen type="socket"/></graphics>start app-0a1b2c3d',
        "start app-0a1b2c3d",
    ]
    assert "vnc_password" not in app.machine_json.read_text()
    assert not (app.state_dir / "screen.xml").exists()


@pytest.mark.parametrize("connections", ["", "connections='1' "])
def test_an_old_network(virsh: Path, connections: str) -> None:
    app, host = made("c0773ba-vm"), Host(Context())
    text = "<network {}><name>vagrantp</name><ip address='10.201.7.1' netmask='255.255.255.0'/>"
    virsh.with_suffix(".inactive").write_text(text.format("") + "</network>")
    virsh.with_suffix(".active").write_text(text.format(connections) + "</network>")
    for _ in range(2):
        assert addresses.ensure_network(host, app) == IPv4Network("10.201.7.0/24")
    called = virsh.with_suffix(".called").read_text()
    assert called.count("net-define") == 1
    assert called.count("net-destroy") == (not connections)
    assert 'value="no-hosts"' in virsh.with_suffix(".inactive").read_text()
