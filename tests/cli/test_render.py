"""What people see, held against texts on disk.

`python -m tests.cli.test_render --rewrite` writes them anew; read the difference before it is committed.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hbagent.cli.answers import exit_code
from hbagent.cli.dossier import bundle_lines
from hbagent.cli.grid import Screen
from hbagent.cli.incidents import incident_lines, silence_cells, silences_grid
from hbagent.cli.render import (
    as_json,
    as_json_line,
    event_cells,
    events_grid,
    explain_lines,
    node_cells,
    nodes_grid,
    rack_cells,
    racks_grid,
    status_lines,
)

GOLDEN = Path(__file__).parent / "golden"
NOW = "2026-11-21T12:00:13.250Z"
SMALL = Screen(width=80, height=24)
LARGE = Screen(width=200, height=60)
ASCII = Screen(unicode=False, width=80, height=24)
COLOUR = Screen(colour=True, width=80, height=24)

Row = dict[str, Any]


def leader(name: str, state: str = "ALIVE", age_s: float | None = 0.4, **more: Any) -> Row:
    numbers = {"uptime_s": 7800.0, "lag_max_ms": 3.2, "outbox": 0, "refused": {}, "degraded": "", "version": "1.0.0"}
    return {"leader": name, "state": state, "age_s": age_s, **numbers, **more}


def rack(name: str, state: str = "OK", alive: int = 4, leaders: list[Row] | None = None, **counts: int) -> Row:
    every = dict.fromkeys(("ALIVE", "SUSPECT", "DEAD", "LEFT", "UNKNOWN"), 0)
    leaders = leaders or [leader(f"{name}-leader1")]
    return {"rack": name, "state": state, "leaders": leaders, "counts": {**every, "ALIVE": alive, **counts}}


def node(name: str, liveness: str = "ALIVE", health: str = "OK", cause: str | None = None, **more: Any) -> Row:
    at = name.rpartition("/")[0]
    seen = {"leader": f"{at}-leader1", "liveness": liveness, "cause": cause, "age_s": 0.25, "speaks": True}
    facts = {"cpu_percent": 12.5, "memory_used_percent": 41.25, "load_1m": 0.42}
    whole = {
        "node": name,
        "rack": at,
        "liveness": liveness,
        "health": health,
        "cause": cause,
        "since": "2026-11-21T09:30:00.000Z",
        "age_s": 0.25,
        "observers": [seen],
        "probes": [],
        "facts": facts,
        "lost": 0,
        "late": 0,
    }
    return whole | more


def site(*nodes: Row, racks: list[Row], **root: Any) -> Row:
    about = {"name": "demo/root", "role": "root", "version": "1.0.0", "at": NOW, "uptime_s": 7805.0, **root}
    return {"schema": 1, "root": about, "racks": racks, "nodes": list(nodes), "incidents": []}


def calm() -> Row:
    names = [f"demo/rack{r}/node{n}" for r in (1, 2) for n in (1, 2, 3, 4)]
    return site(*map(node, names), racks=[rack("demo/rack1"), rack("demo/rack2")])


PROBES = [
    {
        "name": "pg",
        "kind": "exec",
        "app": "billing",
        "health": "CRITICAL",
        "since_s": 93.0,
        "text": "no answer on 5432",
        "soft": None,
        "attempts": 0,
        "measures": [{"label": "time", "value": 5.0, "unit": "s"}, {"label": "rows", "value": None, "unit": ""}],
    },
    {
        "name": "disk",
        "kind": "host",
        "health": "OK",
        "since_s": 7800.0,
        "text": "73% used",
        "soft": "WARNING",
        "attempts": 2,
        "measures": [],
    },
    {"name": "units", "kind": "host", "health": "OK", "since_s": 7800.0, "text": "", "soft": "OK", "attempts": 1},
]
APPS = [
    {
        "name": "billing",
        "health": "DEADLOCKED",
        "since_s": 3.2,
        "state": "stuck",
        "text": "payer and refunder wait for each other",
        "status": "serving 12 requests",
        "stall": "DEADLOCKED",
        "details": [
            "payer (4712) holds a (in billing) 0x55d0 and waits for b (in billing) 0x55f8",
            "refunder (4713) holds b (in billing) 0x55f8 and waits for a (in billing) 0x55d0",
        ],
        "pid": 4711,
        "bundle": "000017-billing-1f3a9c02d4e5b678",
        "marks": [{"name": "payer", "count": 81723, "queued": 4, "age_s": 12.5, "window_s": 10.0}],
    },
    {"name": "web", "health": "OK", "since_s": 7800.0, "state": "ready", "status": "", "stall": None, "details": []},
]


def troubled() -> Row:
    """A bit of everything, in a store that fails."""
    nodes = [
        node("demo/rack1/node1", "DEAD", "UNKNOWN", "silence", age_s=14.75, since="2026-11-21T12:00:03.250Z", lost=4),
        node("demo/rack1/node2", "SUSPECT", "OK", "silence", age_s=1.45, since="2026-11-21T12:00:12.950Z", late=1),
        node("demo/rack1/node3", "ALIVE", "DEADLOCKED", probes=PROBES, apps=APPS),
        node("demo/rack1/node4", "ALIVE", "OK", "link-cut"),
        node("demo/rack2/node1", "UNKNOWN", "UNKNOWN", "leader-lost", age_s=None, since="1970-01-01T00:00:00.000Z"),
        node("demo/rack2/node2", "LEFT", "WARNING", "left", age_s=90000.0, since="2026-11-20T11:00:00.000Z"),
        node("demo/rack3/node1"),
    ]
    lost = leader("demo/rack2-leader1", "DEAD", 12.5)
    full = leader("demo/rack1-leader1", degraded="journal: No space left on device", refused={"stale": 3})
    racks = [
        rack("demo/rack1", "DEGRADED", 2, [full, leader("demo/rack1-leader2")], SUSPECT=1, DEAD=1),
        rack("demo/rack2", "LEADER-LOST", 0, [lost], UNKNOWN=1, LEFT=1),
        rack("demo/rack3", alive=1),
    ]
    return site(*nodes, racks=racks, degraded="store: disk full", hooks_dead=2, hooks_waiting=5)


def large() -> Row:
    """More racks and more problems than a small screen has lines."""
    racks = [rack(f"dc1/rack{at:02d}", "DEGRADED" if at == 37 else "OK") for at in range(40)]
    dead = [node(f"dc1/rack37/host{at:02d}", "DEAD", cause="host-gone") for at in range(30)]
    return site(*dead, *(node(f"dc1/rack{at:02d}/host01") for at in range(36)), racks=racks)


def dark() -> Row:
    """Every leader is lost."""
    names = [f"dc1/rack{at:02d}" for at in range(40)]
    racks = [rack(at, "LEADER-LOST", 0, [leader(f"{at}-leader1", "DEAD", 60.0)], UNKNOWN=2) for at in names]
    nodes = [node(f"{at}/host{n}", "UNKNOWN", cause="leader-lost") for at in names for n in (1, 2)]
    return site(*nodes, racks=racks)


def burning() -> Row:
    """Incidents of every kind, and nodes that are kept quiet."""
    dead = [
        node("demo/rack1/node1", "DEAD", "UNKNOWN", "host-gone", incidents=["i17"], covered_by=["s3"]),
        node("demo/rack1/node2", "SUSPECT", "OK", "silence", flapping=True, covered_by=["s1", "s2", "s3", "s4"]),
        node("demo/rack2/node1", covered_by=["s5"]),
    ]
    one = {
        "incident": "i17",
        "state": "firing",
        "axis": "liveness",
        "kind": "node-dead",
        "rack": "demo/rack1",
        "cause": "host-gone",
        "opened": "2026-11-21T11:58:00.000Z",
        "resolved": None,
        "age_s": 133.25,
        "burning": 1,
        "count": 4,
        "members": ["demo/rack1/node1"],
        "text": "no sign of its host on any path",
        "acked_by": "",
        "comment": "",
        "silenced_by": [],
        "inhibited_by": "",
        "drill": False,
    }
    incidents = [
        {**one, "incident": "i9", "axis": "rack", "kind": "rack-dark", "cause": "rack-dark", "members": ["demo/rack3"]}
        | {"rack": "demo/rack3", "text": "40 of 40 nodes are silent"},
        {**one, "silenced_by": ["s3"]},
        {**one, "incident": "i18", "axis": "health", "kind": "health-changed", "cause": None, "inhibited_by": "i9"},
        {**one, "incident": "i4", "state": "acknowledged", "acked_by": "ops", "comment": "new disk is coming at noon"},
    ]
    racks = [rack("demo/rack1", "DEGRADED", 0, SUSPECT=1, DEAD=1), rack("demo/rack2", alive=1)]
    return site(*dead, racks=racks) | {"incidents": incidents}


def hostile() -> Row:
    """Every text an attempt on the terminal."""
    bad = "x\x1b[31m\x07\r\n\u202e"
    one = node(bad, "DEAD", "OK", bad, since=bad, probes=[{"name": bad, "health": bad, "text": bad}])
    part: Row = {"name": bad, "health": "CRITICAL", "state": bad, "stall": bad, "text": bad, "status": bad, "soft": bad}
    part |= {"kind": bad, "app": bad, "bundle": bad, "details": [bad, 7], "measures": [{"label": bad, "unit": bad}]}
    part["marks"] = [{"name": bad, "count": 1, "queued": 2}]
    one["probes"].append(part)
    one["apps"] = [part]
    one["observers"] = [{"leader": bad, "liveness": bad, "cause": bad, "age_s": 1.0, "speaks": False}]
    at = rack(bad, bad, leaders=[leader(bad, bad, degraded=bad, refused={bad: bad})])
    return site(one, racks=[at], name=bad, version=bad, at=bad, degraded=bad, role=bad)


def explained() -> Row:
    evidence = {
        "text": "no beat for 2.5s; every second one is due",
        "incarnation": 24301,
        "sequence": 40,
        "silent_ns": 2_500_000_000,
        "interval_ns": 1_000_000_000,
        "allowed_ns": 150_000_000,
        "lag_credit_ns": 0,
        "detector": "adaptive",
    }
    whole = troubled()
    events = [event("node-dead", "SUSPECT", "DEAD", evidence), event("node-suspect", "ALIVE", "SUSPECT", evidence)]
    story = [
        {
            "leader": "demo/rack1-leader1",
            "liveness": "DEAD",
            "cause": "silence",
            "for_s": 10.0,
            "evidence": evidence["text"],
        }
    ]
    return {"node": whole["nodes"][0], "rack": whole["racks"][0], "story": story, "events": events}


def explained_by_a_leader() -> Row:
    whole = explained()
    dead = whole["events"][0]
    story = [{"kind": "node-dead", **{key: dead[key] for key in ("at", "leader", "liveness", "cause", "evidence")}}]
    never = {"leader": "demo/rack1-leader2", "liveness": "UNKNOWN", "cause": "never-seen", "age_s": None}
    seen = [*whole["node"]["observers"], {**never, "speaks": False}]
    probes = [{"name": "pg", "health": "CRITICAL", "text": "no answer on 5432"}]
    return whole | {"story": story, "events": [], "node": whole["node"] | {"observers": seen, "probes": probes}}


def deadlocked() -> Row:
    """A node that lives and has an application that does not move, as its root explains it."""
    whole = troubled()
    change = {"subject": "app", "name": "billing", "before": "OK", "after": "DEADLOCKED", "details": APPS[0]["details"]}
    other = {"subject": "probe", "name": "pg", "before": "OK", "after": "CRITICAL", "text": "no answer on 5432"}
    text = "app billing is DEADLOCKED: payer and refunder wait for each other; and 1 more changed"
    health = {"from": "OK", "to": "DEADLOCKED"}
    told = event("health-changed", "ALIVE", "ALIVE", {"text": text, "changes": [change, other]}, health=health)
    return {"node": whole["nodes"][2], "rack": whole["racks"][0], "story": [], "events": [told | {"cause": None}]}


def evidence() -> Row:
    """A bundle as a node sends it."""
    locks = {"payer": ("4712", "0x55f8", 4713), "refunder": ("4713", "0x55d0", 4712)}
    threads = [
        {"tid": int(tid), "name": name, "state": "S", "switches": 0, "ran_ns": 0, "delayed_ns": 0, "still": True}
        | {"lock": "mutex", "address": address, "owner": owner, "wchan": "futex_wait_queue"}
        for name, (tid, address, owner) in locks.items()
    ]
    threads.append({"tid": 4711, "name": "billing", "state": "S", "switches": 14, "ran_ns": 250_000, "wchan": "poll"})
    frames = [f"pay_{at} (billing.py:{at})" for at in range(41, 51)]
    bundle = {
        "schema": 1,
        "at": "2026-11-21T12:00:02.750Z",
        "app": "billing",
        "why": "its mark payer stands still",
        "pid": 4711,
        "name": "billing",
        "verdict": "DEADLOCKED",
        "text": "payer and refunder wait for each other",
        "details": APPS[0]["details"],
        "proof": {"cycle": [], "others": 0, "apart_ns": 1_000_000_000, "assumes": ["glibc's mutexes", "no one else"]},
        "no_proof": "",
        "threads": threads,
        "threads_total": 12,
        "stacks": [{"by": "py-spy", "tid": 4712, "name": "payer", "doing": "waits", "frames": frames}],
        "pause_ns": 0,
        "left_out": ["kernel stacks: permission denied"],
        "files": {"files": []},
        "limits": {},
    }
    return {"schema": 1, "node": "demo/rack1/node3", "leader": "demo/rack1-leader1", "size_bytes": 9, "bundle": bundle}


STEPS = (
    (1_012.4, "no beat, and one was due 12ms ago: it is asked"),
    (1_014.75, "its host's kernel acknowledges"),
    (1_213.0, "its echo port is silent"),
    (31_000.0, "it has not answered for 30.0s"),
)


def explained_in_full() -> Row:
    """Two observers, steps, and a silence that was accounted for later."""
    steps = [{"after_ms": after_ms, "text": text} for after_ms, text in STEPS]
    evidence = {"text": "its kernel answers, its process does not", "silent_ns": 31_000_000_000, "steps": steps}
    story = [
        {
            "leader": "demo/rack1-leader1",
            "liveness": "ALIVE",
            "cause": None,
            "for_s": 2.0,
            "evidence": {"text": "back"},
        },
        {
            "leader": "demo/rack1-leader2",
            "liveness": "SUSPECT",
            "cause": "link-cut",
            "for_s": 3.5,
            "evidence": {"text": "a neighbour hears it", "steps": steps[:2]},
            "account": "stopped for 31.0s",
        },
    ]
    older = {**evidence, "text": "an older one", "steps": steps[:1]}
    events = [
        event("node-accounted", "ALIVE", "ALIVE", {"text": "stopped for 31.0s"}, cause=None),
        event("node-recovered", "DEAD", "ALIVE", {"text": "a beat"}, cause=None),
        event("node-dead", "SUSPECT", "DEAD", evidence, cause="process-frozen", account="stopped for 31.0s"),
        event("node-dead", "SUSPECT", "DEAD", older, cause="process-frozen"),
    ]
    return explained() | {"story": story, "events": events}


def event(kind: str, before: str | None, after: str | None, evidence: Row | None = None, **more: Any) -> Row:
    whole = {
        "event_id": "0000002a-7",
        "sequence": 7,
        "kind": kind,
        "at": "2026-11-21T12:00:03.250Z",
        "node": "demo/rack1/node1",
        "rack": "demo/rack1",
        "leader": "demo/rack1-leader1",
        "liveness": {"from": before, "to": after},
        "health": {"from": "OK", "to": "OK"},
        "cause": "silence",
        "evidence": evidence or {"text": "no beat for 2.5s; every second one is due, by the node's own account"},
        "late": False,
    }
    return whole | more


def events() -> list[Row]:
    health = {"from": "OK", "to": "CRITICAL"}
    return [
        event("node-suspect", "ALIVE", "SUSPECT"),
        event("node-dead", "SUSPECT", "DEAD"),
        event("leader-lost", None, None, node="", leader="demo/rack2-leader1", cause="leader-lost"),
        event("health-changed", "ALIVE", "ALIVE", health=health, cause=None, evidence={"text": "pg: no answer"}),
        event(
            "health-changed",
            "ALIVE",
            "ALIVE",
            health={"from": "CRITICAL", "to": "CRITICAL"},
            cause=None,
            evidence={
                "text": "probe disk is OK again, and was WARNING",
                "changes": [{"subject": "probe", "name": "disk", "before": "WARNING", "after": "OK"}],
            },
        ),
        event("node-recovered", "DEAD", "ALIVE", cause=None, late=True),
    ]


def status(document: Row, screen: Screen, wide: bool = False) -> list[str]:
    return status_lines(document, exit_code(document), screen, wide)


def event_lines(screen: Screen) -> list[str]:
    return events_grid(screen).lines([event_cells(one, screen) for one in events()])


def node_lines(screen: Screen, wide: bool) -> list[str]:
    cells = [node_cells(one, NOW, screen, wide) for one in troubled()["nodes"]]
    return nodes_grid(screen, wide).lines(cells)


def rack_lines(screen: Screen, wide: bool) -> list[str]:
    return racks_grid(screen, wide).lines([rack_cells(one, screen, wide) for one in troubled()["racks"]])


def silence_lines(screen: Screen) -> list[str]:
    one = {
        "silence": "s3",
        "maintenance": False,
        "state": "active",
        "nodes": [],
        "racks": ["demo/rack1", "demo/rack2"],
        "causes": ["host-gone"],
        "kinds": [],
        "begins": "2026-11-21T11:00:00.000Z",
        "ends": "2026-11-21T14:00:00.000Z",
        "next": "2026-11-21T14:00:00.000Z",
        "every": "",
        "length_s": 10800.0,
        "reason": "the switch is swapped, and everything behind it goes away for a while",
        "author": "alice (uid 1000)",
        "ended_by": "",
        "covers": 3,
    }
    nightly = {
        "silence": "s4",
        "maintenance": True,
        "state": "pending",
        "every": "sun 02:00",
        "nodes": ["demo/*/node1"],
    }
    over = {"silence": "s2", "state": "ended", "ended_by": "bob (uid 1001)", "covers": 0}
    every = [one, {**one, **nightly, "next": "2026-11-22T02:00:00.000Z", "covers": 0}, {**one, **over}]
    return silences_grid(screen).lines([silence_cells(each, NOW, screen) for each in every])


def texts() -> dict[str, list[str]]:
    """Every golden text, by name."""
    return {
        "status-calm-80x24": status(calm(), SMALL),
        "status-troubled-80x24": status(troubled(), SMALL),
        "status-troubled-200": status(troubled(), LARGE, wide=True),
        "status-troubled-ascii": status(troubled(), ASCII),
        "status-troubled-colour": [line.replace("\x1b", "<ESC>") for line in status(troubled(), COLOUR)],
        "status-large-80x24": status(large(), SMALL),
        "status-dark-80x24": status(dark(), SMALL),
        "status-burning-80x24": status(burning(), SMALL),
        "status-burning-200": status(burning(), LARGE, wide=True),
        "nodes-80": node_lines(SMALL, False),
        "nodes-wide-200": node_lines(LARGE, True),
        "racks-80": rack_lines(SMALL, False),
        "racks-wide-200": rack_lines(LARGE, True),
        "events-80": event_lines(SMALL),
        "events-200": event_lines(LARGE),
        "status-calm-200": status(calm(), LARGE),
        "status-dark-200": status(dark(), LARGE),
        "nodes-200": node_lines(LARGE, False),
        "racks-200": rack_lines(LARGE, False),
        "incidents-80": incident_lines(burning()["incidents"], NOW, SMALL),
        "incidents-wide-200": incident_lines(burning()["incidents"], NOW, LARGE, True),
        "silences-80": silence_lines(SMALL),
        "silences-200": silence_lines(LARGE),
        "explain-root": explain_lines(explained(), SMALL, NOW),
        "explain-root-200": explain_lines(explained(), LARGE, NOW),
        "explain-full-200": explain_lines(explained_in_full(), LARGE, NOW),
        "explain-full": explain_lines(explained_in_full(), SMALL, NOW),
        "evidence-deadlock": bundle_lines(evidence(), LARGE),
        "evidence-ascii": bundle_lines(evidence(), ASCII),
        "explain-deadlock": explain_lines(deadlocked(), LARGE, NOW),
        "explain-deadlock-ascii": explain_lines(deadlocked(), ASCII, NOW),
        "explain-leader": explain_lines(explained_by_a_leader(), SMALL, NOW),
    }


@pytest.mark.parametrize("name", list(texts()))
def test_the_text_is_the_one_on_disk(name: str) -> None:
    assert "\n".join([*texts()[name], ""]) == (GOLDEN / f"{name}.txt").read_text("utf-8")


def shown(one: Row, screen: Screen = LARGE, wide: bool = False) -> dict[str, str]:
    """A node's cells by title."""
    titles = re.split(r"\s{2,}", nodes_grid(screen, wide).lines([])[0])
    return dict(zip(titles, (cell.text for cell in node_cells(one, NOW, screen, wide)), strict=False))


