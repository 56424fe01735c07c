"""Ports of loopback of which a test knows who is there, as long as it wants to know it.

A port that was looked for and let go may be somebody else's a moment later.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def bound() -> Iterator[socket.socket]:
    """A port at which nobody listens, and nobody can until the end: who calls it is refused."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held


def port_of(held: socket.socket) -> int:
    """Its number."""
    port: int = held.getsockname()[1]
    return port
