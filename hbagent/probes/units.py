"""What systemd says of a unit, asked by `systemctl`.

A program of its own rather than a bus: it speaks to whichever bus or socket this host has, and its text is made for
programs (`systemctl show`). A unit that systemd starts again and again looks active at nearly every moment; the
counter of its restarts tells.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import Any

from hbagent.core.checks import UnitCheck
from hbagent.core.messages import CheckFinished, Measure
from hbagent.core.states import Health
from hbagent.core.units import MICROSECOND, MILLISECOND, SECOND, show_duration

from .outcome import Deadline, OutOfTime, clean, counted, finished, show_bytes
from .processes import unit_name

#: There exactly while systemd is the init system (sd_booted(3)).
BOOTED = "/run/systemd/system"
SYSTEMCTL = "systemctl"
#: systemd gives a unit 90 s to stop before it kills it, and as long to start.
RESTART_NS = 190 * SECOND
#: systemd.unit(5): letters, digits, and these.
_NAME = re.compile(r"(?!\.)[A-Za-z0-9:_.\\@-]{1,255}")
_PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "Result", "Type", "MainPID", "NRestarts", "ExecMainStatus"),
    *("MemoryCurrent", "NeedDaemonReload"),
)
_OF_AN_END = (
    *("ActiveState", "SubState", "Result", "MainPID", "NRestarts", "ExecMainStatus", "ExecMainPID"),
    "ExecMainStartTimestampMonotonic",
)
#: For a process that has ended, while systemd does not know that yet.
ASK_AGAIN_NS = 100 * MILLISECOND
#: What a service's end is called when nothing went wrong.
GOOD_END = "success"


class Unanswered(Exception):
    """systemctl did not do what it was asked; the text is what it said."""


def look(check: UnitCheck, timeout_ns: int, memory: dict[str, Any], booted: str = BOOTED) -> CheckFinished:
    """Ask for one unit."""
    if not os.path.isdir(booted):
        return finished(Health.UNKNOWN, "systemd does not run on this host")
    deadline = Deadline(timeout_ns)
    unit = checked_name(check.unit)
    try:
        said = ask(["show", f"--property={','.join(_PROPERTIES)}", "--", unit], deadline)
    except Unanswered as error:
        return finished(Health.UNKNOWN, str(error), memory=memory)
    return judge(unit, parse(said), memory)


def parse(said: str) -> dict[str, str]:
    """Properties by name."""
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def judge(unit: str, told: dict[str, str], memory: dict[str, Any]) -> CheckFinished:
    """What its properties mean."""
    active, sub, load = told.get("ActiveState", ""), told.get("SubState", ""), told.get("LoadState", "")
    if not active:
        return finished(Health.UNKNOWN, f"systemctl says nothing of {unit}", memory=memory)
    measures = []
    restarts = _number(told.get("NRestarts"))
    if restarts is not None:
        measures.append(Measure(label="restarts", value=restarts, unit="c", least=0))
    rss = _number(told.get("MemoryCurrent"))
    if rss is not None:
        measures.append(Measure(label="memory", value=rss, unit="B", least=0))
    kept = {} if restarts is None else {"restarts": restarts}
    state = f"{unit} is {active} ({sub})"
    end = told.get("Result", "")
    if end not in ("", GOOD_END):
        state += f", {end}"
        if end == "exit-code":
            state += f" {told.get('ExecMainStatus', '?')}"
    if load == "not-found":
        return finished(Health.CRITICAL, f"{unit} does not exist on this host", measures, kept)
    if load != "loaded":
        return finished(Health.CRITICAL, f"{unit} is {load}", measures, kept)
    again = (restarts or 0) - memory.get("restarts", restarts or 0)
    if sub == "auto-restart":
        health = Health.CRITICAL
    elif active in ("active", "reloading", "refreshing"):
        health = Health.WARNING if again > 0 else Health.OK
    elif active in ("activating", "deactivating", "maintenance"):
        health = Health.WARNING
    elif active == "inactive" and told.get("Type") == "oneshot" and end == GOOD_END:
        # It has done its work and ended, as it should.
        health = Health.OK
    else:
        health = Health.CRITICAL
    if again > 0:
        state += f", restarted {counted(again, 'time')} since the last look"
    if rss is not None and health is Health.OK:
        state += f", {show_bytes(rss)}"
    return finished(health, state, measures, kept)


def failed_units(deadline: Deadline) -> list[str]:
    """Names of all units in the state failed. Raises Unanswered."""
    said = ask(["list-units", "--state=failed", "--all", "--plain", "--no-legend", "--full"], deadline)
    return [line.split()[0] for line in said.splitlines() if line.strip()]


def main_process(unit: str, timeout_ns: int) -> int:
    """Process id of a unit's main process. Raises Unanswered, also for a unit that has none, and ValueError."""
    told = parse(ask(["show", "--property=MainPID,ActiveState", "--", checked_name(unit)], Deadline(timeout_ns)))
    pid = _number(told.get("MainPID"))
    if not pid:
        raise Unanswered(f"{unit} has no main process; it is {told.get('ActiveState') or 'not known'}")
    return pid


