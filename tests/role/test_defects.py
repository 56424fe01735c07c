"""Unexpected exceptions: told with their place, counted fairly, and too many of them end it."""

from __future__ import annotations

import pytest

from hbagent.core.units import MINUTE, SECOND
from hbagent.role.defects import COUNTED_A_SENDER, DEFECTS_MAX, PLACES_MAX, Defects
from tests.role.parts import Lines


def raised(text: str) -> Exception:
    try:
        raise RuntimeError(text)
    except RuntimeError as error:
        return error


@pytest.fixture
def defects(lines: Lines) -> Defects:
    return Defects(lines)


def test_a_defect_is_told_with_its_place_and_its_traceback(defects: Defects, lines: Lines) -> None:
    defects.book("wake", "", raised("no\nsuch"), 0)
    (fields,) = lines.of("defect")
    assert fields["where"] == "wake"
    assert fields["sender"] == "self"
    assert fields["error"] == "RuntimeError('no\\nsuch')"
    assert fields["line"].startswith("test_defects.py:")
    assert "in raised" in fields["traceback"]
    assert lines.told[0][0] == "error"


def test_the_same_place_is_told_once_a_minute_and_counted_each_time(defects: Defects, lines: Lines) -> None:
    for at in range(5):
        defects.book("wake", "peer", raised("again"), at * SECOND)
    assert len(lines.told) == 1
    assert defects.count == 5
    defects.book("receive", "peer", raised("elsewhere"), 5 * SECOND)
    defects.book("wake", "peer", raised("again"), MINUTE)
    assert [fields["count"] for fields in lines.of("defect")] == [1, 6, 7]


def test_one_more_than_the_bound_in_a_minute_is_hopeless(defects: Defects) -> None:
    for at in range(DEFECTS_MAX):
        defects.book("wake", "", raised("x"), at)
    assert not defects.hopeless()
    defects.book("wake", "", raised("x"), MINUTE - 1)
    assert defects.hopeless()


def test_defects_that_are_a_minute_apart_never_are(defects: Defects) -> None:
    for at in range(5 * DEFECTS_MAX):
        defects.book("wake", "", raised("x"), at * MINUTE // DEFECTS_MAX)
        assert not defects.hopeless()


def test_one_peer_cannot_end_the_process_and_many_can(defects: Defects) -> None:
    for at in range(10_000):
        defects.book("receive", "dc1/rack07/host1", raised("x"), at)
    assert not defects.hopeless()
    peers = DEFECTS_MAX // COUNTED_A_SENDER
    for number in range(2, 2 + peers):
        for _ in range(COUNTED_A_SENDER):
            defects.book("receive", f"dc1/rack07/host{number}", raised("x"), 20_000)
    assert defects.hopeless()


def test_a_peers_flood_does_not_hide_the_processs_own(defects: Defects) -> None:
    for _ in range(1_000):
        defects.book("receive", "peer", raised("x"), 0)
    for _ in range(DEFECTS_MAX):
        assert not defects.hopeless() or _ > DEFECTS_MAX - COUNTED_A_SENDER
        defects.book("wake", "", raised("x"), 1)
    assert defects.hopeless()


def test_places_are_remembered_up_to_a_bound(defects: Defects) -> None:
    for number in range(2 * PLACES_MAX):
        defects.book(f"place {number}", "peer", raised("x"), 0)
    assert len(defects._told) <= PLACES_MAX + 1
