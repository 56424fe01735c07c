"""The verdict on an answer, and that no answer can break whoever reads it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.cli import answers
from hbagent.cli.answers import REPORT_OVERDUE_S, exit_code, in_states, of_racks, troubled, worst_first
from hbagent.core.states import Health, Liveness, RackState

AT = "2026-11-21T12:00:00.000Z"
LONG_AGO = "2026-11-20T12:00:00.000Z"
JUST_NOW = "2026-11-21T11:59:30.000Z"

Row = dict[str, Any]


def node(name: str = "dc1/r1/n1", liveness: str = "ALIVE", health: str = "OK", **more: Any) -> Row:
    return {
        "node": name,
        "rack": name.rpartition("/")[0],
        "liveness": liveness,
        "health": health,
        "cause": None,
        "since": LONG_AGO,
        "age_s": 0.2,
        "observers": [],
        "probes": [],
        **more,
    }


def rack(name: str = "dc1/r1", state: str = "OK", uptime_s: float = 1000.0) -> Row:
    leader = {"leader": f"{name}-leader1", "state": "ALIVE", "age_s": 0.4, "uptime_s": uptime_s}
    return {"rack": name, "state": state, "leaders": [leader], "counts": {}}


def document(*nodes: Row, racks: tuple[Row, ...] = (), uptime_s: float = 1000.0) -> Row:
    racks = racks or (rack(),)
    return {"schema": 1, "root": {"at": AT, "uptime_s": uptime_s}, "racks": list(racks), "nodes": list(nodes)}


# ---- exit codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("liveness", "code"), [("ALIVE", 0), ("LEFT", 0), ("SUSPECT", 1), ("UNKNOWN", 3), ("DEAD", 2), ("FROZEN", 3)]
)
def test_each_liveness_has_its_exit_code(liveness: str, code: int) -> None:
    assert exit_code(document(node(), node("dc1/r1/n2", liveness))) == code


@pytest.mark.parametrize(
    ("health", "code"), [("OK", 0), ("WARNING", 1), ("STALLED", 1), ("CRITICAL", 2), ("DEADLOCKED", 2)]
)
def test_each_health_has_its_exit_code(health: str, code: int) -> None:
    assert exit_code(document(node(), node("dc1/r1/n2", health=health))) == code


@pytest.mark.parametrize(
    ("state", "code"), [("OK", 0), ("DEGRADED", 0), ("UNKNOWN", 3), ("LEADER-LOST", 3), ("DARK", 2), ("PURPLE", 3)]
)
def test_each_rack_state_has_its_exit_code(state: str, code: int) -> None:
    assert exit_code(document(node(), racks=(rack(), rack("dc1/r2", state)))) == code


DRILLED = {"name": "hbagent-drill-ab12cd", "health": "DEADLOCKED"}


@pytest.mark.parametrize(
    ("beside", "code", "trouble"),
    [("OK", 0, "in a drill"), ("WARNING", 1, "WARNING"), ("CRITICAL", 2, "CRITICAL"), ("nonsense", 2, "DEADLOCKED")],
)
def test_what_only_a_drill_makes_bad_does_not_count(beside: str, code: int, trouble: str) -> None:
    answer = document(node(health="DEADLOCKED", apps=[DRILLED], health_beside_drill=beside))
    assert exit_code(answer) == code
    assert [word for _, word in troubled(answer)] == [trouble]


def test_a_drill_on_a_host_that_is_gone_is_no_excuse() -> None:
    assert exit_code(document(node(liveness="DEAD", health="DEADLOCKED", health_beside_drill="OK"))) == 2


def test_dead_outweighs_unknown_and_unknown_outweighs_suspect() -> None:
    suspect, unknown, dead = node(liveness="SUSPECT"), node(liveness="UNKNOWN"), node(liveness="DEAD")
    assert exit_code(document(suspect, unknown)) == 3
    assert exit_code(document(suspect, unknown, dead)) == 2


def test_a_lost_leader_beside_another_that_speaks_leaves_the_exit_code_to_the_nodes() -> None:
    degraded = rack(state="DEGRADED")
    degraded["leaders"].append({"leader": "dc1/r1-leader2", "state": "DEAD", "age_s": 60.0})
    assert exit_code(document(node(), racks=(degraded,))) == 0


def test_every_word_of_the_core_has_an_exit_code() -> None:
    for liveness in Liveness:
        exit_code(document(node(liveness=liveness.value)))
    for health in Health:
        exit_code(document(node(health=health.value)))
    for state in RackState:
        assert answers.state_of({"state": state.value}) == state.value


# ---- health that is not known ----------------------------------------------------------------------------


def test_health_unknown_counts_once_a_report_is_overdue() -> None:
    assert exit_code(document(node(health="UNKNOWN"))) == 3


def test_a_node_that_just_came_may_have_sent_no_report_yet() -> None:
    assert exit_code(document(node(health="UNKNOWN", since=JUST_NOW))) == 0


def test_a_root_that_just_started_has_had_no_time_to_hear_reports() -> None:
    assert exit_code(document(node(health="UNKNOWN"), uptime_s=REPORT_OVERDUE_S)) == 0


def test_a_leader_that_just_started_has_had_no_time_to_hear_reports() -> None:
    assert exit_code(document(node(health="UNKNOWN"), racks=(rack(uptime_s=REPORT_OVERDUE_S),))) == 0


def test_a_probe_that_says_unknown_counts_at_once() -> None:
    probe = {"name": "pg", "health": "UNKNOWN", "text": "cannot run"}
    assert exit_code(document(node(health="UNKNOWN", since=JUST_NOW, probes=[probe]))) == 3


@pytest.mark.parametrize(("liveness", "code"), [("SUSPECT", 1), ("LEFT", 0)])
def test_health_unknown_of_a_node_that_is_not_alive_adds_nothing(liveness: str, code: int) -> None:
    assert exit_code(document(node(liveness=liveness, health="UNKNOWN"))) == code


# ---- order and selection ---------------------------------------------------------------------------------


def test_problems_come_worst_first_and_a_plain_node_is_none() -> None:
    nodes = [
        node("link-cut", cause="link-cut"),
        node("warning", health="WARNING"),
        node("left", liveness="LEFT"),
        node("dead", liveness="DEAD"),
        node("suspect", liveness="SUSPECT"),
        node("critical", health="CRITICAL"),
        node("unknown", liveness="UNKNOWN"),
        node("plain"),
    ]
    worst = ["dead", "critical", "unknown", "suspect", "warning", "left", "link-cut"]
    assert [found["node"] for found, _ in troubled(document(*nodes))] == worst
    assert [found["node"] for found in worst_first(nodes, document(*nodes))] == [*worst, "plain"]


def test_nodes_of_equal_trouble_keep_the_order_of_the_answer() -> None:
    nodes = [node(f"dc1/r1/n{at}", "DEAD") for at in (3, 1, 2)]
    assert [found["node"] for found, _ in troubled(document(*nodes))] == ["dc1/r1/n3", "dc1/r1/n1", "dc1/r1/n2"]


def test_a_rack_is_chosen_by_full_name_or_last_part_and_the_rest_is_gone_from_the_verdict() -> None:
    whole = document(node("dc1/r1/n1"), node("dc1/r2/n1", "DEAD"), racks=(rack(), rack("dc1/r2", "DEGRADED")))
    for name in ("r1", "dc1/r1"):
        part = of_racks(whole, [name])
        assert ([found["node"] for found in part["nodes"]], len(part["racks"])) == (["dc1/r1/n1"], 1)
        assert exit_code(part) == 0
    assert exit_code(of_racks(whole, [])) == 2
    with pytest.raises(ValueError, match=r"no rack 'r9'; there is dc1/r1, dc1/r2"):
        of_racks(whole, ["r1", "r9"])


def test_a_state_selects_by_either_axis() -> None:
    wanted = in_states(["DEAD", "CRITICAL"])
    assert wanted(node(liveness="DEAD")) and wanted(node(health="CRITICAL")) and not wanted(node())
    assert in_states([])(node())


# ---- other versions --------------------------------------------------------------------------------------

_KEYS = st.sampled_from(
    ("root", "racks", "nodes", "node", "rack", "state", "liveness", "health", "cause", "since", "age_s", "leaders")
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS | st.text(), inner, max_size=6),
    max_leaves=20,
)


@given(_JSON)
def test_no_answer_breaks_the_verdict(value: Any) -> None:
    whole = value if isinstance(value, dict) else {"nodes": [value], "racks": [value], "root": value}
    assert exit_code(whole) in (0, 1, 2, 3)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), True, "3", None])
def test_what_is_no_number_reads_as_none(value: Any) -> None:
    assert answers.number({"age_s": value}, "age_s") is None


def test_an_answer_in_brief_counts_its_nodes_in_its_racks() -> None:
    racks = [
        {"rack": "dc1/r1", "counts": {"ALIVE": 3, "DEAD": 1}},
        {"rack": "dc1/r2", "counts": {"ALIVE": 2, "DEAD": "?"}},
    ]
    document = {"brief": True, "racks": racks, "nodes": [{"node": "dc1/r1/n1"}]}
    assert answers.known(document) == 6
    assert answers.known(of_racks(document, ["r1"])) == 4
    assert answers.known({**document, "brief": "yes"}) == 1


def test_keys_that_nobody_knows_are_left_alone() -> None:
    whole = document(node(colour="blue"), racks=(rack() | {"height": 42},)) | {"moon": {"phase": 3}}
    assert of_racks(whole, ["r1"]) == whole
