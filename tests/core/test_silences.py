"""Silences: they cover what they say, they end, and no clock makes one endless."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hbagent.core import silences as module
from hbagent.core.matcher import Place
from hbagent.core.messages import Order
from hbagent.core.records import Matcher, Silence
from hbagent.core.silences import REASON_MAX, SILENCES_MAX, Every, Silences
from hbagent.core.units import DAY, HOUR, MINUTE, SECOND
from hbagent.core.wallclock import rfc3339

#: 2026-11-21T12:00:00Z, a Saturday.
NOON = 1_795_262_400 * SECOND
MIDNIGHT = NOON - 12 * HOUR


def order(**fields: object) -> Order:
    """Two hours for everything of one rack, if not said otherwise."""
    merged: dict[str, object] = {"racks": ("r12",), "length_ns": 2 * HOUR, "reason": "new switch", **fields}
    return Order(id=1, what="silence", **merged)  # type: ignore[arg-type]


def covering(silences: Silences, now_wall: int, node: str = "dc1/r12/web3", **fields: str) -> str:
    """Id of what covers a death of the node; "" for nothing."""
    merged = {"rack": "dc1/r12", "cause": "host-gone", "kind": "node-dead", **fields}
    found = silences.covering(now_wall, node=node, **merged)
    return found.silence_id if found else ""


def state(silences: Silences, silence_id: str, now_wall: int) -> str:
    silence = silences.get(silence_id)
    assert silence is not None
    return silences.view(silence, now_wall, 0).state


def recurring(begins: int, ends: int, every: str, length_ns: int, number: int = 1) -> Silence:
    return Silence(
        silence_id=f"s{number}",
        matcher=Matcher(node=("*",)),
        begins_wall_ns=begins,
        ends_wall_ns=ends,
        reason="r",
        author="a",
        every=every,
        length_ns=length_ns,
    )


# ---- once ----


def test_a_silence_covers_what_it_names_until_it_ends() -> None:
    silences = Silences()
    silence = silences.add(order(), "ops", NOON)
    assert (silence.silence_id, silence.author, silence.reason) == ("s1", "ops", "new switch")
    assert covering(silences, NOON) == "s1"
    assert covering(silences, NOON, node="dc1/r13/web3", rack="dc1/r13") == ""
    assert silences.next_change(NOON) == NOON + 2 * HOUR
    assert silences.ended(NOON + 2 * HOUR - 1) == []
    assert covering(silences, NOON + 2 * HOUR - 1) == "s1"
    assert covering(silences, NOON + 2 * HOUR) == ""
    assert silences.ended(NOON + 2 * HOUR) == ["s1"]
    assert silences.ended(NOON + 2 * HOUR) == []
    assert silences.next_change(NOON + 2 * HOUR) is None


def test_a_silence_that_begins_later_covers_from_then_on() -> None:
    silences = Silences()
    silences.add(order(begins_wall_ns=NOON + HOUR), "ops", NOON)
    assert covering(silences, NOON) == ""
    assert state(silences, "s1", NOON) == "pending"
    assert silences.next_change(NOON) == NOON + HOUR
    assert covering(silences, NOON + HOUR) == "s1"
    assert silences.next_change(NOON + HOUR) == NOON + 3 * HOUR
    assert state(silences, "s1", NOON + 3 * HOUR) == "ended"


def test_a_silence_of_a_cause_or_a_kind_covers_that_alone() -> None:
    silences = Silences()
    silences.add(order(racks=(), causes=("host-gone",), kinds=("node-*",)), "ops", NOON)
    assert covering(silences, NOON) == "s1"
    assert covering(silences, NOON, cause="process-exit") == ""
    assert covering(silences, NOON, cause="", kind="health-changed") == ""
    assert covering(silences, NOON, kind="rack-dark") == ""


def test_a_silence_covers_at_once_what_was_asked_about_before() -> None:
    silences = Silences()
    assert covering(silences, NOON) == ""
    silences.add(order(), "ops", NOON)
    assert covering(silences, NOON) == "s1"
    silences.end("s1", "ops", NOON)
    assert covering(silences, NOON) == ""


def test_a_maintenance_is_named_before_a_silence_and_the_longer_one_first() -> None:
    silences = Silences()
    silences.add(order(length_ns=9 * HOUR), "ops", NOON)
    silences.add(order(length_ns=HOUR, maintenance=True), "ops", NOON)
    silences.add(order(length_ns=3 * HOUR, maintenance=True), "ops", NOON)
    found = silences.all_covering(NOON, node="dc1/r12/web3", rack="dc1/r12", cause="", kind="")
    assert [each.silence_id for each in found] == ["s3", "s2", "s1"]
    assert covering(silences, NOON) == "s3"


def test_an_operator_ends_one_before_its_time_and_only_once() -> None:
    silences = Silences()
    silences.add(order(), "ops", NOON)
    ended = silences.end("s1", "boss", NOON + MINUTE)
    assert (ended.ended_by, ended.ends_wall_ns) == ("boss", NOON + MINUTE)
    assert covering(silences, NOON + MINUTE) == ""
    assert silences.ended(NOON + MINUTE) == ["s1"]
    with pytest.raises(ValueError, match="s1 has ended already"):
        silences.end("s1", "boss", NOON + MINUTE)
    with pytest.raises(KeyError, match="no silence 's9' is known"):
        silences.end("s9", "boss", NOON + MINUTE)


def test_one_that_was_pending_and_is_ended_had_no_window_that_closed() -> None:
    silences = Silences()
    silences.add(order(begins_wall_ns=NOON + HOUR), "ops", NOON)
    ended = silences.end("s1", "boss", NOON)
    assert silences.ended(NOON) == []
    assert silences.view(ended, NOON, 0).length_s == 0.0
    assert covering(silences, NOON + HOUR) == ""


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"reason": "  "}, "say why"),
        ({"reason": "x" * (REASON_MAX + 1)}, "501 characters"),
        ({"length_ns": 0}, "it has no end"),
        ({"length_ns": 0, "ends_wall_ns": NOON}, "before it begins"),
        ({"length_ns": 0, "begins_wall_ns": NOON + HOUR, "ends_wall_ns": NOON + MINUTE}, "before it begins"),
        ({"length_ns": HOUR, "begins_wall_ns": NOON - DAY}, "before it begins"),
        ({"ends_wall_ns": NOON + HOUR}, "either for how long or until when"),
        ({"length_ns": 367 * DAY}, "a year is the most"),
        ({"length_ns": 2**62}, "a year is the most"),
        ({"racks": ()}, "say what it is to cover"),
        ({"racks": ("r[",)}, "without its"),
        ({"every": "daily 02:00"}, "say until when it recurs"),
        ({"every": "daily 02:00", "ends_wall_ns": NOON + DAY, "length_ns": 0}, "how long it is in force each time"),
        ({"every": "daily 02:00", "ends_wall_ns": NOON + DAY, "length_ns": DAY + 1}, "longer than from one time"),
        ({"every": "mon,tue 02:00", "ends_wall_ns": NOON + DAY, "length_ns": 25 * HOUR}, "from one time to the next"),
        ({"every": "thu 02:00", "ends_wall_ns": NOON + DAY}, "does not come before it ends"),
        ({"every": "sunday 02:00", "ends_wall_ns": NOON + DAY}, "is no time to recur at"),
        ({"every": "sun 24:00", "ends_wall_ns": NOON + DAY}, "is no time to recur at"),
        ({"every": "sun 02:60", "ends_wall_ns": NOON + DAY}, "is no time to recur at"),
        ({"every": "day 02:00", "ends_wall_ns": NOON + DAY}, "is no time to recur at"),
        ({"every": "daily,sun 02:00", "ends_wall_ns": NOON + DAY}, "is no time to recur at"),
    ],
)
def test_a_silence_that_is_none_is_refused_with_a_sentence_and_changes_nothing(
    fields: dict[str, object], complaint: str
) -> None:
    silences = Silences()
    with pytest.raises(ValueError, match=complaint):
        silences.add(order(**fields), "ops", NOON)
    assert silences.all() == ()
    assert silences.add(order(), "ops", NOON).silence_id == "s1"


def test_no_silence_begins_before_the_time_is_known() -> None:
    with pytest.raises(ValueError, match="the time is not known yet"):
        Silences().add(order(ends_wall_ns=NOON, length_ns=0), "ops", 0)


# ---- recurring ----


def test_one_that_recurs_covers_each_window_across_midnight_and_the_end_of_the_week() -> None:
    silences = Silences()
    silences.add(order(every="sun 23:00", ends_wall_ns=NOON + 12 * DAY, length_ns=3 * HOUR), "ops", NOON)
    sunday = MIDNIGHT + DAY + 23 * HOUR
    open_for = {
        at: covering(silences, at)
        for at in (sunday - 1, sunday, sunday + 3 * HOUR - 1, sunday + 3 * HOUR, sunday + 7 * DAY, sunday + 7 * DAY + 1)
    }
    assert list(open_for.values()) == ["", "s1", "s1", "", "s1", "s1"]
    assert state(silences, "s1", sunday + 7 * DAY + 3 * HOUR) == "ended"


def test_between_its_windows_one_that_recurs_is_pending_and_says_when_it_is_next() -> None:
    silences = Silences()
    silence = silences.add(order(every="mon,thu 22:30", ends_wall_ns=NOON + 9 * DAY, length_ns=HOUR), "ops", NOON)
    view = silences.view(silence, NOON, 0)
    assert (view.state, view.next, view.length_s) == ("pending", "2026-11-23T22:30:00.000Z", 3600.0)
    view = silences.view(silence, NOON + 3 * DAY, 0)
    assert (view.state, view.next) == ("pending", "2026-11-26T22:30:00.000Z")
    during = MIDNIGHT + 5 * DAY + 23 * HOUR
    view = silences.view(silence, during, 4)
    assert (view.state, view.next, view.covers) == ("active", "2026-11-26T23:30:00.000Z", 4)
    assert silences.ended(during + HOUR) == ["s1"]
    assert covering(silences, MIDNIGHT + 2 * DAY + 23 * HOUR) == ""


def test_one_that_is_made_within_its_own_window_covers_what_is_left_of_it() -> None:
    silences = Silences()
    silences.add(order(every="daily 11:30", ends_wall_ns=NOON + DAY, length_ns=HOUR), "ops", NOON)
    assert covering(silences, NOON) == "s1"
    assert covering(silences, NOON + 30 * MINUTE) == ""
    later = Silences()
    later.add(
        order(every="daily 11:30", begins_wall_ns=NOON + DAY, ends_wall_ns=NOON + 2 * DAY, length_ns=HOUR), "ops", NOON
    )
    assert later.next_change(NOON) == NOON + DAY
    assert covering(later, NOON + DAY) == "s1"


def test_a_window_that_is_open_when_the_silence_ends_closes_with_it() -> None:
    silences = Silences()
    ends = MIDNIGHT + 2 * DAY
    silences.add(order(every="daily 23:00", ends_wall_ns=ends, length_ns=2 * HOUR), "ops", NOON)
    assert covering(silences, ends - 1) == "s1"
    assert covering(silences, ends) == ""
    assert silences.next_change(ends) is None


def test_windows_that_touch_are_one() -> None:
    silences = Silences()
    silences.add(order(every="daily 12:00", ends_wall_ns=NOON + 3 * DAY, length_ns=DAY), "ops", NOON)
    for hours in range(72):
        assert covering(silences, NOON + hours * HOUR) == "s1"
        assert silences.ended(NOON + hours * HOUR) == []
    assert silences.ended(NOON + 3 * DAY) == ["s1"]


@given(st.sets(st.integers(0, 6), min_size=1), st.integers(0, 23), st.integers(0, 59), st.integers(0, 20_000 * DAY))
def test_the_times_are_those_days_and_that_time_and_none_lies_between(
    days: set[int], hour: int, minute: int, at: int
) -> None:
    every = Every(",".join(module.WEEKDAYS[day] for day in sorted(days)) + f" {hour:02d}:{minute:02d}")
    latest, following = every.latest(at), every.after(at)
    assert latest <= at < following
    assert every.after(latest) == following
    assert following - latest >= every.gap_min_ns
    for moment in (latest, following):
        assert rfc3339(moment)[11:] == f"{hour:02d}:{minute:02d}:00.000Z"
        # 2026-11-23 is a Monday.
        assert (moment - (MIDNIGHT + 2 * DAY)) // DAY % 7 in days


def test_daily_is_every_day_and_one_day_comes_once_a_week() -> None:
    assert Every("daily 02:00").gap_min_ns == DAY
    assert Every("sun 02:00").gap_min_ns == 7 * DAY
    assert Every("sun,mon 02:00").gap_min_ns == DAY
    assert Every("mon,thu 02:00").gap_min_ns == 3 * DAY


# ---- clocks that lie ----

#: Time that passes, and then a step of the clock.
MOVES = st.lists(
    st.tuples(st.integers(0, 3 * HOUR), st.one_of(st.just(0), st.integers(-5 * DAY, 5 * DAY))), min_size=1, max_size=40
)


@given(MOVES)
@example([(HOUR, -HOUR)] * 40)
@example([(HOUR, -2 * HOUR)] * 40)
@example([(0, -DAY), (HOUR, DAY), (0, -DAY), (HOUR, DAY)])
def test_a_silence_lasts_no_longer_than_was_asked_for_however_the_clock_steps(moves: list[tuple[int, int]]) -> None:
    silences = Silences()
    silences.add(order(length_ns=2 * HOUR), "ops", NOON)
    wall, covered = NOON, 0
    for passed, step in moves:
        covered += min(passed, _open_for(silences, wall))
        wall += passed
        covering(silences, wall)
        wall += step
        covering(silences, wall)
    assert covered <= 2 * HOUR


@given(MOVES)
@example([(HOUR, -DAY)] * 40)
def test_one_that_recurs_opens_each_window_once_however_the_clock_steps(moves: list[tuple[int, int]]) -> None:
    ends = NOON + 6 * DAY
    silences = Silences((recurring(NOON, ends, "daily 22:00", 2 * HOUR),))
    wall, covered = NOON, 0
    for passed, step in moves:
        covered += min(passed, _open_for(silences, wall))
        wall += passed
        covering(silences, wall)
        wall += step
        covering(silences, wall)
    assert covered <= 6 * 2 * HOUR


def _open_for(silences: Silences, wall: int) -> int:
    """For how long the one silence is open from now on, if the clock does not step; moves nothing."""
    if not covering(silences, wall):
        return 0
    change = silences.next_change(wall)
    assert change is not None and change > wall
    return change - wall


def test_a_clock_that_steps_back_leaves_an_open_silence_open_for_what_is_left_of_it() -> None:
    silences = Silences()
    silences.add(order(length_ns=2 * HOUR), "ops", NOON)
    assert covering(silences, NOON + 30 * MINUTE) == "s1"
    back = NOON - 10 * DAY
    assert covering(silences, back) == "s1"
    assert silences.next_change(back) == back + 90 * MINUTE
    assert silences.ended(back + 90 * MINUTE) == ["s1"]
    assert covering(silences, NOON + HOUR) == ""


def test_a_clock_that_jumps_ahead_and_back_ends_a_silence_rather_than_to_hide_more() -> None:
    silences = Silences()
    silences.add(order(), "ops", NOON)
    assert covering(silences, NOON + 3650 * DAY) == ""
    assert silences.ended(NOON) == ["s1"]
    assert covering(silences, NOON + 1) == ""
    assert state(silences, "s1", NOON + 1) == "ended"


@given(st.lists(st.integers(0, 3 * DAY), max_size=30), st.integers(1, 24 * 60), st.sampled_from(["", "daily 22:30"]))
def test_nothing_changes_between_what_next_change_names(waits: list[int], minutes: int, every: str) -> None:
    ends = NOON + 5 * DAY
    fields: dict[str, object] = {"every": every, "ends_wall_ns": ends, "length_ns": minutes * MINUTE} if every else {}
    silences, twin = Silences(), Silences()
    silences.add(order(**fields), "ops", NOON)
    twin.add(order(**fields), "ops", NOON)
    now = NOON
    for wait in waits:
        due = silences.next_change(now)
        before = covering(silences, now)
        now += wait
        if due is None or now < due:
            assert covering(silences, now) == before
        else:
            assert covering(twin, due - 1) == before
            assert covering(twin, due) != before or every
        assert covering(twin, now) == covering(silences, now)
        if now >= ends:
            assert silences.next_change(now) is None


# ---- restarts and bounds ----


def test_a_restart_takes_up_what_has_not_ended_and_gives_out_no_id_twice() -> None:
    first = Silences()
    first.add(order(), "ops", NOON)
    first.add(order(length_ns=MINUTE), "ops", NOON)
    first.add(order(), "ops", NOON)
    first.end("s3", "ops", NOON)
    silences = Silences(first.all())
    assert covering(silences, NOON + HOUR) == "s1"
    # s2 ended while nobody looked, s3 was ended: what they covered is looked at again.
    assert sorted(silences.ended(NOON + HOUR)) == ["s2", "s3"]
    assert silences.ended(NOON + HOUR) == []
    assert silences.add(order(), "ops", NOON + HOUR).silence_id == "s4"
    assert [each.silence_id for each in silences.all()] == ["s1", "s4", "s2", "s3"]


def test_what_was_restored_is_open_as_soon_as_the_time_is_known() -> None:
    silences = Silences((recurring(NOON - DAY, NOON + DAY, "daily 11:00", 2 * HOUR, number=7),))
    assert covering(silences, 0) == ""
    assert covering(silences, NOON) == "s7"
    assert silences.ended(NOON) == []


def test_after_restarts_with_a_clock_that_is_behind_a_silence_lasts_no_longer_and_comes_back_with_the_time() -> None:
    first = Silences()
    first.add(order(), "ops", NOON)
    assert covering(first, NOON + HOUR) == "s1"
    for _ in range(3):
        again = Silences(first.all())
        assert covering(again, NOON - 9 * DAY) == ""
        assert state(again, "s1", NOON - 9 * DAY) == "pending"
    assert covering(again, NOON + 90 * MINUTE) == "s1"
    assert again.next_change(NOON + 90 * MINUTE) == NOON + 2 * HOUR


def test_there_are_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCES_MAX", 3)
    monkeypatch.setattr(module, "ENDED_MAX", 2)
    silences = Silences()
    for _ in range(3):
        silences.add(order(), "ops", NOON)
    with pytest.raises(ValueError, match="there are 3 silences"):
        silences.add(order(), "ops", NOON)
    for number in (1, 2, 3):
        silences.end(f"s{number}", "ops", NOON)
    assert [each.silence_id for each in silences.all()] == ["s3", "s2"]
    assert silences.get("s1") is None
    assert silences.add(order(), "ops", NOON).silence_id == "s4"


def test_a_hundred_silences_cost_two_thousand_nodes_little_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def counting(fits: Callable[[Place, str], bool]) -> Callable[[Place, str], bool]:
        def counted(place: Place, name: str) -> bool:
            compared.append(name)
            return fits(place, name)

        return counted

    monkeypatch.setattr(Place, "fits_node", counting(Place.fits_node))
    monkeypatch.setattr(Place, "fits_rack", counting(Place.fits_rack))
    base = recurring(NOON, NOON + DAY, "", 0)
    silences = Silences(
        tuple(
            msgspec.structs.replace(base, silence_id=f"s{i}", matcher=Matcher(node=(f"dc1/r{i}/*web{i}*", f"db{i}")))
            for i in range(100)
        )
    )
    names = [(f"dc1/r{i % 250}/host{i}", f"dc1/r{i % 250}") for i in range(2_000)]
    counts = []
    for _ in range(2):
        for node, rack in names:
            assert silences.covering(NOON, node=node, rack=rack, cause="", kind="node-dead") is None
        counts.append(len(compared))
    # Each of 250 racks with each silence, and a node with those whose texts stand in its name.
    assert 25_000 < counts[0] < 27_000
    assert counts[1] == counts[0]


def test_a_new_silence_is_compared_once_and_those_that_ended_are_not_kept_for_ever() -> None:
    silences = Silences()
    for number in range(1, 300):
        assert covering(silences, NOON) == ""
        silences.add(order(), "ops", NOON)
        assert covering(silences, NOON) == f"s{number}"
        assert covering(silences, NOON, node="dc1/r13/n", rack="dc1/r13") == ""
        silences.end(f"s{number}", "ops", NOON)
        assert len(silences._made) <= module.ENDED_KEPT + 2
        assert all(len(entries) <= module.ENDED_KEPT + 2 for _, entries in silences._places.values())


def test_the_memory_of_who_fits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES_MAX", 5)
    silences = Silences()
    silences.add(order(), "ops", NOON)
    for i in range(50):
        assert covering(silences, NOON, node=f"dc1/r12/n{i}") == "s1"
        assert len(silences._places) <= 5


def test_as_many_silences_as_there_may_be_are_looked_at_in_time() -> None:
    base = recurring(NOON, NOON + 300 * DAY, "daily 02:00", HOUR)
    silences = Silences(tuple(msgspec.structs.replace(base, silence_id=f"s{i}") for i in range(SILENCES_MAX)))
    spent = []
    # The least of several, for a machine may stand still in one of them.
    for step in range(20):
        began = time.process_time()
        silences.next_change(NOON - step)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.05