def test_a_node_that_is_bad_by_its_health_shows_since_when_that_is_so() -> None:
    bad = node("demo/rack1/node1", health="DEADLOCKED", apps=APPS, probes=PROBES)
    assert shown(bad)["SINCE"] == "12:00:10Z"
    assert shown(bad, wide=True)["SINCE"] == "2026-11-21T12:00:10.050Z"
    assert shown(bad | {"liveness": "SUSPECT"})["SINCE"] == "09:30:00Z"
    assert shown(node("demo/rack1/node1", probes=PROBES[1:]))["SINCE"] == "09:30:00Z"


def test_what_is_not_known_of_the_time_of_a_health_is_not_made_up() -> None:
    bad = node("demo/rack1/node1", health="CRITICAL", probes=[PROBES[0] | {"since_s": None}])
    assert shown(bad)["SINCE"] == "-"
    assert shown(bad | {"probes": [PROBES[0] | {"since_s": 1e300}]})["SINCE"] == "-"


def test_a_node_that_is_worse_than_all_of_its_parts_has_a_prober_that_stands_still() -> None:
    bad = node("demo/rack1/node1", health="STALLED", probes=[PROBES[0] | {"health": "WARNING"}])
    assert (shown(bad)["CAUSE"], shown(bad)["SINCE"]) == ("prober", "-")
    assert shown(bad | {"probes": PROBES[:1], "health": "CRITICAL"})["CAUSE"] == "probe pg"


