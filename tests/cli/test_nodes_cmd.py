"""`hbagent nodes`: one line a node, and again for each that changed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hbagent.cli import main
from hbagent.cli.nodes_cmd import add_arguments, in_order, watch
from hbagent.cli.query import Asker, Target
from hbagent.core.units import SECOND
from tests.cli.answering import LEADER1, LEADER2, RACK1, RACK2, Daemon, calm_root, dying, node_row, summary

NODES = [f"{rack}/{node}" for rack in (RACK1, RACK2) for node in ("node1", "node2")]


@pytest.fixture
def daemon(socket_dir: Path) -> Iterator[Daemon]:
    with Daemon(calm_root(), socket_dir, 100 * SECOND) as running:
        yield running


def nodes(daemon: Daemon, *options: str) -> int:
    return main(["nodes", "--socket", daemon.endpoint, *options])


def test_each_node_has_one_line(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert nodes(daemon) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["NODE", "LIVENESS", "HEALTH", "CAUSE", "AGE", "SINCE"]
    assert lines[1] == [NODES[0], "✓", "ALIVE", "✓", "OK", "-", "250ms", "12:00:04Z"]
    assert [line[0] for line in lines[1:]] == NODES


def test_a_dead_node_does_not_change_the_exit_code_of_a_list(daemon: Daemon) -> None:
    daemon.tell(LEADER1, dying())
    assert nodes(daemon) == 0


def test_filters_and_forms(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.tell(LEADER1, dying())
    assert nodes(daemon, "--state", "dead", "-o", "name") == 0
    assert capsys.readouterr().out.splitlines() == NODES[:1]
    assert nodes(daemon, "--rack", "rack2", "-o", "jsonl") == 0
    assert [json.loads(line)["node"] for line in capsys.readouterr().out.splitlines()] == NODES[2:]
    assert nodes(daemon, "-o", "json", "--state", "DEAD") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], [node["cause"] for node in document["nodes"]]) == (1, ["silence"])
    assert nodes(daemon, "--no-headers", "--state", "DEAD") == 0
    assert capsys.readouterr().out.startswith(f"{RACK1}/node1  ✗ DEAD")
    assert nodes(daemon, "-o", "wide") == 0
    assert "cpu 12.5%, load 0.4" in capsys.readouterr().out


def test_a_selection_without_nodes_is_an_empty_list_and_no_error(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nodes(daemon, "--state", "LEFT", "-o", "name") == 0
    assert capsys.readouterr().out == ""


def test_a_list_can_be_sorted(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.tell(LEADER2, dying(rack=RACK2))
    for sort, first in (("rack", NODES[0]), ("name", NODES[0]), ("worst", NODES[2]), ("since", NODES[2])):
        assert nodes(daemon, "--sort", sort, "-o", "name") == 0
        assert capsys.readouterr().out.split()[0] == first
    assert nodes(daemon, "--sort", "colour") == 64


def test_who_was_never_heard_is_the_oldest(daemon: Daemon) -> None:
    told: list[dict[str, Any]] = [
        {"node": "a", "age_s": 1.0},
        {"node": "b", "age_s": None},
        {"node": "c", "age_s": 9.0},
    ]
    assert [node["node"] for node in in_order("age", told, {})] == ["b", "c", "a"]


def test_plain_is_ascii_alone(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert nodes(daemon, "--plain", "--color", "always") == 0
    out = capsys.readouterr().out
    assert "+ ALIVE" in out and out.isascii() and "\x1b" not in out


def test_a_list_of_old_words_says_so(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.now += 7 * SECOND
    assert nodes(daemon) == 0
    assert capsys.readouterr().err == "hbagent: data at most 7.0s old (STALE)\n"


def test_a_watch_says_when_the_data_gets_old_and_when_it_is_new_again(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)

    def ticks() -> Iterator[None]:
        yield
        daemon.now += 7 * SECOND
        yield
        yield
        for rack, leader in ((RACK1, LEADER1), (RACK2, LEADER2)):
            daemon.tell(leader, summary(rack, *(node_row(node, version=9) for node in ("node1", "node2")), newest=2))
        yield

    with Asker(Target(endpoint=daemon.endpoint), 5 * SECOND) as asker:
        assert watch(parser.parse_args(["--watch", "-o", "name"]), asker, ticks()) == 0
    assert capsys.readouterr().err.splitlines() == [
        "hbagent: data at most 7.0s old (STALE)",
        "hbagent: data at most 0ms old again",
    ]


def watched(daemon: Daemon, *options: str) -> None:
    """Watch for three ticks; before the second one node dies."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--watch", *options])

    def ticks() -> Iterator[None]:
        yield
        daemon.tell(LEADER1, dying())
        yield
        yield

    with Asker(Target(endpoint=daemon.endpoint), 5 * SECOND) as asker:
        assert watch(args, asker, ticks()) == 0


def test_a_watch_appends_what_changed_and_nothing_else(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    watched(daemon)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["NODE", *NODES, NODES[0]]
    assert lines[-1].startswith(f"{NODES[0]}  ✗ DEAD")


def test_a_watch_for_programs_is_a_stream_of_objects(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    watched(daemon, "-o", "jsonl")
    seen = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [node["node"] for node in seen] == [*NODES, NODES[0]]
    assert seen[-1]["liveness"] == "DEAD"


def test_a_watch_of_a_state_tells_of_a_node_that_comes_into_it(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    watched(daemon, "-o", "name", "--state", "DEAD")
    assert capsys.readouterr().out.splitlines() == NODES[:1]


def test_a_watch_is_no_single_document(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert nodes(daemon, "--watch", "-o", "json") == 64
    assert "use -o jsonl" in capsys.readouterr().err
