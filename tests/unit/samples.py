# ruff: noqa: E501  (a table of exact texts)
"""What can be written for each key of `.env`, good and bad, with the exact text that refuses it.

A row is what is written above a sound `.env`, in place of the keys there, and the problems that it
makes. A problem stands at the line of its key; its hint is the key's own unless the row has one.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import strategies as st
from vagrantp.settings import parsers
from vagrantp.settings.keys import BUILT_IMAGES, KEYS, NOT_BUILT

from tests.certificates import ONE, SERVER, TWO

SOUND = "INFRA_TYPE=vm\nMEMORY=2048\nCPUS=2\nDISK=20\nLAN_ACCESS=yes\n"
CONTAINER = "INFRA_TYPE=container\n"
BRIDGE = "NETWORK_TYPE=bridge\n"

HINTS = {
    "INFRA_TYPE": "INFRA_TYPE=vm makes a virtual machine, INFRA_TYPE=container a Podman container",
    "MEMORY": "MEMORY=2048 gives the guest 2 GB",
    "CPUS": "CPUS=2 gives the guest two",
    "DISK": "DISK=20 gives the guest a disk of 20 GB",
    "NAME": "NAME=my-project is one",
    "BOX": "BOX=debian-12 is built here; BOX=generic/debian12 is a Vagrant box",
    "IMAGE": "IMAGE=debian-12 is built here; IMAGE=docker.io/library/node:22 is a reference",
    "ACCEL": "auto takes KVM where a guest really runs under it, else software emulation",
    "LAN_ACCESS": "LAN_ACCESS=no keeps the guest from your LAN; LAN_ALLOW opens single services",
    "NETWORK_TYPE": "NETWORK_TYPE=bridge puts the guest on the host bridge BRIDGE",
    "BRIDGE": "'ip link show type bridge' lists the bridges of this host",
    "FIXED_IP": "FIXED_IP=192.168.1.50/24 is one",
    "GATEWAY": "GATEWAY=192.168.1.1 is one",
    "DNS": "DNS=192.168.1.1 is one",
    "MAC": "MAC=52:54:00:12:34:56 is one",
    "PORTS": "PORTS=8080:80 leads from port 8080 of this host to port 80 of the guest",
    "LAN_ALLOW": "LAN_ALLOW=192.168.1.7/32:443,host:11434 allows two services",
    "PROVISION_SCRIPT": "paths start from the folder of this file; quote one that holds a comma",
    "AGENT": "AGENT=claude installs Claude Code",
    "AGENT_ENV": "~/.config/vagrantp/secrets.env has lines such as GITHUB_TOKEN=…, and mode 600",
    "PROVISION_VARS": "a path starts from the folder of this file",
    "IMAGE_SHA256": "sha256sum prints it",
    "CLOUD_INIT": "a path starts from the folder of this file",
    "SSH_USER": "SSH_USER=vagrant is there in every guest",
    "SSH_KEY": "a public key's name ends in .pub; a path starts from the folder of this file",
    "CA_CERTS": "a path starts from the folder of this file",
    "MOUNT": "MOUNT=ro lets the guest read the project folder, MOUNT=rw write it, too",
    "PROTECT": "PROTECT=no lets the guest write whatever programs on this host run in the folder",
    "HIDE": "HIDE=.env,secrets keeps a file and a folder of the project from the guest",
    "AUTOSTART": "AUTOSTART=yes starts the guest with the host",
    "NESTED": "NESTED=yes lets the guest make namespaces, and so containers, in the container",
}

FILES: dict[str, bytes] = {
    "image.qcow2": b"QFI",
    "script": b"#!/bin/sh\n",
    "it's a, script": b"#!/bin/sh\n",
    "not-executable": b"#!/bin/sh\n",
    "script-of-dos": b"#!/bin/sh\r\n",
    "play.yml": b"- hosts: all\n  vars: {token: !vault x}\n- import_playbook: other.yml\n",
    "encrypted.yml": b"$ANSIBLE_VAULT;1.1;AES256\n3132\n",
    "vars.yml": b"name: value\n",
    "user-data": b"#cloud-config\npackages: [vim]\n",
    "key.pub": b"# mine\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me@here\n",
    "private": b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n",
    "ca.pem": f"# one\n{ONE}\n# two, from Windows\n{TWO}".replace("\n", "\r\n").encode(),
    "server.pem": f"{ONE}{SERVER}".encode(),
    "with-key.pem": f"{ONE}-----BEGIN PRIVATE KEY-----\n".encode(),
    "half.pem": ONE[:300].encode(),
    "garbled.pem": ONE.replace("MII", "MIJ").encode(),
    "bundle.pem": ONE.encode() * 150,
    "text": b"only words\n",
    "empty": b"",
    "list.yml": b"- one\n- two\n",
    "broken.yml": b"a: b\nc: [\n",
    "deep.yml": b"[" * 200_000,
    "nested.yml": b"[" * 200 + b"]" * 200,
    "latin1.yml": b"#cloud-config\nn: \xe9\n",
    "big.yml": b"#cloud-config\n" + b"# comment\n" * 110_000,
    "list-data": b"#cloud-config\n- one\n",
    "broken-data": b"#cloud-config\na: [\n",
    "tag-data": b"#cloud-config\na: !vault x\n",
    "date-data": b"#cloud-config\na: 2024-13-45\n",
    "deep-data": b"#cloud-config\n" + b"[" * 200_000,
    "unreadable": b"",
}


SECRETS = "TOKEN=hunter2\nOTHER=other\nBARE\n"


def make_secrets(config: Path) -> None:
    """Put the values of AGENT_ENV into the folder of XDG_CONFIG_HOME."""
    path = config / "vagrantp/secrets.env"
    path.parent.mkdir(parents=True)
    path.write_text(SECRETS)
    path.chmod(0o600)


def make_files(folder: Path) -> None:
    """Put the files that the rows name into a project folder."""
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o755 if "script" in name else 0o644)
    (folder / "unreadable").chmod(0)
    (folder / "a-folder").mkdir()
    (folder / "a-folder/inner").touch()
    (folder / "link").symlink_to("a-folder")
    os.mkfifo(folder / "fifo")


MIB = "must be a whole number of MB"
GIB = "must be a whole number of GB"
MACHINE = "must be the address of a machine, not a loopback, multicast or reserved one"
LATER = "is not supported yet"
FORWARD = "must be [ADDR:]HOST:GUEST[/udp] or auto:GUEST[/udp], comma-separated"
ADDRESS = "must have an address of this host before its ports, when it has one"
RULE = "must be CIDR[:PORT][/udp] or host:PORT[/udp], comma-separated"
NETWORK = "must have a network such as 192.168.1.0/24 or [fd00::/8]"
QUOTE = 'must have a closing " and then a comma behind what is quoted'
RANGE = "must have ranges of 1 to 256 ports, from the lower one on"
ITEM = "must have something before, between and after its commas"
PORT = "must have ports from 1 to 65535"
BOX = "must be debian-13, debian-12, a Vagrant box, or a file or URL of an image"
URL = "must be an http or https URL with a host, when it is a URL"
PLAIN = "must not be http without IMAGE_SHA256"
PLAIN_HINT = "\n  hint: use https, or give IMAGE_SHA256"
PLAYBOOK = "must name a playbook, which is a list of plays, each with hosts"
IN_FOLDER = "must be a path in the project's folder, without .."
NO_GIT = "must not be .git or in it: git in the guest needs all of it"
IDLE_HIDE = "HIDE is for MOUNT=ro or rw\n  hint: take HIDE out, or write MOUNT=ro"
DEEP = "must name a file of YAML, nested 100 deep at most"

ROWS: list[tuple[str, list[str]]] = [
    ("INFRA_TYPE=lxc", ['INFRA_TYPE must be vm or container, got "lxc"']),
    ("MEMORY=-5", [f'MEMORY {MIB} above 0, got "-5"']),
    ("MEMORY=0", [f'MEMORY {MIB} above 0, got "0"']),
    ("MEMORY=1e3", [f'MEMORY {MIB} above 0, got "1e3"']),
    ("MEMORY=٣", [f'MEMORY {MIB} above 0, got "٣"']),
    ("MEMORY=", [f'MEMORY {MIB} above 0, got ""']),
    ("MEMORY", [f'MEMORY {MIB} above 0, got ""']),
    ("MEMORY=2G", [f'MEMORY {MIB} without a unit, 2048 here, got "2G"']),
    ("MEMORY=512 MiB", [f'MEMORY {MIB} without a unit, 512 here, got "512 MiB"']),
    ("MEMORY=99999999999999999999999", [f'MEMORY {MIB}, 16777216 at most, got "99999999999999999999999"']),
    ("CPUS=two", ['CPUS must be a whole number above 0, got "two"']),
    ("CPUS=1025", ['CPUS must be a whole number, 1024 at most, got "1025"']),
    ("DISK=1.5", [f'DISK {GIB} above 0, got "1.5"']),
    ("DISK=512M", [f'DISK {GIB} above 0, got "512M"']),
    ("DISK=1tb", [f'DISK {GIB} without a unit, 1024 here, got "1tb"']),
    ("DISK=65537", [f'DISK {GIB}, 65536 at most, got "65537"']),
    ("NAME=-x", ['NAME must be a host name of 1 to 63 letters, digits and inner dashes, got "-x"']),
    ("BOX=../other/box", [f'BOX {BOX}, got "../other/box"']),
    ("BOX=a b", [f'BOX {BOX}, got "a b"']),
    ("BOX=ftp://example.org/x", [f'BOX {URL}, got "ftp://example.org/x"']),
    ("BOX=http://example.org:99999/x", [f'BOX {URL}, got "http://example.org:99999/x"']),
    ("BOX=http://[/x", [f'BOX {URL}, got "http://[/x"']),
    *((f"BOX={scheme}://me:secret@example.org/x", [f'BOX {URL}, got "{scheme}://…@example.org/x"']) for scheme in ("file", "scp", "ftps", "sftp")),
    ("BOX=https://me:sec/ret@example.org/x", [f'BOX {URL}, got "https://…@example.org/x"']),
    ("BOX='https://me:sec ret@example.org/x'", [f'BOX {URL}, got "https://…@example.org/x"']),
    ("BOX=https://token@example.org:0/x?key=secret", [f'BOX {URL}, got "https://…@example.org:0/x?…"']),
    ("BOX=http://example.org/x", [f'BOX {PLAIN}, got "http://example.org/x"{PLAIN_HINT}']),
    ("BOX=HTTP://me:secret@example.org/x", [f'BOX {PLAIN}, got "HTTP://…@example.org/x"{PLAIN_HINT}']),
    (f"{CONTAINER}BOX=arch", ["BOX is for INFRA_TYPE=vm\n  hint: take BOX out"]),
    (f"{CONTAINER}IMAGE=Node", ['IMAGE must be debian-13, debian-12 or an OCI reference, got "Node"']),
    ("ACCEL=hvf", ['ACCEL must be auto, kvm or tcg, got "hvf"']),
    (f"{CONTAINER}ACCEL=kvm", ["ACCEL is for INFRA_TYPE=vm\n  hint: take ACCEL out"]),
    ("LAN_ACCESS=maybe", ['LAN_ACCESS must be yes or no, got "maybe"']),
    ("NETWORK_TYPE=nat", ['NETWORK_TYPE must be default or bridge, got "nat"']),
    (f"{BRIDGE}BRIDGE=a/b", ['BRIDGE must be the name of an interface, 15 characters at most, got "a/b"']),
    ("BRIDGE=br0", ["BRIDGE is for NETWORK_TYPE=bridge\n  hint: take BRIDGE out, or write NETWORK_TYPE=bridge"]),
    ("FIXED_IP=10.0.0", ['FIXED_IP must be an IPv4 address, got "10.0.0"']),
    ("FIXED_IP=10.0.0.5/31", ['FIXED_IP must have a prefix from /8 to /30, or none, got "10.0.0.5/31"']),
    ("FIXED_IP=10.0.0.0/24", ['FIXED_IP must be the address of a machine, not of the network 10.0.0.0/24, got "10.0.0.0/24"']),
    ("FIXED_IP=10.0.0.255/24", ['FIXED_IP must be the address of a machine, not the broadcast of 10.0.0.0/24, got "10.0.0.255/24"']),
    ("FIXED_IP=127.0.0.1", [f'FIXED_IP {MACHINE}, got "127.0.0.1"']),
    ("FIXED_IP=224.0.0.1", [f'FIXED_IP {MACHINE}, got "224.0.0.1"']),
    ("FIXED_IP=0.0.0.0", [f'FIXED_IP {MACHINE}, got "0.0.0.0"']),
    ("MAC=52-54-00-00-00-01", ['MAC must be a MAC address: six pairs of hexadecimal digits, joined by colons, got "52-54-00-00-00-01"']),
    ("MAC=01:00:5e:00:00:01", ['MAC must be the MAC address of one machine: its first pair even, not all zero, got "01:00:5e:00:00:01"']),
    ("MAC=FE:00:00:00:00:01", ['MAC must not start with fe, which libvirt keeps for its own end of the cable, got "FE:00:00:00:00:01"']),
    ("PORTS=80", [f'PORTS {FORWARD}, got "80"']),
    ("PORTS=8080:80,x,http:80", [f'PORTS {FORWARD}, got "x"\n', f'PORTS {FORWARD}, got "http:80"']),
    ("PORTS=0:80", [f'PORTS {PORT}, got "0:80"']),
    ("PORTS=8080:65536", [f'PORTS {PORT}, got "8080:65536"']),
    ("PORTS=999.0.0.1:80:80", [f'PORTS {ADDRESS}, got "999.0.0.1:80:80"']),
    ("PORTS=[1.2.3.4]:80:80", [f'PORTS {ADDRESS}, got "[1.2.3.4]:80:80"']),
    ("PORTS=8080:80,0.0.0.0:8080:81", ['PORTS must not have port 8080 of the host twice, got "8080:80,0.0.0.0:8080:81"']),
    ("PORTS=auto:80,auto:80", ['PORTS must not have auto:80 twice, got "auto:80,auto:80"']),
    ("PORTS=,", [f'PORTS {ITEM}, got ","']),
    ("PORTS=3000-3002:3000-3001", ['PORTS must have as many ports before the colon as behind it, got "3000-3002:3000-3001"']),
    ("PORTS=3000:3000-3001", ['PORTS must have as many ports before the colon as behind it, got "3000:3000-3001"']),
    ("PORTS=3002-3000:3000-3002", [f'PORTS {RANGE}, got "3002-3000:3000-3002"']),
    ("PORTS=1000-1256:1000-1256", [f'PORTS {RANGE}, got "1000-1256:1000-1256"']),
    ("PORTS=3000-3002:3000-3002,3001:80", ['PORTS must not have port 3001 of the host twice, got "3000-3002:3000-3002,3001:80"']),
    ("PORTS=8080:80/sctp", [f'PORTS {FORWARD}, got "8080:80/sctp"']),
    ("PORTS=8080:80,", [f'PORTS {ITEM}, got "8080:80,"']),
    ('PORTS="\\"8080:80"', [f'PORTS {QUOTE}, got ""8080:80"']),
    ("LAN_ALLOW=nas", [f'LAN_ALLOW {RULE}, got "nas"']),
    ("LAN_ALLOW=host", ['LAN_ALLOW must name a port behind host, as in host:11434, got "host"']),
    ("LAN_ALLOW=host:0", [f'LAN_ALLOW {PORT}, got "host:0"']),
    ("LAN_ALLOW=10.0.0.0/33", [f'LAN_ALLOW {NETWORK}, got "10.0.0.0/33"']),
    ("LAN_ALLOW=[10.0.0.0/8]", [f'LAN_ALLOW {NETWORK}, got "[10.0.0.0/8]"']),
    ("LAN_ALLOW=10.0.0.5/8", ['LAN_ALLOW must have the network\'s own address, 10.0.0.0/8 here, got "10.0.0.5/8"']),
    ("LAN_ALLOW=", [f'LAN_ALLOW {ITEM}, got ""']),
    ('LAN_ALLOW="\\"x"', [f'LAN_ALLOW {QUOTE}, got ""x"']),
    ("LAN_ALLOW=10.0.0.0/8,[fd00::/8]:443/udp,host:11434", [f'LAN_ALLOW {LATER}, got "10.0.0.0/8,[fd00::/8]:443/udp,host:11434"']),
    ("PROVISION_SCRIPT=base,,agent", [f'PROVISION_SCRIPT {ITEM}, got "base,,agent"']),
    ('PROVISION_SCRIPT="\\"x"', [f'PROVISION_SCRIPT {QUOTE}, got ""x"']),
    ("PROVISION_SCRIPT=script-of-dos", ['PROVISION_SCRIPT must name a script whose lines end as on Unix, without CR, got "script-of-dos"']),
    ("PROVISION_SCRIPT=base,not-executable", ['PROVISION_SCRIPT must name a script that is executable, or a playbook that ends in .yml, got "not-executable"']),
    ("PROVISION_SCRIPT=list.yml,vars.yml", [f'PROVISION_SCRIPT {PLAYBOOK}, got "list.yml"\n', f'PROVISION_SCRIPT {PLAYBOOK}, got "vars.yml"']),
    ("PROVISION_SCRIPT=broken.yml", ['PROVISION_SCRIPT must name a file of YAML; line 3 is not, got "broken.yml"']),
    ("PROVISION_SCRIPT=deep.yml", [f'PROVISION_SCRIPT {DEEP}, got "deep.yml"']),
    ("PROVISION_SCRIPT=nested.yml", [f'PROVISION_SCRIPT {DEEP}, got "nested.yml"']),
    ("PROVISION_SCRIPT=base\nPROVISION_VARS=list.yml", ['PROVISION_VARS must name a file of variables, each a line such as name: value, got "list.yml"']),
    ("PROVISION_SCRIPT=base\nPROVISION_VARS=broken.yml", ['PROVISION_VARS must name a file of YAML; line 3 is not, got "broken.yml"']),
    ("PROVISION_SCRIPT=base\nPROVISION_VARS=deep.yml", [f'PROVISION_VARS {DEEP}, got "deep.yml"']),
    ("PROVISION_SCRIPT=base\nPROVISION_VARS=", ['PROVISION_VARS must be the path of a file, got ""']),
    ("PROVISION_SCRIPT=missing\nPROVISION_VARS=vars.yml", ['PROVISION_SCRIPT must name a file that is there, got "missing"']),
    ("PROVISION_VARS=vars.yml", ["PROVISION_VARS is for a playbook in PROVISION_SCRIPT\n  hint: take PROVISION_VARS out, or name a playbook"]),
    ("PROVISION_SCRIPT=script\nPROVISION_VARS=vars.yml", ["PROVISION_VARS is for a playbook in PROVISION_SCRIPT\n  hint: take PROVISION_VARS out, or name a playbook"]),
    ("BOX=./image.qcow2\nIMAGE_SHA256=abc", ['IMAGE_SHA256 must be 64 hexadecimal digits, got "abc"']),
    (f"IMAGE_SHA256={'a' * 64}", ["IMAGE_SHA256 is for a file or URL in BOX\n  hint: take IMAGE_SHA256 out; what BOX names is checked in its own way"]),
    (f"{CONTAINER}IMAGE_SHA256={'a' * 64}", ["IMAGE_SHA256 is for INFRA_TYPE=vm\n  hint: take IMAGE_SHA256 out"]),
    ("CLOUD_INIT=vars.yml", ['CLOUD_INIT must name a file whose first line is #cloud-config, got "vars.yml"']),
    ("CLOUD_INIT=list-data", ['CLOUD_INIT must name a file of cloud-config keys, each a line such as packages: …, got "list-data"']),
    ("CLOUD_INIT=broken-data", ['CLOUD_INIT must name a file of YAML; line 3 is not, got "broken-data"']),
    ("CLOUD_INIT=tag-data", ["CLOUD_INIT must name a file of plain YAML: could not determine a constructor for the tag '!vault', got \"tag-data\""]),
    ("CLOUD_INIT=date-data", ['CLOUD_INIT must name a file of plain YAML: month must be in 1..12, got "date-data"']),
    ("CLOUD_INIT=deep-data", [f'CLOUD_INIT {DEEP}, got "deep-data"']),
    ("CLOUD_INIT=", ['CLOUD_INIT must be the path of a file, got ""']),
    (f"{CONTAINER}CLOUD_INIT=user-data", ["CLOUD_INIT is for INFRA_TYPE=vm\n  hint: take CLOUD_INIT out"]),
    ("SSH_USER=Me", ['SSH_USER must be a user name: 1 to 32 of a-z, 0-9, _ and -, a letter or _ first, got "Me"']),
    ("SSH_KEY=", [f'SSH_KEY {ITEM}, got ""']),
    ('SSH_KEY="\\"x"', [f'SSH_KEY {QUOTE}, got ""x"']),
    ('CA_CERTS="\\"x"', [f'CA_CERTS {QUOTE}, got ""x"']),
    ('MOUNT=ro\nHIDE="\\"x"', [f'HIDE {QUOTE}, got ""x"']),
    ("SSH_KEY=private", ['SSH_KEY must name a public key, not the private one, got "private"']),
    ("SSH_KEY=key.pub,text", ['SSH_KEY must name a file of public keys, each a line such as ssh-ed25519 AAAA…, got "text"']),
    ("SSH_KEY=empty", ['SSH_KEY must name a file of public keys, each a line such as ssh-ed25519 AAAA…, got "empty"']),
    ("CA_CERTS=", [f'CA_CERTS {ITEM}, got ""']),
    ("CA_CERTS=ca.pem,server.pem", ['CA_CERTS must name certificates of authorities; number 2 is a server\'s, got "server.pem"']),
    ("CA_CERTS=with-key.pem,text", ['CA_CERTS must name a file of certificates, without a private key, got "with-key.pem"\n', 'CA_CERTS must name a file of certificates in PEM, each from BEGIN to END, got "text"']),
    ("CA_CERTS=half.pem", ['CA_CERTS must name a file of certificates in PEM, each from BEGIN to END, got "half.pem"']),
    ("CA_CERTS=garbled.pem", ['CA_CERTS must name a file of certificates; number 1 is none, got "garbled.pem"']),
    ("CA_CERTS=bundle.pem", ['CA_CERTS must name 64 KB of certificates at most, got "bundle.pem"']),
    ("MOUNT=yes", ['MOUNT must be none, ro or rw, got "yes"']),
    ("AGENT=cursor", ['AGENT must be claude, codex or opencode, got "cursor"']),
    ('AGENT="\\"x"', [f'AGENT {QUOTE}, got ""x"']),
    ("AGENT=codex,", [f'AGENT {ITEM}, got "codex,"']),
    ("AGENT=codex,claude,codex", ['AGENT must not have codex twice, got "codex,claude,codex"']),
    ("AGENT=claude\nAGENT_ENV=A-B", ['AGENT_ENV must be the name of a variable, got "A-B"']),
    ('AGENT=claude\nAGENT_ENV="\\"x"', [f'AGENT_ENV {QUOTE}, got ""x"']),
    ("AGENT=claude\nAGENT_ENV=", [f'AGENT_ENV {ITEM}, got ""']),
    ("AGENT=claude\nAGENT_ENV=TOKEN,TOKEN", ['AGENT_ENV must not have TOKEN twice, got "TOKEN,TOKEN"']),
    ("AGENT=claude\nAGENT_ENV=TOKEN,BARE", ['AGENT_ENV must name what secrets.env has, got "BARE"']),
    ("AGENT_ENV=TOKEN", ["AGENT_ENV is for AGENT\n  hint: take AGENT_ENV out, or write AGENT=claude"]),
    ("PROTECT=never", ['PROTECT must be yes or no, got "never"']),
    ("HIDE=", [f'HIDE {ITEM}, got ""', IDLE_HIDE]),
    ("MOUNT=ro\nHIDE=/etc", [f'HIDE {IN_FOLDER}, got "/etc"']),
    ("MOUNT=ro\nHIDE=a-folder/../text", [f'HIDE {IN_FOLDER}, got "a-folder/../text"']),
    ("MOUNT=ro\nHIDE=.", [f'HIDE {IN_FOLDER}, got "."']),
    ("MOUNT=ro\nHIDE=text,.git", [f'HIDE {NO_GIT}, got ".git"']),
    ("MOUNT=rw\nHIDE=a-folder/.Git/config", [f'HIDE {NO_GIT}, got "a-folder/.Git/config"']),
    ("MOUNT=ro\nHIDE=text,./text", ['HIDE must not have text twice, got "text,./text"']),
    ("MOUNT=ro\nHIDE=a-folder/inner,a-folder", ['HIDE must not have a-folder/inner in a-folder, which is hidden as a whole, got "a-folder/inner,a-folder"']),
    ("MOUNT=ro\nHIDE=text,missing", ['HIDE must name what is there in the project\'s folder, got "missing"']),
    ("MOUNT=ro\nHIDE=text/inner", ['HIDE must name what can be read (Not a directory), got "text/inner"']),
    ("MOUNT=ro\nHIDE=link", ['HIDE must name no symbolic link, nor what is behind one, got "link"']),
    ("MOUNT=ro\nHIDE=link/inner", ['HIDE must name no symbolic link, nor what is behind one, got "link/inner"']),
    ("MOUNT=ro\nHIDE=fifo", ['HIDE must name a file or a folder, got "fifo"']),
    ("HIDE=text", [IDLE_HIDE]),
    ("AUTOSTART=on", ['AUTOSTART must be yes or no, got "on"']),
    (f"{CONTAINER}NESTED=maybe", ['NESTED must be yes or no, got "maybe"']),
]  # fmt: skip

for _key in NOT_BUILT:
    ROWS += [(f"{_key}=no", [f'{_key} {LATER}, got "no"'])]  # fmt: skip

for _key in ("GATEWAY", "DNS"):
    ROWS += [
        (f"{_key}=router", [f'{_key} must be an IPv4 address, got "router"', f"{_key} is for NETWORK_TYPE=bridge\n  hint: take {_key} out, or write NETWORK_TYPE=bridge"]),
        (f"{BRIDGE}FIXED_IP=10.0.0.5\n{_key}=255.255.255.255", [f'{_key} {MACHINE}, got "255.255.255.255"']),
        (f"{BRIDGE}{_key}=10.0.0.1", [f"{_key} is for a guest with FIXED_IP\n  hint: take {_key} out, or give the guest a FIXED_IP"]),
    ]  # fmt: skip

for _address, _text in (
    ("10.0.0.5", 'must be another address than FIXED_IP, got "10.0.0.5"'),
    ("10.0.1.1", 'must be a machine on FIXED_IP\'s network 10.0.0.0/24, got "10.0.1.1"'),
    ("10.0.0.255", 'must be a machine on FIXED_IP\'s network 10.0.0.0/24, got "10.0.0.255"'),
):
    ROWS += [
        (f"{BRIDGE}FIXED_IP=10.0.0.5/24\nGATEWAY={_address}", [f"GATEWAY {_text}\n  hint: it is the router of the network that the guest is on"]),
    ]  # fmt: skip

# What keeps a file from being used is the same whichever key names it.
for _key in ("BOX", "PROVISION_SCRIPT", "PROVISION_VARS", "CLOUD_INIT", "SSH_KEY", "CA_CERTS"):
    _above = "PROVISION_SCRIPT=base\n" if _key == "PROVISION_VARS" else ""
    _faults = [
        ("./missing.yml", "must name a file that is there"),
        ("./text/x.yml", "must name a file that can be read (Not a directory)"),
        ("./a-folder", "must name a file, not a folder"),
        ("./fifo", "must name a regular file"),
        ("./unreadable", "must name a file that you may read"),
    ]
    if _key != "BOX":
        _faults += [
            ("./latin1.yml", "must name a file of UTF-8 text"),
            ("./big.yml", "must name a file of 1 MB at most"),
            ("./mem.yml", "must name a file that can be read (Input/output error)"),
        ]
    for _path, _text in _faults:
        ROWS.append((f"{_above}{_key}={_path}", [f'{_key} {_text}, got "{_path}"']))

for _of_container in (key for key in KEYS.values() if key.infra_type == "container"):
    ROWS.append((f"{_of_container.name}={_of_container.example}", [f"{_of_container.name} is for INFRA_TYPE=container\n  hint: take {_of_container.name} out"]))  # fmt: skip

# So is what no value may be.
for _key in HINTS:
    _type = CONTAINER if KEYS[_key].infra_type == "container" else ""
    _type += "MOUNT=ro\n" if _key == "HIDE" else ""
    _also = [f"{_key} is for NETWORK_TYPE=bridge\n  hint: take {_key} out, or write NETWORK_TYPE=bridge"] if _key in ("BRIDGE", "GATEWAY", "DNS") else []  # fmt: skip
    _also += ["PROVISION_VARS is for a playbook in PROVISION_SCRIPT\n  hint: take PROVISION_VARS out, or name a playbook"] if _key == "PROVISION_VARS" else []  # fmt: skip
    _type += "AGENT=claude\n" if _key == "AGENT_ENV" else ""
    _also += ["IMAGE_SHA256 is for a file or URL in BOX\n  hint: take IMAGE_SHA256 out; what BOX names is checked in its own way"] if _key == "IMAGE_SHA256" else []  # fmt: skip
    ROWS += [
        (f'{_type}{_key}="a\nTOKEN=hunter2\nb="', [f'{_key} must be on one line, without control characters, got "a…"', *_also]),
        (f"{_type}{_key}=a\x1b[2J", [f'{_key} must be on one line, without control characters, got "a\\x1b[2J"', *_also]),
        (f"{_type}{_key}={'a' * 9000}", [f'{_key} must be shorter than 8192 characters, got "{"a" * 100}…"', *_also]),
    ]  # fmt: skip


def env_of(above: str) -> str:
    """Return the `.env` of a row."""
    written = {line.partition("=")[0] for line in above.splitlines()}
    below = [line for line in SOUND.splitlines() if line.partition("=")[0] not in written]
    return "\n".join([above, *below, ""])


def expected(above: str, problems: list[str]) -> str:
    """Return all that must be said of a row. A problem that ends in a newline has no hint."""
    lines = []
    for problem in problems:
        key = problem.split()[0]
        later = f"take {key} out; this version cannot honour it"
        hint = f"\n  hint: {later if LATER in problem else HINTS[key]}"
        if "\n" in problem:
            hint = ""
        number = [line.partition("=")[0] for line in above.split("\n")].index(key) + 1
        lines.append(f".env:{number}: {problem.rstrip()}{hint}")
    return "\n".join(lines)


# What Settings has where `.env` has nothing.
UNWRITTEN: dict[str, object] = {
    "image": "debian-13",
    "image_sha256": None,
    "accel": "auto",
    "lan_access": False,
    "lan_allow": (),
    "network_type": "default",
    "bridge": None,
    "fixed_ip": None,
    "gateway": None,
    "dns": None,
    "mac": None,
    "ports": (),
    "ssh_user": "vagrant",
    "ssh_key": (),
    "ca_certs": (),
    "autostart": False,
    "nested": False,
    "mount": "none",
    "protect": True,
    "hide": (),
    "provision_script": (),
    "agent": (),
    "agent_env": (),
    "provision_vars": None,
    "cloud_init": None,
}

ANY_PORT = st.integers(1, 65535).map(str)
ANY_HOST = st.integers(1, 254).map("10.1.2.{}".format)
WORDS = st.sampled_from
GOOD: dict[str, st.SearchStrategy[str]] = {
    "INFRA_TYPE": WORDS(["vm", "container"]),
    "MEMORY": st.integers(1, 2**24).map(str),
    "CPUS": st.integers(1, 1024).map(str),
    "DISK": st.integers(1, 2**16).map(str),
    "NAME": st.from_regex(parsers.LABEL, fullmatch=True),
    "BOX": st.sampled_from([*BUILT_IMAGES]) | st.from_regex(parsers.VAGRANT_BOX, fullmatch=True),
    "IMAGE": st.sampled_from([*BUILT_IMAGES]),
    "ACCEL": WORDS(["auto", "kvm", "tcg"]),
    "LAN_ACCESS": WORDS(["yes", "no"]),
    "NETWORK_TYPE": WORDS(["default", "bridge"]),
    "BRIDGE": WORDS(["br0", "virbr1", "br-lan.2"]),
    "FIXED_IP": ANY_HOST | ANY_HOST.map("{}/24".format),
    "GATEWAY": ANY_HOST,
    "DNS": ANY_HOST,
    "MAC": st.integers(0, 2**24 - 1).map(lambda n: f"52:54:00:{n >> 16:02x}:{n >> 8 & 255:02x}:01"),
    "PORTS": st.tuples(ANY_PORT, ANY_PORT).map(":".join) | ANY_PORT.map("auto:{}".format),
    "LAN_ALLOW": st.tuples(ANY_HOST, ANY_PORT).map(":".join) | ANY_PORT.map("host:{}/udp".format),
    "PROVISION_SCRIPT": WORDS(["base", "agent,play.yml", './script,"it\'s a, script"']),
    "AGENT": WORDS(["claude", "codex,claude", "opencode"]),
    "AGENT_ENV": WORDS(["TOKEN", "OTHER,TOKEN"]),
    "PROVISION_VARS": WORDS(["vars.yml", "./encrypted.yml", "empty"]),
    "IMAGE_SHA256": st.from_regex(parsers.SHA256, fullmatch=True),
    "CLOUD_INIT": WORDS(["user-data", "./a-folder/../user-data"]),
    "SSH_USER": st.just("vagrant") | st.from_regex(parsers.USER, fullmatch=True),
    "SSH_KEY": WORDS(["key.pub", "key.pub,./key.pub"]),
    "CA_CERTS": WORDS(["ca.pem", "./ca.pem,ca.pem"]),
    "MOUNT": WORDS(["none", "ro", "rw"]),
    "PROTECT": WORDS(["yes", "no"]),
    "HIDE": WORDS(["text", 'a-folder,"it\'s a, script"', "./a-folder//inner,key.pub"]),
    "AUTOSTART": WORDS(["yes", "no"]),
    "NESTED": WORDS(["yes", "no"]),
}

Values = dict[str, object]
ON_BRIDGE: Values = {"NETWORK_TYPE": "bridge", "BRIDGE": "br0", "FIXED_IP": "192.0.2.9/24"}
FROM_URL: Values = {"BOX": "https://example.org/a.qcow2"}
# What `.env` has beside the key, where that makes no sense alone; what it is, and becomes.
CHANGES: dict[str, tuple[Values, object, object]] = {
    "INFRA_TYPE": ({}, "vm", "container"),
    "MEMORY": ({}, 512, 600),
    "CPUS": ({}, 1, 2),
    "DISK": ({}, 3, 4),
    "NAME": ({}, "old", "new"),
    "BOX": ({}, "debian-13", "generic/debian12"),
    "IMAGE": ({}, "debian-13", "docker.io/library/node:22"),
    "ACCEL": ({}, "auto", "tcg"),
    "LAN_ACCESS": ({}, "no", "yes"),
    "NETWORK_TYPE": ({}, "default", "bridge"),
    "BRIDGE": (ON_BRIDGE, "br0", "br1"),
    "FIXED_IP": ({}, "10.9.8.7", "10.9.8.6"),
    "GATEWAY": (ON_BRIDGE, "192.0.2.1", "192.0.2.2"),
    "DNS": (ON_BRIDGE, "192.0.2.1", "192.0.2.2"),
    "MAC": ({}, "52:54:00:12:34:56", "52:54:00:12:34:57"),
    "PORTS": ({}, "8080:80", "8080:81"),
    "LAN_ALLOW": ({}, "host:1", "host:2"),
    "PROVISION_SCRIPT": ({}, "base", "agent"),
    "AGENT": ({}, "claude", "codex,claude"),
    "AGENT_ENV": ({"AGENT": "claude"}, "TOKEN", "OTHER,TOKEN"),
    "PROVISION_VARS": ({"PROVISION_SCRIPT": "base"}, "one.yml", "two.yml"),
    "IMAGE_SHA256": (FROM_URL, "0" * 64, "1" * 64),
    "CLOUD_INIT": ({}, "one.yml", "two.yml"),
    "SSH_USER": ({}, "vagrant", "root"),
    "SSH_KEY": ({}, "one.pub", "two.pub"),
    "CA_CERTS": ({}, "one.pem", "two.pem"),
    "MOUNT": ({}, "none", "ro"),
    "PROTECT": ({"MOUNT": "rw"}, "yes", "no"),
    "HIDE": ({"MOUNT": "ro"}, "one.yml", "two.yml"),
    "AUTOSTART": ({}, "no", "yes"),
    "NESTED": ({}, "no", "yes"),
}
