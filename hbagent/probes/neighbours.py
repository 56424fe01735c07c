"""Which services of other hosts do not answer this host, as its own kernel sees it.

Nobody has to be asked and nothing has to be built in: every connection of every program here is in `/proc/net/tcp`,
with what was sent and not acknowledged, and with the timer that runs for it. Three signs, each of the far side:

- it was asked for a connection, twice and more, and answers nothing (SYN_SENT): the host is gone, the way is cut, or
  the queue of a program that takes no connections is full;
- it acknowledges nothing (data sent again, twice and more): the host or the way to it is gone;
- it has no room for more (the timer that asks for room): its kernel is well, and the program does not read.

One sighting is nothing, for every loss looks like that for a moment; it counts when the same connection has shown it
for a whole window, in which nothing moved. (Who gives up early and tries again has another connection each time: of
those the service is remembered.) Connections that others made to a service of this host are left out: of those the
far side is a client. Fields: kernel documentation, networking/proc_net_tcp.
"""

from __future__ import annotations

import ipaddress
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from hbagent.core.checks import NeighboursCheck
from hbagent.core.messages import CheckFinished, Measure
from hbagent.core.states import Health
from hbagent.core.units import SECOND, show_duration

from .outcome import counted, finished, read

PROC = "/proc"
#: Bytes of a table: 150 for each socket, so a hundred thousand of them and more are read.
TABLE_MAX = 16 << 20
#: Connections in trouble that are remembered, and services that are told.
REMEMBERED_MAX = 256
TOLD_MAX = 32
#: States of a connection that the kernel writes (include/net/tcp_states.h).
ESTABLISHED, SYN_SENT, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, LISTEN = 1, 2, 4, 8, 9, 10
#: Which timer runs.
RETRANSMIT, PROBE = 1, 4
#: Sent again once is a lost packet.
AGAIN_MIN = 2
LOOPBACK = ("127.", "::1]")

UNANSWERED = "does not take connections from"
SILENT = "acknowledges nothing to"
FULL = "does not read what it gets from"


class Connection(msgspec.Struct, frozen=True, gc=False):
    """One line of the table."""

    local: str
    remote: str
    state: int
    #: Bytes sent and not acknowledged, or not sent yet.
    unsent: int
    timer: int
    #: Times that the oldest of them was sent again. Asking for room is not counted here once it is answered.
    again: int


def look(check: NeighboursCheck, timeout_ns: int, memory: dict[str, Any], proc: str = PROC) -> CheckFinished:
    """Read the tables, and compare with what was seen before."""
    now = time.monotonic_ns()
    connections: list[Connection] = []
    for name in ("tcp", "tcp6"):
        try:
            connections += parse(read(f"{proc}/net/{name}", TABLE_MAX))
        except FileNotFoundError:
            if name == "tcp":
                raise
    # Its port, on whatever address it listens.
    served = {_port(connection.local) for connection in connections if connection.state == LISTEN}
    before = memory.get("since", {})
    since: dict[str, list[int]] = {}
    silent: dict[str, dict[str, int]] = {}
    for connection in connections:
        sign = trouble(connection)
        if not sign or _port(connection.local) in served or (check.only and connection.remote not in check.only):
            continue
        key = f"{connection.local} {connection.remote} {sign}"
        unsent = connection.unsent
        if sign == UNANSWERED:
            key, unsent = f"{connection.remote} {sign}", 0
        first, then = before.get(key, (now, unsent))
        if first > now or (sign == FULL and then != unsent):
            first = now
        if len(since) < REMEMBERED_MAX:
            since[key] = [first, unsent]
        if now - first >= check.window_ns:
            signs = silent.setdefault(connection.remote, {})
            signs[sign] = signs.get(sign, 0) + 1
    return _judge(check, connections, silent, {"since": since})


def _judge(
    check: NeighboursCheck, connections: list[Connection], silent: dict[str, dict[str, int]], memory: dict[str, Any]
) -> CheckFinished:
    counts = {remote: sum(signs.values()) for remote, signs in silent.items()}
    bad = sorted((remote for remote in counts if counts[remote] >= check.least), key=lambda name: (-counts[name], name))
    measures = [
        Measure(label="connections", value=len(connections), least=0),
        Measure(label="silent", value=len(bad), warning="0", least=0),
    ]
    measures += [Measure(label=remote, value=counts[remote], least=0) for remote in bad[:TOLD_MAX]]
    if not bad:
        return finished(
            Health.OK, f"{counted(len(connections), 'connection')}, and none waits for its other side", measures, memory
        )
    texts = []
    for remote in bad[:3]:
        sign = max(silent[remote], key=lambda name: silent[remote][name])
        texts.append(f"{remote} {sign} this host ({counted(counts[remote], 'connection')})")
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    text = f"for {show_duration(max(check.window_ns, SECOND))}: {'; '.join(texts)}{more}"
    return finished(Health.WARNING, text, measures, memory)


def trouble(connection: Connection) -> str:
    """Which sign a connection shows; "" for none."""
    if connection.remote.lstrip("[").startswith(LOOPBACK):
        # The far side is this host, and has its own probes.
        return ""
    if connection.state == SYN_SENT:
        return UNANSWERED if connection.again else ""
    if connection.state in (ESTABLISHED, FIN_WAIT1, CLOSE_WAIT, LAST_ACK) and connection.unsent:
        if connection.timer == RETRANSMIT and connection.again >= AGAIN_MIN:
            return SILENT
        if connection.timer == PROBE:
            return FULL
    return ""


def parse(data: bytes) -> Iterator[Connection]:
    """The lines of `/proc/net/tcp` or `tcp6`; a last one that was cut off is left out. Raises ValueError."""
    lines = data.split(b"\n")
    for line in lines[1:-1]:
        fields = line.split()
        if len(fields) < 7:
            raise ValueError(f"a line of the connections reads {line[:80]!r}")
        unsent = fields[4].partition(b":")[0]
        timer = fields[5].partition(b":")[0]
        yield Connection(
            local=address(fields[1]),
            remote=address(fields[2]),
            state=int(fields[3], 16),
            unsent=int(unsent, 16),
            timer=int(timer, 16),
            again=int(fields[6], 16),
        )


def address(text: bytes) -> str:
    """ "10.0.0.5:5432" of "0500000A:1538", which is in the byte order of this host, four bytes at a time."""
    digits, _, port = text.partition(b":")
    raw = bytes.fromhex(digits.decode("ascii"))
    if len(raw) not in (4, 16):
        raise ValueError(f"an address reads {text[:40]!r}")
    if sys.byteorder == "little":
        raw = b"".join(raw[begin : begin + 4][::-1] for begin in range(0, len(raw), 4))
    found = ipaddress.ip_address(raw)
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    shown = f"[{found}]" if found.version == 6 else str(found)
    return f"{shown}:{int(port, 16)}"


def _port(place: str) -> str:
    return place.rpartition(":")[2]
