"""Asking again and again: when, and what to do while nobody answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from .answers import Row
from .query import Unanswered, say
from .render import data_age

#: Leaders tell their state once a second; asking more often shows nothing new.
PERIOD_S = 1.0

_Answer = TypeVar("_Answer")


def endless() -> Iterator[None]:
    """A tick now and then one a period, until Ctrl-C."""
    while True:
        yield
        time.sleep(PERIOD_S)


class Ageing:
    """Says on standard error when what is shown is old, and when it is so no more: a list of old words looks as good
    as one of new ones."""

    def __init__(self) -> None:
        self._stale = False

    def look(self, document: Row) -> None:
        """Say how old an answer's data is, if that has changed."""
        told, stale = data_age(document)
        if stale != self._stale:
            say(told if stale else f"{told} again")
        self._stale = stale


def patiently(ask: Callable[[], _Answer], ticks: Iterable[None]) -> Iterator[_Answer]:
    """The answer of each tick that has one. After the first, silence is told once on standard error and waited out.

    Raises Unanswered when the very first question is not answered: then it was most likely put to the wrong place.
    """
    met = silent = False
    for _ in ticks:
        try:
            answer = ask()
        except Unanswered as error:
            if not met:
                raise
            if not silent:
                say(str(error))
            silent = True
            continue
        if silent:
            say("answers again")
        met, silent = True, False
        yield answer
