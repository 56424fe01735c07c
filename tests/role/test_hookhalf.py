"""Whatever a hook does and becomes of the runner: each run comes back once, the loop never waits, and nobody stays.

Most of this is what a hook may do to a root, with real processes: a hook that hangs, escapes, multiplies or floods.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from hbagent.core.effects import RunHook
from hbagent.core.units import SECOND
from hbagent.hooks.runner import GRACE_NS, OUTPUT_MAX, PROCESSES_MAX
from hbagent.offspring import reaper
from tests.build import NODE, run
from tests.offspring.owning import gone, new_tag, tagged
from tests.role.hooktender import RETRIES_NS
from tests.role.parts import until

pytestmark = [pytest.mark.slow, pytest.mark.paired]

#: Leaves its session, its parent and its environment, ignores a polite end, and stays.
ESCAPE = """trap '' TERM
env -i X={tag} setsid sh -c 'trap "" TERM; setsid sh -c "trap \\"\\" TERM; sleep 300; sleep 300" & sleep 300' &
sleep 0.1; {end}"""
#: Time that a hook which hangs is given: others come back meanwhile, however often the machine stands still.
HANGS_NS = 4 * SECOND
#: A loop that waited for such a hook would be held up for longer.
LAG_MS = 2_500


class Tended:
    """A tender with a hook runner, and what came of its runs."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.role.hooktender"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.said: list[dict[str, Any]] = []
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._rest = b""
        self._runs = 0

    def do(self, word: str, **fields: Any) -> dict[str, Any]:
        """Have it obey; what it said of that."""
        assert self.process.stdin is not None
        before = len(self.of("obeyed"))
        self.process.stdin.write(msgspec.json.encode({"do": word, **fields}) + b"\n")
        self.process.stdin.flush()
        assert until(lambda: len(self.of("obeyed")) > before)
        return self.of("obeyed")[-1]

    def of(self, what: str) -> list[dict[str, Any]]:
        """Everything of one kind that it said until now."""
        assert self.process.stdout is not None
        *lines, self._rest = (self._rest + (self.process.stdout.read() or b"")).split(b"\n")
        self.said += [json.loads(line) for line in lines]
        return [said for said in self.said if said["what"] == what]

    def lines(self, word: str) -> list[dict[str, Any]]:
        """Log lines with this word."""
        return [said["fields"] for said in self.of("log") if said["line"] == word]

    def order(self, script: str, timeout_ns: int = 20 * SECOND, hook: str = "page") -> str:
        """Have a hook run; its run id."""
        self._runs += 1
        run_id = f"e-{self._runs}-{hook}"
        argv = ("/bin/sh", "-c", script)
        order = RunHook(run_id=run_id, hook=hook, argv=argv, timeout_ns=timeout_ns, input=b'{"event_id":"e"}')
        self.do("run", order=msgspec.to_builtins(order))
        return run_id

    def finished(self, run_id: str) -> dict[str, Any]:
        """What came of a run."""

        def found() -> list[dict[str, Any]]:
            return [said for said in self.of("finished") if said["run_id"] == run_id]

        assert until(found), f"{run_id} has not come back"
        (once,) = found()
        return once

    def run(self, script: str, timeout_ns: int = 20 * SECOND, hook: str = "page") -> dict[str, Any]:
        """Have a hook run and wait for its end."""
        return self.finished(self.order(script, timeout_ns, hook))

    def ready(self) -> int:
        """Once the runner answers: its process."""
        self.run("exit 0")
        return int(self.do("nothing")["pid"])

    def lag_ms(self) -> float:
        """The largest delay of the loop since it was forgotten."""
        return float(self.do("nothing")["lag_ms"])

    def end(self) -> None:
        family = below(self.process.pid)
        self.process.kill()
        self.process.communicate()
        for pid in family:
            reaper.fell([pid])


def below(pid: int) -> list[int]:
    """All descendants of a process."""
    found = []
    for child in reaper.children(pid):
        found += [child, *below(child)]
    return found


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if not reaper.is_dead(pid)]


@pytest.fixture
def tended() -> Iterator[Tended]:
    """A tender whose runner is up."""
    made = Tended()
    made.ready()
    yield made
    made.end()


