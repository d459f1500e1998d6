"""Records of guests -> rules, as input for nft(8). Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Interface, IPv4Network
from types import MappingProxyType

from vagrantp_guard.contract import BRIDGES, LAN_TAPS, PRIVATE, RESOLVERS, TAPS, Guest, Policy
from vagrantp_guard.lan_ruleset import (
    ASKS,
    DECIDES,
    Lease,
    elements,
    lan_rules,
    merged,
    number,
    service,
)

# Routing marks packets that go by another route than the default one (or the two halves of it that
# VPNs write). Linux keeps the mark with the route's next hop, for whoever came there first: it is
# missing where that was no guest.
REALM = 77
# What Podman has slirp4netns(1) and pasta(1) show a user's container as the host and as a resolver.
SEEN_HOSTS = ("10.0.2.2", "169.254.1.2")
SEEN_RESOLVERS = ("10.0.2.3", "169.254.1.1")
# With a reset a guest's connection fails at once: Linux ignores the first ICMP error for a second
# while a connection is being made (tcp_v4_err), and sends a receiver few of them (icmp_ratelimit).
REFUSE = """\
chain refuse {
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }"""
# So that one guest leaves room in connection tracking for others, and for this host. Counting takes
# a while, the longer the more there are, so the rate comes first.
RATE = "limit rate over 500/second burst 5000 packets"
COUNT = "ct count over 4096"
FEW_FLOWS = f"""\
ct state new add @began {{ ip saddr {RATE} }} goto refuse
    ct state new add @flows {{ ip saddr {COUNT} }} goto refuse"""
# Lowers the segment size of each new TCP connection to what fits through the narrower of the ways
# there and back, and never raises it (nft_exthdr_tcp_set_eval in Linux): routers drop the ICMP
# errors that would inform the far end.
CLAMP = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"


def rules(
    all_guests: Iterable[Guest],
    networks: Iterable[IPv4Interface] = (),
    device_routes: Iterable[IPv4Network] = (),
    leases: Mapping[str, Lease] = MappingProxyType({}),
    now: float = 0,
) -> str:
    """Return the rules of this host for these guests, as input for nft(8). Pure.

    `networks`: the addresses of the host, with the networks that they are in. `device_routes`: the
    networks that it has a route to without a router. Both are what the host is directly on.
    `leases`: of cards on a bridge, by port; `now`: in seconds, of the same clock.

    `by_own_route` is for a network that the host has been on for a moment only, until `on_link` has
    it. It gets packets that go by another route than the default one. Behind a router,
    their destination is a part of the internet; without one, the host is on that network: then the
    next hop is the destination, which was just put into `tried` (nft cannot compare the two).

    `prerouting` decides which port of this host a guest may call, by the address that it calls,
    before anybody's DNAT (at -100) can make that another machine's; `input` decides on what DNAT
    sends to this host.

    `resolver` sends what a guest asks at its gateway to its own resolver, see resolver.py, before
    Podman can redirect it to another. Linux answers ARP from the LAN for their addresses, too.

    `pinned` compares the type of a frame where the frame has it: `ether type ip` is true of a
    packet in a VLAN tag as well. By DHCP a VM asks for its own MAC only; a container never asks.

    What a guest sends to 01:80:c2:00:00:0e its bridge hands to the host past all hooks, as if it
    had come to the port itself (br_handle_frame in Linux's br_input.c): `early` is for that.

    A guest on a bridge of the host has a card there beside the one on our network. What it sends
    to the LAN is an answer if the same ports of the same addresses were `seen` the other way round,
    and not because the guest had `asked`: our own connection tracking, as not every kernel has one
    for bridges.
    """
    known, addresses = list(all_guests), list(networks)
    on_link = [str(network) for network in _on_link(addresses, device_routes)]
    allowed_host, places = [], defaultdict[str, list[IPv4Network]](list)
    for guest in known:
        for rule in guest.policy.lan_allow:
            if isinstance(rule.network, IPv4Network):
                places[f"{guest.ip} . %{service(rule)}"].append(rule.network)
            elif not rule.network:
                allowed_host.append(f"{guest.ip}{service(rule)}")
    allowed, allowed_ports = merged(places)
    # The port's name is in quotes: a veth's may start with a digit.
    ports = [f'"{g.nic.port}" . {g.nic.mac} . {g.ip}' for g in known]
    cards = [f'"{g.nic.port}" . {g.nic.mac}' for g in known]
    # Anybody else is on our networks by Podman's --network or by a foreign domain.
    sources = [f'"{g.nic.bridge}" . {g.ip}' for g in known]
    vms = [g for g in known if g.nic.bridge == BRIDGES["vm"]]
    clients = [f'"{g.nic.port}" . {number(g.nic.mac)}' for g in vms]
    open_ = [str(g.ip) for g in known if g.policy.lan_access]
    resolvers = [f"{g.ip} : {g.resolver}" for g in known]
    bridges = ", ".join(f'"{bridge}"' for bridge in BRIDGES.values())
    return f"""\
table bridge vagrantp {{
  set guests {{ type ifname . ether_addr . ipv4_addr; {elements(ports)} }}
  set cards {{ type ifname . ether_addr; {elements(cards)} }}
  set ports {{ type ifname; {elements(f'"{g.nic.port}"' for g in known)} }}
  set clients {{ typeof iifname . @th,288,48; {elements(clients)} }}
  chain pinned {{
    {DECIDES}
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
{lan_rules(known, addresses, on_link, leases, now)}}}
table inet vagrantp {{
  set private {{ type ipv4_addr; flags interval; auto-merge; {elements(PRIVATE)} }}
  set on_link {{ type ipv4_addr; flags interval; auto-merge; {elements(on_link)} }}
  set tried {{
    type ipv4_addr . ipv4_addr; size 65535; flags dynamic,timeout; timeout 1s;
  }}
  set began {{ type ipv4_addr; size 65535; flags dynamic; }}
  set flows {{ type ipv4_addr; size 65535; flags dynamic; }}
  set known {{ type ifname . ipv4_addr; {elements(sources)} }}
  map resolvers {{ type ipv4_addr : ipv4_addr; {elements(resolvers)} }}
  set open {{ type ipv4_addr; {elements(open_)} }}
  set allowed {{ type ipv4_addr . ipv4_addr; flags interval; {elements(allowed)} }}
  set allowed_ports {{
    type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags interval;
    {elements(allowed_ports)}
  }}
  set allowed_host {{ type ipv4_addr . inet_proto . inet_service; {elements(allowed_host)} }}
  chain early {{
    type filter hook prerouting priority -450; policy accept;
    iifname "{TAPS}*" drop
    iifname "{LAN_TAPS}*" drop
  }}
  chain prerouting {{
    type filter hook prerouting priority -199; policy accept;
    iifname {{ {bridges} }} fib daddr type local goto to_host
  }}
  chain resolver {{
    type nat hook prerouting priority -110; policy accept;
    iifname {{ {bridges} }} fib daddr . iif type local meta l4proto {{ tcp, udp }} th dport 53 \
      dnat ip to ip saddr map @resolvers
  }}
  chain input {{
    type filter hook input priority -5; policy accept;
    iifname {{ {bridges} }} goto to_host
    iifname != "lo" ip daddr {RESOLVERS} drop
  }}
  chain to_host {{
    {DECIDES}
    meta nfproto != ipv4 drop
    iifname "{BRIDGES["vm"]}" ip saddr 0.0.0.0 udp sport 68 udp dport 67 \
      ip daddr 255.255.255.255 accept
    iifname . ip saddr != @known drop
    ct direction reply ct state established,related accept
    {FEW_FLOWS}
    iifname "{BRIDGES["vm"]}" udp sport 68 udp dport 67 ip daddr 255.255.255.255 accept
    iifname "{BRIDGES["vm"]}" udp sport 68 udp dport 67 fib daddr . iif type local accept
    fib daddr . iif type local meta l4proto {{ tcp, udp }} th dport 53 accept
    ct status dnat ip daddr {RESOLVERS} meta l4proto {{ tcp, udp }} th dport 53 accept
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
    {DECIDES}
    iifname {{ {bridges} }} iifname . ip saddr != @known drop
    ct direction reply ct state established,related accept
    oifname {{ {bridges} }} goto refuse
    {FEW_FLOWS}
    meta nfproto != ipv4 drop
    ip saddr . ip daddr @allowed accept
    ip saddr . ip daddr . meta l4proto . th dport @allowed_ports accept
    ip saddr @open accept
    ip daddr @private goto refuse
    ip daddr @on_link goto refuse
    rt classid {REALM} goto by_own_route
  }}
  chain by_own_route {{
    update @tried {{ ip saddr . ip daddr }} ip saddr . rt ip nexthop != @tried accept
    goto refuse
  }}
  {REFUSE}
}}
"""


def _on_link(
    networks: Iterable[IPv4Interface], device_routes: Iterable[IPv4Network]
) -> list[IPv4Network]:
    return sorted({*(interface.network for interface in networks), *device_routes})


def inside_rules(
    policy: Policy,
    networks: Iterable[IPv4Interface],
    device_routes: Iterable[IPv4Network] = (),
) -> str:
    """Return the rules for the network namespace of a user's container. Pure.

    `networks` and `device_routes` are as for `rules`.
    """
    known = list(networks)
    hosts = [*SEEN_HOSTS, *(str(interface.ip) for interface in known)]
    on_link = [str(network) for network in _on_link(known, device_routes)]
    closed = ["@host"] if policy.lan_access else ["@host", "@private", "@on_link"]
    dns = ", ".join(SEEN_RESOLVERS)
    accept = [f"ip daddr {{ {dns} }} meta l4proto {{ tcp, udp }} th dport 53 accept"]
    for rule in policy.lan_allow:
        where = f"ip daddr {rule.network or '@host'}"
        port = f" {rule.protocol} dport {rule.port}" if rule.port else ""
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
  set private {{ type ipv4_addr; flags interval; auto-merge; {elements(PRIVATE)} }}
  set host {{ type ipv4_addr; {elements(hosts)} }}
  set on_link {{ type ipv4_addr; flags interval; auto-merge; {elements(on_link)} }}
  chain output {{
    type filter hook output priority 0; policy drop;
    {body}
  }}
  {REFUSE}
}}
"""
