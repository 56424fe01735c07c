"""Questions and orders at the root. What each view holds is tried beside the view."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hbagent.core.effects import Answer, Effects, Fetch, Note, Persist, Revive, RunHook
from hbagent.core.messages import HookFinished, KeepFailed, Kept, Order, Ordered, Query, Revived
from hbagent.core.records import Batch, Restored, RunState
from hbagent.core.root import RootCore
from hbagent.core.states import Kind, Liveness
from hbagent.core.units import SECOND
from tests.build import LEADER, NODE, RACK, WALL_NS, hook, root_core, row, run, summary, transition, transitions

ASKER = "console"
DEAD = Liveness.DEAD


def root(**settings: Any) -> RootCore:
    core = root_core(hook("page"), **settings)
    say(core, LEADER, summary(1, row("node1")), 0)
    say(core, LEADER, transitions(transition(1)), 1)
    return core


def say(core: RootCore, sender: str, message: object, now: int) -> list[Batch]:
    """Have the core receive it, or with None wake, and the disk take everything; returns what was written."""
    effects = core.wake(now) if message is None else core.receive(sender, message, now)
    written: list[Batch] = []
    while orders := [effect for effect in effects if isinstance(effect, Persist)]:
        written += [order.batch for order in orders]
        effects = core.receive("", Kept(orders[0].token), now)
    return written


def order(core: RootCore, what: str, now: int = 10, **fields: Any) -> Effects:
    return core.receive(ASKER, Ordered(Order(id=7, what=what, **fields), "ada"), now)


def answers(effects: Effects) -> list[Answer]:
    return [effect for effect in effects if isinstance(effect, Answer)]


def ask(core: RootCore, what: str, **fields: Any) -> Any:
    (answer,) = core.receive(ASKER, Query(id=3, what=what, **fields), 10)
    return answer


def test_an_order_is_answered_when_it_is_on_disk_and_logged_with_who_gave_it() -> None:
    core = root()
    effects = order(core, "silence", nodes=(NODE,), length_ns=SECOND, reason="swap")
    assert answers(effects) == []
    (persist,) = [effect for effect in effects if isinstance(effect, Persist)]
    assert [silence.reason for silence in persist.batch.silences] == ["swap"]
    kept = core.receive("", Kept(persist.token), 11)
    (answer,) = answers(kept)
    assert (answer.id, answer.error, answer.view["silence"].author) == (7, "", "ada")
    (note,) = [effect for effect in kept if isinstance(effect, Note)]
    assert note.what == "operator"
    silence = answer.view["silence"].silence
    assert note.fields == {"by": "ada", "did": "silence", "to": silence, "covers": NODE, "reason": "swap"}


@pytest.mark.parametrize(
    ("globs", "note"),
    [
        ({"nodes": (NODE,)}, None),
        ({"racks": ("rack1",)}, None),
        ({"causes": ("host-gone",)}, None),
        ({"racks": ("nosuch",)}, "it fits nothing that is known now: no rack nosuch"),
        ({"nodes": ("wbe*",)}, "it fits nothing that is known now: no node wbe*"),
    ],
)
def test_a_silence_of_what_nobody_is_called_is_accepted_and_says_so(globs: dict[str, Any], note: str | None) -> None:
    core = root()
    effects = order(core, "silence", length_ns=SECOND, reason="swap", **globs)
    (persist,) = [effect for effect in effects if isinstance(effect, Persist)]
    (answer,) = answers(core.receive("", Kept(persist.token), 11))
    assert answer.view["silence"].state == "active"
    assert answer.view.get("note") == note


def test_an_order_during_a_failing_disk_holds_and_says_that_it_is_not_kept() -> None:
    core = root()
    effects = order(core, "silence", nodes=(NODE,), length_ns=SECOND, reason="swap")
    (persist,) = [effect for effect in effects if isinstance(effect, Persist)]
    meanwhile = order(core, "silence", racks=(RACK,), length_ns=SECOND, reason="more")
    assert answers(meanwhile) == []
    told = answers(core.receive("", KeepFailed(persist.token, "disk full"), 12))
    assert [answer.view["not_kept"] for answer in told] == ["disk full", "disk full"]
    (late,) = answers(order(core, "silence", racks=("dc1/*",), length_ns=SECOND, reason="x", now=13))
    assert "disk full" in late.view["not_kept"]


@pytest.mark.parametrize(
    ("what", "fields", "says"),
    [
        ("silence", {"nodes": (NODE,), "length_ns": SECOND}, "say why"),
        ("unsilence", {"target": "s9"}, "s9"),
        ("ack", {"target": "i9"}, "no incident 'i9' is open"),
        ("forget", {"target": "dc1/rack1/nobody"}, "no node"),
        ("forget", {"target": NODE}, "end its agent first"),
        ("hook-test", {"target": "nobody"}, "there are: page"),
        ("hook-test", {"target": "page", "kinds": ("node-ded",)}, "node-ded"),
        ("explode", {}, "cannot do 'explode'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence_and_not_logged_as_done(
    what: str, fields: dict[str, Any], says: str
) -> None:
    effects = order(root(), what, **fields)
    (answer,) = answers(effects)
    assert says in answer.error
    assert not [effect for effect in effects if isinstance(effect, Note)]


def test_an_incident_is_acknowledged_by_name() -> None:
    core = root()
    say(core, LEADER, transitions(transition(2, DEAD, Liveness.ALIVE)), 20)
    (incident,) = ask(core, "status").view.incidents
    order(core, "ack", target=incident.incident, reason="on it")
    (shown,) = ask(core, "status").view.incidents
    assert (shown.state, shown.acked_by, shown.comment) == ("acknowledged", "ada", "on it")


def test_a_node_that_is_forgotten_is_shown_no_more_until_it_lives() -> None:
    core = root()
    say(core, LEADER, transitions(transition(2, DEAD, Liveness.ALIVE)), 20)
    say(core, ASKER, Ordered(Order(id=7, what="forget", target=NODE), "ada"), 22)
    assert NODE not in core.nodes
    core.receive(LEADER, summary(2, row("node1", DEAD, version=2), newest=2), 30)
    assert NODE not in core.nodes
    assert ask(core, "status").view.incidents == []
    core.receive(LEADER, summary(3, row("node1", Liveness.ALIVE, version=3), newest=3), 40)
    assert NODE in core.nodes


def test_a_node_that_was_forgotten_stays_so_in_the_next_life() -> None:
    core = root()
    say(core, LEADER, transitions(transition(2, DEAD, Liveness.ALIVE)), 20)
    (batch,) = say(core, ASKER, Ordered(Order(id=7, what="forget", target=NODE), "ada"), 22)
    (state,) = [state for state in batch.nodes if state.node == NODE]
    assert state.forgotten
    again = root_core(hook("page"), seed=2, restored=Restored(nodes=(state,)))
    again.receive(LEADER, summary(1, row("node1", DEAD, version=2), newest=2), 5)
    assert NODE not in again.nodes


def test_a_hook_is_tried_with_a_sample_and_the_outcome_goes_to_who_asked() -> None:
    core = root()
    (started,) = [effect for effect in order(core, "hook-test", target="page") if isinstance(effect, RunHook)]
    assert msgspec.json.decode(started.input)["test"] is True
    (answer,) = answers(core.receive("", HookFinished(run_id=started.run_id, exit_code=3, error="exit 3"), 20))
    assert (answer.id, answer.view["ok"], answer.view["exit_code"]) == (7, False, 3)


def test_what_was_given_up_is_owed_again_with_all_its_attempts() -> None:
    core = root()
    effects = order(core, "hook-retry", target="")
    assert [effect for effect in effects if isinstance(effect, Revive)]
    dead = run(4, state=RunState.DEAD, attempt=5, error="exit 1")
    (answer,) = answers(core.receive("", Revived(b"console", 7, (dead,)), 20))
    assert (answer.view["retried"], answer.view["over"]) == ([], [dead.run_id]), "nobody is dead, so nobody is told"
    effects = core.receive("", Revived(b"console", 7, (dead,), named=True), 20)
    (answer,) = answers(effects)
    assert answer.view["retried"] == [dead.run_id]
    (persist,) = [effect for effect in effects if isinstance(effect, Persist)]
    assert [(again.state, again.attempt) for again in persist.batch.runs] == [(RunState.PENDING, 0)]
    (started,) = [e for e in core.receive("", Kept(persist.token), 21) if isinstance(e, RunHook)]
    assert started.run_id == dead.run_id
    assert answers(core.receive("", Revived(b"console", 7, (), "no such run"), 30))[0].error == "no such run"


@pytest.mark.parametrize("what", ["unsent", "dead-letters", "incidents"])
def test_what_has_been_is_asked_of_the_store(what: str) -> None:
    question = "why-silent" if what == "unsent" else what
    fetch = ask(root(), question, node=NODE if what == "unsent" else "")
    assert isinstance(fetch, Fetch)
    assert (fetch.what, fetch.node) == (what, NODE if what == "unsent" else "")


def test_a_question_that_nobody_knows_is_refused() -> None:
    core = root()
    assert "cannot answer 'weather'" in ask(core, "weather").error
    assert "no node" in ask(core, "why-silent", node="dc1/rack1/nobody").error
    assert "no rack" in ask(core, "why-silent", rack="dc1/rack9").error
    for known in (RACK, LEADER, core.config.name):
        assert isinstance(ask(core, "why-silent", rack=known), Fetch)
    assert "of which event" in ask(core, "runs").error
    assert ask(core, "ping").view["role"] == "root"


def test_who_said_goodbye_and_stays_away_is_told_once_and_shown() -> None:
    core = root(left_warn_after_ns=5 * SECOND)
    say(core, LEADER, transitions(transition(2, Liveness.LEFT, Liveness.ALIVE)), 20)
    told = []
    for second in range(1, 12):
        now = second * SECOND
        core.wall.tell(WALL_NS + now, now)
        away = summary(1 + second, row("node1", Liveness.LEFT, version=2), newest=2)
        batches = [*say(core, LEADER, away, now), *say(core, "", None, now)]
        told += [(second, event.kind) for batch in batches for event in batch.events]
    assert told == [(6, Kind.NODE_AWAY)], "five seconds after the root heard the goodbye, whatever its leader says"
    (shown,) = ask(core, "status").view.nodes
    assert (shown.liveness, shown.health.value) == (Liveness.LEFT, "WARNING")
    (back,) = say(core, LEADER, transitions(transition(3, Liveness.ALIVE, Liveness.LEFT)), 12 * SECOND)
    assert [(run.hook, run.state) for run in back.runs] == [("page", RunState.PENDING)], (
        "who was told is told of the end"
    )
    assert ask(core, "status").view.nodes[0].health.value != "WARNING"
