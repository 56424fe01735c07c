from __future__ import annotations

import msgspec
import pytest

from hbagent.core.bundles import (
    BUNDLE_PAGES_MAX,
    BUNDLE_SIZE_MAX,
    BUNDLE_TIME_NS,
    BUNDLES_MAX,
    Bundle,
    Bundles,
    bundle_of,
)
from hbagent.core.messages import EvidencePage
from tests.build import LEADER, NODE, NODE2


def begun(bundles: Bundles, now: int = 0) -> Bundle:
    bundle = bundles.begin(NODE, LEADER, "console", 7, now)
    assert bundle is not None
    return bundle


def page(bundle: Bundle, at: int, body: bytes = b"{", last: bool = False, **fields: object) -> EvidencePage:
    made = EvidencePage(number=bundle.number, node=NODE, page=at, last=last, body=body)
    return msgspec.structs.replace(made, **fields)


def test_a_bundle_is_put_together_from_its_pages_in_order() -> None:
    bundles = Bundles(1)
    bundle = begun(bundles)
    assert bundles.take(LEADER, page(bundle, 0, b'{"a":')) is bundle
    assert len(bundles) == 1
    assert bundles.take(LEADER, page(bundle, 1, b"1}", last=True)) is bundle
    assert (bundle.body, bundle.error, len(bundles)) == (b'{"a":1}', "", 0)


def test_nobody_else_can_slip_in_a_page_and_nothing_is_taken_that_was_not_asked_for() -> None:
    bundles = Bundles(1)
    bundle = begun(bundles)
    assert bundles.take("dc1/rack1-leader2", page(bundle, 0)) is None
    assert bundles.take(LEADER, page(bundle, 0, node=NODE2)) is None
    assert bundles.take(LEADER, page(bundle, 0, number=bundle.number + 1)) is None
    assert (bundle.pages, bundle.error) == (0, "")
    bundles.take(LEADER, page(bundle, 0, last=True))
    assert bundles.take(LEADER, page(bundle, 1, last=True)) is None


@pytest.mark.parametrize("number", [1, 2, BUNDLE_PAGES_MAX])
def test_a_page_out_of_order_ends_it(number: int) -> None:
    bundles = Bundles(1)
    bundle = begun(bundles)
    assert bundles.take(LEADER, page(bundle, number)) is bundle
    assert bundle.error == f"page {number} came where page 0 was due"
    assert len(bundles) == 0


def test_a_bundle_may_have_so_many_bytes_and_pages_and_no_more() -> None:
    bundles = Bundles(1)
    large = begun(bundles)
    for number in range(3):
        bundles.take(LEADER, page(large, number, bytes(BUNDLE_SIZE_MAX // 3)))
    assert large.error == ""
    bundles.take(LEADER, page(large, 3, b"x"))
    assert large.error == f"the bundle is over {BUNDLE_SIZE_MAX} bytes"
    endless = begun(bundles)
    for number in range(BUNDLE_PAGES_MAX):
        bundles.take(LEADER, page(endless, number, b""))
        assert endless.error == ""
    bundles.take(LEADER, page(endless, BUNDLE_PAGES_MAX, b""))
    assert endless.error
    assert len(bundles) == 0


def test_an_error_of_the_node_ends_it() -> None:
    bundles = Bundles(1)
    bundle = begun(bundles)
    bundles.take(LEADER, page(bundle, 0, error="no bundle about web"))
    assert (bundle.error, len(bundles)) == ("no bundle about web", 0)


def test_only_so_many_are_under_way_and_none_for_long() -> None:
    bundles = Bundles(1)
    first = begun(bundles)
    for _ in range(BUNDLES_MAX - 1):
        begun(bundles, 1)
    assert bundles.begin(NODE, LEADER, "console", 8, 2) is None
    assert bundles.deadline() == BUNDLE_TIME_NS
    assert bundles.expired(BUNDLE_TIME_NS - 1) == []
    assert bundles.expired(BUNDLE_TIME_NS) == [first]
    assert first.error == f"{LEADER} did not send it within 5 s"
    assert begun(bundles, BUNDLE_TIME_NS).number > first.number
    assert len(bundles.expired(BUNDLE_TIME_NS + 1)) == BUNDLES_MAX - 1
    assert Bundles(1).deadline() is None


def test_two_lives_give_out_other_numbers() -> None:
    assert begun(Bundles(1)).number != begun(Bundles(2)).number


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"[" * 50_000, "no JSON"),
        (b'{"a":NaN}', "no JSON"),
        (b'{"a":"\xff"}', "no JSON"),
    ],
)
def test_what_a_node_sends_must_be_a_json_object(body: bytes, why: str) -> None:
    bundle = Bundle(1, NODE, LEADER, "console", 7, 0)
    bundle.parts = [body]
    raw, error = bundle_of(bundle)
    assert raw is None
    assert error.startswith(f"what {NODE} sent is {why}")


def test_a_number_that_only_json_can_hold_travels_on_as_it_is() -> None:
    bundle = Bundle(1, NODE, LEADER, "console", 7, 0)
    bundle.parts = [b'{"a":' + b"9" * 400, b"}"]
    raw, error = bundle_of(bundle)
    assert error == ""
    assert msgspec.json.encode({"bundle": raw}) == b'{"bundle":' + bundle.body + b"}"
