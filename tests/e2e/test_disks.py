"""Row F15: disks that are full under a leader and under a root. Detection goes on, and both say what they lack."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import short_directory
from tests.e2e.fleet import Fleet, ids

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.paired,
    pytest.mark.timeout(120),
    pytest.mark.root,
    pytest.mark.needs("unshare", "mount"),
]

SIZE = 1 << 20
#: A small disk of its own, in a mount namespace of its own, so that nothing stays mounted whatever happens.
_ON_SMALL_DISK = 'mount -t tmpfs -o size="$1" small "$2" && shift 2 && exec "$@"'


class Cramped(Fleet):
    """A fleet whose root and leaders have little room for their state."""

    def command(self, name: str) -> list[str]:
        command = super().command(name)
        if "-node" in name:
            return command
        state = self.directory / "state" / name
        state.mkdir(mode=0o700, exist_ok=True)
        return ["unshare", "--mount", "sh", "-c", _ON_SMALL_DISK, "sh", str(SIZE), str(state), *command]

    def disk(self, name: str) -> Path:
        """The state directory as its process sees it."""
        return Path(f"/proc/{self.processes[name].pid}/root{self.directory}/state/{name}")

    def fill(self, name: str) -> None:
        """Leave no byte."""
        with (self.disk(name) / "ballast").open("ab", buffering=0) as file:
            for size in (4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    pass

    def degraded(self, of: str) -> str:
        """Why it says that promises are suspended."""
        return str((self.ask("status", of) or {"root": {"degraded": ""}})["root"]["degraded"])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cramped]:
    with short_directory(tmp_path_factory) as directory, Cramped(directory, Plan(racks=1, nodes=3)) as made:
        assert isinstance(made, Cramped)
        made.wake_up()
        yield made


@pytest.mark.parametrize("name", ["root", "rack1-leader1"])
def test_a_full_disk_holds_up_no_verdict_and_is_told(fleet: Cramped, figures: Figures, name: str) -> None:
    fleet.prove()
    mark, runs = fleet.newest(), len(fleet.told())
    fleet.fill(name)
    victim = "rack1-node1"
    fleet.kill(victim)
    took = fleet.until_liveness(victim, "DEAD")
    fleet.until(lambda: fleet.degraded(name), f"{name} says that it is degraded")
    fleet.until(lambda: any(t["kind"] == "node-dead" for t in fleet.told()[runs:]), "the hook was told all the same")
    assert fleet.processes[name].poll() is None
    fleet.start([victim])
    fleet.until_liveness(victim, "ALIVE")
    begun = time.monotonic()
    (fleet.disk(name) / "ballast").unlink()
    fleet.until(lambda: not fleet.degraded(name), f"{name} is well again", 30.0)
    figures("F15", f"disk of {name} full: DEAD after {took:.2f} s, well {time.monotonic() - begun:.2f} s after space")
    fleet.settle()
    told = fleet.lasting(mark)
    assert {row["node"] for row in told if row["node"]} == {fleet.nodes[victim]}, ids(told)