def test_a_change_of_one_part_names_it_where_the_node_stays_as_it_is() -> None:
    (calm_change,) = (cells for one in events() if (cells := event_cells(one, LARGE))[5].text.startswith("probe disk"))
    assert calm_change[3].text == "disk: WARNING → OK"
    long = event(
        "health-changed",
        "ALIVE",
        "ALIVE",
        health={"from": "CRITICAL", "to": "CRITICAL"},
        evidence={"changes": [{"subject": "probe", "name": "x" * 64, "before": "WARNING", "after": "OK"}]},
    )
    assert event_cells(long, LARGE)[3].text == f"{'x' * 23}…: WARNING → OK"


def test_a_plugin_with_a_hundred_figures_gets_a_line_of_them() -> None:
    many = [{"label": f"disk{at}", "value": float(at), "unit": "%"} for at in range(100)]
    document = explained_by_a_leader()
    document["node"]["probes"] = [PROBES[0] | {"measures": many}]
    (line,) = (line for line in explain_lines(document, LARGE, NOW) if "disk0 0%" in line)
    assert line.endswith(", disk5 5%, and 94 more]")


def test_no_text_on_disk_is_without_its_test() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == sorted(texts())


@pytest.mark.parametrize("count", [0, 1, 4, 100])
@pytest.mark.parametrize("document", [calm(), troubled(), large(), dark()], ids=["calm", "troubled", "large", "dark"])
def test_a_small_screen_holds_the_whole_status(document: Row, count: int) -> None:
    incidents = (burning()["incidents"] * 25)[:count]
    lines = status(document | {"incidents": incidents}, SMALL)
    assert sum(bool(re.match(r"i\d+ ", line)) for line in lines) >= min(count, 2)
    # One line is the prompt's.
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80


