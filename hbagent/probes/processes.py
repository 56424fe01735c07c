"""Are the processes there that must be?

Read from `/proc` without help, because of what goes wrong there: a process may vanish between any two reads; one that
hangs in the kernel can hold up whoever reads its command line, so those are read last and only when the others were
not enough; and a sandbox or `hidepid` may hide all processes of other users, in which case nothing can be said. What
is dead and was not yet waited for (a zombie) is not running.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from hbagent.core.checks import ProcessCheck
from hbagent.core.messages import CheckFinished, Measure
from hbagent.core.states import Health
from hbagent.core.units import SECOND, show_duration

from .outcome import Deadline, finished, read, reason, show_bytes

PROC = "/proc"
#: The kernel keeps so much of a program's name (TASK_COMM_LEN - 1).
NAME_LENGTH = 15
#: Bytes of a command line that are searched: a Java program's class path may take most of it.
COMMAND_MAX = 32 * 1024
#: Processes whose time of the processor is kept from run to run.
KEPT_MAX = 128
#: A process started this much later than its pidfile was written is another one, with the same id. Less may be a clock
#: that was set meanwhile: the file has the wall clock's time, and the process the kernel's.
STALE_S = 60.0
#: tmpfs is empty after a boot: a file there that is older than the boot tells of a clock that was set.
VOLATILE = ("/run/", "/var/run/", "/dev/shm/")


class Process(msgspec.Struct, frozen=True, gc=False):
    """One line of `/proc/PID/stat`, as far as it is wanted."""

    pid: int
    name: str
    state: str
    #: Time of a processor that it has used, and when it was started after the boot, in clock ticks.
    ticks: int
    start: int
    rss_bytes: int


def look(check: ProcessCheck, timeout_ns: int, memory: dict[str, Any], proc: str = PROC) -> CheckFinished:
    """Count them."""
    if check.pidfile:
        return _by_pidfile(check, memory, proc)
    hidden = hides(proc)
    if hidden:
        return finished(Health.UNKNOWN, hidden, memory=memory)
    chosen, what = _choice(check, proc)
    least = max(check.least, check.most + 1)
    return _judge(check, list(find(chosen, Deadline(timeout_ns), least, proc)), what, memory)


def hides(proc: str = PROC) -> str:
    """Why processes of others cannot be seen here; "" when they can."""
    try:
        read(f"{proc}/1/stat", 64)
    except OSError as error:
        return (
            f"other users' processes are hidden from the agent (hidepid or ProtectProc): /proc/1/stat: {reason(error)}"
        )
    return ""


def parse_stat(data: bytes) -> Process:
    """Raises ValueError when it reads otherwise than the kernel writes it (proc_pid_stat(5))."""
    head, found, tail = data.rpartition(b")")
    pid, opened, name = head.partition(b" (")
    fields = tail.split()
    if not found or not opened or len(fields) < 22:
        raise ValueError(f"a process's stat reads {data[:60]!r}")
    return Process(
        pid=int(pid),
        name=name.decode(errors="replace"),
        state=fields[0].decode("ascii", "replace"),
        ticks=int(fields[11]) + int(fields[12]),
        start=int(fields[19]),
        rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
    )


def find(chosen: Callable[[Process], bool], deadline: Deadline, enough: int, proc: str = PROC) -> Iterator[Process]:
    """Processes that are `chosen`, this one apart; those stuck in the kernel only until there are `enough`."""
    stuck = []
    count = 0
    for process in everyone(proc):
        if process.state in "D":
            stuck.append(process)
        elif process.state not in "ZX" and chosen(process):
            count += 1
            yield process
        deadline.left_s("processes could not all be looked at")
    for process in stuck:
        if count < enough and chosen(process):
            count += 1
            yield process


def everyone(proc: str = PROC) -> Iterator[Process]:
    """All processes but this one, by id."""
    own = os.getpid()
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdecimal()):
        if pid != own:
            try:
                yield parse_stat(read(f"{proc}/{pid}/stat", 4096))
            except (FileNotFoundError, ProcessLookupError):  # it ended
                continue


def _choice(check: ProcessCheck, proc: str) -> tuple[Callable[[Process], bool], str]:
    if check.process:
        name = check.process
        # The rest of a longer name is in the command line only.
        if len(name.encode()) <= NAME_LENGTH:
            return lambda process: process.name == name, name
        begin = name.encode()[:NAME_LENGTH].decode(errors="replace")
        return (
            lambda process: (
                process.name == begin and name in (os.path.basename(word) for word in command(process.pid, proc)[:2])
            ),
            name,
        )
    if check.cmdline:
        pattern = re.compile(check.cmdline)
        return lambda process: pattern.search(" ".join(command(process.pid, proc))) is not None, check.cmdline
    if check.unit:
        unit = unit_name(check.unit)
        return lambda process: unit in control_group(process.pid, proc), unit
    raise ValueError("a process check needs one of process, pidfile, cmdline and unit")


def unit_name(name: str) -> str:
    """A unit's full name: "nginx" is "nginx.service"."""
    return name if "." in name else f"{name}.service"


