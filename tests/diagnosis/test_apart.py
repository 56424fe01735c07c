"""Work in a child that may hang, die, talk too much or never come back."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from hbagent.core.units import MILLISECOND, SECOND
from hbagent.diagnosis import apart
from hbagent.offspring import reaper
from tests.descriptors import descriptors

LONG_NS = 30 * SECOND


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_an_answer_comes_back_from_another_process() -> None:
    outcome = apart.run(lambda: str(os.getpid()).encode(), LONG_NS)
    assert (outcome.error, outcome.abandoned) == ("", 0)
    assert int(outcome.answer) != os.getpid()
    assert gone(int(outcome.answer))


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_an_answer_may_have_any_size_up_to_the_limit(size: int) -> None:
    outcome = apart.run(lambda: b"x" * size, LONG_NS)
    assert (len(outcome.answer), outcome.error) == (size, "")


def test_an_answer_that_is_too_long_is_an_error() -> None:
    outcome = apart.run(lambda: b"x" * (apart.ANSWER_SIZE_MAX + 1), LONG_NS)
    assert (outcome.answer, bool(outcome.error)) == (b"", True)


def test_an_exception_is_told() -> None:
    def work() -> bytes:
        raise ValueError("no such thing")

    assert apart.run(work, LONG_NS).error == "ValueError: no such thing"


def test_a_child_that_is_killed_is_told() -> None:
    def work() -> bytes:
        os.kill(os.getpid(), signal.SIGSEGV)
        return b""

    assert apart.run(work, LONG_NS).error == f"it ended with signal {signal.SIGSEGV.value}"


def test_a_child_that_hangs_costs_its_time_limit_and_is_gone() -> None:
    before = set(reaper.children(os.getpid()))
    begun = time.monotonic_ns()

    def work() -> bytes:
        signal.pause()
        return b""

    outcome = apart.run(work, 50 * MILLISECOND)
    # It would wait for a signal without end.
    assert outcome.error == "no answer within 50 ms"
    assert time.monotonic_ns() - begun >= 50 * MILLISECOND
    assert set(reaper.children(os.getpid())) <= before


def test_a_child_that_does_not_die_is_left_behind_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but state D withstands SIGKILL, so here the kill is taken away."""
    children = []
    monkeypatch.setattr(os, "kill", lambda pid, number: children.append(pid))

    def work() -> bytes:
        signal.pause()
        return b""

    outcome = apart.run(work, 20 * MILLISECOND)
    monkeypatch.undo()
    assert (outcome.abandoned, outcome.answer) == (children[0], b"")
    assert "left behind" in outcome.error
    os.kill(outcome.abandoned, signal.SIGKILL)
    os.waitpid(outcome.abandoned, 0)


def test_an_answer_that_is_whole_counts_whatever_becomes_of_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has said everything may still take its time to end."""
    children = []
    monkeypatch.setattr(os, "kill", lambda pid, number: children.append(pid))

    def stay(_: int) -> None:
        os.close(3)
        signal.pause()

    def work() -> bytes:
        os._exit = stay  # type: ignore[assignment]
        return b"all of it"

    outcome = apart.run(work, LONG_NS)
    monkeypatch.undo()
    os.kill(children[0], signal.SIGKILL)
    os.waitpid(children[0], 0)
    assert (outcome.answer, outcome.error, outcome.abandoned) == (b"all of it", "", children[0])


def test_a_killed_child_that_waits_for_a_processor_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs here, for the kill takes effect only after the time in which one that is stuck would be left behind."""
    kill = os.kill
    late: list[threading.Timer] = []

    def kill_late(pid: int, number: int) -> None:
        late.append(threading.Timer(0.5, kill, (pid, number)))
        late[-1].start()

    monkeypatch.setattr(os, "kill", kill_late)

    def work() -> bytes:
        while True:
            pass

    outcome = apart.run(work, 20 * MILLISECOND)
    late[0].join()
    assert (outcome.error, outcome.abandoned) == ("no answer within 20 ms", 0)


def test_a_child_holds_nothing_of_the_caller_open() -> None:
    """Or a reader of the caller's output would wait for a child that was left behind."""
    receiver, sender = os.pipe()
    os.set_inheritable(sender, True)

    def work() -> bytes:
        names = []
        for fd in range(64):
            with contextlib.suppress(OSError):
                names.append(os.readlink(f"/proc/self/fd/{fd}"))
        return "\n".join(names).encode()

    mine = os.readlink(f"/proc/self/fd/{sender}")
    names = apart.run(work, LONG_NS).answer.decode().splitlines()
    os.close(receiver)
    os.close(sender)
    assert mine not in names
    assert names[:3] == ["/dev/null"] * 3


def test_no_descriptor_is_left_in_the_caller() -> None:
    before = descriptors()
    for work in (lambda: b"x", lambda: b"x" * (apart.ANSWER_SIZE_MAX + 1)):
        apart.run(work, LONG_NS)
    assert descriptors() <= before
