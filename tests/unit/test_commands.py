"""Settings -> exact argv lists and documents."""

from __future__ import annotations

import email
import email.policy
import json
import os
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from vagrantp.core.places import MASTER
from vagrantp.guest import playbooks, shell
from vagrantp.instance import record, seed, ssh, vagrant
from vagrantp.instance.record import Instance
from vagrantp.providers.libvirt import accel, domain
from vagrantp.providers.podman import ids, options
from vagrantp.settings import saved
from vagrantp_guard.contract import LanNic

from tests.unit import samples

WRITTEN = {"infra_type": "vm", "memory": 1536, "cpus": 2, "disk": 6, "name": "app"}
WRITTEN |= {"lan_access": True, "hostname": "app"}
SETTINGS = saved.from_json(WRITTEN)
VM = Instance("app", "0a1b2c3d", Path('/home/av/it\'s "my" app'), "vm")
CONTAINER = Instance("app", "0a1b2c3d", Path("/home/av/app"), "container")


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")


def test_vagrant_reads_nothing_but_our_own() -> None:
    argv, env = vagrant.command(VM, Path("/data/vagrant"), "/usr/bin", "up", "--no-provision")
    assert argv == ["vagrant", "up", "--no-provision"]
    assert env == {
        "VAGRANTP_MACHINE": "/state/vagrantp/app-0a1b2c3d/machine.json",
        "VAGRANTP_ID": "0a1b2c3d",
        "VAGRANT_VAGRANTFILE": f"{MASTER}/Vagrantfile",
        "VAGRANT_CWD": "/state/vagrantp/app-0a1b2c3d",
        "VAGRANT_DOTFILE_PATH": "/state/vagrantp/app-0a1b2c3d/vagrant",
        "VAGRANT_HOME": "/data/vagrant",
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_NO_COLOR": "1",
    }


def test_only_a_container_sees_the_shim() -> None:
    _, env = vagrant.command(CONTAINER, Path("/data"), "/usr/bin", "up")
    assert env["PATH"] == f"{MASTER}/lib/vagrantp/providers/shim:/usr/bin"


def test_ssh() -> None:
    assert ssh.ssh(VM, "--", "exit 42") == [
        *("ssh", "-F", "/state/vagrantp/app-0a1b2c3d/ssh_config"),
        *("app-0a1b2c3d", "--", "exit 42"),
    ]


def test_ssh_config_quotes_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", '/a "b" 100%')
    lines = ssh.ssh_config(VM, "10.201.0.5", 22, "vagrant").splitlines()
    folder = r"/a \"b\" 100%%/vagrantp/app-0a1b2c3d"
    assert lines[0] == "Host app-0a1b2c3d"
    assert f'  IdentityFile "{folder}/id_ed25519"' in lines
    assert f'  UserKnownHostsFile "{folder}/known_hosts"' in lines
    assert "  StrictHostKeyChecking yes" in lines
    assert "  HostKeyAlias app-0a1b2c3d" in lines
    assert "  ForwardAgent no" in lines


def test_a_card_on_a_bridge_has_the_way_out() -> None:
    lan = {"mac": "56:54:0a:1b:2c:3d", "address": "192.168.1.5/24", "resolvers": []}
    lan |= {"gateway": "192.168.1.1", "dns": "192.168.1.2", "port": "vgl0a1b2c3d", "bridge": "br0"}
    made = seed.networks(LanNic.from_json(lan), "52:54:0a:1b:2c:3d")
    assert "MACAddress=52:54:0a:1b:2c:3d" in made["10-host.network"]
    assert "UseRoutes=no" in made["10-host.network"]
    assert made["10-lan.network"].splitlines() == [
        *("[Match]", "MACAddress=56:54:0a:1b:2c:3d", "Kind=!*"),
        *("[Network]", "LinkLocalAddressing=no"),
        *("Address=192.168.1.5/24", "Gateway=192.168.1.1", "DNS=192.168.1.2"),
    ]


