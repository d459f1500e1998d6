#!/usr/bin/python3 -IS
"""Keeps guests from the LAN: the packet filter of this host, written whenever a guest starts.

Host set-up puts this file, owned by root, into /usr/local/lib/vagrantp/ and registers it as a hook
of libvirt and of the OCI runtimes. So whatever starts a guest runs it, before the guest's first
instruction, and a guest whose rules cannot be written does not start. docs/isolation.md says what
is filtered, docs/adr/0010-isolation-by-hooks.md why so.

    guard load                the rules of all running guests, as after a boot
    guard check               one line of JSON: are the live rules those that were loaded?
    guard sync                what runs is asked of libvirt and Podman, then the rules loaded
    guard unload              no rules, no record
    guard qemu NAME OPERATION libvirt's hook, the domain's XML on stdin (hooks.html of libvirt)
    guard oci                 an OCI hook, the container's state on stdin (runtime-spec, config.md)
    guard adopt               writes down the ids of containers that an older version made
    guard inside check PID FOLDER, guard inside load PID FOLDER
                              the same for a user's container, in `podman unshare`: its first
                              process, and the folder that has its isolation.json
    guard bound, guard renew  what udhcpc(1) calls in a container with a lease

It also gives a guest its project folder, where MOUNT says so: docs/adr/0016-the-folder-by-bindfs.md

Standard library only, and no module of ours: root runs it, and the checkout may be a user's.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import pwd
import re
import select
import shutil
import socket
import stat
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from errno import EPERM
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, collapse_addresses
from pathlib import Path
from time import sleep
from typing import Any, TextIO

RUN = Path("/run/vagrantp")  # of root's: guests/<name>.json, the rules as they were loaded
BRIDGES = {"vm": "vagrantp0", "container": "vagrantp1"}
METADATA = "{urn:vagrantp:instance}instance"
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?-[0-9a-f]{8}")
CARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
TAPS = "vgp"  # what the names of our VMs' network cards begin with, on the host
ANNOTATION = "io.vagrantp.state"  # of a container: the folder that has its isolation.json
RECORD = "container"  # in that folder: the id of the container, written down before its first start
SEED, SEED_MOUNT = "guest", "/run/vagrantp-seed"  # in that folder, and where the container sees it
LAN_TAPS = "vgl"  # the same of their cards on a bridge of the host, and of containers' there
LAN_CARD = "lan0"  # a container's card on a bridge of the host, as it sees it
GUARD = Path("/usr/local/lib/vagrantp/guard")
FORWARD = GUARD.with_name("forward")
HOOKS = (
    Path("/etc/libvirt/hooks/qemu.d/vagrantp"),
    Path("/etc/containers/oci/hooks.d/vagrantp.json"),
)
VIRSH = ("virsh", "--quiet", "--connect", "qemu:///system")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# RFC 6890, and multicast and class E: what is not the internet, wherever it is routed to.
PRIVATE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "224.0.0.0/3"),
)
# Of packets to what the host has a route of its own to, and not the default one (nor the two halves
# of it that VPNs write): routing marks them, so this is never older than the routes.
REALM = 77
WATCH_PAUSE = 30_000  # milliseconds after which the rules are looked at in any case
SETTLE = 0.05  # seconds in which one change is followed by more
RETRY = 1.0  # seconds after which a failed look at the rules is repeated
NETFILTER = 12  # netlink(7)'s family; Python has no name for it
# Its groups, as bind(2) takes them: linux/netfilter/nfnetlink.h, linux/rtnetlink.h.
OF_NFTABLES, OF_LINKS, OF_ADDRESSES, OF_RULES = 0x40, 0x1, 0x10, 0x80
RULE = 77  # its priority among the rules of ip-rule(8)
# What Podman has slirp4netns(1) and pasta(1) show a user's container as the host and as a resolver.
SEEN_HOSTS = ("10.0.2.2", "169.254.1.2")
SEEN_RESOLVERS = ("10.0.2.3", "169.254.1.1")

MOUNTS = RUN / "mounts"  # of VMs: by name, the project folder as virtiofsd(1) is to see it
PROJECT = "project"  # at the root of a container
SANDBOX = (
    *("bwrap", "--unshare-ipc", "--unshare-net", "--unshare-uts", "--ro-bind", "/usr", "/usr"),
    *("--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
    *("--symlink", "usr/lib64", "/lib64", "--dir", "/dev", "--dev-bind", "/dev/fuse", "/dev/fuse"),
    *("--dir", "/none"),
)
FUSERMOUNT = "fusermount3"
# Of the calls that can make a file setuid: their numbers (fchmodat2 is newer than the tables that
# were one's own), and which argument is the mode. man7.org, syscalls(2)
SETS_MODE = {
    "x86_64": (0xC000003E, {90: 1, 91: 1, 133: 1, 259: 2, 268: 2, 452: 2}),
    "aarch64": (0xC00000B7, {33: 2, 52: 1, 53: 2, 452: 2}),
}

Guest = dict[str, Any]


class Refused(Exception):
    """What a guest must not start with."""


def main(argv: list[str]) -> int:
    """Run one command; return the exit status."""
    if "_FUSE_COMMFD" in os.environ:
        return hand_over()
    command, *arguments = argv or ["help"]
    try:
        if command == "check":
            with _locked() if RUN.is_dir() else nullcontext():  # not while rules are loaded
                return _report(problems(), guests(), _leased())
        if command == "inside":
            pid, folder = int(arguments[1]), Path(arguments[2])
            if arguments[0] == "load":
                _load_inside(pid, folder)
                _watch(pid, folder)
            return _report(inside_problems(pid, folder), [], {})
        if command in ("bound", "renew"):
            configure(os.environ)
        elif command == "qemu":
            on_qemu(*arguments[:2])
        elif command == "oci":
            state = json.load(sys.stdin)
            folder = Path(state["annotations"][ANNOTATION])
            if not is_recorded(folder, state["id"]):
                refuse_unrecorded(folder, Path(state["bundle"]))
            elif state["status"] == "stopped":
                forget(folder.name)
            else:
                on_oci(int(state["pid"]), Path(state["bundle"]), folder)
        elif command == "adopt":
            adopt()
        elif command == "sync":
            with _locked():
                _sync()
                _load()
                _ask_again()
            _watch_host()
        elif command == "load":
            with _locked():
                _load()
            _watch_host()
        elif command == "unload":
            shutil.rmtree(RUN / "guests", ignore_errors=True)  # nobody is to be watched over
            for path in MOUNTS.glob("*"):
                _unmount(path.name)
                if path.is_mount():
                    raise Refused(f"{path} is in use")
            for query in LIST:
                _tool("nft", "delete", *query[3:], check=False)
            for bridge in BRIDGES.values():
                _tool("ip", "rule", "delete", "priority", str(RULE), "iif", bridge, check=False)
            shutil.rmtree(RUN, ignore_errors=True)
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except (Refused, OSError, ValueError, KeyError, ET.ParseError) as error:
        print(f"vagrantp guard: {command}: {error}", file=sys.stderr)
        return 1
    return 0


# Hooks


def on_qemu(name: str, operation: str) -> None:
    """Admit a VM of ours before it starts, forget it when it has ended.

    A domain that is not ours gets nothing: on our network that is no packet at all.
    """
    if operation == "prepare":  # virtiofsd comes before `start`
        values = ET.fromstring(sys.stdin.read()).find(f"metadata/{METADATA}")
        if values is not None and NAME.fullmatch(name):
            wish = _checked_mount(json.loads(values.get("mount", "null")))
            _unmount(name)
            if wish:
                MOUNTS.mkdir(mode=0o700, parents=True, exist_ok=True)
                MOUNTS.chmod(0o700)  # what is mounted below is open to all
                (MOUNTS / name).mkdir()
                person = (int(values.get("uid", "")), int(values.get("gid", "")))
                _share(MOUNTS / name, wish, person)
    elif operation in ("start", "reconnect"):
        guest = guest_of_domain(sys.stdin.read())
        if guest:
            with _locked():
                _remember(guest)
                _load(
                    starting=guest["lan"]["port"] if operation == "start" and guest["lan"] else ""
                )
            _watch_host()
    elif operation == "started":
        values = ET.fromstring(sys.stdin.read()).find(f"metadata/{METADATA}")
        if values is not None and _file(name).exists():
            if json.loads(values.get("lan", "null")):
                _no_spanning_tree(f"{LAN_TAPS}{values.get('id')}")
            pid = int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())
            user = ("setpriv", f"--reuid={values.get('uid')}", f"--regid={values.get('gid')}")
            _forward(Path(values.get("state", "/")), pid, (*user, "--init-groups"))
    elif operation == "release" and NAME.fullmatch(name):
        _unmount(name)
        forget(name)


def on_oci(pid: int, bundle: Path, folder: Path) -> None:
    """Admit a container of ours before its first process, or write down why it must not start.

    In a user's container there is no host's filter to write: it gets rules in its own network
    namespace, which nobody in it has the capability to change.
    """
    why = folder / "hook.error"
    try:
        _admit(pid, bundle, folder)
        why.unlink(missing_ok=True)
    except Exception as error:  # crun(1) tells nobody what a hook says
        why.write_text(f"{error}\n", encoding="utf-8")
        raise


def forget(name: str) -> None:
    """Take a guest that has ended out of the rules."""
    if not is_rootless() and _file(name).exists():
        with _locked():
            _file(name).unlink(missing_ok=True)
            _load()


def is_recorded(folder: Path, identity: str) -> bool:
    """Say whether a container is the one whose state folder this is, by its id.

    Podman copies annotations of an image to its containers, so any container may name any folder.
    None can know its own id beforehand. The record must be the caller's own and private.
    """
    with suppress(OSError, ValueError):  # whatever an image has put into the annotation
        if not (folder.is_absolute() and _is_private(folder.lstat(), stat.S_ISDIR)):
            return False
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(folder / RECORD, opener=lambda path, more: os.open(path, flags | more)) as file:
            is_own = _is_private(os.fstat(file.fileno()), stat.S_ISREG)
            return is_own and file.read(len(identity) + 2).strip() == identity
    return False


def _is_private(facts: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    return is_kind(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o022


def refuse_unrecorded(folder: Path, bundle: Path) -> None:
    """Raise Refused for a container of vagrantp whose id is not on record; let any other start.

    It has the seed of that folder, which an image cannot mount.
    """
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    if _has_seed(folder, ((m["destination"], m.get("source", "")) for m in config["mounts"])):
        raise Refused(f"{folder.name} is not on record, as an older version made it: run fab up")


def _has_seed(folder: Path, mounts: Iterable[tuple[str, str]]) -> bool:
    with suppress(OSError, ValueError):
        return any(
            target == SEED_MOUNT and (folder / SEED).samefile(source) for target, source in mounts
        )
    return False


def adopt() -> None:
    """Write down the ids of the caller's containers that an older version of vagrantp made."""
    for container in _containers("--all"):
        folder, identity = Path(container["Config"]["Annotations"][ANNOTATION]), container["Id"]
        mounts = ((m["Destination"], m["Source"]) for m in container["Mounts"])
        if container["Name"] != folder.name or not _has_seed(folder, mounts):
            continue
        if _is_private(folder.lstat(), stat.S_ISDIR) and not is_recorded(folder, identity):
            _write(folder / RECORD, f"{identity}\n", 0o600)
            print(f"adopted {folder.name}")


