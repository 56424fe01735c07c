"""How an agent keeps its prober going: start it, notice that it is stuck, kill it, start it again.

The prober is a process of its own so that nothing it meets can hold up a beat. Its mark moves each second; the agent
lets the mark ride in its beats, where the leaders see it stand still, and is the one who can do something about it.
"""

from __future__ import annotations

from .config import AgentConfig
from .effects import Effect, Effects, KillProber, Note, StartProber
from .messages import Mark, ProberEnded
from .units import MINUTE, SECOND, show_duration

#: Wait before a prober that ended is started again: doubling, so that one which cannot run costs next to nothing.
RESTART_MIN_NS = SECOND
RESTART_MAX_NS = MINUTE


class Tending:
    """Where the agent stands with its prober."""

    def __init__(self, config: AgentConfig, now: int) -> None:
        self._config = config
        #: Marks that moved since the agent's start, over all lives of the prober.
        self.moved = 0
        #: Times that a prober ended or was killed.
        self.ended = 0
        self._running = False
        self._moved_at = now
        self._start_at = now
        self._wait_ns = RESTART_MIN_NS
        self._count = 0

    def mark(self, mark: Mark, now: int) -> None:
        """The prober's loop has gone round."""
        if mark.count == self._count:
            return
        self._count = mark.count
        self.moved += 1
        self._moved_at = now
        # A minute of marks: whatever ended the last one is not what ends each.
        if mark.count >= MINUTE // SECOND:
            self._wait_ns = RESTART_MIN_NS

    def ended_by(self, ended: ProberEnded, now: int) -> Effects:
        """The prober's process is gone."""
        self._running = False
        self.ended += 1
        self._start_at = now + self._wait_ns
        fields = {"reason": ended.reason, "again_in": show_duration(self._wait_ns)}
        self._wait_ns = min(2 * self._wait_ns, RESTART_MAX_NS)
        return (Note("warning", "prober-ended", fields),)

    def forgive(self, lag_ns: int) -> None:
        """The agent itself did not run for so long; a prober that was stopped with it is not stuck."""
        self._moved_at += lag_ns

    def reconfigure(self, config: AgentConfig) -> None:
        """Go on with other settings."""
        self._config = config

    def wake(self, now: int) -> list[Effect]:
        """The deadline came."""
        at = self.deadline()
        if at is None or now < at:
            return []
        if not self._running:
            self._running = True
            self._count = 0
            self._moved_at = now
            return [StartProber()]
        stuck_ns = now - self._moved_at
        # Once more after another patience: a kill may have met a process that does not die of it.
        self._moved_at = now
        return [Note("error", "prober-stuck", {"for": show_duration(stuck_ns)}), KillProber()]

    def deadline(self) -> int | None:
        """When `wake` wants to be called; None when no prober is wanted."""
        if not self._config.prober:
            return None
        return self._moved_at + self._config.prober_patience_ns if self._running else self._start_at
