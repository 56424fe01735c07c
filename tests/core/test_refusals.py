from __future__ import annotations

from hbagent.core.effects import Note
from hbagent.core.refusals import NOTE_EVERY_NS, REMEMBERED_MAX, Refusals


def test_everything_is_counted_and_said_once_a_second_for_each_sender_and_reason() -> None:
    refusals = Refusals()
    assert refusals.add("a", "malformed", 0, "no magic") == (
        Note("warning", "refused", {"sender": "a", "reason": "malformed", "count": 1, "detail": "no magic"}),
    )
    assert refusals.add("a", "malformed", NOTE_EVERY_NS - 1) == ()
    assert len(refusals.add("a", "forged-id", 0)) == 1
    assert len(refusals.add("b", "malformed", 0)) == 1
    (again,) = refusals.add("a", "malformed", NOTE_EVERY_NS)
    assert isinstance(again, Note) and again.fields == {"sender": "a", "reason": "malformed", "count": 4}
    assert refusals.counts == {"malformed": 4, "forged-id": 1}


def test_what_an_honest_network_does_is_no_warning() -> None:
    for reason, level in (("duplicate", "debug"), ("stale", "debug"), ("forged-rack", "warning")):
        (note,) = Refusals().add("a", reason, 0)
        assert isinstance(note, Note) and note.level == level


def test_a_flood_under_many_names_is_counted_and_takes_no_memory() -> None:
    refusals = Refusals()
    for number in range(5 * REMEMBERED_MAX):
        refusals.add(f"a{number}", "unexpected-node", 0)
        assert len(refusals._noted) <= REMEMBERED_MAX
    assert refusals.counts == {"unexpected-node": 5 * REMEMBERED_MAX}
