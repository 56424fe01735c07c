"""`hbagent silence`: what people write, what the root is ordered, and what it says it did."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.cli import main
from hbagent.cli.silence_cmd import add_arguments, order_fields, parse_time
from hbagent.core.units import DAY, HOUR, MINUTE, SECOND
from hbagent.core.wallclock import rfc3339
from tests.cli.answering import LEADER1, WALL_NS, Daemon, dying, leader_core

#: 2026-11-21T12:00:00Z, a Saturday.
NOON = 1_795_262_400 * SECOND
WHY = ("--reason", "new switch")


def fields(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return order_fields(parser.parse_args(list(words)), NOON)


def silence(daemon: Daemon, *words: str) -> int:
    return main(["silence", "--socket", daemon.endpoint, *words])


# ---- what is ordered -------------------------------------------------------------------------------------


def test_the_short_form_and_the_options_say_the_same() -> None:
    short = fields("rack", "r12", "r13", "--for", "2h", *WHY)
    assert short == fields("--rack", "r12", "--rack", "r13", "--for", "2h", *WHY)
    assert short["racks"] == ("r12", "r13")
    assert (short["length_ns"], short["ends_wall_ns"], short["reason"]) == (2 * HOUR, 0, "new switch")
    assert fields("node", "web*", "--cause", "host-gone", "--kind", "node-*", "--for", "30m", *WHY) == {
        **fields("--for", "30m", "--node", "web*", "--kind", "node-*", "--cause", "host-gone", *WHY),
        "nodes": ("web*",),
    }


def test_what_recurs_has_a_length_and_an_end() -> None:
    found = fields("--node", "b*", "--every", "sun 02:00", "--for", "3h", "--until", "2027-06-30", *WHY)
    assert (found["every"], found["length_ns"]) == ("sun 02:00", 3 * HOUR)
    assert rfc3339(found["ends_wall_ns"]) == "2027-06-30T00:00:00.000Z"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--for", "2h", *WHY), "say what to cover"),
        (("r12", "--for", "2h", *WHY), "name what to cover as in: rack r12"),
        (("rack", "--for", "2h", *WHY), "which rack?"),
        (("rack", "r12", "--for", "2h"), "say why"),
        (("rack", "r12", "--for", "2h", "--reason", " "), "say why"),
        (("rack", "r12", *WHY), "say how long"),
        (("rack", "r12", "--for", "2h", "--until", "18:00", *WHY), "either --for or --until"),
        (("rack", "r12", "--for", "2h", "--every", "sun 02:00", *WHY), "an end with --until"),
        (("rack", "r12", "--until", "18:00", "--every", "sun 02:00", *WHY), "a length with --for"),
        (("rack", "r12", "--until", "tomorrow", *WHY), "is no time"),
    ],
)
def test_what_means_nothing_is_refused_before_anybody_is_asked(words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        fields(*words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18:00", NOON + 6 * HOUR),
        ("8:05", NOON - 4 * HOUR + 5 * MINUTE + DAY),
        ("12:00", NOON + DAY),
        ("2026-11-30", NOON + 8 * DAY + 12 * HOUR),
        ("2026-11-21T18:30", NOON + 6 * HOUR + 30 * MINUTE),
        ("2026-11-21 18:30:15Z", NOON + 6 * HOUR + 30 * MINUTE + 15 * SECOND),
        ("2026-11-21T18:30+02:00", NOON + 4 * HOUR + 30 * MINUTE),
    ],
)
def test_a_time_is_utc_and_a_time_of_day_is_the_next(text: str, expected: int) -> None:
    assert parse_time(text, NOON) == expected


@pytest.mark.parametrize(
    "text", ["", "25:00", "12:60", "noon", "2026-13-01", "1:2:3", "1969-01-01", "9999-12-31", "-1:30"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_time(text, NOON)


@given(st.text(max_size=30))
def test_no_text_breaks_the_reading_of_times(text: str) -> None:
    try:
        assert 0 < parse_time(text, NOON) < 2**63
    except ValueError as error:
        assert "is no time" in str(error)


# ---- what the root does ----------------------------------------------------------------------------------


def test_the_root_says_what_it_covers_until_when_and_who_said_so(
    paging: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    paging.tell(LEADER1, dying())
    assert silence(paging, "rack", "rack1", "--for", "2h", *WHY) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("silence s1 on rack rack1 until 2026-11-21 14:01Z, by tester")
    assert first.endswith(": new switch")
    assert second == "it covers 1 that burns now"
    assert third == "end it before its time with: hbagent unsilence s1"


@pytest.mark.parametrize("command", ["silence", "maintenance"])
def test_what_is_called_by_no_name_that_is_known_is_said(
    command: str, paging: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("rack", "nosuch", "--for", "1h", *WHY)
    assert main([command, "--socket", paging.endpoint, *words]) == 0
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{command} s1 on rack nosuch until")
    assert second == "it fits nothing that is known now: no rack nosuch; it covers what comes and is called so"
    assert main([command, "--socket", paging.endpoint, *words, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["note"] == "it fits nothing that is known now: no rack nosuch"


def test_json_is_the_whole_answer(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert silence(paging, "--node", "web*", "--until", "2026-11-22", *WHY, "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["silence"]["silence"], document["silence"]["nodes"]) == (1, "s1", ["web*"])
    assert document["silence"]["ends"] == "2026-11-22T00:00:00.000Z"
    assert document["silence"]["maintenance"] is False


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("rack", "r[", "--for", "2h", *WHY), "'r[' has a [ without its ]"),
        (("cause", "host_gone", "--for", "2h", *WHY), "'host_gone' fits no cause"),
        (("rack", "r1", "--for", "400d", *WHY), "a year is the most"),
        (("rack", "r1", "--until", "2026-11-20", *WHY), "before it begins"),
        (("rack", "r1", "--for", "2h", "--reason", "x" * 1001), "reason over 1000 characters"),
        (("rack", "r1", "--for", "2h", "--reason", "x" * 501), "500 are allowed"),
        (("rack", "r1", "--for", "2h"), "say why with --reason"),
    ],
)
def test_what_is_refused_is_64_with_one_sentence(
    words: tuple[str, ...], complaint: str, paging: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert silence(paging, *words) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err
    assert err.count("\n") == 1


def test_a_leader_takes_no_orders(socket_dir: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(leader_core(), socket_dir, 3 * SECOND) as daemon:
        assert silence(daemon, "rack", "rack1", "--for", "2h", *WHY) == 64
    assert "only the root" in capsys.readouterr().err


def test_nobody_there_is_3(socket_dir: Any) -> None:
    assert main(["silence", "rack", "r1", "--for", "2h", *WHY, "--socket", f"ipc://{socket_dir}/none.sock"]) == 3


def test_the_end_is_counted_from_the_roots_clock(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert silence(paging, "rack", "rack1", "--for", "10m", *WHY, "-o", "json") == 0
    view = json.loads(capsys.readouterr().out)["silence"]
    assert view["ends"] == rfc3339(WALL_NS + 100 * SECOND + 10 * MINUTE)
