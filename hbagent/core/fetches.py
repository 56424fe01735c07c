"""Evidence bundles on their way to whoever asked: few at a time, in order, of bounded size, and not for long.

Leader and root both keep one. A page counts only when it comes from whom it was asked of, under the number that was
given out for it; whatever else arrives was never wanted.
"""

from __future__ import annotations

import msgspec

from .messages import EvidencePage
from .units import SECOND

#: Bundles under way at once. Each is 64 KiB, and an operator reads one at a time.
FETCHES_MAX = 4
#: From the question to the last page. An agent answers within milliseconds; its disk may be busy.
FETCH_NS = 5 * SECOND
#: A bundle has 64 KiB at most; what is half as much again comes from somebody who means harm.
BUNDLE_SIZE_MAX = 96 * 1024
#: A page is half a frame, so a bundle has two or three; as many more as nobody needs.
FETCH_PAGES_MAX = 16
#: Lives of one process have numbers that do not meet.
_NUMBER_BITS = 24


class Fetch:
    """One bundle on its way."""

    __slots__ = ("asker", "error", "node", "number", "pages", "parts", "peer", "query", "size", "until", "wanted")

    def __init__(self, number: int, node: str, peer: str, asker: str, query: int, until: int) -> None:
        self.number = number
        self.node = node
        #: Who must send it.
        self.peer = peer
        #: Who wants it, and under which number: a console's connection and query, or a peer and its own number.
        self.asker = asker
        self.query = query
        self.until = until
        self.pages = 0
        self.parts: list[bytes] = []
        self.size = 0
        #: Not empty: it came to nothing, and why.
        self.error = ""
        #: False when a peer wants it page by page.
        self.wanted = True

    @property
    def body(self) -> bytes:
        """All of it, once it is complete."""
        return b"".join(self.parts)


class Fetches:
    """Those of one process."""

    def __init__(self, life: int) -> None:
        self._number = (life & 0xFFFF_FFFF) << _NUMBER_BITS
        self._under_way: dict[int, Fetch] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def begin(self, node: str, peer: str, asker: str, query: int, now: int) -> Fetch | None:
        """Ask `peer` for a bundle of `node`; None when too many are under way."""
        if len(self._under_way) >= FETCHES_MAX:
            return None
        self._number += 1
        fetch = self._under_way[self._number] = Fetch(self._number, node, peer, asker, query, now + FETCH_NS)
        return fetch

    def take(self, sender: str, page: EvidencePage) -> Fetch | None:
        """The next page of a fetch, which is over with the last or with an error; None when nobody asked for it."""
        fetch = self._under_way.get(page.number)
        if fetch is None or fetch.peer != sender or fetch.node != page.node:
            return None
        if page.error:
            fetch.error = page.error
        elif page.page != fetch.pages or page.page >= FETCH_PAGES_MAX:
            fetch.error = f"page {page.page} came where page {fetch.pages} was due"
        elif fetch.size + len(page.body) > BUNDLE_SIZE_MAX:
            fetch.error = f"the bundle is over {BUNDLE_SIZE_MAX} bytes"
        else:
            fetch.pages += 1
            fetch.size += len(page.body)
            if fetch.wanted:
                fetch.parts.append(page.body)
        if fetch.error or page.last:
            del self._under_way[fetch.number]
        return fetch

    def expired(self, now: int) -> list[Fetch]:
        """Those that have taken too long, and are over now."""
        late = [fetch for fetch in self._under_way.values() if fetch.until <= now]
        for fetch in late:
            del self._under_way[fetch.number]
            fetch.error = f"{fetch.peer} did not send it within {FETCH_NS // SECOND} s"
        return late

    def deadline(self) -> int | None:
        """When `expired` has something to tell."""
        return min((fetch.until for fetch in self._under_way.values()), default=None)


def too_many() -> str:
    """Why no other bundle is fetched now."""
    return f"{FETCHES_MAX} evidence bundles are under way already; ask again in a moment"


def bundle_of(fetch: Fetch) -> tuple[msgspec.Raw | None, str]:
    """A complete bundle as the JSON object that it must be, or why it is none."""
    body = fetch.body
    try:
        whole = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        return None, f"what {fetch.node} sent is no JSON: {error}"
    if not isinstance(whole, dict):
        return None, f"what {fetch.node} sent is no JSON object"
    # As it came: numbers that JSON can hold and this program cannot are the reader's business.
    return msgspec.Raw(body), ""
