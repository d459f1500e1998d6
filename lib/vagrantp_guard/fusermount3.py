#!/usr/bin/python3 -IS
"""Stands in for fusermount3(1) in the sandbox of bindfs(1): hands over /dev/fuse, already mounted.

libfuse asks by _FUSE_COMMFD, the number of a socket; FUSE is that of the device: share.py
"""

import os
import socket

with socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])) as libfuse:
    socket.send_fds(libfuse, [b"\0"], [int(os.environ["FUSE"])])
