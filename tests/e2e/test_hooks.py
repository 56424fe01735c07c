"""Hooks of a real root: nothing that they do is felt by it, and nothing that becomes of their runner loses an event."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from hbagent.demo.datacenter import Plan
from hbagent.offspring import reaper
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, whole_lines
from tests.offspring.owning import gone, new_tag, tagged

pytestmark = [pytest.mark.e2e, pytest.mark.paired]

NODES = ("rack1-node1", "rack1-node2", "rack1-node3")
TAG = new_tag()
#: The first attempt of each event hangs, and so do two that have left it.
HANGS = f"""#!/bin/sh
file={{directory}}/slow.jsonl
document=$(cat)
echo "$document" >>"$file"
case $document in *'"attempt":1,'*) ;; *) exit 0 ;; esac
trap '' TERM
env -i X={TAG} setsid sh -c 'setsid sleep 300 & sleep 300' &
export X={TAG}
while :; do sleep 300; done
"""


@pytest.fixture(scope="module")
def fleet(build: Build) -> Iterator[Fleet]:
    """One rack; beside the hook of every demo one that hangs."""
    made = build(Plan(racks=1, nodes=3))
    made.write()
    hook = made.directory / "etc" / "slow"
    hook.write_text(HANGS.format(directory=made.directory))
    hook.chmod(0o700)
    config = made.config("root")
    more = f'\n[[hook]]\nname = "slow"\ncommand = ["{hook}"]\non = ["node-dead"]\ntimeout = "30s"\n'
    config.write_text(config.read_text() + more)
    made.start(["root", "rack1-leader1", *NODES])
    made.settle()
    yield made


def runner_of(fleet: Fleet) -> int:
    (pid,) = reaper.children(fleet.processes["root"].pid)
    return pid


def slow(fleet: Fleet) -> list[dict[str, Any]]:
    """What the hook that hangs was told."""
    return [json.loads(line) for line in whole_lines(fleet.directory / "slow.jsonl")]


def hbagent(fleet: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hbagent", *words, "--config", str(fleet.config("root"))]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def told_of(fleet: Fleet, name: str) -> list[dict[str, Any]]:
    return [row for row in fleet.told() if row["kind"] == "node-dead" and str(row["node"]).endswith(name[-5:])]


def test_a_runner_that_is_killed_in_the_middle_costs_an_attempt_and_no_event(fleet: Fleet, figures: Figures) -> None:
    fleet.kill(NODES[0])
    fleet.until(lambda: len(slow(fleet)) == 1, "the hook hangs")
    fleet.until(lambda: len(tagged(TAG)) >= 4, "and so do those that left it")
    fleet.until(lambda: told_of(fleet, NODES[0]), "the other hook is done")
    first = runner_of(fleet)
    os.kill(first, signal.SIGKILL)
    fleet.until(lambda: len(slow(fleet)) == 2, "it is told again")
    assert gone(TAG)
    assert len({row["event_id"] for row in slow(fleet)}) == 1
    assert [row["attempt"] for row in slow(fleet)] == [1, 2]
    assert runner_of(fleet) != first
    assert len(told_of(fleet, NODES[0])) == 1, "who was done is not told again"
    (line,) = fleet.lines("root", "hook-runner-ended")
    assert "signal 9" in line
    figures("F25", "a runner killed in the middle: 1 attempt more, the same event id, nobody left")


def test_hooks_are_listed_and_tried_from_the_command_line(fleet: Fleet) -> None:
    def row() -> dict[str, Any]:
        listed = json.loads(hbagent(fleet, "hooks", "list", "-o", "json").stdout)["hooks"]
        return next(row for row in listed if row["hook"] == "slow")

    fleet.until(lambda: row()["done"], "the second attempt is done")
    assert (row()["done"], row()["failed"], row()["dead"]) == (1, 1, 0)
    assert row()["last"]["error"] == ""
    done = hbagent(fleet, "hooks", "test", "demo", "--kind", "rack-dark")
    assert (done.returncode, done.stderr) == (0, "")
    assert [told["kind"] for told in fleet.told() if told["test"]] == ["rack-dark"]
    assert any("did=hook-test" in line for line in fleet.lines("root", "operator"))


def test_a_root_that_is_killed_takes_everything_of_its_hooks_with_it(fleet: Fleet) -> None:
    fleet.kill(NODES[1])
    fleet.until(lambda: len(tagged(TAG)) >= 4, "a hook hangs")
    runner = runner_of(fleet)
    fleet.kill("root")
    assert gone(TAG)
    fleet.until(lambda: reaper.is_dead(runner), "the runner ends")
    fleet.start(["root"])
    fleet.until(lambda: [row["attempt"] for row in slow(fleet)][-2:] == [1, 1], "what was owed is told again")
    # Nobody has written that the first attempt was one.
    assert len({row["event_id"] for row in slow(fleet)[-2:]}) == 1


def test_a_root_that_ends_leaves_no_hook(fleet: Fleet) -> None:
    fleet.until(lambda: len(tagged(TAG)) >= 4, "a hook hangs")
    # They would go on for five minutes.
    assert fleet.end("root")[0] == 0
    assert gone(TAG)
