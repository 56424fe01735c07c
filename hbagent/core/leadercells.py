"""What a leader shows of each node, compared with what it showed when it was asked last; see `rootcells`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .cells import Cells, Delta, health_line
from .member import Member
from .messages import Query, Report
from .states import Cause, Health, Liveness
from .views import Cell, seconds_of, shown_health
from .wallclock import WallClock, rfc3339


class _Row:
    """What was shown of one node."""

    __slots__ = ("cause", "health", "liveness", "member", "report", "since")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.liveness = Liveness.UNKNOWN
        self.cause: Cause | None = None
        self.health = Health.UNKNOWN
        self.report: Report | None = None
        #: None: never shown.
        self.since: int | None = None


class LeaderCells:
    """The board of a leader."""

    def __init__(self, life: int) -> None:
        self.cells = Cells(life)
        self._members: list[Member] = []
        self._rows: list[_Row] = []
        #: Steps of the wall clock that the times shown have in them; None: it was not known.
        self._wall: int | None = None

    def look(self, members: Mapping[str, Member], wall: WallClock, now: int) -> None:
        """Compare everything."""
        known = list(members.values())
        if known != self._members:
            self._align(known)
        steps = wall.steps if wall.at(now) else None
        if steps != self._wall:
            self._wall = steps
            for row in self._rows:
                row.since = None
        for row in self._rows:
            member = row.member
            if (
                row.liveness is not member.liveness
                or row.cause is not member.cause
                or row.report is not member.report
                or row.health is not member.health
                or row.since != member.since
            ):
                self._show(row, wall)

    def since(self, query: Query, members: Mapping[str, Member], now: int) -> Delta:
        """What the asker has not seen yet."""

        def age_s(node: str) -> float | None:
            heard_at = members[node].heard_at
            return None if heard_at is None else seconds_of(now - heard_at)

        return self.cells.since(query, age_s)

    def _align(self, members: Sequence[Member]) -> None:
        """Nodes have come or gone."""
        before = {row.member.name: row for row in self._rows}
        self._members = list(members)
        self._rows = []
        for member in members:
            row = before.pop(member.name, None)
            self._rows.append(row if row is not None and row.member is member else _Row(member))
        for node in before:
            self.cells.remove(node)

    def _show(self, row: _Row, wall: WallClock) -> None:
        member = row.member
        row.liveness, row.cause, row.health = member.liveness, member.cause, member.health
        row.report, row.since = member.report, member.since
        cell = Cell(
            member.name,
            member.liveness,
            member.cause.value if member.cause is not None else None,
            shown_health(member.health, member.liveness),
            rfc3339(wall.at(member.since)),
            None,
            health_line(member.health, member.liveness, member.report),
        )
        if cell != self.cells.get(member.name):
            self.cells.put(cell)
