"""Numbers in the two texts that Prometheus reads: its own format 0.0.4, and OpenMetrics 1.0.

A family is a name, what it means, and its samples, all in one place of the text. The two formats differ in little: in
OpenMetrics a counter's family has no `_total`, and the text ends with `# EOF`. The caller names counters without it.

Label values may come from anywhere: whatever is in them, a sample stays one line.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping

import msgspec

#: What the answer to a scrape says that it is.
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n", ord("\r"): " "}


class ProcessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel says of this process; None: it could not be read."""

    cpu_s: float | None = None
    resident_bytes: int | None = None
    virtual_bytes: int | None = None
    open_fds: int | None = None
    fds_max: int | None = None
    threads: int | None = None
    #: Unix time.
    started_s: float | None = None
    #: How long the newest transaction of the store took.
    commit_s: float | None = None
    #: Questions about history that the store's worker answered, and those that the reader beside it did.
    reads: tuple[int, int] | None = None
    #: Exceptions that nobody expected.
    defects: int = 0
    #: While the own key is changed: peers that use the present one, and those that use the next one alone.
    rotation: tuple[int, int] | None = None


class Exposition:
    """One answer to a scrape, as it grows."""

    def __init__(self, openmetrics: bool = False) -> None:
        self.openmetrics = openmetrics
        self._parts: list[bytes] = []

    def gauge(self, name: str, meaning: str, samples: Iterable[tuple[str, float | None]]) -> None:
        """A number that goes up and down. Samples are labels (of `labels`) and a value; one of None is left out."""
        found = [f"{name}{of} {number(value)}\n" for of, value in samples if value is not None]
        self.lines(name, meaning, "gauge", found)

    def counter(self, name: str, meaning: str, samples: Iterable[tuple[str, float | None]]) -> None:
        """A number that only rises; `name` is without `_total`."""
        found = [f"{name}_total{of} {number(value)}\n" for of, value in samples if value is not None]
        self.lines(name, meaning, "counter", found)

    def info(self, name: str, meaning: str, of: str) -> None:
        """Words about the process; `name` is without `_info`."""
        kind, family = ("info", name) if self.openmetrics else ("gauge", f"{name}_info")
        self.lines(family, meaning, kind, [f"{name}_info{of} 1\n"])

    def histogram(self, name: str, meaning: str, samples: Iterable[tuple[str, Histogram]]) -> None:
        """How values are spread."""
        found: list[str] = []
        for of, histogram in samples:
            head = of[:-1] + "," if of else "{"
            total = 0
            for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
                total += count
                found.append(f'{name}_bucket{head}le="{number(float(bound))}"}} {total}\n')
            found += [f"{name}_sum{of} {number(histogram.sum)}\n", f"{name}_count{of} {total}\n"]
        self.lines(name, meaning, "histogram", found)

    def lines(self, name: str, meaning: str, kind: str, samples: list[str]) -> None:
        """A family of samples that are text already; one without any is left out."""
        if not samples:
            return
        if kind == "counter" and not self.openmetrics:
            name = f"{name}_total"
        head = f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n"
        self._parts.append((head + "".join(samples)).encode("utf-8", "replace"))

    def process(self, facts: ProcessFacts) -> None:
        """The process, under the names that every exporter uses, and what only its own loop knows."""
        self.counter("process_cpu_seconds", "User and system CPU time spent.", [("", facts.cpu_s)])
        self.gauge("process_resident_memory_bytes", "Resident memory.", [("", facts.resident_bytes)])
        self.gauge("process_virtual_memory_bytes", "Virtual memory.", [("", facts.virtual_bytes)])
        self.gauge("process_open_fds", "Open file descriptors.", [("", facts.open_fds)])
        self.gauge("process_max_fds", "Most file descriptors that may be open.", [("", facts.fds_max)])
        self.gauge("process_threads", "Threads.", [("", facts.threads)])
        self.gauge("process_start_time_seconds", "When the process started, Unix time.", [("", facts.started_s)])
        self.counter("hbagent_defects", "Exceptions that nobody expected.", [("", facts.defects)])
        by_key = zip(("old", "new"), facts.rotation or (), strict=False)
        self.gauge(
            "hbagent_rotation_peers",
            "Peers by which key of this process they use, while that key is changed.",
            [(labels(key=key), count) for key, count in by_key],
        )

    def text(self, *, more: bool = False) -> bytes:
        """All of it. With `more`, other families of the same answer follow."""
        end = b"# EOF\n" if self.openmetrics and not more else b""
        return b"".join((*self._parts, end))


class Histogram:
    """Counts of values by upper bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        #: Not summed up; the last one is of what lies above all bounds.
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Rising:
    """The sum of counters that begin again with their sources' lives, as one that never falls."""

    __slots__ = ("_seen", "total")

    def __init__(self) -> None:
        self.total = 0
        self._seen: dict[str, int] = {}

    def take(self, values: Mapping[str, int]) -> int:
        """The newest values, by source; returns the sum of all that was ever counted."""
        for source, value in values.items():
            before = self._seen.get(source, 0)
            self.total += value - before if value >= before else value
        self._seen = dict(values)
        return self.total


def labels(**values: str | None) -> str:
    """A set of labels as text; empty ones are none."""
    found = [f'{name}="{escaped(value)}"' for name, value in values.items() if value]
    return "{" + ",".join(found) + "}" if found else ""


def escaped(value: str) -> str:
    """A label's value between its quotes."""
    return value.translate(_ESCAPES)


def number(value: float) -> str:
    """A value as both formats have it."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    # A number that is whole may be an int, or True.
    return "NaN" if math.isnan(value) else repr(value + 0)


def wants_openmetrics(accept: str) -> bool:
    """True when an `Accept` header prefers OpenMetrics 1.0 to plain text."""
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0, "*/*": 0.0}
    for part in accept.split(","):
        kind, *parameters = [word.strip().lower() for word in part.split(";")]
        if kind not in best or (kind.startswith("application/") and "version=0.0.1" in parameters):
            continue
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        best[kind] = max(best[kind], weight)
    asked = best["application/openmetrics-text"]
    return asked > 0 and asked >= best["text/plain"]
