"""Probes that hang, lie, flood, fork and burn beside the beats of a real agent: F35, from the probe to the root.

What is in `NASTY` is also shown to a bare prober (`tests/role/test_prober.py`); here it is about everybody else.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hbagent.demo.datacenter import Plan
from hbagent.offspring import reaper
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import START_SECONDS, Fleet, Row
from tests.e2e.patient import PATIENT
from tests.role.parts import until
from tests.role.test_prober import NASTY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

NODE, OTHER, LEADER = "rack1-node1", "rack1-node2", "rack1-leader1"
TIMES = 'interval = "1s"\ntimeout = "500ms"\nretry_interval = "1s"\nrise = 1\nfall = 1\n'
#: A regular expression that takes longer than the universe for this line.
SLOW_LINE, SLOW_PATTERN = "a" * 40 + "!", "(a+)+$"


def exec_probe(name: str, script: str) -> str:
    return f'[[probe]]\nname = "{name}"\nkind = "exec"\ncommand = ["/bin/sh", "-c", {json.dumps(script)}]\n{TIMES}'


@pytest.fixture(scope="module")
def fleet(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two nodes; the first has every nasty probe, and one that is well."""
    log = tmp_path_factory.mktemp("log") / "slow.log"
    log.write_text(f"{SLOW_LINE}\n")
    tables = [exec_probe(name, script) for name, script in NASTY.items()]
    tables.append(exec_probe("good", "echo fine"))
    tables.append(
        f'[[probe]]\nname = "slow-pattern"\nkind = "log"\npath = "{log}"\ncritical = "{SLOW_PATTERN}"\n{TIMES}'
    )
    lines = ("defaults = false", "concurrency = 16")
    # At shorter ones a machine that keeps a thread from running for half a second has its process leave out a beat.
    made = build(Plan(racks=1, nodes=2, interval="1s", prober_lines=lines, leader_tables=PATIENT))
    made.write()
    config = made.config(NODE)
    config.write_text(config.read_text() + "".join(tables))
    made.start()
    made.settle()
    made.until(lambda: probe_of(made, "good"), "the good one has run", START_SECONDS)
    yield made


def probe_of(fleet: Fleet, name: str) -> Row:
    return next((row for row in fleet.row(NODE).get("probes", []) if row["name"] == name), {})


def health_of(fleet: Fleet, name: str) -> str:
    return str(probe_of(fleet, name).get("health", ""))


def prober_of(fleet: Fleet, name: str) -> int:
    found = reaper.children(fleet.processes[name].pid)
    assert found, f"{name} has no prober"
    return found[0]


def below(pid: int) -> list[int]:
    return [one for child in reaper.children(pid) for one in (child, *below(child))]


def test_f35_no_probe_moves_a_beat_or_another_probe_and_none_is_ok_by_accident(fleet: Fleet, figures: Figures) -> None:
    begun, lost = fleet.newest(), fleet.row(NODE)["lost"]
    bad = [name for name in NASTY if name != "flees"]
    for name in bad:
        fleet.until(lambda name=name: probe_of(fleet, name), f"{name} is told", 30)  # type: ignore[misc]
    log = next(Path(line.split('"')[1]) for line in fleet.config(NODE).read_text().splitlines() if "slow.log" in line)
    for _ in range(10):
        with log.open("a") as file:
            file.write(f"{SLOW_LINE}\n")
        assert not until(lambda: fleet.liveness(NODE) not in ("", "ALIVE"), 1)
    for name in bad:
        assert health_of(fleet, name) in ("CRITICAL", "UNKNOWN", "WARNING"), probe_of(fleet, name)
    fleet.until(lambda: health_of(fleet, "slow-pattern") == "UNKNOWN", "a pattern that never ends runs out of time")
    # On a busy machine no program may be done in half a second now and then.
    fleet.until(lambda: health_of(fleet, "good") == "OK" and probe_of(fleet, "good")["text"] == "fine", "it is well")
    row = fleet.row(NODE)
    assert row["lost"] == lost
    assert not [event for event in fleet.events(begun) if event["kind"].startswith("node-")]
    assert not fleet.lines(LEADER, "node-suspect")
    assert not fleet.lines(NODE, "prober-ended")
    assert not fleet.lines(NODE, "defect")
    figures("F35", f"{len(bad) + 1} nasty probes for 10 s: {row['lost'] - lost} beats lost, nobody suspected")


def test_f35_without_psutil_facts_are_unknown_and_beats_go_on(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "psutil.py").write_text("raise RuntimeError('psutil is broken')\n")
    fleet.end(OTHER)
    fleet.variables[OTHER] = {"PYTHONPATH": str(tmp_path)}
    fleet.start([OTHER])
    fleet.until_liveness(OTHER, "ALIVE", 30)
    fleet.until(lambda: facts_of(fleet).get("errors"), "it tells what it could not read", 30)
    assert "psutil is broken" in " ".join(facts_of(fleet)["errors"])
    assert facts_of(fleet)["cpu_percent"] is None
    assert not fleet.lines(OTHER, "prober-ended")


def facts_of(fleet: Fleet) -> Row:
    return fleet.ask("explain", node=fleet.nodes[OTHER])["node"].get("facts") or {}


def test_a_prober_that_stands_still_is_seen_by_the_leader_and_costs_no_beat(fleet: Fleet) -> None:
    begun, lost = fleet.newest(), fleet.row(NODE)["lost"]
    pid = prober_of(fleet, NODE)
    os.kill(pid, signal.SIGSTOP)
    try:
        fleet.until(partial(prober_is, fleet, begun, "STALLED"), "its mark stands still", 30)
        assert fleet.liveness(NODE) == "ALIVE"
    finally:
        os.kill(pid, signal.SIGCONT)
    fleet.until(lambda: prober_change(fleet, begun)[-1]["after"] != "STALLED", "it goes on", 30)
    assert fleet.row(NODE)["lost"] == lost
    assert not [event for event in fleet.events(begun) if event["kind"].startswith("node-")]


def prober_change(fleet: Fleet, after: int) -> list[Row]:
    events = [event for event in fleet.events(after, "health-changed") if event["node"] == fleet.nodes[NODE]]
    return [change for event in events for change in event["evidence"]["changes"] if change["subject"] == "agent"]


def prober_is(fleet: Fleet, after: int, health: str) -> bool:
    found = prober_change(fleet, after)
    return bool(found) and found[-1]["after"] == health


def test_an_agent_that_leaves_takes_every_nasty_process_along(fleet: Fleet) -> None:
    fleet.until(lambda: len(below(fleet.processes[NODE].pid)) > 2, "there is a family")
    family = below(fleet.processes[NODE].pid)
    code, _ = fleet.end(NODE)
    assert code == 0
    assert until(lambda: all(reaper.is_dead(pid) for pid in family), 15)