def test_a_run_comes_back_with_what_it_said(tended: Tended) -> None:
    result = tended.run("cat; echo; echo $HBAGENT_EVENT_ID >&2; exit 3")
    assert (result["exit_code"], result["error"], result["output"]) == (3, "exit 3", '{"event_id":"e"}\ne\n')


def test_runs_are_at_once_and_come_back_as_they_end(tended: Tended, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    slow = tended.order(f"while [ ! -e {go_on} ]; do sleep 0.05; done", 60 * SECOND)
    assert tended.run("exit 0")["error"] == ""
    assert not [said for said in tended.of("finished") if said["run_id"] == slow]
    go_on.touch()
    assert tended.finished(slow)["error"] == ""


def test_a_file_that_is_missing_and_one_that_is_not_to_be_trusted_are_failures(tended: Tended, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o777)
    for argv, why in ((("/nowhere/hook",), "No such file"), ((str(hook),), "writable")):
        order = RunHook(run_id=f"run-{why}", hook="h", argv=argv, timeout_ns=SECOND, input=b"{}")
        tended.do("run", order=msgspec.to_builtins(order))
        error = tended.finished(f"run-{why}")["error"]
        assert error.startswith("not started: ") and why in error


def test_an_order_that_no_frame_holds_is_a_failure(tended: Tended) -> None:
    order = RunHook(run_id="large", hook="h", argv=("/bin/true",), timeout_ns=SECOND, input=b"x" * (1 << 20))
    tended.do("run", order=msgspec.to_builtins(order))
    assert "a frame has 1,048,576 at most" in tended.finished("large")["error"]
    assert tended.run("exit 0")["error"] == ""


# ---- what a hook may do ----------------------------------------------------------------------------------


def test_slow_hooks_cost_the_loop_nothing_and_others_no_time_and_nobody_stays(tended: Tended) -> None:
    tag = new_tag()
    tended.do("forget-lag")
    runs = {
        "hangs": tended.order(f"export X={tag}; exec sleep 300", HANGS_NS, "hangs"),
        "ignores": tended.order(f"export X={tag}; trap '' TERM; while :; do sleep 300; done", HANGS_NS, "ignores"),
        "escapes": tended.order(ESCAPE.format(tag=tag, end="sleep 300"), HANGS_NS, "escapes"),
    }
    for _ in range(5):
        assert tended.run("exit 0", hook="other")["error"] == ""
    assert not [said for said in tended.of("finished") if said["run_id"] in runs.values()]
    results = {name: tended.finished(run_id) for name, run_id in runs.items()}
    took = {name: result["duration_ns"] for name, result in results.items()}
    assert {result["error"] for result in results.values()} == {"timeout"}
    assert HANGS_NS <= took["hangs"] < HANGS_NS + GRACE_NS, "it ends when it is asked to"
    assert min(took["ignores"], took["escapes"]) >= HANGS_NS + GRACE_NS
    assert gone(tag, 20.0)
    assert tended.lag_ms() < LAG_MS
    assert len(tended.of("finished")) == 1 + 3 + 5, "each came back once"


def test_a_bomb_a_flood_and_a_hoarder_cost_the_root_nothing(tended: Tended) -> None:
    tag = new_tag()
    rss = psutil.Process(tended.process.pid).memory_info().rss
    tended.do("forget-lag")
    # Two hundred at most, should nobody end it.
    bomb = f"""export X={tag}
python3() {{ exec {sys.executable} -S "$@"; }}
python3 -c '
import os, time
for _ in range(200):
    if os.fork() == 0:
        time.sleep(300)
time.sleep(300)'"""
    flood = f"export X={tag}; exec head -c 1000000000 /dev/zero"
    hoard = f"""export X={tag}
exec {sys.executable} -S -c '
import os
try:
    while True: os.dup(0)
except OSError as error:
    print(error.strerror)'"""
    # A flood lasts as long as it may.
    hooks = (("b", bomb, 15 * SECOND), ("f", flood, 3 * SECOND), ("h", hoard, 15 * SECOND))
    runs = [tended.order(script, limit_ns, name) for name, script, limit_ns in hooks]
    bombed, flooded, hoarded = map(tended.finished, runs)
    assert bombed["error"] == f"more than {PROCESSES_MAX} processes"
    assert (len(flooded["output"]), flooded["truncated"]) == (OUTPUT_MAX, True)
    assert hoarded["output"] == "Too many open files\n"
    assert gone(tag, 20.0)
    assert tended.lag_ms() < LAG_MS
    assert psutil.Process(tended.process.pid).memory_info().rss - rss < 20 << 20


# ---- tried again -----------------------------------------------------------------------------------------


def owed(number: int, hook: str, node: str = NODE) -> dict[str, Any]:
    """A run of an event, as the store has it."""
    built: dict[str, Any] = msgspec.to_builtins(run(number, node, hook=hook, run_id=f"e-{number}-{hook}", input=b"{}"))
    return built


def test_a_hook_that_fails_three_times_is_told_a_fourth_time_in_order(tended: Tended, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = f"""n=$(cat {log} 2>/dev/null | wc -l); echo "$HBAGENT_RUN_ID $(cat)" >>{log}; [ $n -ge 3 ]"""
    tended.do("owe", hooks={"page": ["/bin/sh", "-c", script]}, runs=[owed(1, "page"), owed(2, "page")])
    assert until(lambda: len(tended.of("run")) == 5)
    told = [(said["run"]["run_id"], said["run"]["state"], said["run"]["attempt"]) for said in tended.of("run")]
    assert told == [
        *(("e-1-page", "pending", attempt) for attempt in (1, 2, 3)),
        ("e-1-page", "done", 4),
        ("e-2-page", "done", 1),
    ]
    attempts = [f'e-1-page {{"attempt":{number}}}' for number in (1, 2, 3, 4)]
    assert log.read_text().splitlines() == [*attempts, 'e-2-page {"attempt":1}']


def test_a_hook_that_always_fails_is_given_up_and_told_again_on_demand(tended: Tended, tmp_path: Path) -> None:
    there = tmp_path / "there"
    script = f"""echo "no route"; [ -e {there} ]"""
    tended.do("owe", hooks={"page": ["/bin/sh", "-c", script]}, runs=[owed(1, "page")])
    assert until(lambda: len(tended.of("run")) == 1 + len(RETRIES_NS))
    last = tended.of("run")[-1]["run"]
    assert (last["state"], last["attempt"], last["error"]) == ("dead", 1 + len(RETRIES_NS), "exit 1: no route")
    there.touch()
    tended.do("retry", run_id="e-1-page")
    assert until(lambda: len(tended.of("run")) == 2 + len(RETRIES_NS))
    last = tended.of("run")[-1]["run"]
    assert (last["state"], last["attempt"], last["event_id"]) == ("done", 1, "e-1")


def test_a_run_that_lost_its_runner_is_run_again_with_its_event(tended: Tended, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = f"echo $(cat) >>{log}; [ $(wc -l <{log}) -gt 4 ] || exec sleep 300"
    hooks = {"page": ["/bin/sh", "-c", script]}
    tended.do("owe", hooks=hooks, runs=[owed(number, "page", f"dc1/rack1/node{number}") for number in (1, 2, 3, 4, 5)])
    assert until(lambda: log.exists() and log.read_text().count("\n") == 4)
    os.kill(int(tended.do("nothing")["pid"]), signal.SIGKILL)

    def done() -> list[str]:
        return [said["run"]["run_id"] for said in tended.of("run") if said["run"]["state"] == "done"]

    assert until(lambda: len(done()) == 5)
    assert sorted(done()) == [f"e-{number}-page" for number in (1, 2, 3, 4, 5)]
    assert log.read_text().count("\n") == 9, "four of them twice"


# ---- what may become of the runner -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_runner_that_dies_costs_what_ran_one_attempt_and_another_is_started(
    tended: Tended, number: signal.Signals
) -> None:
    tag = new_tag()
    pid = int(tended.do("nothing")["pid"])
    under_way = [tended.order(ESCAPE.format(tag=tag, end="sleep 300"), 300 * SECOND, name) for name in ("a", "b")]
    assert until(lambda: len(tagged(tag)) >= 8)
    os.kill(pid, number)
    for run_id in under_way:
        result = tended.finished(run_id)
        assert (result["exit_code"], result["error"]) == (None, f"the hook runner ended: signal {number.value}")
    assert gone(tag, 20.0)
    assert tended.run("echo again")["output"] == "again\n"
    assert int(tended.do("nothing")["pid"]) != pid
    assert until(lambda: len(below(tended.process.pid)) <= 2), "the new runner and its hand"
    assert [fields["runs"] for fields in tended.lines("hook-runner-ended")] == [2]


def test_what_is_ordered_while_there_is_no_runner_waits_for_the_next(tended: Tended) -> None:
    os.kill(int(tended.do("nothing")["pid"]), signal.SIGKILL)
    results = [tended.finished(tended.order("exit 0")) for _ in range(3)]
    # The one that met a runner that was dying may have gone with it.
    assert [result["error"] for result in results[1:]] == ["", ""]


def test_a_hand_that_is_killed_takes_its_hook_with_it_and_no_other(tended: Tended) -> None:
    tag, other = new_tag(), new_tag()
    run_id = tended.order(ESCAPE.format(tag=tag, end="sleep 300"), 300 * SECOND, "a")
    assert until(lambda: len(tagged(tag)) >= 4)
    (hand,) = [pid for pid in below(int(tended.do("nothing")["pid"])) if [c for c in below(pid) if c in tagged(tag)]][
        :1
    ]
    kept = tended.order(f"export X={other}; exec sleep 300", 300 * SECOND, "b")
    # `exec` has happened once it is seen with its tag.
    assert until(lambda: tagged(other))
    os.kill(hand, signal.SIGKILL)
    assert tended.finished(run_id)["error"] == "not run: its process died of SIGKILL"
    assert gone(tag, 20.0)
    assert tagged(other)
    assert not [said for said in tended.of("finished") if said["run_id"] == kept]


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_without_its_root_a_runner_ends_with_all_hooks(tended: Tended, how: str) -> None:
    tag = new_tag()
    tended.order(ESCAPE.format(tag=tag, end="sleep 300"), 300 * SECOND)
    assert until(lambda: len(tagged(tag)) >= 4)
    family = below(tended.process.pid)
    if how == "killed":
        tended.process.kill()
    else:
        tended.do("close")
    assert until(lambda: not alive(family)), "which sleep for minutes by themselves"
    assert gone(tag, 20.0)


def test_a_hook_does_not_outlive_root_and_runner_that_die_together(tended: Tended) -> None:
    tag = new_tag()
    tended.order(f"export X={tag}; trap '' TERM; exec sleep 300", 300 * SECOND)
    assert until(lambda: tagged(tag))
    pid = int(tended.do("nothing")["pid"])
    # So that it cannot see the end of its link.
    os.kill(pid, signal.SIGSTOP)
    tended.process.send_signal(signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    tended.process.kill()
    assert gone(tag, 20.0)


def test_a_runner_that_was_stopped_does_not_outlive_its_root(tended: Tended) -> None:
    family = below(tended.process.pid)
    os.kill(int(tended.do("nothing")["pid"]), signal.SIGSTOP)
    tended.process.kill()
    assert until(lambda: not alive(family))


def test_a_runner_ignores_what_systemd_says_to_every_process_of_a_service(tended: Tended) -> None:
    pid = int(tended.do("nothing")["pid"])
    os.kill(pid, signal.SIGTERM)
    assert tended.run("exit 0")["error"] == ""
    assert int(tended.do("nothing")["pid"]) == pid


def test_a_runner_that_cannot_be_started_is_tried_again_later_each_time() -> None:
    tended = Tended()
    try:
        tended.do("python", path="/nowhere/python")
        run_id = tended.order("exit 0")
        why = "the hook runner ended: not started: No such file or directory"
        assert tended.finished(run_id)["error"] == why
        assert until(lambda: len(tended.lines("hook-runner-ended")) >= 3)
        assert [fields["again_in"] for fields in tended.lines("hook-runner-ended")][:3] == ["100ms", "200ms", "400ms"]
        waiting = tended.order("echo there")
        tended.do("python", path=sys.executable)
        result = tended.finished(waiting)
        # It may have met the last start that failed.
        assert result["output"] == "there\n" or result["error"] == why
        assert tended.run("exit 0")["error"] == ""
    finally:
        tended.end()
