"""A rack whose nodes answer a leader's questions as real ones would, for tests of what the leader makes of it.

Each node has a condition, and everything else follows: whether it beats, what its kernel does, what its echo port
says, and to whom. Time is virtual; the leader is woken whenever it wants.

    rack = Rack("node1", "node2", "node3")
    rack.run(3.0)
    rack.become("node1", Condition.GONE)
    rack.run(5.0)
    assert rack.told("node1") == [(..., "SUSPECT", "silence"), (..., "DEAD", "host-gone")]
"""

from __future__ import annotations

import enum
import heapq
import random
from collections.abc import Callable
from typing import Any

from hbagent.core.echo import answer
from hbagent.core.effects import ASK_NS, WITNESS_NS, Ask, Effect, Happened, Send, Witness
from hbagent.core.leader import LeaderCore
from hbagent.core.messages import (
    RELAY_TIME_NS,
    Account,
    AccountWanted,
    Admission,
    Answered,
    Disconnected,
    HeardWanted,
    Hello,
    LastHeard,
    Located,
    Ping,
    Pong,
    Relay,
    Relayed,
)
from hbagent.core.states import Outcome, Path
from hbagent.core.units import MILLISECOND, SECOND, seconds
from tests.build import LEADER2, RACK, leader_core

#: One way between any two hosts.
WAY_NS = 200_000
#: A stopped process's kernel delays its acknowledgement.
DELAYED_ACK_NS = 40 * MILLISECOND


class Condition(enum.Enum):
    """What is the matter with a node."""

    WELL = "well"
    #: The process has ended; its host answers for it.
    EXITED = "exited"
    #: The process stands still; its host acknowledges.
    FROZEN = "frozen"
    #: Nothing comes from the host any more, for anybody.
    GONE = "gone"
    #: Nothing passes between the node and this leader; everybody else reaches it.
    CUT = "cut"


class Node:
    """One node and its agent."""

    def __init__(self, name: str, phase_ns: int, interval_ns: int) -> None:
        self.name = name
        self.condition = Condition.WELL
        self.interval_ns = interval_ns
        self.phase_ns = phase_ns
        self.incarnation = 1000 + phase_ns
        self.sequence = 0
        self.key = b""
        #: The echo port can be reached at all.
        self.echo = True
        #: Something before it answers for it: TCP is reset, and nothing else passes to it or from it on this way.
        self.resets = False
        #: The next so many beats are lost on the way.
        self.lose = 0
        #: The agent runs, and its loop is too busy to answer before this.
        self.busy_until = 0

    @property
    def reachable(self) -> bool:
        """True when something passes between this node and the leader."""
        return self.condition not in (Condition.GONE, Condition.CUT)


