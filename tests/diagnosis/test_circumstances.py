"""What stands around a process is told section by section, and a read that hangs costs only what comes after it."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.units import MILLISECOND, SECOND
from hbagent.demo.datacenter import wait_until
from hbagent.diagnosis import circumstances, procfs
from hbagent.diagnosis.circumstances import Told, connections, tell, unix_sockets
from hbagent.diagnosis.procfs import Process
from tests.patience import patiently

LONG_NS = 30 * SECOND
SECRET = "hunter2-of-somebody"


@pytest.fixture(scope="module")
def target() -> Iterator[int]:
    command = [sys.executable, "-c", "import time; print('READY', flush=True); time.sleep(600)", f"--password={SECRET}"]
    environment = {**os.environ, "PASSWORD": SECRET}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdout.readline() == b"READY\n"
        yield process.pid
        process.kill()


def section(pid: int, read: circumstances.Section) -> Any:
    with Process(pid) as process:
        return read[1](process)


def mine(name: str) -> Any:
    return section(os.getpid(), next(found for found in circumstances.SECTIONS if found[0] == name))


def start_of(pid: int) -> int:
    with Process(pid) as process:
        return procfs.stat(process.read("stat")).start


def test_every_section_is_told_of_an_ordinary_process(target: int) -> None:
    told = tell(target, start_of(target), LONG_NS)
    # Kernel stacks are for those with CAP_SYS_ADMIN.
    assert [line for line in told.left_out if not line.startswith("kernel_stacks: ")] == []
    assert {name for name, _ in circumstances.SECTIONS} - set(told.sections) <= {"kernel_stacks"}
    assert told.sections["process"]["program"] == os.path.realpath(sys.executable)
    assert told.sections["process"]["parent"] == os.getpid()
    assert (told.sections["arguments"], told.sections["runtime"]) == (4, "python")


def test_arguments_and_environment_are_not_told(target: int) -> None:
    assert SECRET not in str(tell(target, start_of(target), LONG_NS))


def test_who_has_the_id_now_is_not_told_of(target: int) -> None:
    told = tell(target, start_of(target) - 1, LONG_NS)
    assert told.sections == {}
    assert "it ended" in told.left_out[0]


def test_of_a_process_that_is_gone_it_is_said_that_there_is_nothing() -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    told = tell(process.pid, 0, LONG_NS)
    assert told.sections == {}
    assert len(told.left_out) == 1


def test_a_section_that_hangs_costs_only_what_comes_after_it(target: int) -> None:
    def hang(_: Process) -> None:
        signal.pause()

    def fail(_: Process) -> None:
        raise procfs.Denied("not for you")

    sections = (("first", lambda _: 1), ("denied", fail), ("hangs", hang), ("last", lambda _: 2))
    limits = []

    def attempt(limit_ns: int) -> Told:
        limits.append(limit_ns)
        return tell(target, 0, limit_ns, sections)

    told = patiently(attempt, lambda told: len(told.left_out) == 2, 300 * MILLISECOND)
    assert told.sections == {"first": 1}
    assert told.left_out[0] == "denied: not for you"
    assert told.left_out[1].startswith(f"hangs, last: no answer within {limits[-1] // MILLISECOND} ms")


def test_a_section_that_is_too_long_is_left_out(target: int) -> None:
    long = "x" * circumstances.TOLD_MAX
    told = tell(target, 0, LONG_NS, (("long", lambda _: long), ("last", lambda _: 2)))
    assert told.sections == {"last": 2}
    assert "bytes are too much" in told.left_out[0]


# ---- sections --------------------------------------------------------------------------------------------


def test_who_waits_at_a_listening_socket_is_counted() -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        for caller in (first, second):
            caller.connect(listener.getsockname())
        second.send(b"twelve bytes")
        port = listener.getsockname()[1]
        told: dict[str, Any] = {}

        def waits() -> bool:
            nonlocal told
            told = mine("sockets")
            return [row["received"] for row in told["sockets"] if row["fd"] == listener.fileno()] == [2]

        assert wait_until(waits, 30)
        (row,) = [row for row in told["sockets"] if row["fd"] == listener.fileno()]
        assert (row["state"], row["local"], row["received"]) == ("LISTEN", f"127.0.0.1:{port}", 2)
        (row,) = [row for row in told["sockets"] if row["fd"] == first.fileno()]
        assert (row["state"], row["remote"]) == ("ESTABLISHED", f"127.0.0.1:{port}")
    assert told["complete"]


def test_named_unix_sockets_are_told(socket_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_dir / "s"))
        listener.listen()
        (row,) = [row for row in mine("sockets")["sockets"] if row["fd"] == listener.fileno()]
    assert (row["state"], row["local"]) == ("LISTEN", str(socket_dir / "s"))


def test_addresses_of_both_families_are_told() -> None:
    head = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    line = b"   0: %s:0016 %s:0000 0A 00000000:00000003 00:00000000 00000000     0        0 77 1 0 100 0\n"
    (row,) = connections(head + line % (b"0100007F", b"00000000"), {77: 5})
    assert (row["local"], row["remote"], row["received"]) == ("127.0.0.1:22", "0.0.0.0:0", 3)
    (row,) = connections(head + line % (b"0" * 24 + b"01000000", b"0" * 32), {77: 5})
    assert (row["local"], row["fd"]) == ("[::1]:22", 5)


@given(st.lists(st.binary(max_size=20), max_size=14), st.integers(0, 3))
def test_any_bytes_are_sockets_or_none(parts: list[bytes], at: int) -> None:
    data = b"head\n" + b" ".join([*parts[:at], b"77", *parts[at:]])
    inodes = {77: 3}
    for row in [*connections(data, inodes), *unix_sockets(data, inodes)]:
        assert row["fd"] == 3


def test_what_is_open_is_told_by_kind_and_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\x1b[2J"
    with path.open("w") as file:
        path.unlink()
        told = mine("files")
        assert told["kinds"]["deleted file"] >= 1
        (line,) = [line for line in told["files"] if line.startswith(f"{file.fileno()} ")]
    assert line.isprintable() and line.endswith("b?[2J (deleted)")


def test_only_so_many_files_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circumstances, "FILES_MAX", 3)
    told = mine("files")
    assert (told["looked_at"], sum(told["kinds"].values()), told["count"] >= 3) == (3, 3, True)


def test_limits_are_told_unless_there_are_none() -> None:
    told = mine("limits")
    assert "Max open files" in told
    assert "unlimited" not in [value.split()[0] for value in told.values()]


def test_a_file_lock_that_somebody_waits_for_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    waits = f"import fcntl, os; f = open({str(path)!r}); print('READY', flush=True); fcntl.flock(f, 2)"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with subprocess.Popen([sys.executable, "-c", waits], stdout=subprocess.PIPE) as waiter:
            try:
                find = ("locks", circumstances.locks)
                assert wait_until(lambda: any("->" in line for line in section(waiter.pid, find)), 30)
            finally:
                waiter.kill()
        assert any(" FLOCK " in line for line in mine("locks"))


def test_the_group_tells_what_this_kernel_has() -> None:
    told = mine("group")
    assert any(name in told for name in ("cpu.stat", "memory.current", "memory.usage_in_bytes", "cgroup.events"))


def test_the_host_tells_its_load_and_memory() -> None:
    told = mine("host")
    assert told["memory"]["MemTotal"].endswith("kB")
    assert len(told["load"].split()) == 5


@pytest.mark.root
def test_kernel_stacks_are_told_to_root(target: int) -> None:
    told = section(target, ("kernel_stacks", circumstances.kernel_stacks))
    assert told[str(target)][0]
