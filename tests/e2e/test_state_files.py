"""Row F16: damaged state files between two lives of a leader and of a root. They start, and invent nobody."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hbagent.demo.datacenter import Plan
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, node_of
from tests.e2e.patient import PATIENT

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("healed"), pytest.mark.paired, pytest.mark.timeout(120)]

PLAN = Plan(
    racks=1,
    nodes=3,
    interval="200ms",
    leader_lines=('join_grace = "5s"',),
    leader_tables=PATIENT,
    root_lines=('join_grace = "5s"', 'lease = "10s"'),
)


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    made = build(PLAN)
    made.wake_up()
    return made


def flip(file: Path) -> None:
    """One bit in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def flip_head(file: Path) -> None:
    """One bit of the first line or page."""
    data = bytearray(file.read_bytes())
    data[12] ^= 0x01
    file.write_bytes(data)


def halve(file: Path) -> None:
    """Cut in the middle of something."""
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2 + 3])


def tear(file: Path) -> None:
    """Without the end of the last line."""
    file.write_bytes(file.read_bytes()[:-5])


def lose_the_start(file: Path) -> None:
    """The other half."""
    data = file.read_bytes()
    file.write_bytes(data[len(data) // 2 :])


def garble(file: Path) -> None:
    """Something else altogether, with the name of a node that never was."""
    file.write_bytes(b'00000000 {"k":"n","m":"demo/rack1/phantom","l":"ALIVE","c":null,"i":1,"s":1}\n' * 50)


def become_a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def damages(*kinds: Callable[[Path], None]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("damage", kinds, ids=[kind.__name__ for kind in kinds])


def well_known(fleet: Fleet) -> bool:
    return set(fleet.states()) == {node_of(name) for name in fleet.agents}


@damages(flip, flip_head, tear, lose_the_start, garble, become_a_directory)
def test_a_leader_starts_beside_its_damaged_journal(fleet: Fleet, damage: Callable[[Path], None]) -> None:
    journal = fleet.directory / "state" / "rack1-leader1" / "journal"
    before = set(journal.parent.glob("journal.corrupt-*"))
    mark, skip = fleet.newest(), len(fleet.log("rack1-leader1"))
    fleet.kill("rack1-leader1")
    damage(journal)
    fleet.start(["rack1-leader1"])
    fleet.until(lambda: fleet.states("rack1-leader1"), "it answers")
    assert set(fleet.states("rack1-leader1")) == {node_of(name) for name in fleet.agents}, "phantoms"
    fleet.until(lambda: fleet.lines("rack1-leader1", "journal-damaged", skip=skip), "it is logged")
    # What a power loss leaves is healed in place: the end that is missing was promised to nobody.
    assert len(set(journal.parent.glob("journal.corrupt-*")) - before) == (damage is not tear)
    assert not fleet.lines("rack1-leader1", "Traceback", skip=skip)
    fleet.settle()
    assert well_known(fleet)
    assert not fleet.events(mark, "node-dead")


@damages(flip_head, halve, garble, become_a_directory)
def test_a_root_starts_beside_its_damaged_store(fleet: Fleet, damage: Callable[[Path], None]) -> None:
    store = fleet.directory / "state" / "root" / "history.sqlite"
    before = set(store.parent.glob("history.sqlite.corrupt-*"))
    skip, runs = len(fleet.log("root")), len(fleet.told())
    # Ended and not killed: then all is in the one file that is damaged.
    fleet.end("root")
    for companion in ("-wal", "-shm"):
        store.with_name(store.name + companion).unlink(missing_ok=True)
    damage(store)
    fleet.start(["root"])
    fleet.until(lambda: fleet.states("root"), "it answers")
    fleet.settle()
    assert well_known(fleet), "phantoms"
    assert set(store.parent.glob("history.sqlite.corrupt-*")) - before
    fleet.until(lambda: fleet.lines("root", "store-damaged", skip=skip), "it is logged")
    assert not fleet.lines("root", "Traceback", skip=skip)
    assert len(fleet.told()) == runs, "somebody was told of a damaged file"


def test_state_files_of_another_datacenter_bring_no_nodes(fleet: Fleet, build: Build) -> None:
    """Sound files, but of somebody else: what is not in the config is not in the table."""
    other = build(Plan(racks=2, nodes=3, interval="200ms"))
    other.wake_up()
    other.stop()
    for name, file in (("rack1-leader1", "journal"), ("root", "history.sqlite")):
        fleet.end(name)
        for stale in (fleet.directory / "state" / name).glob(f"{file}*"):
            if stale.is_file():
                stale.unlink()
        shutil.copyfile(other.directory / "state" / name / file, fleet.directory / "state" / name / file)
    fleet.start(["root", "rack1-leader1"])
    fleet.until(lambda: fleet.states("rack1-leader1"), "it answers")
    assert set(fleet.states("rack1-leader1")) == {node_of(name) for name in fleet.agents}
