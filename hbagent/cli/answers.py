"""What an answer says: reads of its plain dicts that hold for older and newer daemons alike, and the verdict on it.

A key that is missing reads as "nothing known", a word that this version does not know as UNKNOWN, and whatever else
is in a dict is left alone. So nothing a daemon sends can break a command, and `-o json` shows all that it sent.

The exit code (`exit_code`) speaks of nodes and racks only:

====  ========================================================================================================
2     a node DEAD, CRITICAL or DEADLOCKED, or a rack DARK
3     else a node or rack UNKNOWN, or a rack whose leaders are all lost; also when nobody could be asked
1     else a node SUSPECT, WARNING or STALLED
0     else: also with nodes that LEFT, and with a lost leader beside another that speaks for its racks
====  ========================================================================================================

What only a drill makes bad does not count: a node is judged by the health that it would have without. Liveness UNKNOWN
always counts. Health UNKNOWN counts when a probe or an application of a living node itself says UNKNOWN, or when no
report has come although one is overdue (see `health_is_missing`); not for a node that just came, and not for one whose
liveness already tells the worse story.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hbagent.core.drill import is_drill
from hbagent.core.names import short_of
from hbagent.core.states import HEALTH_ORDER, Cause, Health, Liveness, RackState

Row = dict[str, Any]

#: Two report intervals of an agent with default settings: one lost report is repaired by the next.
REPORT_OVERDUE_S = 60.0

#: Of a node that is worse only for a drill that is under way there.
DRILL = "in a drill"
#: What a node can have, worst first: liveness and health in one line, for sorting and counting.
TROUBLES = (
    Liveness.DEAD.value,
    Health.DEADLOCKED.value,
    Health.CRITICAL.value,
    Liveness.UNKNOWN.value,
    "health UNKNOWN",
    Liveness.SUSPECT.value,
    Health.STALLED.value,
    Health.WARNING.value,
    Liveness.LEFT.value,
    Cause.LINK_CUT.value,
    DRILL,
)
_EXIT_CODES = dict(zip(TROUBLES, (2, 2, 2, 3, 3, 1, 1, 1, 0, 0, 0), strict=True))
_RACK_EXIT_CODES = {
    RackState.OK.value: 0,
    RackState.DEGRADED.value: 0,
    RackState.DARK.value: 2,
    RackState.LEADER_LOST.value: 3,
    RackState.UNKNOWN.value: 3,
}
#: How grave an exit code is: 2 before 3 before 1 before 0.
_GRAVITY = {2: 3, 3: 2, 1: 1, 0: 0}

_LIVENESS = tuple(liveness.value for liveness in Liveness)
_HEALTH = tuple(health.value for health in Health)
_HEALTH_WORST_FIRST = tuple(health.value for health in HEALTH_ORDER)
#: What a list of nodes may be narrowed to; UNKNOWN of either axis.
STATES = tuple(dict.fromkeys((*_LIVENESS, *_HEALTH)))


# ---- reading -------------------------------------------------------------------------------------------------


def rows(document: Any, key: str) -> list[Row]:
    """The dicts in the list under `key`; none when there is no such list."""
    found = document.get(key) if isinstance(document, Mapping) else None
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def row(document: Any, key: str) -> Row:
    """The dict under `key`, empty when there is none."""
    found = document.get(key) if isinstance(document, Mapping) else None
    return found if isinstance(found, dict) else {}


def word(document: Any, key: str) -> str:
    """The text under `key`; "" when there is none. It may hold anything: `render.clean` it before it is shown."""
    found = document.get(key) if isinstance(document, Mapping) else None
    return found if isinstance(found, str) else ""


def number(document: Any, key: str) -> float | None:
    """The number under `key`; None when there is none."""
    found = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(found, (int, float)) or isinstance(found, bool) or not math.isfinite(found):
        return None
    return found


def liveness_of(node: Row) -> str:
    """A node's liveness; a word that this version does not know is UNKNOWN."""
    found = word(node, "liveness")
    return found if found in _LIVENESS else Liveness.UNKNOWN.value


