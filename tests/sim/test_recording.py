"""Recordings: what is read from a file, what is refused, and the made-up way of emissions."""

from __future__ import annotations

import gzip
import statistics
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.units import MICROSECOND, MILLISECOND, SECOND
from hbagent.sim import recording
from hbagent.sim.recording import (
    Emission,
    Event,
    Loss,
    Recording,
    RecordingError,
    Way,
    deliver,
    read_recording,
)


def written(directory: Path, text: str, name: str = "host1.csv") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def emissions(count: int, stall_ns: int = 0) -> Recording:
    """Beats every 100 ms; the call to send the tenth takes `stall_ns`."""
    starts = [i * 100 * MILLISECOND + (stall_ns if i > 10 else 0) for i in range(count)]
    return Recording(
        "host1", [], [], [Emission(i, at, at + (stall_ns if i == 10 else 0)) for i, at in enumerate(starts)]
    )


def test_the_beats_of_one_sender_stand_in_the_order_of_arrival_and_empty_arrivals_are_losses(tmp_path: Path) -> None:
    path = written(tmp_path, "seq,sent_s,arrived_s\n0,-0.208,0.0\n1,0.1,0.5\n2,0.2,0.4\n3,0.3,\n")
    assert read_recording(path) == Recording(
        "host1",
        [
            Event(0, "host1", 0, -208 * MILLISECOND),
            Event(400 * MILLISECOND, "host1", 2, 200 * MILLISECOND),
            Event(500 * MILLISECOND, "host1", 1, 100 * MILLISECOND),
        ],
        [Loss("host1", 3, 300 * MILLISECOND)],
        [],
    )


def test_a_rack_keeps_its_ticks_and_the_order_of_one_instant(tmp_path: Path) -> None:
    path = written(tmp_path, "node,seq,sent_s,arrived_s\nb,1,1,2.000001\ntick,0,2,2.000001\na,1,1,2.000001\n")
    at = 2 * SECOND + MICROSECOND
    assert read_recording(path).events == [
        Event(at, "b", 1, SECOND),
        Event(at, "tick", 0, 2 * SECOND),
        Event(at, "a", 1, SECOND),
    ]


def test_emissions_are_read_as_such(tmp_path: Path) -> None:
    sender = read_recording(written(tmp_path, "seq,send_begin_s,send_end_s\n0,0,0.000147\n1,0.100124,0.100203\n"))
    assert sender.emissions == [
        Emission(0, 0, 147 * MICROSECOND),
        Emission(1, 100_124 * MICROSECOND, 100_203 * MICROSECOND),
    ]
    assert not sender.events


def test_a_gzipped_file_reads_as_the_plain_one_whatever_its_name(tmp_path: Path) -> None:
    text = "seq,sent_s,arrived_s\n0,0,1\n"
    (tmp_path / "host1.data").write_bytes(gzip.compress(text.encode()))
    assert read_recording(tmp_path / "host1.data") == read_recording(written(tmp_path, text))


def test_a_sender_whose_file_is_called_tick_is_no_tick_of_the_observer(tmp_path: Path) -> None:
    path = written(tmp_path, "seq,sent_s,arrived_s\n0,0,1\n", "tick.csv")
    assert read_recording(path).events[0].node == "tick.csv"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ":1: columns ''; a recording has seq,sent_s,arrived_s"),
        ("a,b\n1,2\n", ":1: columns 'a,b'; a recording has"),
        ("seq,sent_s,arrived_s\n0,0,1\n1,2\n", ":3: 2 columns where there should be 3"),
        ("node,seq,sent_s,arrived_s\n0,0,1\n", ":2: 3 columns where there should be 4"),
        ("seq,sent_s,arrived_s\n-1,0,1\n", ":2: sequence '-1' is not a whole number"),
        ("seq,sent_s,arrived_s\n٣,0,1\n", ":2: sequence '٣' is not a whole number"),
        ("seq,sent_s,arrived_s\n" + "9" * 21 + ",0,1\n", " is not a whole number"),
        ("seq,sent_s,arrived_s\n0,soon,1\n", ":2: time 'soon' is not a number of seconds"),
        ("seq,sent_s,arrived_s\n0,nan,1\n", ":2: time 'nan' is more than 31 years from zero"),
        ("seq,sent_s,arrived_s\n0,0,1e300\n", ":2: time '1e300' is more than 31 years from zero"),
        ("seq,sent_s,arrived_s\n0,,\n", ":2: time '' is not a number of seconds"),
        ("seq,send_begin_s,send_end_s\n0,1,0.5\n", ":2: the call to send returned at 0.5 before it began at 1"),
        ("seq,send_begin_s,send_end_s\n0,0,2\n1,1,3\n", ":3: sent at 1 before the call of the beat before it returned"),
        ("seq,sent_s,arrived_s\n\udcff\n", ": not a text file"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_file_and_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "host1.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RecordingError) as refused:
        read_recording(path)
    assert str(refused.value).startswith(str(path))
    assert reason in str(refused.value)


def test_a_file_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "seq,sent_s,arrived_s\n0,0,1\n1,1,2\n2,2,3\n")
    monkeypatch.setattr(recording, "ROWS_MAX", 3)
    assert len(read_recording(path).events) == 3
    monkeypatch.setattr(recording, "ROWS_MAX", 2)
    with pytest.raises(RecordingError, match=":4: more than 2 rows"):
        read_recording(path)


def test_a_file_that_is_missing_a_directory_or_torn_is_refused(tmp_path: Path) -> None:
    torn = tmp_path / "torn.csv.gz"
    torn.write_bytes(gzip.compress(b"seq,sent_s,arrived_s\n" + b"0,0,1\n" * 1000)[:-20])
    for path in (tmp_path / "none.csv", tmp_path, torn):
        with pytest.raises(RecordingError, match=str(path)):
            read_recording(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_recording_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    for start in (b"", b"\x1f\x8b", b"seq,sent_s,arrived_s\n", b"node,seq,sent_s,arrived_s\n"):
        path.write_bytes(start + data)
        try:
            read_recording(path)
        except RecordingError as refused:
            assert str(path) in str(refused)


def test_the_same_seed_makes_up_the_same_way_and_another_seed_another() -> None:
    sent = emissions(200)
    assert deliver(sent, Way(MILLISECOND, 0.1, "3")) == deliver(sent, Way(MILLISECOND, 0.1, "3"))
    assert deliver(sent, Way(MILLISECOND, 0.1, "3")) != deliver(sent, Way(MILLISECOND, 0.1, "4"))


def test_the_made_up_delay_has_the_median_and_the_loss_the_share_that_were_asked_for() -> None:
    way = deliver(emissions(5000), Way(MILLISECOND, 0.02, "1"))
    delays = [event.at - event.sent for event in way.events]
    assert statistics.median(delays) == pytest.approx(MILLISECOND, rel=0.05)
    assert len(way.losses) == pytest.approx(100, abs=40)
    assert len(way.losses) + len(way.events) == 5000


def test_beats_of_one_sender_do_not_overtake_one_another() -> None:
    events = deliver(emissions(2000), Way(200 * MILLISECOND, 0.0, "1")).events
    assert [event.sequence for event in events] == list(range(2000))
    assert all(before.at <= after.at for before, after in pairwise(events))


def test_a_beat_leaves_when_the_call_to_send_returns() -> None:
    event = deliver(emissions(20, stall_ns=SECOND), Way(0, 0.0, "1")).events[10]
    assert (event.sent, event.at) == (SECOND, 2 * SECOND)
