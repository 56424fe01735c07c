"""Seeds times faults, judged by the checker; and that a run is a function of its scenario.

A failure prints the line that repeats it. `HBAGENT_SEEDS` sets how many seeds the slow tests try of each fault.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hbagent.sim.faults import CATALOG
from hbagent.sim.run import Result, simulate
from hbagent.sim.scenario import Scenario

#: The faults that every change is tried with; the others have fewer seeds in the fast suite. The slow one tries all of
#: these seeds too, and more.
MAIN = ("quiet", "loss", "partition", "leader-restart", "observer-pause")
OTHER = tuple(name for name in CATALOG if name not in MAIN)
#: Several faults at once find what none does alone.
MIXED = (
    ("leader-restart", "partition", "loss", "agent-crash", "observer-pause", "root-restart", "app-stuck"),
    (
        *("observer-pause", "agent-pause", "duplicate", "delay", "goodbye", "disk-trouble", "clock-step"),
        *("root-pause", "app-stuck", "prober-stuck"),
    ),
)
#: What no operator has on one day: every fault there is, at once, on few hosts. Nothing of it excuses a wrong word.
EVERYTHING = tuple(CATALOG)
SEEDS = int(os.environ.get("HBAGENT_SEEDS", "40"))
ROOT = Path(__file__).resolve().parent.parent.parent


def assert_holds(scenario: Scenario) -> Result:
    result = simulate(scenario)
    assert result.ok, "\n".join([result.command, *result.violations[:10]])
    return result


@pytest.mark.parametrize("fault", MAIN)
def test_every_invariant_holds(fault: str) -> None:
    for seed in range(4):
        assert_holds(Scenario(seed=seed, faults=(fault,)))


@pytest.mark.parametrize("fault", OTHER)
def test_every_invariant_holds_with_the_other_faults(fault: str) -> None:
    assert_holds(Scenario(seed=1, faults=(fault,)))


@pytest.mark.parametrize("faults", MIXED, ids=("crashes", "troubles"))
@pytest.mark.parametrize("leaders", [1, 2])
def test_every_invariant_holds_with_several_faults_at_once(faults: tuple[str, ...], leaders: int) -> None:
    for seed in range(2):
        assert_holds(Scenario(seed=seed, faults=faults, leaders=leaders))


@pytest.mark.parametrize(("leaders", "seeds"), [(1, 6), (2, 2)])
def test_every_invariant_holds_with_all_faults_at_once(leaders: int, seeds: int) -> None:
    for seed in range(seeds):
        assert_holds(Scenario(seed=seed, faults=EVERYTHING, leaders=leaders))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("leaders", [1, 2])
def test_every_invariant_holds_with_all_faults_at_once_for_many_seeds(leaders: int) -> None:
    for seed in range(5 * SEEDS if leaders == 1 else SEEDS):
        assert_holds(Scenario(seed=seed, faults=EVERYTHING, leaders=leaders))


def test_seeds_that_once_showed_a_defect_of_the_product_show_it_no_more() -> None:
    # A beat that was sent before an answer and came after it took the proof of life back: dead 9 ms too early.
    assert_holds(Scenario(seed=550, faults=("neighbour-liar",)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("leaders", [1, 2])
@pytest.mark.parametrize("faults", [*[(name,) for name in CATALOG], *MIXED], ids="+".join)
def test_every_invariant_holds_for_many_seeds(faults: tuple[str, ...], leaders: int) -> None:
    for seed in range(SEEDS if leaders == 1 else SEEDS // 4):
        assert_holds(Scenario(seed=seed, faults=faults, leaders=leaders))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("interval_ms", [100, 250, 3000])
def test_every_invariant_holds_at_other_intervals(interval_ms: int) -> None:
    for seed in range(10):
        for fault in ("quiet", "partition", "observer-pause", "leader-restart"):
            interval_ns = interval_ms * 1_000_000
            assert_holds(Scenario(seed=seed, faults=(fault,), interval_ns=interval_ns, seconds=120))


def test_every_stopped_node_is_dead_at_its_leader_and_at_the_root() -> None:
    result = assert_holds(Scenario(hosts=64, racks=4, seed=3))
    assert result.stops == result.dead_s.count == result.dead_at_root_s.count == result.kinds["node-dead"] >= 7
    # Their hosts refuse what their agents had answered: that is proof, and needs no silence.
    assert result.dead_at_root_s.max is not None and result.dead_at_root_s.max < 0.1


@pytest.mark.slow
def test_ten_thousand_hosts_fit_into_one_process() -> None:
    result = assert_holds(Scenario(hosts=10_000, racks=250, seconds=3))
    assert result.beats > 15_000


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    scenario = Scenario(seed=5, faults=("partition", "duplicate", "leader-restart"))
    assert simulate(scenario).trace == simulate(scenario).trace
    assert simulate(scenario).trace != simulate(Scenario(seed=6, faults=scenario.faults)).trace


@pytest.mark.slow
def test_the_trace_does_not_depend_on_how_this_process_hashes_strings() -> None:
    scenario = Scenario(seed=5, faults=MIXED[0], leaders=2)
    code = (
        "from hbagent.sim.run import simulate; from hbagent.sim.scenario import Scenario; "
        f"print(simulate(Scenario(seed=5, faults={MIXED[0]!r}, leaders=2)).trace)"
    )
    for hashseed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hashseed, "PYTHONPATH": str(ROOT)}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=50)
        assert run.stdout.strip() == simulate(scenario).trace, run.stderr


@pytest.mark.parametrize(
    ("scenario", "problem"),
    [
        (Scenario(hosts=0), "hosts = 0"),
        (Scenario(hosts=4, racks=5), "racks = 5"),
        (Scenario(leaders=4), "leaders = 4"),
        (Scenario(seconds=0), "seconds = 0"),
        (Scenario(loss=1.0), "loss = 1"),
        (Scenario(faults=("flood",)), "'flood' is not one of quiet"),
    ],
)
def test_what_cannot_be_run_is_refused(scenario: Scenario, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        simulate(scenario)


def test_a_scenario_is_one_line() -> None:
    scenario = Scenario(hosts=16, racks=2, seconds=60, seed=17, loss=0.02, faults=("partition", "loss"))
    line = "hbagent sim --hosts 16 --racks 2 --seconds 60 --seed 17 --loss 0.02 --fault partition --fault loss"
    assert scenario.command() == line
