"""Who is told of what, when, and why not: each event meets each receiver, and exactly one thing comes of it.

A receiver is a hook or a sink. A *notification* is one event for one receiver that asks for its kind, and one row of
the store (`records.HookRun`): owed, waiting with a reason, or not sent with a reason. The rows of an event are written
in the transaction of the event, so that for each event the number of its rows is `Event.notices`, whenever the root
dies. That is the ledger behind `hbagent why-silent`.

What burns is a *trouble*: one subject on one axis, from its first event to its end. For each receiver it knows whether
he was told (`records.Told`). The rest follows from three rules:

- A notification goes through one chain of questions (`core.objections`); the first that objects gives the reason. An
  objection with an end in sight makes it wait (HELD); then it goes through the chain again. What a silence, a parent
  or flapping objects to is put aside, and looked at again when that ends: what still burns is told at once.
- The end of a trouble goes to whoever was told that it burns, whatever objects; to nobody else.
- Many at once become one `summary`: those of a rack that waited together, and those that the brake held back. Who was
  told by a summary is told of the ends by a summary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from .brake import Brake
from .chronicle import Chronicle
from .config import RootConfig, SinkConfig
from .dispatch import revived
from .effects import Effect
from .flapping import Flapping
from .incidents import Incidents
from .ledger import Ledger
from .letters import Letters
from .messages import Evidence
from .notice import (
    AXES,
    BEGINNINGS,
    ROOT,
    Asked,
    Observers,
    Phase,
    Receiver,
    asks,
    axis_of,
    bad_parts_in,
    changes_of,
    document,
    is_news,
    of_drill,
    parts_before,
    parts_of,
    phase_of,
    severity,
    subject_of,
    with_observers,
    worsened,
)
from .objections import Key, Objection, Objections
from .records import Event, HookRun, Restored, RunState, Told, Trouble
from .sinks import Sinks
from .states import NODE_AXES, RELEASED, Axis, Cause, Health, Kind, Liveness, Reason
from .summary import summary_of, topic_of
from .units import SECOND, show_duration
from .waiting import Waiting, WaitingRoom
from .wallclock import WallClock

#: Silences are looked at this often, and at each boundary of one: the wall clock may be set meanwhile.
SILENCES_NS = SECOND
#: How the trouble of somebody ends whom nobody expects any more.
_RETIREMENTS = {
    Axis.LIVENESS: Kind.NODE_LEFT,
    Axis.HEALTH: Kind.HEALTH_CHANGED,
    Axis.DRILL: Kind.HEALTH_CHANGED,
    Axis.RACK: Kind.RACK_RECOVERED,
    Axis.LEADER: Kind.LEADER_RECOVERED,
}
#: Waits that end with one summary for all that wait so.
_FOLDS = (Reason.BRAKE, Reason.GROUPED)


class Alerts:
    """Decides about every event; writes what it decides into the ledger."""

    def __init__(
        self,
        config: RootConfig,
        ledger: Ledger,
        chronicle: Chronicle,
        wall: WallClock,
        life: int,
        now: int,
        restored: Restored,
        observers: Callable[[str], Observers] = lambda node: (),
    ) -> None:
        self._ledger = ledger
        self._chronicle = chronicle
        self._wall = wall
        self._life = life
        #: What each leader that speaks for a node says of it now.
        self._observers = observers
        self.incidents = Incidents(ledger, restored.incidents)
        #: Troubles that are not over, and those that flap.
        self.troubles: dict[Key, Trouble] = {trouble_key(trouble): trouble for trouble in restored.troubles}
        self.incidents.restore(self.troubles.values())
        self._room = WaitingRoom()
        self.objections = Objections(config, restored, self.troubles, self.incidents, self._room, wall)
        self._flapping = Flapping(config.flap)
        self._brake = Brake(config.brake)
        self.sinks = Sinks(config.sinks, life)
        #: What was given up, and may be told again.
        self.letters = Letters()
        #: Notifications that were put aside, and may be told when their reason ends.
        self._aside: dict[str, HookRun] = {}
        #: How many troubles that are not over were told by each summary.
        self._by_summary: dict[str, int] = {}
        self._silences_at: int | None = now
        self._watchdog_at = now + config.watchdog_ns
        #: Receivers of the newest news.
        self._informed: list[str] = []
        #: Notifications that were not sent, by reason; for the metrics.
        self.unsent: dict[str, int] = {}
        self.use(config)
        self._restore(restored, now)

    def use(self, config: RootConfig) -> None:
        """Another config: other receivers, other limits. What they were told stays."""
        self._config = config
        self.receivers: dict[str, Receiver] = {hook.name: hook for hook in config.hooks}
        self.receivers.update((sink.name, sink) for sink in config.sinks)
        self.objections.use(config)
        self._flapping.use(config.flap)
        self._brake.use(config.brake)
        self.sinks.use(config.sinks)

    def _restore(self, restored: Restored, now: int) -> None:
        for trouble in self.troubles.values():
            if trouble.flapping:
                for part in trouble.flap_parts or ("",):
                    self._flapping.resume(trouble.subject, trouble.axis, now, part=part)
                for sink in self._config.sinks:
                    if sink.name in trouble.flap_told:
                        self.sinks.flap(
                            sink.name, trouble.subject, trouble.axis, trouble.rack, trouble.flapping, trouble.at_wall_ns
                        )
            for name, told in trouble.told.items():
                if told.via:
                    self._by_summary[told.via] = self._by_summary.get(told.via, 0) + 1
                if told.sent and isinstance(self.receivers.get(name), SinkConfig):
                    self.sinks.take_over(name, trouble)
        if self.troubles:
            self.objections.await_leaders(now)
        for run in restored.runs:
            if run.state is RunState.HELD:
                waiting = Waiting(run, now)
                waiting.restored = True
                # What waits to be told together goes on waiting for the others.
                until = now + self._config.brake.window_ns if run.reason in _FOLDS else now
                self._wait(waiting, Objection(run.reason or Reason.GRACE, run.ref, until))
            elif run.state is RunState.SUPPRESSED and run.reason in RELEASED:
                self._aside[run.run_id] = run
            elif run.state is RunState.DEAD and self.holds(run):
                self.letters.given_up(run, now)
        for state in restored.nodes:
            self._adopt(state.node, state.rack, state.open, state.cause, now)

    def _adopt(self, subject: str, rack: str, kinds: str, cause: Cause | None, now: int) -> None:
        """A trouble from before troubles were kept: its receivers were told of it if they ask for one of its kinds."""
        told_as = [Kind(kind) for kind in kinds.split(",") if kind]
        if not told_as:
            return
        axis = AXES.get(told_as[-1], Axis.LIVENESS)
        key = (ROOT if axis is Axis.ROOT else subject, axis)
        if key not in self.troubles:
            level = severity(told_as[-1], None)
            told = {
                name: Told(sent=True, level=level)
                for name, to in self.receivers.items()
                if set(told_as).intersection(to.on)
            }
            self.troubles[key] = Trouble(
                subject=key[0], axis=axis, rack=rack, incident="", kind=told_as[-1], cause=cause, told=told
            )

    # ---- what happens ------------------------------------------------------------------------------------

    def tell(self, event: Event, now: int) -> Event:
        """Write an event and decide whom to tell of it; returns the event as it was written."""
        key, phase = (subject_of(event), axis_of(event)), phase_of(event)
        counts = not event.late and not (event.withheld and phase is Phase.BURNS)
        trouble = self.troubles.get(key)
        known = self.incidents.acknowledged()
        if phase is Phase.BURNS and counts:
            trouble = self._burn(key, trouble, event, now)
        elif phase is Phase.BURNS and trouble is not None and not event.late:
            trouble = self._keep(msgspec.structs.replace(trouble, cause=event.cause))
            for name, so_far in trouble.told.items():
                if so_far.sent and isinstance(self.receivers.get(name), SinkConfig):
                    # To a sink another cause is another alert.
                    self.sinks.fire(name, trouble, event, event.at_wall_ns)
            # What was silenced for the old cause may burn aloud for this one.
            self._look_again(now)
        if event.kind is Kind.NODE_UNKNOWN:
            self.objections.trust(event.rack, event.node)
        told = trouble.told if trouble is not None else {}
        asked = {
            name: asks(receiver, event, name in told and told[name].sent, trouble is not None)
            for name, receiver in self.receivers.items()
        }
        if event.kind is Kind.NODE_STEADY and trouble is not None:
            for name, answer in asked.items():
                if answer is Asked.YES and name not in trouble.flap_told:
                    asked[name] = Asked.NEVER_TOLD
        asking = [name for name, answer in asked.items() if answer is not Asked.NO]
        self._informed.clear()
        incident = trouble.incident if trouble is not None else ""
        event = msgspec.structs.replace(event, notices=len(asking), incident=incident)
        self._ledger.event(event)
        body = document(event) if asking else b""
        if phase is Phase.ENDS and trouble is not None and not event.late:
            self._cancel(trouble)
        for name in asking:
            run = HookRun(
                run_id=f"{event.event_id}-{name}",
                event_id=event.event_id,
                hook=name,
                node=key[0],
                due_wall_ns=event.at_wall_ns,
                input=body,
                queued=event.sequence,
                subject=key[0],
                axis=key[1],
                kind=event.kind,
                cause=event.cause,
                rack=event.rack,
                incident=incident,
                at_wall_ns=event.at_wall_ns,
                end=phase is Phase.ENDS,
            )
            sent = name in told and told[name].sent
            if asked[name] is Asked.NEVER_TOLD:
                self._withhold(run, Reason(event.withheld) if event.withheld else Reason.NEVER_TOLD)
            elif event.late:
                self._withhold(run, Reason.LATE)
            elif event.withheld and not (sent and phase is Phase.ENDS):
                self._withhold(run, Reason(event.withheld))
            elif phase is Phase.BURNS:
                self._fire(run, event, now)
            elif sent and phase is Phase.ENDS and trouble is not None:
                self._resolve(run, trouble, now)
            else:
                self._inform(run, now)
        if phase is Phase.ENDS and trouble is not None and not event.late:
            self._over(trouble, event, now)
        if self.incidents.acknowledged() != known:
            # Somebody knew of all of it, and there is more now.
            self._look_again(now)
        return event

    def refine(self, subject: str, axis: Axis, cause: Cause | None, now: int) -> None:
        """More is known of why something burns, and that alone is no event."""
        trouble = self.objections.burning((subject, axis))
        if trouble is None or trouble.cause is cause:
            return
        trouble = self._keep(msgspec.structs.replace(trouble, cause=cause))
        for name, told in trouble.told.items():
            if told.sent and isinstance(self.receivers.get(name), SinkConfig):
                self.sinks.take_over(name, trouble)
        self._look_again(now)

    def _burn(self, key: Key, before: Trouble | None, event: Event, now: int) -> Trouble:
        """A trouble begins, or is another one now."""
        begins = before is None or before.over
        # An older release kept no parts.
        known = (before.parts or parts_before(event)) if before is not None and not before.over else {}
        parts = parts_of(known, event)
        flapping = before.flapping if before is not None else ""
        flap_told = before.flap_told if before is not None else ()
        flap_parts = before.flap_parts if before is not None else ()
        for part in self._weighed(key[1], event, begins):
            if self._flapping.trouble(*key, now, part):
                flapping = self._say_flapping(event, part, now)
                flap_told = tuple(dict.fromkeys((*flap_told, *self._informed)))
                flap_parts = (*flap_parts, part)
        text = event.evidence.text if event.evidence is not None else ""
        trouble = Trouble(
            subject=key[0],
            axis=key[1],
            rack=event.rack,
            incident=before.incident if before is not None and not before.over else "",
            kind=event.kind,
            cause=event.cause,
            health=event.health_to,
            event_id=event.event_id,
            since_wall_ns=event.at_wall_ns if before is None or before.over else before.since_wall_ns,
            at_wall_ns=event.at_wall_ns,
            text=text,
            drill=of_drill(event),
            flapping=flapping,
            flap_told=flap_told,
            parts=parts,
            flap_parts=flap_parts,
            told=before.told if before is not None else {},
        )
        if event.kind is Kind.NODE_SUSPECT:
            self.objections.suspect(event.rack, event.node)
        else:
            self._trust(event.rack, key)
            if not trouble.incident:
                name = self.incidents.join(trouble, topic_of(event), event.sequence, text)
                trouble = msgspec.structs.replace(trouble, incident=name)
            elif before is not None and is_news(trouble, Told(level=_level(before), parts=known)):
                self.incidents.worse(trouble.incident, text)
        return self._keep(trouble)

    @staticmethod
    def _weighed(axis: Axis, event: Event, begins: bool) -> Iterable[str]:
        """The parts whose trouble counts towards flapping; that of a whole subject is "".

        A part that goes to and fro between two bad states is as tiresome as one that heals in between.
        """
        if axis is Axis.DRILL:
            return ()
        if axis is Axis.HEALTH and changes_of(event):
            return worsened(event)
        return ("",) if begins else ()

    def _say_flapping(self, event: Event, part: str, now: int) -> str:
        half_life = show_duration(self._config.flap.half_life_ns)
        what = part or f"its {axis_of(event).value}"
        text = f"{what} changes too often (half-life {half_life}): each change is told no more until it stays"
        said = self.tell(self._about(event, Kind.NODE_FLAPPING, text), now)
        return said.event_id

    def _about(self, event: Event, kind: Kind, text: str) -> Event:
        return self._chronicle.make(
            kind,
            event.at_wall_ns,
            node=event.node,
            rack=event.rack,
            leader=event.leader,
            liveness_to=event.liveness_to,
            health_to=event.health_to,
            cause=event.cause,
            evidence=Evidence(text=text),
            axis=axis_of(event),
        )

    # ---- one notification --------------------------------------------------------------------------------

    def _fire(self, run: HookRun, event: Event, now: int) -> None:
        """Tell one receiver that something burns, unless something objects."""
        trouble = self.troubles[run.subject, run.axis or Axis.LIVENESS]
        told = trouble.told.get(run.hook, Told())
        over = self._room.take_end(run.hook, run.subject, run.axis)
        if over is not None:
            # It burns again before he was told that it was over: he never will be, and knows that it burns.
            self._withhold(over.run, Reason.SUPERSEDED, event.event_id)
            told = Told(sent=True, run_id=told.run_id)
            trouble = self._keep(msgspec.structs.replace(trouble, told={**trouble.told, run.hook: told}))
        began, doubted = now, False
        older = self._room.take(told.run_id)
        if older is not None:
            began, doubted = older.began, older.doubted
            self._withhold(older.run, Reason.SUPERSEDED, event.event_id)
        self._aside.pop(told.run_id, None)
        waiting = Waiting(run, began)
        waiting.doubted = doubted
        self._decide(waiting, now, event)

    def _decide(self, waiting: Waiting, now: int, event: Event | None = None) -> None:
        run = waiting.run
        if event is None:
            # Who waited is told what is known by now.
            run = waiting.run = self._renewed(run)
        trouble = self.troubles.get((run.subject, run.axis or Axis.LIVENESS))
        receiver = self.receivers.get(run.hook)
        if receiver is None:
            self._ledger.run(
                msgspec.structs.replace(run, state=RunState.DEAD, error="this hook is not in the config any more")
            )
            return
        if trouble is None or trouble.over:
            self._withhold(run, Reason.RECOVERED)
            return
        objection = self.objections.to_telling(waiting, receiver, trouble, now) or self._braked(run, receiver, now)
        if objection is None:
            self._send(run, trouble, event)
        elif objection.until is not None:
            self._wait(waiting, objection)
            self._note(trouble, run)
        else:
            self._put_aside(run, objection)
            self._note(trouble, run)

    def _renewed(self, run: HookRun) -> HookRun:
        """The same notification with what the leaders say now: at the verdict of one, others were still asking."""
        observers = self._observers(run.subject) if run.axis is Axis.LIVENESS else ()
        return msgspec.structs.replace(run, input=with_observers(run.input, observers)) if observers else run

    def _braked(self, run: HookRun, receiver: Receiver, now: int) -> Objection | None:
        if isinstance(receiver, SinkConfig):
            return None
        # Ends have limits of their own: who is told of so many troubles is to be told of as many ends.
        count = f"{receiver.name} ends" if run.end else receiver.name
        limit = self._brake.admit(count, run.subject, run.rack, now)
        return Objection(Reason.BRAKE, "", self._summary_due(run, Reason.BRAKE, now)) if limit else None

    def _summary_due(self, run: HookRun, reason: Reason, now: int) -> int:
        return self._room.summary_due(run, reason, now + self._config.brake.window_ns)

    def _inform(self, run: HookRun, now: int) -> None:
        """Tell one receiver of news, which neither burn nor end anything that he knows of: now or not at all."""
        objection = self.objections.to_news(run, now)
        receiver = self.receivers[run.hook]
        if objection is not None and run.kind is Kind.NODE_FLAPPING:
            # It lasts, so it is told when the silence ends.
            self._put_aside(run, objection)
            return
        if objection is not None:
            self._withhold(run, objection.reason, objection.ref)
            return
        self._informed.append(run.hook)
        if isinstance(receiver, SinkConfig):
            # A sink has a state. Of news, only flapping is one.
            if run.kind is Kind.NODE_FLAPPING and run.axis is not None:
                self.sinks.flap(run.hook, run.subject, run.axis, run.rack, run.event_id, run.at_wall_ns)
            self._ledger.run(msgspec.structs.replace(run, state=RunState.DONE))
        else:
            self._send_news(run, receiver, now)

    def _send_news(self, run: HookRun, receiver: Receiver, now: int) -> None:
        braked = self._braked(run, receiver, now)
        if braked is None:
            self._ledger.run(run)
        else:
            self._wait(Waiting(run, now), braked)

    def _send(self, run: HookRun, trouble: Trouble, event: Event | None = None) -> None:
        """Nothing objects."""
        told = {**trouble.told, run.hook: Told(sent=True, level=_level(trouble), parts=trouble.parts)}
        trouble = self._keep(msgspec.structs.replace(trouble, told=told))
        if not isinstance(self.receivers[run.hook], SinkConfig):
            self._ledger.run(msgspec.structs.replace(run, state=RunState.PENDING))
            return
        self._ledger.run(msgspec.structs.replace(run, state=RunState.DONE))
        if event is not None:
            self.sinks.fire(run.hook, trouble, event, event.at_wall_ns)
        else:
            self.sinks.take_over(run.hook, trouble)

    def _wait(self, waiting: Waiting, objection: Objection) -> None:
        assert objection.until is not None
        waiting.run = msgspec.structs.replace(
            waiting.run, state=RunState.HELD, reason=objection.reason, ref=objection.ref
        )
        waiting.until = objection.until
        self._room.seat(waiting)
        self._ledger.run(waiting.run)

    def _put_aside(self, run: HookRun, objection: Objection) -> None:
        run = self._withhold(run, objection.reason, objection.ref)
        if objection.reason in RELEASED:
            self._aside[run.run_id] = run

    def _withhold(self, run: HookRun, reason: Reason, ref: str = "") -> HookRun:
        """Decided: this one is not sent."""
        run = msgspec.structs.replace(run, state=RunState.SUPPRESSED, reason=reason, ref=ref)
        self.unsent[reason.value] = self.unsent.get(reason.value, 0) + 1
        self._ledger.run(run)
        return run

    def _note(self, trouble: Trouble, run: HookRun) -> None:
        """Keep in mind which notification of a trouble waits for a receiver, or was put aside."""
        before = trouble.told.get(run.hook, Told())
        told = {**trouble.told, run.hook: msgspec.structs.replace(before, run_id=run.run_id)}
        self._keep(msgspec.structs.replace(trouble, told=told))

    # ---- dead letters ------------------------------------------------------------------------------------

    def hook_ended(self, run: HookRun, now: int) -> None:
        """A run is over: it ended well, so what its hook failed to tell is told again; or it was given up."""
        if run.state is RunState.DONE:
            for letter in self.letters.worked(run, now):
                if self._tell_again(letter, now):
                    self.letters.told_again(letter)
        elif run.state is RunState.DEAD and self.holds(run):
            self.letters.given_up(run, now)

    def holds(self, run: HookRun) -> bool:
        """False for what a receiver need not be told any more: news, troubles and ends that have passed, and what a
        newer word has overtaken."""
        if run.hook not in self.receivers:
            return False
        if run.members:
            return bool(self._still_so(run))
        trouble = self.objections.burning((run.subject, run.axis or Axis.LIVENESS))
        if run.end or trouble is None:
            return run.end and trouble is None
        if run.kind is not Kind.HEALTH_CHANGED:
            return _is_beginning(run) and run.event_id == trouble.event_id
        return run.at_wall_ns >= trouble.since_wall_ns and any(
            trouble.parts.get(part) == level for part, level in bad_parts_in(run.input).items()
        )

    def _still_so(self, run: HookRun) -> list[Trouble | str]:
        """Of what a summary tells, what is true still: troubles that burn, or the names of those that do not."""
        if not run.end:
            told = (one for one in self.troubles.values() if not one.over and run.hook in one.told)
            return [one for one in told if one.told[run.hook].via == run.event_id]
        burning = {subject for (subject, _), one in self.troubles.items() if not one.over}
        return [member for member in run.members if member not in burning]

    def _tell_again(self, run: HookRun, now: int) -> bool:
        """Owe a letter once more, if it is true still and nothing objects; False when it is not told now."""
        if not self.holds(run):
            self.letters.forget(run)
            return False
        if run.members:
            return self._tell_rest(run, now)
        trouble = self.objections.burning((run.subject, run.axis or Axis.LIVENESS))
        if trouble is not None and self._objects(run, trouble, now):
            self.letters.give_back(run)
            return False
        self._ledger.run(revived(run, self._wall.at(now)))
        return True

    def _objects(self, run: HookRun, trouble: Trouble, now: int) -> bool:
        """True when a receiver is not to be told again of a trouble now."""
        return self.objections.to_telling(self._waited(run, now), self.receivers[run.hook], trouble, now) is not None

    def _waited(self, run: HookRun, now: int) -> Waiting:
        """A notification that has waited for others and for its receiver's hold before: neither objects again."""
        waiting = Waiting(run, now - self.receivers[run.hook].hold_ns)
        waiting.doubted = True
        return waiting

    def _tell_rest(self, run: HookRun, now: int) -> bool:
        """Tell what is still so of what a summary told: the same once more, or a summary of the rest."""
        rest = self._still_so(run)
        open_to = [one for one in rest if isinstance(one, str) or not self._objects(run, one, now)]
        if len(open_to) == len(run.members):
            self._ledger.run(revived(run, self._wall.at(now)))
            return True
        troubles = [one if isinstance(one, Trouble) else None for one in open_to]
        if open_to:
            event = self._summarize([_part_of(run, one) for one in open_to], troubles, now)
            for trouble in filter(None, troubles):
                self._told_by(event, trouble, run.hook)
        if len(open_to) < len(rest):
            self.letters.give_back(run)
        return len(open_to) == len(rest)

    def _look_at_letters(self, now: int) -> None:
        """Try each hook that has given up with one of its letters, when it was left alone for long enough."""
        for name in self.letters.due(now):
            letters = iter(self.letters.take(name))
            tried = any(self._tell_again(letter, now) for letter in letters)
            for letter in letters:
                self.letters.give_back(letter)
            self.letters.looked_at(name, tried, now)

    # ---- ends --------------------------------------------------------------------------------------------

    def _cancel(self, trouble: Trouble) -> None:
        """A trouble is over: what still waits to tell of it never will."""
        for told in trouble.told.values():
            waiting = self._room.take(told.run_id)
            if waiting is not None:
                held = waiting.run.reason is Reason.HOLD
                self._withhold(waiting.run, Reason.HOLD if held else Reason.RECOVERED, waiting.run.ref)
            self._aside.pop(told.run_id, None)

    def _resolve(self, run: HookRun, trouble: Trouble, now: int) -> None:
        """Tell one receiver, who knows of the trouble, that it is over."""
        receiver = self.receivers[run.hook]
        told = trouble.told[run.hook]
        if self.objections.knows_of_flapping(trouble, receiver):
            self._put_aside(run, Objection(Reason.FLAPPING, trouble.flapping))
            self._note(self.troubles[trouble_key(trouble)], run)
        elif isinstance(receiver, SinkConfig):
            self.sinks.resolve(run.hook, trouble.subject, trouble.axis, self._wall.at(now))
            self._ledger.run(msgspec.structs.replace(run, state=RunState.DONE))
        elif told.via:
            last = self._by_summary.get(told.via, 0) <= 1
            until = now if last else self._summary_due(run, Reason.GROUPED, now)
            self._wait(Waiting(run, now), Objection(Reason.GROUPED, told.via, until))
            if last:
                # Nothing is waited for any more.
                self._room.hasten(run.hook, Reason.GROUPED, now)
        else:
            self._send_news(run, receiver, now)

    def _over(self, trouble: Trouble, event: Event, now: int) -> None:
        key = trouble_key(trouble)
        trouble = self.troubles[key]
        self._trust(trouble.rack, key)
        self.incidents.leave(trouble.incident, key, event.at_wall_ns)
        for told in trouble.told.values():
            if told.via:
                left = self._by_summary.get(told.via, 0) - 1
                if left > 0:
                    self._by_summary[told.via] = left
                else:
                    self._by_summary.pop(told.via, None)
        if trouble.flapping:
            told_now = {name: msgspec.structs.replace(told, via="") for name, told in trouble.told.items()}
            self._keep(msgspec.structs.replace(trouble, over=True, incident="", told=told_now))
        else:
            self._drop(key, event.at_wall_ns)
        if trouble.axis in (Axis.RACK, Axis.LEADER, Axis.ROOT):
            self.objections.parent_over(trouble, now)
            self._look_again(now)

    def retire(self, subject: str, why: str, now: int) -> None:
        """Nobody expects `subject` any more: who was told that it burns is told that this is over."""
        for axis, kind in _RETIREMENTS.items():
            trouble = self.objections.burning((subject, axis))
            if trouble is None:
                continue
            node = axis in NODE_AXES
            event = self._chronicle.make(
                kind,
                self._wall.at(now),
                node=subject if node else "",
                rack=trouble.rack,
                leader=subject if axis is Axis.LEADER else "",
                liveness_to=Liveness.LEFT if axis is Axis.LIVENESS else None,
                health_to=Health.OK if kind is Kind.HEALTH_CHANGED else None,
                evidence=Evidence(text=why),
                axis=axis if axis is Axis.DRILL else None,
            )
            self.tell(event, now)
        for axis in Axis:
            self._steady((subject, axis), None, now)
        self._forget(subject)

    def _forget(self, subject: str) -> None:
        """Nothing is left to be told of it."""
        for axis in NODE_AXES:
            trouble = self.troubles.get((subject, axis))
            if trouble is not None:
                self._cancel(trouble)
                self._trust(trouble.rack, (subject, axis))
                self.incidents.leave(trouble.incident, (subject, axis), trouble.at_wall_ns)
                self._drop((subject, axis), trouble.at_wall_ns)
        self._flapping.forget(subject)

    def _trust(self, rack: str, key: Key) -> None:
        if key[1] is Axis.LIVENESS:
            self.objections.trust(rack, key[0])

    def settle(self, rack: str, now: int) -> None:
        """A leader of a rack, or this root, has just started: what it says of silence waits until it has listened."""
        self.objections.settle(rack, now)

    def silences_changed(self, now: int) -> None:
        """A silence was added or ended, by somebody or by the clock."""
        self._silences_at = now
        self._look_again(now)

    # ---- time --------------------------------------------------------------------------------------------

    def wake(self, now: int) -> tuple[Effect, ...]:
        """Look at what is due; returns what the sinks are to be posted."""
        if self._silences_at is not None and now >= self._silences_at:
            wall = self._wall.at(now)
            if self.objections.silences.ended(wall):
                self._look_again(now)
            change = self.objections.silences.next_change(wall)
            self._silences_at = None if change is None else now + min(max(change - wall, 1), SILENCES_NS)
        for subject, axis, part in self._flapping.steady(now):
            self._steady((subject, axis), part, now)
        self._look_at_held(now)
        self._look_at_letters(now)
        return self.sinks.wake(now, self._wall.at(now))

    def deadline(self) -> int:
        """When `wake` wants to be called."""
        others = (
            self._watchdog_at,
            self._silences_at,
            self._room.deadline(),
            self._flapping.deadline(),
            self.letters.deadline(),
            self.sinks.deadline(),
        )
        return min(due for due in others if due is not None)

    def watchdog(self, now: int) -> list[HookRun]:
        """Signs of life of the alarm path, when they are due. They are not written: a late one is worth nothing."""
        if now < self._watchdog_at:
            return []
        self._watchdog_at = now + self._config.watchdog_ns
        hooks = [hook for hook in self._config.hooks if Kind.WATCHDOG in hook.on]
        if not hooks:
            return []
        event = self._chronicle.watchdog(self._wall.at(now))
        return [
            HookRun(
                run_id=f"{event.event_id}-{hook.name}",
                event_id=event.event_id,
                hook=hook.name,
                node=Kind.WATCHDOG.value,
                input=document(event),
                queued=event.sequence,
                kind=Kind.WATCHDOG,
            )
            for hook in hooks
        ]

    def _look_at_held(self, now: int) -> None:
        """Go on with what has waited for long enough."""
        folds: dict[tuple[str, bool], list[Waiting]] = {}
        alone: list[Waiting] = []
        wall = self._wall.at(now)
        for waiting in self._room.due(now):
            if waiting.restored and wall:
                # An earlier life of the root has let it wait already.
                waiting.began = now - max(0, wall - waiting.run.at_wall_ns)
                waiting.restored = False
            if waiting.run.reason in _FOLDS:
                folds.setdefault((waiting.run.hook, waiting.run.end), []).append(waiting)
            else:
                alone.append(waiting)
        for (name, end), waitings in folds.items():
            if name not in self.receivers:
                for waiting in waitings:
                    self._decide(waiting, now)
            elif end:
                self._tell_together(waitings, now)
            else:
                self._tell_together([one for one in waitings if self._may_go(one, now)], now)
        if alone:
            beside = self._room.companions(alone, now + self._config.doubt_wait_ns)
            self._decide_all([*alone, *beside], now)

    def _decide_all(self, waitings: list[Waiting], now: int) -> None:
        """Decide about these, those of one receiver and rack together."""
        places: dict[tuple[str, str], list[Waiting]] = {}
        for waiting in waitings:
            waiting.doubted = True
            places.setdefault((waiting.run.hook, waiting.run.rack), []).append(waiting)
        for (name, rack), group in places.items():
            receiver = self.receivers.get(name)
            ready = [waiting for waiting in group if self._may_be_told(waiting, now, max(now, waiting.until))]
            together = len(ready) >= self._config.brake.group_min and rack and not isinstance(receiver, SinkConfig)
            # Who is not due, and was called along for nothing, goes on waiting.
            chosen = {waiting.run.run_id: None for waiting in ready} if together else {}
            for run_id in chosen:
                self._room.take(run_id)
            if together:
                self._tell_together(ready, now)
            for waiting in group:
                if waiting.until <= now and waiting.run.run_id not in chosen:
                    self._room.take(waiting.run.run_id)
                    self._decide(waiting, now)

    def _may_be_told(self, waiting: Waiting, now: int, at: int) -> bool:
        trouble = self.objections.burning((waiting.run.subject, waiting.run.axis or Axis.LIVENESS))
        receiver = self.receivers.get(waiting.run.hook)
        if trouble is None or receiver is None:
            return False
        return self.objections.to_telling(waiting, receiver, trouble, now, at) is None

    def _may_go(self, waiting: Waiting, now: int) -> bool:
        """True for news, and for what burns and nothing objects to by now; otherwise that is seen to."""
        waiting.doubted = True
        run = waiting.run
        if run.kind is not None and not _is_beginning(run):
            return True
        if self._may_be_told(waiting, now, now):
            return True
        self._decide(waiting, now)
        return False

    def _tell_together(self, waitings: list[Waiting], now: int) -> None:
        """One summary for all of these, which have one receiver; a single one is told as it is."""
        if len(waitings) <= 1:
            for waiting in waitings:
                self._tell_alone(waiting.run)
            return
        runs = [waiting.run for waiting in waitings]
        troubles = [self.troubles.get((run.subject, run.axis or Axis.LIVENESS)) for run in runs]
        event = self._summarize(runs, troubles, now)
        for run, trouble in zip(runs, troubles, strict=True):
            self._withhold(run, Reason.BRAKE if run.reason is Reason.BRAKE else Reason.GROUPED, event.event_id)
            if not run.end and trouble is not None and _is_beginning(run):
                self._told_by(event, trouble, run.hook)

    def _summarize(self, runs: Sequence[HookRun], troubles: Sequence[Trouble | None], now: int) -> Event:
        """Owe one receiver a summary of all these."""
        end = runs[0].end
        event = summary_of(self._chronicle, runs, troubles, self._wall.at(now))
        self._ledger.event(event)
        self._ledger.run(
            HookRun(
                run_id=f"{event.event_id}-{runs[0].hook}",
                event_id=event.event_id,
                hook=runs[0].hook,
                # The end of what a summary told comes after that summary.
                node=runs[0].ref if end and runs[0].ref else event.event_id,
                due_wall_ns=event.at_wall_ns,
                input=document(event),
                queued=event.sequence,
                members=tuple(dict.fromkeys(run.subject for run in runs)),
                subject=event.rack or ROOT,
                kind=event.kind,
                cause=event.cause,
                rack=event.rack,
                incident=event.incident,
                at_wall_ns=event.at_wall_ns,
                end=end,
            )
        )
        return event

    def _told_by(self, summary: Event, trouble: Trouble, receiver: str) -> None:
        """A summary tells `receiver` of a trouble."""
        before = trouble.told.get(receiver, Told()).via
        said = Told(sent=True, via=summary.event_id, level=_level(trouble), parts=trouble.parts)
        self._keep(msgspec.structs.replace(trouble, told={**trouble.told, receiver: said}))
        self._by_summary[summary.event_id] = self._by_summary.get(summary.event_id, 0) + 1
        if before in self._by_summary:
            self._by_summary[before] -= 1
            if not self._by_summary[before]:
                del self._by_summary[before]

    def _tell_alone(self, run: HookRun) -> None:
        trouble = self.troubles.get((run.subject, run.axis or Axis.LIVENESS))
        if trouble is not None and not run.end and _is_beginning(run):
            self._send(run, trouble)
        else:
            self._ledger.run(msgspec.structs.replace(run, state=RunState.PENDING))

    def _look_again(self, now: int) -> None:
        """Something that objected may have ended: what still burns of what it kept back is decided anew."""
        again: list[Waiting] = []
        for run in [run for run in self._aside.values() if run.kind is Kind.NODE_FLAPPING]:
            self._say_late(run, now)
        for run_id, run in list(self._aside.items()):
            if run.end or run.kind is Kind.NODE_FLAPPING:
                continue
            trouble = self.objections.burning((run.subject, run.axis or Axis.LIVENESS))
            if trouble is None or run.hook not in self.receivers or _knows(trouble, run):
                del self._aside[run_id]
                continue
            waiting = self._waited(run, now)
            objection = self.objections.to_telling(waiting, self.receivers[run.hook], trouble, now)
            waits = objection is not None and objection.until is not None
            if objection is None or waits or (objection.reason, objection.ref) != (run.reason, run.ref):
                del self._aside[run_id]
                waiting.until = now
                again.append(waiting)
        if again:
            self._decide_all(again, now)

    def _say_late(self, run: HookRun, now: int) -> None:
        """That something flaps was kept back by a silence: told when that ends, if it still does."""
        trouble = self.troubles.get((run.subject, run.axis or Axis.LIVENESS))
        if trouble is None or trouble.flapping != run.event_id or run.hook not in self.receivers:
            del self._aside[run.run_id]
        elif self.objections.to_news(run, now) is None:
            del self._aside[run.run_id]
            self._inform(msgspec.structs.replace(run, state=RunState.PENDING), now)
            self._keep(msgspec.structs.replace(trouble, flap_told=(*trouble.flap_told, run.hook)))

    def _steady(self, key: Key, part: str | None, now: int) -> None:
        """A part flaps no more, or none of them (None): once none does, that is told, and what is still to be told of
        the trouble."""
        trouble = self.troubles.get(key)
        if trouble is None or not trouble.flapping:
            return
        left = () if part is None else tuple(other for other in trouble.flap_parts if other != part)
        if left:
            self._keep(msgspec.structs.replace(trouble, flap_parts=left))
            self._look_again(now)
            return
        subject, axis = key
        node = axis in NODE_AXES
        state = "well" if trouble.over else f"not well ({trouble.kind.value})"
        self.tell(
            self._chronicle.make(
                Kind.NODE_STEADY,
                self._wall.at(now),
                node=subject if node else "",
                rack=trouble.rack,
                leader=subject if axis is Axis.LEADER else "",
                axis=axis,
                evidence=Evidence(text=f"its {axis.value} has stayed as it is for long enough; it is {state}"),
            ),
            now,
        )
        for name in self.receivers:
            self.sinks.steady(name, subject, axis, self._wall.at(now))
        trouble = self._keep(msgspec.structs.replace(trouble, flapping="", flap_told=(), flap_parts=()))
        if not trouble.over:
            self._look_again(now)
            return
        for name, told in trouble.told.items():
            run = self._aside.pop(told.run_id, None)
            if run is None or not run.end or not told.sent:
                continue
            if isinstance(self.receivers.get(name), SinkConfig):
                self.sinks.resolve(name, subject, axis, self._wall.at(now))
                self._ledger.run(msgspec.structs.replace(run, state=RunState.DONE))
            else:
                self._ledger.run(msgspec.structs.replace(run, state=RunState.PENDING))
        self._drop(key, self._wall.at(now))

    # ---- what is kept ------------------------------------------------------------------------------------

    def _keep(self, trouble: Trouble) -> Trouble:
        self.troubles[trouble_key(trouble)] = trouble
        self._ledger.trouble(trouble)
        return trouble

    def _drop(self, key: Key, at_wall_ns: int) -> None:
        for told in self.troubles.pop(key).told.values():
            self._aside.pop(told.run_id, None)
        for sink in self._config.sinks:
            # Also one that asks for no ends: what nobody ends is repeated for ever.
            self.sinks.resolve(sink.name, *key, at_wall_ns)
        self._ledger.over(*key)


def trouble_key(trouble: Trouble) -> Key:
    """What a trouble is kept under."""
    return (trouble.subject, trouble.axis)


def _level(trouble: Trouble) -> int:
    return severity(trouble.kind, trouble.health)


def _knows(trouble: Trouble, run: HookRun) -> bool:
    """True when the receiver was told before it began to flap, and it is no worse than then, and no part is well."""
    told = trouble.told.get(run.hook, Told())
    known = told.sent and not is_news(trouble, told) and told.parts.keys() <= trouble.parts.keys()
    return run.reason is Reason.FLAPPING and known


def _part_of(summary: HookRun, one: Trouble | str) -> HookRun:
    """What a summary says of one of its members: a trouble, or one that is well again."""
    if isinstance(one, str):
        return msgspec.structs.replace(summary, subject=one, kind=Kind.NODE_RECOVERED, members=())
    return msgspec.structs.replace(
        summary,
        subject=one.subject,
        axis=one.axis,
        kind=one.kind,
        cause=one.cause,
        rack=one.rack,
        incident=one.incident,
        members=(),
    )


def _is_beginning(run: HookRun) -> bool:
    return run.kind in (*BEGINNINGS, Kind.HEALTH_CHANGED) and not run.end
