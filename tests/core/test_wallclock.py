from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.units import DAY, HOUR, MILLISECOND
from hbagent.core.wallclock import STEP_NS, WallClock, rfc3339
from tests.build import WALL_NS, T

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: Milliseconds of the years that `datetime` knows.
FIRST_MS, LAST_MS = (
    (datetime(year, 1, 1, tzinfo=timezone.utc) - EPOCH) // timedelta(milliseconds=1) for year in (1, 9999)
)


@given(st.integers(FIRST_MS, LAST_MS), st.integers(0, MILLISECOND - 1))
def test_an_instant_is_written_as_the_standard_library_writes_it(wall_ms: int, rest_ns: int) -> None:
    truth = EPOCH + timedelta(milliseconds=wall_ms)
    assert rfc3339(wall_ms * MILLISECOND + rest_ns) == truth.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_times_are_utc_with_milliseconds_and_of_one_width() -> None:
    assert rfc3339(WALL_NS + 3_250_999_999) == "2026-11-21T12:00:03.250Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"


def test_before_the_wall_clock_is_told_the_time_is_zero() -> None:
    assert WallClock().at(T(5)) == 0


def test_the_wall_clock_goes_on_between_two_tellings() -> None:
    clock = WallClock()
    assert clock.tell(WALL_NS, T(5)) == 0
    assert clock.at(T(7.5)) == WALL_NS + T(2.5)


def test_a_step_is_told_once_and_followed() -> None:
    clock = WallClock()
    clock.tell(WALL_NS, 0)
    assert clock.tell(WALL_NS + HOUR + T(1), T(1)) == HOUR
    assert clock.tell(WALL_NS + HOUR + T(2), T(2)) == 0
    assert clock.tell(WALL_NS + HOUR + T(3) - DAY, T(3)) == -DAY
    assert clock.at(T(3)) == WALL_NS + HOUR + T(3) - DAY
    assert clock.steps == 2


def test_slewing_is_no_step() -> None:
    clock = WallClock()
    clock.tell(WALL_NS, 0)
    assert clock.tell(WALL_NS + T(1) + STEP_NS - 1, T(1)) == 0
    assert clock.steps == 0
