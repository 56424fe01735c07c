"""`hbagent why-silent`: why was I not told?"""

from __future__ import annotations

import json

import pytest

from hbagent.cli import main
from hbagent.core.messages import Transitions
from hbagent.core.states import Liveness
from tests.cli.answering import LEADER1, RACK1, Daemon, change, dying

NODE = f"{RACK1}/node1"


def call(daemon: Daemon, *words: str) -> int:
    return main([*words, "--socket", daemon.endpoint])


@pytest.fixture
def silenced(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> Daemon:
    """A node that died under a silence."""
    assert call(paging, "silence", "rack", "rack1", "--for", "2h", "--reason", "new switch") == 0
    paging.tell(LEADER1, dying())
    capsys.readouterr()
    return paging


def test_the_reason_is_told_with_the_silence_its_author_and_why(
    silenced: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(silenced, "why-silent", NODE) == 0
    now, _, unsent = capsys.readouterr().out.partition("\n\n")
    assert f"{NODE} burns (node-dead silence i" in now
    assert "nobody was told" in now
    assert "covered by silence s1 on rack rack1 until" in now
    assert "node-dead to page not sent: silence s1 covered it\n" in unsent
    assert "by tester (uid 1000): new switch\n" in unsent
    assert "it would have said: no beat for 2.5s" in unsent


def test_an_incident_tells_of_each_of_its_nodes(silenced: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(silenced, "incidents", "-o", "name") == 0
    incident = capsys.readouterr().out.strip()
    assert call(silenced, "why-silent", incident) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{incident}, now\n")
    assert f"node-dead of {NODE} to page not sent: silence s1 covered it" in out


def test_the_end_of_what_nobody_was_told_of_has_its_reason_too(
    silenced: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    back = change(NODE, 5, Liveness.DEAD, Liveness.ALIVE, None, "a beat", at_s=101)
    silenced.tell(LEADER1, Transitions(epoch=1, base=1, after=4, items=(back,)))
    assert call(silenced, "why-silent", NODE, "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["burning"] == []
    assert [each["silence"] for each in document["covered_by"]] == ["s1"]
    found = {each["kind"]: (each["receiver"], each["state"], each["reason"]) for each in document["unsent"]}
    assert found["node-recovered"] == ("page", "suppressed", "never-told")
    assert found["node-dead"][:2] == ("page", "suppressed")
    assert call(silenced, "why-silent", NODE) == 0
    assert "it is the end of something that page was never told of" in capsys.readouterr().out


def test_a_rack_can_be_asked_about_and_has_its_own_ledger(silenced: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(silenced, "why-silent", RACK1) == 0
    assert capsys.readouterr().out.endswith("Not sent, newest first\n  nothing was kept back\n")


@pytest.mark.parametrize("about", [f"{RACK1}/node9", "node1", "../etc", "a b", "i999", "dc1/rack999"])
def test_what_is_not_known_is_64(about: str, silenced: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(silenced, "why-silent", about) == 64
    assert capsys.readouterr().err
