"""What root runs: keeps guests from the LAN, and gives them their project folders.

Standard library only, and nothing of vagrantp, whose checkout may be a user's: host set-up installs
it, owned by root (install.py). What both sides know stands in contract.py, the one module that
vagrantp imports. forward.py, with carry.py, and fusermount3.py are programs that stand alone.
"""