def _admit(pid: int, bundle: Path, folder: Path) -> None:
    if wish := _mount_of(folder):
        _share(_project_in(bundle), wish, (0, 0), "nsenter", f"--target={pid}", "--mount")
    if is_rootless():
        _load_inside(pid, folder)
        _watch(pid, folder)
        return _forward(folder, pid, (), "--netns", f"/proc/{pid}/ns/net")
    wishes = _wishes(folder)
    with _locked():
        _remember({"name": folder.name, **_interface_of(pid), **wishes})
        _load(starting=wishes["lan"]["port"] if wishes["lan"] else "")
    _watch_host()
    if wishes["lan"]:
        _plug(pid, wishes["lan"], hostname=folder.name.rpartition("-")[0])
    _forward(folder, pid)


def _project_in(bundle: Path) -> Path:
    """Return the folder of a container, about to start, that its project is to be at."""
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    found: Path = bundle / config["root"]["path"] / PROJECT
    with suppress(FileExistsError):
        found.mkdir()
    if not stat.S_ISDIR(found.lstat().st_mode):  # a link would lead out of the container
        raise Refused(f"/{PROJECT} of the container is no folder")
    return found


def _share(target: Path, wish: Guest, person: tuple[int, int], *enter: str) -> None:
    """Mount a project folder, as a guest is to see it, at `target`: by bindfs(1).

    All in it belongs to one user of the guest; what the guest does there is done by a process of
    the person's (`person`: uid, gid; of root's projects the folder's owner), without capabilities,
    that sees this folder and nothing else, and that can make no file setuid. It ends with the
    mount. `enter`: what runs a command in the mount namespace that has `target`.
    """
    uid, gid = person
    if os.path.realpath(wish["folder"]) != wish["folder"]:
        raise Refused(f"{wish['folder']} is no folder any more, but leads elsewhere")
    groups = "--keep-groups"  # as they are for a user's container
    if not is_rootless():
        if uid == 0:
            facts = Path(wish["folder"]).stat()
            uid, gid = facts.st_uid, facts.st_gid
        numbers = os.getgrouplist(pwd.getpwuid(uid).pw_name, gid) if person[0] else [gid]
        groups = f"--groups={','.join(map(str, numbers))}"
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    calls = os.memfd_create("calls")
    try:
        os.write(calls, no_setuid(platform.machine()))
        os.lseek(calls, 0, os.SEEK_SET)
        options = f"{wish['mode']},nosuid,nodev,allow_other,default_permissions,fd={fuse}"
        options += ",rootmode=40000,user_id=0,group_id=0"
        kind = ("--types", "fuse.bindfs", "--options", options)
        _tool(*enter, "mount", "--internal-only", *kind, "vagrantp", str(target), fds=(fuse,))
        argv = (
            *(*SANDBOX, "--bind", wish["folder"], "/project", "--seccomp", str(calls)),
            # It asks this for the device, as it is not root. libfuse has it where it was built for.
            *("--ro-bind", str(GUARD), f"/usr/bin/{FUSERMOUNT}", "--setenv", "FUSE", str(fuse)),
            *("setpriv", f"--reuid={uid}", f"--regid={gid}", groups, "--inh-caps=-all"),
            *("--bounding-set=-all", "bindfs", "-f", "-o", wish["mode"], "--xattr-none"),
            *(f"--force-user={wish['uid']}", f"--force-group={wish['gid']}"),
            *("--create-as-mounter", "--chown-ignore", "--chgrp-ignore", "/project", "/none"),
        )
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": PATH},
            start_new_session=True,
            pass_fds=(fuse, calls),
        )
    finally:
        os.close(calls)
        os.close(fuse)  # the server alone has it now: without it, the mount answers with an error
    try:
        _tool(*enter, "ls", str(target))
    except Refused:
        _tool(*enter, "umount", "--lazy", str(target), check=False)
        raise Refused(f"{wish['folder']} cannot be shared: see that bindfs and bwrap run") from None


