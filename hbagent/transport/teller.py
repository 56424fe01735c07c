"""The sending side of a notify socket: what `hbagent notify` and `hbagent run-app` say to an agent, or to systemd.

A socket for each datagram, as libsystemd has it: the path may have another listener by the next time. Format:
sd_notify(3).
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections.abc import Iterable, Mapping, Sequence

#: Where an agent listens when nothing else is said.
DEFAULT_SOCKET = "/run/hbagent/notify"
#: systemd reads as much and no more, and so does the agent.
DATAGRAM_SIZE_MAX = 4096


def address_of(environment: Mapping[str, str]) -> str:
    """Where the agent of this host listens: `HBAGENT_NOTIFY`, or the usual place."""
    return environment.get("HBAGENT_NOTIFY") or DEFAULT_SOCKET


def lines(fields: Iterable[str]) -> bytes:
    """The datagram that says these `KEY=VALUE`. Raises ValueError for one that would be something else in it, and for
    more than anybody takes."""
    chosen = list(fields)
    for field in chosen:
        key, equals, _ = field.partition("=")
        if not equals or not key or "\n" in field or "\0" in field:
            raise ValueError(f"{field!r} is not KEY=VALUE on one line")
    datagram = "\n".join(chosen).encode("utf-8", "surrogateescape")
    if len(datagram) > DATAGRAM_SIZE_MAX:
        raise ValueError(f"{len(datagram):,} bytes; the agent and systemd take {DATAGRAM_SIZE_MAX:,} at once")
    return datagram


def send(address: str, datagram: bytes, timeout_s: float, descriptors: Sequence[int] = ()) -> None:
    """Send one datagram; "@name" is an abstract address.

    Raises OSError: FileNotFoundError or ConnectionRefusedError when nobody listens, TimeoutError when the listener's
    queue stays full.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as made:
        made.settimeout(timeout_s)
        # Connected, or waiting for room in the listener's queue would spin: poll(2) sees the queue only then.
        made.connect("\0" + address[1:] if address.startswith("@") else address)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        made.sendmsg([datagram], control)


def settle(address: str, timeout_s: float) -> bool:
    """Wait until everything sent before has been dealt with (`BARRIER=1`); False when that took too long.

    Raises OSError as `send` does.
    """
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            send(address, b"BARRIER=1", timeout_s, [theirs])
        finally:
            os.close(theirs)
        poller = select.poll()
        poller.register(ours, 0)
        return bool(poller.poll(timeout_s * 1000))
    finally:
        os.close(ours)
