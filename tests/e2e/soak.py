"""Who judges a soak: a process of its own, which believes nothing but what lies on the disks.

    python -m tests.e2e.soak DIRECTORY

It reads what was done to whom (`nemesis.jsonl`, one order a line, by the wall clock of the one machine that all of
them share), the root's history and ledger, what the hook was told, and the logs; then it says what does not fit, one
line each, and ends with status 1 if there was anything.

    alive    nobody is called DEAD to whom nothing was done
    dead     an agent that was killed and stayed away is DEAD in time, where those who tell of it were left alone
    kept     what a leader decided is an event, and each notification has one outcome
    twice    what was told twice has one name, and is no more than can have been under way when the root was killed
    bounded  no process grew beyond its bound, ended by itself, or met a defect
"""

from __future__ import annotations

import collections
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hbagent.core.records import Event
from hbagent.core.states import Kind
from hbagent.store.archive import open_archive
from hbagent.store.history import unbalanced

#: An agent that was started again is heard when its interpreter is up, which took 8 s on a machine that was busy with
#: others; until then it may be called what it was.
BACK_SECONDS = 10.0
#: A killed agent is DEAD within this, on a machine that stands still for a second meanwhile, and then again.
DEAD_SECONDS = 5.0
#: Whoever tells of a death was left alone for so long around it.
QUIET_SECONDS = 8.0
#: Hook processes at once.
CONCURRENCY = 4
#: Resident memory of a process, by role.
RSS_MAX = {"root": 160 * 2**20, "leader": 120 * 2**20, "agent": 80 * 2**20}
#: Told of by leaders, and of those only history.
_DECIDED = (" node-suspect ", " node-dead ", " node-recovered ", " node-restarted ", " node-left ")

Span = tuple[float, float]


class Soak:
    """One soak that is over."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.orders = [json.loads(line) for line in (directory / "nemesis.jsonl").read_text().splitlines()]
        self.end = max(order["until"] for order in self.orders)
        with open_archive("sqlite", directory / "state" / "root") as archive:
            self.events = list(archive.events())
            self.ledger = unbalanced(archive.database)
            self.waiting = [row for (row,) in archive.database.rows("SELECT run_id FROM unsent WHERE state = 'held'")]
        told = directory / "hooks.jsonl"
        self.told = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []

    def spans(self, *names: str, what: tuple[str, ...] = ()) -> list[Span]:
        """When something (one of `what`, or anything) was done to these processes."""
        return [
            (order["at"], order["until"])
            for order in self.orders
            if order["name"] in names and order["what"] != "watch" and (not what or order["what"] in what)
        ]

    def complaints(self) -> Iterator[str]:
        """What does not fit."""
        yield from self._alive()
        yield from self._dead()
        yield from self._kept()
        yield from self._twice()
        yield from self._bounded()

    def _alive(self) -> Iterator[str]:
        for event in self._of(Kind.NODE_DEAD):
            at, name = event.at_wall_ns / 1e9, _process(event.node)
            spans = self.spans(name, event.leader.removeprefix("demo/"))
            mine = [span for span in self.spans(name) if span[0] <= at <= span[1] + BACK_SECONDS]
            # A leader that was killed knows of a death in the meantime only when it has listened for a while.
            if not mine and not any(begin <= at <= end + 45.0 for begin, end in spans if (begin, end) not in mine):
                yield f"alive: {event.node} was called DEAD ({event.cause}) at {at:.3f}, and nothing was done to it"

    def _dead(self) -> Iterator[str]:
        for order in self.orders:
            if order["what"] != "kill" or "-node" not in order["name"] or order["until"] - order["at"] < DEAD_SECONDS:
                continue
            rack = order["name"].partition("-")[0]
            others = self.spans("root", f"{rack}-leader1", f"{rack}-leader2")
            others += [span for span in self.spans(order["name"]) if span != (order["at"], order["until"])]
            if any(a < order["at"] + DEAD_SECONDS and b > order["at"] - QUIET_SECONDS for a, b in others):
                continue
            deaths = [event.at_wall_ns / 1e9 for event in self._of(Kind.NODE_DEAD, order["name"])]
            if not any(order["at"] - 0.1 <= at <= order["at"] + DEAD_SECONDS for at in deaths):
                yield f"dead: {order['name']} was killed at {order['at']:.3f} and is not DEAD {DEAD_SECONDS} s later"

    def _of(self, kind: Kind, name: str = "") -> list[Event]:
        return [
            event
            for event in self.events
            if event.kind is kind and not event.late and (not name or _process(event.node) == name)
        ]

    def _kept(self) -> Iterator[str]:
        decided: collections.Counter[tuple[str, str]] = collections.Counter()
        for log in (self.directory / "log").glob("*-leader*.log"):
            #: Nodes that this leader alone does not hear: to the root they live all the while.
            cut: dict[str, bool] = {}
            for line in log.read_text().splitlines():
                if not any(word in line for word in _DECIDED):
                    continue
                words = line.split()
                node, kind, cause = words[4].removeprefix("node="), words[3], words[-1].removeprefix("cause=")
                before, cut[node] = cut.get(node, False), cause == "link-cut"
                if not cut[node] and not (before and kind == "node-recovered"):
                    decided[node, kind] += 1
        stored = collections.Counter((event.node, event.kind.value) for event in self.events if event.node)
        for (node, kind), count in (decided - stored).items():
            yield f"kept: {count} {kind} of {node} that a leader decided are no events"
        yield from (f"kept: {problem}" for problem in self.ledger)
        yield from (f"kept: {run_id} waits, and nothing goes on any more" for run_id in self.waiting)

    def _twice(self) -> Iterator[str]:
        runs = collections.Counter(row["event_id"] for row in self.told)
        known = {event.event_id for event in self.events}
        yield from (f"twice: {event_id} was told, and is no event" for event_id in runs if event_id not in known)
        kills = len(self.spans("root", what=("kill",)))
        again = sum(count - 1 for count in runs.values())
        if again > CONCURRENCY * kills:
            yield f"twice: {again} runs were told again in {kills} kills of the root"
        for event_id in [event_id for event_id, count in runs.items() if count > 1]:
            documents = [{**row, "attempt": 0} for row in self.told if row["event_id"] == event_id]
            if any(document != documents[0] for document in documents):
                yield f"twice: {event_id} is the name of two things"

    def _bounded(self) -> Iterator[str]:
        for order in self.orders:
            if order["what"] == "watch":
                limit = RSS_MAX[_role(order["name"])]
                if order["rss"] > limit:
                    yield f"bounded: {order['name']} has {order['rss'] / 2**20:.0f} MiB at {order['at']:.3f}"
                if order["ended"] is not None:
                    yield f"bounded: {order['name']} ended by itself with {order['ended']}"
        for log in (self.directory / "log").glob("*.log"):
            defects = [line for line in log.read_text(errors="replace").splitlines() if "defect" in line]
            yield from (f"bounded: {log.stem} met a {line}" for line in defects[:3])


def _process(node: str) -> str:
    """ "rack1-node1" of "demo/rack1/node1"."""
    return node.removeprefix("demo/").replace("/", "-")


def _role(name: str) -> str:
    return "root" if name == "root" else "leader" if "-leader" in name else "agent"


def main() -> int:
    """Entry point of the process."""
    soak = Soak(Path(sys.argv[1]))
    found: list[Any] = list(soak.complaints())
    for line in found:
        print(line)
    done = collections.Counter(order["what"] for order in soak.orders)
    print(f"{dict(done)}: {len(soak.events)} events, {len(soak.told)} told", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
