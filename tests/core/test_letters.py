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


def done(number: int, subject: str = "other", hook: str = "page", **fields: object) -> HookRun:
    return letter(number, subject, hook, **{"state": RunState.DONE, "error": "", **fields})


def ids(runs: list[HookRun]) -> list[str]:
    return [one.run_id for one in runs]


def test_all_letters_of_a_hook_come_back_the_oldest_first_as_soon_as_it_works() -> None:
    letters = Letters()
    for number in (2, 1, 3):
        letters.given_up(letter(number), 0)
    letters.given_up(letter(4, hook="log"), 0)
    assert ids(letters.worked(done(9), 1)) == ["e-1-page", "e-2-page", "e-3-page"]
    assert letters.worked(done(10), 2) == [], "each once"
    assert len(letters) == 1


def test_what_a_newer_word_has_overtaken_is_not_told() -> None:
    letters = Letters()
    letters.given_up(letter(1, "n1"), 0)
    letters.given_up(letter(3, "n2"), 0)
    assert ids(letters.worked(done(2, "n1"), 1)) == ["e-3-page"]


def test_of_a_nodes_health_another_part_overtakes_nothing_and_its_end_all() -> None:
    letters = Letters()
    for number in (1, 2):
        letters.given_up(letter(number, "n1", axis=Axis.HEALTH), 0)
    letters.give_back(*letters.worked(done(3, "n1", axis=Axis.HEALTH), 1)[:1])
    assert letters.worked(done(4, "n1", axis=Axis.HEALTH, end=True), 2) == []


def look(letters: Letters, now: int) -> list[str]:
    """Try the first letter of each hook that is due."""
    tried = []
    for name in letters.due(now):
        first, *rest = letters.take(name)
        for one in rest:
            letters.give_back(one)
        letters.looked_at(name, True, now)
        letters.given_up(first, now)
        tried.append(first.run_id)
    return tried


def test_a_hook_that_never_works_is_tried_with_one_letter_ever_more_seldom() -> None:
    letters = Letters()
    letters.given_up(letter(1), 0)
    letters.given_up(letter(2), 0)
    now, waits, tried = 0, [], []
    for _ in range(6):
        due = letters.deadline()
        assert due is not None and look(letters, due - 1) == []
        tried += look(letters, due)
        waits.append(due - now)
        now = due
    assert waits == [AGAIN_NS, 2 * AGAIN_NS, 4 * AGAIN_NS, *(3 * [AGAIN_MAX_NS])]
    assert tried == 3 * ["e-1-page", "e-2-page"]
    assert sorted(ids(letters.worked(done(3), now))) == ["e-1-page", "e-2-page"]
    letters.given_up(letter(4), now)
    assert letters.deadline() == now + AGAIN_NS, "it has worked in between"


def test_nothing_that_can_be_told_now_is_looked_at_again_soon() -> None:
    letters = Letters()
    letters.given_up(letter(1), 0)
    for turn in range(1, 5):
        assert letters.deadline() == turn * AGAIN_NS
        (kept,) = letters.take(*letters.due(turn * AGAIN_NS))
        letters.give_back(kept)
        letters.looked_at("page", False, turn * AGAIN_NS)


def test_one_that_alone_fails_is_given_up_for_good() -> None:
    letters = Letters()
    for number in range(TIMES_MAX):
        letters.given_up(letter(1), 0)
        (again,) = letters.worked(done(10 + number), 1)
        letters.told_again(again)
    letters.given_up(letter(1), 0)
    assert letters.worked(done(20), 2) == []
    assert letters.deadline() is None
    assert letters._times == {}


def test_one_that_something_objects_to_is_never_given_up() -> None:
    letters = Letters()
    letters.given_up(letter(1), 0)
    for number in range(3 * TIMES_MAX):
        (kept,) = letters.worked(done(10 + number), 1)
        letters.give_back(kept)
    assert len(letters) == 1


def test_one_that_worked_in_the_end_is_forgotten_and_may_fail_anew() -> None:
    letters = Letters()
    for _ in range(3 * TIMES_MAX):
        letters.given_up(letter(1), 0)
        (again,) = letters.worked(done(2), 1)
        letters.told_again(again)
        assert letters.worked(msgspec.structs.replace(letter(1), state=RunState.DONE), 1) == []
    assert letters._times == {}


def test_their_number_is_bounded() -> None:
    letters = Letters()
    for number in range(module.LETTERS_MAX + 5):
        letters.given_up(letter(number), 0)
    assert len(letters) == module.LETTERS_MAX
    assert letters.worked(done(10**6), 1)[0].run_id == "e-5-page"
