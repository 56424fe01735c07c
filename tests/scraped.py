"""Metrics as Prometheus reads them: parsed by its own client library, both formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

Series = tuple[str, tuple[tuple[str, str], ...]]


class Scraped:
    """The samples of one answer. Raises ValueError for what Prometheus would not read."""

    def __init__(self, body: bytes, openmetrics: bool = False) -> None:
        text = body.decode()
        parse: Callable[[str], Iterable[Any]] = openmetrics_families if openmetrics else text_families
        families = list(parse(text))
        self.names = [family.name for family in families]
        if len(set(self.names)) != len(self.names):
            raise ValueError("a family in two places")
        self.types = {family.name: family.type for family in families}
        self.samples: dict[Series, float] = {}
        for family in families:
            if not family.documentation:
                raise ValueError(f"{family.name} does not say what it means")
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                if key in self.samples:
                    raise ValueError(f"twice: {key}")
                self.samples[key] = sample.value

    def value(self, name: str, /, **labels: str) -> float:
        """The value of one series."""
        return self.samples[name, tuple(sorted(labels.items()))]

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of every series of a name."""
        return [dict(labels) for found, labels in self.samples if found == name]

    def of(self, name: str, /, **wanted: str) -> list[Mapping[str, Any]]:
        """The labels of the series of a name that have these."""
        return [found for found in self.labels(name) if wanted.items() <= found.items()]
