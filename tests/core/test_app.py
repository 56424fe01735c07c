"""What an application says of itself, line by line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.app import MARKS_MAX, TEXT_LENGTH_MAX, App
from hbagent.core.states import AppState, Health
from hbagent.core.units import SECOND
from tests.probing import app as app_config


def new(**settings: Any) -> App:
    return App(app_config(**settings), 0)


@pytest.mark.parametrize(
    ("value", "count", "queued", "window_s"),
    [
        ("worker-3 81723", 81723, None, 30.0),
        ("worker-3 1 queued=0", 1, 0, 30.0),
        ("worker-3 1 queued=7 window=2.5", 1, 7, 2.5),
        ("worker-3 1 window=60 color=red", 1, None, 60.0),
        ("worker-3   5", 5, None, 30.0),
    ],
)
def test_a_progress_mark(value: str, count: int, queued: int | None, window_s: float) -> None:
    app = new()
    assert app.tell([("X_HBAGENT_PROGRESS", value)], 0) == 0
    (row,) = app.row(0).marks
    assert (row.name, row.count, row.queued, row.window_ns) == ("worker-3", count, queued, window_s * SECOND)


@pytest.mark.parametrize(
    "value",
    [
        *("", "m", "m x", "m -1", "m 1 queued=x", "m 1 queued=-1", "m 1 window=0", "m 1 window=inf", "m 1 window=nan"),
        *("m ²", "m 1 window=1e99", f"{'m' * 65} 1", f"m {'9' * 30}"),
    ],
)
def test_a_progress_mark_that_is_none_changes_nothing(value: str) -> None:
    app = new()
    assert app.tell([("X_HBAGENT_PROGRESS", value)], 0) == 1
    assert app.row(0).marks == ()


def test_marks_are_bounded_and_known_ones_go_on() -> None:
    app = new()
    lines = [("X_HBAGENT_PROGRESS", f"m{number} 1") for number in range(MARKS_MAX + 5)]
    assert app.tell(lines, 0) == 5
    assert app.tell([("X_HBAGENT_PROGRESS", "m3 2")], 0) == 0


def test_a_status_is_cut() -> None:
    app = new()
    app.tell([("STATUS", "x" * 1000)], 0)
    assert len(app.row(0).status) == TEXT_LENGTH_MAX


def test_what_is_not_known_is_passed_over() -> None:
    assert new().tell([("FDSTORE", "1"), ("X_OTHER", "y"), ("", ""), ("READY", "2"), ("WATCHDOG", "maybe")], 0) == 0


def test_states_follow_what_it_says() -> None:
    app = new()
    for key, state in (("RELOADING", AppState.RELOADING), ("READY", AppState.READY), ("STOPPING", AppState.STOPPING)):
        app.tell([(key, "1")], 0)
        app.look(0)
        assert (app.state, app.health) == (state, Health.OK)


def test_a_hundred_looks_at_one_that_is_well_change_nothing() -> None:
    app = new()
    app.look(0)
    assert not any(app.look(at) for at in range(100))


@given(st.lists(st.tuples(st.text(max_size=24), st.text(max_size=24)), max_size=20))
def test_whatever_it_says_it_has_a_state_and_a_health(lines: list[tuple[str, str]]) -> None:
    app = new()
    app.tell(lines, 0)
    app.look(10 * SECOND)
    assert app.row(10 * SECOND).health in Health
