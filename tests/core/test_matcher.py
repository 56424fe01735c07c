"""Globs and matchers: what an operator's pattern means, and that none of them is dear."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.matcher import GLOB_LENGTH_MAX, GLOBS_MAX, Glob, Place, check, fits_matter, fits_nobody
from hbagent.core.records import Matcher

NODE = "dc1/r12/web3"


def fits(matcher: Matcher, node: str, rack: str, cause: str, kind: str) -> bool:
    place = Place(matcher)
    return place.fits_node(node) and place.fits_rack(rack) and fits_matter(matcher, cause, kind)


def fits_node(*globs: str, node: str = NODE) -> bool:
    return fits(Matcher(node=globs), node=node, rack="dc1/r12", cause="host-gone", kind="node-dead")


@given(st.text("ab*?", max_size=12).filter(bool), st.text("ab", max_size=16))
def test_stars_and_question_marks_mean_what_they_mean_in_a_shell(pattern: str, text: str) -> None:
    assert Glob(pattern).fits(text) == fnmatch.fnmatchcase(text, pattern)


@given(
    st.lists(st.sampled_from(["*", "?", "a", "b", "-", "[ab]", "[!a]", "[a-c]", "[]a]", "[!]]", "[-a]"]), min_size=1),
    st.text("abc-]", max_size=12),
)
def test_classes_mean_what_they_mean_in_a_shell(elements: list[str], text: str) -> None:
    pattern = "".join(elements)
    assert Glob(pattern).fits(text) == fnmatch.fnmatchcase(text, pattern)


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1, max_size=30))
def test_what_is_no_wildcard_stands_for_itself(text: str) -> None:
    pattern = "".join(f"[{c}]" if c in "*?[" else c for c in text)
    assert Glob(pattern).fits(text)
    assert not Glob(pattern).fits(text + "x")
    assert Glob("*" + pattern + "*").fits("y" + text + "x")


def test_no_character_is_used_twice() -> None:
    assert not Glob("ab*ba").fits("aba")
    assert Glob("ab*ba").fits("abba")
    assert not Glob("a*b*b").fits("ab")
    assert Glob("a*b*b").fits("abb")


def test_upper_and_lower_case_differ() -> None:
    assert not fits_node("WEB3")
    assert fits_node("web3")


def test_a_glob_without_a_slash_is_compared_with_the_last_part_of_a_name() -> None:
    assert fits_node("web*")
    assert fits_node("dc1/*/web?")
    assert fits_node("dc1/r12/*")
    assert not fits_node("dc1")
    assert not fits_node("r12/*")


def test_one_of_a_list_is_enough_and_each_list_counts() -> None:
    matcher = Matcher(node=("db*", "web*"), rack=("r12",), cause=("host-*",), kind=("node-dead",))
    args = {"node": NODE, "rack": "dc1/r12", "cause": "host-gone", "kind": "node-dead"}
    assert fits(matcher, **args)
    for name, other in (
        ("node", "dc1/r12/app1"),
        ("rack", "dc1/r13"),
        ("cause", "silence"),
        ("kind", "node-suspect"),
        ("cause", ""),
    ):
        assert not fits(matcher, **{**args, name: other}), name


def test_what_is_about_no_node_is_fit_by_no_glob_of_nodes() -> None:
    assert not fits(Matcher(node=("*",)), node="", rack="dc1/r12", cause="", kind="rack-dark")
    assert not fits(Matcher(rack=("*",)), node="", rack="", cause="", kind="root-isolated")
    assert fits(Matcher(rack=("r12",)), node="", rack="dc1/r12", cause="", kind="rack-dark")
    assert fits(Matcher(kind=("root-*",)), node="", rack="", cause="", kind="root-isolated")


@pytest.mark.parametrize(
    ("matcher", "complaint"),
    [
        (Matcher(), "say what it is to cover"),
        (Matcher(node=("",)), "1 to 194 printable characters"),
        (Matcher(node=("a" * (GLOB_LENGTH_MAX + 1),)), "this one has 195"),
        (Matcher(node=("web\x1b[2J",)), "printable"),
        (Matcher(node=("web[12",)), "has a [ without its ]"),
        (Matcher(node=("web[9-1]",)), "runs backwards from 9 to 1"),
        (Matcher(rack=("r1",) * (GLOBS_MAX + 1)), "at most 100 globs"),
        (Matcher(cause=("host_gone",)), "fits no cause; there are process-exit, host-gone"),
        (Matcher(kind=("dead",)), "fits no kind of event; there are node-suspect"),
    ],
)
def test_a_matcher_that_means_nothing_is_refused_with_a_sentence(matcher: Matcher, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("[", r"\[")):
        check(matcher)


def test_a_matcher_that_means_something_is_taken() -> None:
    check(Matcher(node=("web[1-3]", "*"), rack=("r?",), cause=("host-gone", "link-*"), kind=("node-*",)))


def test_a_glob_made_of_stars_costs_no_more_than_its_length_times_that_of_the_text() -> None:
    pattern = Glob("*a" * 90 + "*b")
    spent = []
    # The least of several, for a machine may stand still in one of them.
    for _ in range(10):
        began = time.process_time()
        for _ in range(10):
            assert not pattern.fits("a" * 190)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.05


@given(st.lists(st.text("ab*?", max_size=8).filter(bool), max_size=3), st.text("ab", max_size=10))
def test_whoever_fits_has_a_hint_in_its_name(patterns: list[str], name: str) -> None:
    place = Place(Matcher(node=tuple(patterns)))
    if place.fits_node(name):
        assert any(hint in name for hint in place.hints)


# ---- what nobody is called -----------------------------------------------------------------------------------

NODES = ("dc1/r12/web3", "dc1/r13/db1")
RACKS = ("dc1/r12", "dc1/r13")
LEADERS = ("dc1/r12-leader1",)


@pytest.mark.parametrize(
    ("matcher", "says"),
    [
        (Matcher(node=("web3",)), ""),
        (Matcher(node=("dc1/r12/web3", "db?")), ""),
        (Matcher(node=("*",), rack=("r1[23]",)), ""),
        (Matcher(kind=("node-dead",)), ""),
        (Matcher(cause=("host-gone",), rack=("dc1/*",)), ""),
        (Matcher(rack=("nosuch",)), "it fits nothing that is known now: no rack nosuch"),
        (Matcher(rack=("r12", "dc2/*")), "some of it fits nothing that is known now: no rack dc2/*"),
        (Matcher(rack=("12",)), "it fits nothing that is known now: no rack 12"),
        (Matcher(node=("web",)), "it fits nothing that is known now: no node web"),
        (Matcher(node=("r12/web3",)), "it fits nothing that is known now: no node r12/web3"),
        (
            Matcher(node=("web3", "wbe*", "we??x")),
            "some of it fits nothing that is known now: no node wbe*, no node we??x",
        ),
        (Matcher(node=("web3",), rack=("nosuch",)), "it fits nothing that is known now: no rack nosuch"),
        (Matcher(node=("web3", "db2"), rack=("r13",)), "it fits nothing that is known now: no node db2"),
        (Matcher(node=("web3",), rack=("r13",)), "it fits nothing that is known now: no such node in such a rack"),
        (
            Matcher(node=("r12-leader1",)),
            "it fits nothing that is known now: no node r12-leader1 (a leader is covered with its rack)",
        ),
        (
            Matcher(rack=("r12-leader*",)),
            "it fits nothing that is known now: no rack r12-leader* (a leader is covered with its rack)",
        ),
        (
            Matcher(node=tuple(f"n{number}" for number in range(9))),
            "it fits nothing that is known now: no node n0, no node n1, no node n2, no node n3, no node n4 and 4 more",
        ),
    ],
)
def test_what_fits_nobody_who_is_known_is_said(matcher: Matcher, says: str) -> None:
    assert fits_nobody(matcher, NODES, RACKS, LEADERS) == says


@given(
    st.lists(st.text("w3*?", min_size=1, max_size=4), max_size=3),
    st.lists(st.text("r12*", min_size=1, max_size=3), max_size=2),
)
def test_who_is_said_to_fit_nobody_fits_nobody(node: list[str], rack: list[str]) -> None:
    matcher = Matcher(node=tuple(node), rack=tuple(rack))
    place = Place(matcher)
    covered = [name for name in NODES if place.fits_node(name) and place.fits_rack(name.rpartition("/")[0])]
    covered += [name for name in RACKS if place.fits_node("") and place.fits_rack(name)]
    says = fits_nobody(matcher, NODES, RACKS, LEADERS)
    if node or rack:
        assert says.startswith("it fits nothing") is (not covered)
    else:
        assert says == ""
