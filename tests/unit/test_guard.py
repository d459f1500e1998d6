"""The keeper of the packet filter: what it makes of guests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vagrantp.programs import guard

DOMAIN = """\
<domain><name>app-1234abcd</name>
<metadata><vagrantp:instance xmlns:vagrantp="urn:vagrantp:instance" name="app" id="1234abcd"
  address="10.201.0.5" lan_access="no" lan_allow='{allow}'/></metadata>
<devices><interface type="network"><mac address="52:54:12:34:ab:cd"/>
  <source network="vagrantp"/><target dev="vgp1234abcd"/></interface></devices></domain>
"""
LAN = """\
<interface type="bridge"><mac address="56:54:12:34:ab:cd"/>
  <source bridge="br0"/><target dev="vgl1234abcd"/></interface>"""


def test_the_guest_of_a_domain() -> None:
    rule = {"network": "10.0.0.0/8", "port": 80, "protocol": "tcp"}
    assert guard.guest_of_domain(DOMAIN.format(allow=json.dumps([rule]))) == {
        "name": "app-1234abcd",
        "bridge": "vagrantp0",
        "port": "vgp1234abcd",
        "mac": "52:54:12:34:ab:cd",
        "ip": "10.201.0.5",
        "lan_access": False,
        "lan_allow": [rule],
        "lan": None,
    }
    wishes = {"address": "192.168.1.5/24", "gateway": "192.168.1.1", "resolvers": ["192.168.1.2"]}
    on_a_lan = DOMAIN.format(allow="[]").replace("</devices>", f"{LAN}</devices>")
    found = guard.guest_of_domain(on_a_lan.replace('id="', f"lan='{json.dumps(wishes)}' id=\""))
    assert found and found["lan"] == {
        **wishes,
        "ip": "192.168.1.5",
        "bridge": "br0",
        "port": "vgl1234abcd",
        "mac": "56:54:12:34:ab:cd",
    }
    foreign = DOMAIN.format(allow="[]").replace("<name>app", "<name>other")
    assert guard.guest_of_domain(foreign) is None
    assert guard.guest_of_domain("<domain><name>web</name></domain>") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<devices>", "<devices><interface type='network'><target dev='vnet1'/></interface>"),
        ('type="network"', 'type="direct"'),
        ("<devices>", f"<devices>{LAN}"),
        ('address="10.201.0.5"', 'address="10.201.0.5" lan=\'{"address": null}\''),
        ('<target dev="vgp1234abcd"/>', "<target/>"),
        ("vgp1234abcd", "x } ; drop"),
        ("52:54:12:34:ab:cd", "any"),
        ('"10.201.0.5"', '"10.201.0.5/8"'),
        ("lan_allow='[]'", 'lan_allow=\'[{"network": "any", "port": 1}]\''),
        ("lan_allow='[]'", "lan_allow='[{}]'"),
    ],
)
def test_a_domain_of_ours_that_is_not_as_it_must_be_does_not_start(
    old: str, new: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = DOMAIN.format(allow="[]")
    assert old in sound
    monkeypatch.setattr("sys.stdin", _Text(sound.replace(old, new)))
    assert guard.main(["qemu", "app-1234abcd", "start", "begin", "-"]) == 1
    assert capsys.readouterr().err.startswith("vagrantp guard: qemu: ")


class _Text:
    def __init__(self, text: str) -> None:
        self.text = text

    def read(self) -> str:
        return self.text


def test_what_a_container_may_reach_is_not_for_others_to_write(tmp_path: Path) -> None:
    file = tmp_path / "isolation.json"
    file.write_text('{"lan_access": false, "lan_allow": []}')
    file.chmod(0o600)
    assert guard._wishes(tmp_path) == {"lan_access": False, "lan_allow": [], "lan": None}
    file.chmod(0o620)
    with pytest.raises(guard.Refused, match="may be written by others"):
        guard._wishes(tmp_path)
