"""What must hold, whatever the network does. It believes no core.

The checker knows the truth of the simulation (which process ran when, what arrived where and when it was sent) and
hears what came out (verdicts, committed batches, acknowledgements, hook processes). From the two it says what is
wrong. It shares no rule with the cores: where they estimate the age of a beat, it knows it; where they account for
their own lag, it knows the pauses.

    accuracy      nobody is called SUSPECT or DEAD whose beats arrive; the observer's own absence is no silence
    ghost         nobody is called ALIVE on the strength of an old beat
    completeness  a stopped node is DEAD at each leader and at the root within the bound, and stays so
    order         a verdict follows from the one before by `states.NEXT`
    monotone      (incarnation, sequence) in a leader's summaries never moves back
    durable       what the root acknowledged is on its disk
    once          one transition makes at most one event, one event one run per hook at a time
    owed          each notification that is owed ran to success with the id of its event, or is in the dead-letter
    lease         what a silent leader said last is UNKNOWN, not green, and not DEAD
    health        a change of health that lasts is told by the root in time and once, none without a cause, and none
                  touches whether a node lives
    agreement     after quiet the root says what the leaders say, and both say what is true
    bounded       queues stay below their limits and are empty after quiet; no core turns in place
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hbagent.core.effects import Happened, RunHook
from hbagent.core.messages import Answered, LastHeard, Pong, RackSummary, TransitionsAck
from hbagent.core.records import Batch, HookRun, RunState
from hbagent.core.states import NEXT, Cause, Kind, Liveness
from hbagent.core.units import MILLISECOND, SECOND

from .causes import Claims, overlap
from .health import HealthClaims
from .host import FAR, Host
from .notices import Notices

if TYPE_CHECKING:
    from .asking import Question
    from .network import Route
    from .scenario import Scenario
    from .world import World

#: Drift of two clocks over the longest silence, and the leader's wheel.
EPSILON_NS = 10 * MILLISECOND
#: A pause of the root begins up to this before the tick by which the root measures it.
ROOT_TICK_NS = 250 * MILLISECOND
#: From the deadline to the verdict: delay of the last beat, the wheel's slot, one tick.
SLACK_NS = 100 * MILLISECOND
#: From a leader's verdict to the root's, when nothing is in the way.
TOLD_NS = 500 * MILLISECOND
#: From the end of a cut or an outage until the root has everything: reconnect (2 s), send again (2 s), and the time
#: that the root waits for transitions that summaries are ahead of (2 s).
CAUGHT_UP_NS = 7 * SECOND
#: A beat that took less than this shows its leader how fast the way can be.
PROMPT_NS = 50 * MILLISECOND
#: From so many beats on a leader knows that a node's clock stood still: three in a row, of which one may be lost.
CLOCK_BEATS = 6
#: What was written so shortly before a crash may not have reached the disk.
UNSYNCED_NS = 2 * SECOND
#: Runs that were owed less than this before the end may still be on their way: retries take 1 and 5 s.
HOOK_NS = 10 * SECOND
#: Violations kept; one defect makes hundreds.
VIOLATIONS_MAX = 50

_NEXT = {before.value: tuple(after.value for after in afters) for before, afters in NEXT.items()}
_ALIVE, _DEAD, _SUSPECT = Liveness.ALIVE.value, Liveness.DEAD.value, Liveness.SUSPECT.value
_LEFT, _UNKNOWN = Liveness.LEFT.value, Liveness.UNKNOWN.value
_LEADER_KINDS = (Kind.LEADER_LOST, Kind.LEADER_RECOVERED)
_RACK_KINDS = (Kind.RACK_DARK, Kind.RACK_RECOVERED)
_OWED = (RunState.PENDING, RunState.DONE, RunState.DEAD)


class Checker:
    """Watches one run. `finish` judges what can only be judged at the end."""

    def __init__(self, scenario: Scenario, world: World) -> None:
        self._scenario = scenario
        self._world = world
        #: Causes are a matter of their own.
        self.claims = Claims(scenario, world, self._violate)
        self.health = HealthClaims(scenario, world, self._violate)
        self.notices = Notices(scenario, world, self._violate)
        self.violations: list[str] = []
        self.count = 0
        #: Detection times in nanoseconds from the stop.
        self.suspected: list[int] = []
        self.detected: list[int] = []
        self.detected_root: list[int] = []
        self.kinds: dict[str, int] = {}
        self.stopped = 0
        #: Root's verdicts by node, over all its lives.
        self._root_verdicts: dict[str, list[tuple[int, str]]] = {}
        self._root_told: dict[str, str] = {}
        #: How often leaders and root called a node DEAD, how often that is on the root's disk, and since when.
        self._leader_deaths: dict[str, int] = {}
        self._root_deaths: dict[str, int] = {}
        self._durable_deaths: dict[str, int] = {}
        self._death_kept_at: dict[str, int] = {}
        self._marks: dict[tuple[str, int], int] = {}
        self._event_keys: dict[tuple[object, ...], int] = {}
        self._runs: dict[str, HookRun] = {}
        #: When runs of (event, hook) ended well, and when they failed.
        self._succeeded: dict[tuple[str, str], int] = {}
        self._failed: dict[tuple[str, str], list[int]] = {}
        self._left: dict[str, int] = {}
        #: Transitions in each leader's outbox, by its newest summary.
        self._waiting: dict[str, int] = {}
        self._incarnations: dict[tuple[str, str], list[int]] = {}

    def _violate(self, at: int, row: str, text: str) -> None:
        self.count += 1
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(f"{row}: {at / SECOND:.3f} s: {text}")

    # ---- the truth ---------------------------------------------------------------------------------------

    def started(self, at: int, host: Host) -> None:
        """A process started: what its last life saw, it has not seen."""
        if host.role == "leader":
            for route in host.routes_in:
                route.newest_sent = route.proof_sent = -1
                route.heard = False
                route.prompt_life = -1
                route.told = ""
                route.rows = None
            # What its disk had not synced, it says no more.
            self._incarnations = {key: past for key, past in self._incarnations.items() if key[0] != host.name}
            self.claims.started(host)
        elif host.role == "root":
            self._root_told.clear()
            # What it had told and not written, its leaders tell again.
            self._root_deaths = dict(self._durable_deaths)

    def slept(self, host: Host, length: int) -> None:
        """The clock of a host stood still."""
        for route in host.routes_in:
            # What it knew of the least time that beats take is worth nothing any more.
            route.prompt_life = -1
        for route in host.routes_out:
            route.slept_ns = length + (route.slept_ns if route.since_sleep < CLOCK_BEATS else 0)
            route.since_sleep = 0

    def left(self, at: int, host: Host) -> None:
        """A process said goodbye and ended."""
        self._left[host.name] = at

    def ends(self, at: int, host: Host) -> None:
        """A process is killed, or ends by itself."""
        if self._left.get(host.name) != at:
            self.claims.exits(at, host)

    def answered(self, at: int, question: Question, answered: Answered) -> None:
        """A question came back to its asker."""
        if question.answered_at >= 0:
            route = question.asker.route_to.get(answered.peer)
            if route is not None and question.asker.role == "leader":
                route.proof_sent = max(route.proof_sent, question.answered_at)
        self.claims.answered(at, question, answered)

    def heard(self, at: int, host: Host, sender: str, message: Pong | LastHeard) -> None:
        """A process reads what it is told of a node's life."""
        self.claims.heard(at, host, sender, message)

    def arrived(self, at: int, route: Route, sent: int) -> None:
        """A beat reached its leader's host."""
        route.since_sleep += 1
        if not route.heard and at - sent <= self._scenario.fresh_ns:
            route.heard = True
            route.first_heard.append(at)
        if at - sent < PROMPT_NS:
            # A leader that is held still reads it later, and by then cannot tell how long it was under way.
            if sent >= route.client.started_at and not route.server.paused:
                route.prompt_life = route.client.life
        elif not route.client.runs and route.prompt_life != route.client.life:
            # Nothing tells this leader how old the beat is: it is the first that it hears of that incarnation.
            route.excused_at = at

    # ---- verdicts ----------------------------------------------------------------------------------------

    def health_changes(self, at: int, host: Host) -> None:
        """An application, or a prober, is in another state."""
        self.health.changed(at, host)

    def happened(self, at: int, host: Host, verdict: Happened) -> None:
        """A core changed its mind."""
        kind = verdict.kind.value
        if verdict.kind is Kind.HEALTH_CHANGED:
            self.health.happened(at, host, verdict)
            if host.role == "root":
                self.kinds[kind] = self.kinds.get(kind, 0) + 1
            return
        if host.role == "leader":
            self._leader_verdict(at, host, verdict)
            return
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if verdict.kind in _LEADER_KINDS:
            self._leader_event(at, verdict)
            return
        if verdict.kind is Kind.ROOT_ISOLATED:
            self._isolated(at, host)
            return
        if verdict.kind in _RACK_KINDS:
            self._rack_event(at, verdict)
            return
        self._root_verdict(at, host, verdict)

    def _leader_verdict(self, at: int, host: Host, verdict: Happened) -> None:
        route = host.route_to[verdict.node]
        before, after = verdict.before, verdict.after
        if route.told and route.told != before:
            self._violate(at, "order", f"{host.name}: {verdict.node} was {route.told}, not {before}")
        # A cause may become clearer while the node stays SUSPECT.
        again = before == after and (
            (after == _ALIVE and verdict.kind is Kind.NODE_RESTARTED)
            or (after == _SUSPECT and verdict.kind is Kind.NODE_SUSPECT)
            or verdict.kind is Kind.NODE_ACCOUNTED
        )
        if after not in _NEXT[before] and not again:
            self._violate(at, "order", f"{host.name}: {verdict.node} went from {before} to {after}")
        self.claims.told(at, route, verdict)
        if verdict.kind is Kind.NODE_ACCOUNTED:
            return
        route.told = after
        route.verdicts.append((at, after))
        if after == _DEAD:
            self._leader_deaths[verdict.node] = self._leader_deaths.get(verdict.node, 0) + 1
            # A proved end needs no silence; `claims` holds it against the truth.
            if verdict.cause is not Cause.PROCESS_EXIT:
                self._accurate(at, host, route, self._borne_ns(verdict.cause), _DEAD)
        elif after == _SUSPECT and before != after and route.client.core is not None:
            self._accurate(at, host, route, route.newest_due_ns(), _SUSPECT)
        elif after == _ALIVE:
            self._no_ghost(at, host, route)

    def _borne_ns(self, cause: Cause | None) -> int:
        """The silence that a verdict of DEAD takes, by its cause."""
        config = self._scenario.leader
        if cause is Cause.HOST_GONE:
            return self._scenario.interval_ns + config.host_gone_slack_ns
        return config.dead_after_ns if cause is Cause.PROCESS_FROZEN else self._scenario.dead_after_ns

    def _accurate(self, at: int, host: Host, route: Route, allowed: int, what: str) -> None:
        # Of whom no beat has come in this life, an answer may have.
        heard = route.newest_sent if route.newest_sent >= 0 else route.proof_sent
        if heard < 0:
            # Not heard in this life: only what an earlier life knew may be judged, and after the grace.
            heard = host.started_at
            allowed = self._scenario.leader.join_grace_ns
            if what == _SUSPECT:
                allowed -= self._scenario.dead_after_ns
        # A pause begins up to one tick before the tick by which the observer measures it.
        ticks = sum(1 for begin, end in host.pauses if begin < at and end > heard) * self._scenario.leader.tick_ns
        silent = at - heard - paused_between(host, heard, at)
        if route.since_sleep < CLOCK_BEATS:
            # Its clock stood still, and until some beats have shown it, they look older than they are.
            silent += min(route.slept_ns, self._scenario.fresh_ns)
        if silent + ticks < allowed - EPSILON_NS and at - self._silent_since(route.client, at) < allowed:
            self._violate(
                at,
                "accuracy",
                f"{host.name}: {route.client.name} {what} after {silent / SECOND:.3f} s in which it could be heard;"
                f" {allowed / SECOND:.3f} s are due",
            )

    def _no_ghost(self, at: int, host: Host, route: Route) -> None:
        # An answer to a question is as good as a beat; it is as old as its leaving the node.
        newest = max(route.newest_sent, route.proof_sent)
        age = at - newest
        if route.prompt_life == route.client.life and age > self._scenario.fresh_ns + SLACK_NS:
            pause = paused_between(host, newest, at)
            if overlap(host.absences, newest, at):
                # A suspended observer's clock has lost the whole of its sleep, also what was before the beat.
                pause = sum(b - a for a, b in host.pauses if a < at and b > newest)
            if age - pause > self._scenario.fresh_ns + SLACK_NS:
                self._violate(at, "ghost", f"{host.name}: {route.client.name} ALIVE by a beat {age / SECOND:.3f} s old")

    def _root_verdict(self, at: int, host: Host, verdict: Happened) -> None:
        node, before, after = verdict.node, verdict.before, verdict.after
        told = self._root_told.get(node)
        if told is not None and told != before:
            self._violate(at, "order", f"{host.name}: {node} was {told}, not {before}")
        if before == after and verdict.kind not in (Kind.NODE_RESTARTED, Kind.NODE_ACCOUNTED):
            self._violate(at, "order", f"{host.name}: {node} told {after} twice")
        self._root_told[node] = after
        self._root_verdicts.setdefault(node, []).append((at, after))
        if after == _DEAD:
            self._root_accurate(at, host, node)
            agent = self._world.by_name.get(node)
            hearing = [r.server.name for r in agent.routes_out if self._hears(r, at)] if agent is not None else []
            if hearing:
                self._violate(at, "accuracy", f"{host.name}: {node} DEAD, and {hearing[0]} hears it")
            self._root_deaths[node] = self._root_deaths.get(node, 0) + 1

    def _root_accurate(self, at: int, host: Host, node: str) -> None:
        """The root may say DEAD when a leader says so, or when the node has stood still for long enough."""
        agent = self._world.by_name.get(node)
        routes = agent.routes_out if agent is not None else []
        if any(route.verdicts and route.verdicts[-1][1] == _DEAD for route in routes):
            return
        if self._leader_deaths.get(node, 0) > self._root_deaths.get(node, 0):
            return
        # A root that has lost sight of the node in between may have told one death of a leader's twice, and now hears
        # of the next.
        kept_at = self._death_kept_at.get(node, -1)
        if any(when > kept_at and word == _DEAD for route in routes for when, word in route.verdicts):
            return
        if agent is not None and self._silent_since(agent, at) <= at - self._scenario.dead_after_ns:
            return
        self._violate(at, "accuracy", f"{host.name}: {node} DEAD, and no leader has said so")

    def _silent_since(self, agent: Host, at: int) -> int:
        """When the agent last stopped or was held still; `at` when it runs."""
        for begin, end in (*agent.outages, *agent.pauses, *agent.absences):
            if begin <= at < end:
                return begin
        return at

    def _leader_event(self, at: int, verdict: Happened) -> None:
        """A leader is only lost that could not be heard for the length of its lease."""
        if verdict.kind is not Kind.LEADER_LOST:
            return
        leader = self._world.by_name[verdict.node]
        root = self._world.root
        silent = self._quiet_ns(leader, root, at)
        if silent < self._scenario.lease_ns - EPSILON_NS - ROOT_TICK_NS * len(root.pauses):
            self._violate(at, "accuracy", f"{root.name}: {leader.name} lost after {silent / SECOND:.3f} s of silence")

    def _isolated(self, at: int, root: Host) -> None:
        """The root may call itself cut off only when it can hear none of its leaders."""
        allowed = self._scenario.lease_ns - EPSILON_NS - ROOT_TICK_NS * len(root.pauses)
        for leader in self._world.leaders:
            if self._quiet_ns(leader, root, at) < allowed:
                self._violate(at, "accuracy", f"{root.name}: isolated, and {leader.name} can be heard")

    def _rack_event(self, at: int, verdict: Happened) -> None:
        """A rack is dark only while most of it cannot be heard."""
        if verdict.kind is not Kind.RACK_DARK:
            return
        agents = [agent for agent in self._world.agents if agent.name.startswith(verdict.node + "/")]
        heard = [agent for agent in agents if any(self._hears(route, at) for route in agent.routes_out)]
        if 2 * len(heard) > len(agents):
            text = f"{verdict.node} is dark, and {len(heard)} of its {len(agents)} nodes can be heard"
            self._violate(at, "accuracy", f"{self._world.root.name}: {text}")

    def _hears(self, route: Route, at: int) -> bool:
        """True when the leader hears the agent, and the root the leader, and all of that has been so for a while."""
        agent, leader, root = route.client, route.server, self._world.root
        up = leader.route_to[root.name]
        since = at - 2 * self._scenario.interval_ns - TOLD_NS
        if not (route.open and not route.stuck and route.clear_at < since and route.told == _ALIVE):
            return False
        if not (up.open and not up.stuck and up.clear_at < since and root.core.leaders[leader.name].lease.held):
            return False
        spans = [(agent.pauses, agent.outages, agent.absences), (leader.pauses, leader.outages), (root.pauses,)]
        if any(overlap(span, since, at) for kinds in spans for span in kinds):
            return False
        return max(agent.started_at, leader.started_at, root.started_at) < since

    def _quiet_ns(self, leader: Host, root: Host, at: int) -> int:
        """How long nothing of `leader` has reached `root` until `at`, less the root's own pauses."""
        route = leader.route_to[root.name]
        heard = max(route.newest_sent, root.started_at)
        return at - heard - paused_between(root, heard, at)

    # ---- summaries ---------------------------------------------------------------------------------------

    def summary(self, at: int, host: Host, summary: RackSummary) -> None:
        """A leader tells its whole state."""
        prefix = summary.rack + "/"
        self._waiting[host.name] = summary.stats.outbox
        if summary.stats.outbox > self._scenario.leader.outbox_max:
            self._violate(at, "bounded", f"{host.name}: {summary.stats.outbox} transitions in the outbox")
        for row in summary.nodes:
            incarnation = row.incarnation
            if incarnation is None:
                continue
            route = host.route_to.get(prefix + row.node)
            if route is None:
                continue
            sequence = row.sequence or 0
            seen = route.rows
            if seen is not None and seen[0] == incarnation:
                if sequence < seen[1]:
                    self._violate(at, "monotone", f"{host.name}: {row.node} sequence {seen[1]} fell to {sequence}")
            else:
                past = self._incarnations.setdefault((host.name, row.node), [])
                if incarnation in past:
                    self._violate(at, "monotone", f"{host.name}: {row.node} fell back to an earlier incarnation")
                if seen is not None:
                    past.append(seen[0])
            route.rows = (incarnation, sequence)

    # ---- the root's disk and its hooks -------------------------------------------------------------------

    def committed(self, at: int, host: Host, batch: Batch) -> None:
        """A batch is on the root's disk."""
        for mark in batch.marks:
            key = (mark.leader, mark.epoch)
            if mark.number < self._marks.get(key, 0):
                self._violate(at, "durable", f"mark of {mark.leader} fell from {self._marks[key]} to {mark.number}")
            self._marks[key] = mark.number
        for event in batch.events:
            evidence = event.evidence
            proof = (evidence.text, evidence.incarnation) if evidence is not None else ()
            what = (event.leader, event.node, event.kind.value, event.at_wall_ns, proof)
            # Two receivers may have been sent the same words; and an application may have been stuck and well twice
            # while its leader stood still, of which `health` knows more.
            if what in self._event_keys and event.kind not in (Kind.SUMMARY, Kind.HEALTH_CHANGED):
                self._violate(at, "once", f"{event.kind.value} of {event.node or event.leader} is an event twice")
            self._event_keys[what] = at
            if event.kind is Kind.HEALTH_CHANGED:
                self.health.committed(at, event)
            if event.kind is Kind.NODE_DEAD and not event.late and not event.withheld:
                self._durable_deaths[event.node] = self._durable_deaths.get(event.node, 0) + 1
                self._death_kept_at[event.node] = at
        for run in batch.runs:
            self._runs[run.run_id] = run
        self.notices.committed(at, batch)

    def acknowledged(self, at: int, leader: str, ack: TransitionsAck) -> None:
        """The root tells a leader that it has everything up to a number."""
        kept = self._marks.get((leader, ack.epoch), 0)
        if ack.number > kept:
            self._violate(at, "durable", f"{leader} was told that {ack.number} is on disk, where {kept} is")

    def hook_started(self, at: int, order: RunHook, failed: bool) -> None:
        """A hook process runs."""
        run = self._runs.get(order.run_id)
        disk: Any = self._world.root.disk
        if run is None:
            if not disk.failed_at:
                self._violate(at, "durable", f"hook run {order.run_id} started before it was on disk")
            event_id = order.run_id.rpartition("-")[0]
        else:
            event_id = run.event_id
            if run.state is not RunState.PENDING and not disk.failed_at:
                self._violate(at, "durable", f"hook run {order.run_id} started, and is {run.state.value} on disk")
        if f'"event_id":"{event_id}"'.encode() not in order.input:
            self._violate(at, "once", f"hook run {order.run_id} is told another event id")
        if failed:
            self._failed.setdefault((event_id, order.hook), []).append(at)
        else:
            self._succeeded[event_id, order.hook] = at

    # ---- what the world asks -----------------------------------------------------------------------------

    def spins(self, at: int, host: Host) -> None:
        """A core wants to be woken again and again at the same instant."""
        self._violate(at, "bounded", f"{host.name} turns in place")

    def expect_unknown(self, at: int, leader: Host, since: int, *_: Any) -> None:
        """`leader` has been silent since `since`, longer than its lease: the root must say so, and nothing of it."""
        root = self._world.root
        if not root.runs or not leader_silent(leader, root, since, at) or root.started_at > since:
            return
        if paused_between(root, since, at):
            return
        for rack, leaders in root.core.racks.items():
            if leader.name not in leaders:
                continue
            if any(not leader_silent(self._world.by_name[name], root, since, at) for name in leaders):
                continue
            for record in root.core.rack_nodes[rack]:
                shown = root.core.shown(record)
                if shown.liveness is not Liveness.UNKNOWN:
                    self._violate(at, "lease", f"{record.name} is {shown.liveness.value}; {leader.name} is silent")

    # ---- at the end --------------------------------------------------------------------------------------

    def finish(self, at: int, quiet_since: int) -> None:
        """Judge what was due before `at`; after `quiet_since` no fault was at work."""
        for agent in self._world.agents:
            for begin, end in silent_spans(agent):
                if agent.name not in self._left or begin < self._left[agent.name]:
                    self._complete(at, agent, begin, end)
        self.claims.finish(at)
        self._owed(at)
        self.notices.finish(at)
        if at - quiet_since >= CAUGHT_UP_NS + HOOK_NS // 2:
            self._agreement(at)
            self.health.finish(at)

    def _complete(self, end_at: int, agent: Host, begin: int, end: int) -> None:
        """Stopped at `begin`, until `end`: DEAD in time, and not otherwise before the end."""
        told_by = []
        self.stopped += 1
        for route in agent.routes_out:
            due = self._due_at_leader(route, begin, end)
            if due is None or due > min(end, end_at):
                continue
            state, when = state_at(route.verdicts, due)
            if state != _DEAD:
                self._violate(
                    due,
                    "completeness",
                    f"{route.server.name}: {agent.name} stopped at {begin / SECOND:.3f} s and is {state or 'unheard'}",
                )
                continue
            told_by.append(when)
            if when >= begin:
                self.detected.append(when - begin)
                suspect = next((t for t, word in route.verdicts if t >= begin and word == _SUSPECT), None)
                if suspect is not None:
                    self.suspected.append(suspect - begin)
        if len(told_by) < len(agent.routes_out):
            return
        due = self._due_at_root(agent, begin, max(told_by))
        if due is None or due > min(end, end_at):
            return
        state, when = state_at(self._root_verdicts.get(agent.name, []), due)
        if state != _DEAD:
            self._violate(
                due,
                "completeness",
                f"root: {agent.name} stopped at {begin / SECOND:.3f} s and is {state or 'unheard'}; its leaders know",
            )
        elif when >= begin:
            self.detected_root.append(when - begin)

    def _due_at_leader(self, route: Route, begin: int, end: int) -> int | None:
        """When the leader must have said DEAD; None when it cannot know."""
        scenario, leader = self._scenario, route.server
        known = next((t for t, word in route.verdicts if word == _ALIVE), None)
        if known is None or known > begin:
            return None
        grace = scenario.leader.join_grace_ns + SLACK_NS
        agent, allowed = route.client, scenario.dead_after_ns
        if overlap(agent.pauses, begin, min(end, begin + allowed)):
            # A process that is held still on a living host is borne for longer: it may go on.
            allowed = scenario.leader.dead_after_ns
        due = begin + allowed + SLACK_NS
        if route.excused_at > begin:
            due = max(due, route.excused_at + allowed + SLACK_NS)
        silent, ran, last = self.claims.crowd(route, begin, due + (grace if leader.outages else 0))
        held = self._held_ns(silent, ran)
        due, grace = due + held, grace + held
        if silent >= scenario.leader.gate_min and silent >= scenario.leader.dark_share * ran:
            # Nobody of a dark rack dies alone; those that stay away are judged when the others are back.
            if last == FAR:
                return None
            due = max(due, last + CAUGHT_UP_NS + allowed + scenario.leader.gate_hold_ns)
        lit_at = self.claims.lit_at(route, begin)
        if lit_at == FAR:
            return None
        if lit_at >= 0:
            # Whoever was dark with his rack is asked anew when it is back, and then judged alone.
            due = max(due, lit_at + scenario.leader.gate_hold_ns + scenario.interval_ns + allowed + SLACK_NS)
        since = begin - scenario.interval_ns
        life = max((b for _, b in leader.outages if b <= begin), default=-1)
        if life >= 0 and not any(life <= t <= begin for t in route.first_heard):
            # The life of the leader in which the node stopped had not heard it.
            due, since = max(due, life + grace), life
        spans = [(a, b, True) for a, b in leader.pauses] + [(a, b, False) for a, b in leader.outages]
        for a, b, pause in sorted(spans):
            if a >= due or b <= since:
                continue
            if b == FAR:
                return None
            if pause:
                due += b - a + scenario.fresh_ns
                continue
            if any(a - UNSYNCED_NS <= t < a for t, _ in route.verdicts):
                return None
            # A process that starts while its host stands still begins to listen when that ends.
            due = max(due, b + grace + sum(q - b + scenario.fresh_ns for p, q in leader.pauses if p < b < q))
        return due

    def _held_ns(self, silent: int, ran: int) -> int:
        """How long verdicts of silence may be held, because `silent` of the `ran` nodes of a rack are late together."""
        scenario = self._scenario
        # A neighbour that never reports back is doubted itself, for a moment, at each question that it is to pass on.
        doubts = "neighbour-liar" in scenario.faults
        if doubts or (silent >= scenario.leader.gate_min and silent >= scenario.leader.gate_share * ran):
            # First the gate holds, then the brake.
            return scenario.leader.gate_hold_ns + scenario.dead_after_ns + scenario.interval_ns
        # One more is late for a moment now and then, by no more than jitter: the gate closes, and who is late when it
        # opens gets an interval.
        return scenario.interval_ns if silent == scenario.leader.gate_min - 1 else 0

    def _due_at_root(self, agent: Host, begin: int, told_at: int) -> int | None:
        scenario, root = self._scenario, self._world.root
        due = max(told_at, begin) + TOLD_NS
        for route in agent.routes_out:
            leader = route.server
            up = leader.route_to[root.name]
            spans = [(a, b, False) for a, b in (*root.pauses, *root.outages, *leader.pauses, *up.cut_spans)]
            spans += [(a, b, True) for a, b in leader.outages]
            for a, b, forgets in sorted(spans):
                if a >= due or b <= told_at - CAUGHT_UP_NS:
                    continue
                if b == FAR:
                    return None
                due = max(due, b + CAUGHT_UP_NS + (scenario.leader.join_grace_ns if forgets else 0))
        return due

    def _owed(self, end_at: int) -> None:
        """Each notification that is owed to a hook ran to success, or was given up; those of one node in order."""
        hooks = [hook.name for hook in self._scenario.hooks]
        free_at: dict[tuple[str, str], int] = {}
        owed = [run for run in self._runs.values() if run.hook in hooks and run.state in _OWED]
        for run in sorted(owed, key=lambda run: run.queued):
            if run.state is RunState.DEAD:
                continue
            # A summary waits for all of whom it tells, and they for it.
            queues = [(name, run.hook) for name in (run.node, *run.members)]
            at = max(self.notices.told_at(run.run_id), *(free_at.get(queue, 0) for queue in queues))
            done_at = self._done_at(at, run, end_at)
            free_at.update(dict.fromkeys(queues, done_at))
            if done_at < end_at and (run.event_id, run.hook) not in self._succeeded:
                what = f"{run.kind.value if run.kind is not None else '?'} of {run.subject}"
                self._violate(at, "owed", f"{run.hook} was never told {run.event_id}, {what}")

    def _done_at(self, owed_at: int, run: HookRun, end_at: int) -> int:
        """By when a run that may start at `owed_at` must have ended well; `end_at` when it may still be on its way."""
        root = self._world.root
        key = (run.event_id, run.hook)
        if key in self._succeeded and run.state is RunState.DONE:
            return self._succeeded[key]
        # Of an end that the root did not live to write, it knows nothing: the run is tried as if it had not been.
        failed = self._failed.get(key, [])
        waits = root.config.hook_retries_ns
        tries = min(max(run.attempt, len(failed)), len(waits))
        again = failed[-1] + waits[tries - 1] if failed else 0
        due = max([owed_at, again, root.started_at, *(b for _, b in root.pauses)]) + HOOK_NS
        return min(due, end_at) if root.runs else end_at

    def _agreement(self, at: int) -> None:
        root = self._world.root
        if not root.runs:
            return
        for agent in self._world.agents:
            self._agree(at, agent)
        for node in self._world.absent:
            record = root.core.nodes.get(node)
            if record is not None and root.core.shown(record).liveness is not Liveness.UNKNOWN:
                self._violate(
                    at, "agreement", f"root: {node} was never there and is {root.core.shown(record).liveness}"
                )
        for leader in self._world.leaders:
            if leader.runs and self._waiting.get(leader.name):
                self._violate(
                    at, "bounded", f"{leader.name}: {self._waiting[leader.name]} transitions wait after quiet"
                )
        limit = root.config.hook_queue_max
        if root.core.dispatch.waiting > limit:
            self._violate(at, "bounded", f"root: {root.core.dispatch.waiting} hook runs wait, {limit} may")

    def _agree(self, at: int, agent: Host) -> None:
        root = self._world.root
        record = root.core.nodes.get(agent.name)
        shown = root.core.shown(record).liveness.value if record is not None else _UNKNOWN
        speaking = [route for route in agent.routes_out if route.server.runs]
        truth = self._truth(at, agent)
        for route in speaking:
            member = route.server.core.roster.members[agent.name]
            if self._scenario.loss and member.liveness is Liveness.SUSPECT:
                truth = ""
            if not (route.heard or route.told):
                # It speaks for nobody whom it has not heard or judged in its own life: what is shown is older.
                continue
            if truth and member.liveness.value != truth:
                self._violate(
                    at, "agreement", f"{route.server.name}: {agent.name} is {member.liveness.value}, in truth {truth}"
                )
            heard = member.liveness is Liveness.SUSPECT and member.cause is Cause.LINK_CUT
            if len(agent.routes_out) == 1 and (_ALIVE if heard else member.liveness.value) != shown:
                self._violate(
                    at,
                    "agreement",
                    f"{agent.name} is {shown} at the root and {member.liveness.value} at {route.server.name}",
                )
        if truth and speaking and shown != truth:
            self._violate(at, "agreement", f"root: {agent.name} is {shown}, in truth {truth}")
        if not speaking and shown != _UNKNOWN:
            self._violate(at, "lease", f"root: {agent.name} is {shown}, and all its leaders are down")

    def _truth(self, at: int, agent: Host) -> str:
        """What everybody must have understood by now; "" when there was not enough time."""
        if agent.runs:
            since = max([agent.started_at, *(b for _, b in agent.pauses)])
            return _ALIVE if since + 3 * self._scenario.interval_ns + 2 * SECOND < at else ""
        return ""


def paused_between(host: Host, begin: int, end: int) -> int:
    """Nanoseconds between `begin` and `end` in which the process of `host` was held still."""
    total = 0
    for a, b in reversed(host.pauses):
        if b <= begin:
            break
        total += max(0, min(b, end) - max(a, begin))
    return total


def silent_spans(agent: Host) -> Iterable[tuple[int, int]]:
    """When `agent` sent nothing: from a stop or a pause to the next start or the end of the pause."""
    spans: list[list[int]] = []
    for begin, end in sorted((*agent.outages, *agent.pauses, *agent.absences)):
        if spans and begin <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], end)
        else:
            spans.append([begin, end])
    return [(begin, end) for begin, end in spans]


def state_at(verdicts: list[tuple[int, str]], at: int) -> tuple[str, int]:
    """The newest verdict up to `at`, and when it was reached; "" when there was none."""
    state, when = "", 0
    for moment, word in verdicts:
        if moment > at:
            break
        state, when = word, moment
    return state, when


def leader_silent(leader: Host, root: Host, since: int, at: int) -> bool:
    """True when nothing that `leader` sent after `since` can have reached `root` by `at`."""
    route = leader.route_to[root.name]
    return route.newest_sent <= since and at >= since
