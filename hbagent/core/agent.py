"""AgentCore: when to beat, what the beat carries, whom to greet, what to answer, how to leave.

A beat waits for nothing: not for a leader, not for facts, not for admission. Everything else the agent does hangs
beside it. Beats stand on a fixed grid from a random start, so that a thousand agents started by one command do not
beat together, and a late beat does not shift those after it.
"""

from __future__ import annotations

import random
from zlib import crc32

import msgspec

from .allowance import Allowance
from .config import AgentConfig
from .diary import Diary
from .drill import LENGTH_NS, OUTCOMES, UNDER_WAY, is_drill
from .effects import Effect, Effects, Exit, Note, Publish, PublishBeat, Recall, Send, StartDrill
from .messages import (
    Account,
    AccountWanted,
    Admission,
    Answered,
    Beat,
    DrillBegun,
    DrillWanted,
    Effort,
    EvidencePage,
    EvidenceWanted,
    Farewell,
    FarewellAck,
    Hello,
    HostFacts,
    Linked,
    Mark,
    Ping,
    Pong,
    ProberEnded,
    Recalled,
    Reconfigured,
    Refused,
    Relay,
    Report,
    ReportWanted,
    Suspended,
    Terminate,
    Vitals,
    WallTime,
)
from .refusals import Refusals
from .relays import Relays
from .states import Health
from .tending import Tending
from .units import MILLISECOND, MINUTE, SECOND, show_duration
from .wallclock import WallClock

#: A leaving agent repeats its farewell this often until it is acknowledged.
FAREWELL_RETRY_NS = 100 * MILLISECOND
#: An admitted agent greets again this often, so that a leader that lost its memory learns of it.
HELLO_AGAIN_FACTOR = 5
#: Accounts that one leader may ask for: it wants one each time that the node was silent and is back.
ACCOUNTS_PER_MINUTE = 10
#: Lost connections remembered of each leader; a connection that is lost more often within one silence is as bad.
LINKS_LOST_MAX = 8
#: Between two reports: an application that changes its mind a thousand times a second is told ten times.
REPORT_GAP_NS = 100 * MILLISECOND
#: Evidence bundles under way to leaders, and for how long.
RECALLS_MAX = 4
RECALL_NS = 5 * SECOND
#: Slice of a bundle in one frame.
EVIDENCE_PAGE_SIZE = 32 * 1024
#: A loop this late was stopped, and whoever was stopped with it is forgiven.
_STOPPED_NS = SECOND
_U32 = 0xFFFF_FFFF

#: Changes smaller than these are noise and do not make a new report before its time (per cent; load: absolute).
_NOISE = {
    "cpu_percent": 10.0,
    "load_1m": 1.0,
    "memory_used_percent": 2.0,
    "swap_used_percent": 2.0,
    "psi_cpu": 10.0,
    "psi_memory": 5.0,
    "psi_io": 10.0,
}


