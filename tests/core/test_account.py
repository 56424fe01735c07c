"""Why a node was silent, from what its agent says: the word that a reader would choose, and the numbers for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.account import reason
from hbagent.core.messages import Account
from hbagent.core.units import SECOND
from tests.build import T

WORDS = ("suspended", "throttled", "starved", "stopped", "loop-stalled", "network", "restarted-link", "unknown")


def account(covered: float = 4, **amounts: Any) -> Account:
    """Durations in seconds."""
    counts = {name: amounts.pop(name) for name in ("beats", "links_lost") if name in amounts}
    durations = {f"{name}_ns": T(value) for name, value in amounts.items()}
    return Account(number=1, incarnation=7, covered_ns=T(covered), **durations, **counts)


def late(seconds: float, **more: Any) -> Account:
    """A loop that was late once."""
    return account(**{"loop_gap_max": seconds, "loop_gap": seconds, "beats": 2, **more})


@pytest.mark.parametrize(
    ("told", "word", "text"),
    [
        (account(suspended=3.1), "suspended", "its host was suspended for 3.1s of 3.4s"),
        (late(3, run_delay=2.9, throttled=2.8), "throttled", "its CPU quota was used up for 2.8s of 3.4s"),
        (late(3, run_delay=2.8, throttled=0.1), "starved", "its loop waited for a CPU for 2.7s of 3.4s"),
        (late(3, run_delay=0.01), "stopped", "its process stood still with CPU to be had for 3.0s of 3.4s"),
        (account(loop_gap_max=0.4, loop_gap=2), "loop-stalled", "its loop was busy or blocked for 2.0s of 3.4s"),
        (account(beats=4, loop_gap=0.01), "network", "what it sent did not arrive: it sent 4 beats in 4.0s"),
        (account(beats=4, links_lost=1), "restarted-link", "its connection was lost once; it sent 4 beats in 4.0s"),
        (account(beats=4, links_lost=3), "restarted-link", "its connection was lost 3 times; it sent"),
        (account(covered=0.5, beats=1), "unknown", "its records go back 500ms of 3.4s"),
        (account(beats=0), "unknown", "it sent 0 beats in 4.0s, its loop was late by 0us"),
    ],
)
def test_the_word_and_the_sentence(told: Account, word: str, text: str) -> None:
    found, sentence = reason(told, T(3.4), T(1))
    assert (found, sentence[: len(text)]) == (word, text)


def test_the_interval_in_which_nothing_was_to_be_heard_needs_no_explanation() -> None:
    told = late(0.2, covered=3, beats=6)
    assert reason(told, T(1.25), T(1))[0] == "stopped"
    assert reason(told, T(1.25), T(0.25))[0] == "network"


def test_a_stop_is_told_from_a_starved_loop_and_from_a_busy_one() -> None:
    assert reason(late(10, covered=12), T(11), T(1))[0] == "stopped"
    assert reason(late(10, covered=12, run_delay=9.9), T(11), T(1))[0] == "starved"
    assert reason(late(10, covered=12, loop_gap_max=0.5), T(11), T(1))[0] == "loop-stalled"


def test_several_causes_together_explain_it_and_the_largest_names_it() -> None:
    told = account(suspended=1.2, loop_gap=0.9, loop_gap_max=0.9)
    assert reason(told, T(3.4), T(0.25)) == (
        "suspended",
        "its host was suspended for 1.2s of 3.4s and its process stood still with CPU to be had for 900ms",
    )


def test_throttling_of_many_processors_explains_no_more_than_there_was() -> None:
    told = late(0.1, throttled=100, covered=4)
    assert reason(told, T(3.4), T(1))[0] == "network", "others of its group were throttled, the loop was hardly late"
    assert reason(late(3, throttled=100), T(3.4), T(1))[1] == "its CPU quota was used up for 3.0s of 3.4s"
    assert reason(late(3, run_delay=100), T(3.4), T(1))[1] == "its loop waited for a CPU for 3.0s of 3.4s"


def test_a_loop_that_waited_and_was_not_late_was_not_the_cause() -> None:
    assert reason(account(run_delay=3, beats=4), T(3.4), T(1))[0] == "network"


@given(
    st.builds(
        Account,
        number=st.just(1),
        incarnation=st.just(1),
        **{
            name: st.integers(0, 100 * SECOND)
            for name in ("covered_ns", "loop_gap_max_ns", "loop_gap_ns", "run_delay_ns", "throttled_ns", "suspended_ns")
        },
        beats=st.integers(0, 100),
        links_lost=st.integers(0, 3),
    ),
    st.integers(0, 100 * SECOND),
    st.integers(0, 100 * SECOND),
)
def test_whatever_is_told_there_is_a_word_and_less_lateness_never_blames_the_host(
    told: Account, silent_ns: int, interval_ns: int
) -> None:
    word, text = reason(told, silent_ns, interval_ns)
    assert word in WORDS
    assert text
    blamed = WORDS[:5]
    if word not in blamed:
        less = msgspec.structs.replace(told, loop_gap_ns=told.loop_gap_ns // 2, suspended_ns=told.suspended_ns // 2)
        assert reason(less, silent_ns, interval_ns)[0] not in blamed
