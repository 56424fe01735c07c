from __future__ import annotations

from typing import Any

from hbagent.core.chronicle import Chronicle
from hbagent.core.messages import Evidence
from hbagent.core.records import MEMBERS_TOLD_MAX, Event, HookRun
from hbagent.core.states import Axis, Cause, Health, Kind, Liveness
from hbagent.core.summary import NAMES_MAX, summary_of, topic_of
from tests.build import LEADER, RACK, WALL_NS, event, part, run


def dead(number: int, cause: Cause = Cause.HOST_GONE, rack: str = RACK, **fields: Any) -> HookRun:
    values = {"subject": f"{rack}/n{number}", "rack": rack, "axis": Axis.LIVENESS, "kind": Kind.NODE_DEAD}
    return run(number, **{**values, "cause": cause, "incident": "i1", **fields})


def told(*runs: HookRun) -> Event:
    return summary_of(Chronicle(1), runs, [None] * len(runs), WALL_NS)


def text(*runs: HookRun) -> str:
    evidence = told(*runs).evidence
    assert evidence is not None
    return evidence.text


def test_a_summary_says_how_many_of_what_where_and_who() -> None:
    made = told(*(dead(number) for number in range(40)))
    assert (made.kind, made.rack, made.cause, made.count, made.incident) == (
        *(Kind.SUMMARY, RACK, Cause.HOST_GONE, 40),
        "i1",
    )
    assert made.liveness_to is Liveness.DEAD
    assert made.evidence is not None
    assert made.evidence.text.startswith(f"40 of rack {RACK}: DEAD (host-gone): {RACK}/n0, {RACK}/n1")
    assert made.evidence.text.endswith(f"and {40 - NAMES_MAX} more")


def test_several_causes_and_racks_are_counted_the_most_frequent_first() -> None:
    runs = [dead(1), dead(2), dead(3, Cause.SILENCE), dead(4, rack="dc1/rack2", incident="i2")]
    made = told(*runs)
    assert (made.rack, made.cause, made.incident) == ("", None, "")
    assert "4 in 2 racks: DEAD (host-gone 3, silence 1)" in text(*runs)
    assert text(*runs).endswith(f"most of them in {RACK} 3, dc1/rack2 1")


def test_an_end_names_nobody_dead() -> None:
    made = told(*(dead(number, end=True) for number in range(3)))
    assert (made.liveness_to, made.cause) == (Liveness.ALIVE, None)
    assert f"3 of rack {RACK}: well again" in text(*(dead(number, end=True) for number in range(3)))


def test_who_is_told_of_twice_counts_once_and_only_so_many_are_named() -> None:
    assert told(dead(1), dead(1, axis=Axis.HEALTH, kind=Kind.HEALTH_CHANGED)).count == 1
    assert len(told(*(dead(number) for number in range(500))).members) == MEMBERS_TOLD_MAX


def test_the_topic_of_a_death_is_its_cause_and_of_a_sickness_the_worst_part() -> None:
    assert topic_of(event(1, Kind.NODE_DEAD, cause=Cause.SILENCE)) == "silence"
    changes = (part("web", Health.CRITICAL), part("db", Health.WARNING))
    sick = event(1, Kind.HEALTH_CHANGED, evidence=Evidence(text="", changes=changes))
    assert topic_of(sick) == "app web"
    assert topic_of(event(1, Kind.HEALTH_CHANGED)) == ""
    assert topic_of(event(1, Kind.LEADER_LOST, node="")) == LEADER
    assert topic_of(event(1, Kind.RACK_DARK, node="", leader="")) == RACK


def test_who_is_gone_on_purpose_is_not_well_again() -> None:
    assert "3 of rack dc1/rack1: gone on purpose" in text(
        *(dead(number, end=True, kind=Kind.NODE_LEFT) for number in range(3))
    )


def test_who_is_told_of_twice_is_counted_once_in_the_words_too() -> None:
    both = (dead(1), dead(1, axis=Axis.HEALTH, kind=Kind.HEALTH_CHANGED), dead(2))
    assert text(*both).startswith("2 of rack dc1/rack1: DEAD (host-gone)")
