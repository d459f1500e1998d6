"""Ask a resolver: `ask.py ADDRESS PORT`, with questions as JSON on stdin; runs in a guest, too.

A question is a list: name, type, udp or tcp. It is answered by the response code and the
number of answers (RFC 1035, 4.1.1), or by what went wrong.
"""

import json
import socket
import struct
import sys

SECONDS = 3
IN, CHAOS = 1, 3
TYPES = {
    **{"A": (1, IN), "NS": (2, IN), "CNAME": (5, IN), "PTR": (12, IN), "TXT": (16, IN)},
    **{"AAAA": (28, IN), "SVCB": (64, IN), "HTTPS": (65, IN), "ANY": (255, IN)},
    "CHAOS TXT": (16, CHAOS),
}


def message(name: str, kind: str) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return b"vp\1\0\0\1\0\0\0\0\0\0" + labels + struct.pack(">BHH", 0, *TYPES[kind])


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
