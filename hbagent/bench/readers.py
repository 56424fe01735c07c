"""Browsers that only follow the live feed: many real connections from one process, which reads and throws away.

Run as a process of its own (`python -m hbagent.bench.readers PORT COUNT`), until its standard input ends.
"""

from __future__ import annotations

import select
import socket
import sys

_REQUEST = b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


def run(port: int, count: int) -> None:
    """Read everything that comes on `count` connections until standard input ends."""
    poller = select.epoll()
    poller.register(sys.stdin.fileno(), select.EPOLLIN)
    connections = {}
    for _ in range(count):
        made = socket.create_connection(("127.0.0.1", port))
        made.sendall(_REQUEST)
        connections[made.fileno()] = made
        poller.register(made.fileno(), select.EPOLLIN)
    buffer = bytearray(1 << 18)
    while True:
        for number, _ in poller.poll():
            if number not in connections:
                return
            if not connections[number].recv_into(buffer):
                raise SystemExit("a reader was dropped")


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]))
