"""What the prober's hands can do, by name: the one place where the probes, the diagnosis and the store meet.

Everything here runs in a hand (`offspring.hands`) and imports what it needs when it is called, so that neither the
prober nor a hand that only looks at a file ever loads the code for TLS or psutil. What it takes and gives are the
orders and results of `core`; where an order does not hold everything, a struct here adds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from hbagent.core.checks import ExecCheck
from hbagent.core.drill import LENGTH_NS, WARM_UP_NS, WINDOW_NS
from hbagent.core.effects import AskUnit, Examine, LookForBundles, Recall, Remember, RestartUnit, RunCheck, StartDrill
from hbagent.core.messages import (
    DETAILS_MAX,
    Acted,
    BundlesGone,
    CheckFinished,
    Examined,
    HostFacts,
    Recalled,
    Remembered,
    UnitAnswered,
    Vitals,
)
from hbagent.core.states import Stall
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.offspring.hands import Job

#: What a check gets beyond its time limit to say for itself that it ran out of it, before its hand is killed: ending
#: a tree of processes takes up to 200 ms.
ALLOWANCE_NS = 500 * MILLISECOND
#: A host whose disks hang must not keep a hand longer than this for its facts.
FACTS_NS = 5 * SECOND
#: Two looks at least a second apart, and the reads around them; after a helper that gave no answer.
EXAMINE_NS = 7 * SECOND
#: Time to ask systemd for the main process of a unit.
FIND_NS = 500 * MILLISECOND
#: Time for systemd to learn that a process has ended, and to say so; a hand that takes longer is killed.
ENDING_NS = 2 * SECOND
#: A disk that takes longer than this is none to keep anything on.
DISK_NS = 5 * SECOND
#: systemd gives a unit 90 s to stop, and as long to start.
RESTART_NS = 200 * SECOND


class FactsOrder(msgspec.Struct, frozen=True):
    """Read the host's facts; processor times of the last reading, for what happened since."""

    busy_s: float | None = None
    total_s: float | None = None


class FactsRead(msgspec.Struct, frozen=True):
    """The facts, and what the next `FactsOrder` needs."""

    facts: HostFacts
    next: FactsOrder


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where evidence and memory are kept, and who reads what this user may not; from `ProberConfig`."""

    state_dir: str = ""
    bundles_max: int = 20
    bundles_age_ns: int = 0
    helper: str = ""


class ExamineOrder(msgspec.Struct, frozen=True):
    """Examine and store the evidence; a file of the process's own stacks may come along."""

    order: Examine
    place: Place


class RecallOrder(msgspec.Struct, frozen=True):
    """Read a bundle."""

    order: Recall
    place: Place


class LookOrder(msgspec.Struct, frozen=True):
    """Say which bundles are gone."""

    order: LookForBundles
    place: Place


class RememberOrder(msgspec.Struct, frozen=True):
    """Keep a state on disk."""

    order: Remember
    place: Place


class ExportOrder(msgspec.Struct, frozen=True):
    """Write all that the prober knows to the file that node_exporter reads."""

    vitals: Vitals
    path: str
    node: str


class DrillOrder(msgspec.Struct, frozen=True):
    """Run a drill that reports at `notify`."""

    order: StartDrill
    notify: str


class Done(msgspec.Struct, frozen=True):
    """It was done."""


def check(order: RunCheck, files: Sequence[int]) -> CheckFinished:
    """Look at one thing."""
    if isinstance(order.check, ExecCheck):
        from hbagent.probes import program

        finished = program.look(order.check, order.timeout_ns, order.memory)
    else:
        from hbagent.probes import check as native

        finished = native.run(order.check, order.timeout_ns, order.memory)
    return msgspec.structs.replace(finished, run=order.run)


def facts(order: FactsOrder, files: Sequence[int]) -> FactsRead:
    """Read the host's facts."""
    from hbagent.probes.facts import State, take

    taken, state = take(State(order.busy_s, order.total_s))
    return FactsRead(taken, FactsOrder(state.busy_s, state.total_s))


def examine(order: ExamineOrder, files: Sequence[int]) -> Examined:
    """Find out what a process is doing, and store the evidence."""
    import functools

    from hbagent.diagnosis import examination

    place = order.place
    try:
        spared = frozenset(order.order.spared)
        keep = functools.partial(_shelf(place).put, spared=spared) if place.state_dir else None
        found = examination.examine(_found(order.order), place.helper, files, keep)
    except Exception as error:
        told = str(error) or type(error).__name__
        return Examined(run=order.order.run, stall=Stall.UNKNOWN, error=f"it cannot be examined: {told}"[:500])
    if not found.error:
        return found
    # Whoever reads what was found must not look for evidence that is not there.
    return msgspec.structs.replace(found, details=(*found.details[: DETAILS_MAX - 1], found.error[:500]))


