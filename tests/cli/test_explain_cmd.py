"""`hbagent explain`: the reasons for a state, from a root and from a leader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.cli import main
from hbagent.core.units import SECOND
from hbagent.store.sqlite import SqliteHistory
from tests.cli.answering import LEADER1, RACK1, Daemon, calm_root, dying, leader_core

NOW = 100 * SECOND
NODE1 = f"{RACK1}/node1"


@pytest.fixture
def daemon(socket_dir: Path, tmp_path: Path) -> Iterator[Daemon]:
    """A root at which a node has died."""
    history = SqliteHistory(tmp_path / "history.sqlite")
    history.restore()
    with Daemon(calm_root(NOW, history), socket_dir, NOW, history) as running:
        running.tell(LEADER1, dying())
        yield running
    history.close()


def explain(daemon: Daemon, *words: str) -> int:
    return main(["explain", "--socket", daemon.endpoint, *words])


def test_a_death_is_explained_with_observer_deadline_and_events(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(daemon, NODE1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{NODE1} is ✗ DEAD (silence) since 2026-11-21T12:01:42.250Z")
    assert f"  {LEADER1}: ✗ DEAD (silence), heard it 2.5s ago" in lines
    assert f"  2026-11-21T12:01:42.250Z  node-dead  SUSPECT → DEAD (silence), told by {LEADER1}" in lines
    numbers = "silent 2.5s, a beat due every 1.0s, allowed 150ms late, newest beat 40, detector adaptive"
    assert f"    {numbers}" in lines
    assert max(map(len, lines)) <= 120


def test_json_has_node_story_and_events(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(daemon, NODE1, "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["node"]["liveness"] == "DEAD"
    assert document["story"][0]["cause"] == "silence"
    assert [event["kind"] for event in document["events"]] == ["node-dead", "node-suspect", "node-joined"]
    assert document["events"][0]["at"] == "2026-11-21T12:01:42.250Z"


def test_a_leader_explains_its_own_nodes(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(leader_core(), socket_dir, 3 * SECOND) as leader:
        leader.pass_time(12 * SECOND)
        assert explain(leader, NODE1) == 0
    out = capsys.readouterr().out
    assert f"{NODE1} is ✗ DEAD (silence)" in out
    assert f"{LEADER1}: SUSPECT → DEAD (silence)" in out
    assert "a beat due every 1.0s" in out


def test_the_last_part_of_a_name_is_enough_when_it_is_unique(
    socket_dir: Path, daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(daemon, "node1") == 64
    assert (
        capsys.readouterr().err == "hbagent: node1 could be demo/rack1/node1, demo/rack2/node1; write the full name\n"
    )
    assert explain(daemon, "nod1") == 64
    assert capsys.readouterr().err == "hbagent: no node 'nod1', did you mean \"node1\"?; see: hbagent nodes\n"


def test_a_short_name_at_a_leader(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(leader_core(), socket_dir, 3 * SECOND) as leader:
        assert explain(leader, "node2") == 0
    assert capsys.readouterr().out.startswith(f"{RACK1}/node2 is ? UNKNOWN (never-seen)")


@pytest.mark.parametrize("name", [f"{RACK1}/node9", "a/b", "x\x1b[2J", ""])
def test_a_name_that_is_none_is_64(daemon: Daemon, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(daemon, name) == 64
    assert "\x1b" not in capsys.readouterr().err
