"""Ask a resolver: `ask.py ADDRESS PORT`, with questions as JSON on stdin; runs in a guest, too.

A question is a list: name, type (A, PTR), udp or tcp. It is answered by the response code and the
number of answers (RFC 1035, 4.1.1), or by what went wrong.
"""

import json
import socket
import struct
import sys

SECONDS = 3
TYPES = {"A": 1, "PTR": 12}


def message(name: str, kind: str) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return b"vp\1\0\0\1\0\0\0\0\0\0" + labels + struct.pack(">BHH", 0, TYPES[kind], 1)


def ask(server: tuple[str, int], name: str, kind: str, transport: str) -> list[object]:
    question = message(name, kind)
    try:
        if transport == "tcp":
            with socket.create_connection(server, SECONDS) as link:
                link.sendall(struct.pack(">H", len(question)) + question)
                answer = link.recv(65536)
                if len(answer) == 2:
                    answer += link.recv(65536)
                answer = answer[2:]
        else:
            with socket.socket(type=socket.SOCK_DGRAM) as link:
                link.settimeout(SECONDS)
                link.connect(server)
                link.send(question)
                answer = link.recv(65536)
    except OSError as error:
        return [type(error).__name__]
    return [answer[3] & 15, int.from_bytes(answer[6:8], "big")]


if __name__ == "__main__":
    server = (sys.argv[1], int(sys.argv[2]))
    print(json.dumps([ask(server, *question) for question in json.load(sys.stdin)]))
