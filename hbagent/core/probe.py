"""One probe: when it runs, what its runs have come to, what it hands from run to run."""

from __future__ import annotations

import random
from typing import Any

from .config import ProbeConfig
from .effects import RunCheck
from .messages import CheckFinished, Measure, ProbeResult
from .standing import Standing
from .states import Health
from .units import SECOND, show_duration

#: The first run comes within this, spread, so that two hundred probes do not start together.
FIRST_NS = 10 * SECOND
#: Runs are this much off their interval either way, so that probes of many hosts do not meet at a server for ever.
JITTER = 0.05
#: A default probe that found nothing to look at looks again after so many intervals.
ABSENT_FACTOR = 20
_HEALTHS = tuple(health.value for health in Health)


class Probe:
    """The schedule and the standing of one probe."""

    def __init__(self, config: ProbeConfig, rng: random.Random, now: int) -> None:
        self.config = config
        self.standing = Standing(now)
        self.text = ""
        self.measures: tuple[Measure, ...] = ()
        self.memory: dict[str, Any] = {}
        #: False: there is nothing on this host that it could look at.
        self.applies = True
        #: The last run got no answer in time.
        self.timed_out = False
        self.started_at = now
        self.finished_at: int | None = None
        #: Number of the run under way; None when there is none.
        self.run: int | None = None
        self.due_at = now + rng.randrange(min(config.interval_ns, FIRST_NS))
        self._rng = rng

    def start(self, run: int) -> RunCheck:
        """Order the run that is due."""
        config = self.config
        self.run = run
        return RunCheck(run=run, name=config.name, check=config.check, timeout_ns=config.timeout_ns, memory=self.memory)

    def finish(self, finished: CheckFinished, now: int) -> bool:
        """The run has ended; True when the hard state changed."""
        config = self.config
        self.run = None
        self.finished_at = now
        self.memory = finished.memory
        self.applies = finished.applies or not config.default
        if not self.applies:
            changed = self.standing.health is not None
            self.standing = Standing(now)
            self.due_at = now + ABSENT_FACTOR * config.interval_ns
            return changed
        self.timed_out = finished.timed_out
        self.text, self.measures = finished.text, finished.measures
        found = finished.health
        if finished.timed_out:
            found = config.on_timeout
            self.text = f"no answer within {show_duration(config.timeout_ns)}" + (f": {self.text}" if self.text else "")
        changed = self.standing.take(
            found,
            now,
            rise=config.rise,
            fall=config.fall,
            patient=now < self.started_at + config.start_grace_ns,
        )
        interval = config.interval_ns if self.standing.soft is None else config.retry_interval_ns
        self.due_at = now + round(interval * self._rng.uniform(1 - JITTER, 1 + JITTER))
        return changed

    def row(self, now: int) -> ProbeResult | None:
        """Its line in a report; None while nothing is known."""
        standing, config = self.standing, self.config
        if standing.health is None or not self.applies:
            return None
        return ProbeResult(
            name=config.name,
            health=standing.health,
            text=self.text,
            age_ns=now - self.finished_at if self.finished_at is not None else 0,
            kind=config.check.__struct_config__.tag or "",  # type: ignore[arg-type]
            soft=standing.soft,
            attempts=standing.attempts,
            since_ns=now - standing.since,
            app=config.app,
            measures=self.measures,
        )

    def keep(self, now: int) -> dict[str, Any]:
        """What the next life of the prober must know."""
        health = self.standing.health
        return {
            "health": health.value if health is not None else None,
            "text": self.text,
            "memory": self.memory,
            "since_ns": now - self.standing.since,
        }

    def restore(self, kept: object, now: int) -> None:
        """Go on where an earlier life ended; what makes no sense is passed over."""
        if not isinstance(kept, dict):
            return
        health, memory, since_ns = kept.get("health"), kept.get("memory"), kept.get("since_ns")
        if health in _HEALTHS:
            self.standing.restore(Health(health), now - since_ns if isinstance(since_ns, int) else now)
            self.text = str(kept.get("text", ""))
        if isinstance(memory, dict):
            self.memory = memory

    @property
    def silent(self) -> bool:
        """What it looks at does not answer, and that is believed."""
        return self.timed_out and self.standing.health not in (None, Health.OK)
