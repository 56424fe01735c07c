"""The agent's side of its prober: what it is told, what it says, and when it is wanted."""

from __future__ import annotations

from typing import Any

from hbagent.core.config import ProberConfig
from hbagent.core.effects import KillProber, Recall, StartDrill, StartProber
from hbagent.core.messages import ProberEnded, Recalled

from .companion import Companion
from .defects import Tell
from .driver import Driver
from .link import Configure, Line, Word

_LEVELS = ("debug", "info", "warning", "error")


class ProbeHalf:
    """The prober as its agent sees it; performs its effects."""

    def __init__(self, driver: Driver, config: ProberConfig, node: str, tell: Tell) -> None:
        self._driver = driver
        self._config = config
        self._tell = tell
        self._prober = Companion(driver, ("hbagent.role.prober", node), Word, self._heard, self._ended)

    @property
    def pid(self) -> int | None:
        """The prober's process; None while there is none."""
        return self._prober.pid

    def start(self, effect: StartProber) -> None:
        """Start the process; `ProberEnded` follows, whenever that is."""
        self._prober.start(Configure(self._config))

    def kill(self, effect: KillProber) -> None:
        """Kill the process, which is stuck; `ProberEnded` follows soon."""
        self._prober.kill()

    def recall(self, effect: Recall) -> None:
        """Ask for an evidence bundle."""
        if not self._prober.send(effect):
            self._driver.feed("", Recalled(number=effect.number, error="the prober is not running"))

    def start_drill(self, effect: StartDrill) -> None:
        """Have a drill started; one that is not, nobody will hear of."""
        self._prober.send(effect)

    def reconfigure(self, config: ProberConfig, wanted: bool) -> None:
        """Other settings are in force. A prober that is not `wanted` any more is ended."""
        changed, self._config = config != self._config, config
        if not wanted:
            self._prober.dismiss("not wanted any more")
        elif changed:
            self._prober.send(Configure(config))

    def close(self) -> None:
        """End the prober and everything that it started, within a second or two. The loop is over by now."""
        self._prober.close()

    def _heard(self, word: Any) -> None:
        if isinstance(word, Line):
            self._tell(word.level if word.level in _LEVELS else "warning", word.what, dict(word.fields))
        else:
            self._driver.feed("", word)

    def _ended(self, reason: str) -> None:
        self._driver.feed("", ProberEnded(reason))
