"""What the console knows: one answer to "cells" after another, folded into hosts by rack, in the order in which they
matter. Pure: time is passed in, as the seconds of any clock that only goes forward.

An answer says what changed, so a refresh costs by the changes and not by the size of the datacenter. Lists are sorted
when they are looked at, and only if something in them moved since.

Nothing here insists on what an answer holds (see `cli.answers`): a console may be older or newer than whom it asks.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from hbagent.cli.answers import (
    REPORT_OVERDUE_S,
    TROUBLES,
    Row,
    data_age_s,
    number,
    row,
    rows,
    seconds_between,
    state_of,
    word,
)
from hbagent.cli.render import STALE_S
from hbagent.core.names import rack_of, short_of
from hbagent.core.states import Cause, Health, Liveness, RackState

#: Rank of a host without trouble: after all of `TROUBLES`.
WELL = len(TROUBLES)
#: Longest text of a cell that is kept; what is longer is a defect or an attempt to fill the console's memory.
CELL_TEXT_MAX = 200
#: Hosts that are kept, from the first on: ten times what a root is made for.
HOSTS_MAX = 100_000

#: In which order problems are listed, by the word that is shown.
SORTS = ("worst", "newest", "name", "cause")

_LIVENESS = frozenset(liveness.value for liveness in Liveness)
_HEALTH = frozenset(health.value for health in Health)
_RACK_ORDER = (RackState.DARK, RackState.LEADER_LOST, RackState.UNKNOWN, RackState.DEGRADED, RackState.OK)
_RACK_RANK = {state.value: rank for rank, state in enumerate(_RACK_ORDER)}


def _ranks() -> dict[tuple[str, str], int]:
    """The worst of `TROUBLES` for each pair of liveness and health, as `answers` judges it."""
    ranks = {}
    for liveness in _LIVENESS:
        for health in _HEALTH:
            words = [liveness] if liveness != Liveness.ALIVE.value else []
            words += [health] if health not in (Health.OK.value, Health.UNKNOWN.value) else []
            ranks[liveness, health] = min(map(TROUBLES.index, words), default=WELL)
    return ranks


_RANKS = _ranks()
_LINK_CUT = TROUBLES.index(Cause.LINK_CUT.value)
_UNREPORTED = TROUBLES.index("health UNKNOWN")


class Host(msgspec.Struct, gc=False):
    """One node as it was told last."""

    name: str
    rack: str
    liveness: str
    cause: str
    health: str
    since: str
    #: When the last proof of life came, by the console's clock; None when there never was one.
    heard: float | None
    text: str
    covered: str
    flapping: bool
    #: Index of its worst trouble in `TROUBLES`; `WELL` without any.
    trouble: int

    @property
    def short(self) -> str:
        """Its name within its rack."""
        return short_of(self.name)

    @property
    def state(self) -> str:
        """Its worst trouble, in a word."""
        return Liveness.ALIVE.value if self.trouble >= WELL else TROUBLES[self.trouble]


class Rack:
    """One rack and its hosts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.row: Row = {"rack": name}
        self.hosts: dict[str, Host] = {}
        #: Seconds that the newest word of its leaders was old when it was told; None when none was ever heard.
        self.age_s: float | None = None
        self._in_order = True

    @property
    def state(self) -> str:
        """Its state, in a word."""
        return state_of(self.row)

    def add(self, host: Host) -> None:
        """One more host."""
        self.hosts[host.name] = host
        self._in_order = False

    def ordered(self) -> Iterator[Host]:
        """Its hosts by name, host2 before host10."""
        if not self._in_order:
            self.hosts = dict(sorted(self.hosts.items(), key=lambda pair: (len(pair[0]), pair[0])))
            self._in_order = True
        return iter(self.hosts.values())


