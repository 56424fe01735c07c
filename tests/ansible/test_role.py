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
