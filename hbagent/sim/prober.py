"""A simulated host's prober: the marks, the facts, and the health of one application, which faults decide.

Its process has no events of its own while nothing happens. A mark each second from ten thousand hosts would be most of
a run, so a core is handed the newest one just before it is woken, which is the first time it could have looked.
"""

from __future__ import annotations

from hbagent.core.messages import AppRow, HostFacts, Mark, Vitals
from hbagent.core.states import AppState, Health, Stall
from hbagent.core.units import SECOND

from .host import FAR

#: What hosts say of themselves; a change from one to the next is now and then more than noise.
FACTS = tuple(
    HostFacts(cpu_count=8, cpu_percent=10.0 + 15 * busy, load_1m=0.5 * busy, memory_used_percent=40.0, hostname="sim")
    for busy in range(4)
)
APP = "web"


class Prober:
    """What stands beside one agent, and the truth about it for the checker."""

    __slots__ = ("_count", "app", "changes", "life", "restarts", "started", "stuck", "stuck_spans")

    def __init__(self) -> None:
        #: When its process started, on its host's clock; None while there is none.
        self.started: int | None = None
        #: Counts its processes.
        self.life = 0
        #: How many faults keep it from going round.
        self.stuck = 0
        self._count = 0
        #: The application's health.
        self.app = Health.OK
        #: The truth: every value of the application and since when, and when the prober did not go round.
        self.changes: list[tuple[int, Health]] = []
        self.stuck_spans: list[list[int]] = []
        #: When it was started again after its agent had killed it.
        self.restarts: list[int] = []

    def start(self, local: int) -> None:
        """Its process begins."""
        self.started = local
        self.life += 1
        self._count = 0

    def end(self, at: int) -> None:
        """Its process ends, and whatever it was stuck in with it."""
        self.started = None
        self.stuck = 0
        self._free(at)

    def hold(self, at: int) -> None:
        """It does not go round any more; holds add up."""
        if self.started is None:
            return
        self.stuck += 1
        if self.stuck == 1:
            self.stuck_spans.append([at, FAR])

    def release(self, at: int) -> None:
        """One hold less; none when another process has taken its place meanwhile."""
        if self.stuck:
            self.stuck -= 1
            if not self.stuck:
                self._free(at)

    def _free(self, at: int) -> None:
        if self.stuck_spans and self.stuck_spans[-1][1] == FAR:
            self.stuck_spans[-1][1] = at

    def mark(self, local: int) -> Mark | None:
        """The mark of now; None when it is the one that was told last."""
        if self.started is None or self.stuck:
            return None
        count = 1 + (local - self.started) // SECOND
        if count == self._count:
            return None
        self._count = count
        return Mark(count)

    def vitals(self, facts: HostFacts) -> Vitals:
        """All that it knows."""
        bad = self.app is not Health.OK
        row = AppRow(
            name=APP,
            health=self.app,
            state=AppState.STUCK if bad else AppState.READY,
            stall=Stall(self.app.value) if self.app is Health.DEADLOCKED else None,
        )
        return Vitals(health=self.app, facts=facts, apps=(row,))
