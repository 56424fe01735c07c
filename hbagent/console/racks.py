"""The racks as a grid: each a name and one character a host, the worst rack first. Pure.

A rack takes as many lines as its hosts need. Where each begins is computed when the racks change; a line is made when
it is looked at. The cursor stands on a host, or on the rack itself before its first host.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from hbagent.cli.grid import Cell, Screen, clean
from hbagent.cli.pieces import state_cell

from .lines import Spans, Target, sign
from .model import Host, Rack
from .panes import mark, tail

#: Before and after the name of a rack: the cursor's mark, the symbol of its state, a space.
_AROUND = 3
#: A name of a rack that is longer is cut, or a narrow screen would have no room for cells.
_NAME_PART = 3

#: Before a rack of which what is shown is old.
OLD = "~"

Pairs = Sequence[tuple[Rack, list[Host]]]


class RackGrid:
    """The grid, and which cell of it is chosen."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self._pairs: Pairs = ()
        #: Racks of which what is shown is old.
        self.old: frozenset[str] = frozenset()
        #: What every rack's name begins with and nobody needs to read.
        self.site = ""
        self._rack = 0
        #: Place of the chosen host in its rack; -1: the rack itself.
        self._host = -1
        self._moved = False
        self._laid_out = 0
        self._starts: list[int] = []
        self._name = 0
        self._lines = 0

    def show(self, pairs: Pairs) -> None:
        """Have other racks or hosts; what was chosen stays chosen, if it is still there."""
        chosen = self.target() if self._moved else None
        self._pairs, self._laid_out = pairs, 0
        if chosen is not None:
            self.choose(chosen)
        self._rack = min(self._rack, max(0, len(pairs) - 1))
        self._host = min(self._host, len(self._hosts()) - 1)

    def choose(self, target: Target) -> bool:
        """Put the cursor on a rack or host; False when it is not there."""
        for at, (rack, hosts) in enumerate(self._pairs):
            if target.kind == "rack" and rack.name == target.name:
                self._rack, self._host, self._moved = at, -1, True
                return True
            if target.kind == "node" and target.name in rack.hosts:
                names = [host.name for host in hosts]
                if target.name in names:
                    self._rack, self._host, self._moved = at, names.index(target.name), True
                    return True
        return False

    def target(self) -> Target | None:
        """What the cursor stands on."""
        if not self._pairs:
            return None
        hosts = self._hosts()
        if 0 <= self._host < len(hosts):
            return Target("node", hosts[self._host].name)
        return Target("rack", self._pairs[self._rack][0].name)

    def chosen_host(self) -> Host | None:
        """The host that the cursor stands on; None on a rack."""
        hosts = self._hosts()
        return hosts[self._host] if 0 <= self._host < len(hosts) else None

    def _hosts(self) -> list[Host]:
        return self._pairs[self._rack][1] if self._rack < len(self._pairs) else []

    # ---- lines -------------------------------------------------------------------------------------------

    def title(self, width: int) -> Spans:
        """How many."""
        return [Cell(f" Racks ({len(self._pairs)})", "bold"), Cell("  problems first", "dim")]

    def count(self, width: int) -> int:
        """Lines of all racks."""
        self._lay_out(width)
        return self._lines

    def cursor(self, width: int) -> int:
        """The line of the chosen cell."""
        self._lay_out(width)
        if not self._starts:
            return 0
        return self._starts[self._rack] + max(0, self._host) // self._per_line(width)

    def line(self, at: int, width: int) -> Spans:
        """One line: of a rack's first, its name; then its cells."""
        self._lay_out(width)
        index = bisect_right(self._starts, at) - 1
        rack, hosts = self._pairs[index]
        per_line = self._per_line(width)
        first = (at - self._starts[index]) * per_line
        mine = index == self._rack
        chosen = self._host - first if mine and first <= self._host < first + per_line else None
        whole = mine and self._host < 0 and not first
        head = self._head(rack, whole, chosen is not None) if not first else self._blank(chosen is not None)
        cells = [sign(host, self.screen) for host in hosts[first : first + per_line]]
        if rack.name in self.old:
            cells = [Cell(cell.text, "dim") for cell in cells]
        if chosen is not None:
            cells[chosen] = Cell(cells[chosen].text, f"{cells[chosen].tone} chosen")
        return [*head, *_joined(cells)]

    def _head(self, rack: Rack, chosen: bool, holds_cursor: bool) -> Spans:
        state = state_cell(rack.state, self.screen)
        symbol = OLD if rack.name in self.old else " " if rack.state == "OK" else state.text[:1]
        name = self._short(rack.name).ljust(self._name)
        cell = Cell(tail(name, self._name, self.screen), "chosen" if chosen else "")
        return [Cell(mark(chosen or holds_cursor, self.screen)), Cell(symbol, state.tone), cell, Cell(" ")]

    def _blank(self, holds_cursor: bool) -> Spans:
        return [Cell(mark(holds_cursor, self.screen) + " " * (self._name + _AROUND - 1))]

    def _short(self, name: str) -> str:
        return clean(name.removeprefix(self.site), self.screen) or "-"

    def _per_line(self, width: int) -> int:
        return max(1, width - self._name - _AROUND)

    def _lay_out(self, width: int) -> None:
        if self._laid_out == width:
            return
        self._laid_out = width
        longest = max((len(self._short(rack.name)) for rack, _ in self._pairs), default=0)
        self._name = max(1, min(longest, width // _NAME_PART))
        per_line = self._per_line(width)
        self._starts, self._lines = [], 0
        for _, hosts in self._pairs:
            self._starts.append(self._lines)
            self._lines += max(1, -(-len(hosts) // per_line))

    # ---- moving ------------------------------------------------------------------------------------------

    def move(self, across: int, down: int, width: int) -> None:
        """Go to a cell to the side, or in a line further up or down, on into the next rack."""
        self._moved = True
        if across:
            self._host = max(-1, min(len(self._hosts()) - 1, self._host + across))
        self._lay_out(width)
        if not down or not self._starts:
            return
        per_line = self._per_line(width)
        column = self._host % per_line if self._host >= 0 else -1
        line = max(0, min(self._lines - 1, self.cursor(width) + down))
        if column < 0:
            # From name to name.
            step = 1 if down > 0 else -1
            if abs(down) == 1:
                self._rack = max(0, min(len(self._pairs) - 1, self._rack + step))
            else:
                self._rack = bisect_right(self._starts, line) - 1
            return
        self._rack = bisect_right(self._starts, line) - 1
        first = (line - self._starts[self._rack]) * per_line
        self._host = min(first + column, len(self._hosts()) - 1)


def _joined(cells: Sequence[Cell]) -> Spans:
    """Neighbours of one tone as one piece."""
    found: Spans = []
    for cell in cells:
        if found and found[-1].tone == cell.tone:
            found[-1] = Cell(found[-1].text + cell.text, cell.tone)
        else:
            found.append(cell)
    return found
