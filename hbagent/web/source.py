"""Where answers come from: what this package knows of the process that it shows."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Reply(msgspec.Struct, frozen=True):
    """What came of a question: a document, or why there is none."""

    body: bytes = b""
    error: str = ""


class Source(Protocol):
    """A core, as it can be asked from another thread. Each answer comes within a few seconds or is an error."""

    async def ask(self, what: str, **fields: str | int) -> Reply:
        """The JSON answer to a `messages.Query` of these fields."""

    async def metrics(self, openmetrics: bool) -> Reply:
        """What Prometheus is told: text of its own format, or OpenMetrics."""
