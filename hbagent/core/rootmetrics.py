"""The root's numbers for Prometheus: the fleet, host by host, and how the root itself does.

Ten thousand hosts are asked for every few seconds, in the thread that also takes in their news. So what is told of each
host is little: six samples, of which two say a state by a label and are 1. Of probes and applications only those have a
sample that are not OK; all of them are told by the agents themselves (`core.agentmetrics`). Labels of a host are made
once, families are built one after the other, and nothing is sorted.

A host of which nothing is known is neither up nor down: it has no `hbagent_host_up`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from .changes import beside_drills
from .exposition import Exposition, Histogram, ProcessFacts, escaped, labels
from .health import RANK
from .labels import line
from .leaderrecord import LeaderRecord
from .messages import AppRow, ProbeResult, Report
from .rootviews import leader_view, rack_view
from .states import Axis, Cause, Health, IncidentState, Liveness, RackState
from .units import MILLISECOND, SECOND
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
#: Health that is no reason to wake anybody.
_HARMLESS = (Health.OK, Health.WARNING, Health.UNKNOWN)
_REACHED = (Liveness.ALIVE, Liveness.SUSPECT)
#: A host as it is shown: name, liveness (None: nothing was ever told), cause, health.
_Shown = tuple[str, Union[Liveness, None], Union[Cause, None], Health]


class _Rack:
    """The text of one rack's hosts, which is made anew when it would be another: most of it rarely is."""

    __slots__ = (
        "beats",
        "healths",
        "labels",
        "late",
        "liveness",
        "livenesses",
        "missed",
        "shown",
        "states",
        "up",
        "well",
    )

    def __init__(self) -> None:
        self.shown: list[_Shown] | None = None
        #: Labels of each host that has samples, without the closing brace.
        self.labels: dict[str, str] = {}
        self.livenesses = dict.fromkeys(Liveness, 0)
        self.healths = dict.fromkeys(Health, 0)
        #: Samples of three families.
        self.up = self.liveness = self.states = ""
        self.beats: list[tuple[str, int, int]] = []
        #: And of two more.
        self.missed = self.late = ""
        #: Reports in which everything is OK, by host.
        self.well: dict[str, Report] = {}

    def show(self, rack: str, shown: list[_Shown], hosts: str) -> None:
        """Take up what is shown of its hosts."""
        if shown == self.shown:
            return
        self.shown = shown
        self.labels = {}
        self.livenesses = dict.fromkeys(Liveness, 0)
        self.healths = dict.fromkeys(Health, 0)
        tail = f'",rack="{escaped(rack)}"'
        up, lives, states = [], [], []
        for name, told, why, health in shown:
            liveness, cause = (Liveness.UNKNOWN, Cause.NEVER_SEEN) if told is None else (told, why)
            health = shown_health(health, liveness)
            self.livenesses[liveness] += 1
            self.healths[health] += 1
            well = liveness is Liveness.ALIVE and cause is None and health is Health.OK
            if hosts == "none" or (hosts == "problems" and well):
                continue
            of = self.labels[name] = f'{{host="{escaped(name)}{tail}'
            if liveness in _UP:
                up.append(f"hbagent_host_up{of}}} {_UP[liveness]}")
            because = f',cause="{cause.value}"' if cause is not None else ""
            lives.append(f'hbagent_host_liveness{of},state="{liveness.value}"{because}}} 1\n')
            states.append(f'hbagent_host_health{of},state="{health.value}"}} 1\n')
        self.up, self.liveness, self.states = "".join(up), "".join(lives), "".join(states)
        self.well = {name: report for name, report in self.well.items() if name in self.labels}

    def count(self, beats: list[tuple[str, int, int]]) -> None:
        """Take up labels, missed and late heartbeats of its hosts."""
        if beats == self.beats:
            return
        self.beats = beats
        self.missed = "".join([f"hbagent_host_heartbeats_missed_total{of}}} {lost}\n" for of, lost, _ in beats])
        self.late = "".join([f"hbagent_host_heartbeats_late_total{of}}} {late}\n" for of, _, late in beats])


