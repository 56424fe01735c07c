"""What people are told, of real processes on hosts of their own: one thing for one trouble, and a proved one at once.

A hook with the settings that are shipped stands for the people. F12: a link that comes and goes is told as that.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import BuildLab, short_directory
from tests.e2e.fleet import Fleet, Row, node_of, whole_lines
from tests.e2e.lab import NEEDS, Lab

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), *NEEDS]

CUT = 40
#: From a death to its hook, where both may have no processor for a second. What waits for a rack to settle is later.
AT_ONCE_SECONDS = 3.0
#: Long enough for everything that waits to be told: settle, doubts, the brake's window.
QUIET_SECONDS = 12.0
FLAP_SECONDS = 20.0
#: Those of the demo tell each event by itself, and wait for nobody.
SHIPPED = "[flap]\n[brake]\n"
SETTLE = 'settle = "4s"'


class Large(Lab):
    """A rack of forty nodes, and one of three beside it."""

    def nodes_of(self, rack: str) -> tuple[str, ...]:
        nodes = super().nodes_of(rack)
        return nodes if rack == "rack1" else nodes[:3]


def with_pager(fleet: Fleet) -> None:
    """Write the files, with a hook as it is shipped beside that of the demo, and start everything."""
    fleet.write()
    hook = fleet.directory / "etc" / "pager"
    hook.write_text(f"#!/bin/sh\nline=$(cat)\nprintf '%s %s\\n' \"$(date +%s.%N)\" \"$line\" >>'{pages_of(fleet)}'\n")
    hook.chmod(0o700)
    with fleet.config("root").open("a") as config:
        config.write(f'\n[[hook]]\nname = "pager"\ncommand = ["{hook}"]\n')
    fleet.start()
    fleet.settle(90.0)


def pages_of(fleet: Fleet) -> Path:
    return fleet.directory / "pages.jsonl"


def paged(fleet: Fleet) -> list[tuple[float, Row]]:
    """When people were told, by the wall clock, and what."""
    lines = [line.partition(" ") for line in whole_lines(pages_of(fleet))]
    return [(float(when), msgspec.json.decode(document)) for when, _, document in lines]


def kinds(rows: list[tuple[float, Row]]) -> list[tuple[str, str]]:
    return [(row["kind"], row["node"] or row["rack"]) for _, row in rows]


def paged_but_flaps(fleet: Fleet) -> list[tuple[float, Row]]:
    """The same without those who flap: who has no processor again and again does."""
    return [told for told in paged(fleet) if told[1]["kind"] not in ("node-flapping", "node-steady")]


@pytest.fixture
def large(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Large]:
    with short_directory(tmp_path_factory) as directory:
        plan = Plan(racks=2, nodes=CUT, interval="500ms", root_lines=(SETTLE,), root_tables=SHIPPED)
        lab = Large(directory, plan)
        with lab:
            with_pager(lab)
            yield lab


def test_forty_hosts_that_are_cut_off_at_once_are_one_notification_and_one_when_they_are_back(
    large: Large, figures: Figures
) -> None:
    rack, victim = "demo/rack1", "rack2-node1"
    begun = time.time()
    large.switch.isolate(*large.nodes_of("rack1"))
    large.kill(victim)
    killed = time.time()
    large.until(lambda: ("rack-dark", rack) in kinds(paged(large)), "told of the rack", 30.0)
    time.sleep(QUIET_SECONDS)
    told = paged_but_flaps(large)
    assert sorted(kinds(told)) == [("node-dead", node_of(victim)), ("rack-dark", rack)]
    at = {row["kind"]: when for when, row in told}
    dark = next(row for _, row in told if row["kind"] == "rack-dark")
    assert (dark["rack"], dark["cause"]) == (rack, "rack-dark")
    # Those whose last beats were still on their way when it was told, on a busy machine, are not counted yet.
    count, of = re.match(r"(\d+) of (\d+) nodes", dark["evidence"]["text"]).groups()  # type: ignore[union-attr]
    assert int(of) == CUT and int(count) > 0.55 * CUT
    assert at["node-dead"] < max(at["rack-dark"], killed + AT_ONCE_SECONDS), "a proved death waits for nothing"

    healed = time.time()
    large.switch.heal()
    large.until(lambda: ("rack-recovered", rack) in kinds(paged(large)), "told that it is back", 60.0)
    large.until(lambda: large.rack_calm("rack1"), "all of it is back", 60.0)
    time.sleep(QUIET_SECONDS)
    assert kinds(paged_but_flaps(large)[len(told) :]) == [("rack-recovered", rack)], "no host of it, and nothing twice"
    back = paged_but_flaps(large)[len(told)][0] - healed
    figures(
        "alert",
        f"{CUT} hosts cut off at once: told after {at['rack-dark'] - begun:.1f} s in one notification, a crash beside"
        f" it after {(at['node-dead'] - killed) * 1000:.0f} ms; back is told {back:.1f} s after the heal, hosts: none",
    )


def test_a_link_that_comes_and_goes_is_told_as_that_and_no_more(build_lab: BuildLab, figures: Figures) -> None:
    # So fast that it is called dead each time it goes.
    plan = Plan(racks=1, nodes=4, interval="100ms", leader_tables='[detector]\nmargin = "100ms"\n', root_tables=SHIPPED)
    lab = build_lab(plan)
    with_pager(lab)
    node, mark, cuts = "rack1-node1", lab.newest(), 0
    until = time.monotonic() + FLAP_SECONDS
    while time.monotonic() < until:
        with lab.isolated(node):
            time.sleep(0.4)
        time.sleep(0.4)
        cuts += 1
    lab.settle()
    events = [row for row in lab.events(mark) if row["node"] == lab.nodes[node]]
    changes = [row["kind"] for row in events if row["kind"] in ("node-suspect", "node-dead", "node-recovered")]
    told = kinds(paged(lab))
    figures("F12", f"0.4 s on and off, {cuts} times: {len(changes)} changes, told {[kind for kind, _ in told]}")
    assert {name for _, name in told} <= {lab.nodes[node]}
    # What came before it was known to flap, and that it does.
    before = [kind for kind, _ in told if kind not in ("node-flapping", "node-steady")]
    assert before in [["node-dead", "node-recovered"] * times for times in range(3)]
    assert told.count(("node-flapping", lab.nodes[node])) <= 1
    if len(changes) >= 6:
        assert ("node-flapping", lab.nodes[node]) in told
    lab.until_liveness(node, "ALIVE")
