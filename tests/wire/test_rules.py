from __future__ import annotations

from typing import Any

import pytest

from hbagent.core import messages as m
from hbagent.wire import codec
from hbagent.wire.refusal import Reason, Refusal
from hbagent.wire.rules import EVIDENCE_BODY_MAX, ORDER_GLOBS_MAX, PAGES_MAX, REASON_LENGTH_MAX, broken

from . import samples

INF = float("inf")
NAN = float("nan")
ESCAPE = "\x1b[2J"

#: message, path to the field, a value that breaks a rule
BREACHES: list[tuple[str, tuple[str | int, ...], Any]] = [
    ("hello", ("incarnation",), -1),
    ("hello", ("interval_ns",), 0),
    ("hello", ("echo_port",), 65536),
    ("hello", ("echo_port",), -1),
    ("hello", ("protocol_low",), 3),
    ("hello", ("version",), "1" * 257),
    ("hello", ("boot_id",), "1" * 257),
    ("admission", ("epoch",), -1),
    ("admission", ("echo_key",), b"short"),
    ("admission", ("reason",), "?" * 257),
    ("farewell", ("sequence",), -1),
    ("farewell-ack", ("incarnation",), -1),
    ("ping", ("number",), -1),
    ("pong", ("number",), -1),
    ("pong", ("incarnation",), -1),
    ("pong", ("sequence",), -1),
    ("relay", ("number",), -1),
    ("relay", ("port",), 0),
    ("relay", ("port",), 65536),
    ("relay", ("address",), ""),
    ("relay", ("address",), "localhost"),
    ("relay", ("address",), "192.0.2"),
    ("relay", ("address",), "192.0.2.12\n"),
    ("relay", ("address",), "fe80::1%eth0;reboot"),
    ("relay", ("request",), bytes(47)),
    ("relay", ("request",), bytes(49)),
    ("relayed", ("number",), -1),
    ("relayed", ("answer",), bytes(47)),
    ("relayed", ("outcome",), "forged"),
    ("heard-wanted", ("number",), -1),
    ("heard-wanted", ("node",), "dc1/rack07"),
    ("last-heard", ("number",), -1),
    ("last-heard", ("node",), ESCAPE),
    ("last-heard", ("age_ns",), -1),
    ("last-heard", ("incarnation",), -1),
    ("last-heard", ("sequence",), -1),
    ("account-wanted", ("number",), -1),
    ("account-wanted", ("since_ns",), -1),
    *(("account", (field,), -1) for field in samples.ACCOUNT.__struct_fields__),
    ("report", ("incarnation",), -1),
    ("report", ("number",), 0),
    ("report", ("facts", "cpu_percent"), NAN),
    ("report", ("facts", "psi_io"), INF),
    ("report", ("facts", "disks", 1, "used_percent"), -INF),
    ("report", ("window_ns",), -1),
    ("report", ("probes", 0, "measures", 0, "value"), NAN),
    ("report", ("probes", 0, "measures", 1, "most"), INF),
    ("report", ("apps", 0, "details"), ["a line"] * (m.DETAILS_MAX + 1)),
    ("report", ("apps", 0, "state"), "asleep"),
    ("evidence-wanted", ("number",), -1),
    ("evidence-wanted", ("node",), "dc1/rack07"),
    ("evidence-wanted", ("app",), "a" * 257),
    ("evidence-wanted", ("bundle",), "b" * 257),
    ("evidence-page", ("number",), -1),
    ("evidence-page", ("node",), ESCAPE),
    ("evidence-page", ("page",), -1),
    ("evidence-page", ("body",), bytes(EVIDENCE_BODY_MAX + 1)),
    ("rack-summary", ("rack",), "rack07"),
    ("rack-summary", ("rack",), "dc1/.."),
    ("rack-summary", ("epoch",), -1),
    ("rack-summary", ("page",), 2),
    ("rack-summary", ("page",), -1),
    ("rack-summary", ("pages",), PAGES_MAX + 1),
    ("rack-summary", ("nodes", 1, "node"), ESCAPE),
    ("rack-summary", ("nodes", 1, "node"), "a/b"),
    ("rack-summary", ("nodes", 0, "sequence"), -1),
    ("rack-reports", ("rack",), ESCAPE),
    ("rack-reports", ("epoch",), -1),
    ("rack-reports", ("reports", 0, "node"), ""),
    ("rack-reports", ("reports", 0, "report", "number"), 0),
    ("transitions", ("base",), -1),
    ("transitions", ("after",), -1),
    ("transitions", ("after",), 9),
    ("transitions", ("items", 0, "number"), 8),
    ("transitions", ("items", 0, "node"), "dc1/rack07/host12\n"),
    ("transitions", ("items", 0, "incarnation"), -1),
    ("transitions", ("items", 0, "evidence", "steps"), [{"after_ns": 1, "text": "asked"}] * (m.STEPS_MAX + 1)),
    ("transitions", ("items", 1, "report"), -1),
    ("transitions", ("items", 1, "evidence", "changes"), samples.fields([samples.CHANGE] * (m.CHANGES_MAX + 1))),
    ("transitions", ("items", 1, "evidence", "changes", 0, "details"), ["a line"] * (m.DETAILS_MAX + 1)),
    ("transitions-ack", ("number",), -1),
    ("query", ("node",), "dc1/rack07"),
    ("query", ("rack",), "$(reboot)"),
    ("query", ("limit",), -1),
    ("query", ("app",), "a" * 257),
    ("query", ("bundle",), "b" * 257),
    ("query", ("what",), "w" * 257),
    ("query", ("incident",), "i" * 257),
    ("query", ("life",), "l" * 257),
    ("order", ("id",), -1),
    ("order", ("what",), "w" * 257),
    ("order", ("target",), "t" * 257),
    ("order", ("every",), "e" * 257),
    ("order", ("reason",), "r" * (REASON_LENGTH_MAX + 1)),
    ("order", ("nodes",), ["n"] * (ORDER_GLOBS_MAX + 1)),
    ("order", ("racks", 0), "r" * 257),
    ("order", ("causes",), ["c"] * (ORDER_GLOBS_MAX + 1)),
    ("order", ("kinds", 0), "k" * 257),
    ("order", ("begins_wall_ns",), -1),
    ("order", ("ends_wall_ns",), -1),
    ("order", ("length_ns",), -1),
    ("answer-page", ("page",), -1),
]


