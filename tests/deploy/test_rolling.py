"""The order of a rolling change and what is waited for, as the playbooks ask for them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "ansible/plugins/filter"


def _plugin(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hbagent_filter_{name}", PLUGINS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rolling = _plugin("rolling")


def topology(leads: dict[str, list[str]], plain: tuple[str, ...] = ()) -> dict[str, Any]:
    """Hosts that lead these racks, and some that do not lead."""
    hosts = {
        host: {
            "daemons": ["agent", "leader"],
            "leads": racks,
            "names": {"agent": f"dc/r/{host}", "leader": f"dc/{host}"},
        }
        for host, racks in leads.items()
    }
    for host in plain:
        hosts[host] = {"daemons": ["agent"], "leads": [], "names": {"agent": f"dc/r/{host}"}}
    return {"hosts": hosts}


def status(liveness: str = "ALIVE", version: str = "2", hears: tuple[str, ...] = ("dc/a", "dc/b")) -> dict[str, Any]:
    """A rack of one node and two leaders, as the root tells of it."""
    observers = [{"leader": leader, "liveness": "ALIVE", "speaks": True} for leader in hears]
    leaders = [{"leader": leader, "state": "ALIVE", "version": version} for leader in ("dc/a", "dc/b")]
    return {
        "root": {"reachable": True, "version": version, "newest_event": 7},
        "racks": [{"rack": "dc/r", "leaders": leaders}],
        "nodes": [{"node": "dc/r/x", "rack": "dc/r", "liveness": liveness, "observers": observers}],
    }


FLEET = topology({"a": ["dc/r"], "b": ["dc/r"]}, ("x",))


def test_leaders_of_one_rack_are_never_in_one_wave() -> None:
    found = topology({"a": ["r1"], "b": ["r1"], "c": ["r2"], "d": ["r1", "r2"]})
    waves = rolling.leader_waves(found, found["hosts"])
    assert waves == [["a", "c"], ["b"], ["d"]]
    for wave in waves:
        racks = [rack for host in wave for rack in found["hosts"][host]["leads"]]
        assert len(racks) == len(set(racks))


def test_waves_hold_only_the_hosts_that_were_asked_for() -> None:
    assert rolling.leader_waves(FLEET, ["b", "x"]) == [["b"]]


def test_agents_of_hosts_that_do_nothing_else_come_first() -> None:
    assert rolling.agents_in_order(FLEET, ["a", "x", "stranger"]) == ["x", "a"]


def test_a_maintenance_covers_what_the_absence_of_a_daemon_disturbs() -> None:
    assert rolling.covered(FLEET, ["a"], "root") == [["--rack", "*"]]
    assert rolling.covered(FLEET, ["a", "b"], "leader") == [["--rack", "dc/r"]]
    assert rolling.covered(FLEET, ["a", "x"], "agent") == [["--node", "dc/r/a", "--node", "dc/r/x"]]
    assert rolling.covered(FLEET, ["a", "x"], "agent", 1) == [["--node", "dc/r/a"], ["--node", "dc/r/x"]]


@pytest.mark.parametrize("answer", ["", "hbagent: the root does not answer", "[]", json.dumps({"root": {}})])
def test_a_root_that_does_not_answer_is_not_well(answer: str) -> None:
    assert rolling.not_yet(answer, FLEET, ["x"], "agent") == ["The root does not answer."]
    assert rolling.alive(answer) == []


@pytest.mark.parametrize("daemon", ["root", "leader", "agent"])
def test_nothing_is_missing_when_all_is_well(daemon: str) -> None:
    answer = json.dumps(status())
    assert rolling.not_yet(answer, FLEET, ["a", "x"] if daemon == "leader" else ["x"], daemon, "2", ["dc/r/x"]) == []


@pytest.mark.parametrize("daemon", ["root", "leader", "agent"])
def test_a_node_that_is_away_is_waited_for(daemon: str) -> None:
    hosts = ["a"] if daemon == "leader" else ["x"]
    away = rolling.not_yet(status("LEFT"), FLEET, hosts, daemon, "2", ["dc/r/x"])
    assert "dc/r/x is LEFT at the root." in away


def test_each_leader_of_a_rack_must_hear_an_agent_again() -> None:
    assert rolling.not_yet(status(hears=("dc/a",)), FLEET, ["x"], "agent") == ["The leader dc/b does not hear dc/r/x."]


def test_a_leader_must_hear_what_was_alive_before() -> None:
    deaf = status(hears=("dc/b",))
    assert rolling.not_yet(deaf, FLEET, ["a"], "leader", "2", ["dc/r/x"]) == ["The leader dc/a does not hear dc/r/x."]
    assert rolling.not_yet(deaf, FLEET, ["a"], "leader", "2", []) == []


def test_the_old_version_is_not_taken_for_the_new_one() -> None:
    assert rolling.not_yet(status(version="1"), FLEET, ["x"], "root", "2") == ["The root says that it runs 1."]
    assert rolling.not_yet(status(version="1"), FLEET, ["a"], "leader", "2") == ["dc/a says that it runs 1."]


def test_a_leader_that_was_away_before_holds_up_nobody() -> None:
    answer = status(hears=("dc/a",))
    answer["racks"][0]["leaders"][1]["state"] = "LOST"
    before = rolling.alive(answer)
    assert before == ["dc/a", "dc/r/x"]
    assert rolling.not_yet(answer, FLEET, ["x"], "root", "2", before) == []
    assert rolling.not_yet(answer, FLEET, ["x"], "agent", "2", before) == []
    assert rolling.not_yet(answer, FLEET, ["x"], "root", "2", [*before, "dc/b"]) == [
        "The root does not hear the leader dc/b."
    ]


@pytest.mark.parametrize(("hosts", "length"), [(1, "600s"), (20, "600s"), (21, "660s"), (5000, "15540s")])
def test_a_maintenance_of_many_hosts_is_longer(hosts: int, length: str) -> None:
    assert rolling.maintenance_seconds("10m", hosts, 20) == length


def test_a_length_that_is_none_is_refused_by_the_name_of_its_variable() -> None:
    with pytest.raises(ValueError, match="hbagent_maintenance_for is 'soon'"):
        rolling.maintenance_seconds("soon", 1, 20)


def test_racks_of_leaders_that_the_inventory_has_no_more_are_announced() -> None:
    assert rolling.dropped(status(), {"servers": {"dc/a": {}, "dc/b": {}}}) == []
    assert rolling.dropped(status(), {"servers": {"dc/a": {}}}) == [["--rack", "dc/r"]]
    assert rolling.dropped("", {"servers": {}}) == []


def test_hosts_that_a_task_did_not_reach_are_named() -> None:
    hostvars = {"a": {"_staged": {"unreachable": True}}, "b": {"_staged": {"before": "1"}}, "c": {}}
    assert rolling.unreached(hostvars, ["a", "b", "c"], "_staged") == ["a"]


def test_hosts_that_run_another_release_are_named_with_it() -> None:
    hostvars = {
        "a": {"_found": {"stdout_lines": ["releases/1", "/etc/x"]}},
        "b": {"_found": {"stdout_lines": ["releases/2"]}},
        "bare": {"_found": {"stdout_lines": [""]}},
        "away": {"_found": {"unreachable": True}},
    }
    assert rolling.of_another(hostvars, hostvars, "_found", "2") == ["a (1)"]
    assert rolling.of_another(hostvars, hostvars, "_found", "3", 1) == ["a (1)", "1 more"]


def test_who_holds_up_a_rotation_is_named_and_may_be_left_behind() -> None:
    def answer(peers: int, *names: str) -> dict[str, Any]:
        return {"rc": 1, "stdout": json.dumps({"rotating": True, "old": {"peers": peers, "names": names}})}

    assert rolling.in_use(answer(2, "dc/a", "dc/r/x"), FLEET) == ["dc/a", "dc/r/x"]
    assert rolling.in_use(answer(2, "dc/a", "dc/r/x"), FLEET, ["x"]) == ["dc/a"]
    assert rolling.in_use(answer(1, "dc/r/x"), FLEET, ["x"]) == []
    # Of more than ten it is not known who they are.
    assert rolling.in_use(answer(12, "dc/r/x"), FLEET, ["x"]) == ["11 more"]
    assert rolling.in_use({"rc": 0, "stdout": '{"rotating": false}'}, FLEET) == []
    assert rolling.in_use({"skipped": True}, FLEET) == []
    assert rolling.in_use({"rc": 3, "stdout": "", "stderr": "no socket"}, FLEET) == ["(it does not answer: no socket)"]
    assert rolling.hosts_of(FLEET, ["dc/a", "dc/r/x", "11 more"]) == ["a", "x"]


def test_hosts_are_due_on_which_something_would_change() -> None:
    hostvars = {
        "a": {"_hbagent_behind": {"changes": ["restarted"]}},
        "b": {"_hbagent_behind": {"changes": []}},
        "c": {},
    }
    assert rolling.behind(hostvars, ["a", "b", "c"]) == ["a"]


def test_the_maintenances_that_were_begun_are_known_by_their_ids() -> None:
    results = [{"stdout": '{"silence": {"silence": "s4"}}'}, {"stdout": ""}, {"skipped": True}]
    assert rolling.begun({"results": results}) == ["s4"]
    assert rolling.begun({}) == []


def test_a_rotation_that_broke_off_is_ended_before_another_begins() -> None:
    everything = ["agents", "leaders", "root"]
    assert rolling.to_begin(FLEET, {"dc/a": 3}, ["leaders"]) == ["dc/a", "dc/b"]
    assert rolling.to_begin(FLEET, {}, everything) == ["dc/a", "dc/b", "dc/r/a", "dc/r/b", "dc/r/x"]
    under_way = {"dc/a": {"generation": 0, "phase": "offered"}, "dc/b": {"generation": 0, "phase": "used"}}
    assert rolling.to_begin(FLEET, under_way, everything) == []
    assert rolling.rotating(FLEET, under_way, "offered") == ["dc/a"]
    assert rolling.rotating(FLEET, under_way, "used", ["agents"]) == []


def test_taking_out_a_host_changes_the_files_of_root_and_leaders_and_of_those_it_led() -> None:
    fleet = topology({"a": ["dc/r"], "b": ["dc/s"]}, ("x", "y"))
    for host, found in fleet["hosts"].items():
        found["rack"] = "dc/s" if host in ("b", "y") else "dc/r"
    assert rolling.touched(fleet, ["x"]) == ["a", "b"]
    assert rolling.touched(fleet, ["a"]) == ["b", "x"]
    assert rolling.without({"all": ["a", "x"], "rack_r": ["x"]}, ["x"]) == {"all": ["a"], "rack_r": []}
