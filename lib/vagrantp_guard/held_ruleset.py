"""The second wall, as input for nft(8). Pure.

The rules of ruleset.py set a bit in the mark of each packet that they decide on, in the very chain
that decides. What belongs to a guest and has it not has met none of them: it is dropped here, one
step behind each of their hooks. docs/adr/0031-a-second-wall.md
"""

from __future__ import annotations

from collections.abc import Iterable

from vagrantp_guard.contract import BRIDGES, LAN_TAPS, TAPS
from vagrantp_guard.lan_ruleset import DECIDED, elements

NAME = "vagrantp_held"
TABLES = [("bridge", NAME), ("inet", NAME)]
# Nobody but its owner, a socket of netlink(7), can change or remove such a table; it ends with it.
OWNED = "flags owner;"
# The mark is nobody else's any more: it ends where it was set.
CHECKED = f"""\
chain checked {{
    meta mark & {DECIDED} == 0 drop
    meta mark set meta mark ^ {DECIDED}
  }}"""


def held_rules(ports: Iterable[str]) -> str:
    """Return the second wall. `ports`: of containers; VMs' are known by how they begin.

    What passes from one guest's port to another, and past all hooks of a bridge, is dropped in any
    case, as the first wall does.
    """
    bridges = ", ".join(f'"{bridge}"' for bridge in BRIDGES.values())
    return f"""\
table bridge {NAME} {{
  {OWNED}
  set ports {{ type ifname; {elements(f'"{port}"' for port in ports)} }}
  {CHECKED}
  chain of_guests {{
    iifname "{TAPS}*" goto checked
    iifname "{LAN_TAPS}*" goto checked
    iifname @ports goto checked
  }}
  chain prerouting {{
    type filter hook prerouting priority -349; policy accept;
    jump of_guests
  }}
  chain input {{
    type filter hook input priority -349; policy accept;
    jump of_guests
  }}
  chain forward {{
    type filter hook forward priority -349; policy accept;
    oifname "{TAPS}*" drop
    iifname @ports drop
    oifname @ports drop
  }}
}}
table inet {NAME} {{
  {OWNED}
  {CHECKED}
  chain early {{
    type filter hook prerouting priority -449; policy accept;
    iifname "{TAPS}*" drop
    iifname "{LAN_TAPS}*" drop
  }}
  chain input {{
    type filter hook input priority -4; policy accept;
    iifname {{ {bridges} }} goto checked
  }}
  chain forward {{
    type filter hook forward priority -4; policy accept;
    iifname {{ {bridges} }} goto checked
    oifname {{ {bridges} }} goto checked
  }}
}}
"""


def replacing(text: str) -> str:
    """Return the same in place of what there may be, in one transaction."""
    old = (f"table {family} {name} {{\n{OWNED}\n}}\n" for family, name in TABLES)
    gone = (f"delete table {family} {name}\n" for family, name in TABLES)
    return "".join((*old, *gone, text))