def hand_over() -> int:
    """Do what libfuse asks fusermount3(1) for: give it /dev/fuse, opened and mounted already."""
    with socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])) as libfuse:
        socket.send_fds(libfuse, [b"\0"], [int(os.environ["FUSE"])])
    return 0


def no_setuid(machine: str) -> bytes:
    """Return a filter of seccomp(2) that lets no file become setuid or setgid. Pure.

    As systemd's RestrictSUIDSGID, but for open(2) and mkdir(2), which bindfs gives no such bits.
    Each instruction: code, jumps if true and if false, value; a call is its number at 0, the kind
    of processor at 4, and from 16 on its arguments of 8 bytes.
    """
    if machine not in SETS_MODE:
        raise Refused(f"MOUNT is not known on {machine} processors")
    load, equals, has_bits, end = 0x20, 0x15, 0x45, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | EPERM, 0x80000000
    processor, calls = SETS_MODE[machine]
    program = [(load, 0, 0, 4), (equals, 1, 0, processor), (end, 0, 0, kill)]
    for number, argument in calls.items():
        program += [
            (load, 0, 0, 0),
            (equals, 0, 3, number),
            (load, 0, 0, 16 + 8 * argument),
            (has_bits, 0, 1, stat.S_ISUID | stat.S_ISGID),
            (end, 0, 0, refuse),
        ]
    return b"".join(struct.pack("HBBI", *each) for each in [*program, (end, 0, 0, allow)])


def _unmount(name: str) -> None:
    """Take away what a VM had of its project folder."""
    place = MOUNTS / name
    if MOUNTS.is_dir() and place in MOUNTS.iterdir():  # a look at it fails without its server
        _tool("umount", "--lazy", str(place), check=False)
        place.rmdir()


def _plug(pid: int, lan: Guest, hostname: str) -> None:
    """Give a container a card on a bridge of the host, and the way out by it alone."""
    port = lan["port"]
    _tool("ip", "link", "delete", port, check=False)
    card = ("name", LAN_CARD, "address", lan["mac"], "netns", str(pid))
    _tool("ip", "link", "add", port, "type", "veth", "peer", *card)
    _tool("ip", "link", "set", port, "master", lan["bridge"])
    _no_spanning_tree(port)
    _tool("ip", "link", "set", port, "up")
    _inside(pid, "ip", "link", "set", LAN_CARD, "up")
    _inside(pid, "ip", "route", "delete", "default", check=False)
    if lan["ip"]:
        _inside(pid, "ip", "address", "add", lan["address"], "dev", LAN_CARD)
        _inside(pid, "ip", "route", "add", "default", "via", lan["gateway"], "dev", LAN_CARD)
    elif _in_background():
        client = ("setpriv", "--pdeathsig=KILL", "busybox", "udhcpc", "-f", "-i", LAN_CARD)
        own = (*client, "-s", str(GUARD), "-x", f"hostname:{hostname}")
        guest = os.pidfd_open(pid)
        argv = ("nsenter", f"--target={pid}", "--net", *own)
        told = {"PATH": PATH, "PORT": port, "WATCHER": str(os.getpid())}
        with subprocess.Popen(argv, env=told) as process:
            select.select([guest], [], [])
            process.kill()
        os._exit(0)


def _no_spanning_tree(port: str) -> None:
    """Close a port that speaks of spanning trees: a bridge with one listens before any filter."""
    _tool("ip", "link", "set", "dev", port, "type", "bridge_slave", "guard", "on")


def configure(lease: Mapping[str, str]) -> None:
    """Take a lease, in the network namespace that this runs in. `lease`: as udhcpc(1) tells it.

    WATCHER among it is a process in the host's.
    """
    card = lease["interface"]
    own = f"{IPv4Address(lease['ip'])}/{IPv4Network('0.0.0.0/' + lease['subnet']).prefixlen}"
    _tool("ip", "address", "replace", own, "dev", card)
    for old in json.loads(_tool("ip", "-4", "-json", "address", "show", "dev", card)):
        for address in old["addr_info"]:
            if (known := f"{address['local']}/{address['prefixlen']}") != own:
                _tool("ip", "address", "delete", known, "dev", card)
    for router in lease.get("router", "").split()[:1]:
        _tool("ip", "route", "replace", "default", "via", router, "dev", card)
    with _locked():
        given = f"{int(IPv4Address(lease['ip'])):08x}"
        _write(RUN / "leases", json.dumps({**_kept_leases(), lease["PORT"]: [given]}))
        # the rules have seen it as well, unless they were away just then
        element = f'{{ "{lease["PORT"]}" . 0x{given} }}'
        which = ("bridge", "vagrantp", "leased")
        _inside(int(lease["WATCHER"]), "nft", "add", "element", *which, element, check=False)


def _forward(folder: Path, pid: int, user: tuple[str, ...] = (), *options: str) -> None:
    """Let its ports be carried, as whose guest it is. That is no condition for a guest to start."""
    spec = folder / "forwards.json"
    argv = (*user, "/usr/bin/python3", "-IS", str(FORWARD), str(spec), "--pid", str(pid), *options)
    try:
        _tool(*argv)
    except Refused as error:
        print(f"vagrantp guard: forwarding ports: {error}", file=sys.stderr)


