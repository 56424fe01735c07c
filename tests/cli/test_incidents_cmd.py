"""`hbagent incidents` and `hbagent ack`: what burns, and who looks after it."""

from __future__ import annotations

import json

import pytest

from hbagent.cli import main
from hbagent.core.messages import Transitions
from hbagent.core.states import Cause, Liveness
from tests.cli.answering import LEADER1, RACK1, Daemon, change, dying


def call(daemon: Daemon, *words: str) -> int:
    return main([*words, "--socket", daemon.endpoint])


@pytest.fixture
def burning(paging: Daemon) -> Daemon:
    """node1 of the first rack is dead."""
    paging.tell(LEADER1, dying())
    return paging


def name(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> str:
    assert call(daemon, "incidents", "-o", "name") == 0
    return capsys.readouterr().out.strip()


def recover(daemon: Daemon) -> None:
    back = change(f"{RACK1}/node1", 5, Liveness.DEAD, Liveness.ALIVE, None, "a beat", at_s=101)
    daemon.tell(LEADER1, Transitions(epoch=1, base=1, after=4, items=(back,)))


def test_each_has_a_line_with_how_much_burns_and_why(burning: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(burning, "incidents") == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["INCIDENT", "STATE", "ABOUT", "CAUSE", "BURNING", "AGE", "NOTE"]
    assert line.split()[1:7] == ["✗", "firing", RACK1, "liveness", "silence", "1/1"]
    assert call(burning, "incidents", "-o", "wide") == 0
    assert f"{RACK1}/node1  no beat for 2.5s" in capsys.readouterr().out


def test_one_that_is_over_is_shown_with_all_alone(burning: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    incident = name(burning, capsys)
    recover(burning)
    assert call(burning, "incidents") == 0
    assert capsys.readouterr().out == "nothing burns\n"
    assert call(burning, "incidents", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "incidents": []}
    assert call(burning, "incidents", "--all", "-o", "jsonl") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["incident"], each["state"], each["burning"]) for each in found] == [(incident, "resolved", 0)]


def test_whoever_looks_after_it_is_named_with_what_they_said(
    burning: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    incident = name(burning, capsys)
    assert call(burning, "ack", incident, "--reason", "new disk is coming") == 0
    out = capsys.readouterr().out
    assert out == f"{incident} is acknowledged: 1 burning of {RACK1} (silence): {RACK1}/node1\n"
    assert call(burning, "incidents") == 0
    out = capsys.readouterr().out
    assert "! acknowledged" in out
    assert "by tester (uid 1000): new disk is coming" in out
    assert call(burning, "ack", incident, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["incident"]["state"] == "acknowledged"


@pytest.mark.parametrize(
    ("word", "complaint"), [("i999", "no incident 'i999' is open"), ("s1", "is no incident as in")]
)
def test_what_is_no_incident_cannot_be_acknowledged(
    word: str, complaint: str, burning: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(burning, "ack", word) == 64
    assert complaint in capsys.readouterr().err


def test_status_shows_what_burns_after_its_verdict(burning: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    incident = name(burning, capsys)
    assert call(burning, "status") == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith("INCIDENT")
    assert lines[4].startswith(f"{incident} ")
    assert lines[6].startswith("RACK")
    assert Cause.SILENCE.value in lines[4]
