"""What the root shows of each node, compared with what it showed when it was asked last.

What is compared is whatever `Datacenter.shown` and `Cell` are made of: what was told of the node, its health, its
newest report, whether any leader may speak for it, and what the alerts have marked it with. Leases are looked at once
per rack: while all of them are held, or none is, no node of it needs a look of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .cells import Cells, Delta, health_line
from .fleet import NodeRecord
from .messages import Query, Report
from .states import Cause, Health, Liveness
from .views import Cell, is_plain, seconds_of, shown_health
from .wallclock import rfc3339

if TYPE_CHECKING:
    from .datacenter import Datacenter

#: What a mark says of a node: `Cell.covered` and `Cell.flapping`.
Marking = tuple[str, bool]
UNMARKED: Marking = ("", False)


class _Row:
    """What was shown of one node."""

    __slots__ = ("away", "cause", "health", "hidden", "liveness", "marking", "record", "report", "since", "told")

    def __init__(self, record: NodeRecord) -> None:
        self.record = record
        self.told: Liveness | None = None
        self.cause: Cause | None = None
        #: Why nothing is known of it, when nobody may speak for it.
        self.hidden: Cause | None = None
        self.health = Health.UNKNOWN
        self.report: Report | None = None
        #: None: never shown.
        self.since: int | None = None
        self.marking = UNMARKED
        self.liveness = Liveness.UNKNOWN
        self.away = False


class RootCells:
    """The board of the root."""

    def __init__(self, life: int) -> None:
        self.cells = Cells(life)
        #: Per rack, in the order of its nodes.
        self._rows: dict[str, list[_Row]] = {}
        self._records: dict[str, list[NodeRecord]] = {}
        self._by_name: dict[str, _Row] = {}
        self._markings: Mapping[str, Marking] = {}
        #: Nodes of each rack by liveness, every liveness present.
        self.counts: dict[str, dict[str, int]] = {}

    def look(self, datacenter: Datacenter, markings: Mapping[str, Marking]) -> None:
        """Compare everything. `markings` has the nodes that are marked with anything at all."""
        if datacenter.racks.keys() != self._rows.keys() or any(
            self._records[rack] != datacenter.rack_nodes[rack] for rack in datacenter.racks
        ):
            self._align(datacenter)
        if markings != self._markings:
            self._mark(markings)
        for rack in datacenter.racks:
            self._look_at(datacenter, rack)

    def troubled(self) -> list[str]:
        """Nodes of which there is more to tell than that they are well, in the order of their racks."""
        rows = (row for rows in self._rows.values() for row in rows)
        names = (row.record.name for row in rows)
        return [name for name in names if (cell := self.cells.get(name)) is None or not is_plain(cell)]

    def since(self, query: Query, datacenter: Datacenter, now: int) -> Delta:
        """What the asker has not seen yet."""
        nodes = datacenter.nodes

        def age_s(node: str) -> float | None:
            heard = [seen.heard_at for seen in nodes[node].seen.values() if seen.heard_at is not None]
            return seconds_of(now - max(heard)) if heard else None

        return self.cells.since(query, age_s)

    def _align(self, datacenter: Datacenter) -> None:
        """Racks or nodes have come or gone."""
        before, self._by_name = self._by_name, {}
        self._rows.clear()
        self._records.clear()
        for rack in datacenter.racks:
            records = self._records[rack] = list(datacenter.rack_nodes[rack])
            rows = self._rows[rack] = []
            for record in records:
                row = before.get(record.name)
                if row is None or row.record is not record:
                    row = _Row(record)
                    row.marking = self._markings.get(record.name, UNMARKED)
                rows.append(row)
                self._by_name[record.name] = row
        for node in before:
            if node not in self._by_name:
                self.cells.remove(node)
        self.counts = {rack: self._count(rack) for rack in self._rows}

    def _mark(self, markings: Mapping[str, Marking]) -> None:
        """Look anew at all whose marking is another now."""
        for node in (*self._markings, *markings):
            row = self._by_name.get(node)
            marking = markings.get(node, UNMARKED)
            if row is not None and row.marking != marking:
                row.marking = marking
                row.since = None
        self._markings = dict(markings)

    def _look_at(self, datacenter: Datacenter, rack: str) -> None:
        """Compare the nodes of one rack: ten thousand in all, so everything here is spelled out."""
        why = datacenter.why_silent(rack) if datacenter.someone_is_lost(rack) else None
        mixed = why is not None and any(datacenter.leaders[name].lease.held for name in datacenter.racks[rack])
        changed = False
        for row in self._rows[rack]:
            record = row.record
            hidden = why
            if mixed and any(view.speaks for view in datacenter.observers(record)):
                hidden = None
            if (
                row.hidden is hidden
                and row.report is record.report
                and row.cause is record.cause
                and row.told is record.told
                and row.health is record.told_health.value
                and row.since == record.since_wall_ns
                and row.away is record.away
            ):
                continue
            changed = self._show(row, hidden) or changed
        if changed:
            self.counts[rack] = self._count(rack)

    def _show(self, row: _Row, hidden: Cause | None) -> bool:
        """Something is another: true when that can be seen."""
        record = row.record
        old = self.cells.get(record.name)
        row.hidden, row.report, row.cause = hidden, record.report, record.cause
        row.told, row.health, row.since = record.told, record.health, record.since_wall_ns
        row.away = record.away
        liveness, cause = record.told, record.cause
        if hidden is not None and (liveness is not None or record.seen):
            liveness, cause = Liveness.UNKNOWN, hidden
        elif liveness is None:
            liveness, cause = Liveness.UNKNOWN, Cause.NEVER_SEEN
        row.liveness = liveness
        covered, flapping = row.marking
        cell = Cell(
            record.name,
            liveness,
            cause.value if cause is not None else None,
            shown_health(record.health, liveness, record.away),
            rfc3339(record.since_wall_ns),
            None,
            health_line(record.health, liveness, record.report),
            covered,
            flapping,
        )
        if cell == old:
            return False
        self.cells.put(cell)
        return True

    def _count(self, rack: str) -> dict[str, int]:
        counts = {liveness.value: 0 for liveness in Liveness}
        for row in self._rows[rack]:
            counts[row.liveness.value] += 1
        return counts
