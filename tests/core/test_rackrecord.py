"""A rack goes dark, and comes back: each once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.fleet import NodeRecord
from hbagent.core.rackrecord import DARK_MIN, DARK_PERCENT, RackRecord, is_dark
from hbagent.core.states import Cause, Liveness
from tests.build import RACK

ALIVE, SUSPECT, DEAD, LEFT, UNKNOWN = (
    Liveness.ALIVE,
    Liveness.SUSPECT,
    Liveness.DEAD,
    Liveness.LEFT,
    Liveness.UNKNOWN,
)


def nodes(dark: int = 0, alive: int = 0, suspect: int = 0, dead: int = 0, left: int = 0) -> list[NodeRecord]:
    made = []
    for value, count in ((UNKNOWN, dark), (ALIVE, alive), (SUSPECT, suspect), (DEAD, dead), (LEFT, left)):
        for number in range(count):
            record = NodeRecord(f"{RACK}/{value.value}{number}", RACK)
            record.told, record.cause = value, Cause.RACK_DARK if value is UNKNOWN else None
            made.append(record)
    return made


def test_a_rack_is_dark_at_55_per_cent_and_three_nodes() -> None:
    assert RackRecord(RACK).look(nodes(dark=54, alive=46)) is None
    assert RackRecord(RACK).look(nodes(dark=55, alive=45)) == (55, 100)
    assert RackRecord(RACK).look(nodes(dark=2)) is None
    assert RackRecord(RACK).look(nodes(dark=3)) == (3, 3)
    assert (DARK_PERCENT, DARK_MIN) == (55, 3)


def test_nodes_that_are_only_suspected_are_not_dark() -> None:
    assert RackRecord(RACK).look(nodes(dark=3, suspect=7)) is None


def test_who_was_dead_or_gone_before_does_not_count() -> None:
    assert RackRecord(RACK).look(nodes(dark=6, alive=1, dead=40, left=9)) == (6, 7)


def test_it_is_told_once_and_its_end_once() -> None:
    rack = RackRecord(RACK)
    looks = [nodes(dark=8), nodes(dark=8), nodes(dark=4, alive=4), nodes(dark=2, alive=6), nodes(alive=8)]
    found = [(rack.look(look), rack.dark) for look in looks]
    assert found == [((8, 8), True), (None, True), (None, True), ((2, 8), False), (None, False)]


def test_a_rack_whose_nodes_are_called_dead_one_by_one_has_not_recovered() -> None:
    rack = RackRecord(RACK)
    rack.look(nodes(dark=8))
    assert rack.look(nodes(dead=8)) is None and rack.dark
    assert rack.look(nodes(suspect=8)) is None and rack.dark
    assert rack.look(nodes(alive=1, dead=7)) is not None


def test_a_node_of_which_nothing_is_known_for_another_reason_is_not_dark() -> None:
    (record,) = nodes(dark=1)
    assert is_dark(record)
    record.cause = Cause.INCOMPATIBLE
    assert not is_dark(record)


COUNTS = st.integers(0, 12)


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.booleans())
def test_looking_twice_says_nothing_new(dark: int, alive: int, suspect: int, dead: int, was: bool) -> None:
    rack = RackRecord(RACK)
    rack.dark = was
    rack.look(nodes(dark, alive, suspect, dead))
    assert rack.look(nodes(dark, alive, suspect, dead)) is None


def test_what_all_leaders_call_dark_is_told_whatever_their_share() -> None:
    rack = RackRecord(RACK)
    assert rack.look(nodes(dark=2)) is None
    assert rack.look(nodes(dark=2), said=True) == (2, 2)
    assert rack.look(nodes(dark=1, alive=9), said=True) is None and rack.dark
    assert rack.look(nodes(dark=1, alive=9)) == (1, 10)
    assert RackRecord(RACK).look(nodes(alive=9), said=True) is None
