"""Evidence bundles on their way to whoever asked: few at a time, in order, of bounded size, and not for long.

Leader and root both keep one. A page counts only when it comes from whom it was asked of, under the number that was
given out for it; whatever else arrives was never wanted.
"""

from __future__ import annotations

import msgspec

from .messages import EvidencePage
from .units import SECOND

#: Bundles under way at once. Each is 64 KiB, and an operator reads one at a time.
BUNDLES_MAX = 4
#: From the question to the last page. An agent answers within milliseconds; its disk may be busy.
BUNDLE_TIME_NS = 5 * SECOND
#: A bundle has 64 KiB at most; what is half as much again comes from somebody who means harm.
BUNDLE_SIZE_MAX = 96 * 1024
#: A page is half a frame, so a bundle has two or three; as many more as nobody needs.
BUNDLE_PAGES_MAX = 16
#: Lives of one process have numbers that do not meet.
_NUMBER_BITS = 24


class Bundle:
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


class Bundles:
    """Those of one process."""

    def __init__(self, life: int) -> None:
        self._number = (life & 0xFFFF_FFFF) << _NUMBER_BITS
        #: By number; a leader that wakes fifty times a second looks here first.
        self.under_way: dict[int, Bundle] = {}

    def __len__(self) -> int:
        return len(self.under_way)

    def begin(self, node: str, peer: str, asker: str, query: int, now: int) -> Bundle | None:
        """Ask `peer` for a bundle of `node`; None when too many are under way."""
        if len(self.under_way) >= BUNDLES_MAX:
            return None
        self._number += 1
        bundle = self.under_way[self._number] = Bundle(self._number, node, peer, asker, query, now + BUNDLE_TIME_NS)
        return bundle

    def take(self, sender: str, page: EvidencePage) -> Bundle | None:
        """The next page of a bundle, which is over with the last or with an error; None when nobody asked for it."""
        bundle = self.under_way.get(page.number)
        if bundle is None or bundle.peer != sender or bundle.node != page.node:
            return None
        if page.error:
            bundle.error = page.error
        elif page.page != bundle.pages or page.page >= BUNDLE_PAGES_MAX:
            bundle.error = f"page {page.page} came where page {bundle.pages} was due"
        elif bundle.size + len(page.body) > BUNDLE_SIZE_MAX:
            bundle.error = f"the bundle is over {BUNDLE_SIZE_MAX} bytes"
        else:
            bundle.pages += 1
            bundle.size += len(page.body)
            if bundle.wanted:
                bundle.parts.append(page.body)
        if bundle.error or page.last:
            del self.under_way[bundle.number]
        return bundle

    def expired(self, now: int) -> list[Bundle]:
        """Those that have taken too long, and are over now."""
        late = [bundle for bundle in self.under_way.values() if bundle.until <= now]
        for bundle in late:
            del self.under_way[bundle.number]
            bundle.error = f"{bundle.peer} did not send it within {BUNDLE_TIME_NS // SECOND} s"
        return late

    def deadline(self) -> int | None:
        """When `expired` has something to tell."""
        return min((bundle.until for bundle in self.under_way.values()), default=None)


def too_many() -> str:
    """Why no other bundle is fetched now."""
    return f"{BUNDLES_MAX} evidence bundles are under way already; ask again in a moment"


def bundle_of(bundle: Bundle) -> tuple[msgspec.Raw | None, str]:
    """A complete bundle as the JSON object that it must be, or why it is none."""
    body = bundle.body
    try:
        whole = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        return None, f"what {bundle.node} sent is no JSON: {error}"
    if not isinstance(whole, dict):
        return None, f"what {bundle.node} sent is no JSON object"
    # As it came: numbers that JSON can hold and this program cannot are the reader's business.
    return msgspec.Raw(body), ""
