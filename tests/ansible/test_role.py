from __future__ import annotations

import re

from hbagent import __version__
from tests.ansible.plugins import COLLECTION, plugin

ROLE = COLLECTION / "roles/hbagent"
DEFAULTS = (ROLE / "defaults/main.yml").read_text()
SPECS = (ROLE / "meta/argument_specs.yml").read_text()
#: Variables of one host, which have no default.
OF_A_HOST = {"hbagent_address", "hbagent_leads", "hbagent_address6"}


def value(name: str) -> str:
    """The default of a variable, as it is written."""
    found = re.search(rf"^{name}: (.*)$", DEFAULTS, re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_every_variable_with_a_default_is_described_and_the_other_way_round() -> None:
    defaults = set(re.findall(r"^(hbagent_\w+):", DEFAULTS, re.MULTILINE))
    described = set(re.findall(r"^ {6}(hbagent_\w+):", SPECS, re.MULTILINE))
    assert defaults == described - OF_A_HOST


def test_the_collection_deploys_the_version_that_it_comes_with() -> None:
    assert value("hbagent_version") == f'"{__version__}"'
    assert f"\nversion: {__version__}\n" in (COLLECTION / "galaxy.yml").read_text()


def test_the_ports_are_those_that_the_topology_has_by_itself() -> None:
    topology = plugin("filter", "topology")
    for variable, ports in (
        ("hbagent_leader_ports", topology.LEADER_PORTS),
        ("hbagent_root_ports", topology.ROOT_PORTS),
    ):
        assert value(variable) == str([list(pair) for pair in ports])


#: Whatever a site writes as it likes: passwords of databases, headers of probes, tokens of hooks.
FREE = ("agent_settings", "alertmanagers", "drop_ins", "hooks", "leader_settings", "probes", "root_settings", "store")


def test_what_may_hold_secrets_is_marked_and_shown_by_no_diff() -> None:
    marked = re.findall(r"^ {6}hbagent_(\w+):\n(?: {8}.*\n)*? {8}no_log: true$", SPECS, re.MULTILINE)
    assert tuple(sorted(marked)) == FREE
    assert value("hbagent_show_diffs") == "false"
    tasks = re.split(r"^- ", (ROLE / "tasks/configure.yml").read_text(), flags=re.MULTILINE)
    for name in ("Copy the hooks", "Write the settings", "Write drop-ins"):
        (task,) = (task for task in tasks if task.startswith(f"name: {name}\n"))
        assert 'diff: "{{ ansible_diff_mode and hbagent_show_diffs }}"' in task
        assert "{{ item.content" not in task
