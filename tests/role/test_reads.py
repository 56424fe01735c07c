"""What the store adds to an answer: times as people read them, and what is over beside what burns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hbagent.core.effects import Fetch
from hbagent.core.records import Batch, RunState
from hbagent.core.states import IncidentState
from hbagent.core.units import SECOND
from hbagent.role.reads import UnknownError, answer_of
from hbagent.store.history import History
from hbagent.store.sqlite import SqliteHistory
from tests.store.samples import batch, event, incident, run


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """A store of three numbers of everything."""
    opened = SqliteHistory(tmp_path / "history.sqlite")
    opened.restore()
    for number in (1, 2, 3):
        opened.commit(batch(number))
    yield opened
    opened.close()


def answer(history: History, what: str = "events", view: Any = None, **fields: Any) -> dict[str, Any]:
    fetch = Fetch(b"me", 1, 10, 0, fields.pop("node", ""), view, what=what, **fields)
    return msgspec.to_builtins(answer_of(history, fetch))  # type: ignore[no-any-return]


def test_events_are_the_whole_answer_or_go_into_a_view(history: History) -> None:
    whole = answer(history)
    assert whole["schema"] == 1
    assert [each["event_id"] for each in whole["events"]] == ["event-3", "event-2", "event-1"]
    assert list(answer(history, event="event-1")) == ["schema", "runs"]


def test_what_was_not_sent_joins_what_keeps_it_back_now(history: History) -> None:
    found = answer(history, "unsent", {"schema": 1, "node": None, "covered_by": []})
    assert found["covered_by"] == []
    assert found["unsent"]
    for each in found["unsent"]:
        assert each["at"].endswith("Z")
        assert each["due"].endswith("Z")
        assert not any(name.endswith("_ns") for name in each)
    assert answer(history, "unsent", {}, node="dc1/rack9/nobody")["unsent"] == []


def test_of_an_incident_something_is_known_while_it_burns_or_is_kept(history: History) -> None:
    nothing: dict[str, Any] = {"schema": 1, "burning": []}
    with pytest.raises(UnknownError, match="no incident 'i999' is known"):
        answer(history, "unsent", nothing, incident="i999")
    assert answer(history, "unsent", {"burning": [{}]}, incident="i999")["unsent"] == []
    # All of it was sent.
    history.commit(Batch(incidents=(incident(8),)))
    assert answer(history, "unsent", nothing, incident=incident(8).incident_id)["unsent"] == []


def test_what_was_given_up_is_told_with_its_error(history: History) -> None:
    dead = run(7, RunState.DEAD, error="exit 1")
    history.commit(Batch(events=(event(7),), runs=(dead,)))
    (letter,) = answer(history, "dead-letters", {"schema": 1})["dead_letters"]
    assert (letter["run_id"], letter["event_id"], letter["error"]) == (dead.run_id, "event-7", "exit 1")


def test_what_is_over_stands_below_what_burns_and_no_longer_than_it_burned(history: History) -> None:
    over = msgspec.structs.replace(
        incident(8), state=IncidentState.RESOLVED, opened_wall_ns=10 * SECOND, resolved_wall_ns=17 * SECOND
    )
    history.commit(Batch(incidents=(over,)))
    burning = [{"incident": "i3", "state": "firing"}]
    found = answer(history, "incidents", {"schema": 1, "incidents": burning})["incidents"]
    assert found[0] == burning[0]
    (resolved,) = (each for each in found if each["incident"] == over.incident_id)
    assert (resolved["state"], resolved["age_s"], resolved["burning"]) == ("resolved", 7.0, 0)
    assert resolved["resolved"] == "1970-01-01T00:00:17.000Z"
