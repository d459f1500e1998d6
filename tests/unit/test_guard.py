"""The keeper of the packet filter: what it makes of guests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from vagrantp_guard import cli, guests, running, tables, userns
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
    assert Mount.from_json(mount).to_json() == {**mount, "protect": False, "hide": []}


def test_what_the_host_is_on_by_its_routes() -> None:
    router, other = {"gateway": "192.0.2.7", "dev": "eth0"}, {"dev": "eth1"}
    routes: list[Json] = [
        {"type": "unicast", "dst": "192.0.2.0/24", **other},
        {"type": "unicast", "dst": "198.51.100.7", **other, "table": "52"},
        {"dst": "198.51.100.64/26", "nexthops": [router, other]},
        {"type": "unicast", "dst": "203.0.113.0/25", **router},
        {"type": "unicast", "dst": "203.0.113.128/25", "via": {"host": "fe80::7"}, **other},
        {"type": "unicast", "dst": "198.18.0.0/24", "nexthops": [router, router]},
        {"type": "blackhole", "dst": "198.18.1.0/24"},
        {"type": "local", "dst": "198.18.2.1", **other},
        *(
            {"type": "unicast", "dst": dst, **other}
            for dst in ("default", "0.0.0.0/1", "128.0.0.0/1")
        ),
    ]
    found = [*map(str, tables.device_routes(routes))]
    assert found == ["192.0.2.0/24", "198.51.100.7/32", "198.51.100.64/26"]


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


@pytest.mark.parametrize(
    ("ids", "owner"), [({}, 5), ({"first_id": None}, 5), ({"first_id": 70}, 75)]
)
def test_the_folder_is_the_mapped_users(tmp_path: Path, ids: Json, owner: int) -> None:
    mount = Mount("rw", Path("/app"), 5, 5)
    (tmp_path / "isolation.json").write_text(json.dumps({"mount": mount.to_json(), **ids}))
    found = guests.mount_of(tmp_path)
    assert found and (found.uid, found.gid) == (owner, owner)


def test_a_container_with_other_ids_than_its_own_does_not_start() -> None:
    with pytest.raises(Refused, match="its uid_map is not its own"):
        userns.close(os.getpid(), first_id=0x7000_0000, is_nested=False)


def test_a_mount_is_read_as_it_was_written() -> None:
    mount = Mount("rw", Path("/home/me/app"), 1000, 1000, protect=True, hide=(".env", "a b/c"))
    assert Mount.from_json(json.loads(json.dumps(mount.to_json()))) == mount


HIDES = [["/etc"], ["a/../b"], ["."], [""], ["a//b"], ["a\0"], [1], None, 1]


@pytest.mark.parametrize(
    "change",
    [{"mode": "rwx"}, {"folder": "app"}, {"uid": "me"}, *({"hide": hide} for hide in HIDES)],
)
def test_a_mount_that_is_none_is_refused(change: Json) -> None:
    sound = {"mode": "rw", "folder": "/home/me/app", "uid": 1000, "gid": 1000}
    with pytest.raises(ValueError):
        Mount.from_json({**sound, **change})


def test_a_report_is_read_as_it_was_written() -> None:
    guest = Guest.from_json(json.loads(OF_A_VM))
    report = Report(("the rules are gone",), {guest.name: guest}, {"vgl1234abcd": ["192.0.2.7"]})
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    unreadable: list[Any] = [[], {}, {"problems": [], "guests": {"app": None}, "leased": {}}]
    for found in unreadable:
        with pytest.raises(ValueError):
            Report.from_json(found)


# As nft 1.1.3 and 1.1.7 print it, before and after packets.
SETS = """\
table inet vagrantp {
	set tried {
		type ipv4_addr . ipv4_addr
		size 65535%s
		flags dynamic,timeout
		timeout 1s%s
	}

	set known {
		type ifname . ipv4_addr
		elements = { "vgp1234abcd" . 10.201.0.5 }
	}

	set flows {
		type ipv4_addr
		size 65535%s
		flags dynamic%s
	}
}
"""
NONE = SETS % ("", "", "", "")
TRIED = "\n\t\telements = { 10.201.0.5 . 192.0.2.1,\n\t\t\t     10.201.0.5 . 192.0.2.2 }"
FLOWS = "\n\t\telements = { 10.201.0.5 ct count over 1000 }"


@pytest.mark.parametrize(
    "listed",
    [
        NONE,
        SETS % ("", TRIED, "", FLOWS),
        SETS % ("\t# count 2", TRIED, "\t# count 1", FLOWS),
        SETS % ("", "", "\t# count 1", FLOWS),
    ],
)
def test_what_packets_leave_in_the_rules_is_no_change_of_them(listed: str) -> None:
    assert tables.without_elements(listed) == NONE
    changed = listed.replace("vgp1234abcd", "vgp1234abce")
    assert tables.without_elements(changed) != NONE