def health_of(node: Row) -> str:
    """A node's health; a word that this version does not know is UNKNOWN."""
    found = word(node, "health")
    return found if found in _HEALTH else Health.UNKNOWN.value


def judged_health(node: Row) -> str:
    """The health that counts: without what only a drill makes bad."""
    found = word(node, "health_beside_drill")
    return found if found in _HEALTH else health_of(node)


def state_of(rack: Row) -> str:
    """A rack's state; a word that this version does not know is UNKNOWN."""
    found = word(rack, "state")
    return found if found in _RACK_EXIT_CODES else RackState.UNKNOWN.value


def seconds_between(earlier: str, later: str) -> float | None:
    """Seconds from one RFC 3339 time to another; None when either is none."""
    try:
        start, end = (datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (earlier, later))
        return (end - start).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None


def moment_before(at: str, age_s: float | None) -> str:
    """The RFC 3339 time so many seconds before `at`; "" when either is none."""
    if age_s is None:
        return ""
    try:
        moment = datetime.datetime.fromisoformat(at.replace("Z", "+00:00")) - datetime.timedelta(seconds=age_s)
    except (ValueError, OverflowError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def culprit(node: Row, drills: bool = True) -> tuple[str, Row] | None:
    """What makes the health of a node that is heard what it is: "app" or "probe" and its row, or "prober" and nothing
    more; None when its health is OK, or not what is wrong with it first. Without `drills` of the health that counts."""
    health = health_of(node) if drills else judged_health(node)
    if liveness_of(node) != Liveness.ALIVE.value or health == Health.OK.value:
        return None
    bad = bad_parts(node)
    worst = next((part for part in bad if drills or not is_drill(word(part[1], "name"))), None)
    found = health_of(worst[1]) if worst else Health.OK.value
    if health == Health.STALLED.value and _HEALTH_WORST_FIRST.index(found) > _HEALTH_WORST_FIRST.index(health):
        # A leader sees that the prober stands still; no part of its report can tell.
        return "prober", {}
    return worst


def bad_parts(node: Row) -> list[tuple[str, Row]]:
    """The applications and probes of a node that are not OK, each with which of the two it is; the worst first."""
    parts = [("app", app) for app in rows(node, "apps")] + [("probe", probe) for probe in rows(node, "probes")]
    bad = [(kind, part) for kind, part in parts if health_of(part) != Health.OK.value]
    return sorted(bad, key=lambda part: _HEALTH_WORST_FIRST.index(health_of(part[1])))


# ---- judging -------------------------------------------------------------------------------------------------


def exit_code(document: Row) -> int:
    """The exit code of `hbagent status` for an answer; see the head of this file."""
    codes = [code_of(trouble) for _, trouble in troubled(document)]
    return gravest([*codes, *(code_of_rack(rack) for rack in rows(document, "racks"))])


def code_of(trouble: str) -> int:
    """The exit code of one of `TROUBLES`."""
    return _EXIT_CODES[trouble]


def code_of_rack(rack: Row) -> int:
    """The exit code of a rack's state."""
    return _RACK_EXIT_CODES[state_of(rack)]


def gravest(codes: Iterable[int]) -> int:
    """The exit code of several things together."""
    return max(codes, key=_GRAVITY.__getitem__, default=0)


def known(document: Row) -> int:
    """How many nodes an answer is about. One in brief has only some of them in it, and counts them in its racks."""
    if document.get("brief") is not True:
        return len(rows(document, "nodes"))
    counts = [row(rack, "counts") for rack in rows(document, "racks")]
    return sum(round(number(count, liveness) or 0) for count in counts for liveness in count)


def troubled(document: Row) -> list[tuple[Row, str]]:
    """Nodes that are not plainly ALIVE and OK, each with its worst of `TROUBLES`, the worst first."""
    troubles = _Troubles(document)
    found = [(node, trouble) for node in rows(document, "nodes") if (trouble := troubles.of(node))]
    return sorted(found, key=lambda pair: TROUBLES.index(pair[1]))


def worst_first(nodes: Iterable[Row], document: Row) -> list[Row]:
    """Some of an answer's nodes, the worst first and those without trouble last."""
    troubles = _Troubles(document)
    return sorted(nodes, key=lambda node: (*TROUBLES, "").index(troubles.of(node)))


class _Troubles:
    """Names the worst of `TROUBLES` that a node of one answer has."""

    def __init__(self, document: Row) -> None:
        self._at = word(row(document, "root"), "at")
        self._listening = _listening_times(document)

    def of(self, node: Row) -> str:
        """The worst of `TROUBLES`; "" for a plain ALIVE and OK."""
        words = _troubles_of(node)
        if health_is_missing(node, self._at, self._listening.get(word(node, "rack"), 0.0)):
            words.append("health UNKNOWN")
        return min(words, key=TROUBLES.index, default="")


def _troubles_of(node: Row) -> list[str]:
    liveness, health = liveness_of(node), judged_health(node)
    words = [liveness] if liveness != Liveness.ALIVE.value else []
    if health not in (Health.OK.value, Health.UNKNOWN.value):
        words.append(health)
    if liveness == Liveness.ALIVE.value and word(node, "cause") == Cause.LINK_CUT.value:
        words.append(Cause.LINK_CUT.value)
    if liveness == Liveness.ALIVE.value and health != health_of(node):
        words.append(DRILL)
    return words


def health_is_missing(node: Row, at: str, listening_s: float) -> bool:
    """True when health UNKNOWN is news: a probe says so, or a report is overdue.

    A report is overdue when the node has been ALIVE for `REPORT_OVERDUE_S` and those who should have received it
    (the daemon that answers and the rack's leaders) have listened for as long, `listening_s`.
    """
    if liveness_of(node) != Liveness.ALIVE.value or judged_health(node) != Health.UNKNOWN.value:
        return False
    if any(health_of(part) == Health.UNKNOWN.value for part in (*rows(node, "probes"), *rows(node, "apps"))):
        return True
    alive_s = seconds_between(word(node, "since"), at)
    return alive_s is not None and min(alive_s, listening_s) > REPORT_OVERDUE_S


def _listening_times(document: Row) -> dict[str, float]:
    """For each rack, how long everybody on the way of its reports has been up, in seconds."""
    answerer_s = number(row(document, "root"), "uptime_s") or 0.0
    times = {}
    for rack in rows(document, "racks"):
        uptimes = [uptime for leader in rows(rack, "leaders") if (uptime := number(leader, "uptime_s")) is not None]
        times[word(rack, "rack")] = min([answerer_s, *uptimes])
    return times


def data_age_s(rack: Row) -> float | None:
    """How old the newest word of any of a rack's leaders is, in seconds; None when none was ever heard."""
    ages = [age for leader in rows(rack, "leaders") if (age := number(leader, "age_s")) is not None]
    return min(ages, default=None)


# ---- narrowing -----------------------------------------------------------------------------------------------


def matching_racks(document: Row, wanted: Iterable[str]) -> dict[str, None]:
    """Full names of the racks that the words name, by full name or last part; all of them without any word.

    Raises ValueError for a word that names none.
    """
    known = [word(rack, "rack") for rack in rows(document, "racks")]
    found: dict[str, None] = {}
    for name in wanted:
        hits = [rack for rack in known if name in (rack, short_of(rack))]
        if not hits:
            raise ValueError(f"no rack {name!r}; there is {', '.join(known[:10])}{' ...' if len(known) > 10 else ''}")
        found.update(dict.fromkeys(hits))
    return found or dict.fromkeys(known)


def of_racks(document: Row, wanted: Iterable[str]) -> Row:
    """The answer for some racks only. Raises ValueError for a word that names no rack."""
    wanted = list(wanted)
    if not wanted:
        return document
    kept = matching_racks(document, wanted)
    return {
        **document,
        "racks": [rack for rack in rows(document, "racks") if word(rack, "rack") in kept],
        "nodes": [node for node in rows(document, "nodes") if word(node, "rack") in kept],
    }


def in_states(states: Iterable[str]) -> Callable[[Row], bool]:
    """Whether a node has one of the states in its liveness or health; every node has, when there are no states."""
    wanted = frozenset(states)
    return lambda node: not wanted or liveness_of(node) in wanted or health_of(node) in wanted