def test_vm_for_the_vagrantfile() -> None:
    made = domain.vm(VM, SETTINGS, accel="tcg", box="box", lan=None, address="10.201.0.5")
    assert made == {
        "driver": "qemu",
        "cpu": {"mode": "maximum"},
        "memory": 1536,
        "cpus": 2,
        "disk": 6,
        "mac": "52:54:0a:1b:2c:3d",
        "port": "vgp0a1b2c3d",
        "mount": "none",
        "metadata": {
            "id": "0a1b2c3d",
            "name": "app",
            "folder": '/home/av/it\'s "my" app',
            "uid": str(os.getuid()),
            "gid": str(os.getgid()),
            "state": "/state/vagrantp/app-0a1b2c3d",
            "version": "2",
            "address": "10.201.0.5",
            "lan_access": "yes",
            "lan_allow": "[]",
            "lan": "null",
            "mount": "null",
        },
        "accel": "tcg",
        "box": "box",
        "lan": None,
        "address": "10.201.0.5",
    }
    made = domain.vm(VM, SETTINGS, accel="kvm", lan=None, address="10.201.0.5")
    assert made["driver"] == "kvm"
    assert made["cpu"] == {"mode": "host-model"}


IDS = range(1879048192, 1879048192 + ids.SIZE)


def test_container_for_the_vagrantfile() -> None:
    address = IPv4Address("10.201.1.9")
    made = options.container(
        CONTAINER, SETTINGS, "image:1", "vagrantp", address, 0, IDS, None, False, ["--limit"]
    )
    assert made == {
        "image": "image:1",
        "address": "10.201.1.9",
        "user": "vagrant",
        "key": "/state/vagrantp/app-0a1b2c3d/id_ed25519",
        "options": [
            "--init",
            "--hostname=app",
            "--memory=1536m",
            "--memory-swap=1536m",
            "--cpus=2",
            "--shm-size=786432k",
            "--limit",
            "--uidmap=0:1879048192:65536",
            "--gidmap=0:1879048192:65536",
            "--sysctl=net.ipv4.ping_group_range=0 65535",
            "--network=vagrantp",
            "--ip=10.201.1.9",
            "--mac-address=52:54:0a:1b:2c:3d",
            "--volume=/state/vagrantp/app-0a1b2c3d/guest:/run/vagrantp-seed:ro,Z,U",
            "--annotation=io.vagrantp.state=/state/vagrantp/app-0a1b2c3d",
            "--cap-drop=NET_ADMIN",
            "--cap-drop=NET_RAW",
            "--http-proxy=false",
            "--label=vagrantp.id=0a1b2c3d",
            "--label=vagrantp.name=app",
            "--label=vagrantp.folder=/home/av/app",
            "--label=vagrantp.uid=0",
            "--label=vagrantp.version=2",
            "--label=vagrantp.address=10.201.1.9",
            "--label=vagrantp.autostart=no",
        ],
        "lan": None,
        "has_quota": False,
        "first_id": 1879048192,
    }


def test_a_container_with_a_quota_has_no_volume_beside_it() -> None:
    address = IPv4Address("10.201.1.9")
    made = options.container(
        CONTAINER, SETTINGS, "image:1", "vagrantp", address, 0, IDS, None, True, []
    )
    assert made["has_quota"]
    assert {f"--storage-opt=size={SETTINGS.disk}G", "--image-volume=ignore"} < {*made["options"]}


def test_a_rootless_container_has_a_port_for_ssh_and_no_network_of_ours() -> None:
    made = options.rootless_container(CONTAINER, SETTINGS, "image:1", 1000, [])
    assert made["address"] == "127.0.0.1"
    assert "--publish=127.0.0.1::22" in made["options"]
    assert not [o for o in made["options"] if o.startswith(("--network", "--ip", "--mac"))]


