"""What people were told of one node's health, part by part, and what of a leader's word is news beside it.

Every leader of a rack sees the same reports and tells the same changes. Which of their words is newer is a matter of
the report that it was derived from (and, for the agent's own prober, of the beat), not of who was faster. Who says what
is known already says nothing.

Transitions are acknowledged, and yet some changes have none: the first report of a leader's life is compared with
nothing. So rows of summaries and passed-on reports that go on saying something else are believed after a while.
"""

from __future__ import annotations

import msgspec

from .changes import PROBER, Parts, bad_parts, compare, worst_first
from .health import worse
from .messages import HealthChange, NodeRow, Report, Transition
from .records import NodeState
from .states import Health

#: Incarnations that were replaced, and of which a slower leader may still tell.
RETIRED_MAX = 4


class News(msgspec.Struct, frozen=True):
    """What people must be told."""

    before: Health
    after: Health
    changes: tuple[HealthChange, ...]


class HealthRecord:
    """One node's health as it was told."""

    __slots__ = (
        "_blind",
        "_differs",
        "incarnation",
        "known",
        "parts",
        "report",
        "retired",
        "sequence",
        "since",
        "value",
    )

    def __init__(self) -> None:
        self.value = Health.UNKNOWN
        #: False until anybody has said anything.
        self.known = False
        #: The newest report and beat that what was told goes by.
        self.incarnation: int | None = None
        self.report = 0
        self.sequence = 0
        self.retired: tuple[int, ...] = ()
        self.parts: Parts = {}
        #: Since when rows have said something else; None when they do not.
        self.since: int | None = None
        #: Since when the passed-on report has.
        self._differs: int | None = None
        #: The value was taken from a row, and which parts made it is not known.
        self._blind = False

    # ---- across restarts ---------------------------------------------------------------------------------

    def restore(self, state: NodeState) -> None:
        """Take up what an earlier life of the root told."""
        self.value = state.health
        self.known = state.health is not Health.UNKNOWN or state.health_incarnation is not None
        self.incarnation = state.health_incarnation
        self.report, self.sequence = state.health_report, state.health_sequence
        self.parts = {(subject, name): health for subject, name, health in state.parts}

    def fill(self, state: NodeState) -> NodeState:
        """`state` with what a next life must know."""
        parts = tuple((subject, name, health) for (subject, name), health in self.parts.items())
        return msgspec.structs.replace(
            state,
            health=self.value,
            health_incarnation=self.incarnation,
            health_report=self.report,
            health_sequence=self.sequence,
            parts=parts,
        )

    # ---- a leader's word ---------------------------------------------------------------------------------

    def take(self, said: Transition) -> News | None:
        """A leader tells a change; None when it is known, or not true any more."""
        incarnation = said.evidence.incarnation
        if incarnation is not None and incarnation in self.retired:
            return None
        sequence = said.sequence or 0
        same = older = False
        if incarnation != self.incarnation:
            if self.incarnation is not None:
                self.retired = (self.incarnation, *self.retired)[:RETIRED_MAX]
        elif said.report < self.report:
            return None
        elif said.report == self.report:
            same, older = True, sequence < self.sequence
        before = self.value if self.known else said.health_before
        self.since = self._differs = None
        blind, self._blind = self._blind, False
        changes = self._take_parts(said.evidence.changes, older)
        if same and not any((change.subject, change.name) == PROBER for change in said.evidence.changes):
            # What this report made of the node was told, and of the prober it knows nothing new.
            older = True
        if not older:
            self._goes_by(incarnation, said.report, sequence)
            self.value, self.known = said.health_after, True
        if (not changes or blind) and self.value is before:
            return None
        return News(before, self.value, changes)

    def _take_parts(self, changes: tuple[HealthChange, ...], older: bool) -> tuple[HealthChange, ...]:
        """Those that are news, each from what was told of its part before."""
        news = []
        for change in changes:
            part = (change.subject, change.name)
            was = self.parts.get(part, Health.OK)
            if change.after is was or (older and part == PROBER):
                continue
            self._set(part, change.after)
            stays = change.before is was or not self.known
            news.append(change if stays else msgspec.structs.replace(change, before=was))
        return tuple(news)

    def _set(self, part: tuple[str, str], health: Health) -> None:
        if health is Health.OK:
            self.parts.pop(part, None)
        else:
            self.parts[part] = health

    def _goes_by(self, incarnation: int | None, report: int, sequence: int) -> None:
        self.incarnation, self.report, self.sequence = incarnation, report, sequence

    # ---- what is seen beside it --------------------------------------------------------------------------

    def row(self, health: Health, now: int) -> None:
        """A leader that hears the node says this of it in a summary, and its word counts."""
        if not self.known and health is Health.OK:
            # Nothing was wrong, and nothing is.
            self.value, self.known = health, True
        if health is self.value and self.known:
            self.since = None
        elif self.since is None:
            self.since = now

    def counts(self, row: NodeRow, report: Report | None) -> bool:
        """False for a row that says nothing new of the node's health: its leader has not found out in its own life, or
        goes by an older report, or beat, than what was told. It may know by asking, or from others, that the node
        lives, and not how it has been since."""
        if row.health is Health.UNKNOWN and (report is None or report.health is not Health.UNKNOWN):
            return False
        if not self.known or row.incarnation != self.incarnation:
            return True
        return not (0 < row.report < self.report or (row.sequence or 0) < self.sequence)

    def passed_on(self, report: Report, now: int) -> None:
        """A leader passes a report on."""
        if not self._counts(report):
            return
        bad = bad_parts(report)
        if PROBER in self.parts:
            bad[PROBER] = self.parts[PROBER]
        if bad == self.parts or not self.known:
            self._differs = None
        elif self._blind or (report.incarnation, report.number) == (self.incarnation, self.report):
            # Of a row, this is what made it so; of this very report, changes were told: more than are told at once.
            self._blind = self._blind and self._stalled(self.value, report) is None
            if not self._blind:
                self.parts, self._differs = bad, None
                self._goes_by(report.incarnation, report.number, self._sequence_in(report))
        elif self._differs is None:
            self._differs = now

    def overdue(self, patience_ns: int, now: int) -> bool:
        """True when rows or reports have said something else for so long that no transition will come."""
        waits = (since for since in (self.since, self._differs) if since is not None)
        return any(now - since >= patience_ns for since in waits)

    def believe(self, health: Health, report: Report | None) -> News | None:
        """Take a row's word, and from the passed-on report what made it so; None when that is nothing new."""
        self.since = self._differs = None
        before, self.value, self.known = self.value, health, True
        if report is not None and self._counts(report):
            stalled = self._stalled(health, report)
            if stalled is not None:
                changes = [*compare(self.parts, report)]
                was = self.parts.pop(PROBER, Health.OK)
                if was is not stalled:
                    changes.append(HealthChange(subject=PROBER[0], name=PROBER[1], before=was, after=stalled))
                self.parts = bad_parts(report)
                self._set(PROBER, stalled)
                self._blind = False
                self._goes_by(report.incarnation, report.number, self._sequence_in(report))
                news = worst_first(changes)
                return News(before, health, news) if news or health is not before else None
        if health is before:
            return None
        self._blind = True
        changes = []
        if health is Health.OK:
            changes = [
                HealthChange(subject=subject, name=name, before=was, after=Health.OK)
                for (subject, name), was in self.parts.items()
            ]
            self.parts = {}
        return News(before, health, worst_first(changes))

    def _counts(self, report: Report) -> bool:
        """False for a report that is older than what was told."""
        if report.incarnation == self.incarnation:
            return report.number >= self.report
        return report.incarnation not in self.retired

    def _sequence_in(self, report: Report) -> int:
        return self.sequence if report.incarnation == self.incarnation else 0

    def _stalled(self, health: Health, report: Report) -> Health | None:
        """What the prober must be for a row to say `health` of a node with this report; None when it cannot."""
        hidden = worse(report.health, Health.STALLED) is health
        if report.health is health:
            return self.parts.get(PROBER, Health.OK) if hidden else Health.OK
        return Health.STALLED if hidden else None
