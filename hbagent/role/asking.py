"""Performs a core's questions, `Witness` and `Ask`, and feeds what comes of each as one `Answered`.

What is known at once, a refused connection on this host, is fed as soon as the core's other effects have been
performed: a core is never called while its own orders are being carried out.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from hbagent.core.effects import WITNESS_NS, Ask, Witness
from hbagent.core.messages import Answered
from hbagent.core.states import Outcome, Path
from hbagent.core.units import MILLISECOND

from .driver import Driver

if TYPE_CHECKING:
    from hbagent.transport.asker import Asker
    from hbagent.transport.connections import Connections, Watch

#: When a connection is looked at, after the question began: a running host acknowledges within 2 ms on its own
#: network, a stopped process's host within 45 ms (measured), and a look costs 7 µs.
LOOKS_NS = (*(ms * MILLISECOND for ms in (2, 5, 10, 20, 40, 80, 160)), WITNESS_NS)
#: A process that is so late stood still, perhaps with its host: what has come meanwhile may not have been taken in by
#: the kernel yet, so it looks once more after the same time.
STOOD_STILL_NS = 50 * MILLISECOND
#: Connections watched at once: a thousand a second when none acknowledges. Each look is a turn of the loop at worst.
WITNESSES_MAX = 256


class Asking:
    """Asks for one core. Without `connections` there is no `Witness`."""

    def __init__(self, driver: Driver, connections: Connections | None = None) -> None:
        self._driver = driver
        self._connections = connections
        #: Most processes never ask an echo port, and an agent does without what it does not use.
        self._port: _AskerPort | None = None
        self.watched = 0

    def witness(self, effect: Witness) -> None:
        """Look whether the kernel at the other end acknowledges what is sent next."""
        watch = self._connections.watch(effect.peer) if self._connections is not None else None
        if watch is None or self.watched >= WITNESSES_MAX:
            self._witnessed(effect, Outcome.UNSENT)
        elif watch.look() is Outcome.CLOSED:
            self._witnessed(effect, Outcome.CLOSED)
        else:
            self.watched += 1
            self._look_later(effect, watch, time.monotonic_ns(), 0)

    def ask(self, effect: Ask) -> None:
        """Send an echo request."""
        if self._port is None:
            from hbagent.transport.asker import Asker

            self._port = _AskerPort(Asker(self._asked), self._driver)
            self._driver.add(self._port)
        self._port.ask(effect)

    def close(self) -> None:
        """Close what is still open; nothing more is fed."""
        if self._port is not None:
            self._driver.remove(self._port)
            self._port.close()
            self._port = None

    def _look_later(self, effect: Witness, watch: Watch, begun: int, number: int) -> None:
        call = functools.partial(self._look, effect, watch, begun, number)
        self._driver.call_later(begun + LOOKS_NS[number], call)

    def _look(self, effect: Witness, watch: Watch, begun: int, number: int | None) -> None:
        """One look, `number` of `LOOKS_NS`; None for the one after them all."""
        outcome = watch.look()
        if outcome is None and number is not None:
            late = time.monotonic_ns() - begun
            # A loop that was held up skips the looks that it has missed.
            later = next((later for later in range(number + 1, len(LOOKS_NS)) if LOOKS_NS[later] > late), None)
            if later is not None:
                self._look_later(effect, watch, begun, later)
                return
            if late > WITNESS_NS + STOOD_STILL_NS:
                call = functools.partial(self._look, effect, watch, begun, None)
                self._driver.call_later(begun + late + STOOD_STILL_NS, call)
                return
        self.watched -= 1
        self._witnessed(effect, outcome if outcome is not None else Outcome.SILENT)

    def _witnessed(self, effect: Witness, outcome: Outcome) -> None:
        answered = Answered(peer=effect.peer, number=effect.number, path=Path.KERNEL, outcome=outcome)
        self._driver.soon(functools.partial(self._driver.feed, "", answered))

    def _asked(self, ask: Ask, outcome: Outcome, data: bytes) -> None:
        answered = Answered(peer=ask.peer, number=ask.number, path=ask.path, outcome=outcome, data=data)
        self._driver.soon(functools.partial(self._driver.feed, "", answered))


class _AskerPort:
    """The asker as a port."""

    def __init__(self, asker: Asker, driver: Driver) -> None:
        self.source = asker.fileno()
        self._asker = asker
        self._driver = driver
        self._timer_set = False

    def ask(self, effect: Ask) -> None:
        self._asker.ask(effect, time.monotonic_ns())
        self._set_timer()

    def drain(self) -> int:
        """Take in the answers that have come."""
        self._asker.ready(time.monotonic_ns())
        return 0

    def close(self) -> None:
        self._asker.close()

    def _set_timer(self) -> None:
        at = self._asker.deadline()
        if at is not None and not self._timer_set:
            self._timer_set = True
            self._driver.call_later(at, self._wake)

    def _wake(self) -> None:
        self._timer_set = False
        self._asker.wake(time.monotonic_ns())
        self._set_timer()
