"""`hbagent evidence`: from a console through a leader to a node and back, and why there is nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.cli import main
from hbagent.cli.evidence_cmd import TIMEOUT_NS
from hbagent.core.bundles import BUNDLE_TIME_NS
from hbagent.core.units import SECOND
from tests.cli.answering import RACK1, Daemon, leader_core
from tests.cli.test_render import evidence

NODE1 = f"{RACK1}/node1"
NODE2 = f"{RACK1}/node2"


@pytest.fixture
def leader(socket_dir: Path) -> Iterator[Daemon]:
    """A leader that hears the first of its two nodes."""
    with Daemon(leader_core(), socket_dir, 3 * SECOND) as running:
        yield running


def fetch(leader: Daemon, *words: str) -> int:
    return main(["evidence", "--socket", leader.endpoint, *words])


def test_a_bundle_is_shown_as_text_and_as_json(leader: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = evidence()["bundle"]
    leader.bundles[NODE1] = json.dumps(bundle).encode()
    assert fetch(leader, "node1", "--app", "billing") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"app billing on {NODE1}: ✗ DEADLOCKED"
    assert fetch(leader, NODE1, "--bundle", "000017-billing-1f3a9c02d4e5b678", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["node"], document["bundle"]) == (1, NODE1, bundle)
    assert [(wanted.node, wanted.app, wanted.bundle) for wanted in leader.wanted] == [
        (NODE1, "billing", ""),
        (NODE1, "", "000017-billing-1f3a9c02d4e5b678"),
    ]


def test_why_there_is_nothing_is_said_in_a_line(leader: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    leader.bundles[NODE1] = b""
    assert fetch(leader, NODE1, "--app", "web") == 64
    assert capsys.readouterr().err == f"hbagent: {NODE1}: no bundle about web\n"
    assert fetch(leader, NODE2) == 64
    assert capsys.readouterr().err == f"hbagent: {NODE2} is UNKNOWN: it cannot be asked\n"
    leader.bundles[NODE1] = b'["\\u001b[31m"]'
    assert fetch(leader, NODE1) == 64
    assert capsys.readouterr().err == f"hbagent: what {NODE1} sent is no JSON object\n"


def test_nobody_waits_for_ever(leader: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(leader, NODE1, "--timeout", "50ms") == 3
    assert "nobody answers within 50ms" in capsys.readouterr().err


def test_the_daemon_gives_up_before_its_console_does() -> None:
    assert TIMEOUT_NS > BUNDLE_TIME_NS


@pytest.mark.parametrize("words", [[], ["a/b"], [NODE1, "-o", "wide"]])
def test_a_wrong_call_is_64(leader: Daemon, words: list[str]) -> None:
    assert fetch(leader, *words) == 64


def test_what_is_no_name_of_an_application_is_refused_before_anybody_is_asked(leader: Daemon) -> None:
    assert fetch(leader, NODE1, "--app", "a" * 300, "--timeout", "50ms") == 3
    assert leader.wanted == []
