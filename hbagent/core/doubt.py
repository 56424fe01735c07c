"""One node in doubt: what was asked about it, what came back, and what that proves.

A doubt begins when a beat is late or a connection closes, and it is not a suspicion: nobody is told. It ends with the
node's own next beat or answer, whichever is first. Meanwhile it is a file of evidence, and `cause` reads it:

    its connection is gone, and nobody listens any more   process-exit
    somebody else has proof of life, newer than ours      link-cut
    its kernel acknowledges, its agent does not answer    process-frozen
    nothing                                               silence, which time may make host-gone

Evidence does not fade by itself: what was acknowledged holds until a later question has failed. Otherwise a node that
could not be asked for a while, because the budget was spent, would die of it.

An answer proves life at the time the question was *sent*, whenever it arrives: a stopped kernel's buffers may hold an
answer for seconds.
"""

from __future__ import annotations

from .messages import STEPS_MAX, Step
from .states import Cause

#: Steps of the beginning that are never left out of a long story.
_FIRST_STEPS = STEPS_MAX // 2


class Doubt:
    """The evidence about one silent node. Times are on the leader's clock."""

    __slots__ = (
        "_left_out",
        "_steps",
        "acked_at",
        "closed",
        "closed_at",
        "confirmed",
        "elsewhere",
        "elsewhere_at",
        "elsewhere_failed_at",
        "exited",
        "helpers",
        "judge_from",
        "kernel_failed_at",
        "neighbours",
        "pings",
        "refused_tcp",
        "refused_udp",
        "replies",
        "since",
        "started_at",
        "tcp_open",
        "tcp_tries",
        "told",
        "unanswered",
    )

    def __init__(self, started_at: int, since: int) -> None:
        self.started_at = started_at
        #: The last proof of life before the doubt.
        self.since = since
        #: Rounds of questions; questions to the node itself since the last evidence; to others.
        self.pings = 0
        self.unanswered = 0
        self.helpers = 0
        #: Of these, how many went to neighbours, and how many neighbours reported back, whatever they found.
        self.neighbours = 0
        self.replies = 0
        #: Others that looked and found nothing either.
        self.confirmed = 0
        #: TCP may be asked (again), and how often it was.
        self.tcp_open = True
        self.tcp_tries = 0
        self.refused_tcp = False
        self.refused_udp = 0
        #: The control connection is gone.
        self.closed = False
        self.closed_at = 0
        #: ...and nobody listens where the agent's echo answered before: proof.
        self.exited = False
        #: Newest question whose delivery the node's kernel acknowledged.
        self.acked_at: int | None = None
        #: ...and newest question of which it acknowledged nothing.
        self.kernel_failed_at = 0
        #: Newest instant at which somebody else had proof of life, and who that was.
        self.elsewhere_at: int | None = None
        self.elsewhere = ""
        #: Newest question to somebody else that found nothing.
        self.elsewhere_failed_at = 0
        #: Until then it is being asked whether what others knew holds no longer.
        self.judge_from = 0
        #: Causes told while it was suspected; a wavering network must not tell without end.
        self.told = 0
        self._steps: list[tuple[int, str]] = []
        self._left_out = 0

    def ask_anew(self, now: int) -> None:
        """What was found while most of the rack was silent says nothing of this node: it is found out once more."""
        self.started_at = now
        self.pings = self.unanswered = self.helpers = self.neighbours = self.replies = self.confirmed = 0
        self.tcp_open, self.tcp_tries = True, 0
        self.refused_tcp, self.refused_udp = False, 0
        self.step(now, "others of its rack are heard again: asked anew")

    # ---- evidence ----------------------------------------------------------------------------------------

    def acked(self, asked_at: int) -> bool:
        """The kernel of the node's host has acknowledged a question of `asked_at`; True when that is news."""
        first = self.acked_at is None or self.acked_at <= self.kernel_failed_at
        self.acked_at = max(asked_at, self.acked_at or asked_at)
        self.unanswered = 0
        return first

    def heard_elsewhere(self, who: str, at: int) -> bool:
        """`who` has proof of life at the instant `at`; True when the cause may change by it."""
        if at <= self.since or (self.elsewhere_at is not None and at <= self.elsewhere_at):
            return False
        first = self.elsewhere_at is None
        self.elsewhere_at, self.elsewhere = at, who
        self.unanswered = 0
        return first

    def last_evidence(self) -> int:
        """The newest instant at which anybody on any path had a sign of the node's host."""
        return max(self.since, self.acked_at or self.since, self.elsewhere_at or self.since)

    def cause(self, fresh_ns: int) -> Cause:
        """What the evidence says. Somebody else's failure counts `fresh_ns` after the last success: one of two
        neighbours may itself be cut off."""
        if self.exited:
            return Cause.PROCESS_EXIT
        if self.elsewhere_at is not None and self.elsewhere_failed_at <= self.elsewhere_at + fresh_ns:
            return Cause.LINK_CUT
        if self.acked_at is not None and self.acked_at > self.kernel_failed_at and not self.closed:
            return Cause.PROCESS_FROZEN
        return Cause.SILENCE

    # ---- the story ---------------------------------------------------------------------------------------

    def step(self, at: int, text: str) -> None:
        """One more moment; of a long story the middle is left out."""
        if len(self._steps) >= STEPS_MAX - 1:
            del self._steps[_FIRST_STEPS]
            self._left_out += 1
        self._steps.append((at, text))

    def story(self) -> tuple[Step, ...]:
        """The steps so far, as times since the last proof of life."""
        steps = [Step(at - self.since, text) for at, text in self._steps]
        if self._left_out:
            at = steps[_FIRST_STEPS - 1].after_ns
            steps.insert(_FIRST_STEPS, Step(at, f"... {self._left_out} more"))
        return tuple(steps)
