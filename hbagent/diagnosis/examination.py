"""One examination with all that belongs to it: the two looks, the evidence around them, the bundle that is kept.

Everything that may hang happens in processes that can be given up, one within the other: the looks in one, what stands
around the process in another. Whatever becomes of them, there is a document at the end, and it says what is missing.

Where this user may not look, and a helper is there, the helper examines; this process then only adds what the
application handed over, and keeps the bundle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from hbagent.core.diagnosis import Look, cycle_lines
from hbagent.core.effects import Examine
from hbagent.core.messages import DETAILS_MAX, Examined
from hbagent.core.states import Stall
from hbagent.core.units import MILLISECOND

from . import apart, circumstances, procfs, stacks
from .bundle import document, fit, stack_rows
from .circumstances import Told
from .examine import Findings, Subject
from .examine import examine as look_twice
from .helper import HelperError, Request, ask_helper

#: Files, sockets and the rest, between the two looks: 20 ms for most, the rest for a host that swaps.
TELL_NS = 500 * MILLISECOND
#: Python stacks, between the two looks: py-spy takes 20 ms for 100 threads.
PYTHON_S = 0.4
#: A JVM's thread dump, after the second look: 2 ms, and 250 ms for the first that it ever makes.
JVM_S = 0.8
#: py-spy with the process stopped, after the second look.
STOPPED_S = 0.25
#: What is handed on before it is cut to a bundle; 256 stacks of 64 frames could be 4 MB.
WHOLE_MAX = 512 << 10
#: The looks, what is between them and what comes after; then the process that does it is given up.
ALL_NS = 2800 * MILLISECOND
#: The helper does the same, and has to be started first: 0.3 s.
HELPER_S = 3.2

#: Keeps a bundle about an application; its name.
Keep = Callable[[str, bytes], str]


def examine(order: Examine, helper: str, files: Sequence[int], keep: Keep | None) -> Examined:
    """Examine a process and keep the evidence. `helper` is the socket of the privileged helper, "" for none; `files`
    may hold the memory file with the application's own stacks. Never raises for what the process or host does."""
    request = Request(pid=order.pid, start=order.start, stuck=order.stuck, app=order.app, why=order.why)
    whole = investigate_with(request, helper)
    for fd in files[:1]:
        own = stacks.own_stacks(fd)
        whole["stacks"] = [*stack_rows(own), *whole.get("stacks", ())]
        whole["said"] = list(own.said)
        if own.error:
            whole["left_out"] = [*whole.get("left_out", ()), f"its own stacks: {own.error}"]
    name, error = "", ""
    if keep is not None:
        try:
            name = keep(order.app, fit(whole))
        except (OSError, ValueError) as problem:
            error = f"the evidence could not be kept: {problem}"
    return Examined(
        run=order.run,
        stall=Stall(whole["verdict"]),
        text=whole["text"],
        details=tuple(whole["details"])[:DETAILS_MAX],
        bundle=name,
        pause_ns=whole["pause_ns"],
        error=error,
    )


def investigate_with(request: Request, helper: str) -> dict[str, Any]:
    """The document about a process: by ourselves where we may look, else by the helper, else as far as we may."""
    note = ""
    if helper and not may_look(request.pid):
        try:
            return ask_helper(helper, request, HELPER_S)
        except HelperError as error:
            note = f"the helper: {error}"
    whole = investigate(request)
    if note:
        whole["left_out"] = [*whole["left_out"], note]
    return whole


def may_look(pid: int) -> bool:
    """Whether this process may see what matters of another; also True when that one is gone."""
    try:
        with procfs.Process(pid) as process:
            process.read("syscall")
    except procfs.Denied:
        return False
    except procfs.ProcError:
        return True
    return True


