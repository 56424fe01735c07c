"""Whatever happens in a check, a result comes out of it, and trouble of our own is never OK."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

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
from hbagent.core.states import Health
from hbagent.core.units import SECOND
from hbagent.probes import host
from hbagent.probes.check import run
from tests.patience import patiently

from .serving import nothing, server

LONG_NS = 20 * SECOND


@pytest.mark.parametrize(
    "check",
    [
        HttpCheck(url="http://127.0.0.1:1/"),
        TcpCheck(host="127.0.0.1", port=1),
        UnixCheck(path="/nonexistent"),
        ProcessCheck(process="nobody-is-called-so"),
        UnitCheck(unit="none.service"),
        FileCheck(path="/nonexistent"),
        LogCheck(path="/nonexistent"),
        ExecCheck(argv=("true",)),
    ],
    ids=lambda check: type(check).__name__,
)
def test_every_kind_is_found_and_none_is_good_where_there_is_nothing(check: Check) -> None:
    result = run(check, LONG_NS)
    assert result.health in (Health.CRITICAL, Health.UNKNOWN)
    assert result.text
    assert result.duration_ns > 0


def test_this_host_can_be_looked_at() -> None:
    assert run(HostCheck(what="memory"), LONG_NS).health is not Health.UNKNOWN
    assert run(NeighboursCheck(), LONG_NS).health is Health.OK


def test_a_kernel_that_writes_garbage_is_unknown_and_its_memory_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_bytes(b"\xff\x00 garbage\n" * 10)
    real = host.look
    monkeypatch.setattr(host, "look", lambda check, timeout_ns, memory: real(check, timeout_ns, memory, str(tmp_path)))
    result = run(HostCheck(what="memory"), LONG_NS, {"kept": 1})
    assert result.health is Health.UNKNOWN
    assert "ValueError" in result.text
    assert result.memory == {"kept": 1}


def test_a_bad_expression_is_unknown() -> None:
    result = run(ProcessCheck(cmdline="("), LONG_NS)
    assert result.health is Health.UNKNOWN
    assert "unterminated" in result.text


def test_a_time_limit_is_told_with_what_was_awaited() -> None:
    with server(nothing) as port:
        wanted = f"127.0.0.1:{port}: the kernel took the connection, and the program did not answer"
        check = TcpCheck(host="127.0.0.1", port=port, expect="hello")
        result = patiently(functools.partial(run, check), lambda result: result.text == wanted, SECOND // 5)
    assert result.timed_out
    assert result.health is not Health.OK
    assert result.text == wanted


def test_what_may_not_be_read_is_unknown_and_named(tmp_path: Path) -> None:
    # A directory is no log, also for root.
    result = run(LogCheck(path=str(tmp_path), warning="x"), LONG_NS)
    assert result.health is Health.UNKNOWN
    assert result.text == "cannot look: Is a directory"


@pytest.mark.parametrize("module", ["check", "outcome", "defaults", "host", "processes", "units", "files", "logs"])
def test_what_many_hands_load_is_light(module: str) -> None:
    heavy = ("ssl", "psutil", "zmq", "asyncio", "http.client", "loguru", "_hashlib")
    code = f"import sys, hbagent.probes.{module}; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
