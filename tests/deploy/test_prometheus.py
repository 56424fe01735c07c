"""The rules and configs that are shipped: Prometheus and Alertmanager take them, and they name what there is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hbagent.core.labels import alert_of, flapping, watchdog
from hbagent.core.records import Trouble
from hbagent.core.states import Axis, Health, Kind
from tests.deploy.metrics import everything, names_in

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"


def run(*command: str | Path, text: str = "") -> str:
    """What a program says. Raises AssertionError when it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("role", ["root", "leader", "agent"])
def test_the_metrics_keep_the_conventions_of_prometheus(role: str) -> None:
    assert run("promtool", "check", "metrics", text=everything()[role].decode()) == ""


@pytest.mark.needs("promtool")
def test_the_rules_and_the_scrape_config_are_taken() -> None:
    assert "rules found" in run("promtool", "check", "rules", DEPLOY / "alerts.yml")
    run("promtool", "check", "config", DEPLOY / "scrape.yml")


@pytest.mark.needs("promtool")
def test_the_rules_do_what_their_tests_say() -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", DEPLOY / "alerts_test.yml")


@pytest.mark.needs("amtool")
def test_the_config_for_alertmanager_is_taken() -> None:
    assert "3 inhibit rules" in run("amtool", "check-config", DEPLOY / "alertmanager.yml")


def test_rules_and_their_tests_name_metrics_and_labels_that_there_are() -> None:
    known = names_in(*everything().values())
    for file in ("alerts.yml", "alerts_test.yml"):
        named = set(re.findall(r"\bhbagent_[a-z_]+", (DEPLOY / file).read_text()))
        assert named - known == set(), file


def test_the_inhibitions_name_alerts_that_the_root_posts() -> None:
    posted = {watchdog(1).labels["alertname"]}
    for kind in Kind:
        for health in Health:
            trouble = Trouble(subject="x", axis=Axis.HEALTH, rack="r", incident="i1", kind=kind, health=health)
            posted.add(alert_of(trouble).labels["alertname"])
    posted |= {flapping("x", axis, "r", "").labels["alertname"] for axis in Axis}
    patterns = re.findall(r'alertname=~?"([^"]+)"', (DEPLOY / "alertmanager.yml").read_text())
    assert patterns
    for pattern in "|".join(patterns).split("|"):
        assert any(re.fullmatch(pattern, name) for name in posted), pattern


def test_alerts_that_rules_raise_as_well_have_the_names_that_the_root_posts() -> None:
    ruled = set(re.findall(r"alert: (\w+)", (DEPLOY / "alerts.yml").read_text()))
    assert {
        "HbagentHostDown",
        "HbagentHostAway",
        "HbagentHostFlapping",
        "HbagentRackDown",
        "HbagentLeaderLost",
        "HbagentRootIsolated",
        *(f"HbagentHealth{word}" for word in ("Critical", "Deadlocked", "Stalled", "Warning")),
    } <= ruled
