"""Attempts that have a time limit, on a machine that may stand still for as long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def patiently(attempt: Callable[[int], T], came_far: Callable[[T], object], limit_ns: int) -> T:
    """What an attempt gives that is ended by its time limit, and has to come to a certain point before.

    Whoever did not come that far is given ten times as long, and then a hundred times; the last attempt counts.
    """
    for times in (1, 10):
        found = attempt(limit_ns * times)
        if came_far(found):
            return found
    return attempt(limit_ns * 100)
