"""Limits are given to a child of the test, for they cannot be taken back."""

from __future__ import annotations

import os
import resource
import signal

import pytest

from hbagent.offspring.limits import confine, tasks_of_user
from tests.offspring.owning import apart, lonely_user


def test_a_limit_is_given_and_one_that_is_tighter_stays() -> None:
    def limited() -> list[tuple[int, int]]:
        confine([(resource.RLIMIT_NOFILE, 100), (resource.RLIMIT_CORE, 0)])
        confine([(resource.RLIMIT_NOFILE, 200), (resource.RLIMIT_CORE, 1)])
        return [resource.getrlimit(number) for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)]

    assert apart(limited) == [[100, 100], [0, 0]]


def test_what_cannot_be_limited_is_no_error() -> None:
    assert apart(lambda: confine([(10_000, 1)])) is None


def test_of_root_no_tasks_are_counted() -> None:
    assert (tasks_of_user() is None) == (os.geteuid() == 0)


@pytest.mark.root
def test_the_tasks_of_a_user_are_counted() -> None:
    user = lonely_user()

    def counted() -> int:
        os.setuid(user)
        begun = tasks_of_user()
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            signal.pause()
        more = tasks_of_user()
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        assert begun is not None
        assert more is not None
        return more - begun

    assert apart(counted) == 1
