"""Replay: detection time and mistakes of recorded beats, and the observer's guards."""

from __future__ import annotations

import random

import pytest

from hbagent.core.config import DetectorConfig
from hbagent.core.detector import KINDS
from hbagent.core.units import HOUR, MILLISECOND, SECOND
from hbagent.sim.recording import TICK, Emission, Event, Loss, Recording, Way, deliver
from hbagent.sim.replay import Asking, Figures, replay

INTERVAL = 100 * MILLISECOND
MARGIN = 40 * MILLISECOND
CONFIG = DetectorConfig(margin_ns=MARGIN, mistakes_per_day=0)


def beats(count: int, node: str = "a", late: dict[int, int] | None = None, lost: tuple[int, ...] = ()) -> Recording:
    """Beats every 100 ms that take 1 ms, some of them `late` by so many ms more and some lost."""
    delays = {i: 1 + (late or {}).get(i, 0) for i in range(count) if i not in lost}
    events = [Event(i * INTERVAL + delay * MILLISECOND, node, i, i * INTERVAL) for i, delay in delays.items()]
    events.sort(key=lambda event: event.at)
    return Recording(node, events, [Loss(node, i, i * INTERVAL) for i in lost], [])


def rack(nodes: int, stall: tuple[int, int], ticking: bool = True) -> Recording:
    """Ten seconds of a rack whose observer does not run within `stall` (ms), and reads what waits when it does."""
    start, end = (edge * MILLISECOND for edge in stall)
    rows: list[tuple[int, Event]] = []
    for i in range(100):
        for node in range(nodes):
            sent = i * INTERVAL + node * MILLISECOND
            rows.append((sent + MILLISECOND, Event(0, f"n{node}", i, sent)))
    for planned in range(0, 10 * SECOND, 10 * MILLISECOND) if ticking else ():
        rows.append((planned, Event(0, TICK, 0, planned)))
    rows.sort()
    return Recording("rack", [e._replace(at=end if start <= at < end else at) for at, e in rows], [], [])


def play(*recordings: Recording, config: DetectorConfig = CONFIG, guarded: bool = True) -> Figures:
    return replay(recordings, config, INTERVAL, guarded=guarded)


def test_detection_time_is_from_the_last_sending_to_the_deadline() -> None:
    figures = play(beats(100))
    assert figures.detection_time_mean_ms == figures.detection_time_p99_ms == 100 + 1 + 40
    assert (figures.mistakes, figures.mistakes_per_node_hour, figures.query_accuracy) == (0, 0.0, 1.0)
    assert (figures.nodes, figures.beats, figures.lost) == (1, 100, 0)
    assert figures.node_hours == pytest.approx(99 * INTERVAL / HOUR)


def test_a_beat_later_than_its_deadline_is_one_mistake_as_long_as_it_was_late() -> None:
    figures = play(beats(100, late={50: 60}))
    assert figures.mistakes == 1
    assert figures.mistakes_per_node_hour == pytest.approx(1 / figures.node_hours)
    assert figures.query_accuracy == pytest.approx(1 - 20 / 9900)


def test_a_beat_at_its_deadline_is_no_mistake_and_one_nanosecond_later_it_is() -> None:
    assert play(beats(100, late={50: 40})).mistakes == 0
    late = beats(100, late={50: 40})
    late.events[50] = late.events[50]._replace(at=late.events[50].at + 1)
    assert play(late).mistakes == 1


def test_a_lost_beat_is_a_mistake_where_the_margin_is_less_than_an_interval() -> None:
    assert play(beats(100, lost=(50,))).mistakes == 1
    assert play(beats(100, lost=(50,)), config=DetectorConfig(margin_ns=INTERVAL, mistakes_per_day=0)).mistakes == 0


def test_a_sender_that_dies_after_a_lost_beat_is_detected_by_the_deadline_of_the_one_before() -> None:
    heard, lost = 100 + 1 + 40, 1 + 40
    assert play(beats(5, lost=(3,))).detection_time_mean_ms == pytest.approx((4 * heard + lost) / 5)


