from __future__ import annotations

import msgspec
import pytest

from hbagent.core.changes import PROBER
from hbagent.core.healthrecord import RETIRED_MAX, HealthRecord, News
from hbagent.core.messages import AppRow, ProbeResult, Report, Transition
from hbagent.core.records import NodeState
from hbagent.core.states import AppState, Health, Liveness
from hbagent.core.units import SECOND
from tests.build import INCARNATION, NODE, RACK, became, part, row

OK, WARNING, CRITICAL = Health.OK, Health.WARNING, Health.CRITICAL
STALLED, DEADLOCKED, UNKNOWN = Health.STALLED, Health.DEADLOCKED, Health.UNKNOWN
PATIENCE = 2 * SECOND


def record(*said: Transition) -> HealthRecord:
    """A record that was told all of this."""
    made = HealthRecord()
    made.row(OK, 0)
    for one in said:
        assert made.take(one) is not None
    return made


def report(number: int, health: Health, *bad: tuple[str, Health], incarnation: int = INCARNATION) -> Report:
    apps = tuple(AppRow(name=name, health=value, state=AppState.READY) for name, value in bad)
    probes = (ProbeResult(name="disk", health=OK),)
    return Report(incarnation=incarnation, number=number, health=health, apps=apps, probes=probes)


def gist(news: News | None) -> list[str]:
    if news is None:
        return []
    parts = [f"{c.name} {c.before.value}>{c.after.value}" for c in news.changes]
    return [f"{news.before.value}>{news.after.value}", *parts]


def test_a_leaders_word_is_news_and_the_same_of_another_is_not() -> None:
    health = record()
    said = became(5, DEADLOCKED, OK, part("web", DEADLOCKED))
    assert gist(health.take(said)) == ["OK>DEADLOCKED", "web OK>DEADLOCKED"]
    assert health.take(msgspec.structs.replace(said, number=900, sequence=12)) is None
    assert health.value is DEADLOCKED


def test_of_two_leaders_the_newer_report_wins_whoever_is_faster() -> None:
    health = record(became(5, CRITICAL, OK, part("web", CRITICAL)), became(6, OK, CRITICAL, part("web", OK, CRITICAL)))
    assert health.take(became(5, CRITICAL, OK, part("web", CRITICAL), sequence=99)) is None
    assert health.take(became(6, OK, CRITICAL, part("web", OK, CRITICAL))) is None
    assert (health.value, health.parts) == (OK, {})


def test_who_missed_a_report_tells_the_rest_from_what_was_told() -> None:
    health = record(became(5, WARNING, OK, part("web", WARNING)))
    assert gist(health.take(became(6, CRITICAL, OK, part("web", CRITICAL), part("db", WARNING)))) == [
        "WARNING>CRITICAL",
        "web WARNING>CRITICAL",
        "db OK>WARNING",
    ]


def test_a_part_that_changes_without_the_node_is_news_and_a_node_that_changes_without_a_part() -> None:
    health = record(became(5, CRITICAL, OK, part("web", CRITICAL)))
    assert gist(health.take(became(6, CRITICAL, CRITICAL, part("db", WARNING)))) == [
        "CRITICAL>CRITICAL",
        "db OK>WARNING",
    ]
    assert gist(health.take(became(7, WARNING, CRITICAL))) == ["CRITICAL>WARNING"]


def test_a_word_about_the_prober_goes_by_the_beat_that_it_was_derived_from() -> None:
    stalled = part("prober", STALLED, OK, "agent")
    moves = part("prober", OK, STALLED, "agent")
    health = record(became(5, STALLED, OK, stalled, sequence=100), became(5, OK, STALLED, moves, sequence=110))
    late = became(5, STALLED, OK, stalled, sequence=101)
    assert health.take(late) is None
    assert (health.value, health.parts) == (OK, {})
    assert gist(health.take(became(5, STALLED, OK, stalled, sequence=130))) == ["OK>STALLED", "prober OK>STALLED"]


def test_who_tells_a_report_that_is_known_says_nothing_of_the_node_by_what_it_has_not_yet_seen_of_the_prober() -> None:
    stalled = part("prober", STALLED, OK, "agent")
    health = record(
        became(5, STALLED, OK, stalled, sequence=100),
        became(5, OK, STALLED, part("prober", OK, STALLED, "agent"), sequence=110),
        became(6, CRITICAL, OK, part("web", CRITICAL), sequence=111),
        became(7, OK, CRITICAL, part("web", OK, CRITICAL), sequence=112),
    )
    assert health.take(became(7, STALLED, CRITICAL, part("web", OK, CRITICAL), sequence=120)) is None
    assert health.value is OK


