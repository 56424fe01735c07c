"""What is shown of each node, and since which version: whoever shows all of them again and again asks for changes only.

Think of a scoreboard whose keeper numbers every change. A reader says the last number he has seen and is handed what
was changed since; a number of another keeper, or one from before the keeper's memory, gets him the whole board.

What a node shows may change without any verdict: a lease lapses, and its rack is UNKNOWN. So nobody reports changes
here. The keepers (`rootcells`, `leadercells`) compare what they show now with what they showed last when they are
asked, which cannot miss anything, and costs nothing while nobody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from .health import RANK
from .messages import AppRow, ProbeResult, Query, Report
from .states import Health, Liveness
from .views import Cell, shown_health

#: Nodes that are known no longer, and of which readers are told: a whole datacenter. A reader who asks so rarely that
#: he has missed more is given everything.
GONE_MAX = 10_000
#: Of what is said of a node's health; a screen's width and a half.
TEXT_LENGTH_MAX = 120


class Delta(msgspec.Struct, frozen=True):
    """What a reader is handed; `cells` in the order in which they changed."""

    whole: bool
    cells: list[Cell]
    gone: list[str]


class Cells:
    """The board: the newest value of each node, numbered."""

    def __init__(self, life: int, gone_max: int = GONE_MAX) -> None:
        #: Of the answering process, and unlike that of any other.
        self.life = f"{life:016x}"
        #: Counts the changes.
        self.version = 0
        #: Version and value, the one that changed last at the end.
        self._cells: dict[str, tuple[int, Cell]] = {}
        self._gone: deque[tuple[int, str]] = deque()
        self._gone_max = gone_max
        #: Readers who have this version, or a newer one, can be told of everybody who is gone since.
        self._remembers = 0

    def __len__(self) -> int:
        return len(self._cells)

    def get(self, node: str) -> Cell | None:
        """What is shown of a node, without an age; None: nothing is."""
        entry = self._cells.get(node)
        return entry[1] if entry is not None else None

    def put(self, cell: Cell) -> None:
        """This is shown of a node from now on."""
        self.version += 1
        self._cells.pop(cell.node, None)
        self._cells[cell.node] = (self.version, cell)

    def remove(self, node: str) -> None:
        """A node is known no longer."""
        if self._cells.pop(node, None) is None:
            return
        self.version += 1
        self._gone.append((self.version, node))
        if len(self._gone) > self._gone_max:
            self._remembers, _ = self._gone.popleft()

    def since(self, query: Query, age_s: Callable[[str], float | None]) -> Delta:
        """What changed since the asker's version, with the ages of now."""
        if query.life != self.life or not self._remembers <= query.after <= self.version:
            return Delta(True, [_aged(cell, age_s) for _, cell in self._cells.values()], [])
        changed = []
        for version, cell in reversed(self._cells.values()):
            if version <= query.after:
                break
            changed.append(_aged(cell, age_s))
        changed.reverse()
        gone = [node for version, node in self._gone if version > query.after and node not in self._cells]
        return Delta(False, changed, list(dict.fromkeys(gone)))


def health_line(health: Health, liveness: Liveness, report: Report | None) -> str:
    """The worst that is known of a node's health, in a line; "" while it is well, or nobody reaches it."""
    if report is None or shown_health(health, liveness) in (Health.OK, Health.UNKNOWN):
        return ""
    parts: list[ProbeResult | AppRow] = [*report.apps, *report.probes]
    bad = [part for part in parts if part.health is not Health.OK]
    worst = min(bad, key=lambda part: RANK[part.health], default=None)
    if health is Health.STALLED and (worst is None or RANK[worst.health] > RANK[health]):
        return "the agent's own prober does not move"
    if worst is None:
        return ""
    text = f"{worst.name}: {worst.text}" if worst.text else f"{worst.name}: {worst.health.value}"
    return text if len(text) <= TEXT_LENGTH_MAX else text[: TEXT_LENGTH_MAX - 1] + "…"


def _aged(cell: Cell, age_s: Callable[[str], float | None]) -> Cell:
    return Cell(
        cell.node,
        cell.liveness,
        cell.cause,
        cell.health,
        cell.since,
        age_s(cell.node),
        cell.text,
        cell.covered,
        cell.flapping,
    )
