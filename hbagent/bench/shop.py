"""A healthy and busy server, to be looked at: `python -m hbagent.bench.shop`.

Eight threads answer eight connections, each answer made under two locks. It says `READY port` and ends with its input.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from typing import Any

WORKERS = 8
REQUEST = b"please\n"
ANSWER_SIZE = 64
#: About 0.1 ms: a lookup and an answer in JSON.
_ITEMS = 40


class Shop:
    """Accounts, and a journal of what was done to them."""

    def __init__(self) -> None:
        self._accounts, self._journal = threading.Lock(), threading.Lock()
        self._held: dict[str, int] = {f"account-{number}": 0 for number in range(_ITEMS)}
        self._done = 0

    def answer(self) -> bytes:
        """Change something, write it down, and tell."""
        with self._accounts:
            for name in self._held:
                self._held[name] += 1
            told: dict[str, Any] = json.loads(json.dumps(self._held))
            with self._journal:
                self._done += 1
        return f"{len(told)} {self._done}".encode().ljust(ANSWER_SIZE)


def serve(shop: Shop, listener: socket.socket) -> None:
    """One connection after the other."""
    while True:
        client, _ = listener.accept()
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while client.recv(len(REQUEST)):
                client.sendall(shop.answer())


def main() -> None:
    """Serve until the end of the input."""
    shop, listener = Shop(), socket.create_server(("127.0.0.1", 0), backlog=WORKERS)
    for _ in range(WORKERS):
        threading.Thread(target=serve, args=(shop, listener), daemon=True).start()
    print(f"READY {listener.getsockname()[1]}", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
