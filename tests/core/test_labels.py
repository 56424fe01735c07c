"""Labels and annotations: the same trouble has the same labels, and nothing in them can break a reader."""

from __future__ import annotations

import re

import pytest

from hbagent.core import labels
from hbagent.core.labels import alert_of, line, watchdog
from hbagent.core.messages import Evidence
from hbagent.core.records import Event, Trouble
from hbagent.core.states import Axis, Cause, Health, Kind
from tests.build import LEADER, NODE, RACK, WALL_NS


def trouble(kind: Kind = Kind.NODE_DEAD, axis: Axis = Axis.LIVENESS, subject: str = NODE, **fields: object) -> Trouble:
    fields = {"cause": Cause.HOST_GONE, "rack": RACK, "text": "nothing answers", **fields}
    return Trouble(subject=subject, axis=axis, kind=kind, incident="i7", event_id="00c0ffee-7", **fields)  # type: ignore[arg-type]


def event(kind: Kind = Kind.NODE_DEAD, text: str = "silent for 3.0s", **fields: object) -> Event:
    evidence = Evidence(text=text)
    return Event(
        event_id="00c0ffee-7",
        sequence=7,
        kind=kind,
        at_wall_ns=WALL_NS,
        evidence=evidence,
        **fields,  # type: ignore[arg-type]
    )


def test_a_dead_host_is_named_with_its_rack_and_its_cause() -> None:
    alert = alert_of(trouble(), event(host="down"))
    assert alert.labels == {
        "alertname": "HbagentHostDown",
        "cause": "host-gone",
        "host": NODE,
        "rack": RACK,
        "severity": "critical",
    }
    assert alert.annotations["summary"] == f"{NODE} is down (host-gone)"
    assert alert.annotations["description"] == "silent for 3.0s"
    assert alert.annotations["event_id"] == "00c0ffee-7" and alert.annotations["incident"] == "i7"
    assert alert.annotations["host_state"] == "down"
    assert alert.annotations["runbook"] == f"hbagent explain {NODE}"


def test_labels_are_the_same_whether_the_event_is_at_hand_or_not() -> None:
    """After a restart of the root only the trouble is known: other labels would be another alert."""
    for told in (trouble(), trouble(Kind.HEALTH_CHANGED, Axis.HEALTH, health=Health.STALLED, cause=None, drill=True)):
        assert alert_of(told, event(told.kind)).labels == alert_of(told).labels


@pytest.mark.parametrize(
    ("told", "name", "severity", "subject"),
    [
        (trouble(Kind.NODE_SUSPECT, cause=Cause.SILENCE), "HbagentHostSuspect", "warning", "host"),
        (trouble(cause=Cause.PROCESS_EXIT), "HbagentHostDown", "warning", "host"),
        (trouble(cause=Cause.PROCESS_FROZEN), "HbagentHostDown", "warning", "host"),
        (trouble(Kind.NODE_AWAY, cause=Cause.LEFT), "HbagentHostAway", "warning", "host"),
        (
            trouble(Kind.HEALTH_CHANGED, Axis.HEALTH, health=Health.DEADLOCKED),
            "HbagentHealthDeadlocked",
            "critical",
            "host",
        ),
        (trouble(Kind.HEALTH_CHANGED, Axis.HEALTH, health=Health.WARNING), "HbagentHealthWarning", "warning", "host"),
        (trouble(Kind.RACK_DARK, Axis.RACK, RACK), "HbagentRackDown", "critical", "rack"),
        (trouble(Kind.LEADER_LOST, Axis.LEADER, LEADER), "HbagentLeaderLost", "critical", "leader"),
    ],
)
def test_each_trouble_has_its_name_severity_and_subject(told: Trouble, name: str, severity: str, subject: str) -> None:
    found = alert_of(told).labels
    assert (found["alertname"], found["severity"], found[subject]) == (name, severity, told.subject)
    assert "" not in found.values(), "an empty label is no label"


def test_the_root_has_no_name_among_the_labels_for_there_is_one() -> None:
    found = alert_of(trouble(Kind.ROOT_ISOLATED, Axis.ROOT, "root", rack="", cause=Cause.ROOT_ISOLATED)).labels
    assert found == {"alertname": "HbagentRootIsolated", "cause": "root-isolated", "severity": "critical"}


def test_every_kind_and_health_gives_labels_that_alertmanager_takes() -> None:
    for kind in Kind:
        for health in Health:
            for name, value in alert_of(trouble(kind, Axis.HEALTH, health=health)).labels.items():
                assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) and value


def test_flapping_is_an_alert_of_its_own_for_each_axis() -> None:
    found = [labels.flapping(NODE, axis, RACK, "7-1").labels for axis in (Axis.LIVENESS, Axis.HEALTH)]
    assert {row["alertname"] for row in found} == {"HbagentHostFlapping"} and found[0] != found[1]
    assert labels.flapping(LEADER, Axis.LEADER, RACK, "7-1").labels["leader"] == LEADER


def test_a_drill_says_so_where_routes_can_see_it() -> None:
    assert alert_of(trouble(drill=True)).labels["drill"] == "true"
    assert "drill" not in alert_of(trouble()).labels


def test_a_summary_names_some_of_its_members_and_counts_the_others() -> None:
    members = tuple(f"{RACK}/node{number}" for number in range(40))
    text = alert_of(trouble(Kind.RACK_DARK, Axis.RACK, RACK), event(Kind.SUMMARY, members=members)).annotations[
        "description"
    ]
    assert f"{RACK}/node9 and 30 more]" in text and "node10" not in text


def test_hostile_text_becomes_one_line_without_control_characters() -> None:
    told = alert_of(trouble(), event(text="\x1b[31mred\x1b[0m\n<b>bold</b>\r\x00" + "x" * 10_000 + "\ud800"))
    text = told.annotations["description"]
    assert text.startswith("[31mred [0m <b>bold</b> xxx") and text.isprintable()
    assert len(text) == labels.ANNOTATION_MAX


def test_a_line_keeps_what_people_write() -> None:
    assert line("  Größe ≥ 5\u202f%\n\tok  ") == "Größe ≥ 5 % ok"


def test_the_watchdog_is_no_trouble_and_always_the_same() -> None:
    assert watchdog(7).labels == {"alertname": "HbagentWatchdog", "severity": "none"}
