"""A root or leader to ask: the real core behind the real query socket in a thread of its own, at a time that stands.

The core is told what leaders would tell it and the history is a real one, so an answer goes the whole way.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import zmq

from hbagent.core.config import HookConfig, LeaderConfig, RackConfig, RootConfig
from hbagent.core.effects import Answer, Effect, Fetch, Persist, Revive, RunHook, Send
from hbagent.core.leader import LeaderCore
from hbagent.core.messages import (
    Evidence,
    EvidencePage,
    EvidenceWanted,
    HookFinished,
    HostFacts,
    Kept,
    LeaderStats,
    NodeReport,
    NodeRow,
    RackReports,
    RackSummary,
    Report,
    Revived,
    Transition,
    Transitions,
    WallTime,
)
from hbagent.core.root import RootCore
from hbagent.core.states import Cause, Health, Kind, Liveness
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.role import reads
from hbagent.role.questions import Questions
from hbagent.role.visitors import Visitor
from hbagent.store.history import History
from hbagent.transport.sockets import Context, query_router

#: 2026-11-21T12:00:03.250Z, the wall time at the core's time 0.
WALL_NS = 1795262403250 * MILLISECOND
INCARNATION = 0x5EED
_NUMBERS = itertools.count(1)


class Trusting:
    """A door at which everybody may order everything, as "tester (uid 1000)"."""

    mark = b"t"
    changing: frozenset[str] = frozenset()

    def visitor(self, frames: list[zmq.Frame]) -> Visitor:
        return Visitor(uid=1000)

    def named(self, visitor: Visitor, then: Callable[[str], None]) -> None:
        then("tester (uid 1000)")

    def deaf(self, route: bytes) -> None:
        """It loses its answer."""


class Daemon:
    """Answers on `ipc://DIRECTORY/q.sock` from `core`, in a `with`."""

    def __init__(self, core: RootCore | LeaderCore, directory: Path, now: int, history: History | None = None) -> None:
        self.endpoint = f"ipc://{directory}/q.sock"
        self.core = core
        self.now = now
        self._history = history
        #: Evidence bundles of its nodes; without one, a node does not answer.
        self.bundles: dict[str, bytes] = {}
        #: What comes of a hook that is run for a question or an order.
        self.hook: Callable[[RunHook], HookFinished] = lambda order: HookFinished(run_id=order.run_id, exit_code=0)
        #: What its nodes were asked for.
        self.wanted: list[EvidenceWanted] = []
        self._context: Context = zmq.Context()
        door = Trusting() if isinstance(core, RootCore) else None
        self._questions = Questions(query_router(self._context, self.endpoint), self._feed, door)
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Daemon:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join()
        self._questions.source.close(linger=0)
        self._context.term()

    def tell(self, sender: str, *messages: object) -> None:
        """Have messages arrive at the core, and what it decides be written down."""
        with self._lock:
            for message in messages:
                tell(self.core, sender, message, self.now, self._history)

    def pass_time(self, until: int) -> None:
        """Let the core's deadlines come, one after the other, up to a time, which then is now."""
        with self._lock:
            while (at := self.core.deadline()) is not None and at <= until:
                # A deadline that has passed already comes at once, as in a loop that was late.
                self.now = max(self.now, at)
                settle(self.core, self.core.wake(self.now), self.now, self._history)
            self.now = until

    def _serve(self) -> None:
        while not self._ending.is_set():
            if self._questions.source.poll(20):
                self._questions.drain()

    def _feed(self, sender: str, message: object) -> None:
        with self._lock:
            effects = list(self.core.receive(sender, message, self.now))
            for effect in effects:
                if isinstance(effect, Persist):
                    if self._history is not None:
                        self._history.commit(effect.batch)
                    # An order is answered when it is on disk.
                    effects += self.core.receive("", Kept(effect.token), self.now)
                elif isinstance(effect, Answer):
                    self._questions.answer(effect)
                elif isinstance(effect, Send) and isinstance(effect.message, EvidenceWanted):
                    effects += self._evidence(effect.peer, effect.message)
                elif isinstance(effect, Fetch):
                    self._questions.answer(self._fetched(effect))
                elif isinstance(effect, RunHook):
                    effects += self.core.receive("", self.hook(effect), self.now)
                elif isinstance(effect, Revive):
                    assert self._history is not None
                    runs = self._history.given_up(effect.run_id)
                    found = Revived(effect.asker, effect.id, runs, named=bool(effect.run_id))
                    effects += self.core.receive("", found, self.now)

    def _evidence(self, node: str, wanted: EvidenceWanted) -> Iterator[Effect]:
        """The node answers in pages, or says that it has nothing."""
        self.wanted.append(wanted)
        body = self.bundles.get(node)
        if body is None:
            return
        error = "" if body else f"no bundle about {wanted.app or 'anything'}"
        half = len(body) // 2
        for at, part in enumerate((body[:half], body[half:])):
            last = at == 1 or bool(error)
            page = EvidencePage(number=wanted.number, node=node, page=at, last=last, body=part, error=error)
            yield from self.core.receive(node, page, self.now)
            if last:
                return

    def _fetched(self, effect: Fetch) -> Answer:
        assert self._history is not None
        try:
            return Answer(effect.asker, effect.id, reads.answer_of(self._history, effect))
        except reads.UnknownError as error:
            return Answer(effect.asker, effect.id, None, str(error))


def tell(core: RootCore | LeaderCore, sender: str, message: object, now: int, history: History | None = None) -> None:
    """Give a core one message and put on disk what it wants kept."""
    settle(core, core.receive(sender, message, now), now, history)


