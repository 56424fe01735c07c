"""THE loop: the one place with sockets and a clock.

    wait until something arrives or the core's deadline comes
    drain every port that has something           -> core.receive(...)
    if the deadline has come: drain once more     -> core.wake(...)
    perform the effects

It never waits for anything else: disks, `/proc` and hooks live in workers, and their results come back through the
mailbox like messages. Draining comes before judging, always: what has arrived must be known before its absence is
held against anybody.

It knows no library of sockets: whoever has ZeroMQ sockets gives it a poller that knows them, and a process that has
only file descriptors (the prober) never loads one.

Nor does it die of one thing that went wrong: an exception in a core, a performer, a port or a timer is told and
counted (`defects`), costs what raised it, and the loop goes round. Only when that does not stop the process ends.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import heapq
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any, Protocol

from hbagent.core.effects import Effect, Exit
from hbagent.core.messages import Ordered, Query, Refused, Suspended, Terminate, WallTime
from hbagent.core.observer import PAUSE_MIN_NS
from hbagent.core.units import MILLISECOND, SECOND

from .defects import Defects, Hopeless, Tell
from .mailbox import Mailbox
from .sdnotify import Notifier

#: Rounds of draining before a verdict. A flood that is still coming in after so many must not put verdicts off.
DRAIN_ROUNDS_MAX = 50
#: A loop that has just taken something in goes round again after this, not at once: at 10,000 beats a second twenty
#: are then taken in one turn, and the wake-ups that they cost together are those that one of them cost alone.
TURN_NS = 2 * MILLISECOND
#: A turn with fewer messages than this is no load, and the next is not put off.
TURN_BUSY = 2
#: The core is told the wall clock each second, and so much later when nothing else wakes the loop.
WALL_EVERY_NS = SECOND
WALL_SLACK_NS = SECOND
#: What is made `soon` in one go; a core that answers each refusal with the next question must not hold the loop up.
SOON_MAX = 1_000
#: A host that was suspended for less is told by nobody: it counts as lag of the loop, which cores forgive anyway.
SUSPENDED_MIN_NS = 100 * MILLISECOND
#: Without any deadline the loop still looks at itself this often.
IDLE_NS = SECOND


class Core(Protocol):
    """What the three cores have in common."""

    def receive(self, sender: str, message: Any, now: int) -> Iterable[Effect]: ...

    def wake(self, now: int) -> Iterable[Effect]: ...

    def deadline(self) -> int | None: ...


class Port(Protocol):
    """Something the loop polls."""

    @property
    def source(self) -> Any:
        """A ZeroMQ socket or a file descriptor."""

    def drain(self) -> int:
        """Take in what waits, up to a bound; returns how many messages there were."""


class Poller(Protocol):
    """Waits for any of several sources: `zmq.Poller`, or `select.poll` where all of them are file descriptors."""

    def register(self, source: Any, events: int, /) -> object: ...

    def unregister(self, source: Any, /) -> object: ...

    def poll(self, timeout_ms: int, /) -> list[tuple[Any, int]]: ...


class Driver:
    """Turns the crank of one core. `tell` writes log lines of the loop itself, to standard error when not given.

    `poller` is a `zmq.Poller` when none is given.
    """

    def __init__(
        self,
        core: Core,
        performers: Mapping[type, Callable[[Any], None]],
        notifier: Notifier,
        tell: Tell | None = None,
        poller: Poller | None = None,
    ) -> None:
        self.core = core
        self._tell = tell if tell is not None else _to_standard_error
        self.defects = Defects(self._tell)
        self._hopeless = ""
        self._performers = dict(performers)
        self._performers[Exit] = self._exit
        self._notifier = notifier
        self._poller = poller if poller is not None else _zmq_poller()
        self._ports: dict[Any, Port] = {}
        self.mailbox = Mailbox()
        self._poller.register(self.mailbox.fileno(), select.POLLIN)
        self._wall_at = 0
        self._watchdog_at = 0
        self._status_at = 0
        self._turned_at = 0
        self._planned = 0
        #: Called with the time when the loop comes back `PAUSE_MIN_NS` after its plan, before anything is drained.
        self.on_late: Callable[[int], None] | None = None
        self._done = False
        #: Called on SIGHUP; `reload_done` must follow, then or later.
        self.on_reload: Callable[[], None] = self.reload_done
        #: Called on SIGTERM and SIGINT.
        self.on_terminate: Callable[[], object] = lambda: self.feed("", Terminate())
        #: Called right before the core is told the wall clock.
        self.on_wall: Callable[[], object] = lambda: None
        #: One line for `systemctl status`.
        self.status: Callable[[], str] = lambda: ""
        self._signals: tuple[int, int] | None = None
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._timers_made = 0
        self._performing = False
        self._soon: deque[Callable[[], object]] = deque()
        # The largest of a few, since whatever comes between the two readings only makes it smaller.
        self._asleep_ns = max(_asleep_ns() for _ in range(5))

    # ---- wiring ------------------------------------------------------------------------------------------

    def add(self, port: Port) -> None:
        """Poll one more port."""
        self._ports[port.source] = port
        self._poller.register(port.source, select.POLLIN)

    def remove(self, port: Port) -> None:
        """Poll this port no longer."""
        self._ports.pop(port.source, None)
        with contextlib.suppress(KeyError):
            self._poller.unregister(port.source)

    def post(self, message: object, sender: str = "") -> None:
        """From any thread: give the core the outcome of something it ordered, or other news of its own process."""
        self.mailbox.post(lambda: self.feed(sender, message), owed=True)

    def feed(self, sender: str, message: object) -> None:
        """In the loop's thread: give the core a message and perform what comes of it."""
        try:
            effects = self.core.receive(sender, message, time.monotonic_ns())
        except Exception as error:
            self.defect(f"receive {type(message).__name__}", error, _culprit(sender, message))
            if isinstance(message, Terminate):
                self.give_up("cannot leave in an orderly way")
            return
        self.perform(effects, _culprit(sender, message))

    def perform(self, effects: Iterable[Effect], sender: str = "") -> None:
        """Carry out a core's orders, each of which may fail by itself. `sender` is whose message caused them."""
        outermost = not self._performing
        self._performing = True
        for effect in effects:
            try:
                self._performers[type(effect)](effect)
            except Exception as error:
                self.defect(f"perform {type(effect).__name__}", error, sender)
        if outermost:
            if self._soon:
                self._make_soon()
            self._performing = False

    def soon(self, call: Callable[[], object]) -> None:
        """In the loop's thread: make `call` now, or once the effects that are being performed have been."""
        if self._performing:
            self._soon.append(call)
        else:
            self._attempt("news", call)

    def _make_soon(self) -> None:
        for _ in range(SOON_MAX):
            if not self._soon:
                return
            self._attempt("news", self._soon.popleft())
        # The rest in the next turn: an empty order is enough.
        self.mailbox.post(functools.partial(self.perform, ()), owed=True)

    def defect(self, where: str, error: BaseException, sender: str = "") -> None:
        """In the loop's thread: book an exception that nobody expected, and go on."""
        self.defects.book(where, sender, error, time.monotonic_ns())
        if self.defects.hopeless():
            self.give_up("too many defects")

    def give_up(self, reason: str) -> None:
        """Have `run` raise `Hopeless` after this turn."""
        if not self._hopeless:
            self._hopeless = reason
            self._tell("error", "giving-up", {"reason": reason, "defects": self.defects.count})

    def call_later(self, at: int, call: Callable[[], None]) -> None:
        """In the loop's thread: make `call` once the monotonic instant `at` has passed."""
        self._timers_made += 1
        heapq.heappush(self._timers, (at, self._timers_made, call))

    def call_every(self, period_ns: int, call: Callable[[], None]) -> None:
        """In the loop's thread: make `call` after each period, from now on and whatever it raises."""

        def again() -> None:
            self.call_later(time.monotonic_ns() + period_ns, again)
            call()

        self.call_later(time.monotonic_ns() + period_ns, again)

    def catch_signals(self) -> None:
        """SIGTERM and SIGINT leave cleanly, SIGHUP reloads. In the main thread only."""
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # In this order: a signal between the two would be caught and forgotten.
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _ignore)
        self._signals = (read_fd, write_fd)
        self._poller.register(read_fd, select.POLLIN)

    # ---- the loop ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Go round until the core says `Exit`. Raises Hopeless when going on makes no sense."""
        # What exists now lives as long as the process: a full collection of it would be a pause of the loop.
        gc.collect()
        gc.freeze()
        # Before anything else arrives, or the first events would have no time.
        self._tell_wall()
        while not self._done:
            try:
                self.turn()
            except Exception as error:
                self.defect("turn", error)
            if self._hopeless:
                raise Hopeless(self._hopeless)

    def turn(self) -> None:
        """Once round."""
        ready = self._poller.poll(self._timeout_ms())
        self._look_for_suspension()
        if self.on_late is not None:
            now = time.monotonic_ns()
            if now - self._planned > PAUSE_MIN_NS:
                late = self.on_late
                self._attempt("late", lambda: late(now))
        taken = self._drain(ready)
        now = time.monotonic_ns()
        deadline = self.core.deadline()
        if deadline is not None and now >= deadline:
            for _ in range(DRAIN_ROUNDS_MAX):
                if not self._drain(self._poller.poll(0)):
                    break
            self._wake()
        if now >= self._wall_at:
            self._tell_wall()
        while self._timers and now >= self._timers[0][0]:
            self._attempt("timer", heapq.heappop(self._timers)[2])
        if self._notifier.watchdog_ns and now >= self._watchdog_at:
            self._watchdog_at = now + self._notifier.watchdog_ns
            self._notifier.alive()
        if now >= self._status_at:
            self._status_at = now + 5 * SECOND
            self._attempt("status", lambda: self._notifier.status(self.status()))
        rest = self._turned_at + TURN_NS - time.monotonic_ns()
        if taken >= TURN_BUSY and rest > 0:
            time.sleep(rest / SECOND)
        self._turned_at = time.monotonic_ns()

    def _look_for_suspension(self) -> None:
        """Before anything else of this turn: what comes in now may be late because of it."""
        suspended = _asleep_ns() - self._asleep_ns
        if suspended > SUSPENDED_MIN_NS:
            self._asleep_ns += suspended
            self._tell("warning", "suspended", {"seconds": round(suspended / SECOND, 3)})
            self.feed("", Suspended(suspended))

    def _wake(self) -> None:
        try:
            effects = self.core.wake(time.monotonic_ns())
        except Exception as error:
            self.defect("wake", error)
            return
        self.perform(effects)

    def _tell_wall(self) -> None:
        self._wall_at = time.monotonic_ns() + WALL_EVERY_NS
        self._attempt("wall", self.on_wall)
        self.feed("", WallTime(time.time_ns()))

    def _attempt(self, where: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            self.defect(where, error)

    def _timeout_ms(self) -> int:
        now = time.monotonic_ns()
        # The wall clock waits for the next turn that something else makes: an agent wakes once a second, not twice.
        at = self._wall_at + WALL_SLACK_NS
        deadline = self.core.deadline()
        if deadline is not None and deadline < at:
            at = deadline
        if self._timers and self._timers[0][0] < at:
            at = self._timers[0][0]
        if self._notifier.watchdog_ns and self._watchdog_at < at:
            at = self._watchdog_at
        self._planned = at
        # Rounded up: rounded down, the last millisecond before a deadline would be spent spinning.
        return max(0, min(at - now, IDLE_NS) + MILLISECOND - 1) // MILLISECOND

    def _drain(self, ready: list[tuple[Any, int]]) -> int:
        count = 0
        for source, _ in ready:
            port = self._ports.get(source)
            if port is not None:
                try:
                    count += port.drain()
                except Exception as error:
                    self.defect(f"drain {type(port).__name__}", error)
            elif source == self.mailbox.fileno():
                for call in self.mailbox.take():
                    self._attempt("news", call)
                    count += 1
            elif self._signals is not None and source == self._signals[0]:
                self._take_signals()
        return count

    def _take_signals(self) -> None:
        assert self._signals is not None
        with contextlib.suppress(BlockingIOError):
            numbers = os.read(self._signals[0], 64)
            if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                self._notifier.stopping()
                self._tell("info", "terminating", {})
                self._attempt("terminate", self.on_terminate)
            if signal.SIGHUP in numbers:
                self._notifier.reloading()
                self._attempt("reload", self.on_reload)

    def reload_done(self) -> None:
        """The config was read again, and taken over or refused."""
        self._notifier.ready(self.status())

    def stop(self) -> None:
        """In the loop's thread: have `run` return after this turn."""
        self._done = True

    def _exit(self, effect: Exit) -> None:
        self.stop()

    def close(self) -> None:
        """Close what the driver itself opened."""
        self.mailbox.close()
        if self._signals is not None:
            signal.set_wakeup_fd(-1)
            for fd in self._signals:
                os.close(fd)
            self._signals = None


def _zmq_poller() -> Poller:
    import zmq  # 5 MiB that a process without such sockets never loads

    return zmq.Poller()


def _asleep_ns() -> int:
    """For how long this host has been suspended since it started, as far as its clocks say."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


def _ignore(number: int, frame: FrameType | None) -> None:
    """A Python-level handler must exist for the wake-up descriptor to be written."""


def _culprit(sender: str, message: object) -> str:
    """On whose account a message is. All consoles are one: none can be told from another."""
    if isinstance(message, (Query, Ordered)):
        return "a console"
    return message.sender if isinstance(message, Refused) else sender


def _to_standard_error(level: str, what: str, fields: Mapping[str, object]) -> None:
    sys.stderr.write(f"{level} {what} {dict(fields)}\n")
