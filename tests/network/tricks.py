"""Runs in a guest, as root: send frames that it must not, each with a word for what is wrong."""

import socket
import struct
import sys

card, mac, address, gateway, gateway_mac, neighbour = sys.argv[1:]
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind((card, 0))


def raw(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


OWN, HOST, ALL, OTHER = raw(mac), raw(gateway_mac), b"\xff" * 6, raw("52:54:00:00:00:99")
IP, ARP, VLAN, IPV6, LOCAL = b"\x08\x00", b"\x08\x06", b"\x81\x00\x00\x05", b"\x86\xdd", b"\x88\xb5"
# 802.1ad, the older ones of double tags, 802.1ad about 802.1Q, MPLS, PPPoE
TAGS = [
    raw(text)
    for text in ("88a80005", "91000005", "92000005", "88a8000581000005", "884700005100", "8864")
]
SNAP = b"\xaa\xaa\x03\x00\x00\x00"


def udp(source: str, target: str, word: str) -> bytes:
    text = b"trick: " + word.encode() + b";"
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack(">BBHHHBBH", 69, 0, 28 + len(text), 1, 0, 9, 17, 0) + ends
    total = sum(struct.unpack(">10H", head))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    head = head[:10] + struct.pack(">H", checksum) + head[12:]
    return head + struct.pack(">HHHH", 53, 7000, 8 + len(text), 0) + text


def arp(sender_mac: bytes, sender: str, target: str, word: str) -> bytes:
    ends = sender_mac + socket.inet_aton(sender) + ALL + socket.inet_aton(target)
    return struct.pack(">HHBBH", 1, 0x800, 6, 4, 2) + ends + b"trick: " + word.encode() + b";"


def junk(word: str) -> bytes:
    return (b"trick: " + word.encode() + b";").ljust(60)


for frame in (
    HOST + OWN + IP + udp(address, "198.51.100.9", "none"),  # nothing is wrong with it
    HOST + OWN + IP + udp(neighbour, gateway, "address of another"),
    HOST + OWN + IP + udp(gateway, "192.168.77.9", "address of the gateway"),
    HOST + OTHER + IP + udp(address, gateway, "mac"),
    HOST + OWN + VLAN + IP + udp(address, gateway, "vlan"),
    HOST + OWN + b"\x81\x00\x00\x00" + IP + udp(address, gateway, "vlan 0"),
    *(HOST + OWN + tag + IP + udp(address, gateway, f"tag {tag.hex()}") for tag in TAGS),
    ALL + OWN + TAGS[0] + ARP + arp(OWN, address, gateway, "tagged arp"),
    HOST + OWN + struct.pack(">H", 60) + SNAP + IP + udp(address, gateway, "llc and snap"),
    HOST + OWN + LOCAL + junk("ethertype"),
    HOST + OWN + IPV6 + junk("ipv6"),
    ALL + OWN + IP + udp("0.0.0.0", "255.255.255.255", "address of nobody"),
    ALL + OWN + ARP + arp(OWN, gateway, neighbour, "arp for the gateway"),
    ALL + OWN + ARP + arp(OTHER, address, gateway, "arp with another mac"),
    raw("01:80:c2:00:00:00") + OWN + struct.pack(">H", 38) + b"BB\x03" + junk("spanning tree"),
    # reserved addresses, which a bridge hands up to the host: the first past all of its hooks
    raw("01:80:c2:00:00:0e") + OWN + IP + udp(address, gateway, "lldp"),
    raw("01:80:c2:00:00:0e") + OTHER + IP + udp(neighbour, "192.168.77.1", "lldp of another"),
    raw("01:80:c2:00:00:0e") + OWN + IPV6 + junk("lldp ipv6"),
    raw("01:80:c2:00:00:03") + OWN + IP + udp(address, gateway, "eapol"),
    raw("33:33:00:00:00:01") + OWN + IPV6 + junk("ipv6 to all"),
):
    link.send(frame)
