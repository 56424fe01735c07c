"""Hooks that are allowed, and seldom meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbagent.cli import checks
from hbagent.cli.advice import advice
from hbagent.core.config import HookConfig
from hbagent.core.states import Kind
from hbagent.role.settings import load_root


def advised(*on: str) -> list[str]:
    return list(advice(HookConfig(name="page", argv=("x",), on=tuple(map(Kind, on)))))


@pytest.mark.parametrize(
    "on",
    [
        [kind.value for kind in HookConfig(name="", argv=()).on],
        ["node-dead"],
        ["watchdog"],
        ["node-left", "node-restarted"],
        ["health-changed", "watchdog"],
        ["summary", "node-dead"],
        ["node-dead", "node-recovered", "node-flapping", "node-steady", "summary"],
    ],
)
def test_what_may_well_be_meant_is_not_remarked_on(on: list[str]) -> None:
    assert advised(*on) == []


def test_a_summary_alone_is_nothing() -> None:
    (text,) = advised("summary")
    assert text.startswith('"summary" alone tells it nothing')


@pytest.mark.parametrize(
    ("on", "added"),
    [
        (["node-suspect", "health-changed"], "node-recovered"),
        (["node-away", "node-restarted"], "node-recovered"),
        (["rack-dark", "health-changed"], "rack-recovered"),
        (["leader-lost", "root-isolated"], "leader-recovered"),
        (["node-flapping", "health-changed"], "node-steady"),
        (["node-dead", "node-recovered"], "node-flapping and node-steady"),
    ],
)
def test_who_is_told_of_several_is_to_be_told_when_each_is_over(on: list[str], added: str) -> None:
    (text,) = advised(*on)
    assert text.endswith(f": add {added}")


def test_the_doctor_says_the_same(tmp_path: Path) -> None:
    script = tmp_path / "page"
    script.touch(0o700)
    text = (Path(__file__).parents[2] / "etc" / "root.toml").read_text()
    file = tmp_path / "root.toml"
    file.write_text(text.replace('command = ["hooks.d/log-to-syslog"]', f'command = ["{script}"]\non = ["summary"]'))
    found, odd = checks.hooks(load_root(file))
    assert (found.grade, odd.grade) == (checks.OK, checks.WARN)
    assert odd.text.startswith('syslog: "summary" alone')


def test_all_that_is_missing_is_said() -> None:
    dead, dark, flapping = advised("node-dead", "node-restarted", "rack-dark")
    assert dead == (
        "it is told of node-dead and not when that is over (node-restarted does not tell all of it): add node-recovered"
    )
    assert dark == "it is told of rack-dark and not when that is over: add rack-recovered"
    assert flapping.startswith("it is told of node-dead, and nothing of a node that dies again and again")
