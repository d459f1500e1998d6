"""vagrantp: a VM or a container for every folder that holds a flat `.env`."""

import sys

# invoke forbids Python to keep what it compiled, which takes 0.04 s each time
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
