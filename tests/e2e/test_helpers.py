"""What a rack knows of a host that its leader cannot reach: neighbours are asked, and each of them reports in time.

Nothing is simulated here: real agents relay for a real leader, on hosts of their own that can be cut.
"""

from __future__ import annotations

import re

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import BuildLab
from tests.e2e.lab import NEEDS, Lab

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("proved"), pytest.mark.timeout(120), *NEEDS]

NODE, LEADER = "rack1-node1", "rack1-leader1"
#: Each with a doubt of its own, whose helpers are chosen anew.
TIMES = 3
#: A neighbour that had no processor for a moment reports too late, and is rightly called mute: then it is done again.
TRIES = 4


@pytest.fixture(scope="module")
def lab(build_lab: BuildLab) -> Lab:
    """Three agents: the two that are asked about the third are all that there are."""
    made = build_lab(Plan(racks=1, nodes=3, interval="200ms"))
    made.wake_up()
    return made


def story(lab: Lab) -> list[tuple[float, str]]:
    """The steps that `explain` at the leader shows of its verdict about the node, each with its milliseconds."""
    answer = lab.ask("explain", LEADER, node=lab.nodes[NODE])
    assert answer is not None, "the leader does not answer"
    return [(step["after_ms"], step["text"]) for told in answer["story"][:1] for step in told["evidence"]["steps"]]


def mute(steps: list[tuple[float, str]]) -> list[str]:
    """Who did not report back within the time that the leader gives."""
    return [text for _, text in steps if "did not report back" in text]


def reported(steps: list[tuple[float, str]], words: str, figures: Figures) -> None:
    """Both neighbours have said this of the node."""
    asked = next(at for at, text in steps if re.match(r"asked .*\bnode\d.* about it", text))
    came = {text.split()[0]: at - asked for at, text in reversed(steps) if words in text}
    assert set(came) == {"node2", "node3"}, steps
    figures("helpers", f"{words}: {', '.join(f'{name} after {ms:.1f} ms' for name, ms in sorted(came.items()))}")


@pytest.mark.parametrize("_time", range(TIMES))
def test_neighbours_of_a_host_that_vanished_report_that_they_got_nothing(
    lab: Lab, figures: Figures, _time: int
) -> None:
    for _ in range(TRIES):
        with lab.isolated(NODE):
            lab.until(lambda: lab.state(NODE) == ("DEAD", "host-gone"), "dead")
            steps = story(lab)
        if not mute(steps):
            break
        lab.settle()
        lab.prove()
    assert mute(steps) == [], steps
    reported(steps, "got nothing from it", figures)


@pytest.mark.parametrize("_time", range(TIMES))
def test_neighbours_of_a_host_whose_leader_cannot_reach_it_report_its_answer(
    lab: Lab, figures: Figures, _time: int
) -> None:
    for _ in range(TRIES):
        lab.switch.cut(NODE, LEADER)
        lab.until(lambda: lab.state(NODE) == ("ALIVE", "link-cut"), "cut")
        lab.until(lambda: any("got an answer from it" in text for _, text in story(lab)), "told")
        steps = story(lab)
        lab.switch.heal()
        if not mute(steps):
            break
        lab.settle()
        lab.prove()
    assert mute(steps) == [], steps
