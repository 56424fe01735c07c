"""`hbagent diagnose PID`: what a process is doing, found from outside; a deadlock only with its proof.

Everything is read in a process apart, for reading about a process can hang as the process itself does. The exit code
is that of a check: 0 nothing is wrong with it, 1 WARNING, 2 stuck, 3 UNKNOWN.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec

from hbagent.core.proof import Proof
from hbagent.core.states import Stall
from hbagent.core.units import MILLISECOND, show_duration
from hbagent.diagnosis import helper
from hbagent.diagnosis.examination import investigate
from hbagent.diagnosis.examine import Findings, ThreadRow

from . import EXIT_USAGE, terminal
from .grid import Cell, Column, Grid, Screen, clean, paint
from .render import as_json

#: Largest process id that Linux gives (PID_MAX_LIMIT).
PID_MAX = 1 << 22
#: Threads that the table shows, and frames of each stack; json has more.
_ROWS = 20
_FRAMES = 4

_EXIT_CODES = {
    **dict.fromkeys((Stall.RUNNING, Stall.IDLE), 0),
    **dict.fromkeys((Stall.STARVED, Stall.SLOW), 1),
    **dict.fromkeys((Stall.DEADLOCKED, Stall.LOCK_WAIT, Stall.BUSY_LOOP, Stall.IO_BLOCKED, Stall.PAUSED), 2),
    Stall.UNKNOWN: 3,
}
_TONES = {0: "good", 1: "warn", 2: "bad", 3: "unknown"}
#: What json has beside the findings.
_AROUND = (
    "stacks",
    "process",
    "files",
    "sockets",
    "limits",
    "host",
    "io",
    "locks",
    "kernel_stacks",
    "left_out",
    "pause_ns",
)
_COLUMNS = (
    Column("TID", right=True),
    Column("THREAD"),
    Column("STATE"),
    Column("RAN", 1, right=True),
    Column("WAITED FOR CPU", 3, right=True),
    Column("SWITCHES", 2, right=True),
    Column("WAITS FOR", cut=True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pid", metavar="PID", type=_pid, nargs="?", help="id of any process of this host")
    parser.add_argument(
        "--stuck",
        action="store_true",
        help="it should move and does not: waiting for a lock or burning CPU then is an illness",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="answer the one request of the connection on standard input, as hbagent-diagnose.socket starts it",
    )
    parser.add_argument(
        "--serve-group",
        metavar="GROUP",
        default=helper.GROUP,
        help="with --serve: whose members' requests are answered, beside root's (default %(default)s)",
    )
    terminal.add_output_arguments(parser, ("table", "json"))


def _pid(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= PID_MAX or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no process id")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Examine and print. Returns the exit code of the verdict."""
    if args.serve:
        return serve(args.serve_group)
    if args.pid is None:
        print("hbagent diagnose: of which process? Give its PID", file=sys.stderr)
        return EXIT_USAGE
    sys.stdout.flush()
    whole = investigate(helper.Request(pid=args.pid, stuck=args.stuck))
    findings = msgspec.convert(whole, Findings)
    if args.output == "json":
        around = {name: value for name, value in whole.items() if name in _AROUND}
        print(as_json({**document(findings), **around}))
    else:
        screen = terminal.screen(args)
        print("\n".join([*table_lines(findings, screen), *stack_lines(whole["stacks"], screen)]))
    return _EXIT_CODES[findings.verdict]


def serve(group: str) -> int:
    """Be the privileged helper for one request."""
    try:
        link = helper.passed_connection()
    except helper.HelperError as error:
        print(f"hbagent diagnose: {error}", file=sys.stderr)
        return EXIT_USAGE
    refusal = helper.serve(link, helper.served_groups(group), lambda request: investigate(request, stop=False))
    if refusal:
        print(f"hbagent diagnose: {refusal}", file=sys.stderr)
    return 1 if refusal else 0


def document(findings: Findings) -> dict[str, Any]:
    """The findings as they are told to programs."""
    return {
        "schema": 1,
        "pid": findings.pid,
        "name": findings.name,
        "verdict": findings.verdict.value,
        "text": findings.text,
        "stuck": findings.stuck,
        "details": list(findings.details),
        "proof": _proof(findings.proof),
        "no_proof": findings.no_proof,
        "threads_total": findings.threads_total,
        "threads": [_thread(row) for row in findings.threads],
        "looks": [
            {
                "duration_ms": _milliseconds(row.duration_ns),
                "proof_ms": _milliseconds(row.proof_ns),
                "threads": row.threads,
                "cycles": row.cycles,
                "raced": row.raced,
            }
            for row in findings.looks
        ],
        "group": findings.group,
        "queues": list(findings.queues),
    }


def _proof(proof: Proof | None) -> dict[str, Any] | None:
    if proof is None:
        return None
    told: dict[str, Any] = msgspec.to_builtins(proof)
    apart_ns = told.pop("apart_ns")
    return {**told, "apart_ms": _milliseconds(apart_ns)}


def _thread(row: ThreadRow) -> dict[str, Any]:
    return {
        "tid": row.tid,
        "name": row.name,
        "state": row.state,
        "wchan": row.wchan,
        "syscall": row.call,
        "still": row.still,
        "switches": row.switches,
        "ran_ms": _milliseconds(row.ran_ns),
        "delayed_ms": _milliseconds(row.delayed_ns),
        "waits_for": {"kind": row.lock, "address": row.address, "owner": row.owner} if row.lock else None,
    }


def _milliseconds(value_ns: int) -> float:
    return round(value_ns / MILLISECOND, 3)


def table_lines(findings: Findings, screen: Screen) -> list[str]:
    """The findings for a reader: the verdict, what it rests on, the threads."""
    tone = _TONES[_EXIT_CODES[findings.verdict]]
    name = f" ({clean(findings.name, screen)})" if findings.name else ""
    lines = [
        f"{paint(findings.verdict.value, tone, screen)}: process {findings.pid}{name}: {clean(findings.text, screen)}"
    ]
    lines += [f"  {clean(line, screen)}" for line in findings.details]
    if findings.proof is not None:
        lines.append(f"  assumed: {'; '.join(findings.proof.assumes)}")
    elif findings.no_proof and findings.verdict is not Stall.UNKNOWN:
        lines.append(f"  {clean(findings.no_proof, screen)}")
    if findings.threads:
        shown = findings.threads[:_ROWS]
        lines += ["", *Grid(_COLUMNS, screen).lines([_cells(row, screen) for row in shown])]
        if findings.threads_total > len(shown):
            lines.append(f"and {findings.threads_total - len(shown)} more threads")
    return lines


def stack_lines(stacks: list[dict[str, Any]], screen: Screen) -> list[str]:
    """What a language's own runtime told of its threads, the top of each stack."""
    lines = []
    for row in stacks[:_ROWS]:
        lines += ["", clean(f"{row['name']} ({row['tid'] or '?'}), by {row['by']}: {row['doing']}", screen)]
        lines += [f"  {clean(frame, screen)}" for frame in row["frames"][:_FRAMES]]
    if len(stacks) > _ROWS:
        lines += ["", f"and {len(stacks) - _ROWS} more stacks"]
    return lines


def _cells(row: ThreadRow, screen: Screen) -> list[Cell]:
    waits = f"{row.lock} {row.address} of {row.owner}" if row.lock else row.wchan
    return [
        Cell(str(row.tid)),
        Cell(clean(row.name, screen)),
        Cell(row.state),
        Cell(show_duration(row.ran_ns)),
        Cell(show_duration(row.delayed_ns)),
        Cell(str(row.switches)),
        Cell(clean(waits, screen)),
    ]
