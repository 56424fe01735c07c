"""`hbagent replay`: figures, deadlines and refusals."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from hbagent.cli import main


@pytest.fixture
def arrivals(tmp_path: Path) -> Path:
    """300 beats 100 ms apart that take 2 ms; beat 100 is lost and beat 200 comes 350 ms late."""
    rows = ["seq,sent_s,arrived_s"]
    for i in range(300):
        arrived = "" if i == 100 else f"{i * 0.1 + 0.002 + 0.350 * (i == 200):.6f}"
        rows.append(f"{i},{i * 0.1:.6f},{arrived}")
    path = tmp_path / "host1.csv.gz"
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    return path


@pytest.fixture
def emissions(tmp_path: Path) -> Path:
    """2000 beats 100 ms apart as their sender saw them."""
    path = tmp_path / "sender.csv"
    path.write_text(
        "seq,send_begin_s,send_end_s\n" + "".join(f"{i},{i * 0.1:.6f},{i * 0.1:.6f}\n" for i in range(2000))
    )
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, float]:
    assert main(["replay", *map(str, arguments), "-o", "json"]) == 0
    figures: dict[str, float] = json.loads(capsys.readouterr().out)
    return figures


def test_json_has_the_promised_figures(arrivals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = told(capsys, arrivals, "--interval", "100ms", "--margin", "50ms")
    # Beat 201 arrives before the late one, which is then old news.
    assert figures["mistakes"] == 2
    assert figures["mistakes_per_node_hour"] == pytest.approx(2 / figures["node_hours"])
    assert figures["detection_time_mean_ms"] == pytest.approx(152, abs=2)
    assert figures["detection_time_p99_ms"] == pytest.approx(152)
    assert 0.99 < figures["query_accuracy"] < 1
    assert figures["node_hours"] == pytest.approx(29.9 / 3600)


def test_the_knobs_reach_the_detector(arrivals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = (arrivals, "--interval", "100ms")
    assert told(capsys, *base, "--margin", "1s")["mistakes"] == 0
    fixed = told(capsys, *base, "--detector", "fixed", "--margin", "1s")
    assert fixed["detection_time_p99_ms"] == pytest.approx(1102)
    low, high = (told(capsys, *base, "--detector", "phi", "--phi", phi)["detection_time_mean_ms"] for phi in (4, 12))
    assert low < high


def test_the_table_says_the_same_for_people(arrivals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(arrivals), "--interval", "100ms", "--margin", "1s"]) == 0
    assert capsys.readouterr().out == (
        "detector        adaptive, margin 1.0s, interval 100ms\n"
        "watched         0.008 node-hours of 1 nodes\n"
        "beats           300, 1 of them lost\n"
        "detection time  mean 1101.7 ms, p99 1102.0 ms\n"
        "mistakes        0, 0.00 per node-hour\n"
        "query accuracy  1.000000\n"
    )


def test_a_rate_of_mistakes_is_learned_and_held_against_the_rest(
    arrivals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = (arrivals, "--interval", "100ms")
    assert told(capsys, *base)["mistakes_per_day"] == 1
    assert told(capsys, *base, "--margin", "50ms")["mistakes_per_day"] == 0
    # Of 5,000 a day one is due after 17 s: until then the late beat before it makes the margin more careful.
    often = told(capsys, *base, "--mistakes-per-day", "5000", "--margin", "50ms")
    assert often["margin_ms"] == 50
    assert often["margin_mean_ms"] > 50
    late = told(capsys, *base, "--margin", "50ms", "--learn", "0.5")
    assert late["mistakes"] == 1
    assert late["node_hours"] == pytest.approx(14.95 / 3600, rel=0.01)
    assert main(["replay", str(arrivals), "--interval", "100ms", "--mistakes-per-day", "2"]) == 0
    assert "adaptive, margin learned for 2 mistakes a day, at the end " in capsys.readouterr().out


def test_asking_clears_what_only_the_way_lost(emissions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("replay", emissions, "--interval", "100ms", "--margin", "40ms", "--loss", "0.02")
    passive, asking = told(capsys, *base[1:]), told(capsys, *base[1:], "--doubt")
    assert passive["mistakes"] > 20
    assert asking["mistakes"] == 0
    assert asking["detection_time_mean_ms"] == pytest.approx(passive["detection_time_mean_ms"], rel=0.01)
    assert asking["extra_messages_share"] == pytest.approx(asking["pings"] / asking["beats"])
    assert main([*map(str, base), "--doubt"]) == 0
    assert f"pings           {asking['pings']}, " in capsys.readouterr().out


def test_each_arrival_has_its_deadline_written(
    arrivals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    told(capsys, arrivals, "--interval", "100ms", "--margin", "50ms", "--deadlines", out)
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 299
    assert rows[0] == {"node": "host1", "seq": "0", "suspect_at_s": "0.152000000"}
    assert [row["seq"] for row in rows[98:101]] == ["98", "99", "101"]


def test_deadlines_before_zero_are_written_with_their_sign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    early, out = tmp_path / "early.csv", tmp_path / "out.csv"
    early.write_text("seq,sent_s,arrived_s\n0,-10,-9.75\n")
    told(capsys, early, "--interval", "1s", "--margin", "150ms", "--deadlines", out)
    assert out.read_text() == "node,seq,suspect_at_s\nearly,0,-8.600000000\n"


def test_emissions_travel_a_way_that_the_seed_decides(emissions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = (emissions, "--interval", "100ms", "--margin", "20ms", "--loss", "0.05", "--delay", "1ms")
    three, four, again = (told(capsys, *base, "--seed", seed) for seed in (3, 4, 3))
    assert three == again != four
    assert three["mistakes"] > 0
    assert told(capsys, emissions, "--interval", "100ms")["lost"] == 0


def test_several_senders_are_pooled_each_on_a_way_of_its_own(
    emissions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("--interval", "100ms", "--loss", "0.05")
    one, both = told(capsys, emissions, *base), told(capsys, emissions, emissions, *base)
    assert both["node_hours"] == pytest.approx(2 * one["node_hours"], rel=1e-3)
    assert both["lost"] != 2 * one["lost"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "the following arguments are required: --interval"),
        (["--interval", "0s"], "an interval is longer than nothing"),
        (["--interval", "fast"], "'fast' is not a duration"),
        (["--interval", "1s", "--detector", "psi"], "invalid choice: 'psi'"),
        (["--interval", "1s", "--phi", "8"], "--phi is for --detector phi, not adaptive"),
        (["--interval", "1s", "--detector", "phi", "--margin", "1s"], "--margin is for --detector adaptive or fixed"),
        (["--interval", "1s", "--detector", "phi", "--phi", "0"], "0 is not above 0"),
        (["--interval", "1s", "--detector", "phi", "--phi", "nan"], "nan is not a finite number"),
        (["--interval", "1s", "--detector", "phi", "--phi", "much"], "'much' is not a number"),
        (["--interval", "1s", "--loss", "1.1"], "1.1 is not a share between 0 and 1"),
        (["--interval", "1s", "--loss", "0.1"], "--loss is for a recording of emissions"),
        (["--interval", "1s", "--loss", "0"], "--loss is for a recording of emissions"),
        (["--interval", "1s", "--doubt"], "--doubt is for a recording of emissions"),
        (["--interval", "1s", "--learn", "1"], "1 leaves nothing to count"),
        (["--interval", "1s", "--mistakes-per-day", "-1"], "-1 is below 0"),
        (
            ["--interval", "1s", "--detector", "fixed", "--mistakes-per-day", "1"],
            "is for --detector adaptive, not fixed",
        ),
        (["--interval", "1s", "--seed", "1"], "--seed is for a recording of emissions"),
    ],
)
def test_wrong_arguments_end_with_64(
    arrivals: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    assert main(["replay", str(arrivals), *options]) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err


def test_a_file_that_is_no_recording_ends_with_65_and_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("seq,sent_s,arrived_s\n0,0,x\n")
    assert main(["replay", str(wrong), "--interval", "1s"]) == 65
    assert capsys.readouterr().err == f"hbagent: {wrong}:2: time 'x' is not a number of seconds\n"
    assert main(["replay", str(tmp_path / "none.csv"), "--interval", "1s"]) == 65
    assert "No such file" in capsys.readouterr().err


def test_the_recording_itself_is_never_overwritten(arrivals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = arrivals.read_bytes()
    assert main(["replay", str(arrivals), "--interval", "1s", "--deadlines", str(arrivals)]) == 64
    assert "would overwrite the recording" in capsys.readouterr().err
    assert arrivals.read_bytes() == before


def test_deadlines_that_cannot_be_written_end_with_74(
    arrivals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(arrivals), "--interval", "1s", "--deadlines", str(tmp_path / "no" / "out.csv")]) == 74
    assert "No such file" in capsys.readouterr().err
