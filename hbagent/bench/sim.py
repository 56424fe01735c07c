"""How much faster than real time one process simulates a datacenter."""

from __future__ import annotations

from hbagent.sim.run import simulate
from hbagent.sim.scenario import Scenario

HOSTS, RACKS, SECONDS = 10_000, 250, 60


def measure(hosts: int = HOSTS, racks: int = RACKS, seconds: int = SECONDS) -> dict[str, float]:
    """All figures of `hbagent bench sim`."""
    result = simulate(Scenario(hosts=hosts, racks=racks, seconds=seconds))
    return {
        "real_time_ratio": round(result.speed, 2),
        "elapsed_s": round(result.elapsed_s, 2),
        "virtual_s": seconds,
        "hosts": hosts,
        "racks": racks,
        "beats": result.beats,
        "events": result.events,
        "beats_per_s": round(result.beats / result.elapsed_s),
        "violations": result.violation_count,
    }
