"""The dashboard: it fits every site, and each of its questions is one that Prometheus can answer."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.metrics import everything, names_in

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((GRAFANA / "hbagent.json").read_text())
    return read


def panels(kind: str = "") -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row" and kind in ("", panel["type"])]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def values(of: Any, key: str) -> Iterator[Any]:
    """Every value that a key has, however deep it stands."""
    if isinstance(of, dict):
        for name, value in of.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(of, list):
        for item in of:
            yield from values(item, key)


def test_it_has_a_stable_name_and_asks_which_data_source_to_use() -> None:
    board = dashboard()
    assert board["uid"] == "hbagent-fleet" and "id" not in board
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert list(variables) == ["datasource", "rack", "host"]
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in values(board, "datasource"))
    assert all(variables[name]["multi"] and variables[name]["includeAll"] for name in ("rack", "host"))


def test_panels_lie_beside_one_another_and_each_has_a_title() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert panel["title"] and at["x"] + at["w"] <= 24
        here = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not here & taken, panel["title"]
        taken |= here
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_hosts_have_a_timeline_in_which_every_state_has_a_word_and_a_colour() -> None:
    (timeline,) = panels("state-timeline")
    (target,) = timeline["targets"]
    (mapping,) = timeline["fieldConfig"]["defaults"]["mappings"]
    named = {text: int(value) for value, shown in mapping["options"].items() for text in [shown["text"]]}
    assert named == {"ALIVE": 1, "LEFT": 2, "SUSPECT": 3, "UNKNOWN": 4, "DEAD": 5}
    assert all(shown["color"] for shown in mapping["options"].values())
    assert {(state, int(value)) for state, value in re.findall(r'state="(\w+)"} \* (\d)', target["expr"])} == set(
        named.items()
    )


def test_it_asks_for_metrics_that_there_are() -> None:
    known = names_in(*everything().values())
    queries = [variable["query"]["query"] for variable in dashboard()["templating"]["list"][1:]]
    for expression in [*expressions(), *queries]:
        named = set(re.findall(r"\b((?:hbagent|process|node)_[a-z_]+)\b", expression))
        assert named and named - known == set(), expression


@pytest.mark.needs("promtool")
def test_prometheus_can_parse_every_question(tmp_path: Path) -> None:
    chosen = [expression.replace("$rack", "dc1/r.*").replace("$host", ".*") for expression in expressions()]
    assert not any("$" in expression for expression in chosen)
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(chosen)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_provisioning_is_of_the_kind_that_grafana_reads() -> None:
    text = (GRAFANA / "provisioning.yml").read_text()
    assert text.startswith("#") and "apiVersion: 1" in text and "type: file" in text
