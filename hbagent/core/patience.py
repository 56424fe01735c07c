"""How long silence is borne, by what is known of its cause.

A host without any sign, on paths that are known to work, an interval and half a second; mere silence five intervals;
what has not been heard in this life of the leader also the time to find it. The observer's own lag is added to all.
"""

from __future__ import annotations

from .config import LeaderConfig
from .doubt import Doubt
from .member import Member
from .observer import OwnLag

#: Questions to the node itself that must have stayed without any sign before its host is called gone.
ASKED_MIN = 3


class Patience:
    """The bounds of one leader. Pure functions of a member, its doubt and the leader's own lag; instants in ns."""

    def __init__(self, config: LeaderConfig, lag: OwnLag) -> None:
        self.config = config
        self._lag = lag

    def fresh(self, member: Member) -> int:
        """How old the last sign of a node, or of its host, may be to count."""
        return member.interval_ns + self.config.host_gone_slack_ns

    def may_be_gone(self, member: Member, doubt: Doubt) -> bool:
        """Silence on a path proves something only if that path worked before, was tried often enough now, and somebody
        else found the same: alone, an observer cannot tell a host that is gone from its own way to it.

        A connection that its host's kernel has closed shows that the host was there.
        """
        if not doubt.confirmed:
            return False
        return member.echo_proved and not doubt.closed and doubt.unanswered >= ASKED_MIN and member.heard_at is not None

    def why_silence(self, member: Member, doubt: Doubt) -> str:
        """Why no more than silence can be said, for people."""
        if member.heard_at is None:
            return "it was not heard since this leader's start"
        if doubt.closed:
            return "its connection was closed, and why is not known"
        if not member.echo_proved:
            return "no second path to it was known to work, so no more can be said"
        if not doubt.confirmed:
            return "nobody else could look, so it may be the way from here"
        return "it could not be asked often enough to say more"

    def gone_at(self, member: Member) -> int:
        """When silence on all paths is enough. Where no other path is known to work, the margin of the beats counts."""
        at = self.signless_at(member)
        # A margin that was learned is no word of the operator's.
        if not self.config.detector.mistakes_per_day:
            at = max(at, member.suspect_at)
        return max(at, member.judge_from + member.interval_ns) if member.judge_from else at

    def signless_at(self, member: Member) -> int:
        """An interval and half a second after the last sign from anybody."""
        last = self.last_sign(member)
        return last + self.fresh(member) + self._lag.since(last)

    def last_sign(self, member: Member) -> int:
        """The newest sign of a node, or of its host: a beat, evidence of a doubt, or that a trial was answered."""
        last = max(member.silent_from, member.answered_at)
        return last if member.doubt is None else max(last, member.doubt.last_evidence())

    def silence_at(self, member: Member) -> int:
        """When silence alone is enough."""
        last = self.last_sign(member)
        return max(last + self.dead_after(member) + self._lag.since(last), self.gone_at(member))

    def silence_allowed(self, member: Member) -> int:
        """Silence that an operator allows."""
        return max(self.config.dead_after_intervals * member.interval_ns, self.config.dead_after_min_ns)

    def dead_after(self, member: Member) -> int:
        """Silence that ends in DEAD: a node not yet heard in this life also gets the time to find this observer."""
        allowed = self.silence_allowed(member)
        return allowed if member.heard_at is not None else max(allowed, self.config.join_grace_ns)
