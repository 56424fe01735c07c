"""The root as a process: its store, its hooks, its questions, its config, and how it ends."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from collections.abc import Callable, Iterator

import pytest
import zmq

from hbagent import __version__
from hbagent.cli import EXIT_UNAVAILABLE
from hbagent.core.messages import Query
from hbagent.demo.datacenter import Plan
from hbagent.role.readingroom import READS_MAX
from hbagent.transport.sockets import Context, query_dealer
from hbagent.wire import codec
from tests.e2e.fleet import Fleet
from tests.role.conftest import Build
from tests.role.parts import Systemd, until
from tests.role.test_agent import WATCHDOG_USEC
from tests.role.test_leader import full_disk
from tests.role.test_start import replace, start

pytestmark = [pytest.mark.e2e, pytest.mark.paired]

LEADER, NODE, OTHER = "rack1-leader1", "rack1-node1", "rack1-node2"


@pytest.fixture
def fleet(build: Build) -> Iterator[Fleet]:
    """One rack, all well."""
    made = build(Plan(racks=1, nodes=2))
    made.wake_up()
    yield made


def degraded(fleet: Fleet) -> str:
    status = fleet.ask("status")
    return str(status["root"]["degraded"]) if status is not None else "no answer"


def sequences(fleet: Fleet) -> list[int]:
    return [row["sequence"] for row in fleet.events()]


def test_it_says_what_it_is(fleet: Fleet) -> None:
    (line,) = fleet.lines("root", "started")
    for word in ("name=demo/root", "racks=1", "leaders=1", "hooks=demo", f"version={__version__}"):
        assert word in line
    status = fleet.ask("status")
    assert status is not None
    assert status["root"]["version"] == __version__
    assert status["racks"][0]["leaders"][0]["version"] == __version__


def test_it_ends_and_is_back_with_all_it_knew(fleet: Fleet) -> None:
    before = fleet.events()
    code, _ = fleet.end("root")
    assert code == 0
    fleet.start(["root"])
    fleet.settle()
    assert fleet.events()[: len(before)] == before
    assert fleet.told() == [] or all(row["kind"] != "node-dead" for row in fleet.told())


def test_reloading_takes_over_other_hooks_and_loses_no_event(fleet: Fleet) -> None:
    second = fleet.directory / "second.jsonl"
    hook = fleet.directory / "etc" / "second"
    hook.write_text(f"#!/bin/sh\ncat >>{second}\n")
    hook.chmod(0o700)
    text = fleet.config("root").read_text()
    fleet.config("root").write_text(f'{text}\n[[hook]]\nname = "second"\ncommand = ["{hook}"]\non = ["node-dead"]\n')
    fleet.signal("root", signal.SIGHUP)
    fleet.until(lambda: fleet.lines("root", "reloaded"), "reloaded")
    fleet.kill(NODE)
    fleet.until(lambda: second.exists() and '"node-dead"' in second.read_text(), "the new hook ran")

    def dead() -> list[str]:
        return [row["kind"] for row in fleet.told() if row["kind"] == "node-dead"]

    # The two run at once.
    fleet.until(dead, "and the old one")
    assert dead() == ["node-dead"]


def a_typo(fleet: Fleet) -> str:
    replace(fleet, "root", "^state_dir", "leese")
    return "leese"


def a_hook_that_others_can_write(fleet: Fleet) -> str:
    (fleet.directory / "etc" / "hook").chmod(0o722)
    return "writable by group or others"


@pytest.mark.parametrize("spoil", [a_typo, a_hook_that_others_can_write])
def test_a_bad_config_is_told_and_the_old_one_stays(fleet: Fleet, spoil: Callable[[Fleet], str]) -> None:
    named = spoil(fleet)
    fleet.signal("root", signal.SIGHUP)
    fleet.until(lambda: fleet.lines("root", "config-refused"), "refused")
    assert named in fleet.lines("root", "config-refused")[0]
    fleet.settle()
    assert not fleet.lines("root", "reloaded")


# ---- the store -------------------------------------------------------------------------------------------


def test_a_full_disk_is_shown_stops_no_verdict_and_heals_by_itself(fleet: Fleet) -> None:
    with full_disk(fleet, "root"):
        fleet.kill(NODE)
        fleet.until(lambda: degraded(fleet).startswith("store: "), "degraded")
        fleet.until_liveness(NODE, "DEAD")
    fleet.until(lambda: degraded(fleet) == "", "healed")
    fleet.until(lambda: fleet.events(0, "node-dead"), "the event is in the history")
    # The hook's own files could not grow either: it was tried again.
    fleet.until(lambda: [row for row in fleet.told() if row["kind"] == "node-dead"], "the hook ran")
    assert fleet.lines("root", "log-lines-dropped")


def test_a_store_that_cannot_be_opened_is_shown_and_later_takes_all_in(build: Build) -> None:
    fleet = build(Plan(racks=1, nodes=2))
    fleet.wake_up()
    fleet.end("root")
    before = sequences_on_disk(fleet)
    state = fleet.directory / "state" / "root"
    aside = state.rename(state.with_name("aside"))
    state.write_text("in the way")
    fleet.start(["root"])
    fleet.until_liveness(OTHER, "ALIVE", 30)
    fleet.until(lambda: "File exists" in degraded(fleet), "degraded")
    assert fleet.lines("root", "store-failed")
    fleet.kill(NODE)
    fleet.until(lambda: [row for row in fleet.told() if row["kind"] == "node-dead"], "the hook ran")
    state.unlink()
    aside.rename(state)
    fleet.until(lambda: degraded(fleet) == "", "healed")
    fleet.until(lambda: fleet.events(0, "node-dead"), "the event is in the history")
    after = sequences(fleet)
    assert after[: len(before)] == before, "nothing was written over"
    assert len(set(after)) == len(after)
    fleet.end("root")
    fleet.start(["root"])
    fleet.until_liveness(NODE, "DEAD")
    assert sequences(fleet)[: len(after)] == after


def sequences_on_disk(fleet: Fleet) -> list[int]:
    file = fleet.directory / "state" / "root" / "history.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute("SELECT sequence FROM events ORDER BY sequence")]


def test_a_second_root_on_the_same_state_is_turned_away(fleet: Fleet) -> None:
    code, text = start(fleet, "root")
    assert code == EXIT_UNAVAILABLE
    assert "is another root running?" in text
    fleet.settle()


# ---- questions and hooks ---------------------------------------------------------------------------------


def test_more_questions_than_the_store_can_read_are_told_to_come_again(fleet: Fleet) -> None:
    context: Context = zmq.Context()
    console = query_dealer(context, f"ipc://{fleet.directory}/run/root.sock")
    try:
        for number in range(1, 20 * READS_MAX):
            console.send(codec.encode(Query(id=number, what="events", limit=10_000)))
        answers = [codec.decode(console.recv()) for _ in range(1, 20 * READS_MAX) if console.poll(20_000)]
    finally:
        context.destroy(linger=0)
    errors = [getattr(answer, "error", "") for answer in answers]
    assert len(answers) == 20 * READS_MAX - 1, "everybody is answered"
    assert set(errors) <= {"", "the store is busy; ask again in a moment"}
    assert fleet.events()


def test_a_hook_that_vanished_is_a_failed_run_and_holds_nothing_up(fleet: Fleet) -> None:
    (fleet.directory / "etc" / "hook").unlink()
    fleet.kill(NODE)
    fleet.until(lambda: fleet.lines("root", "hook-failed", "not started"), "told")
    fleet.until_liveness(NODE, "DEAD")
    fleet.until_liveness(OTHER, "ALIVE")


def test_a_hook_that_runs_does_not_hold_up_the_end(fleet: Fleet) -> None:
    began = fleet.directory / "began"
    (fleet.directory / "etc" / "hook").write_text(f"#!/bin/sh\ntouch {began}\nexec sleep 300\n")
    fleet.kill(NODE)
    fleet.until(began.exists, "the hook began")
    code, _ = fleet.end("root")
    assert code == 0


def test_systemd_hears_of_it_all(fleet: Fleet, systemd: Systemd) -> None:
    fleet.end("root")
    fleet.variables["root"] = {**systemd.environment, "WATCHDOG_USEC": WATCHDOG_USEC}
    fleet.start(["root"])
    heard: list[str] = []

    def hear(word: str) -> bool:
        heard.extend(systemd.heard())
        return any(word in text for text in heard)

    assert until(lambda: hear("READY=1\nSTATUS="))
    assert until(lambda: hear("WATCHDOG=1"))
    assert until(lambda: hear("STATUS=1 of 1 leaders hold their lease, 2 nodes known"))
    fleet.end("root")
    assert hear("STOPPING=1")
