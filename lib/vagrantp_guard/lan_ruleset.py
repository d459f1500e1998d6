"""The rules for guests' cards on bridges of the host, which ruleset.py puts into its own. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Interface, IPv4Network, collapse_addresses

from vagrantp_guard.contract import LAN_TAPS, PRIVATE, Guest, LanRule

# A DHCP message of a client: a request, Ethernet, MACs of 6 bytes, no relay's hops and address.
# RFC 2131, 2; the client's MAC starts at bit 288, and the address that it is given at bit 192.
ASKS = "udp sport 68 udp dport 67 @th,64,32 0x01010600 @th,256,32 0"
# That the first wall has met a packet, for held_ruleset.py: a bit of the packet's mark which no VPN
# or orchestrator is known to use by itself. In the chain that decides, as what one packet meets of
# one chain is there as a whole, or gone.
DECIDED = "0x80000000"
DECIDES = f"meta mark set meta mark | {DECIDED}"
# A connection as its first packet has it, and the other way round.
FORTH = "ip saddr . ip daddr . ip protocol . th sport . th dport"
BACK = "ip daddr . ip saddr . ip protocol . th dport . th sport"
# What one card may add to the memory of connections, so that it never fills it for the others.
LIMIT = "limit rate over 1000/second burst 2000 packets"
MEMORY = "size 262144; flags dynamic,timeout; timeout 6h"


def lan_rules(known: list[Guest], networks: list[IPv4Interface], on_link: list[str]) -> str:
    """Return sets and chains for cards on bridges of the host: `lan_out` gets what guests send.

    `networks`: the addresses of the host. `on_link`: the networks that it is directly on.

    A guest may take an address that a DHCP answer to its own MAC has offered: `leased`. Such an
    answer starts with a 2, at bit 64, behind the UDP header. An IPv4 packet has its source at bit
    96, an ARP message its sender's address at bit 112.
    """
    cards = [(f'"{g.policy.lan.port}"', g.policy.lan, g.policy) for g in known if g.policy.lan]
    closed = [*PRIVATE, *on_link]
    closed += [str(lan.address.network) for _, lan, _ in cards if lan.address]
    places = defaultdict[str, list[IPv4Network]](list)
    for port, lan, policy in cards:
        for resolver in lan.resolvers:
            for protocol in ("tcp", "udp"):
                places[f"{port} . % . {protocol} . 53"].append(IPv4Network(resolver))
        for rule in policy.lan_allow:
            if isinstance(rule.network, IPv4Network):
                places[f"{port} . %{service(rule)}"].append(rule.network)
            elif not rule.network:
                places[f"{port} . %{service(rule)}"] += [IPv4Network(i.ip) for i in networks]
    allowed, allowed_ports = merged(places)
    fixed = [f"{port} . {lan.address.ip}" for port, lan, _ in cards if lan.address]
    clients = [f"{port} . {number(lan.mac)}" for port, lan, _ in cards]
    own = [f"{port} . {lan.mac}" for port, lan, _ in cards]
    return f"""\
  set lan_cards {{
    type ifname . ether_addr; {elements(own)}
  }}
  set lan_clients {{ typeof iifname . @th,288,48; {elements(clients)} }}
  set lan_fixed {{ type ifname . ipv4_addr; {elements(fixed)} }}
  set lan_open {{ type ifname; {elements(port for port, _, policy in cards if policy.lan_access)} }}
  set lan_closed {{ type ipv4_addr; flags interval; auto-merge; {elements(closed)} }}
  set lan_allowed {{ type ifname . ipv4_addr; flags interval; {elements(allowed)} }}
  set lan_allowed_ports {{
    type ifname . ipv4_addr . inet_proto . inet_service; flags interval;
    {elements(allowed_ports)}
  }}
  set leased {{ typeof iifname . @nh,96,32; size 65535; flags dynamic,timeout; timeout 7d; }}
  set seen {{
    type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; {MEMORY};
  }}
  set asked {{
    type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; {MEMORY};
  }}
  set called {{ type ifname; size 65535; flags dynamic; }}
  set calling {{ type ifname; size 65535; flags dynamic; }}
  set pinged {{
    type ipv4_addr . ipv4_addr; size 65535; flags dynamic,timeout; timeout 30s;
  }}
  chain lan_out {{
    {DECIDES}
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
    {BACK} @seen goto lan_answer
    icmp type echo-reply ip daddr . ip saddr @pinged accept
    iifname @lan_open goto lan_asked
    iifname . ip daddr @lan_allowed goto lan_asked
    iifname . ip daddr . ip protocol . th dport @lan_allowed_ports goto lan_asked
    drop
  }}
  chain lan_answer {{
{_kept("seen", BACK)}
  }}
  chain lan_asked {{
    {FORTH} @asked accept
    add @calling {{ iifname {LIMIT} }} drop
    meta l4proto {{ tcp, udp }} add @asked {{ {FORTH} timeout 30s }} accept
    meta l4proto {{ tcp, udp }} drop
  }}
  chain lan_answered {{
{_kept("asked", BACK)}
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
    {BACK} @asked goto lan_answered
    {FORTH} @seen accept
    ether type ip add @called {{ oifname {LIMIT} }} accept
    meta l4proto {{ tcp, udp }} add @seen {{ {FORTH} timeout 30s }}
    icmp type echo-request update @pinged {{ ip saddr . ip daddr }}
  }}
"""


def _kept(memory: str, connection: str) -> str:
    """Return rules for an answer: how long its connection is remembered from then on.

    Who has not confirmed a connection of TCP, and whoever ends one, has half a minute.
    """
    return "\n".join(
        f"    {which} update @{memory} {{ {connection} timeout {time} }} accept"
        for which, time in (
            ("tcp flags & (fin | rst) != 0", "30s"),
            ("tcp flags & syn == 0", "6h"),
            ("meta l4proto udp", "3m"),
        )
    )


def merged(places: Mapping[str, list[IPv4Network]]) -> tuple[list[str], list[str]]:
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


def elements(items: Iterable[str]) -> str:
    listed = ", ".join(dict.fromkeys(items))
    return f"elements = {{ {listed} }}" if listed else ""


def service(rule: LanRule) -> str:
    """Return the end of an element for the service of a rule, "" for all."""
    return f" . {rule.protocol} . {rule.port}" if rule.port else ""


def number(mac: str) -> str:
    """Return a MAC address as nft(8) takes a number."""
    return f"0x{mac.replace(':', '')}"
