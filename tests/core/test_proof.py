"""The proof of a deadlock: each guard of it has a look that fools whoever leaves it out."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.proof import (
    APART_NS,
    ASSUMES,
    Edge,
    Futex,
    Proof,
    Sighting,
    Snapshot,
    agreed,
    cycles_of,
    edge_of,
    edges_of,
    futex_of,
    is_across,
    proof_of,
    sighting,
    suspects_of,
)

PC = 0x7F00_0000_1000
A, B = 0x5000, 0x5100
WAIT, LOCK_PI, WAIT_BITSET, LOCK_PI2 = 0, 6, 9, 13
PRIVATE, REALTIME = 128, 256
WAITERS = 0x80000000
NORMAL, RECURSIVE, CHECKING, ADAPTIVE, ROBUST, INHERITS, SHARED = 0, 1, 2, 3, 0x10, 0x20, 0x80
#: What glibc keeps of a thread, and its id in there.
TCB = 0x9000
TID = TCB + 0x2D0


def call(address: int, value: int = 2, operation: int = WAIT | PRIVATE, timeout: int = 0, pc: int = PC) -> str:
    return f"202 {address:#x} {operation:#x} {value:#x} {timeout:#x} 0x0 0x0 0x7ffd00000000 {pc:#x}"


def thread(tid: int, line: str = "running", state: str = "S", inner: int = 0, switches: int = 7) -> Snapshot:
    return Snapshot(tid, inner or tid, f"worker-{tid}", state, (switches, 1), line)


def mutex(owner: int, lock: int = 2, count: int = 0, users: int = 1, kind: int = NORMAL) -> bytes:
    return struct.pack("<IIIII", lock, count, owner, users, kind)


def rwlock(writer: int, readers: int = 3, phase: int = 3, turn: int = 1, unused: int = 0) -> bytes:
    return struct.pack("<IIIIIIi", readers, 0, phase, turn, unused, unused, writer)


def control(tid: int, start: int = TCB, again: int = TCB) -> bytes:
    """What glibc keeps of a thread, from its beginning to its id."""
    return struct.pack("<QQQ", start, 0, again).ljust(TID - TCB, b"\0") + struct.pack("<I", tid)


class Memory:
    """Words by address."""

    def __init__(self, words: Mapping[int, bytes]) -> None:
        self._words = words

    def __call__(self, address: int, length: int) -> bytes:
        for start, data in self._words.items():
            if start <= address < start + len(data):
                return data[address - start :][:length]
        return b""


def edges(
    threads: list[Snapshot], words: Mapping[int, bytes], rwlocks: bool = True, own: bool = True
) -> dict[int, Edge]:
    return edges_of(threads, Memory(words), lambda address: own, lambda pc: pc == PC, rwlocks)


def edge(
    line: str, words: bytes, state: str = "S", base: int = A, rwlocks: bool = True, own: bool = True
) -> Edge | None:
    """The edge of thread 1, beside threads 2 and 4711 that pause."""
    return edges([thread(1, line, state), thread(2), thread(4711)], {base: words}, rwlocks, own).get(1)


# ---- who waits for whom --------------------------------------------------------------------------------------


def test_a_futex_call_is_read_from_its_line() -> None:
    found = futex_of(call(A, 0x1_0000_0002, WAIT_BITSET | PRIVATE | REALTIME, 0x10))
    assert found == Futex(A, WAIT_BITSET, True, 2, True, PC)


@pytest.mark.parametrize(
    "line", ["", "running", "-1 0x0 0x0", "202", "0 0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8", "202 q 0 0 0 0 0 0 0"]
)
def test_what_is_no_futex_call_is_none(line: str) -> None:
    assert futex_of(line) is None


@given(st.text())
def test_no_line_breaks_the_reader_of_calls(line: str) -> None:
    futex_of(line)
    futex_of(f"202 {line} 0x80 0x2 0x0 0x0 0x0 0x0 0x0")


@pytest.mark.parametrize("kind", [NORMAL, CHECKING, ADAPTIVE, 0x100, 0x200])
def test_a_mutex_names_its_owner(kind: int) -> None:
    assert edge(call(A), mutex(2, kind=kind)) == Edge(1, 2, "mutex", A)


def test_a_recursive_mutex_names_its_owner() -> None:
    assert edge(call(A), mutex(2, count=3, kind=RECURSIVE)) == Edge(1, 2, "mutex", A)


def test_a_robust_mutex_names_its_owner_twice() -> None:
    held = WAITERS | 2
    # Glibc calls each robust one shared, and waits for it as if it were.
    kind = ROBUST | SHARED
    assert edge(call(A, held, WAIT), mutex(2, held, kind=kind)) == Edge(1, 2, "robust mutex", A)
    assert edge(call(A, held), mutex(2, held, kind=ROBUST)) == Edge(1, 2, "robust mutex", A)
    assert edge(call(A, held), mutex(2, held, kind=NORMAL)) is None
    assert edge(call(A, WAITERS | 3), mutex(2, WAITERS | 3, kind=ROBUST)) is None
    # Without a mark that somebody waits the kernel would not be asked to wake anybody.
    assert edge(call(A, 2), mutex(2, 2, kind=ROBUST)) is None


@pytest.mark.parametrize("operation", [LOCK_PI | PRIVATE, LOCK_PI2 | PRIVATE])
def test_a_mutex_with_inheritance_names_its_owner_twice(operation: int) -> None:
    held = WAITERS | 2
    assert edge(call(A, 0, operation), mutex(2, held, kind=INHERITS)) == Edge(1, 2, "PI mutex", A)
    assert edge(call(A, 0, operation), mutex(2, held, kind=NORMAL)) is None
    assert edge(call(A, 0, operation), mutex(2, WAITERS | 3, kind=INHERITS)) is None
    assert edge(call(A, 0, operation), mutex(2, held, users=0, kind=INHERITS)) is None
    assert edge(call(A, 0, operation), mutex(2, held, kind=INHERITS | 0x400)) is None
    robust = mutex(2, held, kind=INHERITS | ROBUST | SHARED)
    assert edge(call(A, 0, operation & ~PRIVATE), robust) == Edge(1, 2, "PI mutex", A)


@pytest.mark.parametrize("offset", [8, 12])
def test_a_rwlock_held_for_writing_names_its_writer(offset: int) -> None:
    waits = call(A + offset, 3 if offset == 8 else 1, WAIT_BITSET | PRIVATE)
    assert edge(waits, rwlock(2)) == Edge(1, 2, "rwlock", A)


def test_a_rwlock_that_is_not_held_for_writing_names_nobody() -> None:
    waits = call(A + 8, 3, WAIT_BITSET | PRIVATE)
    assert edge(waits, rwlock(2, readers=2)) is None
    assert edge(waits, rwlock(2, readers=1)) is None
    assert edge(waits, rwlock(2, readers=8)) is None
    assert edge(waits, rwlock(0)) is None
    assert edge(waits, rwlock(2, unused=1)) is None
    assert edge(waits, rwlock(2, phase=1)) is None
    assert edge(call(A + 8, 4, WAIT_BITSET | PRIVATE), rwlock(2, phase=4)) is None


def test_a_rwlock_of_another_layout_names_nobody() -> None:
    assert edge(call(A + 8, 3, WAIT_BITSET | PRIVATE), rwlock(2), rwlocks=False) is None


def test_a_writer_never_waits_for_itself() -> None:
    assert edge(call(A + 8, 3, WAIT_BITSET | PRIVATE), rwlock(1)) is None


@pytest.mark.parametrize("operation", [WAIT, WAIT_BITSET, WAIT_BITSET | REALTIME])
def test_a_join_waits_for_the_thread_in_its_word(operation: int) -> None:
    assert edge(call(TID, 4711, operation), control(4711), base=TCB) == Edge(1, 4711, "join", TID)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (call(TID, 4711, WAIT | PRIVATE), control(4711)),  # the kernel wakes who joins as one of shared memory
        (call(TID, 4711, WAIT), control(0)),  # it has just ended
        (call(TID, 4712, WAIT), control(4712)),  # no thread of this process
        (call(TID, 1, WAIT), control(1)),  # nobody waits for their own end
        (call(TID, 4711, 5), control(4711)),  # another operation
        (call(TID, 4711, WAIT), control(4711, start=0)),
        (call(TID, 4711, WAIT), control(4711, again=TCB + 8)),
    ],
)
def test_a_word_that_is_no_join_names_nobody(line: str, words: bytes) -> None:
    assert edge(line, words, base=TCB) is None


def test_a_word_that_is_not_the_id_of_a_thread_is_no_join() -> None:
    assert edge(call(A, 4711, WAIT), struct.pack("<I", 4711)) is None
    assert edge(call(8, 4711, WAIT), struct.pack("<I", 4711), base=8) is None


@pytest.mark.parametrize("value", [1, 2, 3])
def test_a_shared_lock_is_no_join_of_the_first_threads_of_a_container(value: int) -> None:
    inside = [thread(1001, call(TID, value, WAIT), inner=9)]
    inside += [thread(1001 + inner, inner=inner) for inner in (1, 2, 3)]
    for operation in (WAIT, WAIT_BITSET):
        inside[0] = thread(1001, call(TID, value, operation), inner=9)
        assert edges(inside, {TCB: control(value)}) == {}


# ---- what another process may hold ---------------------------------------------------------------------------

HELD = WAITERS | 2
LOCKS = [
    (call(A), mutex(2)),
    (call(A, HELD, WAIT), mutex(2, HELD, kind=ROBUST | SHARED)),
    (call(A, 0, LOCK_PI | PRIVATE), mutex(2, HELD, kind=INHERITS)),
    (call(A, 0, LOCK_PI), mutex(2, HELD, kind=INHERITS | ROBUST | SHARED)),
    (call(A + 8, 3, WAIT_BITSET | PRIVATE), rwlock(2)),
]


@pytest.mark.parametrize(("line", "words"), LOCKS)
def test_a_lock_in_memory_that_others_may_have_names_nobody(line: str, words: bytes) -> None:
    assert edge(line, words) is not None
    assert edge(line, words, own=False) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (call(A), mutex(2, kind=SHARED)),
        (call(A, operation=WAIT), mutex(2)),
        (call(A, 0, LOCK_PI | PRIVATE), mutex(2, HELD, kind=INHERITS | SHARED)),
        (call(A, 0, LOCK_PI), mutex(2, HELD, kind=INHERITS)),
        (call(A + 8, 3, WAIT_BITSET), rwlock(2)),
    ],
)
def test_a_lock_that_is_declared_for_several_processes_names_nobody(line: str, words: bytes) -> None:
    assert edge(line, words) is None


def test_a_wait_for_what_others_may_hold_is_told_from_one_for_the_end_of_a_thread() -> None:
    def across(line: str, own: bool = True) -> bool:
        futex = futex_of(line)
        assert futex is not None
        return is_across(futex, Memory({TCB: control(4711)}), lambda address: own)

    assert across(call(A), own=False)
    assert across(call(A, operation=WAIT))
    assert not across(call(A))
    assert not across(call(TID, 4711, WAIT))


# ---- what proves nothing -------------------------------------------------------------------------------------


def test_a_wait_with_a_time_limit_is_no_edge() -> None:
    assert edge(call(A, timeout=0x7FFD), mutex(2)) is None
    assert edge(call(A, 0, LOCK_PI, timeout=0x7FFD), mutex(2, WAITERS | 2, kind=INHERITS)) is None


def test_a_word_with_another_value_is_no_edge() -> None:
    assert edge(call(A), mutex(2, lock=1)) is None
    assert edge(call(A), mutex(2, lock=0)) is None


def test_only_value_two_is_a_contended_mutex() -> None:
    assert edge(call(A, 1), mutex(2, lock=1)) is None
    assert edge(call(A, 3), mutex(2, lock=3)) is None


@pytest.mark.parametrize("kind", [0x4, 0x8, 0x400, 0x10000, 0xDEADBEEF, INHERITS, ROBUST])
def test_what_is_no_kind_of_plain_mutex_is_no_edge(kind: int) -> None:
    assert edge(call(A), mutex(2, kind=kind)) is None


def test_a_robust_mutex_of_no_kind_is_no_edge() -> None:
    held = WAITERS | 2
    assert edge(call(A, held), mutex(2, held, kind=ROBUST | 0x400)) is None


def test_a_mutex_that_nobody_uses_is_no_edge() -> None:
    assert edge(call(A), mutex(2, users=0)) is None


def test_an_owner_that_is_no_thread_of_this_process_is_no_edge() -> None:
    assert edge(call(A), mutex(99)) is None


def test_an_owner_that_has_ended_is_no_edge() -> None:
    gone = thread(2, state="Z")
    assert edges([thread(1, call(A)), gone], {A: mutex(2)}) == {}


def test_a_place_outside_of_the_library_is_no_edge() -> None:
    assert edge(call(A, pc=PC + 1), mutex(2)) is None


@pytest.mark.parametrize("state", ["R", "D", "T", "t"])
def test_a_thread_that_does_not_sleep_is_no_edge(state: str) -> None:
    assert edge(call(A), mutex(2), state) is None


def test_memory_that_cannot_be_read_is_no_edge() -> None:
    assert edge(call(A), b"") is None
    assert edge(call(A), mutex(2)[:12]) is None
    assert edge(call(4, 2, WAIT_BITSET | PRIVATE), b"") is None


@pytest.mark.parametrize(
    ("kind", "count", "waits"), [(NORMAL, 0, True), (ADAPTIVE, 0, True), (NORMAL, 1, False), (CHECKING, 0, False)]
)
def test_only_a_mutex_that_does_not_look_can_be_waited_for_by_its_owner(kind: int, count: int, waits: bool) -> None:
    found = edge(call(A), mutex(1, count=count, kind=kind))
    assert found == (Edge(1, 1, "mutex", A) if waits else None)


def test_a_condition_beside_a_thread_id_is_no_mutex() -> None:
    """An idle pool: `struct { pthread_cond_t c; int tid; }` has the waiter's own id near the word."""
    condition = struct.pack("<12I", 0, 0, 1, 1, 0, 0, 0, 2, 0, 0, 0, 1)
    for offset in range(0, 40, 4):
        for operation in (WAIT | PRIVATE, WAIT_BITSET | PRIVATE, WAIT_BITSET | PRIVATE | REALTIME):
            value = struct.unpack_from("<I", condition, offset)[0]
            assert edge(call(A + offset, value, operation), condition) is None


