"""`hbagent racks`: one line a rack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hbagent.cli import main
from hbagent.core.units import SECOND
from tests.cli.answering import LEADER1, LEADER2, RACK1, RACK2, Daemon, calm_root, dying


def racks(daemon: Daemon, *options: str) -> int:
    return main(["racks", "--socket", daemon.endpoint, *options])


def test_each_rack_has_a_line_with_its_numbers(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(calm_root(), socket_dir, 100 * SECOND) as daemon:
        daemon.tell(LEADER1, dying())
        assert racks(daemon) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["RACK", "STATE", "ALIVE", "SUSPECT", "DEAD", "LEFT", "UNKNOWN", "LEADERS", "AGE"],
        [RACK1, "!", "DEGRADED", "1", "0", "1", "0", "0", "1/1", "0ms"],
        [RACK2, "✓", "OK", "2", "0", "0", "0", "0", "1/1", "0ms"],
    ]


def test_every_form_tells_the_racks_asked_for(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(calm_root(), socket_dir, 100 * SECOND) as daemon:
        assert racks(daemon, "-o", "name") == 0
        assert capsys.readouterr().out.splitlines() == [RACK1, RACK2]
        assert racks(daemon, "-o", "jsonl", "--rack", "rack2") == 0
        assert [json.loads(line)["rack"] for line in capsys.readouterr().out.splitlines()] == [RACK2]
        assert racks(daemon, "-o", "json", "--rack", RACK1) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["schema"], [rack["leaders"][0]["leader"] for rack in document["racks"]]) == (1, [LEADER1])
        assert racks(daemon, "-o", "wide") == 0
        assert f"{LEADER1} ALIVE 0ms up 1m40s lag 3ms outbox 0" in capsys.readouterr().out
        assert racks(daemon, "--rack", "rack9") == 64


def test_the_worst_comes_first_when_that_is_asked_for(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(calm_root(), socket_dir, 100 * SECOND) as daemon:
        daemon.tell(LEADER2, dying(rack=RACK2))
        for sort, order in (("config", [RACK1, RACK2]), ("name", [RACK1, RACK2]), ("worst", [RACK2, RACK1])):
            assert racks(daemon, "--sort", sort, "-o", "name") == 0
            assert capsys.readouterr().out.splitlines() == order
        assert racks(daemon, "--no-headers") == 0
        assert capsys.readouterr().out.startswith(RACK1)


def test_nobody_there_is_3(socket_dir: Path) -> None:
    assert main(["racks", "--socket", f"ipc://{socket_dir}/none.sock"]) == 3
