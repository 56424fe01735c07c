"""Is a file there, fresh and large enough, or gone as it should be?

Age is that of its content, by the wall clock. A time in the future makes every age small and would hide that nothing
is written any more, so it is a WARNING. What the agent's sandbox hides is UNKNOWN, not missing.
"""

from __future__ import annotations

import os
import time
from typing import Any

from hbagent.core.checks import FileCheck
from hbagent.core.messages import CheckFinished, Measure
from hbagent.core.states import Health
from hbagent.core.units import SECOND, show_duration

from . import mounts
from .outcome import finished, judge, show_bytes

#: Clocks of hosts that share a filesystem differ; more than this is none of that.
FUTURE_S = 60.0


def look(check: FileCheck, timeout_ns: int, memory: dict[str, Any]) -> CheckFinished:
    """Look once."""
    hidden = mounts.hidden(check.path)
    if hidden:
        return finished(Health.UNKNOWN, hidden)
    try:
        found = os.stat(check.path)
    except (FileNotFoundError, NotADirectoryError):
        if check.absent:
            return finished(Health.OK, f"{check.path} does not exist")
        return finished(Health.CRITICAL, f"{check.path} does not exist")
    age = time.time() - found.st_mtime
    shown = show_duration(int(max(0.0, age) * SECOND))
    warning = check.warning_age_ns / SECOND if check.warning_age_ns else None
    critical = check.critical_age_ns / SECOND if check.critical_age_ns else None
    measures = [
        Measure(label="age", value=round(age, 3), unit="s", warning=_range(warning), critical=_range(critical)),
        Measure(
            label="size",
            value=found.st_size,
            unit="B",
            critical=f"{check.size_min}:" if check.size_min else "",
            least=0,
        ),
    ]
    if check.absent:
        return finished(Health.CRITICAL, f"{check.path} exists; its content is {shown} old", measures)
    if found.st_size < check.size_min:
        text = f"{check.path} has {show_bytes(found.st_size)}, at least {show_bytes(check.size_min)} wanted"
        return finished(Health.CRITICAL, text, measures)
    health = judge(age, warning, critical)
    if health is Health.OK and age < -FUTURE_S and (warning or critical):
        ahead = show_duration(int(-age * SECOND))
        return finished(Health.WARNING, f"{check.path} was written {ahead} in the future: a clock is wrong", measures)
    return finished(health, f"{check.path} is {shown} old, {show_bytes(found.st_size)}", measures)


def _range(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
