"""What a host writes for node_exporter: all probes and applications, and nothing that a plugin says breaks it."""

from __future__ import annotations

from hbagent.core import agentmetrics
from hbagent.core.agentmetrics import render
from hbagent.core.messages import AppRow, MarkRow, Measure, ProbeResult, Vitals
from hbagent.core.states import AppState, Health
from tests.build import NODE, WALL_NS, T
from tests.scraped import Scraped


def vitals(*probes: ProbeResult, apps: tuple[AppRow, ...] = ()) -> Vitals:
    return Vitals(health=Health.WARNING, probes=probes, apps=apps)


def test_probes_and_applications_are_told_whatever_their_state() -> None:
    disk = ProbeResult(
        name="disk",
        health=Health.WARNING,
        kind="host",
        age_ns=T(2),
        measures=(Measure(label="/", value=81.5, unit="%"), Measure(label="lost", value=None)),
    )
    load = ProbeResult(name="load", health=Health.OK, kind="host")
    mark = MarkRow(name="worker", count=17, queued=3)
    web = AppRow(name="web", health=Health.STALLED, state=AppState.STUCK, marks=(mark, MarkRow(name="idle", count=1)))
    found = Scraped(render(vitals(disk, load, apps=(web,)), NODE, WALL_NS))
    assert found.value("hbagent_node_info", node=NODE) == 1
    assert found.labels("hbagent_health") == [{"state": "WARNING"}]
    assert found.labels("hbagent_probe_status") == [
        {"probe": "disk", "kind": "host", "state": "WARNING"},
        {"probe": "load", "kind": "host", "state": "OK"},
    ]
    assert found.value("hbagent_probe_last_run_timestamp_seconds", probe="disk") == (WALL_NS - T(2)) / 1e9
    assert found.value("hbagent_probe_measure", probe="disk", measure="/", unit="%") == 81.5
    assert not found.of("hbagent_probe_measure", measure="lost"), "a plugin that could not tell"
    assert found.value("hbagent_app_health", app="web", state="STALLED") == 1
    assert found.value("hbagent_app_state", app="web", state="stuck") == 1
    assert found.value("hbagent_app_progress_total", app="web", mark="worker") == 17
    assert found.value("hbagent_app_queued", app="web", mark="worker") == 3
    assert not found.of("hbagent_app_queued", mark="idle")


def test_examinations_are_counted_and_those_that_had_to_wait() -> None:
    found = Scraped(render(Vitals(health=Health.OK, examinations=12, examinations_put_off=3), NODE, WALL_NS))
    assert found.value("hbagent_examinations_total") == 12
    assert found.value("hbagent_examinations_put_off_total") == 3


def test_no_sample_has_a_time_of_its_own() -> None:
    text = render(vitals(ProbeResult(name="disk", health=Health.OK)), NODE, WALL_NS).decode()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples and all(len(line.rpartition("}")[2].split()) == 1 + ("}" not in line) for line in samples)


def test_measures_with_hostile_names_and_the_same_name_twice_can_be_read() -> None:
    labels = ['a"} 1\nx', "a\x1b[0m", "x" * 5000, "x" * 5001, "twice", "twice"]
    measures = tuple(Measure(label=label, value=1.0) for label in labels)
    found = Scraped(render(vitals(ProbeResult(name="p", health=Health.OK, measures=measures)), NODE, WALL_NS))
    assert len(found.labels("hbagent_probe_measure")) == 4


def test_numbers_that_are_none_are_written_as_such() -> None:
    measures = tuple(Measure(label=str(value), value=value) for value in (float("inf"), float("nan")))
    text = render(vitals(ProbeResult(name="p", health=Health.OK, measures=measures)), NODE, WALL_NS)
    assert b'measure="inf"} +Inf\n' in text and b'measure="nan"} NaN\n' in text


def test_a_plugin_that_measures_without_end_fills_no_disk() -> None:
    measures = tuple(Measure(label=f"m{n}", value=n) for n in range(100))
    probes = [ProbeResult(name=f"p{n}", health=Health.OK, measures=measures) for n in range(100)]
    found = Scraped(render(vitals(*probes), NODE, WALL_NS))
    assert len(found.labels("hbagent_probe_measure")) == agentmetrics.MEASURES_MAX
    assert len(found.labels("hbagent_probe_status")) == 100
