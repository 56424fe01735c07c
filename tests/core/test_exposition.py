"""The two texts that Prometheus reads: what is written is what its own parser finds, whatever the labels hold."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.exposition import (
    Exposition,
    Histogram,
    ProcessFacts,
    Rising,
    labels,
    number,
    wants_openmetrics,
)
from tests.scraped import Scraped


def exposition(openmetrics: bool) -> Exposition:
    out = Exposition(openmetrics)
    out.info("hbagent_build", "This process.", labels(version="1.2"))
    out.gauge("hbagent_hosts", "Hosts.", [(labels(state="ALIVE"), 3), (labels(state="DEAD"), None)])
    out.counter("hbagent_refused", "Refused.", [(labels(reason="stale"), 7), ("", 1.5)])
    spread = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 30.0):
        spread.observe(value)
    out.histogram("hbagent_detection_latency_seconds", "Latency.", [(labels(cause="silence"), spread), ("", spread)])
    out.gauge("hbagent_nothing", "A family without samples.", [])
    out.process(ProcessFacts(cpu_s=1.25, resident_bytes=1 << 30, started_s=1_795_262_400.5))
    return out


@pytest.mark.parametrize("openmetrics", [False, True])
def test_each_kind_of_family_is_read_as_it_was_meant(openmetrics: bool) -> None:
    found = Scraped(exposition(openmetrics).text(), openmetrics)
    assert found.value("hbagent_build_info", version="1.2") == 1
    assert found.labels("hbagent_hosts") == [{"state": "ALIVE"}]
    assert found.value("hbagent_refused_total", reason="stale") == 7
    assert found.value("hbagent_refused_total") == 1.5
    name = "hbagent_detection_latency_seconds"
    buckets = [found.value(f"{name}_bucket", cause="silence", le=le) for le in ("0.1", "1.0", "+Inf")]
    assert buckets == [2, 3, 4]
    assert found.value(f"{name}_count") == 4
    assert found.value(f"{name}_sum") == pytest.approx(30.65)
    assert "hbagent_nothing" not in found.names
    assert found.value("process_start_time_seconds") == 1_795_262_400.5
    assert "process_open_fds" not in found.names, "what could not be read is not told"


def test_the_formats_name_counters_and_words_each_in_its_way() -> None:
    plain, other = exposition(False).text(), exposition(True).text()
    assert b"# TYPE hbagent_refused_total counter\n" in plain and b"# TYPE hbagent_refused counter\n" in other
    assert b"# TYPE hbagent_build_info gauge\n" in plain and b"# TYPE hbagent_build info\n" in other
    assert other.endswith(b"\n# EOF\n") and b"# EOF" not in plain


def test_more_families_may_follow_before_the_end() -> None:
    first = Exposition(True)
    first.gauge("hbagent_web_listeners", "Listeners.", [("", 1)])
    found = Scraped(first.text(more=True) + exposition(True).text(), True)
    assert found.value("hbagent_web_listeners") == 1


@given(st.text(), st.text())
def test_any_text_is_a_label_in_one_line(name: str, reason: str) -> None:
    out = Exposition()
    out.gauge("hbagent_it", "It.", [(labels(name=name, reason=reason), 1)])
    text = out.text()
    assert text.count(b"\n") == 3
    (found,) = Scraped(text).labels("hbagent_it")
    shown = name.replace("\r", " ").encode("utf-8", "replace").decode()
    assert found.get("name", "") == shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (True, "1"), (0.1, "0.1"), (1e30, "1e+30"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN")],
)
def test_numbers_are_written_as_both_formats_read_them(value: float, text: str) -> None:
    assert number(value) == text


def test_a_counter_that_begins_again_does_not_make_its_sum_fall() -> None:
    rising = Rising()
    assert [rising.take(values) for values in ({"a": 5, "b": 1}, {"a": 7, "b": 1}, {"a": 2, "b": 1}, {"b": 3})] == [
        6,
        8,
        10,
        12,
    ]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=0.0.1", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x", False),
        ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.5", False),
        # What Prometheus 2.42 sends.
        (
            "application/openmetrics-text;version=1.0.0;q=0.75,application/openmetrics-text;version=0.0.1;q=0.5,"
            "text/plain;version=0.0.4;q=0.25,*/*;q=0.1",
            True,
        ),
    ],
)
def test_openmetrics_is_for_whoever_prefers_it(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted
