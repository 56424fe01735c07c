"""SIGHUP: the config file is read again by a worker, and taken over by the loop, or refused and told.

A bad file changes nothing, and no socket is bound anew, so nothing on its way is lost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from .defects import Tell
from .driver import Driver
from .settings import ConfigError
from .worker import Worker

S = TypeVar("S")


class Reload(Generic[S]):
    """Reads `path` with `load`, which raises ConfigError, and hands the settings to `apply`."""

    def __init__(
        self, path: Path, load: Callable[[Path], S], apply: Callable[[S], None], driver: Driver, tell: Tell
    ) -> None:
        self._path = path
        self._load = load
        self._apply = apply
        self._driver = driver
        self._tell = tell
        self._reading = False
        self._again = False

    def start(self, worker: Worker) -> None:
        """In the loop's thread. What is asked for while a file is being read makes it read once more."""
        if self._reading:
            self._again = True
            return
        self._reading = worker.submit(functools.partial(self._read, worker))
        if not self._reading:
            self._tell("error", "reload-failed", {"error": "the worker that reads files is stuck"})
            self._driver.reload_done()

    def _read(self, worker: Worker) -> None:
        """In the worker's thread."""
        outcome: Any
        try:
            outcome = self._load(self._path)
        except Exception as error:
            outcome = error
        self._driver.mailbox.post(functools.partial(self._done, worker, outcome), owed=True)

    def _done(self, worker: Worker, outcome: Any) -> None:
        self._reading = False
        if self._again:
            self._again = False
            self.start(worker)
            return
        try:
            self._take_over(outcome)
        finally:
            self._driver.reload_done()

    def _take_over(self, outcome: Any) -> None:
        if isinstance(outcome, ConfigError):
            for problem in outcome.problems:
                self._tell("error", "config-refused", {"problem": str(problem)})
            return
        try:
            if isinstance(outcome, Exception):
                raise outcome
            self._apply(outcome)
        except Exception as error:
            self._tell("error", "reload-failed", {"error": repr(error)})
            raise
        self._tell("info", "reloaded", {"file": str(self._path)})


def needs_restart(old: object, new: object, names: tuple[str, ...], tell: Tell) -> None:
    """Say which of these settings changed and are only looked at when the daemon starts."""
    for name in names:
        if getattr(old, name) != getattr(new, name):
            tell("warning", "needs-restart", {"setting": name})