def ending(unit: str, pid: int, start: int, timeout_ns: int) -> tuple[bool | None, str]:
    """Whether a process of a unit was stopped on purpose, or why it failed; None: that cannot be told.

    The process has ended just now, so systemd may not know it yet: it is asked again for a while.
    """
    deadline = Deadline(timeout_ns)
    try:
        full = checked_name(unit)
        while True:
            told = parse(ask(["show", f"--property={','.join(_OF_AN_END)}", "--", full], deadline))
            stopped, text = judge_end(full, told, pid, start)
            if stopped is not None or not _is_main(told, pid):
                return stopped, text
            time.sleep(min(ASK_AGAIN_NS / SECOND, deadline.left_s("systemd still says that it runs")))
    except (Unanswered, OutOfTime, ValueError, OSError):
        return None, ""


def judge_end(unit: str, told: dict[str, str], pid: int, start: int) -> tuple[bool | None, str]:
    """The same of what systemd says at one moment."""
    active, end = told.get("ActiveState", ""), told.get("Result", "")
    if not active or not end:
        return None, ""
    if end != GOOD_END:
        status = f" {told.get('ExecMainStatus', '?')}" if end in ("exit-code", "signal", "core-dump") else ""
        return False, f"its process is gone, and {unit} has failed: {end}{status}"
    if active in ("inactive", "deactivating") or told.get("SubState") == "auto-restart":
        return True, ""
    if told.get("NRestarts", "0") != "0" or _is_main(told, pid):
        # systemd has started it anew by itself, and says no more why; or it does not know yet that it has ended.
        return None, ""
    # Somebody has it started again, when what runs there now is younger than what has ended.
    since_us = _number(told.get("ExecMainStartTimestampMonotonic")) or 0
    age_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - start * (SECOND // os.sysconf("SC_CLK_TCK"))
    anew = time.monotonic_ns() - since_us * MICROSECOND < age_ns
    return (True if anew and start else None), ""


def _is_main(told: dict[str, str], pid: int) -> bool:
    return str(pid) in (told.get("MainPID"), told.get("ExecMainPID"))


def restart(unit: str, timeout_ns: int = RESTART_NS) -> str:
    """Have systemd restart a unit and wait until it has; why it did not, or "".

    At the time limit the restart goes on without us, and that is told as an error.
    """
    try:
        deadline = Deadline(timeout_ns)
        ask(["restart", "--no-ask-password", "--", checked_name(unit)], deadline)
    except (Unanswered, ValueError) as error:
        return clean(str(error))
    except OSError as error:
        return clean(f"systemctl: {error}")
    return ""


def checked_name(name: str) -> str:
    """Its full name. Raises ValueError for what no unit can be called."""
    full = unit_name(name)
    if not _NAME.fullmatch(full):
        raise ValueError(f"{name[:80]!r} is no name of a unit")
    return full


def ask(arguments: list[str], deadline: Deadline) -> str:
    """What systemctl answers. Raises Unanswered; OutOfTime is not for here: the text says that it was not done."""
    environment = {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath), "SYSTEMD_COLORS": "0"}
    try:
        done = subprocess.run(
            [SYSTEMCTL, "--no-pager", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=deadline.left_s("systemctl was not asked"),
        )
    except FileNotFoundError:
        raise Unanswered("there is no systemctl on this host") from None
    except subprocess.TimeoutExpired:
        length = show_duration(deadline.timeout_ns)
        raise Unanswered(f"systemctl {arguments[0]} did not end within {length}") from None
    if done.returncode:
        said = clean(done.stderr.decode(errors="replace")) or f"exit {done.returncode}"
        raise Unanswered(f"systemctl {arguments[0]}: {said}")
    return done.stdout.decode(errors="replace")


def _number(text: str | None) -> int | None:
    # "[not set]", and 2^64 - 1 in older versions, where nothing is counted.
    return int(text) if text and text.isdigit() and int(text) < 1 << 63 else None