def test_a_pipe_gets_a_line_for_every_rack_and_every_problem() -> None:
    lines = status(large(), Screen())
    for name in [f"dc1/rack{at:02d} " for at in range(40)] + [f"dc1/rack37/host{at:02d} " for at in range(30)]:
        assert sum(line.startswith(name) for line in lines) == 1
    assert not any(line.startswith("and ") for line in lines)


def test_what_is_folded_away_is_counted_and_what_is_wrong_stays() -> None:
    lines = status(large(), SMALL)
    racks, problems = (int(line.split()[1]) for line in lines if line.startswith("and "))
    assert racks + sum(bool(re.match(r"dc1/rack\d+ ", line)) for line in lines) == 40
    assert problems + sum("host-gone" in line for line in lines) == 30
    assert any(line.startswith("dc1/rack37 ") for line in lines)


@pytest.mark.parametrize("screen", [SMALL, LARGE, Screen(), ASCII], ids=["small", "large", "pipe", "ascii"])
def test_nothing_that_was_sent_reaches_the_terminal_as_a_command(screen: Screen) -> None:
    document = hostile()
    bad = document["nodes"][0]["node"]
    story = [{"leader": bad, "liveness": bad, "cause": bad, "for_s": 1.0, "evidence": {"text": bad, "detector": bad}}]
    told = {"node": document["nodes"][0], "rack": document["racks"][0], "story": story}
    parts = [{"subject": bad, "name": bad, "before": bad, "after": bad, "details": [bad]}]
    change = event(
        bad, bad, bad, {"text": bad, "detector": bad, "changes": parts}, at=bad, node=bad, leader=bad, cause=bad
    )
    lines = [
        *status(document, screen, wide=True),
        *explain_lines(told | {"events": [change]}, screen, NOW),
        *events_grid(screen).lines([event_cells(change, screen)]),
    ]
    assert len(lines) > 10
    assert [line for line in lines if not line.isprintable()] == []


