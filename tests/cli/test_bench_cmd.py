"""The figures that scripts rely on are there, and are numbers. What they are is the machine's business."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from hbagent.bench import hosts
from hbagent.cli import EXIT_USAGE, main

#: Names that other people's scripts read.
PROMISED = {
    "intake": {"ratio", "ratio_paced", "core_percent_10k"},
    "agent": {
        *("rss_mib", "cpu_percent", "jitter_p99_ms", "prober_rss_mib", "hand_rss_mib", "prober_cpu_percent"),
        *("jitter_p99_ratio_200_probes", "jitter_p99_ratio_200_nasty_probes", "processes_left_behind"),
    },
    "detect": {
        *("crash_leader_p50_ms", "crash_leader_p99_ms", "crash_hook_p99_ms"),
        *("deadlock_root_p50_s", "deadlock_root_p99_s"),
    }
    | (set() if hosts.missing() else {"vanish_p99_s"}),
    "diagnose": {"cycle_2_threads_ms", "cycle_100_threads_ms", "bundle_ms", "server_p99_ratio", "server_pause_ms"}
    | ({"false_deadlocked", "racing_looks"} if shutil.which("gcc") else set()),
    "fanout": {"tick_p50_ms", "tick_p99_ms", "ratio", "storm_ms", "page_ms", "dropped"},
    "root": {
        *("status_s", "status_answer_ms", "cells_tick_ms", "metrics_cpu_ms", "rss_mib"),
        *("storm_query_max_s", "storm_settled_s", "hook_start_p99_ms"),
    },
    "sim": {"real_time_ratio", "hosts", "virtual_s"},
}


@pytest.mark.e2e
@pytest.mark.timeout(180)
@pytest.mark.parametrize("bench", sorted(PROMISED))
def test_a_bench_gives_the_figures_that_it_promises(bench: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", bench, "--quick", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bench"] == bench
    assert PROMISED[bench] <= set(document["figures"])
    assert all(math.isfinite(value) and value >= 0 for value in document["figures"].values())


def test_an_unknown_bench_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "intaek"]) == EXIT_USAGE
    assert "intake" in capsys.readouterr().err
