"""The keeper of the packet filter: what it makes of guests, and that nft takes it."""

from __future__ import annotations

import json
import os
import subprocess
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vagrantp_guard import cli, guests, lan, ruleset, running
from vagrantp_guard.contract import Guest, Mount, Policy, Report
from vagrantp_guard.system import Refused

Json = dict[str, Any]
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
    wishes: list[tuple[list[Json], bool, Json | None]],
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
    nft_takes(ruleset.rules(map(Guest.from_json, known), networks))
    for guest in known:
        policy = Policy.from_json(guest)
        nft_takes(ruleset.inside_rules(policy, [IPv4Interface("192.168.1.5/24")]))


def test_the_guest_of_a_domain() -> None:
    rule = {"network": "10.0.0.0/8", "port": 80, "protocol": "tcp"}
    found = running.guest_of_domain(DOMAIN.format(allow=json.dumps([rule])))
    assert found and found.to_json() == {
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
    found = running.guest_of_domain(on_a_lan.replace('id="', f"lan='{json.dumps(wishes)}' id=\""))
    assert found and found.to_json()["lan"] == {
        **wishes,
        "dns": None,
        "bridge": "br0",
        "port": "vgl1234abcd",
        "mac": "56:54:12:34:ab:cd",
    }
    foreign = DOMAIN.format(allow="[]").replace("<name>app", "<name>other")
    assert running.guest_of_domain(foreign) is None
    assert running.guest_of_domain("<domain><name>web</name></domain>") is None


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


def test_a_guest_that_is_to_reach_ipv6_does_not_start(tmp_path: Path) -> None:
    rule = {"network": "fd00::/8", "port": 443, "protocol": "tcp"}
    (tmp_path / "isolation.json").write_text(json.dumps({"lan_access": False, "lan_allow": [rule]}))
    with pytest.raises(Refused, match="LAN_ALLOW has fd00::/8, and guests have no IPv6"):
        guests.policy_of(tmp_path)
    with pytest.raises(Refused, match="guests have no IPv6"):
        running.guest_of_domain(DOMAIN.format(allow=json.dumps([rule])))


def test_what_a_container_may_reach_is_not_for_others_to_write(tmp_path: Path) -> None:
    file = tmp_path / "isolation.json"
    file.write_text('{"lan_access": false, "lan_allow": []}')
    file.chmod(0o600)
    assert guests.policy_of(tmp_path) == Policy(lan_access=False, lan_allow=(), lan=None)
    file.chmod(0o620)
    with pytest.raises(Refused, match="may be written by others"):
        guests.policy_of(tmp_path)


def test_a_container_on_a_lan_asks_the_resolver_that_env_names(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("search dns.podman\nnameserver 10.201.128.1\n")
    mounts = [{"destination": "/proc"}, {"destination": "/etc/resolv.conf", "source": str(file)}]
    (tmp_path / "config.json").write_text(json.dumps({"mounts": mounts}))
    lan.name_resolver(tmp_path, IPv4Address("192.168.1.1"))
    assert file.read_text() == "nameserver 192.168.1.1\n"


# What guards before this one have written, and domains and state folders have.
OF_A_VM = """{"name": "app-1234abcd", "port": "vgp1234abcd", "mac": "52:54:12:34:ab:cd",
 "bridge": "vagrantp0", "ip": "10.201.0.5", "lan_access": false,
 "lan_allow": [{"network": null, "port": 11434, "protocol": "tcp"}],
 "lan": {"port": "vgl1234abcd", "bridge": "br0", "mac": "56:54:12:34:ab:cd",
 "address": "192.168.1.50/24", "ip": "192.168.1.50", "gateway": "192.168.1.1",
 "resolvers": ["192.168.1.1"]}}"""
OF_A_CONTAINER = """{"name": "app-1234abcd", "bridge": "vagrantp1", "port": "veth0",
 "mac": "52:54:12:34:ab:cd", "ip": "10.201.128.5", "pid": 4711, "lan_access": true,
 "lan_allow": [{"network": "10.0.0.0/8", "port": null, "protocol": null}], "lan": null}"""


@pytest.mark.parametrize("text", [OF_A_VM, OF_A_CONTAINER])
def test_records_of_older_versions_are_read_and_written_so_that_they_read_them(text: str) -> None:
    record = json.loads(text)
    guest = Guest.from_json(record)
    assert Guest.from_json(guest.to_json()) == guest
    written = json.loads(json.dumps(guest.to_json()))
    if record["lan"]:
        del record["lan"]["ip"]  # which they compute
        del written["lan"]["dns"]  # which they leave out
    assert written == record


def test_a_policy_of_an_older_version_is_read() -> None:
    older = {"lan_access": False, "lan_allow": []}  # of oci_images, without a card
    assert Policy.from_json(older) == Policy(lan_access=False, lan_allow=())
    mount = {"mode": "rw", "folder": "/home/me/app", "uid": 1000, "gid": 1000}
    assert Mount.from_json(mount).to_json() == mount


@pytest.mark.parametrize(
    "change",
    [
        {"name": "app"},
        {"name": None},
        {"port": "a b"},
        {"mac": "52:54"},
        {"ip": "10.201.0.5/24"},
        {"bridge": "br0"},
        {"lan_allow": None},
        {"lan_allow": [{"network": None, "port": None, "protocol": None}]},
        {"lan": {"port": "vgl1234abcd"}},
        {"lan": "br0"},
        {"lan": {**json.loads(OF_A_VM)["lan"], "port": "eth0"}},
        {"lan": {**json.loads(OF_A_VM)["lan"], "gateway": None}},
    ],
)
def test_a_record_that_is_none_is_refused(change: Json) -> None:
    with pytest.raises(ValueError):
        Guest.from_json({**json.loads(OF_A_VM), **change})


@pytest.mark.parametrize("change", [{"mode": "rwx"}, {"folder": "app"}, {"uid": "me"}])
def test_a_mount_that_is_none_is_refused(change: Json) -> None:
    sound = {"mode": "rw", "folder": "/home/me/app", "uid": 1000, "gid": 1000}
    with pytest.raises(ValueError):
        Mount.from_json({**sound, **change})


def test_a_report_is_read_as_it_was_written() -> None:
    guest = Guest.from_json(json.loads(OF_A_VM))
    report = Report(("the rules are gone",), {guest.name: guest}, {"vgl1234abcd": ["192.0.2.7"]})
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    for found in ([], {}, {"problems": [], "guests": {"app": None}, "leased": {}}):
        with pytest.raises(ValueError):
            Report.from_json(found)  # type: ignore[arg-type]
