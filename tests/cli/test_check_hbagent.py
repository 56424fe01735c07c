"""`check_hbagent` as a scheduler of checks calls it: its exit code, its line, and its performance data."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hbagent.cli.check_hbagent import COUNTED, LINE_LENGTH_MAX, PROBLEMS_MAX, judge, main
from hbagent.core.units import SECOND
from hbagent.probes.plugin import Said, parse
from tests.cli.answering import LEADER1, RACK1, Daemon, calm_root, dying, leader_core
from tests.cli.test_query import answering

AT = "2026-11-21T12:01:40.000Z"
Row = dict[str, Any]


def node(name: str, liveness: str = "ALIVE", health: str = "OK", rack: str = "dc/r1", **more: Any) -> Row:
    return {
        "node": f"{rack}/{name}",
        "rack": rack,
        "liveness": liveness,
        "health": health,
        "cause": None if liveness == "ALIVE" else "silence",
        "since": "2026-11-21T12:00:00.000Z",
        "age_s": 0.2,
        "probes": [],
        "apps": [],
        **more,
    }


def rack(name: str = "dc/r1", state: str = "OK", age_s: float | None = 0.4) -> Row:
    return {"rack": name, "state": state, "leaders": [{"leader": f"{name}-l", "age_s": age_s, "uptime_s": 900.0}]}


def document(*nodes: Row, racks: list[Row] | None = None, incidents: list[Row] | None = None, **root: Any) -> Row:
    return {
        "root": {"name": "dc/root", "role": "root", "at": AT, "uptime_s": 900.0, **root},
        "racks": racks if racks is not None else [rack()],
        "nodes": list(nodes),
        "incidents": incidents or [],
    }


DRILLED = {"name": "hbagent-drill-ab12cd", "health": "DEADLOCKED", "text": "two threads wait for one another"}


def test_a_drill_is_told_and_does_not_count() -> None:
    drilled = node("n1", health="DEADLOCKED", apps=[DRILLED], health_beside_drill="OK")
    code, said = checked(document(drilled, node("n2")), crit={"DEADLOCKED": "0"})
    assert code == 0
    assert "1 in a drill of 2 nodes" in said.text
    assert "dc/r1/n1: in a drill by app hbagent-drill-ab12cd: two threads wait for one another" in said.details
    assert {"deadlocked": 0, "ok": 2}.items() <= {item.label: item.value for item in said.measures}.items()


def test_a_real_trouble_beside_a_drill_counts_and_is_named() -> None:
    disk = {"name": "disk", "health": "WARNING", "text": "91 % used"}
    drilled = node("n1", health="DEADLOCKED", apps=[DRILLED], probes=[disk], health_beside_drill="WARNING")
    code, said = checked(document(drilled))
    assert code == 1
    assert "dc/r1/n1: WARNING by probe disk: 91 % used" in said.details


def checked(
    answer: Row, *, warn: dict[str, str] | None = None, crit: dict[str, str] | None = None, nodes_only: bool = False
) -> tuple[int, Said]:
    code, lines = judge(answer, (warn or {}).items(), (crit or {}).items(), 15.0, nodes_only)
    said = parse("\n".join(lines))
    assert said.skipped == 0, "every item of performance data can be read"
    assert ["OK", "WARNING", "CRITICAL", "UNKNOWN"][code] == said.text.split()[1]
    return code, said


def value(said: Said, label: str) -> float | None:
    return next(measure.value for measure in said.measures if measure.label == label)


# ---- the verdict -----------------------------------------------------------------------------------------


def test_all_well_is_ok_and_every_count_is_there() -> None:
    code, said = checked(document(node("n1"), node("n2")))
    assert code == 0
    assert said.text == "HBAGENT OK - 2 nodes in 1 rack, 0 incidents"
    assert said.details == ()
    labels = [measure.label for measure in said.measures]
    assert labels[:3] == ["nodes", "alive", "ok"]
    assert {state.lower().replace("-", "_") for state in COUNTED} < set(labels)
    assert (value(said, "nodes"), value(said, "alive"), value(said, "ok"), value(said, "dead")) == (2, 2, 2, 0)
    (age,) = [measure for measure in said.measures if measure.label == "data_age"]
    assert (age.value, age.unit, age.critical, age.least) == (0.4, "s", "15", 0)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (node("x", "DEAD"), 2),
        (node("x", "ALIVE", "CRITICAL"), 2),
        (node("x", "ALIVE", "DEADLOCKED"), 2),
        (node("x", "UNKNOWN"), 3),
        (node("x", "SUSPECT"), 1),
        (node("x", "ALIVE", "STALLED"), 1),
        (node("x", "ALIVE", "WARNING"), 1),
        (node("x", "LEFT"), 0),
    ],
)
def test_without_thresholds_the_verdict_is_that_of_status(bad: Row, code: int) -> None:
    found, said = checked(document(node("n1"), bad))
    assert found == code
    assert said.details[0].startswith(f"dc/r1/x: {bad['liveness'] if bad['liveness'] != 'ALIVE' else bad['health']}")


def test_a_state_with_a_threshold_is_judged_by_it_alone() -> None:
    dead = document(node("n1"), node("n2", "DEAD"), node("n3", "DEAD"))
    assert checked(dead, warn={"DEAD": "1"}, crit={"DEAD": "2"})[0] == 1
    assert checked(dead, crit={"DEAD": "1"})[0] == 2
    assert checked(dead, crit={"DEAD": "5"})[0] == 0
    assert checked(dead, crit={"SUSPECT": "0"})[0] == 2, "the dead are judged as ever"
    _, said = checked(dead, warn={"DEAD": "1"}, crit={"DEAD": "~:2"})
    (measure,) = [measure for measure in said.measures if measure.label == "dead"]
    assert (measure.value, measure.warning, measure.critical, measure.least, measure.most) == (2, "1", "~:2", 0, 3)


def test_incidents_and_dark_racks_may_be_counted_too() -> None:
    incident = {"incident": "i7", "rack": "dc/r1", "text": "2 nodes dead", "acked_by": "alice"}
    fire = document(node("n1"), incidents=[incident, {**incident, "incident": "i8", "acked_by": ""}])
    assert checked(fire)[0] == 0
    code, said = checked(fire, crit={"INCIDENTS": "1"})
    assert code == 2
    assert said.details == ("incident i7: 2 nodes dead, acknowledged by alice", "incident i8: 2 nodes dead")
    dark = document(node("n1"), racks=[rack(state="DARK")])
    assert checked(dark)[0] == 2
    assert checked(dark, crit={"DARK": "1"})[0] == 0


def test_old_or_missing_data_are_unknown_and_hide_no_fire() -> None:
    code, said = checked(document(node("n1"), racks=[rack(age_s=20.0)]))
    assert code == 3
    assert said.details == ("dc/r1: its data are 20.0s old",)
    code, said = checked(document(node("n1"), racks=[rack(age_s=None)]))
    assert (code, value(said, "data_age")) == (3, None)
    assert checked(document(node("n1", "DEAD"), racks=[rack(age_s=20.0)]))[0] == 2


def test_a_root_without_nodes_or_leaders_or_a_disk_says_so() -> None:
    assert checked(document())[0] == 3
    assert checked(document(node("n1"), isolated=True))[0] == 3
    code, said = checked(document(node("n1"), degraded="store: disk full"))
    assert (code, said.details) == (1, ("the root is degraded: store: disk full",))


def test_a_sick_node_is_told_with_its_culprit() -> None:
    probe = {"name": "disk", "health": "CRITICAL", "text": "/ is 99% full"}
    _, said = checked(document(node("n1", health="CRITICAL", probes=[probe])))
    assert said.details == ("dc/r1/n1: CRITICAL by probe disk: / is 99% full",)
    _, said = checked(document(node("n1", "DEAD")))
    assert said.details == ("dc/r1/n1: DEAD (silence) for 1m40s",)


def test_of_many_problems_the_worst_are_told_and_the_rest_counted() -> None:
    many = [node(f"n{at}", "SUSPECT") for at in range(30)]
    _, said = checked(document(*many, node("worst", "DEAD")))
    assert said.details[0].startswith("dc/r1/worst: DEAD")
    assert len(said.details) == PROBLEMS_MAX + 1
    assert said.details[-1] == "and 11 more"


HOSTILE = "\x1b[31mred\x1b[0m\n<script>alert(1)</script> | dead=99 `id` " + "x" * 10_000 + "\u202e"


def test_hostile_text_can_neither_end_the_line_nor_add_a_number_nor_become_a_tag() -> None:
    probe = {"name": "p", "health": "CRITICAL", "text": HOSTILE}
    bad = document(
        node("n1", health="CRITICAL", probes=[probe]),
        incidents=[{"incident": HOSTILE, "rack": "", "text": HOSTILE, "acked_by": HOSTILE}],
        degraded=HOSTILE,
    )
    code, lines = judge(bad, (), (), 15.0)
    assert code == 2
    text = "\n".join(lines)
    assert len(lines) == 4
    assert text.count("|") == 1
    assert text.isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f<>`]", text)
    assert all(len(line) <= LINE_LENGTH_MAX for line in lines[1:])
    assert value(parse(text), "dead") == 0


def test_an_answer_of_another_age_breaks_nothing() -> None:
    odd: Row
    for odd in ({}, {"nodes": 3, "racks": [7], "root": []}, {"nodes": [{}], "racks": [{}], "incidents": [{}]}):
        code, lines = judge(odd, (), (), 15.0)
        assert code == 3
        assert parse(lines[0]).skipped == 0


# ---- the call --------------------------------------------------------------------------------------------


def called(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(words)
    shown = capsys.readouterr()
    assert shown.err == ""
    return code, shown.out.rstrip("\n")


def test_a_root_is_asked_and_a_death_is_critical(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    core = calm_root()
    with Daemon(core, socket_dir, 100 * SECOND) as daemon:
        code, said = called(capsys, "--socket", daemon.endpoint)
        assert (code, parse(said).text) == (0, "HBAGENT OK - 4 nodes in 2 racks, 0 incidents")
        daemon.tell(LEADER1, dying())
        code, said = called(capsys, "--socket", daemon.endpoint)
        assert code == 2
        assert parse(said).text.startswith("HBAGENT CRITICAL - 1 DEAD of 4 nodes in 2 racks")
        assert parse(said).details[0].startswith(f"{RACK1}/node1: DEAD (silence)")
        assert called(capsys, "--socket", daemon.endpoint, "--rack", "rack2")[0] == 0
        assert called(capsys, "--socket", daemon.endpoint, "--node", "rack1/node2")[0] == 0
        assert called(capsys, "--socket", daemon.endpoint, "--node", f"{RACK1}/node1")[0] == 2
        assert called(capsys, "--socket", daemon.endpoint, "-c", "1", "-w", "DEAD=0")[0] == 1
        code, said = called(capsys, "--socket", daemon.endpoint, "--node", "node9")
        assert (code, said) == (3, "HBAGENT UNKNOWN - no node 'node9' is known there")
        assert called(capsys, "--socket", daemon.endpoint, "--rack", "rack9")[0] == 3


def test_a_leader_can_be_asked_in_its_stead(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(leader_core(), socket_dir, 3 * SECOND) as daemon:
        _, said = called(capsys, "--socket", daemon.endpoint, "--node", "node1")
        assert parse(said).text.startswith("HBAGENT")


def test_covered_nodes_may_be_left_out() -> None:
    from hbagent.cli.check_hbagent import _narrowed

    covered = document(node("n1"), node("n2", "DEAD", covered_by=["s1"]))
    assert checked(covered)[0] == 2
    assert checked(_narrowed(covered, (), True))[0] == 0


def test_a_root_that_is_not_there_is_unknown(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = called(capsys, "--socket", f"ipc://{socket_dir}/none.sock")
    assert code == 3
    assert said.startswith("HBAGENT UNKNOWN - cannot reach ipc:")
    assert "there is no such socket" in said


def test_a_root_that_does_not_answer_is_unknown_in_time(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(socket_dir, lambda query: ()) as endpoint:
        assert called(capsys, "--socket", endpoint, "-t", "0.2") == (3, "HBAGENT UNKNOWN - no answer within 0.2 s")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["-c", "DEAED=1"], "'DEAED' is none of SUSPECT, DEAD"),
        (["-c", "DEAD=much"], "is no range"),
        (["-t", "0"], "above 0"),
        (["-H", "root.example"], "--connect needs --server-key"),
        (["-H", "a b", "--server-key", "k", "--key", "k"], "must be an address"),
        (["--config", "/nonexistent/root.toml"], "cannot be read"),
    ],
)
def test_a_wrong_call_is_unknown_and_says_why_where_a_scheduler_looks(
    words: list[str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = called(capsys, *words)
    assert code == 3
    assert said.startswith("HBAGENT UNKNOWN - ")
    assert wanted in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("root.example", "tcp://root.example:5713"),
        ("10.0.0.5:6000", "tcp://10.0.0.5:6000"),
        ("::1", "tcp://[::1]:5713"),
        ("[::1]:6000", "tcp://[::1]:6000"),
        ("tcp://root:1", "tcp://root:1"),
    ],
)
def test_a_host_may_be_named_in_every_usual_way(host: str, endpoint: str) -> None:
    from hbagent.cli.check_hbagent import _endpoint

    assert _endpoint(host) == endpoint


def test_it_is_a_program_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hbagent.cli.check_hbagent", "--socket", "ipc:///nonexistent/root.sock"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("HBAGENT UNKNOWN - ")
