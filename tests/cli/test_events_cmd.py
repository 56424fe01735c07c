"""`hbagent events`: what happened, oldest first, from a real history."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.cli import main
from hbagent.cli.events_cmd import add_arguments, follow
from hbagent.cli.query import Asker, Target
from hbagent.core.units import SECOND
from hbagent.store.sqlite import SqliteHistory
from tests.cli.answering import LEADER1, RACK1, Daemon, calm_root, dying, leader_core

NOW = 100 * SECOND
JOINS = ["node-joined"] * 4
DEATH = ["node-suspect", "node-dead"]


@pytest.fixture
def daemon(socket_dir: Path, tmp_path: Path) -> Iterator[Daemon]:
    """A root whose four nodes have joined."""
    history = SqliteHistory(tmp_path / "history.sqlite")
    history.restore()
    with Daemon(calm_root(NOW, history), socket_dir, NOW, history) as running:
        yield running
    history.close()


def events(daemon: Daemon, *options: str) -> int:
    return main(["events", "--socket", daemon.endpoint, *options])


def test_the_newest_comes_last_with_its_cause_and_reason(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.tell(LEADER1, dying())
    assert events(daemon) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["KIND", *JOINS, *DEATH]
    assert lines[-1].startswith("2026-11-21T12:01:42.250Z  node-dead ")
    assert lines[-1].endswith(f"{RACK1}/node1  SUSPECT → DEAD   silence  no beat for 2.5s")


def test_a_limit_keeps_the_newest_and_a_node_its_own(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.tell(LEADER1, dying())
    assert events(daemon, "-o", "jsonl", "--limit", "1") == 0
    assert kinds(capsys) == ["node-dead"]
    assert events(daemon, "-o", "jsonl", "--node", f"{RACK1}/node2") == 0
    assert kinds(capsys) == ["node-joined"]


def test_an_event_has_the_form_of_a_hooks_input(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.tell(LEADER1, dying())
    assert events(daemon, "-o", "json", "--limit", "1") == 0
    document = json.loads(capsys.readouterr().out)
    (event,) = document["events"]
    assert document["schema"] == 1
    assert event["at"] == "2026-11-21T12:01:42.250Z"
    assert event["liveness"] == {"from": "SUSPECT", "to": "DEAD"}
    assert (event["node"], event["cause"], event["evidence"]["silent_ns"]) == (f"{RACK1}/node1", "silence", 2500000000)


def test_follow_goes_on_with_what_is_new(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--follow", "-o", "jsonl", "--limit", "1"])

    def ticks() -> Iterator[None]:
        yield
        yield
        daemon.tell(LEADER1, dying())
        yield
        yield

    with Asker(Target(endpoint=daemon.endpoint), 5 * SECOND) as asker:
        assert follow(args, asker, ticks()) == 0
    assert kinds(capsys) == [*JOINS[:1], *DEATH]


@pytest.mark.parametrize(
    "options", [["--limit", "0"], ["--limit", "10001"], ["--limit", "-1"], ["--node", "node1"], ["-f", "-o", "json"]]
)
def test_a_wrong_call_is_64(daemon: Daemon, options: list[str]) -> None:
    assert events(daemon, *options) == 64


def test_a_leader_keeps_no_events_and_says_so(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(leader_core(), socket_dir, 3 * SECOND) as leader:
        assert events(leader) == 64
    assert "a leader cannot answer 'events'; ask the root" in capsys.readouterr().err


def kinds(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()]
