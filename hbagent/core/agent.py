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
from .effects import Effect, Effects, Exit, Note, Publish, PublishBeat, Send, TakeFacts
from .messages import (
    Account,
    AccountWanted,
    Admission,
    Answered,
    Beat,
    Effort,
    FactsTaken,
    Farewell,
    FarewellAck,
    Hello,
    HostFacts,
    Linked,
    Ping,
    Pong,
    Reconfigured,
    Refused,
    Relay,
    Report,
    ReportWanted,
    Suspended,
    Terminate,
    WallTime,
)
from .refusals import Refusals
from .relays import Relays
from .states import Health
from .units import MILLISECOND, MINUTE, show_duration
from .wallclock import WallClock

#: A leaving agent repeats its farewell this often until it is acknowledged.
FAREWELL_RETRY_NS = 100 * MILLISECOND
#: An admitted agent greets again this often, so that a leader that lost its memory learns of it.
HELLO_AGAIN_FACTOR = 5
#: Accounts that one leader may ask for: it wants one each time that the node was silent and is back.
ACCOUNTS_PER_MINUTE = 10
#: Lost connections remembered of each leader; a connection that is lost more often within one silence is as bad.
LINKS_LOST_MAX = 8
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

    def link(self, up: bool, now: int) -> None:
        """The connection came or went."""
        # One that comes up again was lost, also when nobody told of it.
        if self.linked:
            self.lost_at = [*self.lost_at[1 - LINKS_LOST_MAX :], now]
        self.linked = up


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
        self._facts: HostFacts | None = None
        self._facts_at = now
        self._taking_since: int | None = None
        self._progress = 0
        self._report: Report | None = None
        self._report_number = 0
        self._report_at: int | None = None
        self._report_soon = False
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
        if isinstance(message, FactsTaken):
            return self._facts_taken(message.facts, now)
        if isinstance(message, Admission):
            return self._admission(sender, message, now)
        if isinstance(message, FarewellAck):
            return self._farewell_ack(sender, message)
        if isinstance(message, ReportWanted):
            return (Publish(self._report),) if self._report is not None else ()
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
            effects.append(PublishBeat(self._beat(now)))
        effects += self._relays.wake(now)
        if self._taking_since is None and now >= self._facts_at:
            self._taking_since = now
            effects.append(TakeFacts())
        if self._report is not None and (self._report_soon or now >= (self._report_at or 0)):
            self._report_soon = False
            self._report_at = now + self._config.report_interval_ns
            effects.append(Publish(self._report))
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
        if self._taking_since is None and self._facts_at < at:
            at = self._facts_at
        if self._report is not None and self._report_at is not None and self._report_at < at:
            at = self._report_at
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
            progress=self._progress & _U32,
            health_digest=self._report.digest if self._report is not None else 0,
            leaving=leaving,
        )

    # ---- reports -----------------------------------------------------------------------------------------

    def _facts_taken(self, facts: HostFacts, now: int) -> Effects:
        self._taking_since = None
        self._facts_at = now + self._config.facts_interval_ns
        self._progress += 1
        if self._facts is not None and not _differs(self._facts, facts):
            return ()
        self._facts = facts
        self._report_number += 1
        report = Report(incarnation=self.incarnation, number=self._report_number, facts=facts, health=Health.OK)
        digest = crc32(msgspec.msgpack.encode((report.health, report.probes)))
        self._report = msgspec.structs.replace(report, digest=digest)
        self._report_at = now + self._config.report_interval_ns
        return (Publish(self._report),)

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
        greeting.link(link.up, now)
        if link.up:
            greeting.backoff_ns = self._config.hello_min_ns
            greeting.hello_at = now
            greeting.admitted = None
            self._report_soon = self._report is not None
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
        return (note, Publish(self._report)) if self._report is not None else (note,)

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
        self._facts_at = min(self._facts_at, now + config.facts_interval_ns)
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


def _differs(before: HostFacts, after: HostFacts) -> bool:
    """True when `after` says something new, beyond the noise of its numbers; uptime alone is no news."""
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
