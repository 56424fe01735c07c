"""What a process is doing, in one word, from two looks at it a second apart.

Read it as a doctor's order of questions: is the patient held still by somebody (PAUSED)? Proved to be locked out
(DEADLOCKED)? Kept from running (STARVED)? Waiting for a disk (IO-BLOCKED)? Only then what it does of its own: burning
(BUSY-LOOP), waiting for a lock (LOCK-WAIT), working (SLOW, RUNNING), or waiting for work (IDLE). Burning and waiting
are what healthy programs do all day; they are an illness only when a probe or a progress mark says that nothing moves,
which is what `stuck` stands for.

Whatever the host does not let us see is said to be unknown, and never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from .messages import DETAILS_MAX
from .proof import Proof, Sighting, Snapshot, futex_of, proof_of
from .states import Stall
from .units import MILLISECOND, SECOND, show_duration

#: Characters of one line of details.
DETAIL_LENGTH_MAX: Final = 200

#: A thread is held up when each piece of its work waits this long for a processor. Beside nine spinners on two
#: processors threads that wake a thousand times a second waited 0.15 ms each time, a spinner 3.8 to 17 ms a slice.
_PIECE_DELAY_NS: Final = 10 * MILLISECOND
#: It wanted at least this share of a processor.
_WANTED_PERCENT: Final = 50
#: And it got less than this share of what it wanted and the host has. A spinner under a quota of 20 % gets 20, one of
#: two that share a processor 50.
_GOT_PERCENT: Final = 25
#: Of one processor, for a process to burn: a spinner has 100, also when it has to share (counted with its waiting).
_BUSY_PERCENT: Final = 60
#: And it runs at least this much: waiting for a processor alone is no burning.
_BURNT_PERCENT: Final = 20
#: Below it nothing is being worked on: a thread that wakes a hundred times a second uses 0.3.
_FLAT_PERCENT: Final = 2
#: Asking for a lock again and again burns no more than this: two threads that want Python's lock each 5 ms use 2.
_ASKING_PERCENT: Final = 10
#: More context switches a second than a heartbeat thread makes, fewer than a server with some requests a second.
_SWITCHES_A_SECOND: Final = 25

#: Names that the kernel gives to waits for a filesystem that is served from elsewhere: FUSE and NFS, in state S too.
_FILESYSTEM_WAITS: Final = (
    "request_wait_answer",
    "fuse_",
    "rpc_wait_bit",
    "nfs_",
    "nfs4_",
    "cifs_",
    "ceph_",
    "wait_for_response",
)
#: A parent is in state D until its vfork child has started a program.
_FORK_WAITS: Final = ("wait_for_vfork_done", "kernel_clone")


class Calls(msgspec.Struct, frozen=True):
    """Numbers of the system calls by which a thread waits for a lock, on one architecture."""

    futex: tuple[int, ...]
    #: System V semaphores and flock.
    locks: tuple[int, ...]
    #: fcntl, whose second argument says whether it waits for a lock.
    fcntl: tuple[int, ...]


CALLS: Final = {
    "x86_64": Calls((202, 449, 455), (65, 220, 73), (72,)),
    "i386": Calls((240, 422, 449, 455), (143, 420), (55, 221)),
    "aarch64": Calls((98, 449, 455), (193, 192, 32), (25,)),
}
#: What `syscall` says of a thread that runs or is about to.
_RUNNING: Final = "running"
#: F_SETLKW, F_SETLKW64 and F_OFD_SETLKW.
_FCNTL_WAITS: Final = (7, 14, 38)


class ThreadLook(msgspec.Struct, frozen=True, gc=False):
    """One thread in one look."""

    snapshot: Snapshot
    #: Time on a processor, and time ready to run without one, since the thread began; None: the kernel does not say.
    ran_ns: int | None = None
    delayed_ns: int | None = None
    #: Where in the kernel it waits; "" when it does not, or when this host does not say.
    wchan: str = ""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A process at one moment."""

    sighting: Sighting
    threads: tuple[ThreadLook, ...] = ()
    #: Threads that the process has, when there are too many to look at all.
    threads_total: int = 0
    #: Why it cannot run, when its control group is frozen; "" when it is not.
    frozen: str = ""
    #: Time for which the control group was held back by its quota of processor time, since it was made.
    throttled_ns: int | None = None
    #: Which system calls of its threads could not be seen, and why; "" when all could.
    denied: str = ""
    #: Why no deadlock could be proved in any case; "" when one could.
    no_proof: str = ""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change between two looks."""

    #: Processors that it may run on.
    processors: int = 1
    #: Key of `CALLS`; any other: its system calls mean nothing to us.
    arch: str = "x86_64"
    #: Names of locks, by address.
    symbols: Mapping[int, str] = {}
    #: Lines about what waits for it: connections that nobody accepts.
    queues: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """What a process is doing, and how that is known."""

    stall: Stall
    #: One sentence.
    text: str
    #: Lines for people, at most `DETAILS_MAX` of at most `DETAIL_LENGTH_MAX` characters.
    details: tuple[str, ...] = ()
    proof: Proof | None = None


class Movement(msgspec.Struct, frozen=True, gc=False):
    """What one thread did between two looks."""

    now: Snapshot
    wchan: str
    #: It was there in both looks, and the kernel has not switched to it or from it.
    still: bool
    #: In both looks in the same system call with the same first argument: perhaps it was somewhere else meanwhile.
    same_place: bool
    #: The line of `syscall`; of one that was about to run, the line of the first look.
    call: str
    switches: int
    #: Of these, how often it went to sleep of its own will: so many pieces of work were done.
    slept: int
    ran_ns: int
    delayed_ns: int


def classify(first: Look, second: Look, stuck: bool, around: Surroundings | None = None) -> Verdict:
    """The verdict of two looks. `stuck` says that a probe or a mark found that nothing moves."""
    around = around or Surroundings()
    case = _Case(first, second, stuck, around)
    for question in (
        case.ended,
        case.paused,
        case.deadlocked,
        case.starved,
        case.io_blocked,
        case.busy,
        case.unseen,
        case.lock_wait,
        case.slow_or_running,
    ):
        verdict = question()
        if verdict is not None:
            return verdict
    return case.idle()


def unknown(text: str) -> Verdict:
    """The verdict on a process that could not be looked at."""
    return Verdict(Stall.UNKNOWN, text)


def movements(first: Look, second: Look) -> tuple[Movement, ...]:
    """What each thread of the second look did since the first; one that is new has moved."""
    before = {thread.snapshot.tid: thread for thread in first.threads}
    return tuple(_movement(before.get(thread.snapshot.tid), thread) for thread in second.threads)


def _movement(then: ThreadLook | None, now: ThreadLook) -> Movement:
    after = now.snapshot
    if then is None:
        return Movement(
            now=after,
            wchan=now.wchan,
            still=False,
            same_place=False,
            call=after.call,
            switches=sum(after.switches),
            slept=after.switches[0],
            ran_ns=now.ran_ns or 0,
            delayed_ns=now.delayed_ns or 0,
        )
    before = then.snapshot
    # Whoever wakes often on a busy host waits for a processor in many looks, and in these its place is not known.
    calls = [call for call in (before.call, after.call) if call != _RUNNING] or [_RUNNING]
    switches = sum(after.switches) - sum(before.switches)
    ran_ns = _grown(then.ran_ns, now.ran_ns)
    # A thread may run for the whole second without being switched: a spinner alone on its processor.
    still = switches == 0 and ran_ns == 0 and after.state == before.state != "R"
    return Movement(
        now=after,
        wchan=now.wchan,
        still=still,
        same_place=still or calls[0].split()[:2] == calls[-1].split()[:2],
        call=calls[-1],
        switches=switches,
        slept=after.switches[0] - before.switches[0],
        ran_ns=ran_ns,
        delayed_ns=_grown(then.delayed_ns, now.delayed_ns),
    )


def _grown(then: int | None, now: int | None) -> int:
    return max(0, now - then) if now is not None and then is not None else 0


class _Case:
    """Two looks, and what follows from them; each question answers with a verdict, or None: not this."""

    def __init__(self, first: Look, second: Look, stuck: bool, around: Surroundings) -> None:
        self.first, self.second, self.stuck, self.around = first, second, stuck, around
        self.all = movements(first, second)
        #: Without threads that have ended and are still listed.
        self.threads = tuple(movement for movement in self.all if movement.now.state not in "ZX")
        self.names = {movement.now.tid: movement.now.name for movement in self.all}
        self.passed_ns = max(1, second.sighting.begun_ns - first.sighting.begun_ns)
        self.ran_ns = sum(movement.ran_ns for movement in self.threads)
        self.delayed_ns = sum(movement.delayed_ns for movement in self.threads)
        self.calls = CALLS.get(around.arch)

    # ---- the questions, in order -------------------------------------------------------------------------

    def ended(self) -> Verdict | None:
        """A zombie has no threads that could be stuck."""
        if self.threads:
            return None
        if self.all:
            return unknown("it has ended, and its parent has not collected it")
        return unknown("it ended while it was looked at")

    def paused(self) -> Verdict | None:
        """Decided first: a frozen group shows state S or D, which would read as waiting."""
        if self.second.frozen:
            return self._verdict(Stall.PAUSED, self.second.frozen)
        states = "".join(movement.now.state for movement in self.threads)
        if "T" in states and not states.strip("Tt"):
            return self._verdict(Stall.PAUSED, "it was stopped by a signal and was not continued")
        # A debugger or tracer stops threads for moments, too.
        if "t" in states and all(movement.still for movement in self.threads if movement.now.state == "t"):
            return self._verdict(Stall.PAUSED, "a debugger or tracer holds it still")
        return None

    def deadlocked(self) -> Verdict | None:
        proof = proof_of(
            self.first.sighting,
            self.second.sighting,
            self.names,
            self.stuck,
            self.around.symbols,
            living=[movement.now.tid for movement in self.threads],
            unseen=max(0, self.second.threads_total - len(self.all)),
        )
        if proof is None:
            return None
        count = len(proof.cycle)
        text = (
            f"{count} threads wait for one another in a cycle, which none of them can leave"
            if count > 1
            else "a thread waits for a lock that it holds itself, and all others wait for that thread"
            if len(self.threads) > 1
            else "its only thread waits for a lock that it holds itself"
        )
        if proof.others:
            text += f"; and {proof.others} more such cycles"
        return self._verdict(Stall.DEADLOCKED, text, cycle_lines(proof), proof)

    def starved(self) -> Verdict | None:
        throttled_ns = _grown(self.first.throttled_ns, self.second.throttled_ns)
        throttled = 10 * throttled_ns >= self.passed_ns
        # Whoever wakes a thousand times a second beside busy neighbours waits a little each time, and is well.
        held_ns = sum(
            movement.delayed_ns
            for movement in self.threads
            if throttled or movement.delayed_ns >= _PIECE_DELAY_NS * (movement.slept + 1)
        )
        wanted = self.ran_ns + held_ns
        possible = min(wanted, self.around.processors * self.passed_ns)
        if 100 * wanted < _WANTED_PERCENT * self.passed_ns or 100 * self.ran_ns >= _GOT_PERCENT * possible:
            return None
        text = f"it wants to run and got {self._share(self.ran_ns)}, waiting for another {self._share(held_ns)}"
        if throttled:
            text += f"; the quota of its control group held it back for {show_duration(throttled_ns)}"
        return self._verdict(Stall.STARVED, text)

    def io_blocked(self) -> Verdict | None:
        blocked = [movement for movement in self.threads if movement.still and _waits_for_files(movement)]
        if not blocked or not (self.stuck or self._flat()):
            return None
        text = f"{_waiting(len(blocked))} in the kernel for a disk or a filesystem and did not move"
        return self._verdict(Stall.IO_BLOCKED, text, self._wait_lines(blocked))

    def busy(self) -> Verdict | None:
        wanted = self.ran_ns + self.delayed_ns
        if not self.stuck or 100 * wanted < _BUSY_PERCENT * self.passed_ns:
            return None
        if 100 * self.ran_ns < _BURNT_PERCENT * self.passed_ns:
            return None
        running = sorted(self.threads, key=lambda movement: -movement.ran_ns)
        lines = [
            f"thread {_named(movement.now)} ran for {self._share(movement.ran_ns)}"
            for movement in running
            if 100 * movement.ran_ns >= 5 * self.passed_ns
        ]
        return self._verdict(Stall.BUSY_LOOP, f"nothing moves, and it ran for {self._share(self.ran_ns)}", lines)

    def unseen(self) -> Verdict | None:
        """Waiting for a lock and waiting for work look alike to whoever may not see the system calls."""
        if not self.second.denied or (not self.stuck and self._working()):
            return None
        return self._verdict(Stall.UNKNOWN, f"this host does not say what it waits for: {self.second.denied}")

    def lock_wait(self) -> Verdict | None:
        if not self.stuck or 100 * self.ran_ns >= _ASKING_PERCENT * self.passed_ns:
            return None
        waiting = [movement for movement in self.threads if movement.same_place and self._waits_for_lock(movement)]
        if not waiting:
            return None
        text = f"{_waiting(len(waiting))} for a lock or a condition, in both looks; no cycle of owners is proved"
        if self.second.no_proof:
            text += f" ({self.second.no_proof})"
        return self._verdict(Stall.LOCK_WAIT, text, self._wait_lines(waiting))

    def slow_or_running(self) -> Verdict | None:
        if not self._working():
            return None
        switches = sum(movement.switches for movement in self.threads)
        text = f"it ran for {self._share(self.ran_ns)} and was switched {switches} times"
        return self._verdict(Stall.SLOW if self.stuck else Stall.RUNNING, text)

    def idle(self) -> Verdict:
        text = f"{_waiting(len(self.threads))} for something to do, with hardly any processor time"
        return self._verdict(Stall.IDLE, text, self._wait_lines(self.threads) if self.stuck else ())

    # ---- what they rest on -------------------------------------------------------------------------------

    def _flat(self) -> bool:
        return 100 * self.ran_ns < _FLAT_PERCENT * self.passed_ns

    def _working(self) -> bool:
        switches = sum(movement.switches for movement in self.threads)
        return not self._flat() or switches * SECOND > _SWITCHES_A_SECOND * self.passed_ns

    def _waits_for_lock(self, movement: Movement) -> bool:
        """In a call that waits for a lock; a join is none: whoever it waits for has the trouble."""
        edge = self.second.sighting.edges.get(movement.now.tid)
        if edge is not None and edge.kind == "join":
            return False
        fields = movement.call.split()
        if self.calls is None or len(fields) < 3 or not fields[0].isdigit():
            return False
        number = int(fields[0])
        if number in self.calls.fcntl:
            return fields[2] in map(hex, _FCNTL_WAITS)
        return number in self.calls.futex or number in self.calls.locks

    def _waits_for_itself(self, movement: Movement) -> bool:
        edge = self.second.sighting.edges.get(movement.now.tid)
        return movement.same_place and edge is not None and edge.owner == edge.waiter

    def _share(self, value_ns: int) -> str:
        return f"{100 * value_ns / self.passed_ns:.0f} % of a processor"

    def _wait_lines(self, waiting: Sequence[Movement]) -> list[str]:
        return [self._wait_line(movement) for movement in waiting[:DETAILS_MAX]]

    def _wait_line(self, movement: Movement) -> str:
        edge = self.second.sighting.edges.get(movement.now.tid)
        who = f"thread {_named(movement.now)}"
        if edge is not None and edge.owner == edge.waiter:
            return f"{who} waits for a mutex that it holds itself; another thread of this process could still unlock it"
        if edge is not None:
            owner = f"{self.names.get(edge.owner, '?')} ({edge.owner})"
            if edge.kind == "join":
                return f"{who} waits for the end of {owner}"
            symbol = self.around.symbols.get(edge.address)
            return f"{who} waits for {edge.kind} {symbol or hex(edge.address)} held by {owner}"
        futex = futex_of(movement.now.call) if self.around.arch == "x86_64" else None
        if futex is not None and movement.now.state == "S":
            return f"{who} waits at futex {hex(futex.address)}, whose owner is not visible"
        where = f" in {movement.wchan}" if movement.wchan else ""
        number = movement.now.call.partition(" ")[0]
        call = f", system call {number}" if number.isdigit() else ""
        return f"{who} is in state {movement.now.state}{where}{call}"

    def _verdict(self, stall: Stall, text: str, details: Sequence[str] = (), proof: Proof | None = None) -> Verdict:
        if proof is None and self.stuck and stall is not Stall.PAUSED:
            own = (self._wait_line(movement) for movement in self.threads if self._waits_for_itself(movement))
            details = [*details, *(line for line in own if line not in details)]
        lines = [*details, *self.around.queues]
        if len(lines) > DETAILS_MAX:
            lines = [*lines[: DETAILS_MAX - 1], f"and {len(lines) - DETAILS_MAX + 1} more"]
        return Verdict(stall, text, tuple(_cut(line) for line in lines), proof)


def cycle_lines(proof: Proof) -> list[str]:
    """The cycle of a proof, a line for each thread."""
    lines = []
    for at, link in enumerate(proof.cycle):
        held = proof.cycle[at - 1]
        who = f"thread {link.name} ({link.tid})"
        owner = f"{link.owner_name} ({link.owner})"
        holds = "" if held.kind == "join" else f" holds {_lock(held.kind, held.address, held.symbol)} and"
        if link.kind == "join":
            lines.append(f"{who}{holds} waits for the end of {owner}")
        else:
            lines.append(f"{who}{holds} waits for {_lock(link.kind, link.address, link.symbol)} held by {owner}")
    return lines


def _lock(kind: str, address: str, symbol: str) -> str:
    return f"{kind} {symbol or address}"


def _waits_for_files(movement: Movement) -> bool:
    if movement.now.state == "D":
        return movement.wchan not in _FORK_WAITS
    return movement.now.state == "S" and movement.wchan.startswith(_FILESYSTEM_WAITS)


def _named(thread: Snapshot) -> str:
    return f"{thread.name} ({thread.tid})"


def _waiting(threads: int) -> str:
    return f"{threads} threads wait" if threads != 1 else "1 thread waits"


def _cut(line: str) -> str:
    return line if len(line) <= DETAIL_LENGTH_MAX else line[: DETAIL_LENGTH_MAX - 3] + "..."
