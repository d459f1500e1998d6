"""The rules in force: loaded, read back, compared."""

from __future__ import annotations

import fcntl
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from vagrantp_guard import held, leases, links, listener, resolver
from vagrantp_guard.contract import (
    BRIDGES,
    OCI_HOOK,
    QEMU_HOOK,
    RESOLVERS,
    RULE_PRIORITY,
    RUN,
    Policy,
)
from vagrantp_guard.guests import guests, policy_of
from vagrantp_guard.lan import ask_for_a_lease
from vagrantp_guard.lan_ruleset import Lease
from vagrantp_guard.ruleset import REALM, inside_rules, rules
from vagrantp_guard.system import (
    VIRSH,
    Refused,
    read,
    run,
    run_inside,
    start,
    watchers_lock,
    write,
)

TABLES = [("bridge", "vagrantp"), ("inet", "vagrantp")]
LIST = [("nft", "--stateless", "list", "table", *table) for table in TABLES]
LIST_INSIDE = LIST[1]
UNWATCHED = "nothing is at work that would put lost rules back"
# sets that packets fill
FILLED = (
    *("tried", "began", "flows", "leased", "asking", "told", "lan_callers"),
    *("seen", "asked", "called", "calling", "pinged"),
)


class Networks(NamedTuple):
    """The networks that this host is directly on: of its addresses, and by routes to a device."""

    addresses: list[IPv4Interface]
    device_routes: list[IPv4Network]

    def to_json(self) -> list[str]:
        """Return them as a JSON array."""
        return [*map(str, self.addresses), *map(str, self.device_routes)]


def problems() -> list[str]:
    """Return why guests may not be isolated, now or at their next start; nothing if they are."""
    gone = [hook for hook in (QEMU_HOOK, OCI_HOOK) if not hook.exists()]
    found = lost() + [f"{hook} is gone: a guest would start without rules" for hook in gone]
    known = guests()
    if known and (why := links.problem()):
        found.append(why)
    if not found and known and (lock := watchers_lock()):
        lock.close()
        found.append(UNWATCHED)
    elif not found and known:
        if names := resolver.missing():
            found.append(f"no resolver runs for {', '.join(names)}")
        if names := listener.missing():
            found.append(f"nothing hears which address DHCP gives to {', '.join(names)}")
        if why := held.problem(known):
            found.append(why)
    return found


def lost() -> list[str]:
    """Return which loaded rules are no longer in force."""
    found = []
    loaded, networks = read(RUN / "rules"), read(RUN / "networks")
    missing, now = _routing()
    if not loaded:
        return ["the rules have not been loaded since this host started"]
    live = _listed()
    if not live:
        found.append("the rules are gone: something has flushed nftables")
    elif live != loaded:
        found.append("the rules are not as they were loaded: something has changed them")
    found += [f"the routing rule of {bridge} is gone" for bridge in missing]
    if live and networks != _text_of(now):
        found.append("the rules do not know the networks that this host is on now")
    if live and any(guest.policy.lan for guest in guests()):
        leases.keep(leases.in_force())
    return found


