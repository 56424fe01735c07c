"""One simulated run from its scenario to its result."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator

import msgspec

from .faults import CATALOG, schedule
from .scenario import Scenario
from .world import World


class Percentiles(msgspec.Struct, frozen=True):
    """Times in seconds; None when nothing was measured."""

    count: int
    p50: float | None
    p99: float | None
    max: float | None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to. All but `elapsed_s` and `speed` depend on the scenario alone."""

    schema: int = 1
    command: str
    hosts: int
    racks: int
    leaders: int
    seconds: int
    seed: int
    loss: float
    faults: list[str]
    #: Fingerprint of everything that happened.
    trace: str
    events: int
    frames_sent: int
    frames_lost: int
    beats: int
    #: Agents that stopped or stood still.
    stops: int
    #: Events at the root by kind.
    kinds: dict[str, int]
    hook_runs: int
    #: Seconds from an agent's stop to its verdict.
    suspect_s: Percentiles
    dead_s: Percentiles
    dead_at_root_s: Percentiles
    violation_count: int
    violations: list[str]
    #: Real seconds that the run took, and virtual seconds to each.
    elapsed_s: float
    speed: float

    @property
    def ok(self) -> bool:
        """True when every invariant held."""
        return self.violation_count == 0


def simulate(scenario: Scenario) -> Result:
    """Run `scenario`. Raises ValueError when it cannot be run: see `Scenario.problem`."""
    problem = scenario.problem()
    unknown = [name for name in scenario.faults if name not in CATALOG]
    if unknown:
        problem = f"fault {unknown[0]!r} is not one of {', '.join(CATALOG)}"
    if problem:
        raise ValueError(problem)
    begun = time.perf_counter()
    with _no_collector():
        world = World(scenario)
        play(world)
    return summarize(world, time.perf_counter() - begun)


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """A run makes millions of small objects and no cycles among them; looking for some costs a third of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def play(world: World) -> None:
    """Let a new world run to its end, and judge it."""
    plan = schedule(world)
    world.start_all()
    world.run(world.scenario.end_ns)
    world.checker.finish(world.now, plan.heal_by)


def summarize(world: World, elapsed_s: float) -> Result:
    """The result of a world that has been played."""
    scenario, checker, network = world.scenario, world.checker, world.network
    return Result(
        command=scenario.command(),
        hosts=scenario.hosts,
        racks=scenario.racks,
        leaders=scenario.leaders,
        seconds=scenario.seconds,
        seed=scenario.seed,
        loss=scenario.loss,
        faults=list(scenario.faults),
        trace=world.trace.digest(),
        events=world.events,
        frames_sent=network.sent,
        frames_lost=network.lost,
        beats=world.beats,
        stops=checker.stopped,
        kinds=dict(sorted(checker.kinds.items())),
        hook_runs=world.hook_runs,
        suspect_s=percentiles(checker.suspected),
        dead_s=percentiles(checker.detected),
        dead_at_root_s=percentiles(checker.detected_root),
        violation_count=checker.count,
        violations=list(checker.violations),
        elapsed_s=round(elapsed_s, 3),
        speed=round(scenario.seconds / max(elapsed_s, 1e-9), 1),
    )


def percentiles(times_ns: list[int]) -> Percentiles:
    """Median, 99th percentile (nearest rank) and largest of `times_ns`, in seconds."""
    if not times_ns:
        return Percentiles(0, None, None, None)
    ordered = sorted(times_ns)

    def rank(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e9, 6)

    return Percentiles(len(ordered), rank(0.5), rank(0.99), rank(1.0))
