"""The probes that are on without being configured.

The host's own measures, seldom and patiently: whatever they say, they were not asked to. One that finds nothing to
look at leaves itself out. A probe of the same name in the config file takes the place of the one here.
"""

from __future__ import annotations

from hbagent.core.checks import HostCheck
from hbagent.core.config import ProbeConfig
from hbagent.core.states import Health
from hbagent.core.units import SECOND

#: Measures of something that happened once and is held for minutes: to be believed at once.
HELD = ("oom", "clock", "readonly")
#: In the order of `probes.host.MEASURES`, which is not imported here: the agent reads this file, and that one is for
#: the processes that look.
NAMES = (
    *("disk", "inodes", "memory", "swap", "load", "psi-cpu", "psi-memory", "psi-io", "oom", "readonly", "units"),
    *("clock", "fds", "pids"),
)


def _probe(name: str) -> ProbeConfig:
    return ProbeConfig(
        name=name,
        check=HostCheck(what=name),
        interval_ns=30 * SECOND,
        # systemctl on a busy host takes seconds.
        timeout_ns=10 * SECOND,
        retry_interval_ns=10 * SECOND,
        rise=1 if name in HELD else 2,
        fall=1 if name in HELD else 3,
        on_timeout=Health.UNKNOWN,
        default=True,
    )


#: What runs on a host of which nothing is configured.
PROBES: tuple[ProbeConfig, ...] = tuple(_probe(name) for name in NAMES)
