"""An evidence bundle as text: pure functions from its JSON object and a `Screen` to lines.

The bundle was written by another host, perhaps by another version, about a process that may mean harm. So nothing here
insists on a schema, every text is cleaned, and whatever a reader has no use for at a glance is named at the end.
"""

from __future__ import annotations

from typing import Any

from hbagent.core.states import Health, Stall
from hbagent.core.units import show_duration

from .answers import Row, number, row, rows, word
from .grid import Cell, Column, Grid, Screen, clean, paint
from .pieces import state_cell

#: Threads and stacks that are shown, frames of each, and lines of a section; json has all of them.
THREADS_SHOWN = 20
FRAMES_SHOWN = 8
LINES_SHOWN = 20

_TONES = {
    **dict.fromkeys((Stall.RUNNING.value, Stall.IDLE.value), Health.OK.value),
    **dict.fromkeys((Stall.STARVED.value, Stall.SLOW.value), Health.WARNING.value),
    Stall.UNKNOWN.value: Health.UNKNOWN.value,
}
_COLUMNS = (
    Column("TID", right=True),
    Column("THREAD"),
    Column("STATE"),
    Column("RAN", 1, right=True),
    Column("WAITED FOR CPU", 3, right=True),
    Column("SWITCHES", 2, right=True),
    Column("WAITS FOR", cut=True),
)
#: Keys that the text shows, or that say what is known already.
_SHOWN = (
    *("schema", "at", "app", "why", "pid", "name", "start", "verdict", "text", "stuck", "details", "proof"),
    *("no_proof", "threads", "threads_total", "stacks", "pause_ns", "took_ns", "left_out", "looks"),
)


def bundle_lines(document: Row, screen: Screen) -> list[str]:
    """The answer to `evidence` for a reader: the verdict, what proves it, the threads, what was left out."""
    bundle = row(document, "bundle")
    lines = [*_head_lines(document, bundle, screen), *_proof_lines(bundle, screen)]
    lines += _thread_lines(bundle, screen)
    lines += _stack_lines(bundle, screen)
    missing = texts(bundle, "left_out")
    if missing:
        lines += ["", paint("Left out", "bold", screen), *(f"  {line}" for line in _some(missing, screen))]
    others = [clean(str(key), screen) for key in bundle if key not in _SHOWN]
    if others:
        lines += ["", f"More with -o json: {', '.join(others[:LINES_SHOWN])}"]
    return lines


def texts(document: Any, key: str) -> list[str]:
    """The texts in the list under `key`; none when there is no such list."""
    found = document.get(key) if isinstance(document, dict) else None
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _some(lines: list[str], screen: Screen) -> list[str]:
    shown = [clean(line, screen) for line in lines[:LINES_SHOWN]]
    return [*shown, f"and {len(lines) - LINES_SHOWN} more"] if len(lines) > LINES_SHOWN else shown


def _head_lines(document: Row, bundle: Row, screen: Screen) -> list[str]:
    verdict = word(bundle, "verdict") or Stall.UNKNOWN.value
    cell = state_cell(_TONES.get(verdict, Health.CRITICAL.value), screen)
    mark = cell.text.split(" ", 1)[0]
    where = word(document, "node")
    if word(bundle, "app"):
        where = f"app {word(bundle, 'app')} on {where}"
    who = f"process {number(bundle, 'pid') or 0:.0f}"
    if word(bundle, "name"):
        who += f" ({word(bundle, 'name')})"
    lines = [
        f"{clean(where, screen)}: {paint(f'{mark} {clean(verdict, screen)}', cell.tone, screen)}",
        f"  {clean(who, screen)}: {clean(word(bundle, 'text') or '-', screen)}",
    ]
    taken = [f"taken {word(bundle, 'at')}" if word(bundle, "at") else "taken at an unknown time"]
    if word(bundle, "why"):
        taken.append(f"because {word(bundle, 'why')}")
    pause_ns = number(bundle, "pause_ns")
    if pause_ns is not None:
        taken.append(f"stopped for {show_duration(int(pause_ns))}" if pause_ns else "without stopping the process")
    return [*lines, f"  {clean('; '.join(taken), screen)}"]


def _proof_lines(bundle: Row, screen: Screen) -> list[str]:
    details = [f"  {line}" for line in _some(texts(bundle, "details"), screen)]
    proof = row(bundle, "proof")
    if not proof:
        why = clean(word(bundle, "no_proof"), screen)
        none = [f"  no deadlock is proved: {why}"] if why else []
        return ["", paint("What was seen", "bold", screen), *details, *none] if details or none else []
    details = details or [f"  {clean(_link_text(link), screen)}" for link in rows(proof, "cycle")[:LINES_SHOWN]]
    assumed = "; ".join(texts(proof, "assumes"))
    lines = ["", paint("Proof: each waits for the next, the last for the first", "bold", screen), *details]
    return [*lines, f"  assumed: {clean(assumed, screen)}"] if assumed else lines


def _link_text(link: Row) -> str:
    lock = " ".join(filter(None, (word(link, "kind"), word(link, "address"), word(link, "symbol"))))
    waiter = f"{word(link, 'name') or '?'} ({number(link, 'tid') or 0:.0f})"
    return f"{waiter} waits for {lock}, held by {word(link, 'owner_name') or '?'} ({number(link, 'owner') or 0:.0f})"


def _thread_lines(bundle: Row, screen: Screen) -> list[str]:
    threads = rows(bundle, "threads")
    if not threads:
        return []
    total = max(len(threads), int(number(bundle, "threads_total") or 0))
    shown = threads[:THREADS_SHOWN]
    lines = ["", *Grid(_COLUMNS, screen).lines([_thread_cells(thread, screen) for thread in shown])]
    return [*lines, f"and {total - len(shown)} more threads"] if total > len(shown) else lines


def _thread_cells(thread: Row, screen: Screen) -> list[Cell]:
    waits = word(thread, "wchan")
    if word(thread, "lock"):
        waits = f"{word(thread, 'lock')} {word(thread, 'address')} of {number(thread, 'owner') or 0:.0f}"
    return [
        Cell(f"{number(thread, 'tid') or 0:.0f}"),
        Cell(clean(word(thread, "name"), screen) or "-"),
        Cell(clean(word(thread, "state"), screen) or "?"),
        Cell(show_duration(int(number(thread, "ran_ns") or 0))),
        Cell(show_duration(int(number(thread, "delayed_ns") or 0))),
        Cell(f"{number(thread, 'switches') or 0:.0f}"),
        Cell(clean(waits, screen) or "-"),
    ]


def _stack_lines(bundle: Row, screen: Screen) -> list[str]:
    stacks = rows(bundle, "stacks")
    lines: list[str] = []
    for stack in stacks[:THREADS_SHOWN]:
        tid = number(stack, "tid")
        who = f"{word(stack, 'name') or '?'} ({f'{tid:.0f}' if tid else '?'}), by {word(stack, 'by') or '?'}"
        doing = f": {word(stack, 'doing')}" if word(stack, "doing") else ""
        frames = texts(stack, "frames")
        lines += ["", clean(who + doing, screen), *(f"  {clean(frame, screen)}" for frame in frames[:FRAMES_SHOWN])]
        if len(frames) > FRAMES_SHOWN:
            lines.append(f"  and {len(frames) - FRAMES_SHOWN} more frames")
    return [*lines, "", f"and {len(stacks) - THREADS_SHOWN} more stacks"] if len(stacks) > THREADS_SHOWN else lines