def inside_problems(pid: int, folder: Path) -> list[str]:
    """Return why a user's container may not be isolated now."""
    live = run_inside(pid, *LIST_INSIDE, check=False)
    if not live:
        return ["it has no rules"]
    loaded = json.loads((folder / "rules.json").read_text(encoding="utf-8"))
    if live != loaded["rules"]:
        return ["its rules are not as they were loaded: something has changed them"]
    if Policy.from_json(loaded["wishes"]) != policy_of(folder):
        return ["its rules are for other settings"]
    if loaded["networks"] != networks_of_host().to_json():
        return ["its rules do not know the networks that this host is on now"]
    with suppress(BlockingIOError), (folder / "watch.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return [UNWATCHED]
    return []


def load(starting: str = "", new: Mapping[str, Lease | None] = MappingProxyType({})) -> None:
    """Write all rules, in one transaction: no packet meets half of them. Raises Refused.

    `starting`: a starting guest's card on a bridge, which has no lease yet. `new`: leases that have
    just begun, by card; None for one that has ended.
    """
    missing, networks = _routing()
    for bridge in missing:
        which = ("priority", str(RULE_PRIORITY), "iif", bridge)
        run("ip", "rule", "delete", *which, check=False)
        what = ("lookup", "main", "suppress_prefixlength", "1", "realms", str(REALM))
        # systemd-networkd removes all rules but the kernel's own: networkd.conf(5),
        # ManageForeignRoutingPolicyRules, and https://github.com/systemd/systemd/pull/19287
        run("ip", "rule", "add", *which, *what, "protocol", "kernel")
    known = guests()
    lans = [guest.policy.lan for guest in known if guest.policy.lan]
    for bridge in {*BRIDGES.values(), *(lan.bridge for lan in lans)}:
        # the bridge, if it is there yet, must not learn a MAC from a frame that `early` drops
        deaf = ("type", "bridge", "no_linklocal_learn", "1")
        run("ip", "link", "set", "dev", bridge, *deaf, check=False)
    by_dhcp = {lan.port for lan in lans if not lan.address} - {starting}
    held = {p: one for p, one in {**leases.in_force(), **new}.items() if one and p in by_dhcp}
    stays = {(port, one.address.ip) for port, one in held.items() if port not in new}
    over = (leases.elements() or set()) - stays
    text = rules(known, *networks, held, leases.clock())
    recreate = flush = family = ""
    named = r"^table (\w+) vagrantp {|^  (set|map) (\w+) {"
    for table, kind, name in re.findall(named, text, re.MULTILINE):
        family = table or family
        if table:
            recreate += f"table {family} vagrantp\ndelete table {family} vagrantp\n"
            flush += f"flush table {family} vagrantp\n"
        elif name not in FILLED:
            flush += f"flush {kind} {family} vagrantp {name}\n"
    again, remade = (flush + leases.removal(over) + text,), (recreate + text,)
    fresh = (_without("chain", text), _without("set|map", text))
    for stdins in (again, fresh, fresh, remade):
        if stdins is fresh and _listed():
            continue  # would add to what is there
        try:  # the sets that packets fill stay, and so do connections
            for stdin in stdins:
                run("nft", "-f", "-", stdin=stdin)
            break
        except Refused:  # there are no tables yet, they have just gone, or there are other ones
            if stdins is remade:
                raise
    write(RUN / "rules", _listed())
    write(RUN / "networks", _text_of(networks))
    leases.keep(held)


def _without(kind: str, text: str) -> str:
    """Return rules without their chains, or without their sets. Pure.

    Where there are none, the sets go first: a chain that came with a new set would miss networks
    in it for another moment, in which guests reached them (seen with Linux 6.18).
    """
    block = rf"^  (?:{kind}) \w+ {{(?:[^\n]*}}| *\n.*?^  }})\n"
    return re.sub(block, "", text, flags=re.MULTILINE | re.DOTALL)


def load_inside(pid: int, folder: Path) -> None:
    """Write the rules into the network namespace of a user's container."""
    policy, networks = policy_of(folder), networks_of_host()
    run_inside(pid, "nft", "-f", "-", stdin=inside_rules(policy, *networks))
    loaded = {"wishes": policy.to_json(), "networks": networks.to_json()}
    write(folder / "rules.json", json.dumps({**loaded, "rules": run_inside(pid, *LIST_INSIDE)}))


def _listed() -> str:
    """Return the live rules, without what packets have left in them."""
    return without_elements("".join(run(*query, check=False) for query in LIST))


def without_elements(text: str) -> str:
    """Return a listing of the rules without what packets have left in their sets. Pure.

    nft 1.1.7 counts that behind the size, with --stateless as well.
    """
    counted = r"\s+# count \d+"
    sets = rf"(set (?:{'|'.join(FILLED)}) {{[^{{}}]*?size \d+)(?:{counted})?"
    rest = r"([^{}]*?)\n\s*elements = {[^{}]*}"
    return re.sub(rf"{sets}(?:{rest})?", r"\1\2", text)


def networks_of_host() -> Networks:
    """Return the IPv4 networks that this host is directly on."""
    return _routing()[1]


def _routing() -> tuple[list[str], Networks]:
    """Return the bridges whose routing rule is missing, and the networks of this host."""
    asked = "rule show\naddress show\nroute show table all\n"
    listed = run("ip", "-4", "-details", "-json", "-batch", "-", stdin=asked).splitlines()
    found, links, routes = map(json.loads, listed)
    there = {
        rule.get("iif")
        for rule in found
        if rule["priority"] == RULE_PRIORITY
        and rule.get("suppress_prefixlen") == 1
        and (rule["table"], rule.get("flow_to")) == ("main", str(REALM))
        and rule.get("protocol") == "kernel"
    }
    missing = [bridge for bridge in BRIDGES.values() if bridge not in there]
    own = [a for link in links for a in link["addr_info"] if a["family"] == "inet"]
    addresses = sorted(IPv4Interface(f"{a['local']}/{a['prefixlen']}") for a in own)
    addresses = [address for address in addresses if address.ip not in RESOLVERS]
    return missing, Networks(addresses, device_routes(routes))


def device_routes(routes: Iterable[Mapping[str, Any]]) -> list[IPv4Network]:
    """Return the networks behind a device, without a router, in routes of ip-route(8). Pure.

    The default route, and the two halves of it that VPNs write, are none.
    """
    found = set()
    for route in routes:
        hops = route.get("nexthops", [route])
        is_direct = any("gateway" not in hop and "via" not in hop for hop in hops)
        if route.get("type", "unicast") == "unicast" and route["dst"] != "default" and is_direct:
            found.add(IPv4Network(route["dst"]))
    return sorted(network for network in found if network.prefixlen > 1)


def _text_of(networks: Networks) -> str:
    return " ".join(networks.to_json())


def ask_again() -> None:
    """Make guests without a known lease ask for it again: VMs by unplugging their card."""
    held = leases.kept()
    for guest in guests():
        lan = guest.policy.lan
        if not lan or lan.address or lan.port in held:
            continue
        if guest.nic.bridge != BRIDGES["vm"]:
            ask_for_a_lease(lan.port)
            continue
        lines = (
            shlex.join((*VIRSH, "domif-setlink", guest.name, lan.port, state))
            for state in ("down", "up")
        )
        # not waited for: libvirt answers when it has started the VM whose hook may wait for us
        start("sh", "-c", "; ".join(lines))