class _Greeting:
    """Where the agent stands with one leader."""

    __slots__ = (
        "accounts",
        "admitted",
        "backoff_ns",
        "echo_key",
        "farewelled",
        "hello_at",
        "leader",
        "linked",
        "lost_at",
    )

    def __init__(self, leader: str, hello_at: int, backoff_ns: int) -> None:
        self.leader = leader
        self.hello_at = hello_at
        self.backoff_ns = backoff_ns
        self.admitted: int | None = None
        self.echo_key = b""
        self.farewelled = False
        self.linked = False
        #: When the connection was lost, newest last.
        self.lost_at: list[int] = []
        self.accounts = Allowance(MINUTE // ACCOUNTS_PER_MINUTE, ACCOUNTS_PER_MINUTE)

    def link(self, link: Linked, now: int) -> None:
        """The connection came or went."""
        # One that comes up again was lost, also when nobody told of it.
        if self.linked and not link.moved:
            self.lost_at = [*self.lost_at[1 - LINKS_LOST_MAX :], now]
        self.linked = link.up


class AgentCore:
    """One node's agent. Call `wake` no later than `deadline`; earlier is harmless."""

    def __init__(self, config: AgentConfig, rng: random.Random, now: int) -> None:
        self._config = config
        self._rng = rng
        self.incarnation = rng.getrandbits(64)
        self._wall = WallClock()
        self._suspended_ns = 0
        self._diary = Diary(now)
        self._relays = Relays()
        self._sequence = 0
        self._next_beat = now + rng.randrange(config.interval_ns)
        self._prober = Tending(config, now)
        #: The newest that the prober told, and when.
        self._vitals: Vitals | None = None if config.prober else Vitals(health=Health.OK)
        self._vitals_at = now
        #: Facts of the report that went out last: what is only noise beside these makes no new report.
        self._facts_told: HostFacts | None = None
        self._digest = 0
        self._report_number = 0
        self._report_told: Vitals | None = None
        self._reported_at = now - REPORT_GAP_NS
        #: When a report is due; None until there is anything to report.
        self._report_at: int | None = None if config.prober else now
        #: Who wants a bundle, by the number of the `Recall`: leader, its own number, and when it is given up.
        self._recalls: dict[int, tuple[str, int, int]] = {}
        self._recalls_made = 0
        self._drill_until = now
        self._greetings = {
            leader: _Greeting(leader, now + rng.randrange(config.hello_min_ns), config.hello_min_ns)
            for leader in config.leaders
        }
        self._refusals = Refusals()
        #: Frames of leaders that were refused, by reason.
        self.refused = self._refusals.counts
        self._leaving_until: int | None = None
        self._farewell_at = 0
        self._done = False

    # ---- the crank ---------------------------------------------------------------------------------------

    def receive(self, sender: str, message: object, now: int) -> Effects:
        """Something arrived from `sender`, an authenticated leader or "" for the driver itself."""
        if isinstance(message, Mark):
            self._prober.mark(message, now)
            return ()
        if isinstance(message, Vitals):
            return self._vitals_told(message, now)
        if isinstance(message, Admission):
            return self._admission(sender, message, now)
        if isinstance(message, FarewellAck):
            return self._farewell_ack(sender, message)
        if isinstance(message, ReportWanted):
            return self._report_now(now) if self._vitals is not None else ()
        if isinstance(message, EvidenceWanted):
            return self._evidence_wanted(sender, message, now)
        if isinstance(message, DrillWanted):
            return self._drill_wanted(sender, message, now)
        if isinstance(message, Recalled):
            return self._recalled(message)
        if isinstance(message, ProberEnded):
            return self._prober.ended_by(message, now)
        if isinstance(message, Ping):
            return self._ping(sender, message)
        if isinstance(message, Relay):
            return self._relay(sender, message, now)
        if isinstance(message, Answered):
            return self._relays.answered(message)
        if isinstance(message, AccountWanted):
            return self._account(sender, message, now)
        if isinstance(message, Linked):
            return self._linked(message, now)
        if isinstance(message, Terminate):
            return self._terminate(now)
        if isinstance(message, Reconfigured):
            return self._reconfigured(message.config, now)
        if isinstance(message, WallTime):
            return self._wall_time(message, now)
        if isinstance(message, Effort):
            self._diary.effort(message)
            return ()
        if isinstance(message, Suspended):
            return self._suspended(message)
        if isinstance(message, Refused):
            return self._refusals.add(message.sender, message.reason, now, message.detail)
        return (Note("warning", "unexpected-message", {"sender": sender, "type": type(message).__name__}),)

    def wake(self, now: int) -> Effects:
        """The deadline came."""
        if self._done:
            return ()
        if self._leaving_until is not None:
            return self._wake_leaving(now)
        effects: list[Effect] = []
        if now >= self._next_beat:
            if now - self._next_beat > _STOPPED_NS:
                self._prober.forgive(now - self._next_beat)
            effects.append(PublishBeat(self._beat(now)))
        effects += self._relays.wake(now)
        effects += self._prober.wake(now)
        if self._report_at is not None and now >= self._report_at:
            effects += self._report_now(now)
        for greeting in self._greetings.values():
            if now >= greeting.hello_at:
                effects.append(self._hello(greeting, now))
        return tuple(effects)

    def deadline(self) -> int | None:
        """When `wake` wants to be called; None once the agent has left."""
        if self._done:
            return None
        if self._leaving_until is not None:
            return min(self._farewell_at, self._leaving_until)
        at = self._next_beat
        if self._report_at is not None and self._report_at < at:
            at = self._report_at
        prober_at = self._prober.deadline()
        if prober_at is not None and prober_at < at:
            at = prober_at
        for greeting in self._greetings.values():
            if greeting.hello_at < at:
                at = greeting.hello_at
        relays_at = self._relays.deadline()
        return at if relays_at is None else min(at, relays_at)

    # ---- beats -------------------------------------------------------------------------------------------

    def _beat(self, now: int, leaving: bool = False) -> Beat:
        interval = self._config.interval_ns
        gap = max(0, now - self._next_beat)
        self._next_beat += interval * (1 + gap // interval)
        self._sequence += 1
        self._diary.beat(gap)
        return Beat(
            incarnation=self.incarnation,
            sequence=self._sequence,
            sent_mono_ns=now,
            due_in_ns=self._next_beat - now,
            interval_ns=interval,
            loop_gap_ns=gap,
            progress=self._prober.moved & _U32,
            health_digest=self._digest,
            leaving=leaving,
        )

    # ---- reports -----------------------------------------------------------------------------------------

    def _vitals_told(self, vitals: Vitals, now: int) -> Effects:
        """A change of health goes out at once, all else with the next report."""
        before, self._vitals, self._vitals_at = self._vitals, vitals, now
        if before is None or _gist(before) != _gist(vitals) or _differs(self._facts_told, vitals.facts):
            return self._report_soon(now)
        return ()

    def _report_soon(self, now: int) -> Effects:
        at = self._reported_at + REPORT_GAP_NS
        if now >= at:
            return self._report_now(now)
        self._report_at = at if self._report_at is None else min(self._report_at, at)
        return ()

    def _report_now(self, now: int) -> Effects:
        vitals = self._vitals
        assert vitals is not None
        if vitals is not self._report_told:
            self._report_told = vitals
            self._report_number += 1
            self._digest = crc32(msgspec.msgpack.encode(_gist(vitals)))
            self._facts_told = vitals.facts
        self._reported_at = now
        self._report_at = now + self._config.report_interval_ns
        return (Publish(self._report(vitals, now)),)

    def _report(self, vitals: Vitals, now: int) -> Report:
        """What the prober told, as old as it is by now."""
        older = now - self._vitals_at
        return Report(
            incarnation=self.incarnation,
            number=self._report_number,
            facts=vitals.facts,
            health=vitals.health,
            probes=tuple(
                msgspec.structs.replace(probe, age_ns=probe.age_ns + older, since_ns=probe.since_ns + older)
                for probe in vitals.probes
            ),
            apps=tuple(msgspec.structs.replace(app, since_ns=app.since_ns + older) for app in vitals.apps),
            window_ns=self._config.prober_window_ns if self._config.prober else 0,
            digest=self._digest,
        )

    # ---- evidence ----------------------------------------------------------------------------------------

    def _evidence_wanted(self, sender: str, wanted: EvidenceWanted, now: int) -> Effects:
        if sender not in self._greetings:
            return ()
        self._recalls = {number: recall for number, recall in self._recalls.items() if recall[2] > now}
        if len(self._recalls) >= RECALLS_MAX:
            return (self._evidence_page(sender, wanted.number, 0, True, error="busy: ask again"),)
        if not self._config.prober:
            return (self._evidence_page(sender, wanted.number, 0, True, error="this agent runs no prober"),)
        self._recalls_made += 1
        self._recalls[self._recalls_made] = sender, wanted.number, now + RECALL_NS
        return (Recall(self._recalls_made, wanted.app, wanted.bundle),)

    def _recalled(self, recalled: Recalled) -> Effects:
        leader, number, _ = self._recalls.pop(recalled.number, ("", 0, 0))
        if leader not in self._greetings:
            return ()
        if recalled.error:
            return (self._evidence_page(leader, number, 0, True, error=recalled.error),)
        body, size = recalled.body, EVIDENCE_PAGE_SIZE
        slices = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
        last = len(slices) - 1
        return tuple(self._evidence_page(leader, number, at, at == last, part) for at, part in enumerate(slices))

    def _evidence_page(
        self, leader: str, number: int, page: int, last: bool, body: bytes = b"", error: str = ""
    ) -> Send:
        page_of = EvidencePage(number=number, node=self._config.node, page=page, last=last, body=body, error=error)
        return Send(leader, page_of)

    # ---- drills ------------------------------------------------------------------------------------------

    def _drill_wanted(self, sender: str, wanted: DrillWanted, now: int) -> Effects:
        if sender not in self._greetings:
            return ()
        effects: list[Effect] = []
        if not self._config.drills:
            error = "drills are off here: set drills = true in the agent's config"
        elif not self._config.prober:
            error = "this agent runs no prober"
        elif wanted.drill not in OUTCOMES or not is_drill(wanted.app):
            error = f"there is no drill {wanted.drill!r} named {wanted.app!r}"
        elif now < self._drill_until:
            error = f"another drill is {UNDER_WAY}, for {show_duration(self._drill_until - now)} more"
        else:
            error = ""
            self._drill_until = now + LENGTH_NS
            effects.append(Note("warning", "drill", {"drill": wanted.drill, "app": wanted.app, "leader": sender}))
            effects.append(StartDrill(wanted.drill, wanted.app))
        effects.append(Send(sender, DrillBegun(number=wanted.number, node=self._config.node, error=error)))
        return tuple(effects)

    # ---- greeting ----------------------------------------------------------------------------------------

    def _hello(self, greeting: _Greeting, now: int) -> Send:
        config = self._config
        if greeting.admitted is None:
            greeting.backoff_ns = min(greeting.backoff_ns * 2, config.hello_max_ns)
            wait = greeting.backoff_ns // 2 + self._rng.randrange(greeting.backoff_ns // 2 + 1)
        else:
            wait = HELLO_AGAIN_FACTOR * config.hello_max_ns
        greeting.hello_at = now + wait
        return Send(
            greeting.leader,
            Hello(
                incarnation=self.incarnation,
                interval_ns=config.interval_ns,
                version=config.version,
                boot_id=config.boot_id,
                echo_port=config.echo_port,
            ),
        )

    def _linked(self, link: Linked, now: int) -> Effects:
        greeting = self._greetings.get(link.peer)
        if greeting is None:
            return ()
        greeting.link(link, now)
        if link.up:
            greeting.backoff_ns = self._config.hello_min_ns
            greeting.hello_at = now
            greeting.admitted = None
            if self._vitals is not None:
                self._report_at = now
            return (Note("info", "leader-linked", {"leader": link.peer}),)
        was, greeting.admitted = greeting.admitted, None
        if link.refused:
            return (Note("warning", "leader-refused-our-key", {"leader": link.peer}),)
        return (Note("info", "leader-link-lost", {"leader": link.peer}),) if was is not None else ()

    def _admission(self, sender: str, admission: Admission, now: int) -> Effects:
        greeting = self._greetings.get(sender)
        if greeting is None:
            return ()
        if not admission.accepted:
            return (Note("warning", "not-admitted", {"leader": sender, "reason": admission.reason}),)
        known = greeting.admitted == admission.epoch
        greeting.admitted = admission.epoch
        greeting.echo_key = admission.echo_key
        greeting.backoff_ns = self._config.hello_min_ns
        greeting.hello_at = now + HELLO_AGAIN_FACTOR * self._config.hello_max_ns
        if known:
            return ()
        note = Note("info", "admitted", {"leader": sender})
        return (note, *self._report_now(now)) if self._vitals is not None else (note,)

    @property
    def admitted_by(self) -> tuple[str, ...]:
        """The leaders that have admitted this agent."""
        return tuple(g.leader for g in self._greetings.values() if g.admitted is not None)

    @property
    def echo_keys(self) -> tuple[bytes, ...]:
        """Keys agreed with leaders, for signed echo requests."""
        return tuple(g.echo_key for g in self._greetings.values() if g.echo_key)

    @property
    def config(self) -> AgentConfig:
        """The settings in force."""
        return self._config

    @property
    def sequence(self) -> int:
        """Beats sent so far."""
        return self._sequence

    # ---- questions ---------------------------------------------------------------------------------------

    def _ping(self, sender: str, ping: Ping) -> Effects:
        if sender not in self._greetings:
            return ()
        return (Send(sender, Pong(number=ping.number, incarnation=self.incarnation, sequence=self._sequence)),)

    def _relay(self, sender: str, relay: Relay, now: int) -> Effects:
        return self._relays.relay(sender, relay, now) if sender in self._greetings else ()

    def _account(self, sender: str, wanted: AccountWanted, now: int) -> Effects:
        greeting = self._greetings.get(sender)
        if greeting is None:
            return ()
        if not greeting.accounts.take(now):
            return self._refusals.add(sender, "too-often", now, "AccountWanted")
        page = self._diary.back(wanted.since_ns, now, max(0, now - self._next_beat))
        account = Account(
            number=wanted.number,
            incarnation=self.incarnation,
            covered_ns=page.length_ns + page.suspended_ns,
            loop_gap_max_ns=page.gap_max_ns,
            loop_gap_ns=page.gap_ns,
            run_delay_ns=page.run_delay_ns,
            throttled_ns=page.throttled_ns,
            suspended_ns=page.suspended_ns,
            beats=page.beats,
            links_lost=sum(at >= now - page.length_ns for at in greeting.lost_at),
        )
        return (Send(sender, account),)

    # ---- clocks ------------------------------------------------------------------------------------------

    def _suspended(self, suspended: Suspended) -> Effects:
        self._suspended_ns += suspended.suspended_ns
        self._diary.suspended(suspended.suspended_ns)
        return ()

    def _wall_time(self, wall: WallTime, now: int) -> Effects:
        """Nothing here goes by it; but whoever reads this host's logs wants to know that it stepped."""
        self._diary.turn(now)
        # Across a suspension the wall clock went on and the monotonic one did not; that is no step.
        step = self._wall.tell(wall.wall_ns, now + self._suspended_ns)
        return (Note("warning", "wall-jump", {"step": show_duration(step)}),) if step else ()

    # ---- reload ------------------------------------------------------------------------------------------

    def _reconfigured(self, config: AgentConfig, now: int) -> Effects:
        """Go on with other settings; incarnation and sequence stay, so no leader takes it for a restart."""
        self._config = config
        self._next_beat = min(self._next_beat, now + config.interval_ns)
        self._prober.reconfigure(config)
        kept = {leader: g for leader, g in self._greetings.items() if leader in config.leaders}
        self._greetings = {
            leader: kept.get(leader) or _Greeting(leader, now, config.hello_min_ns) for leader in config.leaders
        }
        return ()

    # ---- leaving -----------------------------------------------------------------------------------------

    def _terminate(self, now: int) -> Effects:
        if self._leaving_until is not None:
            return ()
        self._leaving_until = now + self._config.farewell_ns
        self._farewell_at = now
        return (*self._relays.end(), *self._wake_leaving(now))

    def _wake_leaving(self, now: int) -> Effects:
        waiting = [g for g in self._greetings.values() if not g.farewelled]
        if not waiting or now >= (self._leaving_until or 0):
            self._done = True
            left_unheard = tuple(g.leader for g in waiting)
            return (Note("info", "left", {"unacknowledged": left_unheard}), Exit())
        if now < self._farewell_at:
            return ()
        self._farewell_at = now + FAREWELL_RETRY_NS
        beat = self._beat(now, leaving=True)
        farewell = Farewell(incarnation=self.incarnation, sequence=beat.sequence)
        return (PublishBeat(beat), *(Send(g.leader, farewell) for g in waiting))

    def _farewell_ack(self, sender: str, ack: FarewellAck) -> Effects:
        greeting = self._greetings.get(sender)
        if greeting is None or ack.incarnation != self.incarnation or self._leaving_until is None:
            return ()
        greeting.farewelled = True
        if all(g.farewelled for g in self._greetings.values()):
            self._done = True
            return (Note("info", "left", {"unacknowledged": ()}), Exit())
        return ()


def _gist(vitals: Vitals) -> tuple[object, ...]:
    """The part of the vitals whose change is news: verdicts, not sentences, numbers and ages."""
    probes = [(probe.name, probe.health, probe.app) for probe in vitals.probes]
    apps = [(app.name, app.health, app.state, app.stall, app.bundle) for app in vitals.apps]
    return vitals.health, probes, apps


def _differs(before: HostFacts | None, after: HostFacts | None) -> bool:
    """True when `after` says something new, beyond the noise of its numbers; uptime alone is no news."""
    if before is None or after is None:
        return before is not after
    for name, noise in _NOISE.items():
        old, new = getattr(before, name), getattr(after, name)
        if (old is None) != (new is None) or (old is not None and abs(new - old) > noise):
            return True
    old_disks = {disk.mount: disk.used_percent for disk in before.disks}
    new_disks = {disk.mount: disk.used_percent for disk in after.disks}
    if old_disks.keys() != new_disks.keys():
        return True
    if any(abs(new_disks[mount] - old_disks[mount]) > 1.0 for mount in old_disks):
        return True
    quiet = ("cpu_count", "memory_total_bytes", "hostname", "kernel", "errors")
    return any(getattr(before, name) != getattr(after, name) for name in quiet)