def guest_of_domain(xml: str) -> Guest | None:
    """Return what a domain's XML says of a guest of ours, None for a foreign one.

    Raises Refused when it is ours, and not as it must be.
    """
    domain = ET.fromstring(xml)
    values = domain.find(f"metadata/{METADATA}")
    name = domain.findtext("name", "")
    if values is None or name != f"{values.get('name')}-{values.get('id')}":
        return None
    cards = domain.findall("devices/interface")
    wishes = json.loads(values.get("lan", "null"))
    types = [card.get("type") for card in cards]
    if types[0:1] not in (["network"], ["bridge"]) or types[1:] != (["bridge"] if wishes else []):
        raise Refused(f"{name} must have the network cards that vagrantp gave it, and no other")
    facts = []
    for card in cards:
        mac, tap, source = card.find("mac"), card.find("target"), card.find("source")
        if mac is None or tap is None or source is None:
            raise Refused(f"a network card of {name} has no name")
        # one on a network of libvirt's gets the bridge only now
        facts.append(
            {
                "port": tap.get("dev", ""),
                "mac": mac.get("address", ""),
                "bridge": source.get("bridge", BRIDGES["vm"]),
            }
        )
    return checked(
        {
            "name": name,
            **facts[0],
            "ip": values.get("address", ""),
            "lan_access": values.get("lan_access") == "yes",
            "lan_allow": json.loads(values.get("lan_allow", "[]")),
            "lan": {**wishes, **facts[1]} if wishes else None,
        }
    )


def checked(guest: Guest) -> Guest:
    """Return a guest whose values can go into a rule as they are. Raises Refused, ValueError."""
    if not NAME.fullmatch(guest["name"]) or guest["bridge"] not in BRIDGES.values():
        raise Refused(f"{guest['name']} is no name of a guest")
    if not CARD.fullmatch(guest["port"]):
        raise Refused(f"{guest['name']} has no network card with a name of ours")
    if not MAC.fullmatch(guest["mac"]):
        raise Refused(f"{guest['name']} has no MAC address")
    guest["ip"] = str(IPv4Address(guest["ip"]))
    guest |= _checked_wishes(guest)
    return guest


def _checked_wishes(wishes: Guest) -> Guest:
    allowed = []
    for rule in wishes["lan_allow"]:
        network = rule["network"] and str(IPv4Network(rule["network"]))
        port = rule["port"] and int(rule["port"])
        if rule["protocol"] not in (None, "tcp", "udp") or not (network or port):
            raise Refused(f"{rule} is no rule")
        allowed.append({"network": network, "port": port, "protocol": rule["protocol"]})
    lan = _checked_lan(wishes["lan"]) if wishes.get("lan") else None
    return {"lan_access": wishes["lan_access"] is True, "lan_allow": allowed, "lan": lan}


def _checked_lan(lan: Guest) -> Guest:
    """Return the card on a bridge of the host: its `address` is None where DHCP gives it one."""
    if not (CARD.fullmatch(lan["port"]) and lan["port"].startswith(LAN_TAPS)):
        raise Refused(f"{lan['port']} is no name of ours for a card on a bridge")
    if not CARD.fullmatch(lan["bridge"]) or not MAC.fullmatch(lan["mac"]):
        raise Refused(f"{lan} is no card on a bridge")
    address = lan["address"] and IPv4Interface(lan["address"])
    return {
        **{key: lan[key] for key in ("port", "bridge", "mac")},
        "address": address and str(address),
        "ip": address and str(address.ip),
        "gateway": address and str(IPv4Address(lan["gateway"])),
        "resolvers": [str(IPv4Address(resolver)) for resolver in lan["resolvers"]],
    }


def _wishes(folder: Path) -> Guest:
    """Read what a container may reach."""
    return _checked_wishes(_written(folder))


def _written(folder: Path) -> Guest:
    """Read what is to be of a container. Raises Refused where others could have written that."""
    path = folder / "isolation.json"
    with path.open(encoding="utf-8") as file:
        facts = os.fstat(file.fileno())
        if facts.st_uid != os.getuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Refused(f"{path} may be written by others")
        found: Guest = json.load(file)
    return found


def _mount_of(folder: Path) -> Guest | None:
    """Read what a container is to have of its project folder."""
    return _checked_mount(_written(folder).get("mount"))


def _checked_mount(wish: Guest | None) -> Guest | None:
    if wish is None:
        return None
    if wish["mode"] not in ("ro", "rw") or not wish["folder"].startswith("/"):
        raise Refused(f"{wish} is no folder to be shared")
    numbers = {key: int(wish[key]) for key in ("uid", "gid")}
    return {"mode": wish["mode"], "folder": wish["folder"], **numbers}


# Rules


# So a guest fails at once: Linux holds the first ICMP error back from a connection that is being
# made (tcp_v4_err), for a second, and sends a receiver few of them (icmp_ratelimit).
REFUSE = """\
chain refuse {
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }"""


# A DHCP message of a client: a request, Ethernet, MACs of 6 bytes, no relay's hops and address.
# RFC 2131, 2; the client's MAC starts at bit 288, and the address that it is given at bit 192.
ASKS = "udp sport 68 udp dport 67 @th,64,32 0x01010600 @th,256,32 0"
# Of each TCP connection that begins: what would not fit through the narrower of the ways there and
# back is lowered, and never raised (nft_exthdr_tcp_set_eval in Linux). Routers drop the ICMP errors
# that would tell the far end.
CLAMP = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"


