"""`hbagent forget NODE`: a node that is gone for good."""

from __future__ import annotations

import json

import pytest

from hbagent.cli import main
from tests.cli.answering import LEADER1, RACK1, RACK2, Daemon, dying


def call(daemon: Daemon, *words: str) -> int:
    return main([*words, "--socket", daemon.endpoint])


def test_a_node_that_was_forgotten_is_in_no_list(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    paging.tell(LEADER1, dying())
    assert call(paging, "forget", f"{RACK1}/node1", "--reason", "scrapped") == 0
    assert capsys.readouterr().out == f"forgotten: {RACK1}/node1\n"
    assert call(paging, "nodes", "-o", "name") == 0
    assert capsys.readouterr().out.splitlines() == [f"{RACK1}/node2", f"{RACK2}/node1", f"{RACK2}/node2"]
    assert call(paging, "incidents") == 0
    assert capsys.readouterr().out == "nothing burns\n"


def test_json_names_it_and_what_could_be_two_is_neither(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    paging.tell(LEADER1, dying())
    assert call(paging, "forget", "node1") == 64
    assert f"could be {RACK1}/node1, {RACK2}/node1" in capsys.readouterr().err
    assert call(paging, "forget", f"{RACK1}/node1", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "forgotten": f"{RACK1}/node1"}


def test_what_is_not_known_cannot_be_forgotten(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(paging, "forget", f"{RACK1}/node9") == 64
    assert "node9" in capsys.readouterr().err
