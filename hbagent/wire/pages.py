"""Cutting what is too long for one frame into pages, and putting an answer together again.

A frame over the limit costs more than itself: the receiving socket drops the connection, the sender connects again
and sends it again, for ever. So the cut is made by the encoded size, and no input that a node may send can make a
page too large for the path above its leader: a report or a sentence of evidence that fills a page alone is shortened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from hbagent.core.messages import (
    AnswerPage,
    HealthChange,
    HostFacts,
    NodeReport,
    RackReports,
    RackSummary,
    Report,
    Transition,
    Transitions,
)
from hbagent.core.states import Health

from .rules import PAGES_MAX
from .version import HEAD_SIZE

#: Half a frame: a page in flight delays the beat behind it on a slow link by no more than it must.
PAGE_SIZE_MAX = 32 * 1024
#: A document of 64 MiB is the status of over 100,000 nodes; a peer that sends more wants the console's memory.
DOCUMENT_SIZE_MAX = 64 * 1024 * 1024
#: An answer's error is a sentence.
ERROR_LENGTH_MAX = 400
#: A text of a probe or an application in what would not fit otherwise.
TEXT_LENGTH_SHORT = 100
#: Evidence is one sentence; only a defect makes it longer.
EVIDENCE_LENGTH_MAX = 2000

#: How much page numbers and list lengths may grow between measuring an empty page and filling it.
_SLACK = 32
#: Field names, numbers and the longest error of an answer's page.
_ANSWER_ROOM = PAGE_SIZE_MAX - 2048

_ENCODER = msgspec.msgpack.Encoder()
_Item = TypeVar("_Item")
Changes = tuple[HealthChange, ...]


def summary_pages(summary: RackSummary) -> tuple[RackSummary, ...]:
    """A rack's summary as pages of one number, each with the leader's stats and some of the nodes.

    Raises ValueError when the stats alone fill a page or the rack needs more than `PAGES_MAX` pages.
    """
    room = _room(msgspec.structs.replace(summary, nodes=()))
    groups = _split(summary.nodes, room)
    if len(groups) > PAGES_MAX:
        raise ValueError(f"rack {summary.rack} needs {len(groups)} pages; {PAGES_MAX} at most")
    return tuple(
        msgspec.structs.replace(summary, nodes=group, page=page, pages=len(groups)) for page, group in enumerate(groups)
    )


def report_pages(reports: RackReports) -> tuple[RackReports, ...]:
    """A rack's reports, as many messages as they need. A report that fills a page alone is shortened, not lost."""
    room = _room(msgspec.structs.replace(reports, reports=()))
    fitting = tuple(_fit_item(item, room) for item in reports.reports)
    return tuple(msgspec.structs.replace(reports, reports=group) for group in _split(fitting, room))


def transition_pages(transitions: Transitions) -> tuple[Transitions, ...]:
    """Transitions in order, as many messages of the same base as they need, each `after` the one before it."""
    room = _room(msgspec.structs.replace(transitions, items=()))
    fitting = tuple(_fit_transition(item, room) for item in transitions.items)
    pages: list[Transitions] = []
    after = transitions.after
    for group in _split(fitting, room):
        pages.append(msgspec.structs.replace(transitions, items=group, after=after))
        after = group[-1].number if group else after
    return tuple(pages)


def fit_report(report: Report, size_max: int = PAGE_SIZE_MAX - 1024) -> Report:
    """`report`, or as much of it as `size_max` encoded bytes hold: health and number always stay."""
    for shorten in _SHORTER:
        if _size(report) <= size_max:
            return report
        report = shorten(report)
    return report