@pytest.mark.parametrize(("name", "path", "value"), BREACHES)
def test_a_message_that_breaks_a_rule_is_malformed(name: str, path: tuple[str | int, ...], value: Any) -> None:
    message = samples.MESSAGES[name]
    body = samples.fields(message)
    place: Any = body
    for step in path[:-1]:
        place = place[step]
    assert isinstance(codec.decode(samples.frame(samples.code_of(message), body)), type(message))
    place[path[-1]] = value
    found = codec.decode(samples.frame(samples.code_of(message), body))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.MALFORMED


def test_transitions_out_of_order_are_malformed() -> None:
    body = samples.fields(samples.MESSAGES["transitions"])
    body["items"] *= 2
    assert isinstance(codec.decode(samples.frame(0x22, body)), Refusal)


def test_every_message_has_rules_and_the_samples_keep_them() -> None:
    assert {type(message) for message in samples.MESSAGES.values()} == set(codec.TYPES.values())
    assert [broken(message) for message in samples.MESSAGES.values()] == [""] * len(samples.MESSAGES)


def test_an_odd_duration_does_not_cost_a_rack_its_summary() -> None:
    body = samples.fields(samples.MESSAGES["rack-summary"])
    body["nodes"][0] |= {"age_ns": -5, "since_ns": -5, "loop_gap_ns": -1}
    assert not isinstance(codec.decode(samples.frame(0x20, body)), Refusal)


@pytest.mark.parametrize("address", ["192.0.2.12", "2001:db8::1", "::1", "::ffff:192.0.2.12", "fe80::1%eth0"])
def test_a_relay_goes_to_any_numeric_address(address: str) -> None:
    body = samples.fields(samples.MESSAGES["relay"]) | {"address": address}
    assert isinstance(codec.decode(samples.frame(0x18, body)), m.Relay)


def test_an_answer_that_never_came_is_told_without_bytes() -> None:
    body = samples.fields(samples.MESSAGES["relayed"]) | {"outcome": "silent", "answer": b""}
    assert isinstance(codec.decode(samples.frame(0x19, body)), m.Relayed)
