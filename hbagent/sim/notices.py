"""Who was told what: each notification of the root against what really happened, and against what was ordered.

The ledger is read as a bookkeeper would: from the committed rows alone. What burned when is read from the committed
events, what was silenced from the silences that were ordered, and who was down from the truth of the simulation.

    ledger        each durable event has as many rows as it says, in its own transaction; a row goes on from what it
                  was; whatever was not sent has a reason, and the reason was so
    pairs         the end of a trouble follows each beginning that was told, also under a silence, and no end is told
                  without one; each Alertmanager ends up with what burns and nothing else
    covered       nobody is told of what a silence, a maintenance or the trouble of a whole rack covers
    told          what burns for long enough, and nothing excuses it, is told; what was covered, when that ends
    held          nothing waits for ever
    at-once       a proved death in a quiet time waits for nothing
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from hbagent.core.effects import PostAlerts
from hbagent.core.records import Batch, Event, HookRun, RunState, Silence
from hbagent.core.states import Axis, Cause, Health, IncidentState, Kind, Reason
from hbagent.core.units import SECOND

from .causes import overlap
from .host import FAR
from .pagers import Pagers

if TYPE_CHECKING:
    from .scenario import Scenario
    from .world import World

Violate = Callable[[int, str, str], None]
Span = tuple[int, int]
Key = tuple[str, Axis]

#: From an order, or the end of something, until the root's disk says so: two syncs of a slow disk.
COMMIT_NS = 3 * SECOND
#: After a start, a pause or a cut: leaders are heard again, settle, and are asked again.
RETURN_NS = 10 * SECOND
#: What burns is told within this, beside the receiver's hold: the doubt about others of its rack, and the brake.
NOTICE_NS = 15 * SECOND
#: Hooks that were sent fewer in the brake's window than its least limit are not braked.
QUIET_MAX = 3
WINDOW_NS = 10 * SECOND

_BURNS = {
    Kind.NODE_SUSPECT: Axis.LIVENESS,
    Kind.NODE_DEAD: Axis.LIVENESS,
    Kind.NODE_AWAY: Axis.LIVENESS,
    Kind.RACK_DARK: Axis.RACK,
    Kind.LEADER_LOST: Axis.LEADER,
    Kind.ROOT_ISOLATED: Axis.ROOT,
}
_ENDS = {
    Kind.NODE_RECOVERED: Axis.LIVENESS,
    Kind.NODE_RESTARTED: Axis.LIVENESS,
    Kind.NODE_LEFT: Axis.LIVENESS,
    Kind.RACK_RECOVERED: Axis.RACK,
    Kind.LEADER_RECOVERED: Axis.LEADER,
}
_PARENTS = (Axis.RACK, Axis.LEADER, Axis.ROOT)
#: What a row may become.
_NEXT = {
    RunState.HELD: tuple(RunState),
    RunState.PENDING: (RunState.PENDING, RunState.DONE, RunState.DEAD),
    RunState.DONE: (RunState.DONE,),
    RunState.DEAD: (RunState.DEAD, RunState.PENDING),
    RunState.SUPPRESSED: (RunState.SUPPRESSED,),
}
_FOLDED = (Reason.BRAKE, Reason.GROUPED)
_PUT_ASIDE = (Reason.SILENCE, Reason.MAINTENANCE, Reason.INHIBITED, Reason.FLAPPING, Reason.ACKNOWLEDGED)
#: Reasons to wait, and none not to be told.
_ONLY_WAITS = (Reason.GRACE, Reason.DOUBT)


class _Fire:
    """One time that a trouble burned, by the committed events."""

    __slots__ = ("begun", "end_at", "end_sequence", "events")

    def __init__(self) -> None:
        #: (when it was committed, the event) of each that said so.
        self.events: list[tuple[int, Event]] = []
        self.end_at = FAR
        self.end_sequence = 0


class Notices:
    """Watches one run."""

    def __init__(self, scenario: Scenario, world: World, violate: Violate) -> None:
        self._scenario = scenario
        self._world = world
        self._violate = violate
        self.pagers = Pagers(world)
        self._events: dict[str, Event] = {}
        self._fires: dict[Key, list[_Fire]] = {}
        self._rows: dict[str, HookRun] = {}
        self._rows_of: dict[str, dict[str, None]] = {}
        #: When a row was first told, by itself or by a summary; and since when it waits.
        self._told_at: dict[str, int] = {}
        self._held_since: dict[str, int] = {}
        #: When each receiver was sent something.
        self._sent: dict[str, list[int]] = {}
        #: Newest state of each silence, when it was committed first, and when its end was.
        self._silences: dict[str, tuple[Silence, int, int]] = {}
        #: Incidents that were acknowledged, and since when.
        self._acked: dict[str, int] = {}
        #: Spans in which a subject flapped.
        self._flaps: dict[str, list[list[int]]] = {}

    # ---- what is committed -------------------------------------------------------------------------------

    def committed(self, at: int, batch: Batch) -> None:
        """A batch is on the root's disk."""
        for event in batch.events:
            self._event(at, event)
        for silence in batch.silences:
            known = self._silences.get(silence.silence_id)
            since = known[1] if known is not None else at
            self._silences[silence.silence_id] = (silence, since, at if silence.ended_by else FAR)
        for incident in batch.incidents:
            # On a slow disk it may be over by the time that this is written.
            if incident.state is IncidentState.ACKNOWLEDGED or incident.acked_wall_ns:
                self._acked.setdefault(incident.incident_id, at)
        for run in batch.runs:
            self._row(at, run)
        for event_id in dict.fromkeys((*(e.event_id for e in batch.events), *_events_of(batch.runs))):
            told, rows = self._events.get(event_id), len(self._rows_of.get(event_id, ()))
            if told is None:
                self._violate(at, "ledger", f"a row of {event_id} is durable, and that event is not")
            elif told.notices != rows:
                self._violate(at, "ledger", f"{event_id} ({told.kind.value}) has {told.notices} notices, {rows} rows")

    def _event(self, at: int, event: Event) -> None:
        self._events[event.event_id] = event
        if event.kind in (Kind.NODE_FLAPPING, Kind.NODE_STEADY):
            spans = self._flaps.setdefault(_subject(event), [])
            if event.kind is Kind.NODE_FLAPPING:
                spans.append([at, FAR])
            elif spans:
                spans[-1][1] = at
            return
        burns, axis = _phase(event)
        if axis is None or event.late or (event.withheld and burns):
            return
        fires = self._fires.setdefault((_subject(event), axis), [])
        if burns:
            if not fires or fires[-1].end_sequence:
                fires.append(_Fire())
            fires[-1].events.append((at, event))
        elif fires and not fires[-1].end_sequence:
            fires[-1].end_at, fires[-1].end_sequence = at, event.sequence

    def _row(self, at: int, run: HookRun) -> None:
        before = self._rows.get(run.run_id)
        name = f"{run.hook}: {run.kind.value if run.kind is not None else '?'} of {run.subject} ({run.event_id})"
        if before is not None:
            allowed = _NEXT[before.state]
            if before.state is RunState.SUPPRESSED and before.reason in _PUT_ASIDE:
                allowed = tuple(RunState)
            if run.state not in allowed:
                self._violate(at, "ledger", f"{name} was {before.state.value} and is {run.state.value}")
        self._rows[run.run_id] = run
        self._rows_of.setdefault(run.event_id, {})[run.run_id] = None
        if run.state is RunState.HELD:
            self._held_since.setdefault(run.run_id, at)
        else:
            self._held_since.pop(run.run_id, None)
        if run.state in (RunState.HELD, RunState.SUPPRESSED) and run.reason is None:
            self._violate(at, "ledger", f"{name} is {run.state.value} without a reason")
        if run.state is RunState.SUPPRESSED and not (before is not None and before.state is run.state):
            wrong = self._why_wrong(at, run)
            if wrong:
                self._violate(at, "ledger", f"{name} is not sent ({run.reason and run.reason.value}), and {wrong}")
        if self._is_told(run) and run.run_id not in self._told_at:
            self._told_at[run.run_id] = at
            if run.reason not in _FOLDED or run.state is not RunState.SUPPRESSED:
                self._sent.setdefault(run.hook, []).append(at)
            self._told(at, run, name)
        if before is None and run.state is RunState.HELD:
            self._at_once(at, run, name)

    @staticmethod
    def _is_told(run: HookRun) -> bool:
        folded = run.state is RunState.SUPPRESSED and run.reason in _FOLDED
        return folded or run.state in (RunState.PENDING, RunState.DONE, RunState.DEAD)

    # ---- reasons -----------------------------------------------------------------------------------------

    def _why_wrong(self, at: int, run: HookRun) -> str:
        """Why the reason of a notification that was not sent is none; "" when it is one."""
        event, reason = self._events.get(run.event_id), run.reason
        other = self._events.get(run.ref)
        if event is None or reason is None:
            return "it has no event"
        if reason in _ONLY_WAITS:
            return "that is only a reason to wait"
        if reason is Reason.LATE:
            return "" if event.late else "it is not late"
        if reason in (Reason.RACK_DARK, Reason.REFINED):
            return "" if event.withheld else "it is more than history"
        if reason in (Reason.SILENCE, Reason.MAINTENANCE):
            kept = self._silences.get(run.ref)
            if kept is None or kept[0].maintenance is not (reason is Reason.MAINTENANCE):
                return f"there is no {reason.value} {run.ref!r}"
            # By a clock that was set, a silence lasts as long as was asked for, and nobody outside can say when.
            covers = self._world.root.stepped or self._covers(kept, run, at - COMMIT_NS, at)
            return "" if covers else f"{run.ref} does not cover it"
        if reason is Reason.INHIBITED:
            return "" if self._inhibited(run, at - COMMIT_NS, at) else "no rack, leader or root explains it"
        if reason is Reason.FLAPPING:
            flaps = other is not None and other.kind is Kind.NODE_FLAPPING and _subject(other) == run.subject
            return "" if flaps else "nobody was told that it flaps"
        if reason in _FOLDED:
            summary = self._rows.get(f"{run.ref}-{run.hook}")
            named = other is not None and other.kind is Kind.SUMMARY and run.subject in other.members
            return "" if named or (other is not None and summary is not None) else "no summary stands for it"
        if reason is Reason.SUPERSEDED:
            newer = other is not None and _subject(other) == run.subject and other.sequence > event.sequence
            return "" if newer else "nothing newer took its place"
        if reason in (Reason.RECOVERED, Reason.HOLD):
            fires = self._fires.get((run.subject, run.axis or Axis.LIVENESS), [])
            return "" if any(fire.end_sequence > event.sequence for fire in fires) else "it is not over"
        if reason is Reason.ACKNOWLEDGED:
            return "" if self._acked.get(run.ref, FAR) <= at else "nobody acknowledged it"
        return ""

    def _covers(self, kept: tuple[Silence, int, int], run: HookRun, since: int, until: int) -> bool:
        """True when a silence that is in force at some instant from `since` to `until` covers a notification."""
        silence, committed_at, ended_at = kept
        if committed_at > until or ended_at < since:
            return False
        wall = self._world.root.wall
        in_force = silence.begins_wall_ns <= wall(until) and wall(since) < silence.ends_wall_ns
        return in_force and self._fits(silence, run)

    @staticmethod
    def _fits(silence: Silence, run: HookRun) -> bool:
        """True when a silence is about what a notification tells, whenever it is in force."""
        node = run.subject if run.axis in (Axis.LIVENESS, Axis.HEALTH) else ""
        words = (
            (silence.matcher.node, node),
            (silence.matcher.rack, run.rack),
            (silence.matcher.cause, run.cause.value if run.cause is not None else ""),
            (silence.matcher.kind, run.kind.value if run.kind is not None else ""),
        )
        return all(not globs or any(fnmatch.fnmatchcase(word, glob) for glob in globs) for globs, word in words)

    def _burned(self, key: Key, since: int, until: int) -> bool:
        return any(fire.events[0][0] <= until and fire.end_at >= since for fire in self._fires.get(key, ()))

    def _inhibited(self, run: HookRun, since: int, until: int) -> bool:
        """True when a trouble of its rack, of all its leaders or of the root burned at some instant."""
        if run.axis is not Axis.ROOT and self._burned(("root", Axis.ROOT), since, until):
            return True
        if run.axis in _PARENTS:
            return False
        leaders = [leader.name for leader in self._world.leaders if _rack_of(leader.name) == run.rack]
        lost = [self._burned((leader, Axis.LEADER), since, until) for leader in leaders]
        return self._burned((run.rack, Axis.RACK), since, until) or (bool(lost) and all(lost))

    # ---- what is told ------------------------------------------------------------------------------------

    def _told(self, at: int, run: HookRun, name: str) -> None:
        """A notification is owed from now on: nothing may have covered it all the time until then."""
        if run.end or run.kind not in (*_BURNS, Kind.HEALTH_CHANGED):
            return
        instant = at - COMMIT_NS
        for silence_id, kept in self._silences.items():
            whole = kept[1] <= instant and kept[2] == FAR and not self._world.root.stepped
            if whole and self._covers(kept, run, instant, instant) and self._covers(kept, run, at, at):
                self._violate(at, "covered", f"{name} is told, and {silence_id} covers it")
        dark = self._fires.get((run.rack, Axis.RACK), [])
        if run.axis in (Axis.LIVENESS, Axis.HEALTH) and any(
            fire.events[0][0] <= instant and fire.end_at == FAR for fire in dark
        ):
            self._violate(at, "covered", f"{name} is told, and {run.rack} is dark")

    def _at_once(self, at: int, run: HookRun, name: str) -> None:
        """A proved death that nothing excuses may not wait."""
        receiver = self._world.root.config.hooks
        hook = next((hook for hook in receiver if hook.name == run.hook), None)
        sent = sum(when > at - WINDOW_NS - COMMIT_NS for when in self._sent.get(run.hook, ()))
        waiting = sum(other.hook == run.hook for other in map(self._rows.__getitem__, self._held_since))
        if hook is None or hook.hold_ns or run.end or run.cause is not Cause.PROCESS_EXIT or run.kind not in _BURNS:
            return
        if sent + waiting > QUIET_MAX or self._inhibited(run, at - RETURN_NS, at) or run.subject in self._flaps:
            return
        if self._root_away(at - RETURN_NS, at):
            return
        self._violate(at, "at-once", f"{name} is a proved death and waits ({run.reason and run.reason.value})")

    # ---- at the end --------------------------------------------------------------------------------------

    def finish(self, at: int) -> None:
        """Judge what was due before `at`."""
        rows: dict[tuple[str, Key], list[HookRun]] = {}
        for run in self._rows.values():
            if run.axis is not None:
                rows.setdefault((run.hook, (run.subject, run.axis)), []).append(run)
        for (hook, key), mine in rows.items():
            self._pairs(at, hook, key, sorted(mine, key=lambda run: run.queued))
        for hook in (*self._world.root.config.hooks, *self._world.root.config.sinks):
            for key, fires in self._fires.items():
                for fire in fires:
                    self._told_in_time(at, hook.name, hook.on, hook.hold_ns, key, fire)
        self._nothing_waits(at)
        self._members(at)

    def _pairs(self, at: int, hook: str, key: Key, rows: list[HookRun]) -> None:
        fired: HookRun | None = None
        for run in rows:
            name = f"{hook}: {run.kind.value if run.kind is not None else '?'} of {key[0]} ({run.event_id})"
            known = any(fire.end_sequence == run.queued for fire in self._fires.get(key, ()))
            if not run.end:
                if run.kind in (*_BURNS, Kind.HEALTH_CHANGED) and self._is_told(run):
                    fired = run
            elif self._is_told(run):
                if fired is None and known:
                    self._violate(at, "pairs", f"{name} is an end, and its beginning was not told")
                fired = None
            elif fired is not None and known and run.state is RunState.SUPPRESSED:
                if run.reason is Reason.SUPERSEDED:
                    # It burned again before he was told that it was over: he still knows that it burns.
                    continue
                if run.reason is not Reason.FLAPPING:
                    reason = run.reason.value if run.reason is not None else ""
                    self._violate(at, "pairs", f"{name} is not told ({reason}), and its beginning was")
                fired = None
            elif run.state is RunState.HELD:
                # How long it waits is another row.
                fired = None
        if fired is None:
            return
        # What burns again by now he knows to burn.
        newest = self._fires[key][-1] if self._fires.get(key) else None
        if newest is not None and newest.end_sequence > fired.queued and newest.end_at < at - COMMIT_NS:
            self._violate(at, "pairs", f"{hook}: that {key[0]} is well again ({key[1].value}) is no notification")

    def _told_in_time(self, at: int, hook: str, on: tuple[Kind, ...], hold_ns: int, key: Key, fire: _Fire) -> None:
        """Every stretch in which a trouble burned and nothing excused it is short, until it was told."""
        wanted = [(when, event) for when, event in fire.events if event.kind in on]
        if not wanted:
            return
        rows = [self._rows.get(f"{event.event_id}-{hook}") for _, event in wanted]
        told = [self._told_at[run.run_id] for run in rows if run is not None and run.run_id in self._told_at]
        begin, end = wanted[0][0], min(fire.end_at, at, *told)
        for a, b in sorted(self._excuses(hook, key, [run for run in rows if run is not None], fire)):
            if a - begin > NOTICE_NS + hold_ns:
                break
            begin = max(begin, b)
        if end - begin > NOTICE_NS + hold_ns:
            text = f"{hook} was not told of {key[0]} ({wanted[-1][1].kind.value}), which burned"
            self._violate(begin, "told", f"{text} {(end - begin) / SECOND:.1f} s from then on, and nothing excuses it")

    def _excuses(self, hook: str, key: Key, rows: list[HookRun], fire: _Fire) -> Iterable[Span]:
        world, root = self._world, self._world.root
        for a, b in (*root.outages, *root.pauses, *root.absences):
            yield a, b + RETURN_NS
        disk = root.disk
        assert disk is not None
        for a, b in disk.troubled:
            yield a, b + RETURN_NS
        rack = fire.events[0][1].rack
        leaders = [leader for leader in world.leaders if _rack_of(leader.name) == rack]
        for leader in leaders:
            up = leader.route_to[root.name]
            for a, b in (*leader.outages, *leader.pauses, *leader.absences, *up.cut_spans):
                others = [(*one.outages, *one.pauses, *one.absences) for one in leaders if one is not leader]
                alone = all(overlap(spans, a, b) for spans in others)
                yield (a if alone else b), b + RETURN_NS
        parents: list[Key] = [(rack, Axis.RACK), ("root", Axis.ROOT), *((one.name, Axis.LEADER) for one in leaders)]
        for parent in parents:
            for other in self._fires.get(parent, ()) if parent != key else ():
                yield other.events[0][0] - COMMIT_NS, other.end_at + RETURN_NS
        for a, b in self._flaps.get(key[0], ()):
            yield a - COMMIT_NS, b + COMMIT_NS
        for run in rows:
            for kept in self._silences.values():
                silence, since, ended_at = kept
                ends = silence.ends_wall_ns - root.wall_offset_ns
                # By a clock that was set, nobody outside can say when it is in force.
                covers = root.stepped and self._fits(silence, run)
                if root.stepped:
                    ended_at = FAR
                elif ends < ended_at:
                    ended_at = ends
                if covers or self._covers((silence, since, FAR), run, since, since):
                    yield since - COMMIT_NS, ended_at + COMMIT_NS
            if run.incident in self._acked:
                yield self._acked[run.incident] - COMMIT_NS, FAR

    def _root_away(self, since: int, until: int) -> bool:
        root = self._world.root
        assert root.disk is not None
        spans = (*root.outages, *root.pauses, *root.absences, *root.disk.troubled)
        return overlap(spans, since, until) or root.started_at > since

    def _nothing_waits(self, at: int) -> None:
        for run_id, since in self._held_since.items():
            run = self._rows[run_id]
            receivers = (*self._world.root.config.hooks, *self._world.root.config.sinks)
            hold_ns = max((one.hold_ns for one in receivers if one.name == run.hook), default=0)
            due = max(since, at - NOTICE_NS - hold_ns - RETURN_NS)
            if due > since and not self._root_away(due, at):
                reason = run.reason.value if run.reason is not None else ""
                self._violate(
                    at, "held", f"{run_id} of {run.subject} has waited since {since / SECOND:.3f} s ({reason})"
                )

    def _members(self, at: int) -> None:
        """Each Alertmanager has what its sink was told, when there was time to bring it there."""
        if self._root_away(at - RETURN_NS, at) or self._world.root.stepped:
            return
        for sink in self._world.root.config.sinks:
            told: dict[Key, HookRun] = {}
            for run in sorted(self._rows.values(), key=lambda run: run.queued):
                if run.hook == sink.name and run.axis is not None and run.state is RunState.DONE:
                    told[run.subject, run.axis] = run
            # Of what flaps, that it does is all that is posted.
            flapping = {subject for subject, spans in self._flaps.items() if spans[-1][1] > at - RETURN_NS}
            told = {key: run for key, run in told.items() if key[0] not in flapping}
            burning = {key: run for key, run in told.items() if not run.end}
            recent = {key for key, run in told.items() if self._told_at[run.run_id] > at - RETURN_NS}
            for url in sink.urls:
                active = self.pagers.active(url, at)
                for key in burning.keys() - recent - active:
                    self._violate(at, "pairs", f"{url} does not know that {key[0]} ({key[1].value}) burns")
                for key in active - burning.keys() - recent:
                    if key[0] in flapping:
                        continue
                    self._violate(at, "pairs", f"{url} holds that {key[0]} ({key[1].value}) burns, which is over")

    def told_at(self, run_id: str) -> int:
        """When a notification was first owed, or told."""
        return self._told_at[run_id]

    def rows(self) -> list[HookRun]:
        """All notifications as they now stand."""
        return list(self._rows.values())

    def posted(self, at: int, order: PostAlerts) -> str:
        """A post reaches a member of a sink; why it was not taken, or ""."""
        return self.pagers.take(at, order)


def _events_of(runs: Iterable[HookRun]) -> Iterable[str]:
    return (run.event_id for run in runs)


def _rack_of(leader: str) -> str:
    return leader.rpartition("-leader")[0]


def _subject(event: Event) -> str:
    if event.kind in (Kind.RACK_DARK, Kind.RACK_RECOVERED):
        return event.rack
    return event.node or event.leader or "root"


def _phase(event: Event) -> tuple[bool, Axis | None]:
    """Whether an event begins something, or else ends it, and on which axis; None: neither."""
    if event.kind is Kind.HEALTH_CHANGED:
        return event.health_to is not Health.OK, Axis.HEALTH
    if event.kind in _BURNS:
        return True, _BURNS[event.kind]
    axis = _ENDS.get(event.kind)
    return False, Axis.ROOT if axis is Axis.LEADER and not event.leader else axis