def test_ids_are_those_that_the_program_itself_sees() -> None:
    inside = [thread(1001, call(A), inner=7), thread(1002, inner=8)]
    assert edges(inside, {A: mutex(8)}) == {1001: Edge(1001, 1002, "mutex", A)}
    assert edges(inside, {A: mutex(1002)}) == {}


@given(
    st.binary(max_size=64),
    st.integers(0, 1 << 64),
    st.integers(0, 1 << 33),
    st.integers(0, 511),
    st.integers(0, 64),
)
def test_no_memory_breaks_the_reader_of_locks(data: bytes, address: int, value: int, operation: int, skip: int) -> None:
    futex = Futex(address, operation & 127, bool(operation & 128), value & 0xFFFFFFFF, False, PC)
    found = edge_of(1, futex, {1: 1, 2: 2}, lambda at, length: data[skip:][:length], lambda at: True)
    assert found is None or found.owner in (1, 2)


# ---- cycles --------------------------------------------------------------------------------------------------


def ring(*tids: int) -> dict[int, Edge]:
    return {tid: Edge(tid, owner, "mutex", 0x100 * tid) for tid, owner in zip(tids, (*tids[1:], tids[0]), strict=True)}


def test_a_cycle_begins_at_its_lowest_thread() -> None:
    assert [[edge.waiter for edge in cycle] for cycle in cycles_of(ring(5, 3, 4))] == [[3, 4, 5]]


