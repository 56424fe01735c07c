from __future__ import annotations

import json

import pytest

from hbagent.cli import EXIT_DEFECT, EXIT_USAGE, main
from hbagent.core.observer import OwnLag


def test_a_run_as_json_has_its_trace_its_counts_and_its_detection_times(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["sim", "--hosts", "16", "--racks", "2", "--seconds", "30", "--seed", "17", "--fault", "partition"]
    assert main([*line, "-o", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == 1
    assert result["command"] == "hbagent " + " ".join(line)
    assert (result["hosts"], result["racks"], result["seconds"], result["seed"]) == (16, 2, 30, 17)
    assert result["faults"] == ["partition"] and result["loss"] == 0
    assert len(result["trace"]) == 32
    assert result["violations"] == [] and result["violation_count"] == 0
    assert result["dead_at_root_s"]["count"] > 0
    assert 0 < result["dead_at_root_s"]["p50"] <= result["dead_at_root_s"]["p99"]


def test_the_same_line_gives_the_same_run(capsys: pytest.CaptureFixture[str]) -> None:
    traces = []
    for _ in range(2):
        main(["sim", "--seconds", "20", "--seed", "4", "--loss", "0.05", "--fault", "duplicate", "-o", "json"])
        traces.append(json.loads(capsys.readouterr().out)["trace"])
    assert traces[0] == traces[1]


def test_a_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--seconds", "20", "--leaders", "2"]) == 0
    out = capsys.readouterr().out
    assert "hbagent sim --hosts 16 --racks 2 --leaders 2 --seconds 20 --seed 1" in out
    assert "violations         0" in out


def test_a_run_in_which_an_invariant_broke_prints_the_line_that_repeats_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnLag, "since", lambda self, instant: 0)
    lines = [["sim", "--seed", str(seed), "--fault", "observer-pause"] for seed in range(40)]
    code = next(code for line in lines if (code := main(line)))
    assert code == EXIT_DEFECT
    captured = capsys.readouterr()
    assert "accuracy: " in captured.out
    assert "to see them again: hbagent sim --hosts 16 --racks 2 --seconds 60 --seed" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hosts", "0"], "hosts = 0: must be 1 to"),
        (["--hosts", "4", "--racks", "9"], "racks = 9"),
        (["--loss", "2"], "loss = 2.0"),
        (["--fault", "flood"], "invalid choice: 'flood'"),
        (["--seed", "x"], "invalid int value"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", *arguments]) == EXIT_USAGE
    assert words in capsys.readouterr().err


def test_the_help_tells_each_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--help"]) == 0
    out = capsys.readouterr().out
    assert "observer-pause" in out and "Leaders stand still" in out