def _found(order: Examine) -> Examine:
    """With the process that a file or a unit names, where the order names none. Raises with why there is none."""
    from hbagent.probes import processes, units

    if order.pid:
        return order
    if order.pidfile:
        process = processes.of_pidfile(order.pidfile)
        return msgspec.structs.replace(order, pid=process.pid, start=process.start)
    return msgspec.structs.replace(order, pid=units.main_process(order.unit, FIND_NS))


def _shelf(place: Place) -> Any:
    from pathlib import Path

    from hbagent.store.evidence import Shelf

    return Shelf(Path(place.state_dir, "evidence"), place.bundles_max, place.bundles_age_ns)


def recall(order: RecallOrder, files: Sequence[int]) -> Recalled:
    """Read an evidence bundle."""
    from hbagent.store.evidence import NoBundle

    number, place = order.order.number, order.place
    if not place.state_dir:
        return Recalled(number=number, error="no evidence is kept: state_dir is not set")
    try:
        _, body = _shelf(place).read(order.order.app, order.order.bundle)
    except (NoBundle, OSError) as error:
        return Recalled(number=number, error=str(error)[:500])
    return Recalled(number=number, body=body)


def gone(order: LookOrder, files: Sequence[int]) -> BundlesGone:
    """Look which bundles are not there any more. Raises OSError."""
    if not order.place.state_dir:
        return BundlesGone()
    return BundlesGone(_shelf(order.place).gone(order.order.numbers))


def remember(order: RememberOrder, files: Sequence[int]) -> Done:
    """Keep a state on disk, in place of the one before; a crash leaves either. Raises OSError."""
    import os
    from pathlib import Path

    from hbagent.store.durable import sync_directory, write_all

    path = _memory(order.place)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(f"{path}.draft")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        write_all(fd, msgspec.json.encode(order.order.state))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(draft, path)
    sync_directory(path.parent)
    return Done()


def restore(order: Place, files: Sequence[int]) -> Remembered:
    """What was remembered last; empty when there is none, or it is damaged: then it is set aside."""
    from hbagent.store.quarantine import is_usable, set_aside

    path = _memory(order)
    try:
        if not is_usable(path):
            set_aside(path)
        return Remembered(state=msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
    except FileNotFoundError:
        return Remembered()
    except msgspec.MsgspecError:
        set_aside(path)
        return Remembered()


def _memory(place: Place) -> Any:
    from pathlib import Path

    return Path(place.state_dir, "prober.json")


def restart(order: RestartUnit, files: Sequence[int]) -> Acted:
    """Have systemd restart a unit."""
    from hbagent.probes import units

    return Acted(run=order.run, error=units.restart(order.unit))


def ending(order: AskUnit, files: Sequence[int]) -> UnitAnswered:
    """Ask systemd how a process of a unit has ended."""
    from hbagent.probes import units

    stopped, text = units.ending(order.unit, order.pid, order.start, ENDING_NS)
    return UnitAnswered(run=order.run, stopped=stopped, text=text)


def export(order: ExportOrder, files: Sequence[int]) -> Done:
    """Write the metrics. Raises OSError."""
    import time
    from pathlib import Path

    from hbagent.core.agentmetrics import render
    from hbagent.store.textfile import replace_text

    replace_text(Path(order.path), render(order.vitals, order.node, time.time_ns()))
    return Done()


def drill(order: DrillOrder, files: Sequence[int]) -> Done:
    """Run a drill to its end. Whatever is left of it then dies with this job."""
    import subprocess
    import sys

    wanted = order.order
    command = [
        *(sys.executable, "-m", "hbagent.demo.victim", "--drill", wanted.drill, "--app", wanted.app),
        *("--after", f"{WARM_UP_NS / SECOND:g}", "--for", f"{LENGTH_NS / SECOND:g}"),
        *("--window", f"{WINDOW_NS / SECOND:g}"),
    ]
    quiet = subprocess.DEVNULL
    subprocess.run(
        command, env={"NOTIFY_SOCKET": order.notify}, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/", check=False
    )
    return Done()


JOBS: dict[str, Job] = {
    "check": Job(check, RunCheck, CheckFinished),
    "facts": Job(facts, FactsOrder, FactsRead),
    "examine": Job(examine, ExamineOrder, Examined),
    "recall": Job(recall, RecallOrder, Recalled),
    "gone": Job(gone, LookOrder, BundlesGone),
    "remember": Job(remember, RememberOrder, Done),
    "restore": Job(restore, Place, Remembered),
    "restart": Job(restart, RestartUnit, Acted),
    "ending": Job(ending, AskUnit, UnitAnswered),
    "export": Job(export, ExportOrder, Done),
    "drill": Job(drill, DrillOrder, Done),
}


def limit_ns(job: str, order: Any) -> int:
    """When the hand that does this job is killed, at the latest."""
    if isinstance(order, RunCheck):
        return order.timeout_ns + ALLOWANCE_NS
    limits = {"facts": FACTS_NS, "examine": EXAMINE_NS, "restart": RESTART_NS, "ending": ENDING_NS + SECOND}
    return {**limits, "drill": LENGTH_NS + DISK_NS}.get(job, DISK_NS)
