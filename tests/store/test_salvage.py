"""A salvage that a crash has stopped loses no sound row, and a start finishes it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hbagent.store.failpoint import EXIT_STATUS, POINTS
from hbagent.store.salvage import Salvage
from tests.store.crashing import run_writer
from tests.store.samples import change, fill, restore, restored_of, state, without_problems

WRITTEN = range(1, 6)
TRUE = restored_of(WRITTEN)
POINTS_OF_A_SALVAGE = [name for name in POINTS if name.startswith(("history-salvage", "quarantine"))]


@pytest.mark.parametrize("point", [*POINTS_OF_A_SALVAGE, "history-created"])
def test_a_crash_while_salvaging_loses_no_sound_row(path: Path, point: str) -> None:
    fill(path, WRITTEN)
    change(path, "UPDATE nodes SET crc = 0 WHERE node = 'dc1/rack1/node3'")
    damaged = path.read_bytes()
    code, _, errors = run_writer(path, 5, point)
    assert (code, errors) == (EXIT_STATUS, "")
    restored = restore(path)
    nodes = tuple(one for one in TRUE.nodes if one != state(3))
    assert without_problems(restored) == msgspec.structs.replace(TRUE, nodes=nodes)
    assert [entry.read_bytes() for entry in path.parent.glob("*.corrupt-?")] == [damaged]
    assert restore(path).problems == ()


def test_nothing_is_finished_that_was_not_begun(path: Path) -> None:
    fill(path, WRITTEN)
    before = path.read_bytes()
    assert Salvage(path, ()).finish() == ""
    assert path.read_bytes() == before
