"""A leader's numbers for Prometheus: how it hears its racks, and how it does itself.

Hosts one by one are the root's to tell (`core.rootmetrics`): two leaders and a root that told the same host three times
would be three hosts to every sum. What a leader alone knows is what it heard, what it asked, and how late its loop was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .exposition import Exposition, ProcessFacts, Rising, escaped, labels
from .health import RANK
from .states import Liveness
from .units import SECOND
from .views import shown_health

if TYPE_CHECKING:
    from .leader import LeaderCore


class LeaderMetrics:
    """Answers scrapes about one leader."""

    def __init__(self, leader: LeaderCore) -> None:
        self._leader = leader
        #: Heartbeats missed, and late, by rack: what a node counts begins again with each life of its agent.
        self._missed: dict[str, Rising] = {}
        self._late: dict[str, Rising] = {}

    def render(self, now: int, facts: ProcessFacts, openmetrics: bool = False) -> bytes:
        """All of it. `now` is monotonic."""
        config, out = self._leader.config, Exposition(openmetrics)
        out.info("hbagent_build", "This process.", labels(role="leader", name=config.name, version=config.version))
        self._racks(out, now)
        self._itself(out, now)
        out.process(facts)
        return out.text()

    def _racks(self, out: Exposition, now: int) -> None:
        leader = self._leader
        hosts: list[tuple[str, float]] = []
        healths: list[tuple[str, float]] = []
        dark: list[tuple[str, float]] = []
        missed: list[tuple[str, float]] = []
        late: list[tuple[str, float]] = []
        doubted: list[tuple[str, float]] = []
        for rack, nodes in leader.config.racks.items():
            members = [member for name in nodes if (member := leader.roster.members.get(name)) is not None]
            by_liveness, by_health = dict.fromkeys(Liveness, 0), dict.fromkeys(RANK, 0)
            for member in members:
                by_liveness[member.liveness] += 1
                by_health[shown_health(member.health, member.liveness)] += 1
            of = f'{{rack="{escaped(rack)}"'
            hosts += [(f'{of},state="{state.value}"}}', count) for state, count in by_liveness.items()]
            healths += [(f'{of},state="{state.value}"}}', count) for state, count in by_health.items()]
            dark.append((of + "}", leader.roster.dark_ns(rack, now) is not None))
            doubted.append((of + "}", sum(member.doubt is not None for member in members)))
            lost = self._missed.setdefault(rack, Rising())
            missed.append((of + "}", lost.take({member.name: member.order.lost for member in members})))
            slow = self._late.setdefault(rack, Rising())
            late.append((of + "}", slow.take({member.name: member.late for member in members})))
        out.gauge("hbagent_leader_hosts", "Hosts by rack and liveness, as this leader sees them.", hosts)
        out.gauge("hbagent_leader_hosts_by_health", "Hosts by rack and health, as this leader sees them.", healths)
        out.gauge("hbagent_leader_rack_dark", "1 while most of a rack is silent at once.", dark)
        out.gauge("hbagent_leader_hosts_in_doubt", "Hosts that are late and being asked.", doubted)
        out.counter("hbagent_heartbeats_received", "Heartbeats taken in.", [("", leader.stats(now).beats)])
        out.counter("hbagent_heartbeats_missed", "Heartbeats that were sent and did not come, by rack.", missed)
        out.counter("hbagent_heartbeats_late", "Heartbeats that were later than their host is allowed, by rack.", late)

    def _itself(self, out: Exposition, now: int) -> None:
        leader = self._leader
        stats = leader.stats(now)
        refused = [(labels(reason=reason), count) for reason, count in sorted(stats.refused.items())]
        out.counter("hbagent_refused", "Messages refused, by reason.", refused)
        out.counter("hbagent_doubts", "Doubts begun.", [("", stats.doubts)])
        out.counter(
            "hbagent_doubts_cleared", "Doubts that an answer ended before anybody was told.", [("", stats.cleared)]
        )
        out.counter("hbagent_questions", "Questions sent to end doubts.", [("", stats.asked)])
        out.gauge("hbagent_outbox", "Changes told to the root and not yet on its disk.", [("", stats.outbox)])
        out.gauge(
            "hbagent_journal_degraded", "1 while what must survive a restart is not kept.", [("", bool(stats.degraded))]
        )
        lag = [("", stats.lag_max_ns / SECOND)]
        out.gauge("hbagent_loop_lag_max_seconds", "Largest lag of the loop in the last minute.", lag)
        out.counter("hbagent_loop_stalls", "Pauses of the loop so long that judging was put off.", [("", stats.stalls)])
        suspended = [("", stats.suspended_ns / SECOND)]
        out.counter("hbagent_suspended_seconds", "Time for which this host was suspended.", suspended)
