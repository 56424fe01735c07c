"""Runs one check of any kind but `exec`, and lets nothing out of it but a result.

This is called in a process that may be killed at any moment. Each kind is imported when it is asked for: HTTP brings
OpenSSL with it, and the other kinds need nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from hbagent.core.checks import (
    Check,
    ExecCheck,
    FileCheck,
    HostCheck,
    HttpCheck,
    LogCheck,
    NeighboursCheck,
    ProcessCheck,
    TcpCheck,
    UnitCheck,
    UnixCheck,
)
from hbagent.core.messages import CheckFinished
from hbagent.core.states import Health

from .outcome import OutOfTime, clean, finished, reason


def run(check: Check, timeout_ns: int, memory: dict[str, Any] | None = None) -> CheckFinished:
    """Look at what `check` names, in about `timeout_ns` at most; `run` of the result is 0. Never raises."""
    memory = memory or {}
    begin = time.monotonic_ns()
    try:
        result = _function(check)(check, timeout_ns, memory)
    except OutOfTime as error:
        result = CheckFinished(
            run=0, health=Health.CRITICAL, text=clean(str(error)), memory=dict(memory), timed_out=True
        )
    except OSError as error:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        result = finished(Health.UNKNOWN, f"cannot look: {where}{reason(error)}", memory=memory)
    except Exception as error:  # a defect of ours, or a kernel that writes otherwise than documented
        result = finished(Health.UNKNOWN, f"cannot look: {type(error).__name__}: {error}", memory=memory)
    return msgspec.structs.replace(result, duration_ns=time.monotonic_ns() - begin)


def _function(check: Check) -> Callable[[Any, int, dict[str, Any]], CheckFinished]:
    match check:
        case HttpCheck():
            from . import http

            return http.look
        case TcpCheck():
            from . import connection

            return connection.tcp
        case UnixCheck():
            from . import connection

            return connection.unix
        case ProcessCheck():
            from . import processes

            return processes.look
        case UnitCheck():
            from . import units

            return units.look
        case FileCheck():
            from . import files

            return files.look
        case LogCheck():
            from . import logs

            return logs.look
        case HostCheck():
            from . import host

            return host.look
        case NeighboursCheck():
            from . import neighbours

            return neighbours.look
        case ExecCheck():
            raise TypeError("programs are not run here")
