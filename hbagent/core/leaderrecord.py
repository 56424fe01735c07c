"""What the root knows of one leader: its right to speak, its own account of itself, and how far it was heard out.

A leader's lives (epochs) have no order by themselves, as incarnations of agents have none. Several may be under way at
once: a leader that was started again first sends what its earlier life could not deliver.
"""

from __future__ import annotations

import enum

from .lease import Lease
from .messages import STEPS_MAX, LeaderStats, Step
from .order import Order
from .records import MARKS_MAX, Mark
from .states import Cause, Outcome


class Standing(enum.Enum):
    """Where a leader stands with the root."""

    #: Not heard yet, and in its grace.
    WAITED = "waited"
    #: It holds its lease.
    HELD = "held"
    #: Its lease has lapsed, and it is not yet told why: all the others are late too.
    LAPSED = "lapsed"
    #: It was told as lost.
    LOST = "lost"
    #: All leaders fell silent together: the root was told as isolated.
    ISOLATED = "isolated"


class Life:
    """One life of a leader's process: how far its transitions are taken in, and of these, how far they are on disk."""

    __slots__ = ("kept", "number", "taken")

    def __init__(self, number: int) -> None:
        #: Counts the lives of one leader, as they were met.
        self.number = number
        self.taken = 0
        self.kept = 0


class LeaderRecord:
    """One leader at the root."""

    __slots__ = (
        "_lives",
        "answered",
        "ask_at",
        "asked",
        "cause",
        "dark_ns",
        "folded",
        "lapsed_at",
        "lease",
        "name",
        "newest",
        "order",
        "racks",
        "standing",
        "stats",
        "stats_at",
        "steps",
        "witnessed",
    )

    def __init__(self, name: str, racks: tuple[str, ...], lease: Lease) -> None:
        self.name = name
        self.racks = racks
        self.lease = lease
        #: Which of its summaries is news: lives of a leader have no order, numbers within one have.
        self.order = Order()
        self.stats = LeaderStats()
        self.stats_at = 0
        self.newest = 0
        #: Verdicts that its present life has folded away.
        self.folded = 0
        self.standing = Standing.WAITED
        #: Why nothing is known through it, when it does not speak.
        self.cause = Cause.LEADER_LOST
        self.lapsed_at = 0
        #: For how long most of each of its racks has been silent, by its newest summaries.
        self.dark_ns: dict[str, int] = {}
        #: When it is asked whether it is there, the number of the newest question, and what came of it.
        self.ask_at: int | None = None
        self.asked = 0
        self.answered = False
        self.witnessed: Outcome | None = None
        #: What has happened since its newest summary.
        self.steps: list[Step] = []
        self._lives: dict[int, Life] = {}

    @property
    def lost_told(self) -> bool:
        """True while people believe that it is lost."""
        return self.standing is Standing.LOST

    # ---- is it there? ------------------------------------------------------------------------------------

    def heard(self, ask_at: int) -> None:
        """A summary came: no question is open any more; the next is due at `ask_at`."""
        self.standing = Standing.HELD
        self.cause = Cause.LEADER_LOST
        self.ask_at = ask_at
        self.answered = False
        self.witnessed = None
        self.steps.clear()

    def ask(self, number: int, now: int) -> None:
        """It is asked, and its kernel watched."""
        self.asked = number
        self.answered = False
        self.step("asked whether it is there", now)

    def answer(self, number: int, now: int) -> None:
        """It answered itself."""
        if number == self.asked and not self.answered:
            self.answered = True
            self.step("it answers, but sends no summary", now)

    def witness(self, outcome: Outcome, now: int) -> None:
        """What its host's kernel says."""
        if outcome is not self.witnessed:
            self.step(_WITNESSED[outcome], now)
        self.witnessed = outcome

    @property
    def stalled(self) -> bool:
        """True when its kernel answers and it does not."""
        return self.witnessed is Outcome.ACKED and not self.answered

    def step(self, text: str, now: int) -> None:
        """Add to the story of its silence."""
        if self.lease.renewed_at is not None and len(self.steps) < STEPS_MAX:
            self.steps.append(Step(now - self.lease.renewed_at, text))

    # ---- how far it was heard out ------------------------------------------------------------------------

    def restore(self, mark: Mark) -> None:
        """Take up what is on disk; the marks of one leader in the order of their lives."""
        life = self._lives[mark.epoch] = Life(mark.life)
        life.taken = life.kept = mark.number

    def taken(self, epoch: int) -> int:
        """Number of the newest transition of `epoch` that was taken in."""
        life = self._lives.get(epoch)
        return life.taken if life is not None else 0

    def kept(self, epoch: int) -> int:
        """Number of the newest transition of `epoch` that is on disk and may be acknowledged."""
        life = self._lives.get(epoch)
        return life.kept if life is not None else 0

    def take(self, epoch: int, number: int) -> Mark:
        """Everything of `epoch` up to `number` is taken in; returns the mark to be written."""
        life = self._lives.get(epoch)
        if life is None:
            newest = next(reversed(self._lives.values())).number + 1 if self._lives else 0
            life = self._lives[epoch] = Life(newest)
            if len(self._lives) > MARKS_MAX:
                del self._lives[next(iter(self._lives))]
        life.taken = number
        return Mark(leader=self.name, epoch=epoch, number=number, life=life.number)

    def keep(self, mark: Mark) -> None:
        """A mark is on disk."""
        life = self._lives.get(mark.epoch)
        if life is not None:
            life.kept = mark.number


_WITNESSED = {
    Outcome.ACKED: "the kernel of its host acknowledges",
    Outcome.SILENT: "nothing is acknowledged by its host",
    Outcome.CLOSED: "its connection is closed",
    Outcome.UNSENT: "it has no connection to ask it on",
    Outcome.REFUSED: "its host refuses",
    Outcome.ANSWERED: "it answers",
}
