from __future__ import annotations

import typing
from enum import Enum

import msgspec
import pytest

from hbagent.core import messages as m
from hbagent.core.states import AppState, Health, Kind, Liveness, Outcome, Stall
from hbagent.wire import codec
from hbagent.wire.newer import CHANGE_WORDS, WORDS, translate
from hbagent.wire.refusal import Reason, Refusal

from . import samples


def structs_below(cls: type) -> typing.Iterator[type]:
    """A message's struct and every struct inside it."""
    yield cls
    for hint in typing.get_type_hints(cls).values():
        for inner in (hint, *typing.get_args(hint)):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                yield from structs_below(inner)


def words_of(cls: type) -> typing.Iterator[tuple[str, type]]:
    for name, hint in typing.get_type_hints(cls).items():
        for inner in (hint, *typing.get_args(hint)):
            if isinstance(inner, type) and issubclass(inner, Enum):
                yield name, inner


def test_every_word_of_every_message_has_a_stand_in() -> None:
    structs = {cls for message in codec.TYPES.values() for cls in structs_below(message)}
    for cls in structs:
        words = CHANGE_WORDS if cls is m.HealthChange else WORDS
        for name, vocabulary in words_of(cls):
            # Of a probe it is a name, and no word of a vocabulary.
            assert words[name][0] is vocabulary, (cls, name)
    assert {name for cls in structs for name, _ in words_of(cls)} == set(WORDS)


def test_known_words_and_everything_else_stay() -> None:
    for message in samples.MESSAGES.values():
        assert translate(samples.fields(message)) == samples.fields(message)


def test_strange_words_of_a_newer_minor_are_read_as_not_known() -> None:
    found = codec.decode(samples.foreign()["newer-summary-with-unknown-words"])
    assert isinstance(found, m.RackSummary)
    row = found.nodes[0]
    assert (row.liveness, row.cause, row.health) == (Liveness.UNKNOWN, None, Health.UNKNOWN)
    assert (row.node, row.sequence) == ("host12", 81723)


def test_strange_words_about_probes_and_applications_are_read_as_not_known() -> None:
    found = codec.decode(samples.foreign()["newer-report-with-unknown-words"])
    assert isinstance(found, m.Report)
    (probe,), (app,) = found.probes, found.apps
    assert (probe.kind, probe.soft, probe.health) == ("quantum", Health.UNKNOWN, Health.STALLED)
    assert (app.state, app.stall, app.health) == (AppState.STARTING, Stall.UNKNOWN, Health.DEADLOCKED)


def test_a_change_of_health_has_other_words_before_and_after_than_one_of_liveness() -> None:
    found = codec.decode(samples.foreign()["newer-health-change-with-unknown-words"])
    assert isinstance(found, m.Transitions)
    verdict, health = found.items
    assert (verdict.before, verdict.after) == (Liveness.SUSPECT, Liveness.DEAD)
    (change,) = health.evidence.changes
    assert (change.before, change.after, change.stall) == (Health.UNKNOWN, Health.UNKNOWN, Stall.UNKNOWN)
    assert health.kind is Kind.HEALTH_CHANGED


def test_a_strange_outcome_of_a_newer_minor_counts_as_never_asked() -> None:
    body = samples.fields(samples.MESSAGES["relayed"]) | {"outcome": "half-answered"}
    found = codec.decode(samples.frame(0x19, body, minor=samples.NEWER))
    assert isinstance(found, m.Relayed)
    assert found.outcome is Outcome.UNSENT


@pytest.mark.parametrize("minor", [0, samples.NEWER])
def test_a_strange_word_of_a_version_that_should_know_better_is_malformed(minor: int) -> None:
    row = samples.fields(samples.MESSAGES["rack-summary"])
    row["nodes"][0]["cause"] = "gremlins"
    found = codec.decode(samples.frame(0x20, row, minor=minor))
    assert (isinstance(found, Refusal) and found.reason is Reason.MALFORMED) == (minor == 0)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("SUSPECT", "DEAD", Kind.NODE_DEAD),
        ("DEAD", "ALIVE", Kind.NODE_RECOVERED),
        ("ALIVE", "SUSPECT", Kind.NODE_SUSPECT),
        ("ALIVE", "LEFT", Kind.NODE_LEFT),
        ("ALIVE", "DROWSY", Kind.NODE_UNKNOWN),
        ("DEAD", "DEAD", Kind.HEALTH_CHANGED),
        ("DROWSY", "SLEEPY", Kind.HEALTH_CHANGED),
    ],
)
def test_a_strange_event_is_named_after_what_it_changed(before: str, after: str, kind: Kind) -> None:
    body = samples.fields(samples.MESSAGES["transitions"])
    body["items"][0] |= {"kind": "node-evaporated", "before": before, "after": after}
    found = codec.decode(samples.frame(0x22, body, minor=samples.NEWER))
    assert isinstance(found, m.Transitions)
    assert found.items[0].kind is kind


def test_a_newer_minor_is_held_to_types_and_rules_all_the_same() -> None:
    body = samples.fields(samples.MESSAGES["transitions"])
    body["items"][0] |= {"kind": "node-evaporated", "node": "../../etc/passwd"}
    strange = {"kind": "node-evaporated", "evidence": 5}
    for broken in (
        body,
        {"epoch": 1, "base": 1, "after": 0, "items": [strange]},
        {"epoch": 1, "base": 1, "after": 0, "items": [{"kind": []}]},
    ):
        found = codec.decode(samples.frame(0x22, broken, minor=samples.NEWER))
        assert isinstance(found, Refusal)
        assert found.reason is Reason.MALFORMED
