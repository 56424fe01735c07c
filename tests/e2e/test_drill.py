"""`hbagent drill`: each drill reaches the hook, and each stage that is broken on purpose is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hbagent.core.drill import OUTCOMES, VERDICT_NS, WARM_UP_NS, WINDOW_NS
from hbagent.core.units import SECOND
from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet

pytestmark = [pytest.mark.e2e, pytest.mark.paired, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    """One rack of two nodes; only the first takes drills from elsewhere."""
    made = build(Plan(racks=1, nodes=2, root_lines=('lease = "2500ms"',)))
    made.wake_up()
    first = made.config("rack1-node1")
    first.write_text(first.read_text().replace("[agent]\n", "[agent]\ndrills = true\n"))
    made.restart("rack1-node1")
    made.settle()
    return made


@pytest.fixture(autouse=True)
def _forgotten(fleet: Fleet) -> Iterator[None]:
    """Nothing of a drill is left at the root, so a node may have the next."""
    yield
    fleet.until(lambda: not any(fleet.row(name).get("apps") for name in fleet.agents), "all drills are forgotten", 45)


def drill(fleet: Fleet, kind: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `hbagent drill`."""
    command = [sys.executable, "-m", "hbagent", "drill", kind, "--config", str(fleet.config("root")), "-o", "json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)
    return done.returncode, json.loads(done.stdout)


def here(fleet: Fleet, agent: str = "rack1-node2") -> tuple[str, str]:
    return "--notify", str(fleet.notify_socket(agent))


@pytest.mark.parametrize("kind", OUTCOMES)
def test_a_drill_on_this_host_reaches_the_hook_in_its_time(fleet: Fleet, kind: str, figures: Figures) -> None:
    code, answer = drill(fleet, kind, *here(fleet))
    assert (code, answer["ok"], answer["node"]) == (0, True, "demo/rack1/node2"), answer
    stages = {stage["stage"]: stage["after_s"] for stage in answer["stages"]}
    assert list(stages) == ["agent", "prober", "report", "verdict", "event", "hook"]
    window_s = 0 if kind == "crash" else WINDOW_NS / SECOND
    late_s = stages["hook"] - WARM_UP_NS / SECOND - window_s
    figures(
        "drill", f"{kind}: hook {late_s:.2f} s beyond the window; {VERDICT_NS / SECOND:g} s are promised for a verdict"
    )
    (told,) = [row for row in fleet.told() if row["drill"] and row["health"]["from"] == "OK"][-1:]
    assert told["evidence"]["changes"][0]["name"].startswith("hbagent-drill-")


def asked(fleet: Fleet, *command: str) -> tuple[int, str]:
    """Exit code and output of a command that asks the root."""
    config = ("--config", str(fleet.config("root")))
    done = subprocess.run([sys.executable, "-m", *command, *config], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_a_drill_is_shown_and_makes_nothing_bad_for_whoever_is_woken_by_that(fleet: Fleet) -> None:
    command = [sys.executable, "-m", "hbagent", "drill", "deadlock", "--config", str(fleet.config("root"))]
    for _ in range(3):
        with subprocess.Popen([*command, "--node", "demo/rack1/node1"], stdout=subprocess.DEVNULL) as drilled:
            fleet.until(lambda: fleet.row("rack1-node1")["health"] == "DEADLOCKED", "the drill is shown", 60)
            code, said = asked(fleet, "hbagent", "status", "--plain")
            checked, line = asked(fleet, "hbagent.cli.check_hbagent")
            still = fleet.row("rack1-node1")["health"]
            assert drilled.wait(60) == 0
        if still == "DEADLOCKED":
            break
    assert still == "DEADLOCKED", "each drill was over before everybody was asked"
    assert code == 0 and "1 of 2 nodes in a drill" in said and "DEADLOCKED" in said, said
    assert checked == 0 and "1 in a drill of 2 nodes" in line, line


def test_the_root_has_a_drill_begun_on_a_node_that_allows_it(fleet: Fleet) -> None:
    code, answer = drill(fleet, "freeze", "--node", "demo/rack1/node1")
    assert (code, answer["node"]) == (0, "demo/rack1/node1"), answer


def test_where_a_drill_is_under_way_nothing_is_broken_and_nothing_known(fleet: Fleet) -> None:
    node = ("--node", "demo/rack1/node1")
    command = [sys.executable, "-m", "hbagent", "drill", "freeze", "--config", str(fleet.config("root"))]
    with subprocess.Popen([*command, *node], stdout=subprocess.PIPE, text=True) as first:
        fleet.until(lambda: bool(fleet.row("rack1-node1").get("apps")), "the first is known")
        code, answer = drill(fleet, "freeze", *node, "--no-wait")
        assert (code, answer["ok"], [stage["ok"] for stage in answer["stages"]]) == (3, None, [True]), answer
        assert "another drill is under way, for" in answer["busy"]
        said = subprocess.run([*command, *node, "--no-wait"], capture_output=True, text=True, timeout=60)
        assert (said.returncode, "broken" in said.stdout) == (3, False)
        assert said.stdout.splitlines()[-1].startswith("not tried: another drill is under way")
        assert first.wait(60) == 0
    # What a newcomer types next: it waits for the end of that one.
    code, answer = drill(fleet, "crash", *node)
    assert (code, answer["ok"]) == (0, True), answer


def broken(fleet: Fleet, *options: str) -> tuple[str, str]:
    """The stage that a drill finds broken, and what it says of it."""
    code, answer = drill(fleet, "freeze", *options)
    assert (code, answer["ok"]) == (2, False), answer
    return answer["stages"][-1]["stage"], answer["stages"][-1]["text"]


def test_a_node_that_allows_no_drills_says_so(fleet: Fleet) -> None:
    stage, text = broken(fleet, "--node", "demo/rack1/node2")
    assert stage == "agent" and "drills = true" in text


def test_where_no_agent_is_that_is_said(fleet: Fleet, tmp_path: Path) -> None:
    stage, text = broken(fleet, "--notify", str(tmp_path / "none"))
    assert stage == "agent" and "No such file" in text


def test_a_dead_agent_is_named(fleet: Fleet) -> None:
    fleet.prove()
    fleet.kill("rack1-node1")
    fleet.until_liveness("rack1-node1", "DEAD")
    stage, text = broken(fleet, "--node", "demo/rack1/node1")
    fleet.start(("rack1-node1",))
    fleet.settle()
    assert stage == "agent" and "DEAD (process-exit)" in text


def test_a_stuck_prober_is_named(fleet: Fleet) -> None:
    prober = child_of(fleet, "rack1-node2")
    os.kill(prober, signal.SIGSTOP)
    try:
        stage, text = broken(fleet, *here(fleet))
    finally:
        os.kill(prober, signal.SIGCONT)
    assert stage == "prober" and "stuck" in text


def test_a_stopped_leader_is_named(fleet: Fleet) -> None:
    with fleet.frozen("rack1-leader1"):
        stage, text = broken(fleet, "--node", "demo/rack1/node1")
        assert stage == "leader" and "rack1-leader1" in text
        fleet.until(lambda: fleet.liveness("rack1-node1") == "UNKNOWN", "its lease has lapsed")
        stage, text = broken(fleet, "--node", "demo/rack1/node1")
        assert stage == "leader" and "UNKNOWN" in text
    fleet.settle()


def test_a_hook_that_fails_is_named(fleet: Fleet) -> None:
    hook = Path(fleet.setting("root", "command").strip('[]"'))
    text_before = hook.read_text()
    hook.write_text("#!/bin/sh\nexit 3\n")
    try:
        stage, text = broken(fleet, *here(fleet))
    finally:
        hook.write_text(text_before)
    assert stage == "hook" and "demo is pending" in text


def child_of(fleet: Fleet, name: str) -> int:
    """The prober of an agent."""
    pid = fleet.processes[name].pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
