"""`hbagent maintenance`: a silence that says that it is planned."""

from __future__ import annotations

import json

import pytest

from hbagent.cli import main
from tests.cli.answering import Daemon


def maintenance(daemon: Daemon, *words: str) -> int:
    return main(["maintenance", "--socket", daemon.endpoint, *words])


def test_it_is_called_so_and_takes_the_words_of_a_silence(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    every = ("--every", "sun 02:00", "--for", "3h", "--until", "2027-06-30", "--reason", "weekly reboot")
    assert maintenance(paging, "node", "web*", *every) == 0
    out = capsys.readouterr().out
    assert out.startswith("maintenance s1 on node web* until 2027-06-30 00:00Z, sun 02:00 for 3h00m, next ")
    assert maintenance(paging, "rack", "r1", "--for", "1h", "--reason", "x", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["silence"]["maintenance"] is True


def test_it_too_has_a_reason_and_an_end(paging: Daemon) -> None:
    assert maintenance(paging, "rack", "r1", "--for", "1h") == 64
    assert maintenance(paging, "rack", "r1", "--reason", "x") == 64
