"""ProberCore: which probe runs when, what applications say, who is stuck, and what the host's health comes to.

It runs in a process of its own beside the agent, and even there it only decides: checks, examinations and reads of
`/proc` are made by disposable processes. The agent is told what changed at once, everything now and then, and each
second that this loop goes round.
"""

from __future__ import annotations

import random

from .app import App
from .apps import Apps
from .config import ProberConfig
from .effects import AskUnit, Effect, Effects, Examine, LookForBundles, Note, Remember, RestartUnit, TakeFacts, Tell
from .health import combined
from .messages import (
    Acted,
    BundlesGone,
    CheckFinished,
    Examined,
    FactsTaken,
    HostFacts,
    Mark,
    Notified,
    ProcessGone,
    Reconfigured,
    Remembered,
    Suspended,
    UnitAnswered,
    Vitals,
    WallTime,
)
from .probe import Probe
from .restarts import Restarts
from .units import MINUTE, SECOND, show_duration
from .wallclock import WallClock

MARK_NS = SECOND
#: Examinations at once: each takes a process for two seconds.
EXAMINATIONS_MAX = 2
#: What must survive a restart goes to disk when it changed, at most this often.
REMEMBER_NS = SECOND
#: ...and the rest of it, such as how far a log was read, at this distance.
REMEMBER_ALL_NS = MINUTE
#: A loop this late was stopped: datagrams were lost meanwhile, and nobody is blamed for it.
STOPPED_NS = SECOND
#: Without a word of an earlier life in this time there was none.
REMEMBERED_NS = 2 * SECOND
#: Whether the evidence that is spoken of is still there is looked at this often: somebody may have deleted it.
LOOK_FOR_NS = MINUTE
#: A restarted unit has so long before it may be restarted again.
SETTLE_NS = 30 * SECOND