def test_who_waits_behind_a_cycle_is_no_part_of_it() -> None:
    tail = {1: Edge(1, 3, "mutex", 1), 9: Edge(9, 1, "join", 2)}
    assert cycles_of(ring(3, 4) | tail) == cycles_of(ring(3, 4))


def test_a_chain_is_no_cycle() -> None:
    assert cycles_of({1: Edge(1, 2, "mutex", 1), 2: Edge(2, 3, "mutex", 2)}) == ()


@given(st.dictionaries(st.integers(0, 30), st.integers(0, 30), max_size=30))
def test_cycles_are_those_that_walking_on_and_on_finds(owners: dict[int, int]) -> None:
    graph = {waiter: Edge(waiter, owner, "mutex", 0) for waiter, owner in owners.items()}
    inside = set()
    for start in owners:
        at: int | None = start
        for _ in range(40):
            at = owners.get(at) if at is not None else None
        if at is not None:
            inside.add(at)
            while (at := owners[at]) not in inside:
                inside.add(at)
    found = cycles_of(graph)
    assert {edge.waiter for cycle in found for edge in cycle} == inside
    assert [cycle[0].waiter for cycle in found] == sorted(min(edge.waiter for edge in cycle) for cycle in found)
    for cycle in found:
        assert [edge.owner for edge in cycle] == [edge.waiter for edge in (*cycle[1:], cycle[0])]


