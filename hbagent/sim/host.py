"""A simulated machine: its clocks, the process on it, and what waits for that process while it stands still.

Every machine has its own monotonic clock, off by anything and fast or slow by up to 100 ppm, so that nothing in a core
can compare two machines' clocks and get away with it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .disk import Journal, Store
    from .network import Route
    from .prober import Prober

#: No instant of any run is as late as this.
FAR = 1 << 62
_MILLION = 1_000_000
#: A crystal without temperature control.
DRIFT_PPM = 100


class Host:
    """One machine with one process of one role."""

    __slots__ = (
        "absences",
        "address",
        "backlog",
        "config",
        "core",
        "disk",
        "firewalled",
        "gone",
        "icmp",
        "inbox",
        "liar",
        "life",
        "name",
        "offset_ns",
        "outages",
        "paused",
        "pauses",
        "peers_in",
        "peers_out",
        "ppm",
        "prober",
        "rng",
        "role",
        "route_to",
        "routes_in",
        "routes_out",
        "run_delay_ns",
        "spins",
        "started_at",
        "stepped",
        "suspended_ns",
        "wake_at",
        "wake_for",
        "wall_offset_ns",
        "woken_at",
    )

    def __init__(self, name: str, role: str, config: Any, rng: random.Random) -> None:
        self.name = name
        self.role = role
        self.config = config
        self.rng = random.Random(rng.getrandbits(64))
        self.offset_ns = rng.randrange(1 << 50)
        self.ppm = rng.randint(-DRIFT_PPM, DRIFT_PPM)
        self.wall_offset_ns = 1_795_000_000_000_000_000 + rng.randrange(_MILLION * 1000)
        #: Its wall clock was set to another time.
        self.stepped = False
        #: The process; None while there is none.
        self.core: Any = None
        #: Counts the processes that ran here.
        self.life = 0
        self.started_at = FAR
        #: When the pending wake-up is due, in virtual time.
        self.wake_at = FAR
        #: ...and the core's deadline that it is for, on the host's own clock.
        self.wake_for = FAR
        #: Wake-ups in a row at one instant, and that instant.
        self.spins = 0
        self.woken_at = -1
        #: How many faults hold the process still.
        self.paused = 0
        #: What arrived meanwhile.
        self.inbox: list[tuple[Any, Any, Any, Any]] = []
        self.disk: Journal | Store | None = None
        #: Beside an agent.
        self.prober: Prober | None = None
        #: Connections that this host makes, and those made to it.
        self.routes_out: list[Route] = []
        self.routes_in: list[Route] = []
        #: Those between leaders of one rack, which carry no beats and no summaries.
        self.peers_out: list[Route] = []
        self.peers_in: list[Route] = []
        self.route_to: dict[str, Route] = {}
        #: Numeric, and where neighbours find its echo port.
        self.address = ""
        #: True when nothing but the connections that it makes itself gets in or out.
        self.firewalled = False
        #: TCP connections to the echo port that wait for a process that is held still.
        self.backlog = 0
        #: Refusals of datagrams that the kernel has left, by asker, and until when it counts them.
        self.icmp: dict[str, tuple[int, int]] = {}
        #: "" or how it lies as a neighbour: garbage, silence, refusal.
        self.liar = ""
        #: What its process could say of itself: time without a CPU, and its host's time in suspension.
        self.run_delay_ns = 0
        self.suspended_ns = 0
        #: How many faults say that the whole machine is away.
        self.gone = 0
        #: The truth for the checker: when there was no process, and when it stood still; end FAR while it lasts.
        self.outages: list[list[int]] = []
        self.pauses: list[list[int]] = []
        #: ...and when the whole machine was away.
        self.absences: list[list[int]] = []

    def local(self, at: int) -> int:
        """This host's monotonic clock at the virtual instant `at`."""
        return at + self.offset_ns + at * self.ppm // _MILLION

    def virtual(self, local: int) -> int:
        """The first virtual instant at which this host's clock has reached `local`; at most 3 ns later."""
        return (local - self.offset_ns) * _MILLION // (_MILLION + self.ppm) + 3

    def wall(self, at: int) -> int:
        """This host's wall clock."""
        return at + self.wall_offset_ns

    @property
    def runs(self) -> bool:
        """True when a process is there and not held still."""
        return self.core is not None and not self.paused

    @property
    def routes(self) -> tuple[Route, ...]:
        """Every connection that begins or ends here."""
        return (*self.routes_out, *self.routes_in, *self.peers_out, *self.peers_in)
