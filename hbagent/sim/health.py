"""What may be told of health: each change at the root against what was the matter on the host.

A change that lasts reaches the root within a bound when somebody who hears the node could tell it, whatever became of
single reports. It is one event with one number, however many leaders tell it; each event goes on from the one before;
and nothing is told that was not so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hbagent.core.changes import PROBER
from hbagent.core.effects import Happened
from hbagent.core.health import worse
from hbagent.core.records import Event
from hbagent.core.states import Health, Liveness
from hbagent.core.units import SECOND

from .causes import overlap
from .host import Host

if TYPE_CHECKING:
    from .network import Route
    from .scenario import Scenario
    from .world import World

#: From a change to the root, beside two intervals: a lost report is asked for once a second, and what has no transition
#: is read from rows that say it for two seconds.
TOLD_NS = 5 * SECOND
#: Whoever is to tell a change in time has been there and has been heard for so long before it.
SETTLED_NS = 8 * SECOND
#: The leader looks at marks once a second, and a mark is as old as the beat in which it came.
LOOK_NS = 2 * SECOND

Violate = Callable[[int, str, str], None]


class HealthClaims:
    """Watches one run."""

    def __init__(self, scenario: Scenario, world: World, violate: Violate) -> None:
        self._world = world
        self._violate = violate
        self._told_ns = TOLD_NS + 2 * scenario.interval_ns
        self._interval_ns = scenario.interval_ns
        #: Durable events of each node, and what the newest of them left.
        self._events: dict[str, int] = {}
        self._newest: dict[str, Health | None] = {}
        self._parts: dict[tuple[str, str, str], Health] = {}
        #: Nodes of which a row alone was believed: nobody said which part made it so.
        self._blind: dict[str, None] = {}
        #: Changes that were there to be told, and those that were expected in time and came.
        self.changes = 0
        self.in_time = 0

    # ---- the truth ---------------------------------------------------------------------------------------

    def changed(self, at: int, host: Host) -> None:
        """An application or a prober is in another state."""
        self.changes += 1
        self._world.push(at + self._told_ns, self._expect, host, at)
        if host.prober is not None and host.prober.stuck:
            stalled_at = at + self._window_ns(host) + LOOK_NS
            self._world.push(stalled_at + self._told_ns, self._expect, host, stalled_at)

    def _window_ns(self, host: Host) -> int:
        window_ns: int = host.config.prober_window_ns
        return max(window_ns, 3 * self._interval_ns)

    def _moved(self, host: Host, since: int, at: int) -> bool:
        """True when anything was different between `since` and `at`, or was about to be."""
        prober = host.prober
        assert prober is not None
        moments = [moment for moment, _ in prober.changes] + prober.restarts
        for begin, end in prober.stuck_spans:
            moments += [begin, end]
            if begin + self._window_ns(host) - LOOK_NS < at and since < begin + self._window_ns(host) + LOOK_NS < end:
                return True
        return any(since < moment <= at for moment in moments)

    def _truth(self, host: Host, at: int) -> Health:
        prober = host.prober
        assert prober is not None
        stalled = any(a + self._window_ns(host) <= at < b for a, b in prober.stuck_spans)
        seen = prober.app
        if prober.stuck:
            # What it has not told, nobody knows.
            begin = prober.stuck_spans[-1][0]
            seen = next((health for moment, health in reversed(prober.changes) if moment <= begin), Health.OK)
        return worse(seen, Health.STALLED) if stalled else seen

    # ---- what is told ------------------------------------------------------------------------------------

    def happened(self, at: int, host: Host, verdict: Happened) -> None:
        """A core tells a change of health."""
        if host.role != "leader":
            return
        route, member = host.route_to[verdict.node], host.core.roster.members[verdict.node]
        if route.told and member.liveness.value != route.told:
            self._violate(at, "health", f"{host.name}: {verdict.node} was {route.told}, and its health made it another")

    def committed(self, at: int, event: Event) -> None:
        """An event about health is on the root's disk."""
        host = self._world.by_name[event.node]
        prober = host.prober
        assert prober is not None and event.evidence is not None
        before = self._newest.get(event.node)
        if before is not None and before is not event.health_from:
            self._violate(at, "health", f"{event.node} was told {before.value}, and goes on from {event.health_from}")
        self._newest[event.node] = event.health_to
        if not event.evidence.changes:
            self._blind[event.node] = None
        for change in event.evidence.changes:
            part = (event.node, change.subject, change.name)
            if self._parts.get(part, Health.OK) is change.after and event.node not in self._blind:
                self._violate(at, "health", f"{change.subject} {change.name} of {event.node} is told twice")
            self._parts[part] = change.after
            if not self._was_so(at, host, change.after, (change.subject, change.name) == PROBER):
                self._violate(at, "health", f"{change.subject} of {event.node} never was {change.after.value}")
        if event.evidence.changes:
            self._blind.pop(event.node, None)
        count = self._events[event.node] = self._events.get(event.node, 0) + 1
        long = [a for a, b in prober.stuck_spans if min(b, at) - a > self._window_ns(host) - LOOK_NS]
        if count > len(prober.changes) + 2 * len(long):
            self._violate(at, "health", f"{event.node}: event {count} of {len(prober.changes)} changes")

    def _was_so(self, at: int, host: Host, health: Health, stalled: bool) -> bool:
        prober = host.prober
        assert prober is not None
        if health is Health.OK:
            return True
        if stalled:
            return any(a + self._window_ns(host) - LOOK_NS < min(at, b) for a, b in prober.stuck_spans)
        return any(value is health for _, value in prober.changes)

    # ---- what must be told -------------------------------------------------------------------------------

    def _expect(self, at: int, host: Host, since: int, *_: object) -> None:
        """What has been so since `since` is what the root says."""
        if self._moved(host, since, at) or not self._could_be_told(host, since - SETTLED_NS, at):
            return
        self.in_time += 1
        self._agree(at, host, f"{(at - since) / SECOND:.1f} s after it changed")

    def _agree(self, at: int, host: Host, when: str) -> None:
        record = self._world.root.core.nodes.get(host.name)
        told, truth = record.health if record is not None else None, self._truth(host, at)
        if told is not truth:
            said = told.value if told is not None else "nothing"
            self._violate(at, "health", f"root: {host.name} is {said} {when}, in truth {truth.value}")

    def _could_be_told(self, host: Host, since: int, at: int) -> bool:
        root = self._world.root
        if not root.runs or root.started_at > since or overlap(root.pauses, since, at):
            return False
        spans = (host.pauses, host.outages, host.absences)
        if not host.runs or host.started_at > since or any(overlap(span, since, at) for span in spans):
            return False
        return any(self._tells(route, since, at) for route in host.routes_out)

    def _tells(self, route: Route, since: int, at: int) -> bool:
        """True when the leader has heard the node all the time, and the root the leader."""
        leader, root = route.server, self._world.root
        up = leader.route_to[root.name]
        ways = all(way.open and not way.stuck and way.clear_at < since for way in (route, up))
        spans = (leader.pauses, leader.outages, leader.absences)
        there = leader.runs and leader.started_at < since and not any(overlap(span, since, at) for span in spans)
        if not (ways and there and any(leader.started_at <= moment < since for moment in route.first_heard)):
            return False
        alive = leader.core.roster.members[route.client.name].liveness is Liveness.ALIVE
        return alive and bool(root.core.leaders[leader.name].lease.held)

    def finish(self, at: int) -> None:
        """After quiet, nobody is wrong about anybody who is heard."""
        for host in self._world.agents:
            since = at - self._told_ns
            if not self._moved(host, since, at) and self._could_be_told(host, since - SETTLED_NS, at):
                self._agree(at, host, "at the end")
