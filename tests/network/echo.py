"""Echo what comes by TCP and UDP, IPv4 and IPv6, to the ports given; print it, one line each."""

import socket
import sys
import threading


def tell(kind: str, port: int, data: bytes, peer: str) -> None:
    print(kind, port, peer, data[:40].decode(errors="replace").strip(), flush=True)


def tcp(port: int) -> None:
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)

    def answer(client: socket.socket, peer: str) -> None:
        with client:
            client.settimeout(5)
            try:
                data = client.recv(65536)
                tell("tcp", port, data, peer)
                client.sendall(data)
            except OSError as error:
                tell("tcp", port, str(error).encode(), peer)

    while True:
        client, peer = server.accept()
        threading.Thread(target=answer, args=(client, peer[0]), daemon=True).start()


def udp(port: int) -> None:
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    server.bind(("::", port))
    while True:
        data, came, _, peer = server.recvmsg(65536, 256)
        tell("udp", port, data, peer[0])
        server.sendmsg([data], came, 0, peer)  # from the address that was asked


threads = [
    threading.Thread(target=serve, args=(int(port),))
    for port in sys.argv[1:]
    for serve in (tcp, udp)
]
for thread in threads:
    thread.start()