# ---- one look ------------------------------------------------------------------------------------------------


def crossed(switches: int = 7) -> dict[int, Snapshot]:
    return {1: thread(1, call(B), switches=switches), 2: thread(2, call(A), switches=switches)}


def one_look(begun_ns: int = 0, switches: int = 7, after: dict[int, Snapshot] | None = None) -> Sighting:
    before = crossed(switches)
    found = edges(list(before.values()), {A: mutex(1), B: mutex(2)})
    return sighting(before, before if after is None else after, found, begun_ns, begun_ns + 1000)


def test_a_cycle_in_which_nobody_moved_is_seen() -> None:
    found = one_look()
    assert [[edge.waiter for edge in cycle] for cycle in found.cycles] == [[1, 2]]
    assert (found.raced, found.switches) == (0, {1: (7, 1), 2: (7, 1)})


@pytest.mark.parametrize(
    "changed",
    [
        {"switches": (8, 1)},
        {"switches": (7, 2)},
        {"call": call(A, timeout=1)},
        {"call": "running"},
        {"state": "R"},
    ],
)
def test_a_cycle_of_which_one_moved_is_raced(changed: dict[str, object]) -> None:
    after = crossed()
    after[2] = msgspec.structs.replace(after[2], **changed)
    found = one_look(after=after)
    assert (found.cycles, found.raced, found.switches) == ((), 1, {})


