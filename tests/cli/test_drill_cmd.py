"""`hbagent drill` waits for the drill that is under way on a node, for a bounded time, and says so."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import pytest

from hbagent.cli import drill_cmd, query
from hbagent.cli.drill_cmd import EXIT_BUSY, WAIT_AGAIN_S, WAIT_S

NODE = "dc1/r1/n1"
BUSY = "another drill is under way, for 7.3s more"
Row = dict[str, Any]


class Clock:
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, length_s: float) -> None:
        self.now += length_s


class Root:
    """A root whose node begins a drill from `free_at` on, and is seen to pass each stage."""

    class Target:
        role = "root"

    def __init__(self, clock: Clock, free_at: float) -> None:
        self.clock, self.free_at = clock, free_at
        self.target = Root.Target()
        self.orders: list[float] = []
        self.app = ""

    def ask(self, what: str, **fields: Any) -> Any:
        if what == "drill":
            self.orders.append(self.clock.now)
            if self.clock.now < self.free_at:
                raise query.Denied(BUSY)
            self.app = fields["app"]
            return {}
        if what == "events":
            change = {"name": self.app, "after": "STALLED"}
            return {"events": [{"kind": "health-changed", "event_id": "e-1", "evidence": {"changes": [change]}}]}
        if what == "runs":
            return {"runs": [{"state": "done", "hook": "page"}]}
        app = {"name": self.app, "state": "stuck", "health": "STALLED", "stall": "PAUSED", "text": "it was stopped"}
        return {"nodes": [{"node": NODE, "liveness": "ALIVE", "apps": [app] if self.app else []}], "racks": []}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(drill_cmd, "time", clock)
    return clock


@pytest.fixture
def drilled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(query, "status", lambda asker, *_: asker.ask("status"))
    monkeypatch.setattr(query, "as_row", lambda asker, answer: answer)

    def run(root: Root, *options: str) -> int:
        parser = argparse.ArgumentParser()
        drill_cmd.add_arguments(parser)
        args = parser.parse_args(["freeze", "--node", NODE, *options])
        monkeypatch.setattr(query, "answered", lambda args, then: then(root))
        return drill_cmd.run(args)

    return run


def test_a_drill_after_another_waits_for_its_end_and_says_so_once(
    clock: Clock, drilled: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    root = Root(clock, free_at=7.3)
    assert drilled(root, "--plain") == 0
    said = capsys.readouterr()
    assert said.out.count("waiting") == 1 and f"waiting: {BUSY}" in said.out
    assert root.orders[-1] <= 7.3 + WAIT_AGAIN_S and len(root.orders) <= 7.3 / WAIT_AGAIN_S + 2
    assert " 0.00 s  ok prober" in said.out, "the time of the wait is no time of the drill"


def test_it_does_not_wait_for_ever(
    clock: Clock, drilled: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    root = Root(clock, free_at=1e9)
    assert drilled(root) == EXIT_BUSY
    assert WAIT_S <= clock.now <= WAIT_S + WAIT_AGAIN_S
    assert capsys.readouterr().out.splitlines()[-1] == f"not tried: {BUSY}; waited {WAIT_S:g} s"


def test_with_no_wait_it_is_busy_at_once(
    clock: Clock, drilled: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    root = Root(clock, free_at=1e9)
    assert drilled(root, "--no-wait") == EXIT_BUSY
    assert len(root.orders) == 1 and clock.now < 0.01, "it slept not at all"
    assert capsys.readouterr().out.splitlines()[-1] == f"not tried: {BUSY}"


def test_a_reader_of_json_gets_one_document_and_the_word_beside_it(
    clock: Clock, drilled: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert drilled(Root(clock, free_at=3), "-o", "json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["ok"] is True
    assert said.err == f"waiting: {BUSY}\n"
