"""What was done, against what the root says of it: eight faults, many times each, on hosts of their own.

Two racks are hurt side by side, to be done sooner. What happens to a whole rack happens to one rack at a time: a root
that loses all its racks at once rightly takes itself for the one that is cut off.
"""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hbagent.demo.datacenter import Plan, wait_until
from tests.conftest import Figures
from tests.e2e.conftest import BuildLab
from tests.e2e.lab import FAULTS, NEEDS, Fault, Lab, Where

#: Of each fault, over both racks.
RUNS = int(os.environ.get("HBAGENT_RUNS", "2"))
#: A verdict counts once it has stood for so long: longer than any that is only passed through.
STANDS_SECONDS = 1.2
#: Against hanging: a lease lapses after 2.5 s and everything else is sooner.
VERDICT_SECONDS = 12.0
#: Of the runs of each fault: one that is never recognised must not hide behind seven that always are.
SHARE = 0.99

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("proved"), pytest.mark.timeout(120 + 60 * RUNS), *NEEDS]

PLAN = Plan(
    racks=2,
    nodes=5,
    interval="200ms",
    root_lines=('lease = "2500ms"',),
)

Verdict = tuple[str, str | None]


@pytest.fixture(scope="module")
def lab(build_lab: BuildLab) -> Lab:
    made = build_lab(PLAN)
    made.wake_up()
    return made


class Trial:
    """Runs faults and keeps what was said of them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        #: By fault: how often each verdict was given.
        self.said: dict[str, collections.Counter[str]] = {fault.name: collections.Counter() for fault in FAULTS}
        #: Living nodes that were called dead, with the fault that it was said in, and dead ones called alive.
        self.wronged: list[str] = []
        #: What led to a verdict that was not expected.
        self.stories: list[str] = []
        self._one_rack = threading.Lock()

    def rack(self, rack: str, rounds: range) -> None:
        """Run each fault once a round on one rack."""
        for round_ in rounds:
            for number, fault in enumerate(FAULTS):
                nodes = self.lab.nodes_of(rack)
                where = Where(self.lab, rack, nodes[(round_ * len(FAULTS) + number) % len(nodes)])
                if fault.whole_rack:
                    with self._one_rack:
                        self._run(fault, where)
                else:
                    self._run(fault, where)

    def _run(self, fault: Fault, where: Where) -> None:
        mark = self.lab.newest()
        fault.begin(where)
        try:
            verdict = self._standing(fault, where)
            if verdict != fault.verdict:
                self.stories += self._story(fault, where, verdict)
        finally:
            fault.end(where)
        healed = wait_until(lambda: self.lab.rack_calm(where.rack), 60.0)
        assert healed, f"{where.rack} is not well after {fault.name} of {where.node}: {self.lab.states()}"
        self.said[fault.name][words(verdict)] += 1
        self.lab.prove(racks=(where.rack,))
        if fault.name == "process-exit":
            self.wronged += [
                f"{row['node']} was revived after it had ended"
                for row in self.lab.events(mark, "node-recovered")
                if row["node"] == self.lab.nodes[where.node]
            ]
        dead = {self.lab.nodes[where.node]} if fault.fatal else set()
        self.wronged += [
            f"{row['node']} {row['cause']} in {fault.name} of {where.node}"
            for row in self.lab.events(mark, "node-dead")
            if row["rack"] == f"demo/{where.rack}" and row["node"] not in dead
        ]

    def _story(self, fault: Fault, where: Where, verdict: Verdict) -> Iterator[str]:
        """How the leader came to what it says of the node."""
        yield f"{fault.name} of {where.node} was called {words(verdict)}"
        answer = self.lab.ask("explain", where.leader, node=self.lab.nodes[where.node]) or {"story": []}
        for told in answer["story"][:2]:
            yield f"  {told['kind']} {told['cause']}: {told['evidence'].get('text')}"
            steps = told["evidence"].get("steps", [])
            yield from (f"    {step}" for step in steps)

    def _standing(self, fault: Fault, where: Where) -> Verdict:
        """The verdict that stands. Another than the right one has all the time to become it: one that is only passed
        through stands for longer where somebody has no processor."""
        until = time.monotonic() + VERDICT_SECONDS
        verdict: Verdict = ("ALIVE", None)
        since = time.monotonic()
        while time.monotonic() < until:
            now = self._verdict(fault, where)
            if now != verdict:
                verdict, since = now, time.monotonic()
            elif verdict == fault.verdict and time.monotonic() - since >= STANDS_SECONDS:
                break
            time.sleep(0.05)
        return verdict

    def _verdict(self, fault: Fault, where: Where) -> Verdict:
        states = self.lab.states()
        if not fault.whole_rack:
            return states.get(self.lab.nodes[where.node], ("", None))
        found = {states.get(self.lab.nodes[name], ("", None)) for name in where.nodes}
        return found.pop() if len(found) == 1 else ("mixed", ", ".join(sorted(words(each) for each in found)))

    def table(self) -> Iterator[str]:
        """The matrix: faults down, verdicts across."""
        columns = list(dict.fromkeys([words(fault.verdict) for fault in FAULTS]))
        columns += sorted({word for said in self.said.values() for word in said if word not in columns})
        letters = [chr(ord("A") + number) for number in range(len(columns))]
        yield ", ".join(f"{letter} {column}" for letter, column in zip(letters, columns, strict=True))
        yield f"{'':<17}" + "".join(f"{letter:>4}" for letter in letters)
        for fault in FAULTS:
            yield f"{fault.name:<17}" + "".join(f"{self.said[fault.name][column] or '.':>4}" for column in columns)


def words(verdict: Verdict) -> str:
    return f"{verdict[0]}({verdict[1]})" if verdict[1] else verdict[0]


def test_each_fault_is_called_by_its_name_and_no_living_node_dead(lab: Lab, figures: Figures) -> None:
    trial = Trial(lab)
    half = (RUNS + 1) // 2
    begun = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        halves = [
            pool.submit(trial.rack, "rack1", range(half)),
            pool.submit(trial.rack, "rack2", range(half, RUNS)),
        ]
    for line in trial.table():
        figures("causes", line)
    for line in trial.stories:
        print(line)
    for done in halves:
        done.result()
    right = {fault.name: trial.said[fault.name][words(fault.verdict)] for fault in FAULTS}
    figures(
        "causes",
        f"{sum(right.values())} of {RUNS * len(FAULTS)} right, {len(trial.wronged)} living called dead, "
        f"{time.monotonic() - begun:.0f} s",
    )
    assert trial.wronged == []
    assert {name: count for name, count in right.items() if count < SHARE * RUNS} == {}, f"of {RUNS} runs each"