def test_a_cycle_of_which_one_ended_is_raced() -> None:
    assert one_look(after={1: crossed()[1]}).raced == 1


# ---- two looks -----------------------------------------------------------------------------------------------


def test_two_looks_a_second_apart_prove_a_cycle() -> None:
    first = one_look()
    second = one_look(first.ended_ns + APART_NS)
    proof = proof_of(first, second, {1: "reader", 2: "writer"}, False, {A: "accounts (in bank)"})
    assert proof is not None
    assert [(link.tid, link.name, link.owner, link.owner_name) for link in proof.cycle] == [
        (1, "reader", 2, "writer"),
        (2, "writer", 1, "reader"),
    ]
    assert [(link.address, link.symbol) for link in proof.cycle] == [(hex(B), ""), (hex(A), "accounts (in bank)")]
    assert (proof.apart_ns, proof.others, proof.assumes) == (APART_NS, 0, ASSUMES)


def proved(edges: dict[int, Edge], *living: int, unseen: int = 0) -> Proof:
    before = {tid: thread(tid) for tid in edges}
    first, second = (sighting(before, before, edges, at, at + 1) for at in (0, 1 + APART_NS))
    proof = proof_of(first, second, {}, False, living=living or tuple(edges), unseen=unseen)
    assert proof is not None
    return proof


