"""Asking again and again, also while nobody answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hbagent.cli.query import Unanswered
from hbagent.cli.ticks import patiently


def script(*answers: int | None) -> Callable[[], int]:
    left = list(answers)

    def ask() -> int:
        answer = left.pop(0)
        if answer is None:
            raise Unanswered("cannot reach root: silence", "silence")
        return answer

    return ask


def test_silence_is_told_once_and_waited_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(patiently(script(1, None, None, 2, None), [None] * 5)) == [1, 2]
    assert capsys.readouterr().err.splitlines() == [
        "hbagent: cannot reach root: silence",
        "hbagent: answers again",
        "hbagent: cannot reach root: silence",
    ]


def test_a_first_question_without_an_answer_ends_it() -> None:
    with pytest.raises(Unanswered):
        list(patiently(script(None, 1), [None] * 2))