def investigate(request: Request, stop: bool = True) -> dict[str, Any]:
    """The document about a process, by our own rights. With `stop` reads that stop it are allowed, at the end.

    Returns after `ALL_NS` and some, whatever hangs. Call it in a process with one thread.
    """
    outcome = apart.run(lambda: fit(_investigated(request, stop), WHOLE_MAX), ALL_NS)
    if not outcome.error:
        whole: dict[str, Any] = msgspec.json.decode(outcome.answer)
        return whole
    # What hung was reading its memory, or its last read; what needs neither is told all the same.
    findings = Findings(
        pid=request.pid,
        start=request.start,
        stuck=request.stuck,
        verdict=Stall.UNKNOWN,
        text=f"looking at it failed: {outcome.error}",
    )
    begun_ns = time.monotonic_ns()
    told = circumstances.tell(request.pid, request.start, TELL_NS)
    return _document(request, findings, told, [], time.monotonic_ns() - begun_ns)


def _investigated(request: Request, stop: bool) -> dict[str, Any]:
    told, sources, took_ns = Told(), [], 0
    first: Look

    def between(subject: Subject, look: Look) -> None:
        nonlocal told, took_ns, first
        first = look
        begun_ns = time.monotonic_ns()
        told = circumstances.tell(subject.pid, subject.start, TELL_NS)
        if told.sections.get("runtime") == "python":
            sources.append(stacks.python_stacks(subject.pid, PYTHON_S))
        took_ns += time.monotonic_ns() - begun_ns

    def last(subject: Subject, findings: Findings) -> None:
        nonlocal took_ns
        begun_ns = time.monotonic_ns()
        _add_transfers(told, subject)
        runtime = told.sections.get("runtime")
        if runtime == "jvm" and not stop:
            told.left_out.append("stacks by jvm: to ask it would stop it, which the helper has no right to")
        if stop and _can_be_stopped(findings):
            if runtime == "jvm" and (request.stuck or findings.verdict is not Stall.RUNNING):
                source = stacks.jvm_stacks(subject.pid, JVM_S)
                if source.proof is not None and not stacks.stood_still(subject.process, source.proof, first):
                    source = msgspec.structs.replace(source, proof=None)
                sources.append(source)
            elif runtime == "python" and request.stuck and sources[-1].error and stacks.find_py_spy():
                sources[-1] = stacks.python_stacks(subject.pid, STOPPED_S, stop=True)
        took_ns += time.monotonic_ns() - begun_ns

    findings = look_twice(request.pid, stuck=request.stuck, start=request.start, between=between, last=last)
    took_ns += sum(row.duration_ns for row in findings.looks)
    for source in sources:
        findings = with_its_word(findings, source)
    return _document(request, findings, told, sources, took_ns)


def _document(
    request: Request, findings: Findings, told: Told, sources: Sequence[stacks.Stacks], took_ns: int
) -> dict[str, Any]:
    return document(findings, told, sources, wall_ns=time.time_ns(), took_ns=took_ns, app=request.app, why=request.why)


def _can_be_stopped(findings: Findings) -> bool:
    """Not what is stopped already, and not what waits in the kernel: it would stop when it comes back, long after
    the tracer has gone."""
    if findings.verdict in (Stall.PAUSED, Stall.IO_BLOCKED) or not findings.threads:
        return False
    return not any(row.state in "DTt" for row in findings.threads)


def _add_transfers(told: Told, subject: Subject) -> None:
    """What the process has read and written since the first look."""
    before = told.sections.get("io")
    if before:
        after = circumstances.tell(subject.pid, subject.start, TELL_NS // 5, (("io", circumstances.io),)).sections.get(
            "io", {}
        )
        told.sections["io"] = {"total": before, "since": {k: after[k] - v for k, v in before.items() if k in after}}


def with_its_word(findings: Findings, source: stacks.Stacks) -> Findings:
    """The findings, with a deadlock that a runtime names itself where none was proved."""
    if source.proof is None or findings.verdict is Stall.DEADLOCKED:
        return findings
    count = len(source.proof.cycle)
    lines = (*cycle_lines(source.proof), *findings.queues)
    return msgspec.structs.replace(
        findings,
        verdict=Stall.DEADLOCKED,
        text=f"the JVM says that {count} of its threads wait for one another in a cycle",
        details=lines[:DETAILS_MAX],
        proof=source.proof,
    )