def test_a_proof_names_how_many_threads_could_unlock_what_they_do_not_own() -> None:
    behind = {3: Edge(3, 1, "mutex", A), 4: Edge(4, 3, "join", TID)}
    assert proved(ring(1, 2) | behind).assumes == ASSUMES
    assert proved(ring(1, 2) | behind, 1, 2, 3, 4, 5).assumes == (
        *ASSUMES,
        "1 more thread, neither in the cycle nor waiting for it, unlocks nothing that another one owns",
    )
    assert proved(ring(1, 2), 1, 2, 5, 6, unseen=3).assumes[-1].startswith("5 more threads, neither in the cycle nor ")


def test_threads_of_another_cycle_unlock_nothing() -> None:
    assert proved(ring(1, 2) | ring(3, 4)).assumes == ASSUMES


def test_locks_that_ask_who_unlocks_them_need_no_such_word() -> None:
    sure = {1: Edge(1, 2, "robust mutex", A), 2: Edge(2, 3, "PI mutex", B), 3: Edge(3, 1, "join", TID)}
    assert proved(sure, 1, 2, 3, 4, 5).assumes == ASSUMES
    assert proved({**sure, 2: Edge(2, 3, "rwlock", B)}, 1, 2, 3, 4).assumes[-1].startswith("1 more thread, ")


def test_one_look_proves_nothing() -> None:
    first = one_look()
    nothing = Sighting(begun_ns=first.ended_ns + APART_NS, ended_ns=first.ended_ns + 2 * APART_NS)
    assert agreed(first, nothing, True) == ()
    assert agreed(nothing, one_look(nothing.ended_ns + APART_NS), True) == ()


def test_two_looks_that_are_too_near_prove_nothing() -> None:
    first = one_look()
    assert agreed(first, one_look(first.ended_ns + APART_NS - 1), True) == ()


def test_who_moved_between_the_looks_proves_nothing() -> None:
    first = one_look()
    assert agreed(first, one_look(first.ended_ns + APART_NS, switches=8), True) == ()


def test_another_cycle_of_the_same_threads_proves_nothing() -> None:
    first = one_look()
    before = crossed()
    swapped = {1: Edge(1, 2, "mutex", A), 2: Edge(2, 1, "mutex", B)}
    begun_ns = first.ended_ns + APART_NS
    assert agreed(first, sighting(before, before, swapped, begun_ns, begun_ns + 1), True) == ()


#: Thread 1 waits for itself, 2 for 1, 3 for the end of 2.
BEHIND = {1: Edge(1, 1, "mutex", A), 2: Edge(2, 1, "rwlock", B), 3: Edge(3, 2, "join", TID)}


def behind(
    *tids: int, later: bool = False, after: dict[int, Snapshot] | None = None, whole: bool = True, **moved: int
) -> Sighting:
    """A look at a process with these threads, of which those of `BEHIND` wait as it says."""
    begun_ns = 1 + APART_NS if later else 0
    before = {tid: thread(tid, switches=7 + moved.get(f"t{tid}", 0)) for tid in tids}
    found = {tid: BEHIND[tid] for tid in tids if tid in BEHIND}
    return sighting(before, {**before, **(after or {})}, found, begun_ns, begun_ns + 1, whole)