class ProberCore:
    """One host's prober. Call `wake` no later than `deadline`; earlier is harmless."""

    def __init__(self, config: ProberConfig, rng: random.Random, now: int) -> None:
        self._config = config
        self._rng = rng
        self._wall = WallClock()
        self._begun = False
        self._begin_at = now + REMEMBERED_NS
        self._probes: dict[str, Probe] = {}
        self.apps = Apps(config, now)
        self._runs = 0
        #: Checks under way, by number.
        self._checks: dict[int, Probe] = {}
        #: Examinations under way: the application's name, by number.
        self._examinations: dict[int, str] = {}
        self._restarting: dict[int, str] = {}
        #: Questions to systemd how a process ended: the application's name, by number.
        self._questions: dict[int, str] = {}
        self._restarts = Restarts(config.restarts_max, config.restart_window_ns)
        self._settled_at: dict[str, int] = {}
        self._facts: HostFacts | None = None
        self._facts_at = now
        self._taking = False
        #: When to look for the bundles that applications name, unless that is under way.
        self._look_for_at = now
        self._looking_for = False
        self._marks = 0
        self._mark_at = now
        self._told: object = None
        self._tell_at = now + config.facts_interval_ns
        self._kept: object = None
        self._keep_at: int | None = None
        self._kept_at = now - REMEMBER_NS
        #: When `wake` was last asked for, of what is not news.
        self._planned = now
        #: Something arrived that may change a verdict.
        self._judge_at: int | None = None
        #: Processes that checks had to leave behind, stuck in the kernel.
        self.abandoned = 0
        #: Examinations, and how often one had to wait for its turn.
        self.examinations = self.examinations_put_off = 0
        #: Most that a due check had to wait for a free process.
        self.waited_ns = 0

    # ---- the crank ---------------------------------------------------------------------------------------

    def receive(self, sender: str, message: object, now: int) -> Effects:
        """Something came of an order, or an application spoke. `sender` is always "".

        Nothing is judged here: the datagram that speaks for an application may be the next in the queue.
        """
        forgiven = self._forgive(now)
        self._judge_at = now
        return (*forgiven, *self._received(message, now))

    def _received(self, message: object, now: int) -> Effects:
        if isinstance(message, Notified):
            return tuple(self.apps.notified(message, now))
        if isinstance(message, CheckFinished):
            return self._checked(message, now)
        if isinstance(message, FactsTaken):
            self._taking = False
            self._facts = message.facts
            self._facts_at = now + self._config.facts_interval_ns
            self._tell_at = now
            return ()
        if isinstance(message, Examined):
            return self._examined(message, now)
        if isinstance(message, BundlesGone):
            self._looking_for = False
            self.apps.lost_bundles(message.numbers)
            return ()
        if isinstance(message, ProcessGone):
            return (*self.apps.gone(message.pid, now), *self._ask_units())
        if isinstance(message, UnitAnswered):
            app = self.apps.by_name.get(self._questions.pop(message.run, ""))
            if app is not None:
                app.answered(message.run, message.stopped, message.text)
            return ()
        if isinstance(message, Acted):
            return self._acted(message, now)
        if isinstance(message, WallTime):
            self._wall.tell(message.wall_ns, now)
            return ()
        if isinstance(message, Suspended):
            for app in self.apps.by_name.values():
                app.slept(message.suspended_ns, now)
            return ()
        if isinstance(message, Remembered):
            return self._remembered(message, now)
        if isinstance(message, Reconfigured):
            return self._reconfigured(message.config, now)
        return (Note("warning", "unexpected-message", {"type": type(message).__name__}),)

    def wake(self, now: int) -> Effects:
        """The deadline came."""
        effects: list[Effect] = [*self._forgive(now)]
        self._judge_at = None
        if now >= self._mark_at:
            self._marks += 1
            self._mark_at += MARK_NS * (1 + (now - self._mark_at) // MARK_NS)
            effects.append(Tell(Mark(self._marks)))
        if not self._begun and now >= self._begin_at:
            self._begin(now)
        if self._begun and not self._taking and now >= self._facts_at:
            self._taking = True
            effects.append(TakeFacts())
        effects += self._start_checks(now)
        effects += self._judge(now)
        effects += self._look_for_bundles(now)
        effects += self._tell(now)
        effects += self._remember(now)
        self._planned = self.deadline()
        return tuple(effects)

    def deadline(self) -> int:
        """When `wake` wants to be called."""
        if self._judge_at is not None:
            return self._judge_at
        if not self._begun:
            return min(self._mark_at, self._begin_at)
        at = min(self._mark_at, self._tell_at)
        if not self._taking:
            at = min(at, self._facts_at)
        if self._keep_at is not None:
            at = min(at, self._keep_at)
        if not self._looking_for and any(app.pace.newest for app in self.apps.by_name.values()):
            at = min(at, self._look_for_at)
        if len(self._checks) < self._config.concurrency:
            at = min([at, *(probe.due_at for probe in self._probes.values() if probe.run is None)])
        # With all examinations taken, the end of one comes as a message.
        free = len(self._examinations) < EXAMINATIONS_MAX
        for app in self.apps.by_name.values():
            at = min([at, *app.deadlines(examinations=free)])
        return at

    def _forgive(self, now: int) -> Effects:
        """Called long after the time that was asked for, this loop was stopped, and senders met a full queue."""
        late_ns = now - self._planned
        if late_ns <= STOPPED_NS:
            return ()
        self._planned = now
        for app in self.apps.by_name.values():
            app.forgive(now)
        return (Note("warning", "prober-was-stopped", {"for": show_duration(late_ns)}),)

    def _judge(self, now: int) -> list[Effect]:
        """Form the verdicts and order what they need. Everything that has arrived is known by now."""
        effects: list[Effect] = []
        for name, app in self.apps.by_name.items():
            app.look(now)
            wait_ns = app.was_put_off(now)
            if wait_ns is not None:
                self.examinations_put_off += 1
                fields = {"app": name, "for": show_duration(wait_ns)}
                effects.append(Note("warning", "examination-put-off", fields))
            if app.wants_examination(now) and len(self._examinations) < EXAMINATIONS_MAX:
                effects.append(self._examine(name, app, now))
            effects += self._act(app, now)
        return effects

    # ---- checks ------------------------------------------------------------------------------------------

    def _begin(self, now: int, kept: object = None) -> None:
        """Set up the probes: what an earlier life knew of them is known by now."""
        self._begun = True
        for config in self._config.probes:
            probe = self._probes[config.name] = Probe(config, self._rng, now)
            if isinstance(kept, dict):
                probe.restore(kept.get(config.name), now)

    def _start_checks(self, now: int) -> list[Effect]:
        effects: list[Effect] = []
        free = self._config.concurrency - len(self._checks)
        if free <= 0 or not self._begun:
            return effects
        due = [probe for probe in self._probes.values() if probe.run is None and now >= probe.due_at]
        # Whoever waits longest goes first, so that many probes cannot keep one from ever running.
        due.sort(key=lambda probe: probe.due_at)
        for probe in due[:free]:
            self._runs += 1
            self._checks[self._runs] = probe
            self.waited_ns = max(self.waited_ns, now - probe.due_at)
            effects.append(probe.start(self._runs))
        return effects

    def _checked(self, finished: CheckFinished, now: int) -> Effects:
        probe = self._checks.pop(finished.run, None)
        self.abandoned += finished.abandoned
        effects: list[Effect] = []
        if finished.abandoned:
            name = probe.config.name if probe is not None else ""
            effects.append(Note("warning", "check-abandoned", {"probe": name, "processes": finished.abandoned}))
        # A probe that the config has dropped meanwhile only gives its place back.
        if probe is not None and self._probes.get(probe.config.name) is probe:
            before = probe.standing.health
            if probe.finish(finished, now):
                fields = {"probe": probe.config.name, "from": before, "to": probe.standing.health, "text": probe.text}
                effects.append(Note("info", "probe-changed", fields))
            app = self.apps.by_name.get(probe.config.app)
            if app is not None:
                app.probed(probe.config.name, probe.silent, probe.text)
        return (*effects, *self._start_checks(now))

    # ---- applications ------------------------------------------------------------------------------------

    def _examine(self, name: str, app: App, now: int) -> Examine:
        self._runs += 1
        self._examinations[self._runs] = name
        self.examinations += 1
        app.begin_examination(now)
        return Examine(
            run=self._runs,
            app=name,
            pid=app.pid,
            start=app.start,
            unit=app.config.unit,
            pidfile=app.config.pidfile,
            why=app.trouble(now),
            stacks=app.stacks,
            spared=self.apps.spared(),
        )

    def _look_for_bundles(self, now: int) -> list[Effect]:
        """Now and then: a report must not name what is not there."""
        if not self._begun or self._looking_for or now < self._look_for_at:
            return []
        self._look_for_at = now + LOOK_FOR_NS
        numbers = self.apps.spared()
        if not numbers:
            return []
        self._looking_for = True
        return [LookForBundles(numbers)]

    def _examined(self, examined: Examined, now: int) -> Effects:
        app = self.apps.by_name.get(self._examinations.pop(examined.run, ""))
        if app is None:
            return ()
        app.examined(examined, now)
        fields = {
            "app": app.config.name,
            "stall": examined.stall.value,
            "text": examined.text,
            "bundle": examined.bundle,
            "paused": show_duration(examined.pause_ns),
        }
        if examined.error:
            fields["error"] = examined.error
        return (Note("info", "examined", fields),)

    def _act(self, app: App, now: int) -> Effects:
        """Restart what is stuck, where that is wanted: with the evidence taken, and with a brake."""
        config = app.config
        if not config.restart or not config.unit or app.health not in config.restart_on or app.stall is None:
            return ()
        unit = config.unit
        if not app.evident:
            if app.given_up:
                return ()
            app.given_up = "not restarted: its evidence could not be kept"
            return (Note("error", "restart-withheld", {"unit": unit, "reason": "its evidence could not be kept"}),)
        if now < self._settled_at.get(unit, now) or unit in self._restarting.values():
            return ()
        if not self._restarts.may(unit, now):
            app.given_up = f"given up after {self._restarts.count(unit)} restarts"
            fields = {"unit": unit, "restarts": self._restarts.count(unit), "health": app.health.value}
            return (Note("error", "restart-given-up", fields),) if self._restarts.give_up(unit) else ()
        self._runs += 1
        self._restarting[self._runs] = unit
        self._settled_at[unit] = now + SETTLE_NS
        fields = {"unit": unit, "health": app.health.value, "evidence": app.bundle}
        return (Note("warning", "restarting-unit", fields), RestartUnit(run=self._runs, unit=unit))

    def _acted(self, acted: Acted, now: int) -> Effects:
        unit = self._restarting.pop(acted.run, "")
        if acted.error:
            return (Note("error", "restart-failed", {"unit": unit, "error": acted.error}),)
        for app in self.apps.by_name.values():
            if app.config.restart and app.config.unit == unit:
                app.restarted(now)
        return (Note("warning", "restarted-unit", {"unit": unit}),)

    def _ask_units(self) -> list[Effect]:
        """Of whom it is not known how he ended, systemd is asked: it may have stopped him."""
        effects: list[Effect] = []
        for name, app in self.apps.by_name.items():
            if app.wants_answer():
                self._runs += 1
                self._questions[self._runs] = name
                app.ask(self._runs)
                effects.append(AskUnit(run=self._runs, unit=app.runs_in, pid=app.gone_pid, start=app.gone_start))
        return effects

    # ---- telling -----------------------------------------------------------------------------------------

    def _tell(self, now: int) -> list[Effect]:
        gist = (
            self.apps.full(now),
            [(name, probe.standing.health, probe.applies) for name, probe in self._probes.items()],
            [(app.config.name, app.health, app.state, app.stall, app.bundle) for app in self.apps.by_name.values()],
        )
        if not self._begun or (gist == self._told and now < self._tell_at):
            return []
        self._told = gist
        self._tell_at = now + self._config.facts_interval_ns
        return [Tell(self.vitals(now))]

    def vitals(self, now: int) -> Vitals:
        """All that is known now."""
        rows = tuple(filter(None, (probe.row(now) for probe in self._probes.values())))
        if self.apps.full(now):
            rows = (*rows, self.apps.full_row())
        apps = tuple(app.row(now) for app in self.apps.sorted())
        weights = {name: probe.config.weight for name, probe in self._probes.items()}
        parts = [(row.health, weights.get(row.name, 1.0)) for row in rows]
        parts += [(app.health, app.config.weight) for app in self.apps.by_name.values()]
        return Vitals(
            health=combined(parts, self._config.quorum),
            facts=self._facts,
            probes=rows,
            apps=apps,
            examinations=self.examinations,
            examinations_put_off=self.examinations_put_off,
        )

    # ---- over restarts -----------------------------------------------------------------------------------

    def _remembered(self, remembered: Remembered, now: int) -> Effects:
        if self._begun:
            return ()
        state = remembered.state
        self._begin(now, state.get("probes"))
        self._restarts.restore(state.get("restarts"), now)
        effects = self.apps.restore(state.get("apps"), remembered.alive, self._wall, now)
        return (*effects, *self._ask_units(), *self._start_checks(now))

    def _remember(self, now: int) -> list[Effect]:
        """What changed goes to disk; how far a probe has read, now and then."""
        if not self._begun or not self._config.state_dir:
            return []
        gist = self.apps.gist(), [(name, probe.standing.health) for name, probe in self._probes.items()]
        due_at = self._kept_at + (REMEMBER_NS if gist != self._kept else REMEMBER_ALL_NS)
        if now < due_at:
            self._keep_at = due_at
            return []
        self._kept, self._kept_at, self._keep_at = gist, now, now + REMEMBER_ALL_NS
        state = {
            "apps": self.apps.keep(self._wall, now),
            "probes": {name: probe.keep(now) for name, probe in self._probes.items()},
            "restarts": self._restarts.keep(now),
        }
        return [Remember(state)]

    def _reconfigured(self, config: ProberConfig, now: int) -> Effects:
        """Go on with other settings; a probe and an application that stay as they were keep what is known of them."""
        self._config = config
        kept = self._probes
        self._probes = {}
        for wanted in config.probes:
            known = kept.get(wanted.name)
            same = known is not None and known.config == wanted
            self._probes[wanted.name] = known if known is not None and same else Probe(wanted, self._rng, now)
        self.apps.reconfigure(config, now)
        self._restarts.restarts_max = config.restarts_max
        self._restarts.window_ns = config.restart_window_ns
        self._facts_at = min(self._facts_at, now + config.facts_interval_ns)
        return ()