@pytest.mark.parametrize(
    ("most", "hard", "expected"),
    [
        (192730, None, ["--pids-limit=16384", "--ulimit=nofile=1024:524288"]),
        (32768, None, ["--pids-limit=4915", "--ulimit=nofile=1024:524288"]),
        (7000, None, ["--pids-limit=2048", "--ulimit=nofile=1024:524288"]),
        # where nobody may raise a limit, podman's own would fail
        (
            *(32768, (20000, 96365)),
            ["--pids-limit=4915", "--ulimit=nofile=1024:20000", "--ulimit=nproc=32768:32768"],
        ),
        (32768, (512, -1), ["--pids-limit=4915", "--ulimit=nofile=512:512"]),
    ],
)
def test_process_limits(most: int, hard: tuple[int, int] | None, expected: list[str]) -> None:
    assert options.process_limits(most, hard) == expected


def test_libvirt_network() -> None:
    assert domain.nat_network("vagrantp", IPv4Network("10.201.7.0/24")) == (
        '<network xmlns:dnsmasq="http://libvirt.org/schemas/network/dnsmasq/1.0">'
        '<name>vagrantp</name><forward mode="nat" />'
        '<bridge name="vagrantp0" stp="off" delay="0" />'
        '<ip address="10.201.7.1" netmask="255.255.255.0">'
        '<dhcp><range start="10.201.7.2" end="10.201.7.254"><lease expiry="5" unit="minutes" />'
        "</range></dhcp></ip>"
        '<dns><host ip="10.201.7.1"><hostname>host.containers.internal</hostname></host></dns>'
        '<dnsmasq:options><dnsmasq:option value="no-hosts" /></dnsmasq:options>'
        "</network>"
    )


def test_a_network_of_an_older_version() -> None:
    network = ET.fromstring("<network><name>vagrantp</name></network>")
    assert domain.knows_hosts(network)
    domain.hide_hosts(network)
    assert not domain.knows_hosts(ET.fromstring(ET.tostring(network)))


def test_dhcp_entry() -> None:
    assert domain.dhcp_host(VM, VM.mac, "10.201.7.9") == (
        '<host mac="52:54:0a:1b:2c:3d" name="vagrantp-0a1b2c3d" ip="10.201.7.9" />'
    )


def test_machine_json_holds_all_settings_and_a_version() -> None:
    document = json.loads(record.document(VM, SETTINGS, {"box": "b"}))
    assert document["version"] == record.VERSION
    assert document["folder"] == '/home/av/it\'s "my" app'
    of_before = {"protect": False, "image": "debian-12"}
    unwritten = json.loads(json.dumps(samples.UNWRITTEN)) | of_before
    written = ["cpus", "disk", "infra_type", "lan_access", "memory", "name"]
    assert document["settings"] == unwritten | WRITTEN | {"written": written, "in_env": None}
    assert document["provider"] == {"box": "b"}


def test_a_trial_without_a_kernel_ends_when_its_firmware_resets() -> None:
    xml = accel.probe("x", "qemu", [])
    assert '<bios rebootTimeout="0" />' in xml
    assert "<on_reboot>destroy</on_reboot>" in xml


def test_no_reset_ends_the_trial_of_a_kernel() -> None:
    xml = accel.probe("x", "kvm", ["/k", "/i"])
    assert '<domain type="kvm">' in xml
    assert "<kernel>/k</kernel><initrd>/i</initrd>" in xml
    assert "<on_reboot>restart</on_reboot>" in xml