def settle(core: RootCore | LeaderCore, decided: Iterable[object], now: int, history: History | None = None) -> None:
    """Put on disk what a core wants kept, and tell it so; the rest of what it decided comes to nothing."""
    effects = list(decided)
    while effects:
        effect = effects.pop(0)
        if isinstance(effect, Persist):
            if history is not None:
                history.commit(effect.batch)
            effects += core.receive("", Kept(effect.token), now)


@contextmanager
def without_rights() -> Iterator[None]:
    """Root may open every socket, so as root be somebody else for a moment."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


# ---- a small datacenter ----------------------------------------------------------------------------------

RACK1, RACK2 = "demo/rack1", "demo/rack2"
LEADER1, LEADER2 = "demo/rack1-leader1", "demo/rack2-leader1"


def root_core(*racks: RackConfig, hooks: tuple[HookConfig, ...] = ()) -> RootCore:
    """A root of two racks with one leader each, or of these racks; its wall clock is told."""
    both = (RackConfig(name=RACK1, leaders=(LEADER1,)), RackConfig(name=RACK2, leaders=(LEADER2,)))
    config = RootConfig(name="demo/root", version="1.0.0", racks=racks or both, hooks=hooks)
    core = RootCore(config, random.Random(7), 0)
    core.receive("", WallTime(WALL_NS), 0)
    return core


def leader_core() -> LeaderCore:
    """A leader of one rack of two nodes, of which the first beats."""
    racks: dict[str, tuple[str, ...]] = {RACK1: (f"{RACK1}/node1", f"{RACK1}/node2")}
    core = LeaderCore(LeaderConfig(name=LEADER1, racks=racks, root="demo/root", version="1.0.0"), random.Random(7), 0)
    core.receive("", WallTime(WALL_NS), 0)
    for sequence in range(1, 4):
        at = sequence * SECOND
        core.beat(f"{RACK1}/node1", INCARNATION, sequence, at, SECOND, SECOND, 0, 0, 0, False, at)
    return core


def joined(rack: str, nodes: Iterable[str], base: int = 1) -> Transitions:
    """Every node comes alive."""
    items = [
        change(f"{rack}/{node}", base + at, Liveness.UNKNOWN, Liveness.ALIVE, None, "first beat", at_s=1)
        for at, node in enumerate(nodes)
    ]
    return Transitions(epoch=1, base=1, after=base - 1, items=tuple(items))


def change(
    node: str, number: int, before: Liveness, after: Liveness, cause: Cause | None, text: str, at_s: float
) -> Transition:
    kinds = {
        Liveness.ALIVE: Kind.NODE_JOINED if before is Liveness.UNKNOWN else Kind.NODE_RECOVERED,
        Liveness.SUSPECT: Kind.NODE_SUSPECT,
        Liveness.DEAD: Kind.NODE_DEAD,
        Liveness.LEFT: Kind.NODE_LEFT,
    }
    troubled = after in (Liveness.SUSPECT, Liveness.DEAD)
    return Transition(
        number=number,
        node=node,
        kind=kinds[after],
        before=before,
        after=after,
        cause=cause,
        evidence=Evidence(
            text=text,
            incarnation=INCARNATION,
            sequence=40,
            silent_ns=2500 * MILLISECOND if troubled else None,
            interval_ns=SECOND,
            allowed_ns=150 * MILLISECOND,
            lag_credit_ns=0,
            detector="adaptive",
        ),
        incarnation=INCARNATION,
        sequence=40,
        at_wall_ns=WALL_NS + round(at_s * SECOND),
    )


def summary(
    rack: str,
    *rows: NodeRow,
    newest: int = 0,
    uptime_s: int = 100,
) -> RackSummary:
    """A summary, newer than all before it."""
    stats = LeaderStats(uptime_ns=uptime_s * SECOND, lag_max_ns=3 * MILLISECOND, version="1.0.0")
    return RackSummary(rack=rack, epoch=1, number=next(_NUMBERS), newest=newest, nodes=rows, stats=stats)


def node_row(node: str, liveness: Liveness = Liveness.ALIVE, health: Health = Health.OK, version: int = 1) -> NodeRow:
    return NodeRow(
        node=node,
        liveness=liveness,
        health=health,
        since_ns=90 * SECOND,
        age_ns=250 * MILLISECOND,
        incarnation=INCARNATION,
        sequence=41,
        version=version,
    )


def calm_root(now: int = 100 * SECOND, history: History | None = None, hooks: tuple[HookConfig, ...] = ()) -> RootCore:
    """Two racks of two nodes, all well and all with a report."""
    core = root_core(hooks=hooks)
    for rack, leader in ((RACK1, LEADER1), (RACK2, LEADER2)):
        nodes = ("node1", "node2")
        rows = [node_row(node, version=at) for at, node in enumerate(nodes, 1)]
        report = Report(incarnation=INCARNATION, number=1, facts=HostFacts(cpu_percent=12.5, load_1m=0.4))
        reports = tuple(NodeReport(node=node, report=report) for node in nodes)
        heard = RackReports(rack=rack, epoch=1, reports=reports)
        # The first summary gives the leader its lease; without one nothing that it tells is taken in.
        for message in (summary(rack), joined(rack, nodes), summary(rack, *rows, newest=2), heard):
            tell(core, leader, message, now, history)
    return core


def dying(number: int = 3, rack: str = RACK1) -> Transitions:
    """node1 of a rack is suspected, then dead."""
    node = f"{rack}/node1"
    items = (
        change(node, number, Liveness.ALIVE, Liveness.SUSPECT, Cause.SILENCE, "no beat for 1.2s", at_s=97.7),
        change(node, number + 1, Liveness.SUSPECT, Liveness.DEAD, Cause.SILENCE, "no beat for 2.5s", at_s=99),
    )
    return Transitions(epoch=1, base=1, after=number - 1, items=items)
