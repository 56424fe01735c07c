"""Dead letters: what is true is told once the hook works, what is not to nobody, and nothing for ever."""

from __future__ import annotations

import msgspec

from hbagent.core import letters as module
from hbagent.core.letters import AGAIN_MAX_NS, AGAIN_NS, TIMES_MAX, Letters
from hbagent.core.records import HookRun, RunState
from hbagent.core.states import Axis, Kind
from tests.build import run


def letter(number: int, subject: str = "", hook: str = "page", **fields: object) -> HookRun:
    values = {"subject": subject or f"n{number}", "axis": Axis.LIVENESS, "kind": Kind.NODE_DEAD, "error": "exit 1"}
    made = run(number, hook=hook, run_id=f"e-{number}-{hook}", state=RunState.DEAD)
    return msgspec.structs.replace(made, **{**values, **fields})


def done(number: int, subject: str = "other", hook: str = "page") -> HookRun:
    return letter(number, subject, hook, state=RunState.DONE, error="")


def ids(runs: list[HookRun]) -> list[str]:
    return [one.run_id for one in runs]


def test_all_letters_of_a_hook_come_back_the_oldest_first_as_soon_as_it_works() -> None:
    letters = Letters()
    for number in (2, 1, 3):
        letters.given_up(letter(number), 0)
    letters.given_up(letter(4, hook="log"), 0)
    assert ids(letters.worked(done(9))) == ["e-1-page", "e-2-page", "e-3-page"]
    assert letters.worked(done(10)) == [], "each once"
    assert len(letters) == 1


def test_only_the_newest_about_a_trouble_is_told_and_none_that_a_newer_one_has_overtaken() -> None:
    letters = Letters()
    letters.given_up(letter(2, "n1", end=True), 0)
    letters.given_up(letter(1, "n1"), 0)
    letters.given_up(letter(3, "n2"), 0)
    assert ids(letters.worked(done(4, "n2"))) == ["e-2-page"]


def test_a_hook_that_never_works_is_tried_with_one_letter_ever_more_seldom() -> None:
    letters = Letters()
    letters.given_up(letter(1), 0)
    letters.given_up(letter(2), 0)
    now, waits, tried = 0, [], []
    for _ in range(6):
        due = letters.deadline()
        assert due is not None and letters.due(due - 1) == []
        (probe,) = letters.due(due)
        assert letters.due(due + 1) == [], "one at a time"
        waits.append(due - now)
        tried.append(probe.run_id)
        now = due
        letters.given_up(probe, now)
    assert waits == [AGAIN_NS, 2 * AGAIN_NS, 4 * AGAIN_NS, *(3 * [AGAIN_MAX_NS])]
    assert tried == 3 * ["e-1-page", "e-2-page"]
    assert sorted(ids(letters.worked(done(3)))) == ["e-1-page", "e-2-page"]
    letters.given_up(letter(4), now)
    assert letters.deadline() == now + AGAIN_NS, "it has worked in between"


def test_one_that_alone_fails_is_given_up_for_good() -> None:
    letters = Letters()
    for number in range(TIMES_MAX):
        letters.given_up(letter(1), 0)
        assert ids(letters.worked(done(10 + number))) == ["e-1-page"]
    letters.given_up(letter(1), 0)
    assert letters.worked(done(20)) == []
    assert letters.deadline() is None
    assert letters._times == {}


def test_one_that_worked_in_the_end_is_forgotten_and_may_fail_anew() -> None:
    letters = Letters()
    for _ in range(3 * TIMES_MAX):
        letters.given_up(letter(1), 0)
        assert ids(letters.worked(done(2))) == ["e-1-page"]
        assert letters.worked(msgspec.structs.replace(letter(1), state=RunState.DONE)) == []
    assert letters._times == {}


def test_the_summaries_of_one_rack_are_letters_of_their_own() -> None:
    letters = Letters()
    for number in (1, 2):
        letters.given_up(letter(number, "dc1/rack1", axis=None, kind=Kind.SUMMARY, members=("n1", "n2")), 0)
    assert ids(letters.worked(done(3))) == ["e-1-page", "e-2-page"]


def test_their_number_is_bounded() -> None:
    letters = Letters()
    for number in range(module.LETTERS_MAX + 5):
        letters.given_up(letter(number), 0)
    assert len(letters) == module.LETTERS_MAX
    assert letters.worked(done(10**6))[0].run_id == "e-5-page"
