"""A root whose history is on a database server: it watches on without it, and writes what it owes when it is back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.cli import EXIT_UNAVAILABLE
from hbagent.demo.datacenter import Plan
from hbagent.store.postgres import PostgresHistory
from tests.conftest import Figures
from tests.e2e.conftest import short_directory
from tests.e2e.fleet import Fleet
from tests.role.test_start import start
from tests.store.server import Server, running

pytestmark = [pytest.mark.e2e, pytest.mark.paired, pytest.mark.timeout(120)]

NODE = "rack1-node1"
PASSWORD = "correct-horse"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        server.ask(f"CREATE ROLE secretive LOGIN PASSWORD '{PASSWORD}'")
        server.ask("GRANT CREATE ON DATABASE postgres TO secretive")
        yield server


@pytest.fixture(scope="module")
def address(server: Server) -> str:
    return f"postgresql://secretive:{PASSWORD}@/postgres?host={server.directory}"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Fleet]:
    # Config files are for nobody else to read: one holds a password.
    with short_directory(tmp_path_factory) as directory:
        made = Fleet(directory, Plan(racks=1, nodes=2, root_lines=(f'store = "{address}"',)))
        with made:
            before = os.umask(0o077)
            try:
                made.write()
                made.start()
            finally:
                os.umask(before)
            made.settle()
            yield made


def degraded(fleet: Fleet) -> str:
    return str((fleet.ask("status") or {"root": {"degraded": "?"}})["root"]["degraded"])


def test_a_database_that_goes_away_holds_up_no_alarm_and_is_written_when_it_is_back(
    fleet: Fleet, server: Server, address: str, figures: Figures
) -> None:
    told = len(fleet.told())
    server.stop()
    fleet.kill(NODE)
    took = fleet.until_liveness(NODE, "DEAD")
    fleet.until(lambda: degraded(fleet).startswith("store: postgresql://"), "degraded")
    fleet.until(
        lambda: any(row["kind"] == "node-dead" for row in fleet.told()[told:]), "the hook was told all the same"
    )
    assert fleet.ask("events") is None, "nothing can be read"
    server.start()
    healed = fleet.until(lambda: not degraded(fleet), "healed")
    fleet.until(lambda: fleet.events(0, "node-dead"), "the event is in the history")
    fleet.start([NODE])
    fleet.settle()
    figures("F15", f"database away: DEAD after {took:.2f} s, well {healed:.2f} s after it was back")
    assert PASSWORD not in fleet.log("root")
    assert PASSWORD not in Path(f"/proc/{fleet.processes['root'].pid}/cmdline").read_text()


def test_a_root_that_starts_without_its_database_goes_on_where_it_was(
    fleet: Fleet, server: Server, address: str
) -> None:
    before = [row["sequence"] for row in fleet.events()]
    fleet.kill("root")
    server.stop()
    fleet.start(["root"])
    fleet.until(lambda: "store: " in degraded(fleet), "degraded")
    fleet.kill(NODE)
    fleet.until_liveness(NODE, "DEAD")
    server.start()
    fleet.until(lambda: not degraded(fleet), "healed")
    after = [row["sequence"] for row in fleet.events()]
    assert after[: len(before)] == before, "nothing was written over"
    assert len(set(after)) == len(after) > len(before)
    fleet.start([NODE])
    fleet.settle()
    fleet.end("root")
    history = PostgresHistory(address)
    assert history.restore().problems == ()
    assert history.balance() == []
    history.close()
    fleet.start(["root"])
    fleet.settle()
    assert [row["sequence"] for row in fleet.events()][: len(after)] == after


def test_a_second_root_on_the_same_database_is_turned_away(fleet: Fleet) -> None:
    code, text = start(fleet, "root")
    assert code == EXIT_UNAVAILABLE
    assert "is another root running?" in text
    assert PASSWORD not in text
    fleet.settle()
