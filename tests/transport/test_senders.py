"""Who sent a datagram, read from a real `/proc` and from made ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.units import SECOND
from hbagent.transport import senders
from hbagent.transport.senders import ANCESTORS_MAX, Senders

TICK_NS = SECOND // os.sysconf("SC_CLK_TCK")


def stat(name: str, parent: int, start: int) -> str:
    return f"7 ({name}) S {parent} " + " ".join(["0"] * 17) + f" {start} 0 0"


def put(proc: Path, pid: int, *, parent: int, start: int, name: str = "x", cgroup: str = "", uid: int = 0) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    (proc / str(pid) / "stat").write_text(stat(name, parent, start))
    (proc / str(pid) / "cgroup").write_text(cgroup)
    (proc / str(pid) / "status").write_text(f"Name:\t{name}\nUid:\t{uid}\t0\t0\t0\n")


def test_a_real_process_has_its_ancestors_and_the_time_it_began() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = Senders().look(child.pid, None, 0)
        ours = Senders().start(os.getpid())
        assert found.ancestors[:2] == (os.getpid(), os.getppid())
        assert found.start >= ours > 0
        child.communicate(b"\n")
    assert Senders().look(child.pid, None, 0).start == 0


def test_who_began_after_the_datagram_was_sent_did_not_send_it(tmp_path: Path) -> None:
    put(tmp_path, 10, parent=1, start=500, cgroup="0::/system.slice/a.service\n")
    known = Senders(str(tmp_path))
    assert known.look(10, 499 * TICK_NS, 0).start == 0
    assert known.look(10, 500 * TICK_NS, 0).unit == "a.service"


def test_a_parent_that_is_younger_than_its_child_is_another_process(tmp_path: Path) -> None:
    put(tmp_path, 10, parent=9, start=500)
    put(tmp_path, 9, parent=8, start=400)
    put(tmp_path, 8, parent=1, start=450)
    assert Senders(str(tmp_path)).look(10, None, 0).ancestors == (9,)


def test_an_id_that_gets_another_owner_between_two_reads_lends_nobody_its_unit(tmp_path: Path) -> None:
    class Swapped(Senders):
        def _unit(self, pid: int) -> str:
            put(tmp_path, 10, parent=1, start=501, cgroup="0::/system.slice/other.service\n")
            return super()._unit(pid)

    put(tmp_path, 10, parent=1, start=500, cgroup="0::/system.slice/mine.service\n")
    found = Swapped(str(tmp_path)).look(10, None, 0)
    assert (found.start, found.unit) == (500, "")


def test_a_chain_of_ancestors_has_an_end_even_when_it_is_a_ring(tmp_path: Path) -> None:
    put(tmp_path, 10, parent=9, start=5)
    put(tmp_path, 9, parent=10, start=5)
    assert len(Senders(str(tmp_path)).look(10, None, 0).ancestors) == ANCESTORS_MAX


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/web.service\n", "web.service"),
        ("0::/system.slice/web.service/worker/deeper.service\n", "web.service"),
        ("0::/system.slice/system-getty.slice/getty@tty1.service\n", "getty@tty1.service"),
        # A user names the groups below its own manager as it likes.
        ("0::/user.slice/user-7.slice/user@7.service/app.slice/web.service\n", "user@7.service"),
        ("0::/system.slice/docker-ab12.scope\n", "docker-ab12.scope"),
        ("0::/system.slice/_web.service\n", "web.service"),
        ("12:pids:/x.service\n1:name=systemd:/system.slice/web.service\n0::/\n", "web.service"),
        ("0::/\n", ""),
        ("0::/init.scope\n", "init.scope"),
        ("nonsense\n::\n\n0::", ""),
        ("", ""),
    ],
)
def test_the_unit_is_the_first_in_the_path_that_is_no_slice(tmp_path: Path, cgroup: str, unit: str) -> None:
    put(tmp_path, 10, parent=1, start=5, cgroup=cgroup)
    assert Senders(str(tmp_path)).look(10, None, 0).unit == unit


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    put(tmp_path, 10, parent=1, start=5, name="a) R 77 (b\n")
    put(tmp_path, 1, parent=0, start=1)
    assert Senders(str(tmp_path)).look(10, None, 0).ancestors == (1,)


def test_what_is_known_is_remembered_for_a_while_and_no_longer(tmp_path: Path) -> None:
    put(tmp_path, 10, parent=1, start=5, cgroup="0::/a.service\n")
    known = Senders(str(tmp_path))
    known.look(10, None, 0)
    put(tmp_path, 10, parent=1, start=5, cgroup="0::/b.service\n")
    assert known.look(10, None, SECOND).unit == "a.service"
    assert known.look(10, None, 3 * SECOND).unit == "b.service"
    put(tmp_path, 10, parent=1, start=6, cgroup="0::/c.service\n")
    assert known.look(10, None, 3 * SECOND).unit == "c.service"


def test_no_more_are_remembered_than_the_bound(tmp_path: Path) -> None:
    known = Senders(str(tmp_path))
    for pid in range(10, 20 + senders.REMEMBERED_MAX):
        put(tmp_path, pid, parent=1, start=5)
        known.look(pid, None, 0)
    assert len(known._known) == senders.REMEMBERED_MAX


def test_the_user_of_a_process_that_is_named_is_read(tmp_path: Path) -> None:
    put(tmp_path, 10, parent=1, start=5, uid=1234)
    assert Senders(str(tmp_path)).user(10) == (1234, 5)
    assert Senders(str(tmp_path)).user(11) == (-1, 0)
    assert Senders().user(os.getpid()) == (os.getuid(), Senders().start(os.getpid()))


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_proc_says_is_borne(
    tmp_path_factory: pytest.TempPathFactory, stat: bytes, cgroup: bytes, status: bytes
) -> None:
    proc = tmp_path_factory.getbasetemp() / "fuzzed-proc"
    (proc / "10").mkdir(parents=True, exist_ok=True)
    for name, content in (("stat", stat), ("cgroup", cgroup), ("status", status)):
        (proc / "10" / name).write_bytes(content)
    known = Senders(str(proc))
    known.look(10, time.monotonic_ns(), 0)
    known.user(10)