@pytest.mark.slow
def test_every_name_of_a_connection_leads_to_the_guest() -> None:
    """Of two names of one option Ansible takes the last one: all that it knows must be there."""
    from ansible import constants
    from ansible.plugins.loader import connection_loader

    variables = json.loads(playbooks.connection(VM, "av"))
    assert variables["ansible_connection"] == "ssh"
    connection_loader.get("ssh", class_only=True)
    options = constants.config.get_configuration_definitions("connection", "ssh")
    for option, value in {
        "host": "app-0a1b2c3d",
        "port": 22,
        "remote_user": "av",
        "password": "",
        "host_key_checking": True,
        "ssh_executable": "ssh",
        "ssh_args": "-C -o ControlMaster=auto -o ControlPersist=60s",
        "ssh_common_args": "-F /run/vagrantp/ssh_config",
        "ssh_extra_args": "",
    }.items():
        names = [entry["name"] for entry in options[option]["vars"]]
        names = [name for name in names if name.startswith("ansible_")]
        assert {name: variables.pop(name) for name in names} == dict.fromkeys(names, value)
    assert [*variables] == ["ansible_connection"]


def test_a_script_for_a_guest_is_the_same_in_any_login_shell() -> None:
    script = """printf '%s|' "$@" 'a\\\\b' !1 "$((1 + 1))" """
    command = shell.as_root(script, "it's", "a b").removeprefix("sudo -n ")
    for login in ("sh", "bash"):
        done = subprocess.run([login, "-c", command], capture_output=True, text=True, check=True)
        assert done.stdout == "it's|a b|a\\\\b|!1|2|"
    without_words = shell.shell(script).removesuffix(" sh")
    assert not set("\\!\n`") & set(without_words)  # what fish and tcsh read otherwise


@pytest.mark.parametrize(
    ("first_line", "expected"),
    [
        (b"#!/bin/sh\n", ["it's", "sh", "/bin/sh"]),
        (b"#! /bin/sh -e -u \n", ["it's", "sh", "/bin/sh", "-e -u"]),
        (b"#!/usr/bin/env sh\n", ["it's", "sh", "/usr/bin/env", "sh"]),
        (b"#!/usr/bin/env -S dash -e\n", ["it's", "sh", "/usr/bin/env", "-S dash -e"]),
        (b"#!/bin/bash -e\n", ["it's", "bash"]),
        (b"#!/usr/bin/env bash\n", ["it's", "bash"]),
        (b"#!/usr/bin/env python3\n", ["it's", "none"]),
        (b"#!/opt/sh/python\n", ["it's", "none"]),
        (b"#!\n", ["it's", "none"]),
        (b"\x7fELF\xff", ["it's", "none"]),
        (b"", ["it's", "none"]),
    ],
)
def test_a_script_is_called_as_its_first_line_says(first_line: bytes, expected: list[str]) -> None:
    assert shell.provision_script(Path("/home/av/it's"), first_line) == expected


def test_a_cloud_config_stays_as_it_is() -> None:
    theirs = "## template: jinja\n#cloud-config\nusers: [default, é]\n"
    settings = replace(SETTINGS, hostname=None)
    files = seed.cloud_init(VM, settings, theirs, None, "key")
    assert _parts(files["user-data"]) == [theirs]
    assert json.loads(files["meta-data"]) == {
        "instance-id": "app-0a1b2c3d",
        "local-hostname": "app",
    }


def test_a_written_name_outranks_that_of_a_cloud_config() -> None:
    files = seed.cloud_init(VM, SETTINGS, "#cloud-config\nhostname: x\n", None, "key")
    _, ours = _parts(files["user-data"])
    assert json.loads(ours.removeprefix("#cloud-config\n")) == {
        "merge_how": "dict(replace)+list()+str()",
        "hostname": "app",
        "prefer_fqdn_over_hostname": False,
    }


def test_a_cloud_image_gets_a_boothook() -> None:
    files = seed.cloud_init(VM, SETTINGS, None, "user=av\n", "it's a key")
    [hook] = _parts(files["user-data"])
    assert hook.startswith("#cloud-boothook\n#!/bin/sh\nkey='it'\"'\"'s a key'\n")
    assert hook.endswith("user=av\n")


def _parts(message: str) -> list[str]:
    parts = email.message_from_string(message, policy=email.policy.default).iter_parts()
    return [part.get_content() for part in parts]
