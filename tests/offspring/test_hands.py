"""Whatever a job does, its owner gets one outcome in time, and nothing is left behind. Real processes."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hbagent.core.units import MILLISECOND, MINUTE, SECOND
from hbagent.offspring import hands as module
from hbagent.offspring import reaper
from hbagent.offspring.hands import ABANDONED, DIED, MESSAGE_MAX, RAISED, REFUSED, TIMED_OUT, Hands, Job
from tests.descriptors import descriptors
from tests.offspring.owning import apart, freezer, outcomes, turn, turn_until
from tests.patience import patiently
from tests.reporting import wait_for

LONG_NS = 20 * SECOND
SHORT_NS = 200 * MILLISECOND


def echo(order: Any, files: Sequence[int]) -> Any:
    return order


def wait(order: float, files: Sequence[int]) -> float:
    threading.Event().wait(order)
    return order


def hold(order: list[str], files: Sequence[int]) -> None:
    """Say in a directory that it is under way, and wait there until it may go on."""
    directory, name = order
    Path(directory, name).touch()
    pause = threading.Event()
    while not Path(directory, "go on").exists():
        pause.wait(0.005)


def spin(order: int, files: Sequence[int]) -> int:
    while True:
        pass


def die(order: int, files: Sequence[int]) -> int:
    os.kill(os.getpid(), order)
    wait(10, files)
    return 0


def leave(order: int, files: Sequence[int]) -> int:
    os._exit(order)


def fail(order: str, files: Sequence[int]) -> str:
    raise ValueError(order)


def ask_to_exit(order: int, files: Sequence[int]) -> int:
    raise SystemExit(order)


def grow(order: int, files: Sequence[int]) -> str:
    return "x" * order


def lie(order: int, files: Sequence[int]) -> str:
    return "no number"


def start_thread(order: int, files: Sequence[int]) -> int:
    threading.Thread(target=wait, args=(10, ()), daemon=True).start()
    return order


def read(order: int, files: Sequence[int]) -> list[str]:
    return [os.pread(fd, 100, 0).decode() for fd in files]


def tell(order: int, files: Sequence[int]) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "files": sorted(os.listdir("/proc/self/fd"), key=int),
        "links": [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1)],
        "session": os.getsid(0),
        "score": int(Path("/proc/self/oom_score_adj").read_text()),
        "nice": os.nice(0),
        "handlers": [signal.getsignal(number) in (signal.SIG_DFL, 0) for number in (signal.SIGTERM, signal.SIGHUP)],
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "frozen": gc.get_freeze_count() > 0,
    }


def run_away(order: int, files: Sequence[int]) -> int:
    """Leave somebody behind who has a session of its own and whose parent is gone."""
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.setsid()
        child = os.fork()
        if child == 0:
            wait(100, ())
        os.write(write_end, str(child).encode())
        os._exit(0)
    return int(os.read(read_end, 20))


def run_away_and_hang(order: int, files: Sequence[int]) -> int:
    run_away(order, files)
    return spin(order, files)


def freeze(order: str, files: Sequence[int]) -> int:
    Path(order, "tasks").write_text(str(os.getpid()))
    Path(order, "freezer.state").write_text("FROZEN")
    return 0


def freeze_child(order: str, files: Sequence[int]) -> int:
    child = os.fork()
    if child == 0:
        freeze(order, files)
    pause = threading.Event()
    while "FROZEN" not in Path(order, "freezer.state").read_text():
        pause.wait(0.001)
    return child


def freeze_child_and_hang(order: str, files: Sequence[int]) -> int:
    freeze_child(order, files)
    return spin(0, files)


JOBS = {
    "echo": Job(echo, Any, Any),
    "wait": Job(wait, float, float),
    "hold": Job(hold, list[str], None),
    "spin": Job(spin, int, int),
    "die": Job(die, int, int),
    "leave": Job(leave, int, int),
    "fail": Job(fail, str, str),
    "ask to exit": Job(ask_to_exit, int, int),
    "grow": Job(grow, int, str),
    "lie": Job(lie, int, int),
    "start thread": Job(start_thread, int, int),
    "read": Job(read, int, list[str]),
    "tell": Job(tell, int, dict[str, Any]),
    "run away": Job(run_away, int, int),
    "run away and hang": Job(run_away_and_hang, int, int),
    "freeze": Job(freeze, str, int),
    "freeze child": Job(freeze_child, str, int),
    "freeze child and hang": Job(freeze_child_and_hang, str, int),
}


@pytest.fixture
def hands() -> Iterator[Hands]:
    made = Hands(JOBS, 4)
    yield made
    made.close()


def do(hands: Hands, job: str, order: Any, timeout_ns: int = LONG_NS, **more: Any) -> module.Outcome:
    hands.start(1, job, order, timeout_ns, time.monotonic_ns(), **more)
    (outcome,) = outcomes(hands, 1)
    return outcome


def in_owner(function: Callable[[Hands], Any]) -> Any:
    """What the function returns, with hands in a process of their own, which has no child afterwards."""

    def own() -> Any:
        hands = Hands(JOBS, 4)
        try:
            return function(hands)
        finally:
            hands.close()

    return apart(own)


# ---- jobs and what comes of them -----------------------------------------------------------------------------


def test_a_job_is_done_in_another_process_and_its_result_comes_back(hands: Hands) -> None:
    outcome = do(hands, "echo", {"a": [1, "ü", b"\0", None]})
    assert (outcome.number, outcome.job, outcome.failure, outcome.value) == (
        1,
        "echo",
        "",
        {"a": [1, "ü", b"\0", None]},
    )
    assert do(hands, "tell", 0).value["pid"] != os.getpid()


def test_a_hand_is_used_again(hands: Hands) -> None:
    assert len({do(hands, "tell", 0).value["pid"] for _ in range(5)}) == 1
    assert hands.forks == 1


def test_jobs_are_done_at_once_up_to_the_limit_and_the_others_wait(hands: Hands, tmp_path: Path) -> None:
    for number in range(8):
        hands.start(number, "hold", [str(tmp_path), str(number)], LONG_NS, time.monotonic_ns())
    turn_until(hands, lambda: len(os.listdir(tmp_path)) >= 4)
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2", "3"]
    assert hands.forks == 4
    (tmp_path / "go on").touch()
    assert [(outcome.number, outcome.failure) for outcome in outcomes(hands, 8)] == [(at, "") for at in range(8)]
    assert hands.forks == 4


def test_a_job_for_which_no_hand_gets_free_is_over_at_its_own_deadline(hands: Hands) -> None:
    now = time.monotonic_ns()
    for number in range(4):
        hands.start(number, "wait", 60.0, LONG_NS, now)
    hands.start(4, "echo", 1, SHORT_NS, now)
    (first,) = outcomes(hands, 1)
    assert (first.number, first.failure, first.text) == (4, TIMED_OUT, "no hand was free in time")
    assert first.duration_ns >= SHORT_NS


def test_jobs_without_end_are_refused_at_once(hands: Hands) -> None:
    now = time.monotonic_ns()
    for number in range(4 + module.WAITING_MAX + 1):
        hands.start(number, "wait", 60.0, LONG_NS, now)
    assert hands.deadline() == 0
    (refused,) = hands.wake(now)
    assert (refused.number, refused.failure) == (4 + module.WAITING_MAX, REFUSED)


def test_what_cannot_be_begun_is_refused(hands: Hands) -> None:
    assert do(hands, "no such job", 0).failure == REFUSED
    assert do(hands, "echo", object()).failure == REFUSED
    assert do(hands, "echo", "x" * MESSAGE_MAX).text.endswith("are too much for a job")
    assert hands.forks == 0


def test_the_largest_job_and_the_largest_result_arrive(hands: Hands) -> None:
    assert len(do(hands, "echo", "x" * (MESSAGE_MAX - 2000)).value) == MESSAGE_MAX - 2000
    assert do(hands, "grow", MESSAGE_MAX).text.endswith("is too long")
    assert hands.forks == 1


def test_an_exception_is_told_and_the_hand_goes_on(hands: Hands) -> None:
    outcome = do(hands, "fail", "no disk")
    assert (outcome.failure, outcome.text) == (RAISED, "ValueError: no disk")
    assert do(hands, "ask to exit", 3).text == "SystemExit: 3"
    assert do(hands, "echo", 1).value == 1
    assert hands.forks == 1


def test_files_go_along_and_are_closed_on_both_sides(hands: Hands, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("stacks")
    do(hands, "echo", 0)
    ours, theirs = descriptors(), do(hands, "tell", 0).value["files"]
    with path.open("rb") as file:
        assert do(hands, "read", 0, files=[file.fileno(), file.fileno()]).value == ["stacks", "stacks"]
    assert descriptors() <= ours
    assert do(hands, "tell", 0).value["files"] == theirs


def test_a_file_that_is_closed_already_is_a_refusal(hands: Hands) -> None:
    assert do(hands, "read", 0, files=[999]).failure == REFUSED


# ---- what a hand is ------------------------------------------------------------------------------------------


def test_a_hand_has_nothing_of_its_owner() -> None:
    def own(hands: Hands) -> Any:
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        kept = [socket.socketpair(), os.pipe()]
        do(hands, "echo", 1)
        hands.start(2, "wait", 60.0, LONG_NS, time.monotonic_ns())
        told = do(hands, "tell", 0).value
        del kept
        return told

    told = in_owner(own)
    # Nothing, nothing, the place for complaints, the link to its owner, and the directory that it is listing.
    assert len(told["files"]) == 5
    assert told["links"] == ["/dev/null", "/dev/null"]
    assert told["session"] == told["pid"]
    assert told["handlers"] == [True, True]
    assert told["blocked"] == []
    assert told["frozen"]


def test_a_hand_is_the_first_to_go_and_the_last_to_run(hands: Hands) -> None:
    told = do(hands, "tell", 0).value
    assert told["score"] >= module.OOM_SCORE
    assert told["nice"] == min(19, os.nice(0) + module.NICE)


def test_an_idle_hand_ends_after_its_time(hands: Hands) -> None:
    before = time.monotonic_ns()
    do(hands, "echo", 0)
    (pid,) = hands.pids()
    deadline = hands.deadline()
    assert deadline is not None and before + MINUTE <= deadline <= time.monotonic_ns() + MINUTE
    assert hands.wake(deadline - 1) == [] and hands.pids() == (pid,)
    assert hands.wake(deadline) == [] and hands.pids() == ()
    turn_until(hands, lambda: hands.wake(time.monotonic_ns() + MINUTE) == [] and reaper.is_dead(pid))
    assert do(hands, "echo", 0).failure == ""


def test_a_hand_ends_after_so_many_jobs(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOBS_MAX", 3)
    assert [do(hands, "echo", number).value for number in range(7)] == list(range(7))
    assert hands.forks == 3


def test_a_hand_that_has_grown_is_replaced(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROWTH_MAX", -1)
    assert [do(hands, "echo", number).value for number in range(2)] == [0, 1]
    assert hands.forks == 2


def test_a_hand_in_which_a_thread_goes_on_is_replaced(hands: Hands) -> None:
    assert do(hands, "start thread", 5).value == 5
    assert do(hands, "echo", 6).value == 6
    assert hands.forks == 2


def test_a_hand_that_died_while_it_was_idle_costs_no_job(hands: Hands) -> None:
    do(hands, "echo", 0)
    os.kill(hands.pids()[0], signal.SIGKILL)
    os.waitid(os.P_PID, hands.pids()[0], os.WEXITED | os.WNOWAIT)
    assert do(hands, "echo", 1).value == 1


def test_hands_die_with_their_owner() -> None:
    def own(hands: Hands) -> Any:
        do(hands, "echo", 0)
        hands.start(2, "wait", 50.0, LONG_NS * 3, time.monotonic_ns())
        return list(hands.pids())

    def leave_without_closing() -> Any:
        return own(Hands(JOBS, 4))

    pids = apart(leave_without_closing)
    assert wait_for(lambda: all(reaper.is_dead(pid) for pid in pids))


# ---- how a job may end badly ---------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["spin", "wait"])
def test_a_job_that_hangs_is_killed_at_its_deadline(hands: Hands, job: str) -> None:
    outcome = do(hands, job, 100, SHORT_NS)
    assert (outcome.failure, outcome.text, outcome.abandoned) == (TIMED_OUT, "given up after 200ms", 0)
    assert outcome.duration_ns >= SHORT_NS
    assert do(hands, "echo", 1).value == 1


@pytest.mark.parametrize(
    ("job", "order", "text"),
    [
        ("die", signal.SIGSEGV, "its process died of SIGSEGV"),
        ("die", signal.SIGKILL, "its process died of SIGKILL"),
        ("leave", 0, "its process ended with exit status 0"),
        ("leave", 7, "its process ended with exit status 7"),
    ],
)
def test_a_hand_that_dies_is_a_failure_with_the_reason(hands: Hands, job: str, order: int, text: str) -> None:
    outcome = do(hands, job, int(order))
    assert (outcome.failure, outcome.text) == (DIED, text)
    assert do(hands, "echo", 1).value == 1


def test_a_result_of_the_wrong_kind_is_a_failure(hands: Hands) -> None:
    outcome = do(hands, "lie", 1)
    assert outcome.failure == DIED
    assert "nonsense" in outcome.text


def test_a_job_that_stops_its_own_process_is_killed(hands: Hands) -> None:
    assert do(hands, "die", int(signal.SIGSTOP), SHORT_NS).failure == TIMED_OUT


def test_one_that_hangs_does_not_hold_up_the_others(hands: Hands) -> None:
    now = time.monotonic_ns()
    for number in range(3):
        hands.start(number, "spin", 0, MINUTE, now)
    # All of it is done before the first of those has come to its end.
    for _ in range(20):
        hands.start(9, "echo", 1, MINUTE, time.monotonic_ns())
        (outcome,) = outcomes(hands, 1)
        assert (outcome.number, outcome.failure) == (9, "")


def test_the_end_of_hands_leaves_no_descriptor_and_no_process() -> None:
    def own(hands: Hands) -> Any:
        before = descriptors()
        waits_at = f"{hands.fileno()} anon_inode:[eventpoll]"
        assert waits_at in before
        for job, order in (("echo", 1), ("fail", "x"), ("leave", 1), ("run away", 1)):
            do(hands, job, order)
        do(hands, "spin", 0, SHORT_NS)
        do(hands, "run away and hang", 0, SHORT_NS)
        hands.start(1, "spin", 0, LONG_NS, time.monotonic_ns())
        hands.close()
        return sorted(descriptors() - before), waits_at in descriptors(), reaper.children(os.getpid())

    assert in_owner(own) == [[], False, []]


# ---- what a job leaves behind --------------------------------------------------------------------------------


def test_who_runs_away_from_a_job_is_dead_before_its_result_is_told(hands: Hands) -> None:
    outcome = do(hands, "run away", 0)
    assert outcome.failure == ""
    assert reaper.is_dead(outcome.value)
    assert hands.forks == 1
    assert do(hands, "tell", 0).value["pid"] == hands.pids()[0]


def test_who_runs_away_from_a_job_that_is_killed_is_killed_as_well() -> None:
    def own(hands: Hands) -> Any:
        outcome = do(hands, "run away and hang", 0, SHORT_NS)
        turn_until(hands, lambda: reaper.children(os.getpid()) == list(hands.pids()))
        return [outcome.failure, outcome.abandoned]

    assert in_owner(own) == [TIMED_OUT, 0]


def test_who_runs_away_from_a_hand_that_dies_is_killed_as_well() -> None:
    def own(hands: Hands) -> Any:
        escaped = do(hands, "run away", 0)  # the hand is one that has had children
        hands.start(2, "run away and hang", 0, LONG_NS, time.monotonic_ns())
        (hand,) = hands.pids()

        def living() -> list[int]:
            return [pid for pid in reaper.children(hand) if not reaper.is_dead(pid)]

        turn_until(hands, lambda: len(reaper.children(hand)) == 2 and len(living()) == 1)
        (stray,) = living()
        os.kill(hand, signal.SIGKILL)
        (outcome,) = outcomes(hands, 1)
        turn_until(hands, lambda: reaper.is_dead(stray))
        return [escaped.failure, outcome.failure, outcome.text]

    assert in_owner(own) == ["", DIED, "its process died of SIGKILL"]


# ---- what does not die ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.root
def test_a_hand_that_does_not_die_is_abandoned_and_replaced_and_reaped_when_it_dies() -> None:
    with freezer() as group:

        def own(hands: Hands) -> Any:
            outcome = freeze_in_time(hands, group, "disk")
            others = [do(hands, "echo", number, key="other").value for number in range(3)]
            again = do(hands, "echo", 9, key="disk")
            (stuck,) = hands.strays.stuck(time.monotonic_ns())
            counted = len(hands.strays), hands.strays.abandonments
            (group / "freezer.state").write_text("THAWED")
            turn_until(hands, lambda: len(hands.strays) == 0)
            after = do(hands, "echo", 9, key="disk")
            return [
                [outcome.failure, outcome.abandoned],
                others,
                [again.failure, again.text, again.duration_ns],
                [stuck.pid, stuck.key],
                counted,
                [after.failure, os.path.exists(f"/proc/{stuck.pid}")],
            ]

        first, others, again, stuck, counted, after = apart_with_hands(own)
    assert first == [ABANDONED, 1]
    assert others == [0, 1, 2]
    assert again[0] == ABANDONED
    assert str(stuck[0]) in again[1]
    assert again[2] == 0
    assert stuck[1] == "disk"
    assert counted == [1, 1]
    assert after == ["", False]


def freeze_in_time(hands: Hands, group: Path, key: str, job: str = "freeze") -> module.Outcome:
    """A job that is frozen before its time is over."""

    def attempt(limit_ns: int) -> module.Outcome:
        return do(hands, job, str(group), limit_ns, key=key)

    return patiently(attempt, lambda outcome: outcome.abandoned, 2 * SHORT_NS)


def apart_with_hands(function: Callable[[Hands], Any]) -> Any:
    return apart(lambda: function(Hands(JOBS, 2)))


@pytest.mark.slow
@pytest.mark.root
def test_what_a_job_started_and_does_not_die_is_abandoned_with_a_result_all_the_same() -> None:
    with freezer() as group:

        def own(hands: Hands) -> Any:
            outcome = do(hands, "freeze child", str(group), LONG_NS, key="disk")
            turn_until(hands, lambda: len(hands.strays) == 1)
            (stuck,) = hands.strays.stuck(time.monotonic_ns())
            again = do(hands, "echo", 9, key="disk")
            (group / "freezer.state").write_text("THAWED")
            turn_until(hands, lambda: len(hands.strays) == 0)
            return [outcome.failure, outcome.abandoned, outcome.value == stuck.pid, stuck.key, again.failure]

        assert apart_with_hands(own) == ["", 1, True, "disk", ABANDONED]


@pytest.mark.slow
@pytest.mark.root
def test_what_a_killed_job_started_and_does_not_die_is_abandoned_under_its_key() -> None:
    with freezer() as group:

        def own(hands: Hands) -> Any:
            outcome = freeze_in_time(hands, group, "disk", "freeze child and hang")
            turn_until(hands, lambda: len(hands.strays) == 1)
            (stuck,) = hands.strays.stuck(time.monotonic_ns())
            again = do(hands, "echo", 9, key="disk"), do(hands, "echo", 9, key="other")
            (group / "freezer.state").write_text("THAWED")
            turn_until(hands, lambda: len(hands.strays) == 0)
            return [outcome.failure, outcome.abandoned, stuck.key, *(one.failure for one in again)]

        assert apart_with_hands(own) == [TIMED_OUT, 1, "disk", ABANDONED, ""]


@pytest.mark.root
def test_no_more_than_so_many_are_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ABANDONED_MAX", 1)
    with freezer() as group:

        def own(hands: Hands) -> Any:
            freeze_in_time(hands, group, "a")
            return [do(hands, "echo", 1, key="b").failure, do(hands, "echo", 1).text]

        assert apart_with_hands(own) == [ABANDONED, "1 processes are stuck in the kernel"]


def test_waking_early_does_nothing(hands: Hands) -> None:
    hands.start(1, "wait", 0.2, LONG_NS, time.monotonic_ns())
    for _ in range(100):
        assert hands.wake(time.monotonic_ns()) == []
    assert turn(hands, 10)[0].failure == ""