def test_a_new_incarnation_begins_anew_and_words_of_those_before_it_are_too_late() -> None:
    health = record(became(50, CRITICAL, OK, part("web", CRITICAL)))
    assert gist(health.take(became(1, OK, CRITICAL, part("web", OK, CRITICAL), incarnation=7))) == [
        "CRITICAL>OK",
        "web CRITICAL>OK",
    ]
    assert health.take(became(51, DEADLOCKED, CRITICAL, part("web", DEADLOCKED))) is None
    for incarnation in range(8, 30):
        health.take(became(1, WARNING, OK, incarnation=incarnation))
    assert len(health.retired) == RETIRED_MAX


def test_the_first_word_ever_is_taken_as_it_was_said() -> None:
    health = HealthRecord()
    assert gist(health.take(became(5, CRITICAL, WARNING, part("web", CRITICAL, WARNING)))) == [
        "WARNING>CRITICAL",
        "web WARNING>CRITICAL",
    ]


def test_what_was_told_outlives_the_root() -> None:
    health = record(became(5, CRITICAL, OK, part("web", CRITICAL), part("db", WARNING)))
    state = health.fill(NodeState(node=NODE, rack=RACK, liveness=Liveness.ALIVE))
    again = HealthRecord()
    again.restore(msgspec.json.decode(msgspec.json.encode(state), type=NodeState))
    assert again.take(became(5, CRITICAL, OK, part("web", CRITICAL), part("db", WARNING))) is None
    assert gist(again.take(became(6, WARNING, CRITICAL, part("web", OK, CRITICAL)))) == [
        "CRITICAL>WARNING",
        "web CRITICAL>OK",
    ]


# ---- without a transition --------------------------------------------------------------------------------


def overdue_after(health: HealthRecord, value: Health, told: Report | None = None, seconds: int = 10) -> int | None:
    """After how many seconds of rows with this value it is believed."""
    for second in range(seconds):
        if health.counts(row(health=value), told):
            health.row(value, second * SECOND)
        if health.overdue(PATIENCE, second * SECOND):
            return second
    return None


def test_a_node_that_was_well_from_the_first_is_no_news() -> None:
    health = HealthRecord()
    assert overdue_after(health, OK) is None
    assert (health.value, health.known) == (OK, True)


def test_a_node_that_was_never_well_is() -> None:
    health = HealthRecord()
    said = report(1, CRITICAL, ("web", CRITICAL))
    assert overdue_after(health, CRITICAL, said) == 2
    assert gist(health.believe(CRITICAL, said)) == ["UNKNOWN>CRITICAL", "web OK>CRITICAL"]


def test_rows_that_go_on_saying_something_else_are_believed_with_the_report_that_made_them_so() -> None:
    health = record(became(5, DEADLOCKED, OK, part("web", DEADLOCKED)))
    healed = report(9, WARNING, ("db", WARNING))
    assert overdue_after(health, WARNING, healed) == 2
    assert gist(health.believe(WARNING, healed)) == ["DEADLOCKED>WARNING", "db OK>WARNING", "web DEADLOCKED>OK"]
    assert health.take(became(9, WARNING, DEADLOCKED, part("db", WARNING), part("web", OK, DEADLOCKED))) is None
    assert overdue_after(health, WARNING) is None


def test_a_leader_whose_rows_agree_outweighs_another_that_has_missed_a_report() -> None:
    health = record(became(5, CRITICAL, OK, part("web", CRITICAL)))
    for second in range(10):
        health.row(OK, second * SECOND)
        health.row(CRITICAL, second * SECOND + 1)
        assert not health.overdue(PATIENCE, second * SECOND + 1)


def test_a_leader_without_a_report_of_its_own_has_no_say() -> None:
    health = record(became(5, CRITICAL, OK, part("web", CRITICAL)))
    assert overdue_after(health, UNKNOWN) is None
    assert overdue_after(health, UNKNOWN, report(5, CRITICAL)) is None
    assert overdue_after(health, UNKNOWN, report(6, UNKNOWN)) == 2


def test_a_leader_that_has_heard_no_beat_since_has_no_say_either() -> None:
    health = record(became(5, CRITICAL, OK, part("web", CRITICAL), sequence=20))
    assert not health.counts(row(health=OK, sequence=19), None)
    assert health.counts(row(health=OK, sequence=20), None)
    assert health.counts(row(health=OK, sequence=1, incarnation=INCARNATION + 1), None)
    assert HealthRecord().counts(row(health=OK, sequence=0), None)


