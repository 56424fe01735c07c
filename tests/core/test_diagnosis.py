"""The order of questions, and what two looks must have for each answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.diagnosis import (
    DETAIL_LENGTH_MAX,
    Look,
    Surroundings,
    ThreadLook,
    Verdict,
    classify,
    movements,
    unknown,
)
from hbagent.core.messages import DETAILS_MAX
from hbagent.core.proof import APART_NS, Edge, Sighting, Snapshot
from hbagent.core.states import Stall
from hbagent.core.units import MILLISECOND, SECOND

FUTEX = "202 0x5000 0x80 0x0 0x0 0x0 0x0 0x7ffd00000000 0x7f0000001000"
TIMED_FUTEX = "202 0x5000 0x189 0x0 0x7ffd00000010 0x0 0xffffffff 0x7ffd00000000 0x7f0000001000"
EPOLL = "232 0x4 0x7ffd00000010 0x40 0xffffffff 0x0 0x8 0x7ffd00000000 0x7f0000001000"
READ = "0 0x4 0x7ffd00000010 0x40 0x0 0x0 0x0 0x7ffd00000000 0x7f0000001000"
FLOCK = "73 0x4 0x2 0x0 0x0 0x0 0x0 0x7ffd00000000 0x7f0000001000"
SETLKW = "72 0x4 0x7 0x7ffd00000010 0x0 0x0 0x0 0x7ffd00000000 0x7f0000001000"
GETFL = "72 0x4 0x3 0x0 0x0 0x0 0x0 0x7ffd00000000 0x7f0000001000"


def thread(
    tid: int = 1,
    call: str = EPOLL,
    state: str = "S",
    switches: int = 5,
    ran_ms: float = 0,
    delayed_ms: float = 0,
    wchan: str = "",
) -> ThreadLook:
    """One thread; the numbers are what a second look would add to."""
    snapshot = Snapshot(tid, tid, f"worker-{tid}", state, (switches, 0), call)
    return ThreadLook(snapshot, round(ran_ms * MILLISECOND), round(delayed_ms * MILLISECOND), wchan)


def look(*threads: ThreadLook, at_ns: int = 0, edges: tuple[Edge, ...] = (), **rest: Any) -> Look:
    found = Sighting(at_ns, at_ns + 1000, edges={edge.waiter: edge for edge in edges})
    return msgspec.structs.replace(Look(sighting=found, threads=threads, threads_total=len(threads)), **rest)


def verdict(
    then: tuple[ThreadLook, ...], now: tuple[ThreadLook, ...], stuck: bool = False, cpus: int = 4, **second: Any
) -> Verdict:
    around = Surroundings(processors=cpus)
    return classify(look(*then), look(*now, at_ns=SECOND, **second), stuck, around)


def of(now: ThreadLook, stuck: bool = False, then: ThreadLook | None = None, **second: Any) -> Stall:
    """The verdict on a process of one thread; without `then` it has not moved."""
    return verdict((then or now,), (now,), stuck, **second).stall


# ---- paused, before anything else ----------------------------------------------------------------------------


def cycle() -> tuple[Look, Look]:
    ring = (Edge(1, 2, "mutex", 0x5000), Edge(2, 1, "mutex", 0x5100))
    seen = {"cycles": (ring,), "switches": {1: (5, 0), 2: (5, 0)}, "edges": {edge.waiter: edge for edge in ring}}
    threads = (thread(1, FUTEX), thread(2, FUTEX))
    first = Look(sighting=Sighting(0, 1000, **seen), threads=threads)  # type: ignore[arg-type]
    late_ns = 1000 + APART_NS
    return first, Look(sighting=Sighting(late_ns, late_ns + 9, **seen), threads=threads)  # type: ignore[arg-type]


def test_a_proved_cycle_is_deadlocked_whoever_asks() -> None:
    for stuck in (False, True):
        found = classify(*cycle(), stuck)
        assert (found.stall, found.proof is not None) == (Stall.DEADLOCKED, True)
    assert found.details == (
        "thread worker-1 (1) holds mutex 0x5100 and waits for mutex 0x5000 held by worker-2 (2)",
        "thread worker-2 (2) holds mutex 0x5000 and waits for mutex 0x5100 held by worker-1 (1)",
    )


def guarded(*others: ThreadLook, now: tuple[ThreadLook, ...] = (), **second: Any) -> Verdict:
    """The stuck verdict on a thread that waits for a mutex that it holds, beside others."""
    own = Edge(1, 1, "mutex", 0x5000)
    seen = {"cycles": ((own,),), "switches": {1: (5, 0)}, "edges": {1: own}, **second}
    looks = []
    for at_ns, threads in ((0, others), (SECOND, now or others)):
        found = Sighting(at_ns, at_ns + 1000, **seen)
        looks.append(Look(sighting=found, threads=(thread(1, FUTEX), *threads)))
    late = msgspec.structs.replace(looks[1].sighting, begun_ns=1000 + APART_NS, ended_ns=2000 + APART_NS)
    return classify(looks[0], msgspec.structs.replace(looks[1], sighting=late), True)


UNLOCKABLE = (
    "thread worker-1 (1) waits for a mutex that it holds itself; another thread of this process could still unlock it"
)


def test_a_thread_that_waits_for_itself_is_deadlocked_when_nobody_is_left_to_unlock_it() -> None:
    found = guarded(closed={1: (5, 0)})
    assert (found.stall, found.text) == (Stall.DEADLOCKED, "its only thread waits for a lock that it holds itself")
    found = guarded(thread(2, FUTEX), closed={1: (5, 0), 2: (5, 0)}, edges={})
    assert (found.stall, "all others wait for that thread" in found.text) == (Stall.DEADLOCKED, True)


@pytest.mark.parametrize(
    ("then", "now", "stall"),
    [
        (thread(2, READ), thread(2, READ), Stall.LOCK_WAIT),
        (thread(2, state="R"), thread(2, state="R", ran_ms=990), Stall.BUSY_LOOP),
        (thread(2, READ, state="D"), thread(2, READ, state="D"), Stall.IO_BLOCKED),
    ],
)
def test_a_thread_that_waits_for_itself_beside_another_is_told_and_not_deadlocked(
    then: ThreadLook, now: ThreadLook, stall: Stall
) -> None:
    found = guarded(then, now=(now,))
    assert (found.stall, found.proof, found.details.count(UNLOCKABLE)) == (stall, None, 1)


def test_a_lock_is_called_by_its_name() -> None:
    found = classify(*cycle(), False, Surroundings(symbols={0x5000: "accounts (in bank)"}))
    assert "waits for mutex accounts (in bank) held by worker-2" in found.details[0]


def test_whoever_is_frozen_is_paused_and_not_deadlocked() -> None:
    first, second = cycle()
    found = classify(first, msgspec.structs.replace(second, frozen="its control group /x is frozen"), True)
    assert (found.stall, found.text, found.proof) == (Stall.PAUSED, "its control group /x is frozen", None)


def test_state_d_of_a_frozen_group_is_no_wait_for_a_disk() -> None:
    assert of(thread(state="D"), frozen="frozen") is Stall.PAUSED


def test_a_stopped_process_is_paused() -> None:
    assert of(thread(state="T")) is Stall.PAUSED
    assert of(thread(state="T"), then=thread(state="R", ran_ms=0)) is Stall.PAUSED


def test_one_thread_that_is_just_stopping_is_no_paused_process() -> None:
    assert verdict((thread(1), thread(2)), (thread(1, state="T"), thread(2))).stall is Stall.IDLE


def test_whoever_is_held_by_a_debugger_is_paused_and_whoever_is_traced_is_not() -> None:
    assert of(thread(state="t")) is Stall.PAUSED
    assert of(thread(state="t", switches=500), then=thread(state="t")) is not Stall.PAUSED


# ---- starved, and blocked by a disk --------------------------------------------------------------------------


def test_whoever_gets_a_fifth_of_what_it_wants_is_starved() -> None:
    then, now = thread(state="R"), thread(state="R", ran_ms=200, delayed_ms=800)
    assert of(now, then=then) is Stall.STARVED
    assert of(now, then=then, stuck=True) is Stall.STARVED


def test_whoever_shares_a_processor_is_not_starved() -> None:
    assert of(thread(ran_ms=500, delayed_ms=500), then=thread()) is Stall.RUNNING


def test_threads_that_crowd_one_another_out_starve_nobody() -> None:
    then = tuple(thread(tid) for tid in range(8))
    now = tuple(thread(tid, ran_ms=240, delayed_ms=760) for tid in range(8))
    assert verdict(then, now, cpus=2).stall is Stall.RUNNING
    assert verdict(then, now, cpus=8).stall is Stall.STARVED


def test_whoever_wants_next_to_nothing_is_not_starved() -> None:
    assert of(thread(ran_ms=1, delayed_ms=100), then=thread()) is Stall.IDLE
    assert of(thread(ran_ms=50, delayed_ms=400), then=thread()) is Stall.RUNNING


def test_whoever_wakes_often_and_waits_a_little_each_time_is_not_starved() -> None:
    assert of(thread(switches=205, ran_ms=100, delayed_ms=800), then=thread()) is Stall.RUNNING
    assert of(thread(switches=45, ran_ms=100, delayed_ms=800), then=thread()) is Stall.STARVED


def test_a_quota_is_named_as_what_starves() -> None:
    then, now = thread(), thread(ran_ms=200, delayed_ms=800)
    around = Surroundings(processors=4)
    found = classify(
        look(then, throttled_ns=5 * SECOND), look(now, at_ns=SECOND, throttled_ns=6 * SECOND), False, around
    )
    assert "quota" in found.text
    often = thread(switches=900, ran_ms=200, delayed_ms=800)
    found = classify(look(then, throttled_ns=0), look(often, at_ns=SECOND, throttled_ns=SECOND), False, around)
    assert found.stall is Stall.STARVED
    found = classify(look(then, throttled_ns=SECOND), look(now, at_ns=SECOND, throttled_ns=SECOND), False, around)
    assert "quota" not in found.text


def test_whoever_does_not_leave_state_d_is_blocked_by_a_disk() -> None:
    assert of(thread(state="D", call=READ)) is Stall.IO_BLOCKED
    assert of(thread(state="D", call=READ), stuck=True) is Stall.IO_BLOCKED


def test_a_lock_in_a_file_that_does_not_come_is_told_as_a_wait_for_the_file() -> None:
    now = thread(state="D", call=FUTEX, wchan="folio_wait_bit_common")
    found = verdict((now,), (now,), stuck=True)
    assert found.stall is Stall.IO_BLOCKED
    assert found.details == ("thread worker-1 (1) is in state D in folio_wait_bit_common, system call 202",)


def test_whoever_moves_through_state_d_works() -> None:
    assert of(thread(state="D", switches=900), then=thread(state="D")) is Stall.RUNNING
    assert of(thread(state="D", switches=900), then=thread(state="D"), stuck=True) is Stall.SLOW


def test_other_threads_that_work_hide_a_blocked_one_only_while_nobody_complains() -> None:
    then = (thread(1, state="D"), thread(2))
    now = (thread(1, state="D"), thread(2, ran_ms=300))
    assert verdict(then, now).stall is Stall.RUNNING
    assert verdict(then, now, stuck=True).stall is Stall.IO_BLOCKED


@pytest.mark.parametrize("wchan", ["request_wait_answer", "rpc_wait_bit_killable", "nfs_wait_bit_killable"])
def test_a_wait_for_a_served_filesystem_is_one_for_a_disk(wchan: str) -> None:
    assert of(thread(call=READ, wchan=wchan)) is Stall.IO_BLOCKED


def test_a_parent_of_a_child_that_starts_is_not_blocked_by_a_disk() -> None:
    assert of(thread(state="D", wchan="wait_for_vfork_done")) is Stall.IDLE


# ---- what is an illness only when nothing moves --------------------------------------------------------------


def test_burning_is_a_loop_only_when_nothing_moves() -> None:
    then, now = thread(state="R"), thread(state="R", ran_ms=990)
    assert of(now, then=then) is Stall.RUNNING
    assert of(now, then=then, stuck=True) is Stall.BUSY_LOOP


def test_whoever_burns_beside_others_burns_all_the_same() -> None:
    assert of(thread(ran_ms=400, delayed_ms=500), then=thread(), stuck=True) is Stall.BUSY_LOOP


def test_waiting_for_a_processor_is_no_burning() -> None:
    now = thread(call=TIMED_FUTEX, switches=205, ran_ms=40, delayed_ms=700)
    assert of(now, then=thread(call=TIMED_FUTEX), stuck=True) is Stall.LOCK_WAIT


def test_whoever_works_a_little_is_slow_when_nothing_moves() -> None:
    assert of(thread(ran_ms=200), then=thread(), stuck=True) is Stall.SLOW
    assert of(thread(switches=200), then=thread(), stuck=True) is Stall.SLOW


@pytest.mark.parametrize("call", [FUTEX, TIMED_FUTEX, FLOCK, SETLKW])
def test_waiting_for_a_lock_is_an_illness_only_when_nothing_moves(call: str) -> None:
    assert of(thread(call=call)) is Stall.IDLE
    assert of(thread(call=call), stuck=True) is Stall.LOCK_WAIT


@pytest.mark.parametrize("call", [EPOLL, READ, GETFL, "running", ""])
def test_waiting_for_something_else_is_no_wait_for_a_lock(call: str) -> None:
    assert of(thread(call=call), stuck=True) is Stall.IDLE


def test_asking_for_the_same_lock_again_and_again_is_waiting_for_it() -> None:
    assert of(thread(call=TIMED_FUTEX, switches=200), then=thread(call=TIMED_FUTEX), stuck=True) is Stall.LOCK_WAIT
    about_to_run = thread(call="running", state="R", switches=200)
    assert of(about_to_run, then=thread(call=TIMED_FUTEX), stuck=True) is Stall.LOCK_WAIT
    assert of(thread(call=TIMED_FUTEX, switches=200), then=thread(call="running"), stuck=True) is Stall.LOCK_WAIT
    assert of(about_to_run, then=thread(call="running", state="R"), stuck=True) is Stall.SLOW
    other = TIMED_FUTEX.replace("0x5000", "0x6000")
    assert of(thread(call=TIMED_FUTEX, switches=200), then=thread(call=other), stuck=True) is Stall.SLOW


def test_asking_for_a_lock_burns_little() -> None:
    then = (thread(1, TIMED_FUTEX), thread(2, TIMED_FUTEX))
    for ran_ms, stall in ((45, Stall.LOCK_WAIT), (55, Stall.SLOW)):
        now = (thread(1, TIMED_FUTEX, ran_ms=ran_ms), thread(2, TIMED_FUTEX, ran_ms=ran_ms))
        assert verdict(then, now, stuck=True).stall is stall


def test_a_heartbeat_thread_hides_no_lock() -> None:
    found = verdict((thread(1, FUTEX), thread(2)), (thread(1, FUTEX), thread(2, switches=15, ran_ms=1)), stuck=True)
    assert found.stall is Stall.LOCK_WAIT


def test_whoever_waits_for_the_end_of_a_thread_waits_for_no_lock() -> None:
    join = (Edge(1, 2, "join", 0x5000),)
    found = verdict((thread(1, FUTEX), thread(2)), (thread(1, FUTEX), thread(2, switches=100)), True, edges=join)
    assert found.stall is Stall.SLOW


def test_numbers_of_system_calls_are_those_of_the_architecture() -> None:
    arm = Surroundings(arch="aarch64")
    futex = FUTEX.replace("202 ", "98 ")
    for call, stall in ((futex, Stall.LOCK_WAIT), (FUTEX, Stall.IDLE)):
        assert classify(look(thread(call=call)), look(thread(call=call), at_ns=SECOND), True, arm).stall is stall
    nowhere = Surroundings(arch="sparc64")
    assert classify(look(thread(call=FUTEX)), look(thread(call=FUTEX), at_ns=SECOND), True, nowhere).stall is Stall.IDLE


def test_why_there_is_no_proof_is_told_with_a_lock() -> None:
    found = verdict((thread(call=FUTEX),), (thread(call=FUTEX),), True, no_proof="no proof with musl")
    assert "no proof with musl" in found.text


# ---- what is not known ---------------------------------------------------------------------------------------


def test_what_the_host_denies_is_unknown() -> None:
    assert of(thread(call=""), denied="it needs a capability") is Stall.UNKNOWN
    assert of(thread(call=""), denied="it needs a capability", stuck=True) is Stall.UNKNOWN
    assert of(thread(call="", switches=200), then=thread(), denied="no", stuck=True) is Stall.UNKNOWN


def test_what_can_be_seen_all_the_same_is_told() -> None:
    denied = "it needs a capability"
    assert of(thread(call="", state="T"), denied=denied) is Stall.PAUSED
    assert of(thread(call="", state="D"), denied=denied) is Stall.IO_BLOCKED
    assert of(thread(call="", ran_ms=900), then=thread(), denied=denied) is Stall.RUNNING
    assert of(thread(call="", ran_ms=900), then=thread(), denied=denied, stuck=True) is Stall.BUSY_LOOP


def test_a_process_that_ended_is_unknown() -> None:
    assert of(thread(state="Z")) is Stall.UNKNOWN
    assert verdict((thread(),), ()).stall is Stall.UNKNOWN
    assert unknown("there is no process 7").text == "there is no process 7"


def test_a_main_thread_that_ended_first_hides_nothing() -> None:
    now = (thread(1, state="Z"), thread(2, FUTEX))
    assert verdict(now, now, stuck=True).stall is Stall.LOCK_WAIT


def test_a_kernel_without_these_counters_leaves_the_switches() -> None:
    bare = ThreadLook(thread(call=FUTEX).snapshot)
    assert verdict((bare,), (bare,), stuck=True).stall is Stall.LOCK_WAIT


# ---- lines for people ----------------------------------------------------------------------------------------


def test_a_thread_that_is_new_has_moved() -> None:
    (found,) = movements(look(), look(thread(9, switches=3, ran_ms=2)))
    assert (found.still, found.same_place, found.switches, found.ran_ns) == (False, False, 3, 2 * MILLISECOND)


def test_lines_are_few_and_short() -> None:
    crowd = tuple(thread(tid, FUTEX, wchan="f" * 300) for tid in range(100))
    found = classify(look(*crowd), look(*crowd, at_ns=SECOND), True, Surroundings(queues=("q" * 500,), arch="aarch64"))
    assert len(found.details) <= DETAILS_MAX
    assert max(map(len, found.details)) <= DETAIL_LENGTH_MAX


def test_what_waits_to_be_accepted_is_told_with_every_verdict() -> None:
    around = Surroundings(queues=("connections that wait to be accepted on 127.0.0.1:80: 7",))
    for then, now, stuck in (
        (thread(), thread(), False),
        (thread(call=FUTEX), thread(call=FUTEX), True),
        (thread(), thread(ran_ms=990), True),
    ):
        assert classify(look(then), look(now, at_ns=SECOND), stuck, around).details[-1] == around.queues[0]


THREADS = st.builds(
    thread,
    tid=st.integers(1, 5),
    call=st.sampled_from(["", "running", FUTEX, TIMED_FUTEX, EPOLL, FLOCK, "-1 0x0 0x0", "202 0x1", "9 9 9"]),
    state=st.sampled_from("RSDTtZXI"),
    switches=st.integers(0, 1000),
    ran_ms=st.integers(0, 2000),
    delayed_ms=st.integers(0, 2000),
    wchan=st.sampled_from(["", "request_wait_answer", "futex_wait_queue"]),
)
MANY = st.lists(THREADS, max_size=5, unique_by=lambda found: found.snapshot.tid)


@given(
    MANY,
    MANY,
    st.booleans(),
    st.sampled_from(["", "no"]),
    st.sampled_from(["", "frozen"]),
    st.sampled_from(["x86_64", "aarch64", "vax"]),
)
def test_whatever_is_seen_gets_a_verdict_and_none_is_deadlocked_without_a_cycle(
    then: list[ThreadLook], now: list[ThreadLook], stuck: bool, denied: str, frozen: str, arch: str
) -> None:
    around = Surroundings(processors=2, arch=arch)
    found = classify(look(*then), look(*now, at_ns=SECOND, denied=denied, frozen=frozen), stuck, around)
    assert found.stall is not Stall.DEADLOCKED
    assert found.proof is None
    assert found.text
    if not stuck:
        assert found.stall not in (Stall.BUSY_LOOP, Stall.LOCK_WAIT, Stall.SLOW)
