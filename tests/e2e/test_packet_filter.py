"""That nft takes the rules of any guests."""

from __future__ import annotations

import os
import subprocess
from ipaddress import IPv4Interface
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from vagrantp_guard import ruleset
from vagrantp_guard.contract import Guest, Policy

Json = dict[str, Any]
PORTS = st.integers(1, 65535)
NETWORKS = st.tuples(st.integers(0, 255), st.integers(8, 32)).map(
    lambda pair: str(IPv4Interface(f"10.{pair[0]}.7.9/{pair[1]}").network)
)
RULES = st.one_of(
    st.builds(lambda n: {"network": n, "port": None, "protocol": None}, NETWORKS),
    st.builds(
        lambda n, port, protocol: {"network": n, "port": port, "protocol": protocol},
        NETWORKS | st.none(),
        PORTS,
        st.sampled_from(["tcp", "udp"]),
    ),
)


def nft_takes(rules: str) -> None:
    """Load rules into a network namespace of their own."""
    own = ["unshare", "--net", *([] if os.getuid() == 0 else ["--map-root-user"])]
    done = subprocess.run(
        [*own, "sh", "-c", "PATH=$PATH:/usr/sbin nft -f -"],
        input=rules,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr + rules


LANS = st.one_of(
    st.none(),
    st.builds(
        lambda address, resolvers: {
            "port": "vgl00000000",
            "bridge": "br-lan.2",
            "mac": "56:54:00:00:00:00",
            "address": address,
            "gateway": "192.168.1.1",
            "resolvers": resolvers,
        },
        st.sampled_from([None, "192.168.1.50/24", "10.0.7.9/8"]),
        st.lists(st.sampled_from(["192.168.1.1", "10.0.0.1"]), max_size=2),
    ),
)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.lists(RULES, max_size=6), st.booleans(), LANS), max_size=4))
def test_nft_takes_the_rules_of_any_guests(
    wishes: list[tuple[list[Json], bool, Json | None]],
) -> None:
    known = [
        {
            "name": f"app-0000000{number}",
            "bridge": "vagrantp0",
            "port": f"vgp0000000{number}",
            "mac": f"52:54:00:00:00:0{number}",
            "ip": f"10.201.0.{number + 2}",
            "lan_access": is_open,
            "lan_allow": rules,
            "lan": lan and {**lan, "port": f"vgl0000000{number}"},
        }
        for number, (rules, is_open, lan) in enumerate(wishes)
    ]
    networks = [IPv4Interface("192.168.1.5/24"), IPv4Interface("203.0.113.5/28")]
    nft_takes(ruleset.rules(map(Guest.from_json, known), networks))
    for guest in known:
        policy = Policy.from_json(guest)
        nft_takes(ruleset.inside_rules(policy, [IPv4Interface("192.168.1.5/24")]))
