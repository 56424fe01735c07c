"""A hook is tried with an event that says that it is a test, whatever its kind, and its asker hears what came of it."""

from __future__ import annotations

import msgspec
import pytest

from hbagent.core.hooktest import PREFIX, TESTS_MAX, HookTests, outcome, sample
from hbagent.core.messages import HookFinished
from hbagent.core.states import Kind
from hbagent.core.units import MILLISECOND, SECOND
from tests.build import WALL_NS, ended, hook


@pytest.mark.parametrize("kind", Kind)
def test_a_sample_of_any_kind_is_a_whole_document_that_says_that_it_is_a_test(kind: Kind) -> None:
    document = msgspec.json.decode(sample(hook(), kind, WALL_NS))
    assert (document["schema"], document["kind"], document["test"], document["drill"]) == (1, kind, True, False)
    assert document["at"].endswith("Z")
    for key in ("node", "rack", "liveness", "health", "cause", "host", "evidence", "attempt", "observers", "members"):
        assert key in document
    assert all(name.startswith("test/") for key in ("node", "rack", "leader") if (name := document[key]))


def test_no_sample_says_that_a_host_is_down() -> None:
    assert "down" not in {msgspec.json.decode(sample(hook(), kind, WALL_NS))["host"] for kind in Kind}


def test_without_a_kind_the_sample_is_of_the_first_that_the_hook_asks_for() -> None:
    chosen = hook("page", Kind.RACK_DARK, Kind.NODE_DEAD)
    assert msgspec.json.decode(sample(chosen, None, WALL_NS))["kind"] == "rack-dark"
    assert msgspec.json.decode(sample(hook("none", on=()), None, WALL_NS))["kind"] == "node-dead"


def test_a_test_runs_the_hook_as_it_is_configured_and_answers_its_asker() -> None:
    tests = HookTests()
    order = tests.begin(b"me", 7, hook("page", timeout_ns=3 * SECOND), WALL_NS, Kind.NODE_DEAD)
    assert (order.hook, order.argv, order.timeout_ns) == ("page", ("/hooks/page",), 3 * SECOND)
    assert order.run_id.startswith(PREFIX)
    answer = tests.finished(
        HookFinished(run_id=order.run_id, exit_code=3, error="exit 3", duration_ns=5 * MILLISECOND, output=b"no \xff")
    )
    assert answer is not None and (answer.asker, answer.id, answer.error) == (b"me", 7, "")
    assert {
        key: answer.view[key] for key in ("hook", "ok", "exit_code", "error", "took_ms", "output", "truncated")
    } == {
        "hook": "page",
        "ok": False,
        "exit_code": 3,
        "error": "exit 3",
        "took_ms": 5.0,
        "output": "no �",
        "truncated": False,
    }
    assert answer.view["sent"]["test"] is True
    assert tests.finished(ended(order.run_id)) is None, "it is answered once"


def test_the_end_of_another_run_is_no_test() -> None:
    tests = HookTests()
    tests.begin(b"me", 7, hook(), WALL_NS)
    assert tests.finished(ended("e-1-page")) is None


def test_no_two_tests_have_one_id_also_not_after_a_restart() -> None:
    first, second = HookTests(), HookTests()
    orders = [
        first.begin(b"me", 1, hook(), WALL_NS),
        first.begin(b"me", 2, hook(), WALL_NS),
        second.begin(b"me", 1, hook(), WALL_NS + SECOND),
    ]
    assert len({msgspec.json.decode(order.input)["event_id"] for order in orders}) == 3


def test_more_than_a_few_at_once_are_refused() -> None:
    tests = HookTests()
    orders = [tests.begin(b"me", number, hook(), WALL_NS) for number in range(TESTS_MAX)]
    with pytest.raises(ValueError, match="ask again"):
        tests.begin(b"me", 9, hook(), WALL_NS)
    tests.finished(ended(orders[0].run_id))
    tests.begin(b"me", 9, hook(), WALL_NS)


def test_a_test_that_went_well_says_so() -> None:
    order = HookTests().begin(b"me", 1, hook(), WALL_NS)
    assert outcome(order, ended(order.run_id))["ok"] is True
    assert outcome(order, ended(order.run_id, 0, "timeout"))["ok"] is False
