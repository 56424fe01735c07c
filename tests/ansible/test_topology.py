from __future__ import annotations

from typing import Any

import pytest

from tests.ansible.plugins import addresses, inventory, plugin

PLUGIN = plugin("filter", "topology")
topology = PLUGIN.topology
SMALL = inventory({"a": ["h1", "h2", "h3"], "b": ["h4"]}, ["h1", "h2", "h4"], ["h1"])


def read(groups: dict[str, list[str]], generations: dict[str, Any] | None = None, **variables: Any) -> Any:
    hostvars: dict[str, dict[str, Any]] = {host: dict(found) for host, found in addresses(groups).items()}
    for host, found in variables.items():
        hostvars[host].update(found)
    return topology(groups, hostvars, "dc1", generations)


def test_names_follow_from_datacenter_rack_and_host() -> None:
    found = read(SMALL)
    assert found["hosts"]["h3"]["names"] == {"agent": "dc1/a/h3"}
    assert found["hosts"]["h2"]["names"] == {"agent": "dc1/a/h2", "leader": "dc1/a-h2"}
    assert found["hosts"]["h1"]["daemons"] == ["agent", "leader", "root"]
    assert found["root"] == {"name": "dc1/root", "host": "h1"}


def test_a_rack_has_the_leaders_that_stand_in_it_and_all_its_hosts() -> None:
    assert read(SMALL)["racks"] == {
        "dc1/a": {"nodes": ["h1", "h2", "h3"], "leaders": ["dc1/a-h1", "dc1/a-h2"]},
        "dc1/b": {"nodes": ["h4"], "leaders": ["dc1/b-h4"]},
    }


def test_a_leader_may_lead_other_racks_too() -> None:
    groups = inventory({"a": ["h1", "h2"], "b": ["h3"]}, ["h1"], ["h1"])
    found = read(groups, h1={"hbagent_leads": ["a", "b"]})
    assert found["racks"]["dc1/b"]["leaders"] == ["dc1/a-h1"]
    assert found["hosts"]["h1"]["leads"] == ["dc1/a", "dc1/b"]


def test_only_hosts_of_the_group_hbagent_count_when_there_is_one() -> None:
    groups = inventory({"a": ["h1"]}, ["h1"], ["h1"], others=["mail"], hbagent=["h1"])
    assert list(read(groups)["hosts"]) == ["h1"]


def test_an_even_generation_has_the_first_ports_and_an_odd_one_the_second() -> None:
    assert read(SMALL)["servers"]["dc1/b-h4"]["own"]["publish"] == "tcp://192.0.2.4:5701"
    turned = read(SMALL, {"dc1/b-h4": 1, "dc1/root": {"generation": 2, "phase": "offered"}})["servers"]
    assert turned["dc1/b-h4"]["own"]["control"] == "tcp://192.0.2.4:5722"
    assert turned["dc1/b-h4"]["next"]["control"] == "tcp://192.0.2.4:5702"
    assert (turned["dc1/root"]["own"]["ports"], turned["dc1/root"]["phase"]) == ([5711, 5712], "offered")


def test_an_ipv6_address_is_bracketed_and_everybody_listens_for_both() -> None:
    found = topology(SMALL, addresses(SMALL, six=True), "dc1")
    assert found["servers"]["dc1/root"]["own"]["publish"] == "tcp://[2001:db8::1]:5711"
    assert found["ipv6"] and not read(SMALL)["ipv6"]


def test_an_address_of_its_own_comes_before_that_of_ansible() -> None:
    found = read(SMALL, h4={"hbagent_address": "h4.example"})
    assert found["servers"]["dc1/b-h4"]["own"]["publish"] == "tcp://h4.example:5701"


RACK = {"a": ["h1", "h2", "h3", "h4"]}
WRONG = {
    "no rack": (inventory(RACK, ["h1"], ["h1"], more=["h9"]), "Host h9 is in no group rack_NAME"),
    "two racks": (
        inventory({**RACK, "b": ["h4"]}, ["h1", "h4"], ["h1"]),
        "Host h4 is in rack_a and rack_b: a host stands in one rack.",
    ),
    "no leader": (
        inventory({**RACK, "b": ["h5", "h6"]}, ["h1"], ["h1"]),
        "The group rack_b (h5, h6) has no host of hbagent_leaders",
    ),
    "four leaders": (
        inventory(RACK, RACK["a"], ["h1"]),
        "The group rack_a has 4 hosts of hbagent_leaders (h1, h2, h3, h4)",
    ),
    "a leader outside": (
        inventory(RACK, ["h1", "h9"], ["h1"]),
        "Host h9 is in hbagent_leaders and in no group rack_NAME",
    ),
    "a root outside": (inventory(RACK, ["h1"], ["h9"]), "Host h9 is in hbagent_root and in no group rack_NAME"),
    "two roots": (inventory(RACK, ["h1"], ["h1", "h2"]), "The group hbagent_root has h1 and h2"),
    "no root": (inventory(RACK, ["h1"], []), "The group hbagent_root has no host"),
    "a bad host": (inventory({"a": ["h_1_"]}, ["h_1_"], ["h_1_"]), "The host 'h_1_' cannot be a node's name"),
    "a bad rack": (inventory({"a_": ["h1"]}, ["h1"], ["h1"]), "The group rack_a_ would make a rack named 'a_'"),
    "outside of hbagent": (
        inventory(RACK, ["h1"], ["h1"], hbagent=["h1", "h2", "h3"]),
        "Host h4 is in rack_a and not in the group hbagent.",
    ),
    "no hosts": (inventory({}, [], []), "The inventory has no hosts."),
    "one file for two keys": (
        inventory({"a": ["b.c", "h1"], "a.b": ["c"]}, ["h1", "c"], ["h1"]),
        "The keys of dc1/a/b.c and dc1/a.b/c would be the same file",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_topology_is_refused_by_a_sentence(case: str) -> None:
    groups, sentence = WRONG[case]
    with pytest.raises(ValueError) as refused:
        read(groups)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"h1": {"ansible_host": "tcp://x"}}, "The address of h1 is 'tcp://x'"),
        ({"h1": {"ansible_host": "0.0.0.0"}}, "The address of h1 is 0.0.0.0"),
        ({"h1": {"hbagent_leads": ["c"]}}, "hbagent_leads of h1 names the rack c, and there is no group rack_c"),
    ],
)
def test_wrong_variables_of_a_host_are_refused(variables: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        read(SMALL, **variables)
    assert sentence in str(refused.value)


def test_a_datacenter_without_a_name_and_a_generation_that_is_none_are_refused() -> None:
    with pytest.raises(ValueError, match="hbagent_datacenter is ''"):
        topology(SMALL, addresses(SMALL), "")
    with pytest.raises(ValueError, match="The generation of dc1/root: 'new' is no generation"):
        read(SMALL, {"dc1/root": "new"})


def test_mistakes_can_be_asked_for_and_a_right_topology_has_none() -> None:
    assert PLUGIN.topology_problems(SMALL, addresses(SMALL), "dc1") == []
    (told,) = PLUGIN.topology_problems(SMALL, addresses(SMALL), "")
    assert told.startswith("hbagent_datacenter is ''")


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ValueError) as refused:
        read(inventory({"a": ["h1"], "b": ["h1"]}, [], ["h1", "h2"]))
    told = str(refused.value)
    assert "rack_a and rack_b" in told and "h1 and h2" in told and "rack_b (h1) has no host" in told