class RootMetrics:
    """Answers scrapes about one root. `hosts` says which have samples of their own: all, problems or none."""

    def __init__(self, root: RootCore, hosts: str = "all") -> None:
        self._root = root
        self._hosts_shown = hosts
        self._racks: dict[str, _Rack] = {}
        self._detections: dict[Cause, Histogram] = {}
        #: Verdicts of earlier lives are not counted: a counter begins with its process.
        kept = root.accuracy.after("")
        self._counted = kept[-1].event_id if kept else ""

    def use(self, hosts: str) -> None:
        """Show other hosts from now on."""
        if hosts != self._hosts_shown:
            self._hosts_shown = hosts
            self._racks.clear()

    def render(self, now: int, facts: ProcessFacts, openmetrics: bool = False) -> bytes:
        """All of it. `now` is monotonic."""
        root, out = self._root, Exposition(openmetrics)
        config = root.config
        out.info("hbagent_build", "This process.", labels(role="root", name=config.name, version=config.version))
        self._count_detections()
        self._fleet(out, now)
        self._leaders(out, now)
        self._alerting(out, now)
        self._itself(out, facts)
        out.process(facts)
        return out.text()

    # ---- the fleet ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        """At every host: what is shown of it, and who heard it last."""
        root = self._root
        racks = self._racks = {rack: self._racks.get(rack) or _Rack() for rack in root.rack_nodes}
        for rack, records in root.rack_nodes.items():
            if root.datacenter.someone_is_lost(rack):
                shown: list[_Shown] = [
                    (r.name, one.liveness, one.cause, r.health) for r in records for one in (root.shown(r),)
                ]
            else:
                shown = [(r.name, r.told, r.cause, r.told_health.value) for r in records]
            racks[rack].show(rack, shown, self._hosts_shown)

    def _fleet(self, out: Exposition, now: int) -> None:
        self._look()
        if self._hosts_shown != "none":
            self._hosts(out, now)
        hosts: list[tuple[str, float]] = []
        healths: list[tuple[str, float]] = []
        states: list[tuple[str, float]] = []
        summed = dict.fromkeys(RackState, 0)
        for rack, here in self._racks.items():
            of = f'{{rack="{escaped(rack)}",state="'
            hosts += [(f'{of}{state.value}"}}', count) for state, count in here.livenesses.items()]
            healths += [(f'{of}{state.value}"}}', count) for state, count in here.healths.items()]
            counts = {state.value: count for state, count in here.livenesses.items()}
            state = rack_view(self._root, rack, now, counts).state
            summed[state] += 1
            states.append((f'{of}{state.value}"}}', 1))
        out.gauge("hbagent_hosts", "Hosts by rack and liveness.", hosts)
        out.gauge("hbagent_hosts_by_health", "Hosts by rack and health.", healths)
        out.gauge("hbagent_rack_state", "The state that a rack is in is 1, the others have no sample.", states)
        out.gauge("hbagent_racks", "Racks by state.", [(labels(state=s.value), count) for s, count in summed.items()])

    def _hosts(self, out: Exposition, now: int) -> None:
        racks = list(self._racks.values())
        out.lines(
            "hbagent_host_up",
            "1 while a host's agent is reached or only suspected, 0 once it is called dead; none while nobody knows.",
            "gauge",
            [here.up for here in racks],
        )
        out.lines(
            "hbagent_host_liveness",
            "The liveness that a host has is 1, with its cause; the others have no sample.",
            "gauge",
            [here.liveness for here in racks],
        )
        out.lines(
            "hbagent_host_health",
            "The health that a host has is 1; the others have no sample.",
            "gauge",
            [here.states for here in racks],
        )
        out.lines(
            "hbagent_host_last_heartbeat_timestamp_seconds",
            "When a host last proved to any leader that it lives, Unix time.",
            "gauge",
            self._heard(now),
        )
        out.lines(
            "hbagent_host_heartbeats_missed",
            "Heartbeats of a host's present life that did not reach the leader that heard it last.",
            "counter",
            [here.missed for here in racks],
        )
        out.lines(
            "hbagent_host_heartbeats_late",
            "Heartbeats of a host's present life that were later than it is allowed.",
            "counter",
            [here.late for here in racks],
        )
        self._parts(out)
        self._drills(out)
        flapping = dict.fromkeys(key[0] for key, trouble in self._root.alerts.troubles.items() if trouble.flapping)
        out.gauge(
            "hbagent_host_flapping",
            "1 for a host that changes too often to tell of each change; others have no sample.",
            [(f"{here.labels[name]}}}", 1) for name in flapping for here in racks if name in here.labels],
        )

    def _drills(self, out: Exposition) -> None:
        """Hosts that are bad for a drill alone. Where something else is as bad as to wake somebody, there is none."""
        samples: list[tuple[str, float]] = []
        nodes = self._root.nodes
        for here in self._racks.values():
            for name, of in here.labels.items():
                told = nodes[name].told_health
                if told.parts and beside_drills(told.value, told.parts) in _HARMLESS:
                    samples.append((f"{of}}}", 1))
        out.gauge(
            "hbagent_host_drill",
            "1 for a host whose health would wake nobody without the drill that is under way there.",
            samples,
        )

    def _heard(self, now: int) -> list[str]:
        """When each host was heard; and on the way, what of its heartbeats was missed."""
        wall = self._root.wall.at(now)
        offset = wall - now
        lines: list[str] = []
        nodes = self._root.nodes
        for here in self._racks.values():
            beats: list[tuple[str, int, int]] = []
            for name, of in here.labels.items():
                heard: int | None = None
                lost = late = 0
                for seen in nodes[name].seen.values():
                    at = seen.heard_at
                    if at is not None and (heard is None or at > heard):
                        heard, lost, late = at, seen.lost, seen.late
                if heard is not None:
                    at_ms = (heard + offset) // MILLISECOND
                    lines.append(f"hbagent_host_last_heartbeat_timestamp_seconds{of}}} {at_ms / 1000}\n")
                    beats.append((of, lost, late))
            here.count(beats)
        return lines if wall else []

    def _parts(self, out: Exposition) -> None:
        """Probes and applications that are not OK, of hosts that are reached."""
        # Once each, whatever names a node gives: two samples of one name and labels spoil the whole scrape.
        probes: dict[str, float] = {}
        apps: dict[str, float] = {}
        nodes = self._root.nodes
        for here in self._racks.values():
            well = here.well
            for name, of in here.labels.items():
                report = nodes[name].report
                if report is None or well.get(name) is report or self._root.shown(nodes[name]).liveness not in _REACHED:
                    continue
                bad_probes = [part for part in report.probes if part.health is not Health.OK]
                bad_apps = [part for part in report.apps if part.health is not Health.OK]
                if bad_probes or bad_apps:
                    probes |= {_part("probe", of, part): 1 for part in _worst(bad_probes)}
                    apps |= {_part("app", of, part): 1 for part in _worst(bad_apps)}
                else:
                    well[name] = report
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
            "hbagent_leader_last_heard_timestamp_seconds",
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
        for silence in alerts.objections.silences.all():
            state = alerts.objections.silences.view(silence, wall, 0).state
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

    def _itself(self, out: Exposition, facts: ProcessFacts) -> None:
        root = self._root
        refused = [(labels(reason=reason), count) for reason, count in sorted(root.refused.items())]
        out.counter("hbagent_refused", "Messages refused, by reason.", refused)
        out.counter("hbagent_events", "Events in the history, also of earlier lives.", [("", root.chronicle.newest)])
        out.gauge("hbagent_isolated", "1 while all leaders are silent together.", [("", root.leases.isolated)])
        out.gauge(
            "hbagent_store_degraded", "1 while what is told may not be on disk.", [("", bool(root.ledger.degraded))]
        )
        out.gauge("hbagent_store_commit_seconds", "How long the newest transaction took.", [("", facts.commit_s)])
        reads = zip(("worker", "reader"), facts.reads or (), strict=False)
        out.counter(
            "hbagent_store_reads",
            "Questions about history answered: by the store's worker, or beside a long transaction.",
            [(labels(by=by), count) for by, count in reads],
        )
        out.counter("hbagent_store_events_lost", "Events that no disk will ever have.", [("", root.ledger.lost)])
        out.gauge(
            "hbagent_loop_lag_max_seconds",
            "Largest lag of the loop in the last minute.",
            [("", root.lag_max_ns / SECOND)],
        )
        suspended = [("", root.leases.suspended_ns / SECOND)]
        out.counter("hbagent_suspended_seconds", "Time for which this host was suspended.", suspended)


def _worst(parts: list[ProbeResult] | list[AppRow]) -> list[ProbeResult] | list[AppRow]:
    if len(parts) <= PARTS_MAX:
        return parts
    return sorted(parts, key=lambda part: RANK[part.health])[:PARTS_MAX]  # type: ignore[return-value]


def _part(kind: str, of: str, part: ProbeResult | AppRow) -> str:
    # The name is the node's own word.
    return f'{of},{kind}="{escaped(line(part.name)[:PART_NAME_MAX])}",state="{part.health.value}"}}'
