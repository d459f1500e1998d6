"""What is read in libvirt's logs."""

from __future__ import annotations

import pytest
from vagrantp.providers.libvirt import ended

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
