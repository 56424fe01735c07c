"""`hbagent silences` and `hbagent unsilence`: what nobody is told of, and its end."""

from __future__ import annotations

import json

import pytest

from hbagent.cli import main
from tests.cli.answering import LEADER1, Daemon, dying


def call(daemon: Daemon, *words: str) -> int:
    return main([*words, "--socket", daemon.endpoint])


@pytest.fixture
def silenced(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> Daemon:
    """One silence that covers a dead node, and a maintenance that has not begun."""
    paging.tell(LEADER1, dying())
    assert call(paging, "silence", "rack", "rack1", "--for", "2h", "--reason", "new switch") == 0
    begin = ("--begin", "2026-12-01", "--until", "2026-12-02", "--reason", "move")
    assert call(paging, "maintenance", "node", "node[12]", *begin) == 0
    capsys.readouterr()
    return paging


def test_each_has_a_line(silenced: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(silenced, "silences") == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["SILENCE", "STATE", "COVERS", "NOW", "UNTIL", "BY", "REASON"]
    found = {line.split()[0]: line for line in lines}
    assert found["s1"].split()[1:6] == ["✓", "active", "rack", "rack1", "1"]
    assert found["s1"].endswith("new switch")
    assert "! pending  node node[12]" in found["s2"]
    assert "2026-12-02 00:00Z, from 2026-12-01 00:00Z" in found["s2"]
    assert found["s2"].endswith("maintenance: move")


def test_one_that_was_ended_is_shown_with_all_alone(silenced: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(silenced, "unsilence", "s1") == 0
    assert capsys.readouterr().out == "ended: silence s1 on rack rack1: new switch\n"
    assert call(silenced, "silences", "-o", "name") == 0
    assert capsys.readouterr().out == "s2\n"
    assert call(silenced, "silences", "--all", "-o", "jsonl") == 0
    ended = {each["silence"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (ended["s1"]["state"], ended["s1"]["ended_by"]) == ("ended", "tester (uid 1000)")
    assert call(silenced, "silences", "--all") == 0
    assert "(ended by tester (uid 1000))" in capsys.readouterr().out


def test_json_has_a_list_and_nothing_is_said_in_words(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(paging, "silences", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "silences": []}
    assert call(paging, "silences") == 0
    assert capsys.readouterr().out == "nothing is silenced\n"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("s9", "no silence 's9' is known"), ("i1", "is no silence as in s3"), ("s1; reboot", "is no silence as in s3")],
)
def test_what_is_no_silence_cannot_be_ended(
    name: str, complaint: str, silenced: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(silenced, "unsilence", name) == 64
    assert complaint in capsys.readouterr().err


def test_nothing_is_ended_twice(silenced: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(silenced, "unsilence", "s1", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["silence"]["state"] == "ended"
    assert call(silenced, "unsilence", "s1") == 64
    assert "s1 has ended already" in capsys.readouterr().err