class Fleet:
    """Everything that the console was told. `take` an answer, or say that nobody is `lost`; then read."""

    def __init__(self) -> None:
        self.root: Row = {}
        self.racks: dict[str, Rack] = {}
        self.hosts: dict[str, Host] = {}
        self.incidents: list[Row] = []
        self.silences: list[Row] = []
        self.life = ""
        self.version = 0
        #: When the newest answer came; None before the first.
        self.answered: float | None = None
        #: Why nobody answers; "" while somebody does.
        self.lost = ""
        #: Rises with every answer that changed something other than ages.
        self.changes = 0
        self.sort = SORTS[0]
        self._filter: tuple[str, ...] = ()
        self._bad: dict[str, Host] = {}
        self._unreported: dict[str, Host] = {}
        self._problems: list[Host] | None = None
        self._ordered: list[tuple[Rack, list[Host]]] | None = None

    # ---- what was told -----------------------------------------------------------------------------------

    def take(self, answer: Row, now: float) -> None:
        """Fold in an answer to "cells" that came at `now`."""
        if answer.get("whole") or word(answer, "life") != self.life:
            self._forget_all()
        before = (self.incidents, self.silences, [(name, rack.state) for name, rack in self.racks.items()])
        self.life, self.version = word(answer, "life"), int(number(answer, "version") or 0)
        self.root, self.answered, self.lost = row(answer, "root"), now, ""
        self._take_racks(rows(answer, "racks"))
        cells = answer.get("cells")
        moved = [self._put(cell, now) for cell in cells if isinstance(cell, list)] if isinstance(cells, list) else []
        gone = answer.get("gone")
        moved += [self._drop(name) for name in gone if isinstance(name, str)] if isinstance(gone, list) else []
        self.incidents, self.silences = rows(answer, "incidents"), rows(answer, "silences")
        moved.append(self._judge_unreported())
        after = (self.incidents, self.silences, [(name, rack.state) for name, rack in self.racks.items()])
        if any(moved) or answer.get("whole") or before != after:
            self._changed()

    def _changed(self) -> None:
        self._problems = self._ordered = None
        self.changes += 1

    def _forget_all(self) -> None:
        self.racks, self.hosts = {}, {}
        self._bad, self._unreported = {}, {}

    def _take_racks(self, told: list[Row]) -> None:
        known, self.racks = self.racks, {}
        for one in told:
            name = word(one, "rack")[:CELL_TEXT_MAX]
            rack = known.pop(name, None) or Rack(name)
            rack.row, rack.age_s = one, data_age_s(one)
            self.racks[name] = rack
        # A rack that only its hosts' names tell of.
        self.racks.update({name: rack for name, rack in known.items() if rack.hosts})

    def _put(self, cell: list[Any], now: float) -> bool:
        node, liveness, cause, health, since, age_s, text, covered, flapping = (*cell[:9], *_NOTHING[len(cell[:9]) :])
        if not isinstance(node, str) or (node not in self.hosts and len(self.hosts) >= HOSTS_MAX):
            return False
        node = node[:CELL_TEXT_MAX]
        liveness = liveness if isinstance(liveness, str) and liveness in _LIVENESS else Liveness.UNKNOWN.value
        health = health if isinstance(health, str) and health in _HEALTH else Health.UNKNOWN.value
        trouble = _RANKS[liveness, health]
        if trouble == WELL and cause == Cause.LINK_CUT.value:
            trouble = _LINK_CUT
        host = self.hosts.get(node)
        if host is None:
            name = rack_of(node)
            rack = self.racks.get(name)
            if rack is None:
                rack = self.racks[name] = Rack(name)
            host = Host(node, name, "", "", "", "", None, "", "", False, WELL)
            self.hosts[node] = host
            rack.add(host)
        host.liveness, host.health, host.trouble = liveness, health, trouble
        host.cause, host.since, host.text, host.covered = _text(cause), _text(since), _text(text), _text(covered)
        host.heard = now - age_s if isinstance(age_s, (int, float)) and math.isfinite(age_s) else None
        host.flapping = flapping is True
        if trouble < WELL:
            self._bad[node] = host
        else:
            self._bad.pop(node, None)
        if trouble == WELL and health == Health.UNKNOWN.value:
            self._unreported[node] = host
        else:
            self._unreported.pop(node, None)
        return True

    def _drop(self, name: str) -> bool:
        host = self.hosts.pop(name, None)
        if host is None:
            return False
        self.racks[host.rack].hosts.pop(name, None)
        self._bad.pop(name, None)
        self._unreported.pop(name, None)
        return True

    def _judge_unreported(self) -> bool:
        """Hosts that live and whose report is overdue (`answers.health_is_missing`, as far as a cell can tell)."""
        if not self._unreported:
            return False
        moved = False
        at = word(self.root, "at")
        patience: dict[str, float] = {}
        for host in self._unreported.values():
            if host.rack not in patience:
                patience[host.rack] = self._listening_s(host.rack)
            alive_s = seconds_between(host.since, at) or 0.0
            overdue = min(patience[host.rack], alive_s) > REPORT_OVERDUE_S
            if overdue != (host.trouble == _UNREPORTED):
                host.trouble = _UNREPORTED if overdue else WELL
                moved = True
                if overdue:
                    self._bad[host.name] = host
                else:
                    self._bad.pop(host.name, None)
        return moved

    def _listening_s(self, rack: str) -> float:
        leaders = rows(self.racks[rack].row, "leaders")
        uptimes = [uptime for leader in leaders if (uptime := number(leader, "uptime_s")) is not None]
        return min([number(self.root, "uptime_s") or 0.0, *uptimes])

    # ---- reading -----------------------------------------------------------------------------------------

    def problems(self) -> list[Host]:
        """Hosts with trouble that pass the filter, in the order of `sort`."""
        if self._problems is None:
            found = [host for host in self._bad.values() if self.passes(host)]
            found.sort(key=lambda host: host.name)
            if self.sort == "worst":
                # What somebody silenced is known to somebody.
                found.sort(key=lambda host: (host.covered != "", host.trouble))
            elif self.sort == "newest":
                found.sort(key=lambda host: host.since, reverse=True)
            elif self.sort == "cause":
                found.sort(key=lambda host: (host.cause or host.text, host.trouble))
            self._problems = found
        return self._problems

    def by_rack(self) -> list[tuple[Rack, list[Host]]]:
        """Racks with their hosts that pass the filter, the racks with the worst trouble first; those of which nothing
        passes are left out while there is a filter."""
        if self._ordered is None:
            worst: dict[str, int] = {}
            for host in self._bad.values():
                if not host.covered:
                    worst[host.rack] = min(worst.get(host.rack, WELL), host.trouble)
            racks = sorted(
                self.racks.values(),
                key=lambda rack: (_RACK_RANK.get(rack.state, 0), worst.get(rack.name, WELL)),
            )
            pairs = ((rack, [host for host in rack.ordered() if self.passes(host)]) for rack in racks)
            self._ordered = [pair for pair in pairs if pair[1] or not self._filter]
        return self._ordered

    def site(self) -> str:
        """What every rack's name begins with, as "dc1/"; "" when they differ."""
        sites = {name.partition("/")[0] for name in self.racks}
        return f"{sites.pop()}/" if len(sites) == 1 else ""

    def counts(self) -> dict[str, int]:
        """Hosts by their worst trouble, the worst first; only troubles that somebody has."""
        tally = [0] * WELL
        for host in self._bad.values():
            tally[host.trouble] += 1
        return {trouble: count for trouble, count in zip(TROUBLES, tally, strict=True) if count}

    def open_incidents(self) -> list[Row]:
        """Incidents that pass the filter, as they were told: the worst first."""
        return [one for one in self.incidents if self._filter_matches(_incident_words(one))]

    def incident(self, name: str) -> Row | None:
        """The incident of an id; None when it is known no more."""
        return next((one for one in self.incidents if word(one, "incident") == name), None)

    # ---- filter and order --------------------------------------------------------------------------------

    @property
    def filter(self) -> str:
        """The words that hosts are narrowed to."""
        return " ".join(self._filter)

    def narrow(self, text: str) -> None:
        """Show only hosts of which each word of `text` stands in the name, a state, the cause or the text; a word
        with * or ? is a glob for the name."""
        self._filter = tuple(text.lower().split())
        self._changed()

    def sort_next(self) -> None:
        """Go on to the next order of `SORTS`."""
        self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        self._changed()

    def passes(self, host: Host) -> bool:
        """True when the filter lets a host through."""
        if not self._filter:
            return True
        return self._filter_matches(
            f"{host.name} {host.liveness} {host.health} {host.cause} {host.text} {host.covered}".lower()
        )

    def _filter_matches(self, words: str) -> bool:
        name = words.split(" ", 1)[0]
        return all(
            fnmatch.fnmatchcase(name, wanted) if "*" in wanted or "?" in wanted else wanted in words
            for wanted in self._filter
        )

    def find(self, text: str) -> str:
        """The host that a jump to `text` means: by full name, by last part, or the first that begins with it, or has
        it somewhere; "" for none."""
        text = text.strip().lower()
        if not text:
            return ""
        best: tuple[int, str] | None = None
        for name in self.hosts:
            low = name.lower()
            short = short_of(low)
            rank = (
                *(low == text, short == text, short.startswith(text), low.startswith(text), text in low),
                True,
            ).index(True)
            if rank < 5 and (best is None or rank < best[0]):
                best = (rank, name)
        return best[1] if best else ""

    # ---- age ---------------------------------------------------------------------------------------------

    def silent_s(self, now: float) -> float | None:
        """Seconds since somebody answered; None before the first answer."""
        return None if self.answered is None else now - self.answered

    def age_s(self, now: float) -> float | None:
        """How old what is shown is, by the racks whose leaders speak; by the newest word when none does."""
        silent = self.silent_s(now)
        ages = [rack.age_s for rack in self.racks.values() if rack.age_s is not None]
        if silent is None or not ages:
            return None
        return silent + max((age for age in ages if age <= STALE_S), default=min(ages))

    def old_racks(self, now: float) -> int:
        """Racks of which nothing is known, or nothing newer than `STALE_S`."""
        silent = self.silent_s(now) or 0.0
        return sum(rack.age_s is None or rack.age_s + silent > STALE_S for rack in self.racks.values())

    def is_old(self, rack: Rack, now: float) -> bool:
        """True when what is shown of a rack is old."""
        return rack.age_s is None or rack.age_s + (self.silent_s(now) or 0.0) > STALE_S

    def stale(self, now: float) -> str:
        """Why nothing that is shown may be trusted to be so still; "" while it may."""
        silent = self.silent_s(now)
        if silent is None:
            return self.lost or "nothing has been heard yet"
        if silent > STALE_S:
            return self.lost or "nobody answers"
        if self.root.get("isolated") is True:
            return f"{word(self.root, 'name')} hears none of its leaders"
        if self.racks and self.old_racks(now) == len(self.racks):
            return "no leader has said anything new"
        return ""

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts.values())


#: What a cell of an older daemon, which has fewer values, is filled up with.
_NOTHING: tuple[Any, ...] = ("", "", None, "", "", None, "", "", False)


def _text(value: object) -> str:
    return value[:CELL_TEXT_MAX] if isinstance(value, str) else ""


def _incident_words(incident: Mapping[str, Any]) -> str:
    keys = ("rack", "incident", "state", "kind", "axis", "cause", "text")
    return " ".join([*(word(incident, key) for key in keys), *_members(incident)]).lower()


def _members(incident: Mapping[str, Any]) -> list[str]:
    found = incident.get("members")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