@pytest.mark.parametrize("tids", [(1,), (1, 2), (1, 2, 3)])
def test_a_thread_that_waits_for_itself_is_proved_when_nothing_moves_and_all_others_wait_for_it(
    tids: tuple[int, ...],
) -> None:
    first, second = behind(*tids), behind(*tids, later=True)
    assert proof_of(first, second, {}, False) is None
    proof = proof_of(first, second, {}, True)
    assert proof is not None
    assert [(link.tid, link.owner) for link in proof.cycle] == [(1, 1)]


def test_a_thread_that_waits_for_itself_beside_one_that_could_unlock_it_is_no_proof() -> None:
    assert agreed(behind(1, 9), behind(1, 9, later=True), True) == ()
    assert agreed(behind(1, 2, 3, 9), behind(1, 2, 3, 9, later=True), True) == ()
    # It came, or went, between the looks.
    assert agreed(behind(1, 2), behind(1, later=True), True) == ()
    assert agreed(behind(1), behind(1, 2, later=True), True) == ()


def test_a_thread_that_has_ended_unlocks_nothing() -> None:
    before = {1: thread(1), 9: thread(9, state="Z")}
    first, second = (sighting(before, before, {1: BEHIND[1]}, at, at + 1) for at in (0, 1 + APART_NS))
    assert len(agreed(first, second, True)) == 1


def test_whoever_moves_behind_a_thread_that_waits_for_itself_could_unlock_it() -> None:
    assert agreed(behind(1, 2), behind(1, 2, later=True, t2=1), True) == ()
    awake = {2: thread(2, switches=8)}
    assert behind(1, 2, after=awake).closed == {}
    assert agreed(behind(1, 2, after=awake), behind(1, 2, later=True), True) == ()
    assert agreed(behind(1, 2), behind(1, 2, later=True, after=awake), True) == ()


def test_threads_that_were_not_looked_at_could_unlock_it() -> None:
    assert agreed(behind(1, whole=False), behind(1, whole=False, later=True), True) == ()


def test_another_lock_behind_a_thread_that_waits_for_itself_is_no_proof() -> None:
    first, second = behind(1, 2), behind(1, 2, later=True)
    other = msgspec.structs.replace(first, edges={**first.edges, 2: Edge(2, 1, "mutex", 0x7777)})
    assert agreed(other, second, True) == ()


def test_all_whose_standstill_matters_are_read_again() -> None:
    threads = {tid: thread(tid) for tid in (1, 2, 3, 9)}
    assert suspects_of(threads, BEHIND) == (1,)
    del threads[9]
    assert suspects_of(threads, BEHIND) == (1, 2, 3)
    assert suspects_of(threads, ring(1, 2) | {3: BEHIND[3]}) == (1, 2)
    assert suspects_of({1: thread(1), 2: thread(2)}, {1: BEHIND[1], 2: Edge(2, 2, "mutex", B)}) == (1, 2)


def test_two_threads_that_each_wait_for_themselves_could_unlock_one_another() -> None:
    before = {1: thread(1), 2: thread(2)}
    found = {1: BEHIND[1], 2: Edge(2, 2, "mutex", B)}
    first, second = (sighting(before, before, found, at, at + 1) for at in (0, 1 + APART_NS))
    assert agreed(first, second, True) == ()


def test_further_cycles_are_counted() -> None:
    before = {tid: thread(tid) for tid in (1, 2, 3, 4)}
    found = ring(1, 2) | ring(3, 4)
    first = sighting(before, before, found, 0, 1)
    second = sighting(before, before, found, 1 + APART_NS, 2 + APART_NS)
    proof = proof_of(first, second, {}, False)
    assert proof is not None
    assert (len(proof.cycle), proof.others) == (2, 1)