def rules(all_guests: Iterable[Guest], networks: Iterable[IPv4Interface] = ()) -> str:
    """Return the rules of this host for these guests, as input for nft(8). Pure.

    `networks`: the addresses of the host, with the networks that they are in.

    In `by_own_route` are packets to what this host has a route of its own to. Behind a router that
    is a part of the internet; without one, the host is on it: then the next hop is the destination,
    which was put among those tried a moment ago (nft cannot compare the two with each other).

    Which port of this host a guest may call is decided in `prerouting`, by the address that it
    calls, before anybody's DNAT (at -100) can make that another machine's; what becomes this host's
    by DNAT is decided in `input`.

    `pinned` compares the type of a frame where the frame has it: `ether type ip` is true of a
    packet in a VLAN tag as well. By DHCP a VM asks for its own MAC only; a container never asks.

    What a guest sends to 01:80:c2:00:00:0e its bridge hands to the host past all hooks, as if it
    had come to the port itself (br_handle_frame in Linux's br_input.c): `early` is for that.

    A guest on a bridge of the host has a card there beside the one on our network. What it sends
    to the LAN is an answer where the same ports of the same addresses were `seen` the other way
    round, and not because the guest had `asked`: connection tracking of our own, as not every
    kernel has one for bridges.
    """
    known = list(all_guests)
    allowed_host, places = [], defaultdict[str, list[IPv4Network]](list)
    for guest in known:
        for rule in guest["lan_allow"]:
            service = f" . {rule['protocol']} . {rule['port']}" if rule["port"] else ""
            if rule["network"]:
                places[f"{guest['ip']} . %{service}"].append(IPv4Network(rule["network"]))
            else:
                allowed_host.append(f"{guest['ip']}{service}")
    allowed, allowed_ports = _merged(places)
    # The port's name is in quotes: a veth's may start with a digit.
    ports = [f'"{g["port"]}" . {g["mac"]} . {g["ip"]}' for g in known]
    cards = [f'"{g["port"]}" . {g["mac"]}' for g in known]
    # Anybody else is on our networks by Podman's --network or by a domain of somebody's.
    sources = [f'"{g["bridge"]}" . {g["ip"]}' for g in known]
    vms = [g for g in known if g["bridge"] == BRIDGES["vm"]]
    clients = [f'"{g["port"]}" . 0x{g["mac"].replace(":", "")}' for g in vms]
    bridges = ", ".join(f'"{bridge}"' for bridge in BRIDGES.values())
    return f"""\
table bridge vagrantp {{
  set guests {{ type ifname . ether_addr . ipv4_addr; {_elements(ports)} }}
  set cards {{ type ifname . ether_addr; {_elements(cards)} }}
  set ports {{ type ifname; {_elements(f'"{g["port"]}"' for g in known)} }}
  set clients {{ typeof iifname . @th,288,48; {_elements(clients)} }}
  chain pinned {{
    @ll,96,16 != {{ 0x0800, 0x0806 }} drop
    iifname . ether saddr . arp saddr ip @guests iifname . arp saddr ether @cards accept
    {ASKS} iifname . @th,288,48 @clients goto dhcp
    udp dport 67 drop
    iifname . ether saddr . ip saddr @guests accept
    drop
  }}
  chain dhcp {{
    iifname . ether saddr . ip saddr @guests accept
    iifname . ether saddr @cards ip saddr 0.0.0.0 ip daddr 255.255.255.255 accept
    drop
  }}
  chain prerouting {{
    type filter hook prerouting priority -350; policy accept;
    iifname "{TAPS}*" jump pinned
    iifname @ports jump pinned
  }}
  chain input {{
    type filter hook input priority -350; policy accept;
    iifname "{TAPS}*" jump pinned
    iifname @ports jump pinned
  }}
  chain forward {{
    type filter hook forward priority -350; policy accept;
    iifname "{TAPS}*" drop
    oifname "{TAPS}*" drop
    iifname @ports drop
    oifname @ports drop
  }}
  chain postrouting {{
    type filter hook postrouting priority -350; policy accept;
    ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 accept
    oifname "{TAPS}*" oifname . ether daddr != @cards drop
    oifname @ports oifname . ether daddr != @cards drop
  }}
{_lan_rules(known, list(networks))}}}
table inet vagrantp {{
  set private {{ type ipv4_addr; flags interval; auto-merge; {_elements(PRIVATE)} }}
  set tried {{
    type ipv4_addr . ipv4_addr; size 65535; flags dynamic,timeout; timeout 1s;
  }}
  set known {{ type ifname . ipv4_addr; {_elements(sources)} }}
  set open {{ type ipv4_addr; {_elements(g["ip"] for g in known if g["lan_access"])} }}
  set allowed {{ type ipv4_addr . ipv4_addr; flags interval; {_elements(allowed)} }}
  set allowed_ports {{
    type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags interval;
    {_elements(allowed_ports)}
  }}
  set allowed_host {{ type ipv4_addr . inet_proto . inet_service; {_elements(allowed_host)} }}
  chain early {{
    type filter hook prerouting priority -450; policy accept;
    iifname "{TAPS}*" drop
    iifname "{LAN_TAPS}*" drop
  }}
  chain prerouting {{
    type filter hook prerouting priority -199; policy accept;
    iifname {{ {bridges} }} fib daddr type local goto to_host
  }}
  chain input {{
    type filter hook input priority -5; policy accept;
    iifname {{ {bridges} }} goto to_host
  }}
  chain to_host {{
    iifname "{BRIDGES["vm"]}" ip saddr 0.0.0.0 udp sport 68 udp dport 67 \
      ip daddr 255.255.255.255 accept
    iifname . ip saddr != @known drop
    ct direction reply ct state established,related accept
    iifname "{BRIDGES["vm"]}" udp sport 68 udp dport 67 ip daddr 255.255.255.255 accept
    iifname "{BRIDGES["vm"]}" udp sport 68 udp dport 67 fib daddr . iif type local accept
    fib daddr . iif type local meta l4proto {{ tcp, udp }} th dport 53 accept
    ip saddr . meta l4proto . th dport @allowed_host accept
    goto refuse
  }}
  chain clamp {{
    type filter hook forward priority -150; policy accept;
    iifname {{ {bridges} }} {CLAMP}
    oifname {{ {bridges} }} {CLAMP}
  }}
  chain forward {{
    type filter hook forward priority -5; policy accept;
    iifname != {{ {bridges} }} oifname != {{ {bridges} }} accept
    iifname {{ {bridges} }} iifname . ip saddr != @known drop
    ct direction reply ct state established,related accept
    oifname {{ {bridges} }} goto refuse
    meta nfproto != ipv4 drop
    ip saddr . ip daddr @allowed accept
    ip saddr . ip daddr . meta l4proto . th dport @allowed_ports accept
    ip saddr @open accept
    ip daddr @private goto refuse
    rt classid {REALM} goto by_own_route
  }}
  chain by_own_route {{
    update @tried {{ ip saddr . ip daddr }} ip saddr . rt ip nexthop != @tried accept
    goto refuse
  }}
  {REFUSE}
}}
"""


