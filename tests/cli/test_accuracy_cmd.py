"""`hbagent accuracy`: the book of verdicts, asked of a root."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from hbagent.cli import main
from hbagent.cli.accuracy_cmd import accuracy_lines
from hbagent.cli.grid import Screen
from hbagent.core.messages import Transitions
from hbagent.core.states import Cause, Kind, Liveness
from hbagent.core.units import SECOND
from tests.cli.answering import LEADER1, RACK1, Daemon, calm_root, change, dying, leader_core

NODE1 = f"{RACK1}/node1"


def back(reason: str = "its loop stood still for 2.1s") -> Transitions:
    """node1 is heard again in the same life, and says why it was silent."""
    recovered = change(NODE1, 5, Liveness.DEAD, Liveness.ALIVE, None, "a beat", at_s=103)
    accounted = msgspec.structs.replace(
        change(NODE1, 6, Liveness.ALIVE, Liveness.ALIVE, None, reason, at_s=103.5), kind=Kind.NODE_ACCOUNTED
    )
    return Transitions(epoch=1, base=5, after=4, items=(recovered, accounted))


def accuracy(daemon: Daemon, *options: str) -> int:
    return main(["accuracy", "--socket", daemon.endpoint, *options])


def test_a_death_that_was_none_is_counted_as_wrong_with_its_reason(
    socket_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Daemon(calm_root(), socket_dir, 100 * SECOND) as daemon:
        daemon.tell(LEADER1, dying())
        assert accuracy(daemon, "-o", "json") == 0
        before = json.loads(capsys.readouterr().out)
        daemon.tell(LEADER1, back())
        assert accuracy(daemon, "-o", "json") == 0
        after = json.loads(capsys.readouterr().out)
        assert accuracy(daemon) == 0
    assert before["all"] == {
        "cause": "all",
        "verdicts": 1,
        "wrong": 0,
        "false_positives_per_node_year": None,
        "detection_p50_ms": 2500.0,
        "detection_p99_ms": 2500.0,
    }
    assert (before["schema"], before["mistakes"], before["kept"]) == (1, [], 1)
    (silence,) = after["causes"]
    assert (silence["cause"], silence["verdicts"], silence["wrong"]) == (Cause.SILENCE.value, 1, 1)
    (mistake,) = after["mistakes"]
    assert (mistake["node"], mistake["reason"]) == (NODE1, "its loop stood still for 2.1s")
    assert (mistake["at"], mistake["back_after_s"]) == ("2026-11-21T12:01:42.250Z", 4.0)
    out = capsys.readouterr().out
    assert "Called dead, and back in the same life" in out
    assert "its loop stood still for 2.1s" in out


def test_the_table_has_a_line_for_each_cause_and_one_for_all() -> None:
    one = {"cause": "host-gone", "verdicts": 40, "wrong": 1, "false_positives_per_node_year": 0.25}
    document = {
        "node_years": 4.0,
        "node_hours": 35063.0,
        "since": "2026-11-20T12:00:00.000Z",
        "at": "2026-11-21T12:00:00.000Z",
        "causes": [{**one, "detection_p50_ms": 1512.25, "detection_p99_ms": 1689.0}],
        "all": {**one, "cause": "all", "detection_p50_ms": None},
    }
    assert accuracy_lines(document, Screen()) == [
        "living nodes were watched for 35063.0 node-hours (4.0000 node-years) in 1d00h, since 2026-11-20T12:00:00.000Z",
        "",
        "CAUSE      DEAD  WRONG  WRONG/NODE-YEAR       P50       P99",
        "host-gone    40      1             0.25  1512.2ms  1689.0ms",
        "all          40      1             0.25         -         -",
        "",
        "P50, P99: from the last proof of life to the verdict, of verdicts that were right",
    ]


def test_a_rate_is_told_only_once_a_node_day_was_watched() -> None:
    one = {"cause": "all", "verdicts": 1, "wrong": 1, "false_positives_per_node_year": 365.25}

    def shown(hours: float) -> list[str]:
        return accuracy_lines({"node_hours": hours, "all": one}, Screen())

    assert shown(23.9)[3].split() == ["all", "1", "1", "-", "-", "-"]
    assert shown(23.9)[-1] == "WRONG/NODE-YEAR: told once 24 node-hours were watched"
    assert shown(24.0)[3].split() == ["all", "1", "1", "365.2", "-", "-"]
    assert "WRONG/NODE-YEAR:" not in "\n".join(shown(24.0))


def test_nothing_that_was_sent_reaches_the_terminal_as_a_command() -> None:
    bad = "x\x1b[31m\x07\r\n\u202e"
    mistake = dict.fromkeys(("node", "cause", "at", "reason"), bad)
    lines = accuracy_lines({"causes": [{"cause": bad}], "mistakes": [mistake], "since": bad}, Screen(width=80))
    assert [line for line in lines if not line.isprintable()] == []


def test_a_leader_keeps_no_such_book(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(leader_core(), socket_dir, 3 * SECOND) as leader:
        assert accuracy(leader) != 0
    assert "ask the root" in capsys.readouterr().err
