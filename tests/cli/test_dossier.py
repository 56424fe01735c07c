from __future__ import annotations

from typing import Any

import pytest

from hbagent.cli.dossier import FRAMES_SHOWN, LINES_SHOWN, THREADS_SHOWN, bundle_lines
from hbagent.cli.grid import Screen
from tests.cli.test_render import ASCII, LARGE, SMALL, Row, evidence

BAD = "x\x1b[31m\x07\r\n\u202e"


def lines(screen: Screen = LARGE, **fields: Any) -> list[str]:
    document = evidence()
    document["bundle"] |= fields
    return bundle_lines(document, screen)


def test_the_verdict_stands_first_and_the_proof_before_everything_else() -> None:
    shown = lines()
    assert shown[0] == "app billing on demo/rack1/node3: ✗ DEADLOCKED"
    assert shown[1] == "  process 4711 (billing): payer and refunder wait for each other"
    assert shown[2] == (
        "  taken 2026-11-21T12:00:02.750Z; because its mark payer stands still; without stopping the process"
    )
    assert shown[4] == "Proof: each waits for the next, the last for the first"
    assert shown[5].startswith("  payer (4712) holds a")


@pytest.mark.parametrize(
    ("verdict", "symbol"), [("RUNNING", "✓"), ("SLOW", "!"), ("UNKNOWN", "?"), ("IO-BLOCKED", "✗"), ("DREAMING", "✗")]
)
def test_every_verdict_has_its_symbol(verdict: str, symbol: str) -> None:
    assert lines(verdict=verdict)[0].endswith(f": {symbol} {verdict}")


def test_a_proof_whose_details_were_left_out_is_told_from_its_cycle() -> None:
    link = {
        "tid": 1,
        "name": "a",
        "kind": "mutex",
        "address": "0x1",
        "owner": 2,
        "owner_name": "b",
        "symbol": "m (in x)",
    }
    assert "  a (1) waits for mutex 0x1 m (in x), held by b (2)" in lines(details=[], proof={"cycle": [link]})


def test_without_a_proof_it_is_said_why() -> None:
    shown = lines(proof=None, no_proof="no right to read its memory")
    assert "What was seen" in shown
    assert "  no deadlock is proved: no right to read its memory" in shown


def test_for_how_long_the_process_was_stopped_is_told() -> None:
    assert "stopped for 12ms" in lines(pause_ns=12_000_000)[2]


def test_long_lists_are_cut_and_the_rest_is_counted() -> None:
    many = [{"tid": tid, "name": "worker", "state": "S"} for tid in range(100)]
    stacks = [{"by": "py-spy", "name": str(at), "frames": ["f"] * 50} for at in range(40)]
    shown = lines(threads=many, threads_total=1000, stacks=stacks, details=["seen"] * 60, left_out=["more"] * 60)
    assert f"and {1000 - THREADS_SHOWN} more threads" in shown
    assert f"and {40 - THREADS_SHOWN} more stacks" in shown
    assert f"  and {50 - FRAMES_SHOWN} more frames" in shown
    assert shown.count(f"  and {60 - LINES_SHOWN} more") == 2
    assert len(shown) < 350


def test_what_is_not_shown_is_named() -> None:
    assert lines()[-1] == "More with -o json: files, limits"


def spoiled(value: Any) -> Any:
    """The same with every text an attempt on the terminal."""
    if isinstance(value, dict):
        return {key: spoiled(item) for key, item in value.items()} | {BAD: BAD}
    if isinstance(value, list):
        return [spoiled(item) for item in value]
    return BAD if isinstance(value, str) else value


@pytest.mark.parametrize("screen", [SMALL, LARGE, ASCII, Screen()], ids=["small", "large", "ascii", "pipe"])
def test_nothing_that_a_host_wrote_reaches_the_terminal_as_a_command(screen: Screen) -> None:
    shown = bundle_lines(spoiled(evidence()), screen)
    assert len(shown) > 10
    assert [line for line in shown if not line.isprintable()] == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"bundle": 3},
        {"bundle": {}},
        {"bundle": dict.fromkeys(evidence()["bundle"], 7)},
        {"bundle": {key: [7, {"a": None}, {"frames": 3}] for key in evidence()["bundle"]}},
        {"bundle": {key: {"cycle": [3, {}], "assumes": 7} for key in evidence()["bundle"]}},
    ],
)
def test_a_bundle_of_another_shape_still_makes_lines(document: Row) -> None:
    assert bundle_lines(document, SMALL)
