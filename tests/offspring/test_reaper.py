"""Nobody gets away: each case is a real tree that tries to. All of them run below a subreaper of their own."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from hbagent.core.units import MILLISECOND, SECOND
from hbagent.offspring import reaper
from tests.offspring.owning import apart, freezer

#: Longer than it takes to clear them away on a busy machine.
BOMB_SECONDS = 20


def child(function: Callable[[], object] | None = None) -> int:
    """A child of this process that calls `function` and then waits for its end."""
    pid = os.fork()
    if pid == 0:
        try:
            if function:
                function()
            hang()
        finally:
            os._exit(0)
    return pid


def hang() -> NoReturn:
    while True:
        signal.pause()


def bomb(processes: int) -> None:
    """Multiply without end, but for the number of processes that this group of children may have at once.

    Should a test fail, all of them end at one time: a child has no alarm but its own, and is not to live longer.
    """
    os.setsid()
    end = time.monotonic() + BOMB_SECONDS
    signal.alarm(BOMB_SECONDS)
    while time.monotonic() < end:
        try:
            if len(os.listdir("/proc")) < processes and os.fork() == 0:
                signal.alarm(BOMB_SECONDS)
                continue
        except OSError:
            continue


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.002)


def below(pid: int) -> list[int]:
    """All living processes below one."""
    found = []
    for one in reaper.children(pid):
        found += [*([] if reaper.is_dead(one) else [one]), *below(one)]
    return found


def me() -> int:
    return os.getpid()


def test_a_subreaper_knows_that_it_is_one_and_its_children_are_none() -> None:
    def run() -> list[bool]:
        read, write = os.pipe()
        child(lambda: os.write(write, str(reaper.is_subreaper()).encode()))
        told = os.read(read, 10) == b"True"
        reaper.clear()
        return [reaper.is_subreaper(), told]

    assert apart(run) == [True, False]
    assert not reaper.is_subreaper()


def test_a_process_dies_with_its_parent() -> None:
    def run() -> int:
        read, write = os.pipe()

        def middle() -> None:
            parent = os.getpid()

            def mortal() -> None:
                reaper.die_with_parent(parent)
                os.write(write, b".")

            child(mortal)

        parent = child(middle)
        assert os.read(read, 1) == b"."
        (grandchild,) = below(parent)
        os.kill(parent, signal.SIGKILL)
        until(lambda: reaper.is_dead(grandchild))
        reaper.clear()
        return 0

    assert apart(run) == 0


def test_a_process_whose_parent_is_gone_already_dies_at_once() -> None:
    def run() -> int:
        pid = child(lambda: reaper.die_with_parent(1))
        until(lambda: reaper.is_dead(pid))
        return os.waitpid(pid, 0)[1]

    assert apart(run) == signal.SIGKILL


def test_children_of_every_thread_are_found_and_so_are_the_dead() -> None:
    def run() -> list[object]:
        mine = [child(), child()]
        made: list[int] = []
        looked = threading.Event()

        def make() -> None:
            made.append(child())
            looked.wait(30)

        thread = threading.Thread(target=make)
        thread.start()
        until(lambda: made)
        dead = child(lambda: os._exit(0))
        until(lambda: reaper.is_dead(dead))
        found = sorted(reaper.children(me()))
        same = sorted(reaper._children_by_parent(me()))
        looked.set()
        left = reaper.clear()
        thread.join()
        return [found == sorted([*mine, *made, dead]), same == found, left]

    assert apart(run) == [True, True, []]


def test_a_process_that_is_gone_has_no_children_and_no_name() -> None:
    pid = child(lambda: os._exit(3))
    until(lambda: reaper.is_dead(pid))
    assert reaper.reap(pid) == 3 << 8
    assert reaper.reap(pid) == 0
    assert reaper.is_dead(pid)
    assert (reaper.children(pid), reaper.command(pid), reaper.fell([pid])) == ([], "", [pid])


def test_a_name_with_brackets_fools_nobody(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/sleep")
    pid = os.spawnv(os.P_NOWAIT, str(program), [str(program), "100"])
    try:
        until(lambda: reaper.command(pid) == "a) Z 1 (b")
        assert not reaper.is_dead(pid)
        assert pid in reaper._children_by_parent(me())
    finally:
        reaper.fell([pid])
        os.waitpid(pid, 0)


def test_a_child_that_runs_is_not_reaped() -> None:
    pid = child()
    assert reaper.reap(pid) is None
    assert reaper.fell([pid]) == [pid]
    until(lambda: reaper.is_dead(pid))
    assert reaper.reap(pid) == signal.SIGKILL


def test_a_chain_of_sessions_is_felled_from_its_top() -> None:
    def run() -> list[int]:
        def chain(length: int) -> None:
            os.setsid()
            if length:
                child(lambda: chain(length - 1))

        top = child(lambda: chain(9))
        until(lambda: len(below(top)) == 9)
        everyone = [top, *below(top)]
        felled = reaper.fell([top], limit_ns=BOMB_SECONDS * SECOND)
        until(lambda: all(reaper.is_dead(pid) for pid in everyone))
        return [len(set(felled) & set(everyone)), *reaper.clear()]

    assert apart(run) == [10]


def test_who_ignores_every_signal_and_restarts_what_dies_is_felled() -> None:
    def run() -> list[int]:
        def stubborn() -> None:
            for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
                signal.signal(number, signal.SIG_IGN if number != signal.SIGCHLD else signal.SIG_DFL)
            while True:
                child()
                os.wait()

        top = child(stubborn)
        until(lambda: below(top))
        reaper.fell([top], limit_ns=BOMB_SECONDS * SECOND)
        until(lambda: not below(me()))
        return reaper.clear()

    assert apart(run) == []


def test_who_lost_its_parent_is_cleared_by_the_subreaper() -> None:
    def run() -> list[int]:
        def run_away() -> None:
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    hang()
                os._exit(0)
            os._exit(0)

        child(run_away)
        until(lambda: len(below(me())) == 1 and not below(below(me())[0]))
        return [*reaper.clear(), *reaper.children(me())]

    assert apart(run) == []


def test_whatever_the_time_those_who_are_named_are_killed() -> None:
    def run() -> list[object]:
        named = [child(), child()]
        felled = reaper.fell(named, limit_ns=0)
        until(lambda: all(reaper.is_dead(pid) for pid in named))
        return [felled == named, *reaper.clear()]

    assert apart(run) == [True]


def test_who_waits_for_a_processor_in_order_to_die_is_waited_for() -> None:
    """Behind one that burns the only processor it may use, one of the lowest priority has its turn each 200 ms."""
    cpu = min(os.sched_getaffinity(0))

    def burn() -> NoReturn:
        os.sched_setaffinity(0, {cpu})
        signal.alarm(BOMB_SECONDS)
        while True:
            pass

    def run() -> list[int]:
        read, write = os.pipe()

        def starve() -> None:
            os.write(write, b".")
            os.nice(19)
            burn()

        child(starve)
        os.read(read, 1)
        threading.Event().wait(0.1)
        return reaper.clear(MILLISECOND, BOMB_SECONDS * SECOND)

    burning = child(burn)
    try:
        assert apart(run) == []
    finally:
        os.kill(burning, signal.SIGKILL)
        os.waitpid(burning, 0)


@pytest.mark.slow
def test_hundreds_that_multiply_are_gone() -> None:
    def run() -> list[object]:
        limit = len(os.listdir("/proc")) + 300
        top = child(lambda: bomb(limit))
        until(lambda: len(os.listdir("/proc")) >= limit)
        count = len(below(top))
        begun, worked = time.monotonic_ns(), time.process_time_ns()
        # How long hundreds take to end depends on who else wants the processors.
        left = reaper.clear(patience_ns=BOMB_SECONDS // 2 * SECOND)
        took = [time.process_time_ns() - worked, time.monotonic_ns() - begun]
        return [count, left, below(me()), *(ns // MILLISECOND for ns in took)]

    count, left, after, worked_ms, took_ms = apart(run)
    assert count > 100
    assert (left, after) == ([], [])
    print(f"{count} processes that multiply were cleared in {took_ms} ms, with {worked_ms} ms of a core")


@pytest.mark.root
def test_what_does_not_die_is_told_and_not_waited_for() -> None:
    with freezer() as group:

        def run() -> list[object]:
            pid = child(lambda: Path(group, "tasks").write_text(str(os.getpid())))
            until(lambda: str(pid) in Path(group, "tasks").read_text())
            (group / "freezer.state").write_text("FROZEN")
            until(lambda: "FROZEN" in (group / "freezer.state").read_text())
            begun = time.monotonic_ns()
            left = reaper.clear(100 * MILLISECOND)
            took = time.monotonic_ns() - begun
            # It is frozen as before: to wait for it would have been without end.
            (group / "freezer.state").write_text("THAWED")
            until(lambda: reaper.is_dead(pid))
            return [left == [pid], took >= 100 * MILLISECOND, reaper.clear()]

        assert apart(run) == [True, True, []]


def test_patience_lasts_while_they_die_and_a_grace_after_that() -> None:
    patience = reaper.Patience(0, 200, 1000)
    assert not patience.is_over(0, 199)
    assert patience.is_over(0, 200)
    assert not patience.is_over(1, 201)
    assert not patience.is_over(1, 400)
    assert patience.is_over(1, 401)
    assert not patience.is_over(7, 999)
    assert patience.is_over(9, 1000)


def test_whoever_stood_still_himself_looks_once_more_before_he_gives_anybody_up() -> None:
    stop = SECOND
    patience = reaper.Patience(0)
    assert not patience.is_over(0, MILLISECOND)
    # Nobody had the time that has passed for him.
    assert not patience.is_over(0, stop)
    assert not patience.is_over(0, stop + reaper.GRACE_NS // 4)
    assert patience.is_over(0, stop + reaper.GRACE_NS // 2)
    stop = 2 * reaper.PATIENCE_NS
    patience = reaper.Patience(0)
    assert not patience.is_over(0, stop)
    # The end of all patience is put off once; a loop that looks as rarely as that has an end as well.
    assert patience.is_over(0, 2 * stop)


def test_patience_lasts_while_somebody_waits_for_a_processor_but_not_without_end() -> None:
    def spin() -> NoReturn:
        signal.alarm(BOMB_SECONDS)
        while True:
            pass

    idle, busy = child(), child(spin)
    try:
        until(lambda: not reaper.is_runnable(idle))
        until(lambda: reaper.is_runnable(busy))
        patience = reaper.Patience(0, 200, 1000)
        assert not patience.is_over(0, 200, [idle, busy])
        assert not patience.is_over(0, 399, [idle])
        assert not patience.is_over(0, 400, [busy])
        assert patience.is_over(0, 600, [idle])
        assert patience.is_over(0, 1000, [busy])
    finally:
        for pid in (idle, busy):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert not reaper.is_runnable(busy)


def test_patience_lasts_while_somebody_has_turns_however_short() -> None:
    def nap() -> NoReturn:
        signal.alarm(BOMB_SECONDS)
        while True:
            select.select((), (), (), 0.005)

    idle, napping = child(), child(nap)
    try:
        for pid, over in ((napping, False), (idle, True)):
            until(lambda pid=pid: not reaper.is_runnable(pid))  # type: ignore[misc]
            patience = reaper.Patience(0, 200, 1000)
            assert not patience.is_over(0, 100, [pid])
            told = reaper._turns([pid])
            if over:
                threading.Event().wait(0.05)
            else:
                until(lambda pid=pid, told=told: reaper._turns([pid]) != told)  # type: ignore[misc]
            assert patience.is_over(0, 200, [pid]) is over
    finally:
        for pid in (idle, napping):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_child_that_comes_to_light_as_another_ends_is_killed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[int]:
        reaper.become_subreaper()
        ended = _forked(lambda: os._exit(0))
        _forked(signal.pause)
        os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
        lists = iter([[ended]])
        # The list as it was read just before the first of them ended.
        monkeypatch.setattr(reaper, "children", lambda pid: next(lists, None) or listed(pid))
        return [*reaper.clear(), *listed(os.getpid())]

    listed = reaper.children
    assert apart(run) == []


def _forked(life: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        signal.alarm(BOMB_SECONDS)
        life()
        os._exit(0)
    return pid
