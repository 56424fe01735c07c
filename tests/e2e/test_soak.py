"""Row F36: whatever goes wrong, drawn from a seed, and judged afterwards by a process that saw none of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import BuildLab
from tests.e2e.fleet import START_SECONDS
from tests.e2e.lab import NEEDS, Lab
from tests.e2e.soak import QUIET_SECONDS

NIGHTLY = bool(os.environ.get("HBAGENT_NIGHTLY"))
SECONDS = 1800.0 if NIGHTLY else float(os.environ.get("HBAGENT_SOAK_SECONDS", "60"))
SEED = int(os.environ.get("HBAGENT_SEED", "36"))
#: Faults at once.
AT_ONCE = 2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(SECONDS + 240), *NEEDS]


class Nemesis:
    """Hurts one process after the other, and writes down whom, how, and for how long."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self._lab = lab
        self._rng = random.Random(seed)
        self._file = (lab.directory / "nemesis.jsonl").open("w")
        #: (when it ends, who, how it is taken back, what is written then).
        self._under_way: list[tuple[float, str, Callable[[], object], dict[str, Any]]] = []

    def run(self, seconds: float) -> None:
        """Until the time is over; then everything is taken back."""
        until = time.time() + seconds
        watch_at = 0.0
        while time.time() < until:
            self._take_back(time.time())
            if len(self._under_way) < AT_ONCE and self._rng.random() < 0.2:
                self._begin()
            if time.time() >= watch_at:
                watch_at = time.time() + 5.0
                self._watch()
            time.sleep(0.1)
        self._take_back(float("inf"))
        self._file.close()

    def _begin(self) -> None:
        hurt = {name for _, name, _, _ in self._under_way}
        name = self._rng.choice([name for name in self._lab.names if name not in hurt])
        what = self._rng.choice(("kill", "kill", "stop", "stop", "isolate", "deaf", "mute"))
        seconds = self._rng.choice((0.2, 1.0, 2.5, 6.0)) * self._rng.uniform(0.5, 1.5)
        leader = self._lab.leaders_of(name.partition("-")[0])[0] if name != "root" else self._lab.names[1]
        other = "root" if "-leader" in name else leader
        lab, at = self._lab, time.time()
        back: Callable[[], object]
        if what == "kill":
            lab.kill(name)
            back = lambda: lab.start([name])  # noqa: E731
        elif what == "stop":
            lab.signal(name, signal.SIGSTOP)
            back = lambda: lab.signal(name, signal.SIGCONT)  # noqa: E731
        else:
            if what == "isolate":
                lab.switch.isolate(name)
            else:
                lab.switch.cut(*((other, name) if what == "deaf" else (name, other)))
            back = lambda: lab.switch.heal(name)  # noqa: E731
        order = {"at": at, "name": name, "what": what, "seconds": round(seconds, 3)}
        self._under_way.append((at + seconds, name, back, order))

    def _take_back(self, now: float) -> None:
        for entry in [entry for entry in self._under_way if entry[0] <= now]:
            self._under_way.remove(entry)
            _, _, back, order = entry
            back()
            self._write({**order, "until": time.time()})

    def _watch(self) -> None:
        hurt = {name for _, name, _, order in self._under_way if order["what"] == "kill"}
        for name in self._lab.names:
            process = self._lab.processes[name]
            if name not in hurt:
                ended = process.poll()
                with contextlib.suppress(OSError):
                    rss = self._lab.rss_bytes(name) if ended is None else 0
                    now = time.time()
                    self._write({"at": now, "until": now, "name": name, "what": "watch", "rss": rss, "ended": ended})

    def _write(self, order: dict[str, Any]) -> None:
        self._file.write(json.dumps(order) + "\n")
        self._file.flush()


def test_whatever_goes_wrong_nobody_alive_is_called_dead_and_nothing_is_lost(
    build_lab: BuildLab, figures: Figures
) -> None:
    lab = build_lab(Plan(racks=2, nodes=3, interval="250ms"))
    lab.wake_up()
    Nemesis(lab, SEED).run(SECONDS)
    lab.heal()
    lab.settle(START_SECONDS + 60.0)
    # What waits to be told has its time.
    time.sleep(QUIET_SECONDS)
    lab.settle()
    found, counted = judged_at_rest(lab)
    figures("F36", f"{SECONDS:.0f} s, seed {SEED}: {counted}")
    assert found == [], f"HBAGENT_SEED={SEED}: {counted}"
    # The judge would have seen it.
    spoil(lab.directory)
    assert {line.partition(":")[0] for line in judged(lab.directory)[0]} == {
        "alive",
        "dead",
        "kept",
        "twice",
        "bounded",
    }


def judged_at_rest(lab: Lab) -> tuple[list[str], str]:
    """The same, when nothing happened while the judge was looking: on a busy machine somebody may just be suspected,
    and the log has it before the history. What is lost is lost in each look."""
    for _ in range(3):
        found, counted = judged(lab.directory)
        if not found:
            break
        time.sleep(QUIET_SECONDS)
        lab.settle()
    return found, counted


def judged(directory: Path) -> tuple[list[str], str]:
    """What does not fit, and what was counted."""
    command = [sys.executable, "-m", "tests.e2e.soak", str(directory)]
    judge = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert judge.returncode == bool(judge.stdout), judge.stderr
    return judge.stdout.splitlines(), judge.stderr.strip()


def spoil(directory: Path) -> None:
    """Change what lies on the disks so that nothing fits any more: other faults, a verdict without an event."""
    orders = [json.loads(line) for line in (directory / "nemesis.jsonl").read_text().splitlines()]
    quiet = orders[0]["at"] - 100.0
    killed = {"at": quiet, "until": quiet + 10.0, "name": "rack1-node1", "what": "kill"}
    grown = {"at": quiet, "until": quiet, "name": "root", "what": "watch", "rss": 2**33, "ended": None}
    (directory / "nemesis.jsonl").write_text("".join(json.dumps(order) + "\n" for order in (killed, grown)))
    with (directory / "log" / "rack1-leader1.log").open("a") as log:
        log.write(
            "2026-11-22T00:00:00.000 INFO    leader node-dead node=demo/rack1/node9 from=SUSPECT to=DEAD cause=x\n"
        )
    told = (directory / "hooks.jsonl").read_text().splitlines()
    with (directory / "hooks.jsonl").open("a") as hooks:
        hooks.write(json.dumps({**json.loads(told[0]), "kind": "other"}) + "\n")
