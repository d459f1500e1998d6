"""What guests need where iptables(8) drops by default what this host forwards, as Docker has it.

nftables' `accept` counts for one table only: what these rules let through has passed ours before,
and ours can let nothing through theirs. They stand last, so what another rule drops stays dropped.
"""

from __future__ import annotations

from pathlib import Path

from vagrantp_guard.contract import BRIDGES, LAN_TAPS
from vagrantp_guard.system import run

WAIT = "--wait=2"  # seconds for its lock, which others may hold
DROPS = "-P FORWARD DROP"
END = "-m comment --comment vagrantp -j ACCEPT"
# As `iptables -S` prints them.
ROUTED = (
    *(f"-A FORWARD -i {bridge} {END}" for bridge in BRIDGES.values()),
    *(
        f"-A FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED {END}"
        for bridge in BRIDGES.values()
    ),
)
# With br_netfilter the chain sees the frames on a bridge of the host, too. Without it they are not
# for it, and a rule with `physdev` would load it: physdev_mt_check in Linux's xt_physdev.c.
BR_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
BRIDGED = (
    f"-A FORWARD -m physdev --physdev-in {LAN_TAPS}+ --physdev-is-bridged {END}",
    f"-A FORWARD -m physdev --physdev-out {LAN_TAPS}+ --physdev-is-bridged {END}",
)


def keep() -> None:
    """Have the rules at the end of the chain where its policy is to drop.

    Raises Refused where there is no iptables.
    """
    found = _chain()
    wanted = [*ROUTED, *(BRIDGED if BR_NETFILTER.exists() else ())]
    if DROPS in found and found[-len(wanted) :] != wanted:
        _replace(found, wanted)


def release() -> None:
    """Remove the rules. Raises Refused where there is no iptables."""
    _replace(_chain(), [])


def _chain() -> list[str]:
    # of the two kinds of iptables the one that this host calls so, as others call it
    return run("iptables", WAIT, "-S", "FORWARD", check=False).splitlines()


def _replace(found: list[str], rules: list[str]) -> None:
    old = [rule.replace("-A", "-D", 1) for rule in found if rule in (*ROUTED, *BRIDGED)]
    if old or rules:
        text = "\n".join(("*filter", *old, *rules, "COMMIT", ""))
        run("iptables-restore", WAIT, "--noflush", stdin=text, check=False)