def command(pid: int, proc: str = PROC) -> list[str]:
    """Its command line, word by word; empty for a kernel thread or when it has ended."""
    try:
        words = read(f"{proc}/{pid}/cmdline", COMMAND_MAX).decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return words[:-1] if words[-1] == "" else words


def control_group(pid: int, proc: str = PROC) -> list[str]:
    """The names on its control groups' paths, among them its systemd unit."""
    try:
        lines = read(f"{proc}/{pid}/cgroup", 1 << 16).decode(errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [name for line in lines for name in line.partition(":")[2].partition(":")[2].split("/")]


def _by_pidfile(check: ProcessCheck, memory: dict[str, Any], proc: str) -> CheckFinished:
    try:
        process = of_pidfile(check.pidfile, proc)
    except Missing as error:
        return finished(error.health, str(error), [_count(check, 0)] if error.counted else [])
    return _judge(check, [process], f"{process.name} of {check.pidfile}", memory)


class Missing(Exception):
    """The process that a file names is not there; the text says why. `counted`: so much is sure."""

    def __init__(self, text: str, health: Health = Health.CRITICAL, counted: bool = True) -> None:
        super().__init__(text)
        self.health = health
        self.counted = counted


def of_pidfile(path: str, proc: str = PROC) -> Process:
    """The living process that a file names. Raises Missing, also when it was started after the file was written."""
    try:
        data = read(path, 64)
        written = os.stat(path).st_mtime
    except FileNotFoundError:
        raise Missing(f"{path} does not exist") from None
    words = data.split()
    if not words or not words[0].isdigit() or not 0 < int(words[0]) < 1 << 31:
        raise Missing(f"{path} holds no process id: {data[:32].decode(errors='replace')!r}", counted=False)
    pid = int(words[0])
    try:
        process = parse_stat(read(f"{proc}/{pid}/stat", 4096))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        if _exists(pid):
            text = f"process {pid} exists, and is hidden from the agent: it may be another one"
            raise Missing(text, Health.UNKNOWN, counted=False) from None
        raise Missing(f"process {pid} of {path} is not running") from None
    if process.state in "ZX":
        raise Missing(f"process {pid} of {path} is dead (a zombie)")
    later = _started_later_s(process, path, written)
    if later > STALE_S:
        text = f"{path} is stale: process {pid} ({process.name}) was started {show_duration(int(later * SECOND))} later"
        raise Missing(text, counted=False)
    return process


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started_later_s(process: Process, path: str, written: float) -> float:
    """How many seconds after the writing of its pidfile a process was started; 0 when that cannot be told."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    if written < booted and os.path.realpath(path).startswith(VOLATILE):
        return 0.0
    return booted + process.start / os.sysconf("SC_CLK_TCK") - written


def _judge(check: ProcessCheck, found: list[Process], what: str, memory: dict[str, Any]) -> CheckFinished:
    count = len(found)
    cpu, kept = _cpu(found, memory)
    rss = sum(process.rss_bytes for process in found)
    measures = [_count(check, count), Measure(label="rss", value=rss, unit="B", least=0)]
    if cpu is not None:
        measures.append(Measure(label="cpu", value=round(cpu, 1), unit="%", least=0))
    states = _states(found)
    if count < check.least:
        health, text = Health.CRITICAL, f"{count} running of {what}, {check.least} wanted"
    elif 0 < check.most < count:
        health, text = Health.CRITICAL, f"{count} running of {what}, at most {check.most} wanted"
    elif found and all(process.state in "Tt" for process in found):
        health, text = Health.WARNING, f"{count} of {what}, and stopped"
    else:
        health, text = Health.OK, f"{count} running of {what}{states}, {show_bytes(rss)}"
    if count == 1:
        text += f" (process {found[0].pid})"
    return finished(health, text, measures, kept)


def _states(found: Iterable[Process]) -> str:
    counts: dict[str, int] = {}
    for process in found:
        word = {"D": "in the kernel", "T": "stopped", "t": "stopped"}.get(process.state)
        if word:
            counts[word] = counts.get(word, 0) + 1
    return "".join(f", {count} {word}" for word, count in counts.items())


def _cpu(found: list[Process], memory: dict[str, Any]) -> tuple[float | None, dict[str, Any]]:
    """Per cent of one processor since the last run, of the processes that were there then and are now."""
    now = time.monotonic_ns()
    ticks = {f"{process.pid} {process.start}": process.ticks for process in found[:KEPT_MAX]}
    kept = {"at_ns": now, "ticks": ticks}
    before, at_ns = memory.get("ticks"), memory.get("at_ns")
    if not isinstance(before, dict) or not isinstance(at_ns, int) or now <= at_ns:
        return None, kept
    same = [count - before[key] for key, count in ticks.items() if key in before]
    if not same:
        return None, kept
    return 100 * sum(same) / os.sysconf("SC_CLK_TCK") / ((now - at_ns) / SECOND), kept


def _count(check: ProcessCheck, count: int) -> Measure:
    wanted = f"{check.least}:{check.most or ''}"
    return Measure(label="count", value=count, critical=wanted, least=0)
