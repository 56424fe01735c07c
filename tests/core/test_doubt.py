from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.doubt import Doubt
from hbagent.core.messages import STEPS_MAX
from hbagent.core.states import Cause

FRESH = 1_500


def test_without_evidence_there_is_only_silence() -> None:
    assert Doubt(1_000, 0).cause(FRESH) is Cause.SILENCE


def test_an_acknowledgement_holds_until_a_later_question_has_failed() -> None:
    doubt = Doubt(1_000, 0)
    doubt.acked(1_100)
    assert doubt.cause(FRESH) is Cause.PROCESS_FROZEN
    doubt.kernel_failed_at = 1_050
    assert doubt.cause(FRESH) is Cause.PROCESS_FROZEN
    doubt.kernel_failed_at = 1_200
    assert doubt.cause(FRESH) is Cause.SILENCE


def test_an_acknowledgement_before_the_connection_closed_shows_no_stopped_process() -> None:
    doubt = Doubt(1_000, 0)
    doubt.acked(1_100)
    doubt.closed = True
    assert doubt.cause(FRESH) is Cause.SILENCE


def test_somebody_elses_proof_outweighs_the_failure_of_another_for_a_while() -> None:
    doubt = Doubt(1_000, 0)
    doubt.heard_elsewhere("node2", 1_100)
    doubt.elsewhere_failed_at = 1_100 + FRESH
    assert doubt.cause(FRESH) is Cause.LINK_CUT
    doubt.elsewhere_failed_at += 1
    assert doubt.cause(FRESH) is Cause.SILENCE


def test_what_somebody_else_heard_before_is_no_evidence() -> None:
    doubt = Doubt(1_000, 500)
    assert not doubt.heard_elsewhere("node2", 500)
    assert doubt.cause(FRESH) is Cause.SILENCE


def test_a_proved_end_outweighs_everything() -> None:
    doubt = Doubt(1_000, 0)
    doubt.acked(1_100)
    doubt.heard_elsewhere("node2", 1_100)
    doubt.exited = True
    assert doubt.cause(FRESH) is Cause.PROCESS_EXIT


def test_what_was_found_before_counts_no_more_when_a_node_is_asked_anew() -> None:
    doubt = Doubt(1_000, 0)
    doubt.step(1_000, "asked")
    doubt.closed, doubt.unanswered, doubt.confirmed, doubt.tcp_open, doubt.refused_tcp = True, 9, 2, False, True
    doubt.ask_anew(5_000)
    assert (doubt.started_at, doubt.unanswered, doubt.confirmed, doubt.pings) == (5_000, 0, 0, 0)
    assert (doubt.tcp_open, doubt.refused_tcp, doubt.closed) == (True, False, True)
    assert [step.text for step in doubt.story()][:1] == ["asked"], "the story goes on"


def test_any_sign_of_the_host_ends_the_count_of_unanswered_questions() -> None:
    doubt = Doubt(1_000, 0)
    doubt.unanswered = 5
    doubt.acked(1_100)
    assert doubt.unanswered == 0
    doubt.unanswered = 5
    doubt.heard_elsewhere("node2", 1_200)
    assert doubt.unanswered == 0


@given(st.lists(st.integers(0, 10_000)), st.lists(st.integers(0, 10_000)))
def test_the_last_evidence_is_the_newest_of_all(acks: list[int], others: list[int]) -> None:
    doubt = Doubt(1_000, 700)
    for at in acks:
        doubt.acked(at)
    for at in others:
        doubt.heard_elsewhere("node2", at)
    assert doubt.last_evidence() == max([700, *acks, *others])


@given(st.lists(st.integers(0, 1_000), max_size=200))
def test_a_story_is_bounded_and_keeps_its_beginning_and_its_end(gaps: list[int]) -> None:
    doubt = Doubt(1_000, 0)
    at = 0
    for number, gap in enumerate(gaps):
        at += gap
        doubt.step(at, str(number))
    story = doubt.story()
    assert len(story) == min(len(gaps), STEPS_MAX)
    times = [step.after_ns for step in story]
    assert times == sorted(times)
    if gaps:
        assert (story[0].text, story[-1].text) == ("0", str(len(gaps) - 1))
    if len(gaps) > STEPS_MAX:
        assert sum(f"{len(gaps) - STEPS_MAX + 1} more" in step.text for step in story) == 1
