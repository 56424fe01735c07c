"""A host's own numbers for Prometheus: its probes and applications, in a file that node_exporter reads.

An agent listens nowhere. So what its prober knows goes the way that batch jobs go: into node_exporter's directory of
text files. There no sample has a label for the host, since the one that reads the file knows which host it is on, and
none has a time of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from .exposition import Exposition, escaped, labels
from .labels import line
from .messages import AppRow, ProbeResult, Vitals
from .units import SECOND

#: Numbers of probes, all together: a megabyte would be 10,000 lines, and no host measures a tenth of them.
MEASURES_MAX = 1000
#: Longest word of a plugin as a label.
WORD_MAX = 100


def render(vitals: Vitals, node: str, now_wall_ns: int) -> bytes:
    """All that the prober knows now. It is text of the format 0.0.4, which node_exporter reads."""
    out = Exposition()
    out.info("hbagent_node", "The host, as hbagent names it.", labels(node=node))
    out.gauge(
        "hbagent_health",
        "The health that this host has is 1; the others have no sample.",
        [(labels(state=vitals.health.value), 1)],
    )
    _probes(out, vitals.probes, now_wall_ns)
    _apps(out, vitals.apps)
    examined = [("", vitals.examinations)]
    out.counter("hbagent_examinations", "Examinations of applications, in this life of the prober.", examined)
    put_off = [("", vitals.examinations_put_off)]
    out.counter(
        "hbagent_examinations_put_off", "How often one had to wait: an application was examined too often.", put_off
    )
    return out.text()


def _probes(out: Exposition, probes: Iterable[ProbeResult], now_wall_ns: int) -> None:
    rows = [(f'{{probe="{_word(probe.name)}"', probe) for probe in probes]
    out.gauge(
        "hbagent_probe_status",
        "The hard state that a probe has is 1; the others have no sample.",
        [(f'{of},kind="{_word(probe.kind)}",state="{probe.health.value}"}}', 1) for of, probe in rows],
    )
    out.gauge(
        "hbagent_probe_last_run_timestamp_seconds",
        "When the newest run of a probe ended, Unix time.",
        [(of + "}", round((now_wall_ns - probe.age_ns) / SECOND, 3)) for of, probe in rows],
    )
    # Once each: a plugin may name two numbers alike, and two samples of one name and labels spoil the whole file.
    measures: dict[str, float | None] = {}
    for of, probe in rows:
        for measure in probe.measures:
            if len(measures) < MEASURES_MAX:
                unit = f',unit="{_word(measure.unit)}"' if measure.unit else ""
                measures[f'{of},measure="{_word(measure.label)}"{unit}}}'] = measure.value
    out.gauge("hbagent_probe_measure", "What a probe measured, in the unit that it says.", measures.items())


def _apps(out: Exposition, apps: Iterable[AppRow]) -> None:
    rows = [(f'{{app="{_word(app.name)}"', app) for app in apps]
    out.gauge(
        "hbagent_app_health",
        "The health that an application has is 1; the others have no sample.",
        [(f'{of},state="{app.health.value}"}}', 1) for of, app in rows],
    )
    out.gauge(
        "hbagent_app_state",
        "The state that an application is in is 1; the others have no sample.",
        [(f'{of},state="{app.state.value}"}}', 1) for of, app in rows],
    )
    marks = {f'{of},mark="{_word(mark.name)}"}}': mark for of, app in rows for mark in app.marks}
    made = [(of, mark.count) for of, mark in marks.items()]
    out.counter("hbagent_app_progress", "Steps that a thread says it has made.", made)
    queued = [(of, mark.queued) for of, mark in marks.items()]
    out.gauge("hbagent_app_queued", "Work that waits for a thread.", queued)


def _word(text: str) -> str:
    """A word of a plugin or an application, which may say anything, as a label's value."""
    return escaped(line(text)[:WORD_MAX])