def test_a_sender_that_is_suspected_already_is_detected_at_once() -> None:
    times = 5 * (100 + 1 + 40) + (1 + 40) + 0 + 0
    assert play(beats(8, lost=(3, 4, 5))).detection_time_mean_ms == pytest.approx(times / 8)


def test_beats_lost_before_the_first_that_arrived_have_no_deadline_to_speak_of() -> None:
    figures = play(beats(10, lost=(0, 1)))
    assert figures.detection_time_mean_ms == 141
    assert (figures.beats, figures.lost) == (10, 2)


def test_an_overtaken_beat_clears_nothing_and_moves_no_deadline() -> None:
    seen: list[tuple[str, int, int]] = []
    replay([beats(100, late={50: 130})], CONFIG, INTERVAL, deadlines=lambda *row: seen.append(row))
    arrived = [sequence for _, sequence, _ in seen]
    assert arrived[49:53] == [49, 51, 50, 52]
    assert seen[50][2] == seen[51][2]


def test_each_beat_that_arrived_has_its_deadline_told() -> None:
    seen: list[tuple[str, int, int]] = []
    replay([beats(3, lost=(1,))], CONFIG, INTERVAL, deadlines=lambda *row: seen.append(row))
    assert seen == [("a", 0, 141 * MILLISECOND), ("a", 2, 341 * MILLISECOND)]


def test_silence_at_the_end_of_a_recording_is_no_mistake() -> None:
    ends = beats(10)
    other = beats(100, "b")
    merged = sorted(ends.events + other.events, key=lambda event: event.at)
    assert play(Recording("rack", merged, [], [])).mistakes == 0


def test_the_99th_percentile_is_the_time_that_99_of_100_do_not_exceed() -> None:
    fixed = DetectorConfig(kind="fixed", margin_ns=MARGIN)
    assert play(beats(100, late={99: 30}), config=fixed).detection_time_p99_ms == 141
    assert play(beats(100, late={98: 30, 99: 30}), config=fixed).detection_time_p99_ms == 171


def test_several_recordings_are_pooled_and_do_not_meet() -> None:
    one, two = beats(100, late={50: 60}), beats(200)
    figures = play(one, two)
    assert (figures.nodes, figures.beats, figures.mistakes) == (2, 300, 1)
    assert figures.node_hours == pytest.approx(play(one).node_hours + play(two).node_hours)


