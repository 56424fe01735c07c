"""What proves from outside that threads have locked one another out: a cycle of lock owners, in which nobody can move.

Think of a photograph of people in a ring, each holding the next one's coat and waiting for their own. One photograph
may catch a dance, so three things make it a proof. Each wait must be one that only its owner can end: a wait without a
time limit in a lock of glibc, where the word that is waited for still has the value it had. Nobody in the ring may
have run while the words were read: the counters of context switches and the whole system call are the same before and
after. And a second photograph, a second or more later, shows the same ring with the same counters.

What an edge is stands in `edge_of`, one kind of lock after the other, by the layout that glibc has on x86-64 (mutex:
since 2.1, rwlock: since 2.25, thread: since 2.11). A lock that another process may hold too is none: its owner's id
may mean somebody else there than here. A ring of one, a thread that waits for a mutex that it holds, is what a mutex
that is used as a semaphore looks like; it counts only when nobody is left in the process who could unlock it.

Everything else that waits on a futex has no owner that could be read: semaphores, conditions, barriers, rwlocks held by
readers, the locks of Python, Go and musl.

The proof assumes what no look from outside can show, and says so: `ASSUMES`. A ring of two mutexes that are used as
semaphores, which a third thread unlocks now and then, looks like a deadlock until that one comes, whoever looks; to ask
for more would be to see no deadlock in a program of which a part still works. So where others are left in the process
who could do that, the proof says how many.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from .units import SECOND

#: Two looks agree on a cycle only when they are at least this far apart: healthy programs that cross locks showed the
#: same false cycle twice within 10 ms in 5 of 855 looks, never a second apart with equal counters.
APART_NS: Final = SECOND
ASSUMES: Final = (
    "only the thread that owns a lock unlocks it",
    "no signal handler jumps out of a wait, and nobody cancels a waiting thread",
    "thread ids in the lock words mean the threads that live now",
)

#: Locks that anybody may unlock; the others ask who does it.
_TRUSTING: Final = ("mutex", "rwlock")

#: Number of the system call on x86-64.
FUTEX_CALL: Final = 202
#: Operations, without the two flags below (linux/futex.h).
_WAIT: Final = 0
_LOCK_PI: Final = 6
_WAIT_BITSET: Final = 9
_LOCK_PI2: Final = 13
_PRIVATE: Final = 128
_REALTIME: Final = 256
#: In the words of robust and PI mutexes: somebody waits; and the bits of the owner's thread id.
_WAITERS: Final = 0x80000000
_TID: Final = 0x3FFFFFFF

#: Every bit that glibc sets in the kind of a mutex: the type, robust, PI, priority ceiling, shared, elision.
_KINDS: Final = 0x3F3
_TYPE: Final = 0x3
_ROBUST: Final = 0x10
_INHERITS: Final = 0x20
#: Other processes may use it. Robust ones always have it, for the kernel wakes their waiters as if it were so.
_SHARED: Final = 0x80
#: The types that wait for themselves; recursive ones count and error-checking ones refuse.
_SELF_WAITING: Final = (0, 3)

#: lock, count, owner, users, kind.
_MUTEX = struct.Struct("<IIIII")
#: readers, writers, phase of writing, futex of the writers, two unused, writer that holds it.
_RWLOCK = struct.Struct("<IIIIIIi")
_WORD = struct.Struct("<I")
#: The thread's own address, twice in the header of what glibc keeps of a thread; and how far behind it the id stands.
_THREAD = struct.Struct("<Q8xQ")
_THREAD_ID_AT: Final = 0x2D0
#: Locks and barriers in shared memory are waited for with such values, which are thread ids in a container.
_LOCK_VALUES_MAX: Final = 3
#: Where in a rwlock threads wait: for the end of the writing, and for the turn among writers.
_RWLOCK_WAITS = (8, 12)
#: A writer holds it, and writing has begun.
_HELD_BY_WRITER: Final = 3

#: Reads bytes of the process at an address; fewer than asked for, down to none, where they may not or cannot be read.
Read = Callable[[int, int], bytes]
#: True for an address in memory that no other process can have.
IsOwn = Callable[[int], bool]


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """One thread at one moment, as `/proc/PID/task/TID` tells it."""

    tid: int
    #: Its id in the innermost pid namespace: what its own program writes into lock words.
    inner: int
    name: str
    #: One letter: R, S, D, T, t, Z, X, I.
    state: str
    #: Context switches, of its own will and not.
    switches: tuple[int, int]
    #: The whole line of `syscall`; "" when it could not be read.
    call: str


class Futex(msgspec.Struct, frozen=True, gc=False):
    """The arguments of a futex call, from a line of `syscall`."""

    address: int
    #: Without its flags.
    operation: int
    private: bool
    #: The value waited for, 32 bits.
    value: int
    timed: bool
    #: Where the thread goes on.
    pc: int


class Edge(msgspec.Struct, frozen=True, gc=False):
    """`waiter` waits for what `owner` holds."""

    waiter: int
    owner: int
    #: mutex, robust mutex, PI mutex, rwlock or join.
    kind: str
    #: Of the lock; of a join, the word that is cleared when the thread ends.
    address: int


class Sighting(msgspec.Struct, frozen=True):
    """What one look saw."""

    begun_ns: int
    ended_ns: int
    #: Cycles in which nobody moved during the look, each from its lowest thread id, in that order.
    cycles: tuple[tuple[Edge, ...], ...] = ()
    #: Context switches of the threads in these cycles.
    switches: dict[int, tuple[int, int]] = {}
    #: Cycles that fell apart because one of their threads moved.
    raced: int = 0
    #: Context switches of all threads of the process, when each of them waits, directly or over others, for one that
    #: waits for itself, and none of them moved during the look; else empty.
    closed: dict[int, tuple[int, int]] = {}
    #: All edges, also those outside of cycles and those of which nobody knows whether they still held at the end.
    edges: dict[int, Edge] = {}


class Link(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One thread of a proved cycle: what it waits for, and who holds that."""

    tid: int
    name: str
    kind: str
    #: Hexadecimal, as "0x7f12".
    address: str
    owner: int
    owner_name: str
    #: Name of the lock in its program, as "a (in server)"; "" when it has none or it is not known.
    symbol: str = ""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A deadlock: each of these threads waits for the next one, the last for the first."""

    cycle: tuple[Link, ...]
    #: Further cycles of the same process, proved as well.
    others: int = 0
    #: Time between the end of the first look and the beginning of the second.
    apart_ns: int = 0
    assumes: tuple[str, ...] = ASSUMES


def futex_of(call: str) -> Futex | None:
    """The futex call that a line of `syscall` (x86-64) tells of; None when it tells of anything else."""
    fields = call.split()
    if len(fields) != 9 or fields[0] != str(FUTEX_CALL):
        return None
    try:
        address, operation, value, timeout, _, _, _, pc = (int(field, 16) for field in fields[1:])
    except ValueError:
        return None
    command = operation & 0xFFFFFFFF
    return Futex(
        address=address,
        operation=command & ~(_PRIVATE | _REALTIME),
        private=bool(command & _PRIVATE),
        value=value & 0xFFFFFFFF,
        timed=timeout != 0,
        pc=pc,
    )


def edges_of(
    threads: Sequence[Snapshot], read: Read, is_own: IsOwn, in_libc: Callable[[int], bool], rwlocks: bool = True
) -> dict[int, Edge]:
    """Who waits for whom, by thread id of the waiter. `in_libc` knows whether an address is code of glibc;
    `rwlocks` is False for a glibc with another layout of them."""
    owners = {thread.inner: thread.tid for thread in threads if thread.state not in "ZX"}
    found = {}
    for thread in threads:
        futex = futex_of(thread.call) if thread.state == "S" else None
        if futex is None or futex.timed or not in_libc(futex.pc):
            continue
        edge = edge_of(thread.tid, futex, owners, read, is_own, rwlocks)
        if edge is not None:
            found[thread.tid] = edge
    return found


def is_across(futex: Futex, read: Read, is_own: IsOwn) -> bool:
    """Whether this is a wait for what other processes may have too, so that its owner is not known."""
    return not is_own(futex.address) or not (futex.private or _is_id_of_thread(futex.address, read))


def edge_of(
    waiter: int, futex: Futex, owners: Mapping[int, int], read: Read, is_own: IsOwn, rwlocks: bool = True
) -> Edge | None:
    """The edge of one thread in a futex call without a time limit, from the words at its address.

    `owners` has the threads of the process by the id that they have inside.
    """
    # What a program declares is not enough: a lock for one process may lie where two have it.
    if not is_own(futex.address):
        return None
    if futex.operation in (_LOCK_PI, _LOCK_PI2):
        return _pi(waiter, futex, owners, read)
    edge = None
    if futex.operation == _WAIT:
        edge = _mutex(waiter, futex, owners, read)
    elif futex.operation == _WAIT_BITSET and futex.private and rwlocks:
        edge = _rwlock(waiter, futex, owners, read)
    return edge or _join(waiter, futex, owners, read)


def _mutex(waiter: int, futex: Futex, owners: Mapping[int, int], read: Read) -> Edge | None:
    words = _unpacked(_MUTEX, read(futex.address, _MUTEX.size))
    if words is None:
        return None
    lock, count, holder, users, kind = words
    owner = owners.get(holder)
    # The kernel goes to sleep only on this value, and whoever releases the lock changes it first.
    if lock != futex.value or kind & ~_KINDS or users < 1 or owner is None:
        return None
    if lock & _WAITERS:
        if kind & _ROBUST and lock & _TID == holder:
            return Edge(waiter, owner, "robust mutex", futex.address)
        return None
    if futex.value != 2 or not futex.private or kind & (_ROBUST | _INHERITS | _SHARED):
        return None
    if owner == waiter and (count or kind & _TYPE not in _SELF_WAITING):
        return None
    return Edge(waiter, owner, "mutex", futex.address)


def _pi(waiter: int, futex: Futex, owners: Mapping[int, int], read: Read) -> Edge | None:
    words = _unpacked(_MUTEX, read(futex.address, _MUTEX.size))
    if words is None:
        return None
    lock, _, holder, users, kind = words
    owner = owners.get(holder)
    if kind & ~_KINDS or not kind & _INHERITS or users < 1 or owner is None or lock & _TID != holder:
        return None
    if not kind & _ROBUST and (kind & _SHARED or not futex.private):
        return None
    return Edge(waiter, owner, "PI mutex", futex.address)


def _rwlock(waiter: int, futex: Futex, owners: Mapping[int, int], read: Read) -> Edge | None:
    if futex.value not in (1, 2, 3):
        return None
    for offset in _RWLOCK_WAITS:
        base = futex.address - offset
        words = _unpacked(_RWLOCK, read(base, _RWLOCK.size)) if base >= 0 else None
        if words is None or words[0] & 3 != _HELD_BY_WRITER or words[4] or words[5]:
            continue
        owner = owners.get(words[6])
        # A writer that locks again is refused by glibc, so nobody waits for itself here.
        if owner is not None and owner != waiter and words[offset // 4] == futex.value:
            return Edge(waiter, owner, "rwlock", base)
    return None


def _join(waiter: int, futex: Futex, owners: Mapping[int, int], read: Read) -> Edge | None:
    # The kernel clears this word when the thread ends, and wakes by it as one of shared memory.
    owner = owners.get(futex.value)
    if futex.operation not in (_WAIT, _WAIT_BITSET) or futex.private or owner is None or owner == waiter:
        return None
    if futex.value <= _LOCK_VALUES_MAX or not _is_id_of_thread(futex.address, read):
        return None
    if _unpacked(_WORD, read(futex.address, _WORD.size)) != (futex.value,):
        return None
    return Edge(waiter, owner, "join", futex.address)


def _is_id_of_thread(address: int, read: Read) -> bool:
    start = address - _THREAD_ID_AT
    return start > 0 and _unpacked(_THREAD, read(start, _THREAD.size)) == (start, start)


def _unpacked(layout: struct.Struct, data: bytes) -> tuple[int, ...] | None:
    return layout.unpack(data) if len(data) == layout.size else None


def cycles_of(edges: Mapping[int, Edge]) -> tuple[tuple[Edge, ...], ...]:
    """Every cycle, each from its lowest thread id, in the order of these. A thread waits once, so none overlap."""
    cycles = []
    done: dict[int, int] = {}
    for start in sorted(edges):
        path: list[Edge] = []
        tid = start
        while tid in edges and tid not in done:
            done[tid] = start
            path.append(edges[tid])
            tid = edges[tid].owner
        if done.get(tid) == start:
            at = [edge.waiter for edge in path].index(tid)
            cycles.append(_from_lowest(path[at:]))
    return tuple(sorted(cycles, key=lambda cycle: cycle[0].waiter))


def _from_lowest(ring: list[Edge]) -> tuple[Edge, ...]:
    first = min(range(len(ring)), key=lambda at: ring[at].waiter)
    return (*ring[first:], *ring[:first])


def suspects_of(threads: Mapping[int, Snapshot], edges: Mapping[int, Edge]) -> tuple[int, ...]:
    """The threads whose standstill matters: those of cycles, and all that wait behind one that waits for itself when
    nobody else is left."""
    return _behind_one(threads, edges) or tuple(edge.waiter for cycle in cycles_of(edges) for edge in cycle)


def _behind_one(threads: Mapping[int, Snapshot], edges: Mapping[int, Edge]) -> tuple[int, ...]:
    """All living threads, when each waits in the end for the same one, which waits for itself; else empty."""
    living = tuple(tid for tid, thread in threads.items() if thread.state not in "ZX")
    if not all(tid in edges for tid in living):
        return ()
    # Each of them waits for a living one, so each path ends in a cycle.
    return living if [len(cycle) for cycle in cycles_of(edges)] == [1] else ()


def sighting(
    before: Mapping[int, Snapshot],
    after: Mapping[int, Snapshot],
    edges: Mapping[int, Edge],
    begun_ns: int,
    ended_ns: int,
    whole: bool = True,
) -> Sighting:
    """What a look saw: `before` was read before the lock words of `edges`, `after` after them.

    `after` need not have any thread but those of `suspects_of`; `whole` says that `before` has all of the process.
    """
    quiet, raced = [], 0
    for cycle in cycles_of(edges):
        if all(_unmoved(before.get(edge.waiter), after.get(edge.waiter)) for edge in cycle):
            quiet.append(cycle)
        else:
            raced += 1
    everybody = _behind_one(before, edges) if whole else ()
    closed = all(_unmoved(before.get(tid), after.get(tid)) for tid in everybody)
    return Sighting(
        begun_ns=begun_ns,
        ended_ns=ended_ns,
        cycles=tuple(quiet),
        switches={edge.waiter: before[edge.waiter].switches for cycle in quiet for edge in cycle},
        raced=raced,
        closed={tid: before[tid].switches for tid in everybody} if closed else {},
        edges=dict(edges),
    )


def _unmoved(before: Snapshot | None, after: Snapshot | None) -> bool:
    return before is not None and before == after


def agreed(first: Sighting, second: Sighting, stuck: bool) -> tuple[tuple[Edge, ...], ...]:
    """The cycles that two looks prove. A thread that waits for itself counts only when `stuck`, and when all others of
    the process wait for it: a mutex that is used as a semaphore, unlocked by another thread, looks like that every
    time."""
    if second.begun_ns - first.ended_ns < APART_NS:
        return ()
    return tuple(
        cycle
        for cycle in second.cycles
        if cycle in first.cycles
        and (len(cycle) > 1 or (stuck and _is_closed(first, second)))
        and all(first.switches.get(edge.waiter) == second.switches.get(edge.waiter) for edge in cycle)
    )


def _is_closed(first: Sighting, second: Sighting) -> bool:
    """In both looks nobody was left who could unlock what a thread waits for that holds it itself."""
    return (
        bool(second.closed)
        and first.closed == second.closed
        and all(first.edges.get(tid) == second.edges.get(tid) for tid in second.closed)
    )


def proof_of(
    first: Sighting,
    second: Sighting,
    names: Mapping[int, str],
    stuck: bool,
    symbols: Mapping[int, str] | None = None,
    living: Iterable[int] = (),
    unseen: int = 0,
) -> Proof | None:
    """The proof that two looks make, or None. `names` are the threads', `symbols` those of locks by address. `living`
    are all threads that were seen, and `unseen` counts those that were not."""
    cycles = agreed(first, second, stuck)
    if not cycles:
        return None
    links = [
        Link(
            tid=edge.waiter,
            name=names.get(edge.waiter, ""),
            kind=edge.kind,
            address=hex(edge.address),
            owner=edge.owner,
            owner_name=names.get(edge.owner, ""),
            symbol=(symbols or {}).get(edge.address, ""),
        )
        for edge in cycles[0]
    ]
    return Proof(
        cycle=tuple(links),
        others=len(cycles) - 1,
        apart_ns=second.begun_ns - first.ended_ns,
        assumes=(*ASSUMES, *_of_others(cycles, second.edges, living, unseen)),
    )


def _of_others(
    cycles: Sequence[Sequence[Edge]], edges: Mapping[int, Edge], living: Iterable[int], unseen: int
) -> tuple[str, ...]:
    """What is assumed of the threads that are in none of the cycles, and wait for nobody who is."""
    held = {edge.waiter for cycle in cycles for edge in cycle}
    if not any(edge.kind in _TRUSTING for edge in cycles[0]):
        return ()
    free = unseen
    for tid in living:
        path: dict[int, None] = {}
        while tid in edges and tid not in held and tid not in path:
            path[tid] = None
            tid = edges[tid].owner
        if tid in held:
            held.update(path)
        else:
            free += 1
    if not free:
        return ()
    who = "1 more thread" if free == 1 else f"{free} more threads"
    does = "unlocks" if free == 1 else "unlock"
    return (f"{who}, neither in the cycle nor waiting for it, {does} nothing that another one owns",)