def answer_pages(id: int, document: bytes, error: str = "") -> Iterator[AnswerPage]:
    """The pages of one answer, in order; an empty document is one empty page. `error` is escaped and cut."""
    reason = error.encode("utf-8", "backslashreplace").decode()[:ERROR_LENGTH_MAX]
    pages = max(1, -(-len(document) // _ANSWER_ROOM))
    for page in range(pages):
        body = document[page * _ANSWER_ROOM : (page + 1) * _ANSWER_ROOM]
        yield AnswerPage(id=id, page=page, last=page == pages - 1, body=body, error=reason)


class AnswerAssembly:
    """Puts the pages of one answer together. Pages of one connection come in order; anything else is a defect."""

    __slots__ = ("_parts", "_size", "_whole", "error", "id")

    def __init__(self, id: int) -> None:
        self.id = id
        #: Why the query failed, once a page said so; "" until then.
        self.error = ""
        self._parts: list[bytes] = []
        self._size = 0
        self._whole = False

    def add(self, page: AnswerPage) -> bytes | None:
        """Take the next page; the document when it was the last, None before.

        Raises ValueError for a page of another answer, a gap, a repeat, a page after the last, an empty page before
        the last (they could go on for ever) and a document over `DOCUMENT_SIZE_MAX`; the assembly is as before.
        """
        if page.id != self.id:
            raise ValueError(f"page of answer {page.id}, expected {self.id}")
        if self._whole or page.page != len(self._parts):
            raise ValueError(f"page {page.page} of answer {self.id}, expected {self._expected()}")
        if not page.body and not page.last:
            raise ValueError(f"page {page.page} of answer {self.id} is empty and not the last")
        if self._size + len(page.body) > DOCUMENT_SIZE_MAX:
            raise ValueError(f"answer {self.id} is over {DOCUMENT_SIZE_MAX} bytes")
        self._parts.append(page.body)
        self._size += len(page.body)
        self._whole = page.last
        self.error = self.error or page.error
        return b"".join(self._parts) if page.last else None

    def _expected(self) -> str:
        return "no more" if self._whole else str(len(self._parts))


def _size(message: object) -> int:
    return len(_ENCODER.encode(message))


def _room(empty: RackSummary | RackReports | Transitions) -> int:
    """Bytes that the items of a page may take together."""
    room = PAGE_SIZE_MAX - HEAD_SIZE - _SLACK - _size(empty)
    if room <= 0:
        raise ValueError(f"{type(empty).__name__} without its items fills a page of {PAGE_SIZE_MAX} bytes")
    return room


def _split(items: Sequence[_Item], room: int) -> list[tuple[_Item, ...]]:
    """Groups of neighbours, each as long as `room` allows and never empty; one empty group when there are no items."""
    groups: list[tuple[_Item, ...]] = []
    start = used = 0
    for index, item in enumerate(items):
        size = _size(item)
        if size > room:
            raise ValueError(f"{type(item).__name__} of {size} bytes; a page has room for {room}")
        if used + size > room:
            groups.append(tuple(items[start:index]))
            start, used = index, 0
        used += size
    groups.append(tuple(items[start:]))
    return groups


def _fit_item(item: NodeReport, room: int) -> NodeReport:
    if _size(item) <= room:
        return item
    bare = _size(msgspec.structs.replace(item, report=_without_all(item.report)))
    report = fit_report(item.report, room - bare)
    return msgspec.structs.replace(item, report=report)


def _fit_transition(item: Transition, room: int) -> Transition:
    evidence = item.evidence
    if len(evidence.text) > EVIDENCE_LENGTH_MAX:
        evidence = msgspec.structs.replace(evidence, text=evidence.text[: EVIDENCE_LENGTH_MAX - 3] + "...")
    for shorten in _SHORTER_CHANGES:
        if not evidence.changes or _size(evidence) <= room // 2:
            break
        evidence = msgspec.structs.replace(evidence, changes=shorten(evidence.changes))
    return item if evidence is item.evidence else msgspec.structs.replace(item, evidence=evidence)


def _plainer(changes: Changes) -> Changes:
    return tuple(msgspec.structs.replace(change, details=()) for change in changes)


def _shorter(changes: Changes) -> Changes:
    return tuple(
        msgspec.structs.replace(change, name=change.name[:TEXT_LENGTH_SHORT], text=change.text[:TEXT_LENGTH_SHORT])
        for change in changes
    )


def _without_measures(report: Report) -> Report:
    probes = tuple(msgspec.structs.replace(probe, measures=()) for probe in report.probes)
    return msgspec.structs.replace(report, probes=probes)


def _without_marks(report: Report) -> Report:
    apps = tuple(msgspec.structs.replace(app, marks=(), details=()) for app in report.apps)
    return msgspec.structs.replace(report, apps=apps)


def _with_short_texts(report: Report) -> Report:
    probes = tuple(msgspec.structs.replace(probe, text=probe.text[:TEXT_LENGTH_SHORT]) for probe in report.probes)
    apps = tuple(
        msgspec.structs.replace(app, text=app.text[:TEXT_LENGTH_SHORT], status=app.status[:TEXT_LENGTH_SHORT])
        for app in report.apps
    )
    return msgspec.structs.replace(report, probes=probes, apps=apps)


def _without_good(report: Report) -> Report:
    """What is OK may be missing: nobody takes that for a change."""
    probes = tuple(probe for probe in report.probes if probe.health is not Health.OK)
    apps = tuple(app for app in report.apps if app.health is not Health.OK)
    return msgspec.structs.replace(report, facts=_left_out("facts and what is OK"), probes=probes, apps=apps)


def _without_facts(report: Report) -> Report:
    return msgspec.structs.replace(report, facts=_left_out("facts"))


def _without_all(report: Report) -> Report:
    return msgspec.structs.replace(report, facts=_left_out("facts, probes and apps"), probes=(), apps=())


def _left_out(what: str) -> HostFacts:
    return HostFacts(errors=(f"{what} left out: longer than a page of {PAGE_SIZE_MAX} bytes",))


_SHORTER: tuple[Callable[[Report], Report], ...] = (
    _without_measures,
    _without_marks,
    _with_short_texts,
    _without_facts,
    _without_good,
    _without_all,
)
_SHORTER_CHANGES: tuple[Callable[[Changes], Changes], ...] = (_plainer, _shorter, lambda changes: changes[:1])