def _lan_rules(known: list[Guest], networks: list[IPv4Interface]) -> str:
    """Return sets and chains for cards on bridges of the host: `lan_out` has what guests send.

    By DHCP a guest may take the address that an answer to its own MAC has offered: `leased`. In
    an answer bit 64 of what is in UDP says that it is one. An IPv4 packet has its source at bit 96,
    an ARP message its sender's address at bit 112.
    """
    cards = [(f'"{g["lan"]["port"]}"', g["lan"], g) for g in known if g["lan"]]
    closed = [*PRIVATE, *(str(i.network) for i in networks)]
    closed += [str(IPv4Interface(lan["address"]).network) for _, lan, _ in cards if lan["address"]]
    places = defaultdict[str, list[IPv4Network]](list)
    for port, lan, guest in cards:
        for resolver in lan["resolvers"]:
            for protocol in ("tcp", "udp"):
                places[f"{port} . % . {protocol} . 53"].append(IPv4Network(resolver))
        for rule in guest["lan_allow"]:
            service = f" . {rule['protocol']} . {rule['port']}" if rule["port"] else ""
            where = [rule["network"]] if rule["network"] else [str(i.ip) for i in networks]
            places[f"{port} . %{service}"] += map(IPv4Network, where)
    allowed, allowed_ports = _merged(places)
    fixed = [f"{port} . {lan['ip']}" for port, lan, _ in cards if lan["ip"]]
    clients = [f"{port} . 0x{lan['mac'].replace(':', '')}" for port, lan, _ in cards]
    return f"""\
  set lan_cards {{
    type ifname . ether_addr; {_elements(f"{port} . {lan['mac']}" for port, lan, _ in cards)}
  }}
  set lan_clients {{ typeof iifname . @th,288,48; {_elements(clients)} }}
  set lan_fixed {{ type ifname . ipv4_addr; {_elements(fixed)} }}
  set lan_open {{ type ifname; {_elements(p for p, _, g in cards if g["lan_access"])} }}
  set lan_closed {{ type ipv4_addr; flags interval; auto-merge; {_elements(closed)} }}
  set lan_allowed {{ type ifname . ipv4_addr; flags interval; {_elements(allowed)} }}
  set lan_allowed_ports {{
    type ifname . ipv4_addr . inet_proto . inet_service; flags interval;
    {_elements(allowed_ports)}
  }}
  set leased {{ typeof iifname . @nh,96,32; size 65535; flags dynamic,timeout; timeout 7d; }}
  set seen {{
    type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service;
    size 65535; flags dynamic,timeout; timeout 6h;
  }}
  set asked {{
    type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service;
    size 65535; flags dynamic,timeout; timeout 6h;
  }}
  set pinged {{
    type ipv4_addr . ipv4_addr; size 65535; flags dynamic,timeout; timeout 30s;
  }}
  chain lan_out {{
    @ll,96,16 != {{ 0x0800, 0x0806 }} drop
    iifname . ether saddr != @lan_cards drop
    ether type arp goto lan_arp
    {ASKS} iifname . @th,288,48 @lan_clients goto lan_dhcp
    udp dport 67 drop
    udp sport 67 drop
    iifname . ip saddr @lan_fixed goto lan_pinned
    iifname . @nh,96,32 @leased goto lan_pinned
    drop
  }}
  chain lan_arp {{
    iifname . arp saddr ether != @lan_cards drop
    iifname . arp saddr ip @lan_fixed accept
    iifname . @nh,112,32 @leased accept
    arp saddr ip 0.0.0.0 accept
    drop
  }}
  chain lan_dhcp {{
    iifname . ip saddr @lan_fixed accept
    iifname . @nh,96,32 @leased accept
    ip saddr 0.0.0.0 accept
    drop
  }}
  chain lan_pinned {{
    ip daddr != @lan_closed accept
    ip daddr . ip saddr . ip protocol . th dport . th sport @seen accept
    icmp type echo-reply ip daddr . ip saddr @pinged accept
    iifname @lan_open goto lan_asked
    iifname . ip daddr @lan_allowed goto lan_asked
    iifname . ip daddr . ip protocol . th dport @lan_allowed_ports goto lan_asked
    drop
  }}
  chain lan_asked {{
    meta l4proto {{ tcp, udp }} update @asked {{ \
      ip saddr . ip daddr . ip protocol . th sport . th dport }} accept
    meta l4proto {{ tcp, udp }} drop
    accept
  }}
  chain from_lan {{
    type filter hook prerouting priority -350; policy accept;
    iifname "{LAN_TAPS}*" goto lan_out
  }}
  chain from_lan_up {{
    type filter hook input priority -350; policy accept;
    iifname "{LAN_TAPS}*" goto lan_out
  }}
  chain to_lan {{
    type filter hook postrouting priority -350; policy accept;
    oifname "{LAN_TAPS}*" goto lan_in
  }}
  chain lan_in {{
    ether type ip6 drop
    ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 oifname . ether daddr != @lan_cards drop
    udp sport 67 udp dport 68 @th,64,8 2 @th,192,32 != 0 oifname . @th,288,48 @lan_clients \
      update @leased {{ oifname . @th,192,32 }}
    ip saddr != @lan_closed accept
    ip daddr >= 224.0.0.0 accept
    ip daddr . ip saddr . ip protocol . th dport . th sport @asked accept
    meta l4proto tcp update @seen {{ ip saddr . ip daddr . ip protocol . th sport . th dport }}
    meta l4proto udp update @seen {{ \
      ip saddr . ip daddr . ip protocol . th sport . th dport timeout 3m }}
    icmp type echo-request update @pinged {{ ip saddr . ip daddr }}
  }}
"""


def _merged(places: Mapping[str, list[IPv4Network]]) -> tuple[list[str], list[str]]:
    """Return elements for networks alone, and for services in them; nft refuses an overlap.

    `places`: the networks that stand for % in an element.
    """
    merged = [
        form.replace("%", str(n)) for form, all_ in places.items() for n in collapse_addresses(all_)
    ]
    return (
        [text for text in merged if text.count(" . ") == 1],
        [text for text in merged if text.count(" . ") == 3],
    )


def inside_rules(wishes: Guest, networks: Iterable[IPv4Interface]) -> str:
    """Return the rules of a user's container's own network namespace. Pure.

    `networks`: the addresses of the host, with the networks that they are in.
    """
    known = list(networks)
    hosts = [*SEEN_HOSTS, *(str(interface.ip) for interface in known)]
    on_link = [str(interface.network) for interface in known]
    closed = ["@host"] if wishes["lan_access"] else ["@host", "@private", "@on_link"]
    dns = ", ".join(SEEN_RESOLVERS)
    accept = [f"ip daddr {{ {dns} }} meta l4proto {{ tcp, udp }} th dport 53 accept"]
    for rule in wishes["lan_allow"]:
        where = f"ip daddr {rule['network'] or '@host'}"
        port = f" {rule['protocol']} dport {rule['port']}" if rule["port"] else ""
        accept.append(f"{where}{port} accept")
    lines = [
        'oifname "lo" accept',
        "ct direction reply ct state established,related accept",
        *accept,
        "meta nfproto != ipv4 goto refuse",
        *(f"ip daddr {places} goto refuse" for places in closed),
        "accept",
    ]
    body = "\n    ".join(lines)
    return f"""\
table inet vagrantp
delete table inet vagrantp
table inet vagrantp {{
  set private {{ type ipv4_addr; flags interval; auto-merge; {_elements(PRIVATE)} }}
  set host {{ type ipv4_addr; {_elements(hosts)} }}
  set on_link {{ type ipv4_addr; flags interval; auto-merge; {_elements(on_link)} }}
  chain output {{
    type filter hook output priority 0; policy drop;
    {body}
  }}
  {REFUSE}
}}
"""


def _elements(items: Iterable[str]) -> str:
    listed = ", ".join(dict.fromkeys(items))
    return f"elements = {{ {listed} }}" if listed else ""


# The live state


LIST = [
    ("nft", "--stateless", "list", "table", family, "vagrantp") for family in ("bridge", "inet")
]
LIST_INSIDE = LIST[1]
UNWATCHED = "nothing is at work that would put lost rules back"
FILLED = ("tried", "leased", "seen", "asked", "pinged")  # sets that packets fill


def problems() -> list[str]:
    """Return why guests may not be isolated now, or will not be; nothing when they are."""
    found = lost() + [
        f"{hook} is gone: a guest would start without rules" for hook in HOOKS if not hook.exists()
    ]
    if not found and guests() and (lock := _watchers_lock()):
        lock.close()
        found.append(UNWATCHED)
    return found


def lost() -> list[str]:
    """Return what is not in force any more of what was loaded."""
    found = []
    loaded, networks = _read(RUN / "rules"), _read(RUN / "networks")
    if not loaded:
        return ["the rules were never loaded since this host started"]
    live = _listed()
    if not live:
        found.append("the rules are gone: something has flushed nftables")
    elif live != loaded:
        found.append("the rules are not as they were loaded: something has changed them")
    found += [f"the routing rule of {bridge} is gone" for bridge in _missing_rules()]
    if live and any(guest["lan"] for guest in guests()):
        _keep_leases()
        if networks != _text_of(_networks_of_host()):
            found.append("the rules do not know the networks that this host is on by now")
    return found