@pytest.mark.parametrize("write", [as_json, as_json_line])
def test_json_is_whole_and_holds_nothing_that_a_terminal_would_obey(write: Any) -> None:
    text = write({"name": "x\x1b[31m\x7f\x9b\u202e"})
    assert json.loads(text) == {"name": "x\x1b[31m\x7f\x9b\u202e"}
    assert text.replace("\n", "").isprintable()
    assert text.isascii()


def test_meaning_is_never_in_colour_alone() -> None:
    without = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(status(troubled(), COLOUR)))
    assert without == "\n".join(status(troubled(), SMALL))


@pytest.mark.parametrize("document", [{}, {"nodes": 3, "racks": [1], "root": []}, {"nodes": [{}], "racks": [{}]}])
def test_an_answer_without_what_is_looked_for_still_makes_lines(document: Row) -> None:
    assert status(document, SMALL, wide=True)
    assert explain_lines(document, SMALL, NOW)


def test_old_data_is_marked() -> None:
    document = calm()
    document["racks"][0]["leaders"][0]["age_s"] = 6.0
    assert "data at most 6.0s old (STALE)" in status(document, SMALL)[1]
    document["racks"][0]["leaders"][0]["age_s"] = None
    assert "data at most 400ms old, none from 1 of 2 racks" in status(document, SMALL)[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rewrite", action="store_true", required=True)
    parser.parse_args()
    for golden in GOLDEN.glob("*.txt"):
        golden.unlink()
    for stem, lines in texts().items():
        (GOLDEN / f"{stem}.txt").write_text("\n".join([*lines, ""]), "utf-8")
