"""The evidence of one process in one document: the verdict and its proof, threads, stacks, and what stands around it.

A bundle is at most 64 KiB of JSON, so that it can be kept by the dozen and fetched through the control path. When
there is more to tell, the least important is left out first, from the end of each list, and the bundle says what.
What names the deadlock is left out last of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from hbagent.core.wallclock import rfc3339

from .circumstances import Told
from .examine import Findings
from .stacks import Stacks

#: Two pages of 32 KiB on the control path.
BUNDLE_MAX = 64 << 10
SCHEMA = 1

#: Lists of a bundle that may be cut, the least important first: where, what their items are called, how many stay.
#: A list comes again when more than the first pass would take has to go.
_CUTS: tuple[tuple[str, str, int], ...] = (
    ("files.files", "open files", 64),
    ("sockets.sockets", "sockets", 32),
    ("kernel_stacks", "kernel stacks", 32),
    ("stacks", "stacks", 32),
    ("threads", "threads", 32),
    ("locks", "file locks", 8),
    ("kernel_stacks", "kernel stacks", 8),
    ("files.files", "open files", 0),
    ("sockets.sockets", "sockets", 4),
    ("kernel_stacks", "kernel stacks", 0),
    ("stacks", "stacks", 8),
    ("threads", "threads", 8),
    ("stacks", "stacks", 0),
    ("threads", "threads", 0),
    ("proof.cycle", "threads of the cycle", 16),
)
#: Sections that go as a whole, when cutting lists was not enough.
_DROPS = ("host", "locks", "limits", "files", "sockets", "group", "process", "details")


def document(
    findings: Findings,
    told: Told,
    stacks: Sequence[Stacks] = (),
    *,
    wall_ns: int,
    took_ns: int,
    app: str = "",
    why: str = "",
) -> dict[str, Any]:
    """Everything about one examination, not yet cut to size. `took_ns`: the work of collecting, without the wait
    between the looks; `why`: which probe or mark said that nothing moves."""
    found = msgspec.to_builtins(findings)
    firsts = [row.tid for row in findings.threads if row.lock]
    return {
        "schema": SCHEMA,
        "at": rfc3339(wall_ns),
        "app": app,
        "why": why,
        **found,
        **told.sections,
        "stacks": [row for source in stacks for row in stack_rows(source, firsts)],
        "pause_ns": sum(source.pause_ns for source in stacks),
        "took_ns": took_ns,
        "left_out": [*told.left_out, *(f"stacks by {source.by}: {source.error}" for source in stacks if source.error)],
    }


def stack_rows(source: Stacks, firsts: Iterable[int] = ()) -> list[dict[str, Any]]:
    """The stacks that one source told, a row each; threads in `firsts` before all others, then those that do
    something."""
    order = {tid: at for at, tid in enumerate(firsts)}
    threads = sorted(
        source.threads, key=lambda thread: (order.get(thread.tid, len(order)), thread.doing in ("idle", ""))
    )
    rows = [{"by": source.by, **msgspec.to_builtins(thread)} for thread in threads]
    if source.proof is not None:
        named = {link.name for link in source.proof.cycle}
        rows.sort(key=lambda row: row["name"] not in named)
    return rows


def fit(whole: dict[str, Any], size_max: int = BUNDLE_MAX) -> bytes:
    """The document as JSON of at most `size_max` bytes; what had to go is told in its `left_out`."""
    body = msgspec.json.encode(whole)
    # Room for what is said about what is left out.
    room, size = size_max - _NOTE_ROOM, len(body)
    if size <= size_max:
        return body
    whole = msgspec.json.decode(body)
    whole["left_out"] = whole.get("left_out", [])[:_NOTES_MAX]
    counts: dict[str, list[int]] = {}
    for where, what, least in _CUTS:
        if size <= room:
            break
        size -= _cut(whole, where, what, least, size - room, counts)
    notes = [f"{total - left} of {total} {what}" for what, (left, total) in counts.items() if left < total]
    for section in _DROPS:
        if size <= room:
            break
        if section in whole:
            size -= len(msgspec.json.encode(whole.pop(section)))
            notes.append(section)
    whole["left_out"] += notes
    body = msgspec.json.encode(whole)
    if len(body) > size_max:
        kept = ("schema", "at", "app", "why", "pid", "start", "verdict", "pause_ns", "took_ns")
        body = msgspec.json.encode({**{key: whole[key] for key in kept if key in whole}, "left_out": ["all else"]})
    return body


#: Lines about what is left out, and the bytes that are kept free for them.
_NOTES_MAX = 32
_NOTE_ROOM = 1024


def _cut(whole: dict[str, Any], where: str, what: str, least: int, excess: int, counts: dict[str, list[int]]) -> int:
    """Take items from the end of a list or table until `excess` bytes are gone or `least` are left; bytes gone."""
    holder: Any = whole
    *path, last = where.split(".")
    for key in path:
        holder = holder.get(key)
        if not isinstance(holder, dict):
            return 0
    items = holder.get(last)
    if not isinstance(items, (list, dict, tuple)) or len(items) <= least:
        return 0
    entries: list[Any] = list(items.items()) if isinstance(items, dict) else list(items)
    count = counts.setdefault(what, [len(entries), len(entries)])
    gone = 0
    while gone < excess and len(entries) > least:
        # The item and its comma.
        gone += len(msgspec.json.encode(entries.pop())) + (-1 if isinstance(items, dict) else 1)
    count[0] = len(entries)
    holder[last] = dict(entries) if isinstance(items, dict) else entries
    return gone
