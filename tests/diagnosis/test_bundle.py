"""A bundle never grows over its size, and what matters most is left out last."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.proof import Link, Proof
from hbagent.core.states import Stall
from hbagent.diagnosis.bundle import BUNDLE_MAX, document, fit
from hbagent.diagnosis.circumstances import Told
from hbagent.diagnosis.examine import Findings, ThreadRow
from hbagent.diagnosis.stacks import Stacks, ThreadStack

WALL_NS = 1_767_323_045_678_000_000


def link(tid: int) -> Link:
    return Link(tid=tid, name=f"ring-{tid}", kind="mutex", address="0x7f", owner=tid + 1, owner_name=f"ring-{tid + 1}")


def findings(threads: int = 2, cycle: int = 2) -> Findings:
    return Findings(
        pid=7,
        verdict=Stall.DEADLOCKED,
        text="2 threads wait for one another",
        details=("thread a waits", "thread b waits"),
        proof=Proof(cycle=tuple(link(tid) for tid in range(cycle))),
        threads=tuple(ThreadRow(tid=tid, name="t" * 15, state="S", lock="mutex" * (tid < 2)) for tid in range(threads)),
    )


def whole(size: int, threads: int = 64, cycle: int = 2) -> dict[str, Any]:
    """A document with `size` items in each list that may be long."""
    told = Told(
        sections={
            "files": {"count": size, "files": [f"{at} /var/log/application/{at}.log" for at in range(size)]},
            "sockets": {"count": size, "sockets": [{"fd": at, "local": "127.0.0.1:80"} for at in range(size)]},
            "kernel_stacks": {str(at): ["futex_wait", "do_futex"] for at in range(size)},
            "locks": ["1: FLOCK ADVISORY WRITE 7"] * size,
            "host": {"load": "0.00"},
        }
    )
    source = Stacks(
        by="py-spy",
        threads=tuple(ThreadStack(tid=at, name=f"worker-{at}", frames=("f (x.py:1)",) * 10) for at in range(size)),
    )
    return document(findings(threads, cycle), told, [source], wall_ns=WALL_NS, took_ns=5, app="billing", why="mark")


def fitted(size: int, **given: int) -> dict[str, Any]:
    body = fit(whole(size, **given))
    assert len(body) <= BUNDLE_MAX
    decoded: dict[str, Any] = json.loads(body)
    return decoded


def test_what_fits_is_whole() -> None:
    everything = whole(10)
    assert json.loads(fit(everything)) == json.loads(msgspec.json.encode(everything))
    told = fitted(10)
    assert (told["schema"], told["at"], told["app"], told["why"]) == (1, "2026-01-02T03:04:05.678Z", "billing", "mark")
    assert (told["verdict"], told["left_out"]) == ("DEADLOCKED", [])


@pytest.mark.parametrize("size", [300, 1000, 20_000])
def test_the_proof_and_its_threads_stay_whatever_else_there_is(size: int) -> None:
    told = fitted(size)
    assert [entry["tid"] for entry in told["proof"]["cycle"]] == [0, 1]
    assert [row["tid"] for row in told["threads"]][:2] == [0, 1]
    assert [row["tid"] for row in told["stacks"]][:2] == [0, 1]
    assert any("open files" in line for line in told["left_out"])


def test_the_least_important_goes_first_and_only_as_much_as_must() -> None:
    size = next(size for size in range(100, 400) if len(msgspec.json.encode(whole(size))) > BUNDLE_MAX)
    told = fitted(size)
    assert 64 < len(told["files"]["files"]) < size
    assert (len(told["sockets"]["sockets"]), len(told["stacks"]), len(told["threads"])) == (size, size, 64)
    assert told["left_out"] == [f"{size - len(told['files']['files'])} of {size} open files"]


def test_a_cycle_of_thousands_is_cut_last() -> None:
    told = fitted(0, cycle=5000)
    assert 16 <= len(told["proof"]["cycle"]) < 5000
    assert any("threads of the cycle" in line for line in told["left_out"])
    assert told["verdict"] == "DEADLOCKED"


def test_the_given_document_is_left_as_it_is() -> None:
    everything = whole(20_000)
    fit(everything)
    assert len(everything["files"]["files"]) == 20_000


def test_one_value_that_fills_everything_leaves_the_verdict() -> None:
    everything = {**whole(0), "name": "x" * BUNDLE_MAX}
    told = json.loads(fit(everything))
    assert (told["verdict"], told["left_out"]) == ("DEADLOCKED", ["all else"])


def test_errors_of_sources_are_told() -> None:
    told = document(
        findings(), Told(left_out=["io: denied"]), [Stacks(by="jvm", error="no JDK", pause_ns=3)], wall_ns=0, took_ns=0
    )
    assert (told["left_out"], told["pause_ns"]) == (["io: denied", "stacks by jvm: no JDK"], 3)


@given(st.integers(2000, 70_000), st.integers(0, 400), st.integers(0, 400), st.integers(2, 600))
def test_no_document_is_larger_than_its_limit(size_max: int, size: int, threads: int, cycle: int) -> None:
    body = fit(whole(size, threads, cycle), size_max)
    assert len(body) <= size_max
    assert json.loads(body)["verdict"] == "DEADLOCKED"