def inside_problems(pid: int, folder: Path) -> list[str]:
    """Return why a user's container may not be isolated now."""
    live = _inside(pid, *LIST_INSIDE, check=False)
    if not live:
        return ["it has no rules"]
    loaded = json.loads((folder / "rules.json").read_text(encoding="utf-8"))
    if live != loaded["rules"]:
        return ["its rules are not as they were loaded: something has changed them"]
    if loaded["wishes"] != _wishes(folder):
        return ["its rules are of other settings"]
    if loaded["networks"] != list(map(str, _networks_of_host())):
        return ["its rules do not know the networks that this host is on by now"]
    with suppress(BlockingIOError), (folder / "watch.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return [UNWATCHED]
    return []


def guests() -> list[Guest]:
    """Return the guests that are admitted now."""
    found = []
    for path in sorted((RUN / "guests").glob("*.json")):
        found.append(checked(json.loads(path.read_text(encoding="utf-8"))))
    return found


def _load(starting: str = "") -> None:
    """Write all rules, in one transaction: no packet meets half of them. Raises Refused.

    `starting`: the card on a bridge of a guest that starts, and has no lease yet.
    """
    for bridge in _missing_rules():
        which = ("priority", str(RULE), "iif", bridge)
        _tool("ip", "rule", "delete", *which, check=False)
        what = ("lookup", "main", "suppress_prefixlength", "1", "realms", str(REALM))
        # systemd-networkd takes away all others than the kernel's own: networkd.conf(5),
        # ManageForeignRoutingPolicyRules, and https://github.com/systemd/systemd/pull/19287
        _tool("ip", "rule", "add", *which, *what, "protocol", "kernel")
    networks, known = _networks_of_host(), guests()
    for bridge in {*BRIDGES.values(), *(guest["lan"]["bridge"] for guest in known if guest["lan"])}:
        # nor may such a frame tell it where a MAC is; the bridge may not be there yet
        deaf = ("type", "bridge", "no_linklocal_learn", "1")
        _tool("ip", "link", "set", "dev", bridge, *deaf, check=False)
    text = rules(known, networks)
    _keep_leases()
    ports = {g["lan"]["port"] for g in known if g["lan"]} - {starting}
    kept: list[str] = []
    over: list[str] = []
    for port, addresses in _kept_leases().items():
        (kept if port in ports else over).extend(f'"{port}" . 0x{a}' for a in addresses)
    anew = renewed = family = ""
    for table, name in re.findall(r"^table (\w+) vagrantp {|^  set (\w+) {", text, re.MULTILINE):
        family = table or family
        if table:
            anew += f"table {family} vagrantp\ndelete table {family} vagrantp\n"
            renewed += f"flush table {family} vagrantp\n"
        elif name not in FILLED:
            renewed += f"flush set {family} vagrantp {name}\n"
    if over:
        renewed += f"delete element bridge vagrantp leased {{ {', '.join(over)} }}\n"
    if kept:
        text += f"add element bridge vagrantp leased {{ {', '.join(kept)} }}\n"
    try:  # what packets have filled sets with stays, and so do connections
        _tool("nft", "-f", "-", stdin=renewed + text)
    except Refused:  # there is nothing yet, or something else
        _tool("nft", "-f", "-", stdin=anew + text)
    _write(RUN / "rules", _listed())
    _write(RUN / "networks", _text_of(networks))


def _keep_leases() -> None:
    """Write down what DHCP has given: it would not be told again if the rules were lost."""
    live = _tool("nft", "list", "set", "bridge", "vagrantp", "leased", check=False)
    if live:
        found = defaultdict[str, list[str]](list)
        for port, address in re.findall(r'"([\w.-]+)" \. 0x([0-9a-f]{1,8}) ', live):
            found[port].append(address)
        _write(RUN / "leases", json.dumps(found))


def _leased() -> dict[str, list[str]]:
    return {
        port: [str(IPv4Address(int(address, 16))) for address in all_]
        for port, all_ in _kept_leases().items()
    }


def _kept_leases() -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(_read(RUN / "leases") or "{}")
    return found


def _text_of(networks: Iterable[IPv4Interface]) -> str:
    return " ".join(map(str, networks))


def _load_inside(pid: int, folder: Path) -> None:
    """Write the rules into the network namespace of a user's container."""
    wishes, networks = _wishes(folder), _networks_of_host()
    _inside(pid, "nft", "-f", "-", stdin=inside_rules(wishes, networks))
    loaded = {"wishes": wishes, "networks": [*map(str, networks)]}
    _write(folder / "rules.json", json.dumps({**loaded, "rules": _inside(pid, *LIST_INSIDE)}))


def _watch_host() -> None:
    """Stay in the background while guests of this host run, and put back what is lost of the rules.

    Whatever flushes nftables, a firewall that loads its own settings say, has no idea of ours.
    """
    with _locked():  # not while `check` looks at it
        lock = _watchers_lock() if guests() else None
    if lock and _in_background():
        with suppress(OSError):
            _watching_host(lock)
        os._exit(0)


def _watchers_lock() -> TextIO | None:
    """Take what the watching process has for as long as it runs; None where one does."""
    lock = _private(RUN / "watch.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _watching_host(lock: TextIO) -> None:
    (RUN / "watch.lock").write_text(str(os.getpid()), encoding="utf-8")
    poll = select.poll()
    routing = _listen(socket.NETLINK_ROUTE, OF_LINKS | OF_ADDRESSES | OF_RULES)
    links = (_listen(NETFILTER, OF_NFTABLES), routing)
    for link in links:
        poll.register(link, select.POLLIN)
    while RUN.is_dir():
        try:
            if not _keep_rules(lock):
                return
        except (Refused, OSError, ValueError):  # somebody else's change, or no room: try again soon
            sleep(RETRY)
            continue
        poll.poll(WATCH_PAUSE)
        sleep(SETTLE)
        for link in links:
            _drain(link)


def _keep_rules(lock: TextIO) -> bool:
    """Put lost rules back; return False, with the lock let go, when the last guest has ended."""
    with _locked():
        ended = [g for g in guests() if "pid" in g and not Path(f"/proc/{g['pid']}").exists()]
        for guest in ended:  # a container that failed to start has no hook for its end
            _file(guest["name"]).unlink()
        is_reloaded = bool(ended or lost())
        if is_reloaded:
            _load()
        if not guests():
            lock.close()  # before another guest can start, and rely on it
            return False
    if is_reloaded:
        _ask_again()  # a lease that was given in between is not known
    return True


def _listen(family: int, groups: int) -> socket.socket:
    """Return a socket of netlink(7) that can be read when something of these groups has changed."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
    link.setblocking(False)
    link.bind((0, groups))
    return link


def _drain(link: socket.socket) -> None:
    """Read all that there is: that there was something is enough to know."""
    while True:
        try:
            link.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:  # or some was lost, as there was more than there is room for
            if error.errno != errno.ENOBUFS:
                raise


def _watch(pid: int, folder: Path) -> None:
    """Stay in the background while a user's container runs, and tell it the host's networks.

    Its own namespace does not know them, and they change.
    """
    lock = (folder / "watch.lock").open("w")
    with suppress(BlockingIOError):  # where it is watched already
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _in_background():
            with suppress(Refused, OSError, ValueError):
                _watching(pid, folder)
            os._exit(0)


def _in_background() -> bool:
    """Go on twice: return True in a process of its own, to be left by os._exit, else False."""
    if os.fork():
        return False
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    return True


def _watching(pid: int, folder: Path) -> None:
    poll = select.poll()
    guest = os.pidfd_open(pid)
    poll.register(guest, select.POLLIN)
    link = _listen(socket.NETLINK_ROUTE, OF_ADDRESSES)
    poll.register(link, select.POLLIN)
    while guest not in dict(poll.poll(WATCH_PAUSE)):
        _drain(link)
        with suppress(Refused, OSError, ValueError):  # somebody else's change may be at work
            if inside_problems(pid, folder):
                _load_inside(pid, folder)


def _listed() -> str:
    """Return the live rules, without what packets have left in them."""
    text = "".join(_tool(*query, check=False) for query in LIST)
    sets = "|".join(FILLED)
    return re.sub(rf"(set (?:{sets}) {{[^{{}}]*?)\n\s*elements = {{[^{{}}]*}}", r"\1", text)


def _missing_rules() -> list[str]:
    found = json.loads(_tool("ip", "-details", "-json", "rule"))
    there = {
        rule.get("iif")
        for rule in found
        if rule["priority"] == RULE
        and rule.get("suppress_prefixlen") == 1
        and (rule["table"], rule.get("flow_to")) == ("main", str(REALM))
        and rule.get("protocol") == "kernel"
    }
    return [bridge for bridge in BRIDGES.values() if bridge not in there]


def _networks_of_host() -> list[IPv4Interface]:
    """Return the IPv4 addresses of this host, with their networks."""
    links = json.loads(_tool("ip", "-4", "-json", "address"))
    found = [a for link in links for a in link["addr_info"] if a["family"] == "inet"]
    return sorted(IPv4Interface(f"{a['local']}/{a['prefixlen']}") for a in found)


def _sync() -> None:
    """Take the guests that run from libvirt and Podman; where one does not answer, keep its.

    Never in a hook: they wait for it.
    """
    found: list[Guest] = []
    for kind, running in (("vm", _running_vms), ("container", _running_containers)):
        try:
            found += running()
        except Refused:
            found += [guest for guest in guests() if guest["bridge"] == BRIDGES[kind]]
    for path in (RUN / "guests").glob("*.json"):
        path.unlink()
    for guest in found:
        _remember(guest)


def _ask_again() -> None:
    """Let VMs whose lease was lost with the rules ask for it: a card does when it was unplugged."""
    kept = _kept_leases()
    for guest in guests():
        lan = guest["lan"]
        is_lost = lan and not lan["address"] and lan["port"] not in kept
        if is_lost and guest["bridge"] == BRIDGES["vm"]:
            for state in ("down", "up"):
                _tool(*VIRSH, "domif-setlink", guest["name"], lan["port"], state, check=False)


def _running_vms() -> list[Guest]:
    names = filter(NAME.fullmatch, _tool(*VIRSH, "list", "--name").split())
    found = (guest_of_domain(_tool(*VIRSH, "dumpxml", name)) for name in names)
    return [guest for guest in found if guest]


def _running_containers() -> list[Guest]:
    found: list[Guest] = []
    for container in _containers():
        folder = Path(container["Config"]["Annotations"][ANNOTATION])
        with suppress(Refused, OSError, ValueError):  # without a record it reaches nothing
            if is_recorded(folder, container["Id"]):
                card = _interface_of(container["State"]["Pid"])
                found.append({"name": folder.name, **card, **_wishes(folder)})
    return found


def _containers(*which: str) -> list[dict[str, Any]]:
    """Return what podman(1) says of running containers that name a state folder, or of `--all`."""
    ids = _tool("podman", "ps", "--quiet", *which).split()
    found = json.loads(_tool("podman", "inspect", "--type=container", *ids)) if ids else []
    return [one for one in found if ANNOTATION in (one["Config"].get("Annotations") or {})]


def _interface_of(pid: int) -> Guest:
    """Return address, MAC and host's end of a rootful container's network card, and its pid."""
    [card] = [
        link
        for link in json.loads(_inside(pid, "ip", "-json", "address"))
        if link.get("link_type") == "ether" and link["ifname"] != LAN_CARD
    ]
    ends = json.loads(_tool("ip", "-json", "link"))
    [port] = [end for end in ends if end["ifindex"] == card["link_index"]]
    if port.get("master") != BRIDGES["container"]:
        raise Refused(f"it is not on {BRIDGES['container']} but on {port.get('master')}")
    [address] = [a["local"] for a in card["addr_info"] if a["family"] == "inet"]
    return {
        "bridge": BRIDGES["container"],
        "port": port["ifname"],
        "mac": card["address"],
        "ip": address,
        "pid": pid,
    }


def is_rootless() -> bool:
    """Say whether this runs in a user's namespace: root there is the user, and root is nobody."""
    return Path("/").stat().st_uid != 0


def _remember(guest: Guest) -> None:
    _write(_file(guest["name"]), json.dumps(checked(guest)))


def _file(name: str) -> Path:
    return RUN / "guests" / f"{name}.json"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with open(temporary, "x", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(text)
    temporary.replace(path)


def _private(path: Path) -> TextIO:
    """Open a file that is locked: whoever can read it could do so, too."""
    file = path.open("a", encoding="utf-8")
    os.fchmod(file.fileno(), 0o600)
    return file


@contextmanager
def _locked() -> Iterator[None]:
    RUN.mkdir(mode=0o755, exist_ok=True)
    with _private(RUN / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _inside(pid: int, *argv: str, stdin: str = "", check: bool = True) -> str:
    return _tool("nsenter", f"--target={pid}", "--net", *argv, stdin=stdin, check=check)


def _tool(*argv: str, stdin: str = "", check: bool = True, fds: tuple[int, ...] = ()) -> str:
    """Return what a program prints. Raises Refused, with its last words, when it fails.

    `fds`: open files that it gets, under the same numbers.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", **_runtime()},
            timeout=30,
            pass_fds=fds,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise Refused(str(error)) from None
    if done.returncode and check:
        said = done.stderr.strip().splitlines() or ["it failed"]
        raise Refused(f"{argv[0]}: {next((line for line in said if 'rror' in line), said[-1])}")
    return done.stdout if done.returncode == 0 else ""


def _runtime() -> dict[str, str]:
    return {k: os.environ[k] for k in ("HOME", "XDG_RUNTIME_DIR") if k in os.environ}


def _report(found: list[str], admitted: list[Guest], leased: dict[str, list[str]]) -> int:
    """Print problems, guests by name, and what DHCP has given to the cards on bridges."""
    known = {guest["name"]: guest for guest in admitted}
    print(json.dumps({"problems": found, "guests": known, "leased": leased}))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
