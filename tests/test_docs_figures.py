"""The figures of README.md stand in docs/comparison.md again; here they are held together."""

from __future__ import annotations

import re

from tests.documents import DOCS, ROOT
from tests.test_docs import rows

README, COMPARISON = (path.read_text() for path in (ROOT / "README.md", DOCS / "comparison.md"))


def row(text: str, first: str, within: str) -> list[str]:
    """The one row of a section that begins so."""
    part = text.split(f"\n## {within}\n")[1].split("\n## ")[0]
    (found,) = (cells for cells in rows(part) if cells[0].startswith(first))
    return found


def figures(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def test_how_fast_a_killed_agent_is_dead_is_told_alike() -> None:
    exact = figures(row(README, "`kill -9` of an agent", "Figures")[1])[:2]
    rounded = figures(row(README, "hbagent, beat 1 s", "Beside others")[1])
    told = figures(row(COMPARISON, "hbagent", "How fast")[2])[:2]
    assert rounded == [round(ms) for ms in exact] == [1000 * seconds for seconds in told]
    assert figures(row(COMPARISON, "killed agent to dead", "In one table")[1])[:1] == rounded[:1]


def test_what_it_costs_is_told_alike() -> None:
    for ours, theirs in (("hbagent, beat 1 s", "hbagent's agent"), ("with its prober", "with its prober")):
        assert row(README, ours, "Beside others")[2:4] == row(COMPARISON, theirs, "Cost")[1:3]
    prober = figures(row(README, "prober with its hands, the default probes: memory", "Figures")[1])[0]
    agent = figures(row(README, "agent: resident memory", "Figures")[1])[0]
    both = figures(row(README, "with its prober", "Beside others")[2])
    assert both == [round(agent + prober)]


def test_what_the_others_take_is_told_alike() -> None:
    names = ("Prometheus", "Icinga", "serf")
    for name, other in zip(names, ("Prometheus", "Icinga", "Serf"), strict=True):
        half, worst = figures(row(README, name, "Beside others")[1])
        told = figures(row(COMPARISON, other, "How fast")[2])
        assert (half, worst) == (round(told[1], 1), round(told[2], 1)), name


def test_how_fast_a_deadlock_is_told_is_told_alike() -> None:
    beyond = figures(row(README, "an application deadlocks", "Figures")[1])[0]
    told = row(COMPARISON, "hbagent, a progress mark", "Stuck applications")[2]
    assert f"{beyond} s" in told
    assert f"its window and {beyond} s" in row(README, "threads wait for one another", STUCK)[2]


STUCK = "What you see when an application is stuck"