class Rack:
    """A leader core and its nodes."""

    def __init__(self, *names: str, interval: float = 1.0, settings: Any = None) -> None:
        self.now = 0
        self.core: LeaderCore = leader_core(*names, **(settings or {}))
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._made = 0
        self._rng = random.Random(5)
        self.effects: list[tuple[int, Effect]] = []
        #: (seconds, node, from, to, cause) of every verdict.
        self.verdicts: list[tuple[float, str, str, str, str | None]] = []
        #: What the other leader says when it is asked: a function of the node.
        self.other: Callable[[str], tuple[int | None, int | None]] = lambda node: (None, None)
        self.account: Callable[[AccountWanted], Account | None] = lambda wanted: None
        #: Neighbours that never report back.
        self.mute: set[str] = set()
        interval_ns = seconds(interval)
        self.nodes = {
            name: Node(f"{RACK}/{name}", (index * interval_ns) // max(1, len(names)) + MILLISECOND, interval_ns)
            for index, name in enumerate(names)
        }
        for node in self.nodes.values():
            self.admit(node)
            self.after(node.phase_ns, lambda node=node: self._beat(node))  # type: ignore[misc]

    # ---- time --------------------------------------------------------------------------------------------

    def after(self, delay_ns: int, call: Callable[[], None]) -> None:
        """Do something later."""
        self._made += 1
        heapq.heappush(self._queue, (self.now + delay_ns, self._made, call))

    def run(self, duration: float) -> None:
        """Let so many seconds pass."""
        until = self.now + seconds(duration)
        for _ in range(2_000_000):
            deadline = self.core.deadline()
            at = min(self._queue[0][0] if self._queue else until, deadline if deadline is not None else until)
            if at > until:
                break
            self.now = max(self.now, at)
            if self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
            elif deadline is not None and deadline <= self.now:
                self.take(self.core.wake(self.now))
            else:
                break
        else:
            raise AssertionError("the core turns in place")
        self.now = until

    # ---- nodes -------------------------------------------------------------------------------------------

    def become(self, name: str, condition: Condition) -> None:
        """From now on."""
        node = self.nodes[name]
        if condition is Condition.EXITED:
            self.after(WAY_NS, lambda: self.tell("", Disconnected(node.name)))
        node.condition = condition

    def restart(self, name: str) -> None:
        """Another life of the agent begins."""
        node = self.nodes[name]
        node.condition = Condition.WELL
        node.incarnation += 1
        node.sequence = 0
        node.key = b""
        self.admit(node)

    def admit(self, node: Node) -> None:
        """The agent says hello."""
        port = 7000 if node.echo else 0
        self.tell("", Located(node.name, "10.0.0.1"))
        hello = Hello(incarnation=node.incarnation, interval_ns=node.interval_ns, version="1", echo_port=port)
        self.tell(node.name, hello)

    def _beat(self, node: Node) -> None:
        self.after(node.interval_ns, lambda: self._beat(node))
        if node.condition not in (Condition.WELL, Condition.CUT) or self.now < node.busy_until:
            return
        node.sequence += 1
        if node.lose or node.resets or node.condition is Condition.CUT:
            node.lose = max(0, node.lose - 1)
            return
        sent, sequence, incarnation = self.now, node.sequence, node.incarnation

        def arrive() -> None:
            numbers = (incarnation, sequence, sent, node.interval_ns, node.interval_ns, 0, 0, 0, False)
            self.take(self.core.beat(node.name, *numbers, self.now))

        self.after(WAY_NS, arrive)

    # ---- answers -----------------------------------------------------------------------------------------

    def tell(self, sender: str, message: object) -> None:
        """Give the leader a message now."""
        self.take(self.core.receive(sender, message, self.now))

    def take(self, effects: Any) -> None:
        """Do what the leader orders."""
        for effect in effects:
            self.effects.append((self.now, effect))
            if isinstance(effect, Happened):
                cause = effect.cause.value if effect.cause is not None else None
                short = effect.node.rpartition("/")[2]
                self.verdicts.append((self.now / SECOND, short, effect.before, effect.after, cause))
            elif isinstance(effect, Witness):
                self._witness(effect)
            elif isinstance(effect, Ask):
                self._ask(effect)
            elif isinstance(effect, Send):
                self._send(effect)

    def _node(self, full: str) -> Node | None:
        return self.nodes.get(full.rpartition("/")[2])

    def _back(self, delay_ns: int, peer: str, number: int, path: Path, outcome: Outcome, data: bytes = b"") -> None:
        message = Answered(peer=peer, number=number, path=path, outcome=outcome, data=data)
        self.after(delay_ns, lambda: self.tell("", message))

    def _witness(self, effect: Witness) -> None:
        node = self._node(effect.peer)
        assert node is not None
        if node.resets:
            self._back(WAY_NS, effect.peer, effect.number, Path.KERNEL, Outcome.CLOSED)
        elif not node.reachable:
            self._back(WITNESS_NS, effect.peer, effect.number, Path.KERNEL, Outcome.SILENT)
        elif node.condition is Condition.EXITED:
            self._back(WAY_NS, effect.peer, effect.number, Path.KERNEL, Outcome.CLOSED)
        else:
            wait = DELAYED_ACK_NS if node.condition is Condition.FROZEN else 2 * WAY_NS
            self._back(wait, effect.peer, effect.number, Path.KERNEL, Outcome.ACKED)

    def _ask(self, effect: Ask) -> None:
        node = self._node(effect.peer)
        assert node is not None
        outcome, data = self._echo(node, effect.request, node.reachable and not node.resets)
        if node.resets and effect.path is Path.TCP:
            outcome = Outcome.REFUSED
        if effect.path is Path.UDP and outcome is Outcome.CLOSED:
            outcome = Outcome.SILENT
        wait = ASK_NS if outcome is Outcome.SILENT else 2 * WAY_NS
        self._back(wait, effect.peer, effect.number, effect.path, outcome, data)

    def _echo(self, node: Node, request: bytes, passes: bool) -> tuple[Outcome, bytes]:
        if not passes or not node.echo or node.condition is Condition.FROZEN or self.now < node.busy_until:
            return Outcome.SILENT, b""
        if node.condition is Condition.EXITED:
            return Outcome.REFUSED, b""
        data = answer(request, [node.key] if node.key else [], node.incarnation, node.sequence)
        return (Outcome.CLOSED, b"") if data is None else (Outcome.ANSWERED, data)

    def _send(self, effect: Send) -> None:
        if effect.peer == LEADER2 and isinstance(effect.message, HeardWanted):
            wanted = effect.message
            age, sequence = self.other(wanted.node.rpartition("/")[2])
            node = self._node(wanted.node)
            assert node is not None
            heard = LastHeard(
                number=wanted.number, node=wanted.node, age_ns=age, incarnation=node.incarnation, sequence=sequence
            )
            self.after(2 * WAY_NS, lambda: self.tell(LEADER2, heard))
            return
        node = self._node(effect.peer)
        if node is None or not node.reachable or node.condition is not Condition.WELL or self.now < node.busy_until:
            return
        if node.resets:
            return
        self._delivered(node, effect.message)

    def _delivered(self, node: Node, message: object) -> None:
        if isinstance(message, Admission):
            node.key = message.echo_key
        elif isinstance(message, Ping):
            pong = Pong(number=message.number, incarnation=node.incarnation, sequence=node.sequence)
            self.after(2 * WAY_NS, lambda: self.tell(node.name, pong))
        elif isinstance(message, Relay) and node.name not in self.mute:
            target = next(other for other in self.nodes.values() if other.key and _is_for(other, message.request))
            passes = target.condition is not Condition.GONE
            outcome, data = self._echo(target, message.request, passes)
            wait = RELAY_TIME_NS if outcome is Outcome.SILENT else 4 * WAY_NS
            relayed = Relayed(number=message.number, outcome=outcome, answer=data)
            self.after(wait, lambda: self.tell(node.name, relayed))
        elif isinstance(message, AccountWanted):
            account = self.account(message)
            if account is not None:
                self.after(2 * WAY_NS, lambda: self.tell(node.name, account))

    # ---- what came of it ---------------------------------------------------------------------------------

    def told(self, name: str) -> list[tuple[str, str | None]]:
        """(liveness, cause) of every verdict about a node since it was first heard."""
        return [(to, cause) for _, node, _, to, cause in self.verdicts if node == name][1:]

    def when(self, name: str, liveness: str, cause: str | None = None) -> float:
        """When that verdict was first reached, in seconds. Raises StopIteration when it never was."""
        return next(
            at for at, node, _, to, why in self.verdicts if (node, to) == (name, liveness) and cause in (None, why)
        )

    def asked(self, kind: type, since: float = 0.0) -> int:
        """Questions of a kind (Ask, Witness, or a message type that was sent)."""
        found = [e for at, e in self.effects if at >= seconds(since)]
        return sum(isinstance(e, kind) or (isinstance(e, Send) and isinstance(e.message, kind)) for e in found)


def _is_for(node: Node, request: bytes) -> bool:
    return answer(request, [node.key], 0, 0) is not None
