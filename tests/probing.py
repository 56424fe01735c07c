"""A prober core whose world is scripted: checks and examinations come back as told, time passes, applications speak.

`Host` answers what the core orders: each check after `check_ns` with what `results` says of that probe, each
examination after `examine_ns` with what `found` says of that application. What was told to the agent is in `told`.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from hbagent.core.checks import UnitCheck
from hbagent.core.config import AppConfig, ProbeConfig, ProberConfig
from hbagent.core.effects import (
    AskUnit,
    Drop,
    Effect,
    Effects,
    Examine,
    LookForBundles,
    Note,
    Remember,
    RestartUnit,
    RunCheck,
    TakeFacts,
    Tell,
    Watch,
)
from hbagent.core.messages import (
    Acted,
    AppRow,
    BundlesGone,
    CheckFinished,
    Examined,
    FactsTaken,
    HostFacts,
    Mark,
    Notified,
    ProbeResult,
    Remembered,
    UnitAnswered,
    Vitals,
    WallTime,
)
from hbagent.core.prober import ProberCore
from hbagent.core.states import Health, Stall
from hbagent.core.units import MILLISECOND, SECOND, seconds

from .build import WALL_NS

#: A core that is woken more often than this in a second turns in place.
WAKES_MAX = 400
APP_UID = 1000
APP_PID = 500


def probe(name: str = "web", **settings: Any) -> ProbeConfig:
    """A probe of a unit, each ten seconds."""
    return ProbeConfig(**{"name": name, "check": UnitCheck(unit=f"{name}.service"), **settings})


def app(name: str = "web", **settings: Any) -> AppConfig:
    return AppConfig(**{"name": name, **settings})


def said(*lines: str, pid: int = APP_PID, uid: int = APP_UID, **settings: Any) -> Notified:
    """A datagram with these KEY=VALUE lines."""
    fields = tuple((key, value) for key, _, value in (line.partition("=") for line in lines))
    return Notified(**{"pid": pid, "uid": uid, "gid": uid, "start": pid * 10, "fields": fields, **settings})


def registered(name: str = "web", pid: int = APP_PID, **settings: Any) -> Notified:
    """What `hbagent run-app` says when it has started a program."""
    lines = (f"X_HBAGENT_APP={name}", f"X_HBAGENT_MAIN={pid}")
    return said(*lines, pid=pid - 1, **{"main_uid": APP_UID, "main_start": pid * 10, **settings})


class Host:
    """One prober core and its scripted world."""

    def __init__(self, *probes: ProbeConfig, apps: tuple[AppConfig, ...] = (), seed: int = 1, **settings: Any) -> None:
        self.config = ProberConfig(probes=probes, apps=apps, **{"state_dir": "/state", **settings})
        self.core = ProberCore(self.config, random.Random(seed), 0)
        self.now = 0
        self.wall_ns = WALL_NS
        #: By probe: what its runs say, or a function of the run's number among its runs.
        self.results: dict[str, Health | CheckFinished | Callable[[int], CheckFinished]] = {}
        #: By application.
        self.found: dict[str, Stall | Examined] = {}
        self.check_ns = 5 * MILLISECOND
        self.examine_ns = 1200 * MILLISECOND
        self.restart_error = ""
        #: Numbers of bundles that somebody has deleted.
        self.gone: set[int] = set()
        #: By unit: what systemd says of the end of its process, and when; without it nothing comes.
        self.ends: dict[str, UnitAnswered] = {}
        self.ask_ns = 300 * MILLISECOND
        self.effects: list[tuple[int, Effect]] = []
        self.runs: dict[str, list[int]] = {}
        self.under_way = 0
        self.under_way_most = 0
        self._due: list[tuple[int, int, object]] = []
        self._made = 0
        self.give(WallTime(self.wall_ns))

    def remember(self, state: dict[str, Any] | None = None, alive: dict[int, int] | None = None) -> Host:
        """The first message: what an earlier life kept."""
        return self.give(Remembered(state=state or {}, alive=alive or {}))

    def give(self, message: object) -> Host:
        """Something arrives; then the core is woken whenever it wants, without time passing."""
        self._perform(self.core.receive("", message, self.now))
        return self.wait(0)

    def queue(self, *messages: object) -> Host:
        """Several things arrive before the core is woken."""
        for message in messages:
            self._perform(self.core.receive("", message, self.now))
        return self

    def wait(self, length_s: float) -> Host:
        """Let time pass."""
        end = self.now + seconds(length_s)
        for _ in range(int(WAKES_MAX * (1 + length_s))):
            deadline = self.core.deadline()
            at = min(deadline, self._due[0][0]) if self._due else deadline
            if at > end:
                self.now = end
                return self
            self.now = max(self.now, at)
            if self._due and self._due[0][0] <= self.now:
                message = heapq.heappop(self._due)[2]
                self.under_way -= isinstance(message, CheckFinished)
                self._perform(self.core.receive("", message, self.now))
            else:
                self._perform(self.core.wake(self.now))
        raise AssertionError("the core turns in place")

    def stop(self, length_s: float) -> Host:
        """The prober does not run for so long."""
        self.now += seconds(length_s)
        return self

    def _later(self, after_ns: int, message: object) -> None:
        self._made += 1
        heapq.heappush(self._due, (self.now + after_ns, self._made, message))

    def _perform(self, effects: Effects) -> None:
        for effect in effects:
            self.effects.append((self.now, effect))
            if isinstance(effect, RunCheck):
                self._check(effect)
            elif isinstance(effect, TakeFacts):
                self._later(MILLISECOND, FactsTaken(HostFacts(cpu_count=2)))
            elif isinstance(effect, Examine):
                found = self.found.get(effect.app, Stall.LOCK_WAIT)
                if isinstance(found, Stall):
                    found = Examined(run=0, stall=found, text=f"found {found.value}", bundle=f"b{effect.run}")
                self._later(self.examine_ns, _numbered(found, effect.run))
            elif isinstance(effect, LookForBundles):
                self._later(MILLISECOND, BundlesGone(tuple(number for number in effect.numbers if number in self.gone)))
            elif isinstance(effect, RestartUnit):
                self._later(100 * MILLISECOND, Acted(run=effect.run, error=self.restart_error))
            elif isinstance(effect, AskUnit):
                if effect.unit in self.ends:
                    self._later(self.ask_ns, _numbered(self.ends[effect.unit], effect.run))
            else:
                assert isinstance(effect, (Tell, Note, Watch, Drop, Remember)), effect

    def _check(self, order: RunCheck) -> None:
        self.runs.setdefault(order.name, []).append(self.now)
        self.under_way += 1
        self.under_way_most = max(self.under_way_most, self.under_way)
        result = self.results.get(order.name, Health.OK)
        if callable(result) and not isinstance(result, Health):
            result = result(len(self.runs[order.name]))
        if isinstance(result, Health):
            result = CheckFinished(run=0, health=result, text=f"it is {result.value}")
        after_ns = order.timeout_ns if result.timed_out else self.check_ns
        self._later(after_ns, _numbered(result, order.run))

    # ---- what came of it ---------------------------------------------------------------------------------

    def orders(self, kind: type) -> list[Any]:
        """Effects of a kind, in order."""
        return [effect for _, effect in self.effects if isinstance(effect, kind)]

    def notes(self, what: str) -> list[Note]:
        return [note for note in self.orders(Note) if note.what == what]

    @property
    def marks(self) -> list[int]:
        return [order.message.count for order in self.orders(Tell) if isinstance(order.message, Mark)]

    @property
    def told(self) -> list[tuple[int, Vitals]]:
        """What the agent was told, and when."""
        return [
            (at, effect.message)
            for at, effect in self.effects
            if isinstance(effect, Tell) and isinstance(effect.message, Vitals)
        ]

    @property
    def vitals(self) -> Vitals:
        return self.told[-1][1]

    def app(self, name: str = "web") -> AppRow:
        return next(row for row in self.vitals.apps if row.name == name)

    def probe(self, name: str = "web") -> ProbeResult:
        return next(row for row in self.vitals.probes if row.name == name)

    def changes(self, name: str = "web") -> list[tuple[Any, Health]]:
        """When the application's health was told to have changed, in seconds, and to what."""
        found: list[tuple[float, Health]] = []
        for at, vitals in self.told:
            for row in vitals.apps:
                if row.name == name and (not found or found[-1][1] is not row.health):
                    found.append((round(at / SECOND, 3), row.health))
        return found


def _numbered(message: Any, run: int) -> Any:
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return type(message)(**{**fields, "run": run})
