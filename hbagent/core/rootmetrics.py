"""The root's numbers for Prometheus: the fleet, host by host, and how the root itself does.

Ten thousand hosts are asked for every few seconds, in the thread that also takes in their news. So what is told of each
host is little: six samples, of which two say a state by a label and are 1. Of probes and applications only those have a
sample that are not OK; all of them are told by the agents themselves (`core.agentmetrics`). Labels of a host are made
once, families are built one after the other, and nothing is sorted.

A host of which nothing is known is neither up nor down: it has no `hbagent_host_up`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .exposition import Exposition, Histogram, ProcessFacts, escaped, labels
from .fleet import NodeRecord, Seen
from .health import RANK
from .labels import line
from .leaderrecord import LeaderRecord
from .messages import AppRow, ProbeResult
from .rootviews import leader_view, rack_view
from .states import Axis, Cause, Health, IncidentState, Liveness, RackState
from .units import SECOND
from .views import shown_health

if TYPE_CHECKING:
    from .root import RootCore

#: Parts of one host that are not OK and have a sample: whoever sends more hides nothing, and floods nobody.
PARTS_MAX = 20
#: Longest name of a part as a label; names of applications may be 64 long.
PART_NAME_MAX = 100
#: Bounds of the time from the last proof of life to the verdict, in seconds: proofs take milliseconds, silence seconds,
#: a frozen process half a minute.
DETECTION_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 30.0, 60.0)
_UP = {Liveness.ALIVE: "1\n", Liveness.SUSPECT: "1\n", Liveness.DEAD: "0\n"}


class _Row:
    """One host in one scrape."""

    __slots__ = ("cause", "health", "labels", "liveness", "newest", "record")

    def __init__(self, of: str, record: NodeRecord, liveness: Liveness, cause: Cause | None) -> None:
        #: Without the closing brace.
        self.labels = of
        self.record = record
        self.liveness = liveness
        self.cause = cause
        self.health = shown_health(record.health, liveness)
        newest: Seen | None = None
        for seen in record.seen.values():
            if seen.heard_at is not None and (newest is None or seen.heard_at > newest.heard_at):  # type: ignore[operator]
                newest = seen
        self.newest = newest

    @property
    def well(self) -> bool:
        return self.liveness is Liveness.ALIVE and self.cause is None and self.health is Health.OK


class RootMetrics:
    """Answers scrapes about one root. `hosts` says which have samples of their own: all, problems or none."""

    def __init__(self, root: RootCore, hosts: str = "all") -> None:
        self._root = root
        self.hosts = hosts
        #: By full name, without the closing brace.
        self._labels: dict[str, str] = {}
        self._detections: dict[Cause, Histogram] = {}
        #: Verdicts of earlier lives are not counted: a counter begins with its process.
        kept = root.accuracy.after("")
        self._counted = kept[-1].event_id if kept else ""

    def render(self, now: int, facts: ProcessFacts, openmetrics: bool = False) -> bytes:
        """All of it. `now` is monotonic."""
        root, out = self._root, Exposition(openmetrics)
        config = root.config
        out.info("hbagent_build", "This process.", labels(role="root", name=config.name, version=config.version))
        self._count_detections()
        self._fleet(out, now)
        self._leaders(out, now)
        self._alerting(out, now)
        self._itself(out)
        out.process(facts)
        return out.text()

    # ---- the fleet ---------------------------------------------------------------------------------------

    def _rows(self) -> dict[str, list[_Row]]:
        """Every host, by rack."""
        root = self._root
        known, made = self._labels, {}
        rows: dict[str, list[_Row]] = {}
        for rack, records in root.rack_nodes.items():
            lost = root.datacenter.someone_is_lost(rack)
            tail = f'",rack="{escaped(rack)}"'
            here = rows[rack] = []
            for record in records:
                name, liveness, cause = record.name, record.told, record.cause
                if lost or liveness is None:
                    liveness, cause = root.shown(record).liveness, root.shown(record).cause
                made[name] = of = known.get(name) or f'{{host="{escaped(name)}{tail}'
                here.append(_Row(of, record, liveness, cause))
        self._labels = made
        return rows

    def _fleet(self, out: Exposition, now: int) -> None:
        rows = self._rows()
        if self.hosts == "all":
            self._hosts(out, [row for here in rows.values() for row in here], now)
        elif self.hosts == "problems":
            self._hosts(out, [row for here in rows.values() for row in here if not row.well], now)
        hosts: list[tuple[str, float]] = []
        healths: list[tuple[str, float]] = []
        racks: list[tuple[str, float]] = []
        summed = dict.fromkeys(RackState, 0)
        for rack, here in rows.items():
            by_liveness, by_health = dict.fromkeys(Liveness, 0), dict.fromkeys(Health, 0)
            for row in here:
                by_liveness[row.liveness] += 1
                by_health[row.health] += 1
            of = f'{{rack="{escaped(rack)}",state="'
            hosts += [(f'{of}{state.value}"}}', count) for state, count in by_liveness.items()]
            healths += [(f'{of}{state.value}"}}', count) for state, count in by_health.items()]
            counts = {state.value: count for state, count in by_liveness.items()}
            state = rack_view(self._root, rack, now, counts).state
            summed[state] += 1
            racks.append((f'{of}{state.value}"}}', 1))
        out.gauge("hbagent_hosts", "Hosts by rack and liveness.", hosts)
        out.gauge("hbagent_hosts_by_health", "Hosts by rack and health.", healths)
        out.gauge("hbagent_rack_state", "The state that a rack is in is 1, the others have no sample.", racks)
        out.gauge("hbagent_racks", "Racks by state.", [(labels(state=s.value), count) for s, count in summed.items()])

    def _hosts(self, out: Exposition, rows: list[_Row], now: int) -> None:
        out.lines(
            "hbagent_host_up",
            "1 while a host's agent is reached or only suspected, 0 once it is called dead; none while nobody knows.",
            "gauge",
            [f"hbagent_host_up{row.labels}}} {_UP[row.liveness]}" for row in rows if row.liveness in _UP],
        )
        causes = (None, *Cause)
        ends = {(live, cause): _ending(live, cause) for live in Liveness for cause in causes}
        out.lines(
            "hbagent_host_liveness",
            "The liveness that a host has is 1, with its cause; the others have no sample.",
            "gauge",
            [f"hbagent_host_liveness{row.labels}{ends[row.liveness, row.cause]}" for row in rows],
        )
        states = {health: f',state="{health.value}"}} 1\n' for health in Health}
        out.lines(
            "hbagent_host_health",
            "The health that a host has is 1; the others have no sample.",
            "gauge",
            [f"hbagent_host_health{row.labels}{states[row.health]}" for row in rows],
        )
        heard = [(row.labels, row.newest) for row in rows if row.newest is not None]
        offset = self._root.wall.at(now) - now
        if self._root.wall.at(now):
            out.lines(
                "hbagent_host_last_heartbeat_timestamp_seconds",
                "When a host last proved to any leader that it lives, Unix time.",
                "gauge",
                [
                    f"hbagent_host_last_heartbeat_timestamp_seconds{of}}} {((seen.heard_at or 0) + offset) / 1e9:.3f}\n"
                    for of, seen in heard
                ],
            )
        out.lines(
            "hbagent_host_heartbeats_missed",
            "Heartbeats of a host's present life that did not reach the leader that heard it last.",
            "counter",
            [f"hbagent_host_heartbeats_missed_total{of}}} {seen.lost}\n" for of, seen in heard],
        )
        out.lines(
            "hbagent_host_heartbeats_late",
            "Heartbeats of a host's present life that were later than it is allowed.",
            "counter",
            [f"hbagent_host_heartbeats_late_total{of}}} {seen.late}\n" for of, seen in heard],
        )
        self._parts(out, rows)
        flapping = dict.fromkeys(key[0] for key, trouble in self._root.alerts.troubles.items() if trouble.flapping)
        out.gauge(
            "hbagent_host_flapping",
            "1 for a host that changes too often to tell of each change; others have no sample.",
            [(f"{row.labels}}}", 1) for row in rows if row.record.name in flapping],
        )

    def _parts(self, out: Exposition, rows: list[_Row]) -> None:
        """Probes and applications that are not OK, of hosts of which their health is known."""
        # Once each, whatever names a node gives: two samples of one name and labels spoil the whole scrape.
        probes: dict[str, float] = {}
        apps: dict[str, float] = {}
        for row in rows:
            report = row.record.report
            if report is None or row.liveness not in (Liveness.ALIVE, Liveness.SUSPECT):
                continue
            bad_probes = [part for part in report.probes if part.health is not Health.OK]
            bad_apps = [part for part in report.apps if part.health is not Health.OK]
            probes |= {_part("probe", row, part): 1 for part in _worst(bad_probes)}
            apps |= {_part("app", row, part): 1 for part in _worst(bad_apps)}
        out.gauge(
            "hbagent_host_probe_status", "Probes of a host that are not OK are 1, with their state.", probes.items()
        )
        out.gauge(
            "hbagent_host_app_health", "Applications of a host that are not OK are 1, with their state.", apps.items()
        )

    # ---- leaders -----------------------------------------------------------------------------------------

    def _leaders(self, out: Exposition, now: int) -> None:
        leaders = [(labels(leader=leader.name), leader) for leader in self._root.leaders.values()]
        offset = self._root.wall.at(now) - now if self._root.wall.at(now) else None

        def summary_at(leader: LeaderRecord) -> float | None:
            at = leader.lease.renewed_at
            return None if at is None or offset is None else round((at + offset) / SECOND, 3)

        out.gauge(
            "hbagent_leader_up",
            "1 while a leader may speak for its racks.",
            [(of, leader.lease.held) for of, leader in leaders],
        )
        out.gauge(
            "hbagent_leader_state",
            "The state that a leader is in is 1, with its cause; the others have no sample.",
            [
                (labels(leader=leader.name, state=view.state.value, cause=view.cause or ""), 1)
                for _, leader in leaders
                for view in (leader_view(leader, now),)
            ],
        )
        out.gauge(
            "hbagent_leader_last_summary_timestamp_seconds",
            "When a leader's newest summary came, Unix time.",
            [(of, summary_at(leader)) for of, leader in leaders],
        )
        out.counter(
            "hbagent_leader_heartbeats_received",
            "Heartbeats that a leader has taken in, by its own account.",
            [(of, leader.stats.beats) for of, leader in leaders],
        )
        out.gauge(
            "hbagent_leader_loop_lag_max_seconds",
            "Largest lag of a leader's loop in its last minute.",
            [(of, leader.stats.lag_max_ns / SECOND) for of, leader in leaders],
        )
        out.gauge(
            "hbagent_leader_outbox",
            "Changes that a leader has told and that are not yet on the root's disk.",
            [(of, leader.stats.outbox) for of, leader in leaders],
        )
        out.gauge(
            "hbagent_leader_degraded",
            "1 while a leader cannot keep what must survive its restart.",
            [(of, bool(leader.stats.degraded)) for of, leader in leaders],
        )

    # ---- alerting ----------------------------------------------------------------------------------------

    def _count_detections(self) -> None:
        for conviction in self._root.accuracy.after(self._counted):
            self._counted = conviction.event_id
            if conviction.detection_ns is not None:
                found = self._detections.setdefault(conviction.cause, Histogram(DETECTION_BOUNDS))
                found.observe(conviction.detection_ns / SECOND)

    def _alerting(self, out: Exposition, now: int) -> None:
        root, alerts = self._root, self._root.alerts
        out.histogram(
            "hbagent_detection_latency_seconds",
            "From the last proof of a host's life to the verdict that it is dead, by cause.",
            [(labels(cause=cause.value), histogram) for cause, histogram in self._detections.items()],
        )
        causes = root.accuracy.causes()
        out.counter(
            "hbagent_verdicts",
            "Deaths that were told, by cause, also by earlier lives of the root.",
            [(labels(cause=cause.value), root.accuracy.told(cause)) for cause in causes],
        )
        out.counter(
            "hbagent_verdicts_wrong",
            "Of these, those after which the same life of the agent came back.",
            [(labels(cause=cause.value), root.accuracy.wrong(cause)) for cause in causes],
        )
        states = (IncidentState.FIRING, IncidentState.ACKNOWLEDGED)
        counts = {(axis, state): 0 for axis in Axis for state in states}
        for incident in alerts.incidents.open.values():
            counts[incident.axis, incident.state] += 1
        out.gauge(
            "hbagent_incidents",
            "Incidents that are not resolved.",
            [(labels(axis=axis.value, state=state.value), count) for (axis, state), count in counts.items()],
        )
        burning = dict.fromkeys(Axis, 0)
        for (_, axis), trouble in alerts.troubles.items():
            burning[axis] += not trouble.over
        out.gauge(
            "hbagent_troubles",
            "Subjects in trouble, on each axis.",
            [(labels(axis=axis.value), count) for axis, count in burning.items()],
        )
        silences = {(kind, state): 0 for kind in ("silence", "maintenance") for state in ("active", "pending")}
        wall = root.wall.at(now)
        for silence in alerts.silences.all():
            state = alerts.silences.view(silence, wall, 0).state
            if state != "ended":
                silences["maintenance" if silence.maintenance else "silence", state] += 1
        out.gauge(
            "hbagent_silences",
            "Silences and maintenances that have not ended.",
            [(labels(kind=kind, state=state), count) for (kind, state), count in silences.items()],
        )
        out.counter(
            "hbagent_notifications_unsent",
            "Notifications that were not sent, by reason.",
            [(labels(reason=reason), count) for reason, count in sorted(alerts.unsent.items())],
        )
        self._receivers(out)

    def _receivers(self, out: Exposition) -> None:
        root, sinks = self._root, self._root.alerts.sinks
        hooks = [(row["hook"], row) for row in root.dispatch.view()["hooks"]]
        ran: list[tuple[str, float]] = [
            (labels(receiver=name, outcome=outcome), row[outcome])
            for name, row in hooks
            for outcome in ("done", "failed", "dead")
        ]
        for name in sinks.taken:
            ran += [
                (labels(receiver=name, outcome="done"), sinks.taken[name]),
                (labels(receiver=name, outcome="failed"), sinks.failed[name]),
            ]
        out.counter(
            "hbagent_notifications",
            "What came of notifications: done, failed (and tried again), dead (given up). Of an Alertmanager: alerts "
            "that a member took, and posts that failed.",
            ran,
        )
        out.gauge(
            "hbagent_notifications_waiting",
            "Hook runs that are owed and have not begun.",
            [(labels(receiver=name), row["waiting"]) for name, row in hooks],
        )
        out.gauge(
            "hbagent_hooks_running",
            "Hook runs under way.",
            [(labels(receiver=name), row["running"]) for name, row in hooks],
        )
        out.gauge(
            "hbagent_hook_last_duration_seconds",
            "How long the newest run of a hook took.",
            [(labels(receiver=name), row["last"]["took_ms"] / 1e3) for name, row in hooks if row["last"]],
        )
        out.gauge(
            "hbagent_alertmanager_alerts",
            "Alerts that an Alertmanager is told as burning, without the watchdog.",
            [(labels(receiver=name), sinks.firing(name)) for name in sinks.taken],
        )
        out.gauge(
            "hbagent_alertmanager_up",
            "1 when a member of an Alertmanager took its newest post.",
            [
                (labels(receiver=sink.name, url=url), (sink.name, url) not in sinks.errors)
                for sink in root.config.sinks
                for url in sink.urls
            ],
        )

    # ---- the root itself ---------------------------------------------------------------------------------

    def _itself(self, out: Exposition) -> None:
        root = self._root
        refused = [(labels(reason=reason), count) for reason, count in sorted(root.refused.items())]
        out.counter("hbagent_refused", "Messages refused, by reason.", refused)
        out.counter("hbagent_events", "Events in the history, also of earlier lives.", [("", root.chronicle.newest)])
        out.gauge("hbagent_isolated", "1 while all leaders are silent together.", [("", root.isolated)])
        out.gauge(
            "hbagent_store_degraded", "1 while what is told may not be on disk.", [("", bool(root.ledger.degraded))]
        )
        out.counter("hbagent_store_events_lost", "Events that no disk will ever have.", [("", root.ledger.lost)])
        out.gauge(
            "hbagent_loop_lag_max_seconds",
            "Largest lag of the loop in the last minute.",
            [("", root.lag_max_ns / SECOND)],
        )
        suspended = [("", root.suspended_ns / SECOND)]
        out.counter("hbagent_suspended_seconds", "Time for which this host was suspended.", suspended)


def _ending(liveness: Liveness, cause: Cause | None) -> str:
    """The rest of a sample that says a liveness."""
    return f',state="{liveness.value}"' + (f',cause="{cause.value}"' if cause is not None else "") + "} 1\n"


def _worst(parts: list[ProbeResult] | list[AppRow]) -> list[ProbeResult] | list[AppRow]:
    if len(parts) <= PARTS_MAX:
        return parts
    return sorted(parts, key=lambda part: RANK[part.health])[:PARTS_MAX]  # type: ignore[return-value]


def _part(kind: str, row: _Row, part: ProbeResult | AppRow) -> str:
    # The name is the node's own word.
    return f'{row.labels},{kind}="{escaped(line(part.name)[:PART_NAME_MAX])}",state="{part.health.value}"}}'
