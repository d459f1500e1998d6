"""The keeper of the packet filter: what it makes of guests, and that nft takes it."""

from __future__ import annotations

import json
import os
import subprocess
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vagrantp_guard import cli, guests, ruleset
from vagrantp_guard.system import Refused

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
PORTS = st.integers(1, 65535)
NETWORKS = st.tuples(st.integers(0, 255), st.integers(8, 32)).map(
    lambda pair: str(IPv4Interface(f"10.{pair[0]}.7.9/{pair[1]}").network)
)
RULES = st.one_of(
    st.builds(lambda n: {"network": n, "port": None, "protocol": None}, NETWORKS),
    st.builds(
        lambda n, port, protocol: {"network": n, "port": port, "protocol": protocol},
        NETWORKS | st.none(),
        PORTS,
        st.sampled_from(["tcp", "udp"]),
    ),
)


def nft_takes(rules: str) -> None:
    """Load rules into a network namespace of their own."""
    own = ["unshare", "--net", *([] if os.getuid() == 0 else ["--map-root-user"])]
    done = subprocess.run(
        [*own, "sh", "-c", "PATH=$PATH:/usr/sbin nft -f -"],
        input=rules,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr + rules


LANS = st.one_of(
    st.none(),
    st.builds(
        lambda address, resolvers: {
            "port": "vgl00000000",
            "bridge": "br-lan.2",
            "mac": "56:54:00:00:00:00",
            "address": address,
            "gateway": "192.168.1.1",
            "resolvers": resolvers,
        },
        st.sampled_from([None, "192.168.1.50/24", "10.0.7.9/8"]),
        st.lists(st.sampled_from(["192.168.1.1", "10.0.0.1"]), max_size=2),
    ),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.lists(RULES, max_size=6), st.booleans(), LANS), max_size=4))
def test_nft_takes_the_rules_of_any_guests(
    wishes: list[tuple[list[guests.Guest], bool, guests.Guest | None]],
) -> None:
    known = [
        {
            "name": f"app-0000000{number}",
            "bridge": "vagrantp0",
            "port": f"vgp0000000{number}",
            "mac": f"52:54:00:00:00:0{number}",
            "ip": f"10.201.0.{number + 2}",
            "lan_access": is_open,
            "lan_allow": rules,
            "lan": lan and {**lan, "port": f"vgl0000000{number}"},
        }
        for number, (rules, is_open, lan) in enumerate(wishes)
    ]
    networks = [IPv4Interface("192.168.1.5/24"), IPv4Interface("203.0.113.5/28")]
    nft_takes(ruleset.rules(map(guests.checked, known), networks))
    for guest in known:
        nft_takes(ruleset.inside_rules(guest, [IPv4Interface("192.168.1.5/24")]))


def test_the_guest_of_a_domain() -> None:
    rule = {"network": "10.0.0.0/8", "port": 80, "protocol": "tcp"}
    assert guests.guest_of_domain(DOMAIN.format(allow=json.dumps([rule]))) == {
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
    found = guests.guest_of_domain(on_a_lan.replace('id="', f"lan='{json.dumps(wishes)}' id=\""))
    assert found and found["lan"] == {
        **wishes,
        "ip": "192.168.1.5",
        "bridge": "br0",
        "port": "vgl1234abcd",
        "mac": "56:54:12:34:ab:cd",
    }
    foreign = DOMAIN.format(allow="[]").replace("<name>app", "<name>other")
    assert guests.guest_of_domain(foreign) is None
    assert guests.guest_of_domain("<domain><name>web</name></domain>") is None


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
    assert cli.main(["qemu", "app-1234abcd", "start", "begin", "-"]) == 1
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
    assert guests.wishes_of(tmp_path) == {"lan_access": False, "lan_allow": [], "lan": None}
    file.chmod(0o620)
    with pytest.raises(Refused, match="may be written by others"):
        guests.wishes_of(tmp_path)
