"""Run on a host of its own, as root: try the ways out of a user's container.

The arguments are a command that runs probe.py in there, which gets the ways on its stdin. Prints as
JSON which were open, and what came to the LAN.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import sleep

from tests import network
from tests.network import ways

with (
    tempfile.TemporaryDirectory() as folder,
    network.lan(Path(folder)) as lan,
    network.internet(Path(folder)),
    network.echo_of_host(Path(folder)),
):
    tried = [*ways.to_lan(), *ways.to_host(), *ways.never(), *ways.to_internet()]
    probes = [(name, *probe) for name, probe in ways.named(tried).items()]
    sleep(5)  # a user's container is told of the new networks, within moments
    done = subprocess.run(
        sys.argv[1:], input=json.dumps(probes), stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(done.stdout)
    opened = [name for name, outcome in found.items() if outcome == "open"]
    came = lan.received.read_text().splitlines()  # packets would be the host's own as well
    print(json.dumps({"opened": opened, "came": came}))