def test_a_recording_without_an_arrival_has_no_figures() -> None:
    figures = play(Recording("a", [], [Loss("a", 1, 0)], []))
    assert figures == Figures(None, None, None, None, 0.0, 0, 1, 1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_detector_suspects_a_sender_that_is_cut_off_and_clears_it(kind: str) -> None:
    cut = beats(2000, lost=tuple(range(1500, 1600)))
    assert play(cut, config=DetectorConfig(kind=kind, margin_ns=MARGIN, mistakes_per_day=0)).mistakes == 1


def test_a_stalled_observer_reads_before_it_judges_and_suspects_nobody() -> None:
    stalled = rack(8, (5000, 5600))
    assert play(stalled).mistakes == 0
    assert play(stalled, guarded=False).mistakes == 8


def test_while_a_tick_is_overdue_what_waits_is_read_and_nobody_is_judged() -> None:
    events = [e for e in rack(2, (0, 0)).events if e.at < SECOND]
    # The tick planned for 1.00 s runs at 1.43 s, when the beats that waited have been read one by one.
    events += [Event((1400 + 29 * i) * MILLISECOND, f"n{i}", 13, (1300 + i) * MILLISECOND) for i in range(2)]
    assert play(Recording("rack", events, [], [])).mistakes == 2
    events.append(Event(1430 * MILLISECOND, TICK, 0, SECOND))
    assert play(Recording("rack", events, [], [])).mistakes == 0


def test_a_deadline_within_a_lag_too_short_to_count_is_judged_when_the_observer_runs_again() -> None:
    times = [(861, "a", 1, 861), (1004, TICK, 0, 1000), (1010, TICK, 0, 1010), (1104, "a", 2, 1061)]
    events = [Event(at * MILLISECOND, node, number, sent * MILLISECOND) for at, node, number, sent in times]
    figures = play(Recording("rack", events, [], []))
    assert figures.mistakes == 1
    assert figures.query_accuracy == pytest.approx(1 - 100 / 243)


def test_the_lag_of_the_observer_is_added_for_who_was_heard_before_it_and_for_nobody_else() -> None:
    # The observer was away from 4.95 s to 5.05 s; its next beats come 100 ms late, as long as it was away.
    events = rack(1, (4950, 5050)).events
    late = [
        event._replace(at=event.at + 99 * MILLISECOND) if event.node == "n0" and event.sequence == 50 else event
        for event in events
    ]
    late.sort(key=lambda event: event.at)
    assert play(Recording("rack", late, [], [])).mistakes == 0
    later = [
        event._replace(at=event.at + 99 * MILLISECOND) if event.node == "n0" and event.sequence == 53 else event
        for event in events
    ]
    later.sort(key=lambda event: event.at)
    assert play(Recording("rack", later, [], [])).mistakes == 1


def test_a_node_that_dies_during_a_stall_of_the_observer_stays_suspected() -> None:
    stalled = rack(4, (5000, 5600))
    dead = [event for event in stalled.events if event.node != "n1" or event.sequence < 52 or event.sequence > 90]
    assert play(Recording("rack", dead, [], [])).mistakes == 1


def test_ticks_are_no_node_and_no_beat() -> None:
    figures = play(rack(3, (0, 0)))
    assert (figures.nodes, figures.beats) == (3, 300)


def test_emissions_over_a_made_up_way_give_the_figures_of_their_losses() -> None:
    sent = Recording("a", [], [], [Emission(i, i * INTERVAL, i * INTERVAL) for i in range(2000)])
    clean, lossy = (deliver(sent, Way(250_000, loss, "1")) for loss in (0.0, 0.02))
    assert play(clean).mistakes == 0
    figures = play(lossy)
    assert figures.lost == len(lossy.losses) > 0
    assert 0 < figures.mistakes <= figures.lost


def test_a_share_that_is_only_learned_from_is_in_no_figure() -> None:
    figures = replay([beats(101, late={20: 60, 80: 70})], CONFIG, INTERVAL, learn_share=0.5)
    assert figures.mistakes == 1
    assert figures.node_hours == pytest.approx(50 * INTERVAL / HOUR, rel=0.02)
    lost = replay([beats(101, lost=(20, 80))], CONFIG, INTERVAL, learn_share=0.5)
    assert (lost.mistakes, lost.beats, lost.lost) == (1, 101, 2)
    assert lost.detection_time_mean_ms == pytest.approx((50 * 141 + 41) / 51, rel=0.01)


def test_a_margin_learned_from_one_half_lets_as_many_mistakes_pass_in_the_other() -> None:
    rng = random.Random(5)
    late = {i: round(rng.paretovariate(1.5) * 15) for i in range(36_000) if rng.random() < 0.003}
    config = DetectorConfig(mistakes_per_day=40 * 24)
    figures = replay([beats(36_000, late=late)], config, INTERVAL, learn_share=0.5)
    assert 10 <= figures.mistakes <= 32
    assert figures.margin_mean_ms is not None
    assert 20 < figures.margin_mean_ms < 90


def test_a_crowd_of_late_nodes_is_held_and_a_lone_one_is_not() -> None:
    crowd = [rack(12, (0, 0)).events, rack(12, (0, 0)).events]
    for events, silent in zip(crowd, (6, 1), strict=True):
        names = {f"n{i}" for i in range(silent)}
        # A switch between these and the observer holds what they send for 130 ms, and gives all of it at once.
        held = [
            e._replace(at=5230 * MILLISECOND) if e.node in names and 5.1 <= e.at / SECOND < 5.23 else e for e in events
        ]
        held.sort(key=lambda event: event.at)
        assert play(Recording("rack", held, [], [])).mistakes == (1 if silent == 1 else 0)
        assert play(Recording("rack", held, [], []), guarded=False).mistakes == silent


def asked(recording: Recording, loss: float = 0.0, config: DetectorConfig = CONFIG) -> Figures:
    return replay([recording], config, INTERVAL, asking=Asking(250_000, loss, "1"))


def sender(count: int = 2000, sleeps: dict[int, int] | None = None, blocked: dict[int, int] | None = None) -> Recording:
    """Emissions every 100 ms; before some it oversleeps by so many ms, in some the call to send takes so many."""
    at, emissions = 0, []
    for i in range(count):
        at += (sleeps or {}).get(i, 0) * MILLISECOND
        emissions.append(Emission(i, at, at + (blocked or {}).get(i, 0) * MILLISECOND))
        at = max(at + INTERVAL, emissions[-1].end)
    return Recording("a", [], [], emissions)


def test_a_lost_beat_is_asked_about_and_the_answer_clears_the_doubt() -> None:
    lossy = deliver(sender(), Way(250_000, 0.02, "1"))
    assert play(lossy).mistakes > 20
    figures = asked(lossy)
    assert figures.mistakes == 0
    assert figures.detection_time_mean_ms == pytest.approx(play(lossy).detection_time_mean_ms, rel=0.01)
    # The first round goes out on two paths.
    assert 2 * figures.lost <= figures.pings <= 2.5 * figures.lost
    assert figures.extra_messages_share == figures.pings / figures.beats


def test_questions_that_are_lost_are_asked_again() -> None:
    lossy = deliver(sender(), Way(250_000, 0.02, "1"))
    assert asked(lossy, loss=0.2).mistakes <= 2
    assert asked(lossy, loss=1.0).mistakes == play(lossy).mistakes


@pytest.mark.parametrize("stalled", [sender(sleeps={1000: 60}), sender(blocked={1000: 60})])
def test_a_sender_that_does_not_run_answers_nothing(stalled: Recording) -> None:
    assert asked(deliver(stalled, Way(250_000, 0.0, "1"))).mistakes == 1


def test_a_sender_that_stalls_for_less_than_the_margin_is_not_suspected() -> None:
    figures = asked(deliver(sender(sleeps={1000: 30}), Way(250_000, 0.0, "1")))
    assert (figures.mistakes, figures.pings) == (0, 4)


def test_an_answer_given_after_a_lost_beat_puts_off_nothing_for_a_sender_that_died_with_that_beat() -> None:
    delivered = deliver(sender(20), Way(0, 0.0, "1"))
    events = [event for event in delivered.events if event.sequence not in (10, 11)]
    losses = [Loss("a", i, i * INTERVAL) for i in (10, 11)]
    figures = replay([delivered._replace(events=events, losses=losses)], CONFIG, INTERVAL, asking=Asking(0, 0.0, "1"))
    # After a beat that came 140 ms; after the first lost one 40; after the second the deadline that an answer put off.
    assert figures.detection_time_mean_ms == pytest.approx((18 * 140 + 40 + 40) / 20)


def mistaken_ms(figures: Figures) -> float:
    assert figures.query_accuracy is not None
    return (1 - figures.query_accuracy) * figures.node_hours * HOUR / MILLISECOND


def test_an_answer_to_an_old_question_proves_that_the_sender_lived_then_and_clears_nothing() -> None:
    delivered = deliver(sender(blocked={1000: 300}), Way(0, 0.0, "1"))
    # The beat of the blocked call and the one after it are lost; the next comes 100 ms after the sender runs again.
    events = [event for event in delivered.events if event.sequence not in (1000, 1001)]
    figures = replay([delivered._replace(events=events)], CONFIG, INTERVAL, asking=Asking(0, 0.0, "1"))
    assert mistaken_ms(figures) == pytest.approx(400 - 40, abs=1)


def test_after_a_stall_of_its_own_the_observer_listens_for_an_interval_before_it_judges() -> None:
    stalled = rack(2, (5000, 5600))
    dead = [event for event in stalled.events if event.node != "n1" or not 50 <= event.sequence <= 90]
    figures = play(Recording("rack", dead, [], []))
    # n1 is heard again at 9.102 s; its own deadline and the lag end at 5.642 s.
    assert mistaken_ms(figures) == pytest.approx(9102 - 5740, abs=1)