def test_nor_has_one_that_goes_by_an_older_report() -> None:
    health = record(became(5, CRITICAL, OK, part("web", CRITICAL)))
    assert not health.counts(row(health=OK, report=4), None)
    assert health.counts(row(health=OK, report=5), None)
    assert health.counts(row(health=OK, report=0), None), "an older leader does not say"
    assert health.counts(row(health=OK, report=1, incarnation=INCARNATION + 1), None)


def test_a_stalled_prober_is_read_from_a_row_that_is_worse_than_the_report() -> None:
    health = record()
    said = report(3, WARNING, ("web", WARNING))
    assert gist(health.believe(STALLED, said)) == ["OK>STALLED", "prober OK>STALLED", "web OK>WARNING"]
    assert health.parts[PROBER] is STALLED
    assert gist(health.believe(WARNING, said)) == ["STALLED>WARNING", "prober STALLED>OK"]


def test_one_behind_something_worse_is_left_as_it_is() -> None:
    health = record(became(3, STALLED, OK, part("prober", STALLED, OK, "agent")))
    assert gist(health.believe(CRITICAL, report(4, CRITICAL, ("web", CRITICAL)))) == [
        "STALLED>CRITICAL",
        "web OK>CRITICAL",
    ]
    assert health.parts[PROBER] is STALLED


def test_the_report_that_comes_after_a_row_tells_what_made_it_so_and_is_no_news() -> None:
    health = record()
    assert gist(health.believe(CRITICAL, None)) == ["OK>CRITICAL"]
    health.passed_on(report(4, WARNING, ("disk", WARNING)), 0)
    health.passed_on(report(5, CRITICAL, ("web", CRITICAL)), 0)
    assert health.parts == {("app", "web"): CRITICAL}
    assert not health.overdue(PATIENCE, 60 * SECOND)
    assert health.take(became(5, CRITICAL, OK, part("web", CRITICAL))) is None
    assert gist(health.take(became(6, OK, CRITICAL, part("web", OK, CRITICAL)))) == ["CRITICAL>OK", "web CRITICAL>OK"]


def test_a_row_alone_is_believed_too_and_the_transition_that_comes_after_it_is_told_to_nobody() -> None:
    health = record()
    assert gist(health.believe(CRITICAL, None)) == ["OK>CRITICAL"]
    assert health.take(became(5, CRITICAL, OK, part("web", CRITICAL))) is None
    assert health.parts == {("app", "web"): CRITICAL}
    assert gist(health.believe(OK, None)) == ["CRITICAL>OK", "web CRITICAL>OK"]


@pytest.mark.parametrize(
    "older", [report(4, CRITICAL, ("web", CRITICAL)), report(9, CRITICAL, ("web", CRITICAL), incarnation=1)]
)
def test_a_report_that_is_older_than_what_was_told_explains_nothing(older: Report) -> None:
    health = record(became(1, CRITICAL, OK, incarnation=1), became(5, OK, CRITICAL))
    health.passed_on(older, 0)
    assert not health.overdue(PATIENCE, 60 * SECOND)
    assert gist(health.believe(CRITICAL, older)) == ["OK>CRITICAL"]
    assert health.report == 5


def test_a_report_with_other_parts_and_no_transition_is_believed_after_a_while() -> None:
    health = record(became(5, CRITICAL, OK, part("web", CRITICAL)))
    said = report(7, CRITICAL, ("db", CRITICAL))
    health.passed_on(said, 0)
    assert not health.overdue(PATIENCE, PATIENCE - 1)
    health.row(CRITICAL, PATIENCE)
    assert health.overdue(PATIENCE, PATIENCE)
    assert gist(health.believe(CRITICAL, said)) == ["CRITICAL>CRITICAL", "db OK>CRITICAL", "web CRITICAL>OK"]


def test_a_report_says_nothing_of_the_prober_and_does_not_take_back_that_it_is_stalled() -> None:
    health = record(became(5, STALLED, OK, part("prober", STALLED, OK, "agent")))
    health.passed_on(report(6, OK), 0)
    assert not health.overdue(PATIENCE, 60 * SECOND)


def test_what_its_transition_had_no_room_for_is_taken_from_the_report_and_not_told_again() -> None:
    health = record(became(5, CRITICAL, OK, part("web", CRITICAL)))
    health.passed_on(report(5, CRITICAL, ("web", CRITICAL), ("db", WARNING)), 0)
    assert not health.overdue(PATIENCE, 60 * SECOND)
    assert gist(health.take(became(6, CRITICAL, CRITICAL, part("db", OK, WARNING)))) == [
        "CRITICAL>CRITICAL",
        "db WARNING>OK",
    ]
