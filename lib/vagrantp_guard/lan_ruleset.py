"""The rules for guests' cards on bridges of the host, which ruleset.py puts into its own. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, collapse_addresses

from vagrantp_guard.contract import LAN_TAPS, PRIVATE, Guest, LanNic, LanRule, Policy

# A DHCP message of a client: a request, Ethernet, MACs of 6 bytes, no relay's hops and address.
# RFC 2131, 2; the client's MAC starts at bit 288, and the address that it is given at bit 192.
ASKS = "udp sport 68 udp dport 67 @th,64,32 0x01010600 @th,256,32 0"
# That the first wall has met a packet, for held_ruleset.py: a bit of the packet's mark which no VPN
# or orchestrator is known to use by itself. In the chain that decides, as what one packet meets of
# one chain is there as a whole, or gone.
DECIDED = "0x80000000"
DECIDES = f"meta mark set meta mark | {DECIDED}"
# What a client says first of all: of which kind its message is, by option 53 (RFC 2132, 9.6). All
# clients write that one first, so the rules need not read options.
KINDS = {"discover": 1, "request": 3, "decline": 4, "release": 7, "inform": 8}
SAID = {name: f"{0x350100 | kind:#x}" for name, kind in KINDS.items()}
# Messages of one card to servers, and of servers to it.
ASKING = "limit rate over 30/minute burst 10 packets"
TELLING = "limit rate over 10/second burst 20 packets"
HEARD = 17767  # the group of nfnetlink_log by which listener.py gets them
# A connection as its first packet has it, and the other way round.
FORTH = "ip saddr . ip daddr . ip protocol . th sport . th dport"
BACK = "ip daddr . ip saddr . ip protocol . th dport . th sport"
# What one card may add to the memory of connections, so that it never fills it for the others.
LIMIT = "limit rate over 1000/second burst 2000 packets"
MEMORY = "size 262144; flags dynamic,timeout; timeout 6h"


@dataclass(frozen=True)
class Lease:
    """What DHCP has given to a card. `until`: when it ends, in seconds since the host's start.

    `address`: with the network of this host that it is in; `routers`: those in it.
    """

    address: IPv4Interface
    server: IPv4Address
    routers: tuple[IPv4Address, ...]
    until: float

    def element(self, port: str, now: float) -> str:
        """Return it as an element of `leased`."""
        seconds = max(1, int(self.until - now))
        return f'"{port}" . {int(self.address.ip):#x} timeout {seconds}s'


def lan_rules(
    known: list[Guest],
    networks: list[IPv4Interface],
    on_link: list[str],
    leases: Mapping[str, Lease],
    now: float,
) -> str:
    """Return sets and chains for cards on bridges of the host: `lan_out` gets what guests send.

    `networks`: the addresses of the host. `on_link`: the networks that it is directly on. `leases`:
    by port; `now`: in seconds, of the same clock.

    A guest by DHCP has the address in `leased`, which listener.py has heard; its release takes it
    away at once: nft finds what a client says first at bit 1984 behind the UDP header, the address
    that it releases at bit 160. An IPv4 packet has its source at bit 96, an ARP message its
    sender's address at bit 112, and the one that it asks for at bit 192.

    A card may ask by ARP who has an address in `lan_near`, or one in `lan_callers`: those of its
    network that have called it.
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
    clients = [f"{port} . {number(lan.mac)}" for port, lan, _ in cards if not lan.address]
    log = f"log group {HEARD}" if clients else ""  # not every kernel has nfnetlink_log
    leased = {f'"{port}"': lease for port, lease in leases.items()}
    servers = [f"{port} . {lease.server}" for port, lease in leased.items()]
    on_net = [f"{port} . {lan.address.network}" for port, lan, _ in cards if lan.address]
    on_net += [f"{port} . {lease.address.network}" for port, lease in leased.items()]
    near = [
        f"{port} . {network}"
        for port, lan, policy in cards
        for network in collapse_addresses(_near(lan, policy, networks, leased.get(port)))
    ]
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
  set leased {{
    typeof iifname . @nh,96,32; size 65535; flags dynamic,timeout;
    {elements(lease.element(port, now) for port, lease in leases.items())}
  }}
  set lan_servers {{ type ifname . ipv4_addr; {elements(servers)} }}
  set lan_net {{ type ifname . ipv4_addr; flags interval; {elements(on_net)} }}
  set lan_near {{ type ifname . ipv4_addr; flags interval; {elements(near)} }}
  set lan_callers {{ type ifname . ipv4_addr; {MEMORY}; }}
  set asking {{ type ifname; size 65535; flags dynamic; }}
  set told {{ type ifname; size 65535; flags dynamic; }}
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
    {ASKS} iifname . @th,288,48 @lan_clients @th,1984,24 {{ {", ".join(SAID.values())} }} \
      goto lan_dhcp
    udp dport 67 drop
    udp sport 67 drop
    iifname . ip saddr @lan_fixed goto lan_pinned
    iifname . @nh,96,32 @leased goto lan_pinned
    drop
  }}
  chain lan_arp {{
    iifname . arp saddr ether != @lan_cards drop
    iifname . arp saddr ip @lan_fixed goto lan_asks
    iifname . @nh,112,32 @leased goto lan_asks
    arp saddr ip 0.0.0.0 goto lan_own
    drop
  }}
  chain lan_asks {{
    arp operation reply accept
    iifname @lan_open accept
    iifname . arp daddr ip @lan_near accept
    iifname . arp daddr ip @lan_callers accept
    goto lan_own
  }}
  chain lan_own {{
    iifname . arp daddr ip @lan_fixed accept
    iifname . @nh,192,32 @leased accept
    drop
  }}
  chain lan_dhcp {{
    ip daddr != 255.255.255.255 iifname . ip daddr != @lan_servers drop
    add @asking {{ iifname {ASKING} }} drop
    ip saddr 0.0.0.0 goto lan_heard
    iifname . @nh,96,32 @leased goto lan_heard
    drop
  }}
  chain lan_heard {{
    {log}
    @th,1984,24 {SAID["release"]} delete @leased {{ iifname . @th,160,32 }}
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
    udp sport 67 udp dport 68 goto lan_told
    ip saddr != @lan_closed accept
    ip daddr >= 224.0.0.0 accept
    {BACK} @asked goto lan_answered
    {FORTH} @seen accept
    ether type arp goto lan_asked_for
    ether type ip add @called {{ oifname {LIMIT} }} accept
    oifname . ip saddr @lan_net update @lan_callers {{ oifname . ip saddr }}
    meta l4proto {{ tcp, udp }} add @seen {{ {FORTH} timeout 30s }}
    icmp type echo-request update @pinged {{ ip saddr . ip daddr }}
  }}
  chain lan_asked_for {{
    oifname . arp saddr ip != @lan_net accept
    oifname . arp daddr ip @lan_fixed update @lan_callers {{ oifname . arp saddr ip }}
    oifname . @nh,192,32 @leased update @lan_callers {{ oifname . arp saddr ip }}
  }}
  chain lan_told {{
    @ll,96,16 != 0x0800 drop
    add @told {{ oifname {TELLING} }} drop
    oifname . @th,288,48 @lan_clients {log} accept
    drop
  }}
"""


def _near(
    lan: LanNic, policy: Policy, own: list[IPv4Interface], lease: Lease | None
) -> Iterable[IPv4Network]:
    """Yield where a card may send something by itself, as far as that is on the LAN."""
    addresses = [*lan.resolvers, *(each for each in (lan.gateway, lan.dns) if each)]
    if lease:
        addresses += [lease.server, *lease.routers]
    yield from map(IPv4Network, addresses)
    for rule in policy.lan_allow:
        if isinstance(rule.network, IPv4Network):
            yield rule.network
        elif not rule.network:
            yield from (IPv4Network(interface.ip) for interface in own)


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
