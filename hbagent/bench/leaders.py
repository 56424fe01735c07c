"""Leaders of a hundred racks in one process: real connections with real keys, and nodes that exist on paper only.

Run as a process of its own (`python -m hbagent.bench.leaders`), told what to do line by line on its standard input: a
JSON document first (endpoints, keys, racks), then `end RACK NODE` (that agent has ended), `storm SECONDS` (every agent
ends, evenly over so long), `calm` (all are back) or `stop`. When it was told what is told to the root is said on
standard output.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any

import zmq

from hbagent.core.messages import (
    Evidence,
    HostFacts,
    LeaderStats,
    NodeReport,
    NodeRow,
    Ping,
    Pong,
    ProbeResult,
    RackReports,
    RackSummary,
    Report,
    Transition,
    Transitions,
    TransitionsAck,
    WireMessage,
)
from hbagent.core.states import Cause, Health, Kind, Liveness
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.transport import sockets
from hbagent.transport.keys import KeyPair
from hbagent.wire import codec
from hbagent.wire.pages import report_pages, summary_pages, transition_pages

#: What was not acknowledged is sent again after this.
RESEND_NS = 2 * SECOND
#: Parts into which each rack's share of a storm is cut.
STORM_PARTS = 10
INCARNATION = 0x5EED
PROBES = ("load", "memory", "disk", "ntp", "sshd")


class Leader:
    """One leader and its rack."""

    def __init__(self, context: sockets.Context, document: dict[str, Any], entry: dict[str, Any]) -> None:
        self.name, self.rack = entry["name"], entry["rack"]
        keys = KeyPair(name=self.name, public=entry["public"], secret=entry["secret"])
        caller = sockets.Caller(name=self.name, keys=keys, reconnect_ms=1000)
        targets = [sockets.Target(document[port], document["server_key"]) for port in ("publish", "control")]
        self._publisher = sockets.report_publisher(context, caller, targets[:1])
        self._dealer = sockets.control_dealer(context, caller, targets[1:])
        self._epoch = int.from_bytes(os.urandom(7), "big")
        self._numbers = 0
        self._transitions = 0
        #: Liveness of each node, its transition, and when that was.
        self.nodes = {f"host{n:03}": (Liveness.ALIVE, 0, time.monotonic_ns()) for n in range(document["nodes"])}
        self._waiting: list[Transition] = []
        self._sent_at = 0
        self._acknowledged = 0
        self._reported = False

    def say(self) -> None:
        """A summary, and the first time the reports of all nodes."""
        now = time.monotonic_ns()
        self._numbers += 1
        rows = tuple(self._row(node, now) for node in self.nodes)
        summary = RackSummary(
            rack=self.rack,
            epoch=self._epoch,
            number=self._numbers,
            newest=self._transitions,
            nodes=rows,
            stats=LeaderStats(
                uptime_ns=now, beats=self._numbers * len(rows), version="bench", outbox=len(self._waiting)
            ),
        )
        for page in summary_pages(summary):
            self._publish(page)
        if not self._reported and self._numbers > 2:
            self._reported = True
            reports = tuple(NodeReport(node=node, report=_report(node)) for node in self.nodes)
            for report in report_pages(RackReports(rack=self.rack, epoch=self._epoch, reports=reports)):
                self._publish(report)
        if self._waiting and now - self._sent_at > RESEND_NS:
            self._send()

    def _row(self, node: str, now: int) -> NodeRow:
        liveness, version, since = self.nodes[node]
        return NodeRow(
            node=node,
            liveness=liveness,
            cause=Cause.PROCESS_EXIT if liveness is Liveness.DEAD else None,
            health=Health.OK,
            since_ns=now - since,
            age_ns=300 * MILLISECOND if liveness is Liveness.ALIVE else now - since,
            incarnation=INCARNATION,
            sequence=self._numbers if liveness is Liveness.ALIVE else 1,
            version=version,
            margin_ns=50 * MILLISECOND,
        )

    def change(self, nodes: list[str], after: Liveness) -> None:
        """A verdict about each of these."""
        now = time.monotonic_ns()
        for node in nodes:
            before = self.nodes[node][0]
            self._transitions += 1
            self.nodes[node] = (after, self._transitions, now)
            dead = after is Liveness.DEAD
            text = "its connection was closed and its host refuses port 7079, where this life of it answered before"
            self._waiting.append(
                Transition(
                    number=self._transitions,
                    node=f"{self.rack}/{node}",
                    kind=Kind.NODE_DEAD if dead else Kind.NODE_RECOVERED,
                    before=before,
                    after=after,
                    cause=Cause.PROCESS_EXIT if dead else None,
                    evidence=Evidence(text=text, incarnation=INCARNATION, silent_ns=20 * MILLISECOND),
                    incarnation=INCARNATION,
                    sequence=self._numbers,
                    at_wall_ns=time.time_ns(),
                    at_mono_ns=now,
                )
            )
        self._send()

    def _send(self) -> None:
        now = self._sent_at = time.monotonic_ns()
        first = self._acknowledged + 1
        batch = Transitions(
            epoch=self._epoch,
            base=first,
            after=first - 1,
            items=tuple(self._waiting),
            present=self._epoch,
            sent_mono_ns=now,
        )
        for page in transition_pages(batch):
            self._tell(page)

    def hear(self) -> None:
        """What the root says on the control connection."""
        while True:
            try:
                message = codec.decode(self._dealer.recv_multipart(zmq.NOBLOCK)[-1])
            except zmq.Again:
                return
            if isinstance(message, TransitionsAck) and message.epoch == self._epoch:
                self._acknowledged = max(self._acknowledged, message.number)
                self._waiting = [item for item in self._waiting if item.number > message.number]
            elif isinstance(message, Ping):
                self._tell(Pong(number=message.number, incarnation=self._epoch, sequence=0))

    def _publish(self, message: WireMessage) -> None:
        self._publisher.send(codec.encode(message), zmq.NOBLOCK)

    def _tell(self, message: WireMessage) -> None:
        try:
            self._dealer.send(codec.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            self._sent_at = 0


def _report(node: str) -> Report:
    facts = HostFacts(
        cpu_count=32,
        cpu_percent=12.5,
        load_1m=3.25,
        memory_total_bytes=128 << 30,
        memory_used_percent=42.0,
        uptime_s=86_400,
        hostname=node,
        kernel="6.1.0",
    )
    probes = tuple(
        ProbeResult(name=name, health=Health.OK, text=f"{name} is as it should be", kind="host") for name in PROBES
    )
    return Report(incarnation=INCARNATION, number=1, facts=facts, health=Health.OK, probes=probes)


class Leaders:
    """All of them, in turns: each speaks once a second."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._context: sockets.Context = zmq.Context()
        self._context.max_sockets = 8_000
        self._leaders = [Leader(self._context, document, entry) for entry in document["leaders"]]
        self._due = time.monotonic_ns()
        self._next = 0
        #: (when, leader, nodes, liveness) that are still to come.
        self._plan: list[tuple[int, Leader, list[str], Liveness]] = []

    def run(self) -> None:
        """Obey the lines on standard input until it ends."""
        turn_ns = SECOND // len(self._leaders)
        while True:
            now = time.monotonic_ns()
            if now >= self._due:
                self._due = max(self._due + turn_ns, now - SECOND)
                leader = self._leaders[self._next]
                self._next = (self._next + 1) % len(self._leaders)
                leader.say()
            while self._plan and self._plan[0][0] <= now:
                _, leader, nodes, after = self._plan.pop(0)
                leader.change(nodes, after)
                if not self._plan:
                    print(f"told {time.time_ns()}", flush=True)
            for leader in self._leaders:
                leader.hear()
            at = min(self._due, self._plan[0][0]) if self._plan else self._due
            wait = max(0.0, min(0.002, (at - time.monotonic_ns()) / SECOND))
            if select.select([0], [], [], wait)[0]:
                orders = os.read(0, 4096).decode()
                if not orders:
                    return
                for line in orders.splitlines():
                    self._obey(line.split())

    def _obey(self, words: list[str]) -> None:
        if words[0] == "end":
            leader, node = self._leaders[int(words[1])], f"host{int(words[2]):03}"
            told_at = time.time_ns()
            leader.change([node], Liveness.DEAD)
            print(f"told {told_at}", flush=True)
        elif words[0] == "storm":
            self._spread(Liveness.DEAD, float(words[1]))
        elif words[0] == "calm":
            self._spread(Liveness.ALIVE, float(words[1]))

    def _spread(self, after: Liveness, seconds: float) -> None:
        """Every node changes to `after`, in parts spread over so many seconds."""
        now = time.monotonic_ns()
        span = round(seconds * SECOND)
        for number, leader in enumerate(self._leaders):
            nodes = [node for node, (liveness, _, _) in leader.nodes.items() if liveness is not after]
            size = -(-len(nodes) // STORM_PARTS) or 1
            for part in range(0, len(nodes), size):
                at = now + span * (part // size * len(self._leaders) + number) // (STORM_PARTS * len(self._leaders))
                self._plan.append((at, leader, nodes[part : part + size], after))
        self._plan.sort(key=lambda entry: entry[0])


def main() -> None:
    """Entry point of the process."""
    document = b""
    while not document.endswith(b"\n"):
        # One byte at a time: what a buffer has taken is invisible to select.
        document += os.read(0, 1)
    Leaders(json.loads(document)).run()


if __name__ == "__main__":
    main()
