from __future__ import annotations

import msgspec
import pytest

from hbagent.core.fetches import BUNDLE_SIZE_MAX, FETCH_NS, FETCH_PAGES_MAX, FETCHES_MAX, Fetch, Fetches, bundle_of
from hbagent.core.messages import EvidencePage
from tests.build import LEADER, NODE, NODE2


def begun(fetches: Fetches, now: int = 0) -> Fetch:
    fetch = fetches.begin(NODE, LEADER, "console", 7, now)
    assert fetch is not None
    return fetch


def page(fetch: Fetch, at: int, body: bytes = b"{", last: bool = False, **fields: object) -> EvidencePage:
    made = EvidencePage(number=fetch.number, node=NODE, page=at, last=last, body=body)
    return msgspec.structs.replace(made, **fields)


def test_a_bundle_is_put_together_from_its_pages_in_order() -> None:
    fetches = Fetches(1)
    fetch = begun(fetches)
    assert fetches.take(LEADER, page(fetch, 0, b'{"a":')) is fetch
    assert len(fetches) == 1
    assert fetches.take(LEADER, page(fetch, 1, b"1}", last=True)) is fetch
    assert (fetch.body, fetch.error, len(fetches)) == (b'{"a":1}', "", 0)


def test_nobody_else_can_slip_in_a_page_and_nothing_is_taken_that_was_not_asked_for() -> None:
    fetches = Fetches(1)
    fetch = begun(fetches)
    assert fetches.take("dc1/rack1-leader2", page(fetch, 0)) is None
    assert fetches.take(LEADER, page(fetch, 0, node=NODE2)) is None
    assert fetches.take(LEADER, page(fetch, 0, number=fetch.number + 1)) is None
    assert (fetch.pages, fetch.error) == (0, "")
    fetches.take(LEADER, page(fetch, 0, last=True))
    assert fetches.take(LEADER, page(fetch, 1, last=True)) is None


@pytest.mark.parametrize("number", [1, 2, FETCH_PAGES_MAX])
def test_a_page_out_of_order_ends_it(number: int) -> None:
    fetches = Fetches(1)
    fetch = begun(fetches)
    assert fetches.take(LEADER, page(fetch, number)) is fetch
    assert fetch.error == f"page {number} came where page 0 was due"
    assert len(fetches) == 0


def test_a_bundle_may_have_so_many_bytes_and_pages_and_no_more() -> None:
    fetches = Fetches(1)
    large = begun(fetches)
    for number in range(3):
        fetches.take(LEADER, page(large, number, bytes(BUNDLE_SIZE_MAX // 3)))
    assert large.error == ""
    fetches.take(LEADER, page(large, 3, b"x"))
    assert large.error == f"the bundle is over {BUNDLE_SIZE_MAX} bytes"
    endless = begun(fetches)
    for number in range(FETCH_PAGES_MAX):
        fetches.take(LEADER, page(endless, number, b""))
        assert endless.error == ""
    fetches.take(LEADER, page(endless, FETCH_PAGES_MAX, b""))
    assert endless.error
    assert len(fetches) == 0


def test_an_error_of_the_node_ends_it() -> None:
    fetches = Fetches(1)
    fetch = begun(fetches)
    fetches.take(LEADER, page(fetch, 0, error="no bundle about web"))
    assert (fetch.error, len(fetches)) == ("no bundle about web", 0)


def test_only_so_many_are_under_way_and_none_for_long() -> None:
    fetches = Fetches(1)
    first = begun(fetches)
    for _ in range(FETCHES_MAX - 1):
        begun(fetches, 1)
    assert fetches.begin(NODE, LEADER, "console", 8, 2) is None
    assert fetches.deadline() == FETCH_NS
    assert fetches.expired(FETCH_NS - 1) == []
    assert fetches.expired(FETCH_NS) == [first]
    assert first.error == f"{LEADER} did not send it within 5 s"
    assert begun(fetches, FETCH_NS).number > first.number
    assert len(fetches.expired(FETCH_NS + 1)) == FETCHES_MAX - 1
    assert Fetches(1).deadline() is None


def test_two_lives_give_out_other_numbers() -> None:
    assert begun(Fetches(1)).number != begun(Fetches(2)).number


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
    fetch = Fetch(1, NODE, LEADER, "console", 7, 0)
    fetch.parts = [body]
    bundle, error = bundle_of(fetch)
    assert bundle is None
    assert error.startswith(f"what {NODE} sent is {why}")


def test_a_number_that_only_json_can_hold_travels_on_as_it_is() -> None:
    fetch = Fetch(1, NODE, LEADER, "console", 7, 0)
    fetch.parts = [b'{"a":' + b"9" * 400, b"}"]
    bundle, error = bundle_of(fetch)
    assert error == ""
    assert msgspec.json.encode({"bundle": bundle}) == b'{"bundle":' + fetch.body + b"}"
