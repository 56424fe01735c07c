"""Text of `/proc`, odd and garbled, and processes that are gone between two reads."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.diagnosis import procfs
from hbagent.diagnosis.procfs import Denied, Garbled, Gone, ProcError, Process

STAT = b"812 (worker) S 1 812 812 0 -1 4194560 90 0 0 0 31 11 0 0 20 0 3 0 98765 2203648 230 18446744073709551615 1 1"
STATUS = b"""Name:\tworker
Umask:\t0022
State:\tS (sleeping)
Tgid:\t812
Pid:\t813
NSpid:\t813\t27\t4
Threads:\t3
voluntary_ctxt_switches:\t150
nonvoluntary_ctxt_switches:\t7
"""
MAPS = b"""55d0c8a00000-55d0c8a01000 r--p 00000000 fe:00 1573 /usr/bin/a name with spaces
7f12a4000000-7f12a4021000 rw-p 00000000 00:00 0
7f12a8000000-7f12a8100000 rw-s 00000000 00:01 2049 /memfd:ring (deleted)
7ffd1c000000-7ffd1c021000 rw-p 00000000 00:00 0 [stack]
"""
MOUNTINFO = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
31 23 0:28 /sub\040dir /mnt/a\134b rw - cgroup cgroup rw,cpu,cpuacct
"""
TCP = b"""  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000007 00:00000000 00000000     0        0 123456 1 0
   1: 0100007F:0050 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 123457 1 0
"""
TCP6 = b"""  sl  local_address remote_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode
   0: 00000000000000000000000000000000:1F90 0:0 0A 0:0 00:0 0 0 0 7 1 0
   1: B80D0120000000000000000001000000:1F90 0:0 0A 0:3 00:0 0 0 0 8 1 0
"""

#: Each parser, with a text that it understands.
PARSERS: tuple[tuple[Callable[[bytes], object], bytes], ...] = (
    (procfs.stat, STAT),
    (procfs.status, STATUS),
    (procfs.syscall, b"202 0x7f00 0x80 0x2 0x0 0x0 0x0 0x7ffd 0x7f01\n"),
    (procfs.schedstat, b"123 456 7\n"),
    (procfs.wchan, b"futex_do_wait"),
    (procfs.stack, b"[<0>] futex_wait+0x1/0x2\n[<0>] do_futex+0x3/0x4\n"),
    (procfs.maps, MAPS),
    (procfs.cgroup, b"3:cpu,cpuacct:/a\n0::/b\n"),
    (procfs.mountinfo, MOUNTINFO),
    (procfs.listeners, TCP),
    (procfs.listeners, TCP6),
    (procfs.counters, b"nr_throttled 4\nthrottled_usec 99\n"),
    (procfs.pressure, b"some avg10=1.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.25 avg60=0 avg300=0 total=1\n"),
)


# ---- what is told --------------------------------------------------------------------------------------------


def test_a_stat_line_is_read() -> None:
    assert procfs.stat(STAT) == procfs.Stat("worker", "S", 1, 42, 98765, 3)


@pytest.mark.parametrize("name", [b") R 1 2 3", b"a (b) c", b"", b"line\nend", b"\xff\xfe", b"((("])
def test_a_name_cannot_pass_for_the_rest_of_the_line(name: bytes) -> None:
    found = procfs.stat(STAT.replace(b"(worker)", b"(" + name + b")"))
    assert (found.name, found.state, found.start) == (name.decode("utf-8", "replace"), "S", 98765)


def test_the_last_of_the_ids_is_the_one_inside() -> None:
    assert procfs.status(STATUS) == procfs.Status("worker", "S", 4, (150, 7))


def test_without_namespaces_the_only_id_counts() -> None:
    assert procfs.status(STATUS.replace(b"NSpid:\t813\t27\t4\n", b"")).inner == 813


@pytest.mark.parametrize("line", [b"running\n", b"-1 0x7ffd 0x7f01\n", PARSERS[2][1]])
def test_a_line_of_syscall_is_kept_whole(line: bytes) -> None:
    assert procfs.syscall(line) == line.decode().strip()


@pytest.mark.parametrize("line", [b"", b"runs", b"202 0x1", b"202 0xq 0 0 0 0 0 0 0", b"202 " * 9 + b"\x00"])
def test_a_line_that_is_no_syscall_is_garbled(line: bytes) -> None:
    with pytest.raises(Garbled):
        procfs.syscall(line)


def test_zero_is_no_place_to_wait() -> None:
    assert (procfs.wchan(b"0"), procfs.wchan(b"")) == ("", "")


def test_a_kernel_stack_is_its_functions() -> None:
    assert procfs.stack(PARSERS[5][1]) == ("futex_wait+0x1/0x2", "do_futex+0x3/0x4")


def test_mappings_are_read_with_their_paths() -> None:
    found = procfs.maps(MAPS)
    assert [mapping.path for mapping in found] == [
        "/usr/bin/a name with spaces",
        "",
        "/memfd:ring (deleted)",
        "[stack]",
    ]
    assert found[2] == procfs.Mapping(0x7F12A8000000, 0x7F12A8100000, "rw-s", 0, (0, 1), 2049, "/memfd:ring (deleted)")


def test_a_line_that_was_cut_off_is_left_out() -> None:
    assert len(procfs.maps(MAPS[:-10])) == 3
    assert len(procfs.mountinfo(MOUNTINFO[:-3])) == 2


def test_mounts_are_read_with_their_escapes() -> None:
    found = procfs.mountinfo(MOUNTINFO)
    assert [(mount.device, mount.type) for mount in found] == [
        ((0, 21), "proc"),
        ((254, 0), "ext4"),
        ((0, 28), "cgroup"),
    ]
    assert (found[2].root, found[2].point, found[2].options) == ("/sub dir", "/mnt/a\\b", "rw,cpu,cpuacct")


def test_a_group_is_known_by_each_of_its_controllers() -> None:
    assert procfs.cgroup(b"3:cpu,cpuacct:/a:b\n0::/c\n") == {"cpu": "/a:b", "cpuacct": "/a:b", "": "/c"}


def test_connections_that_wait_are_counted_for_each_listening_socket() -> None:
    assert procfs.listeners(TCP) == [procfs.Listener("127.0.0.1", 8080, 7, 123456)]
    assert [(one.address, one.waiting) for one in procfs.listeners(TCP6)] == [
        ("[::]", 0),
        ("[2001:db8:0:0:0:0:0:1]", 3),
    ]


def test_numbers_behind_words_are_read_and_other_lines_left_out() -> None:
    assert procfs.counters(b"a 4\nb\nc x\n \nd -1\ne 5 6\n") == {"a": 4}


def test_pressure_is_that_of_the_last_ten_seconds() -> None:
    assert procfs.pressure(PARSERS[-1][1]) == {"some": 1.5, "full": 0.25}


# ---- garbage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parse", "good"), PARSERS)
@given(data=st.data())
def test_whatever_the_bytes_they_are_read_or_garbled(
    parse: Callable[[bytes], object], good: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(at, len(good)))
    noise = data.draw(st.binary(max_size=40))
    for text in (noise, good[:at], good[:at] + noise + good[end:], good.replace(b" ", noise)):
        try:
            parse(text)
        except Garbled:
            continue


@given(st.binary())
def test_no_error_text_is_long(data: bytes) -> None:
    for parse, _ in PARSERS:
        try:
            parse(data * 50)
        except Garbled as error:
            assert len(str(error)) < 400


# ---- real processes ------------------------------------------------------------------------------------------


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_read(child: subprocess.Popen[bytes]) -> None:
    with Process(child.pid) as found:
        assert procfs.stat(found.read("stat")).parent == os.getpid()
        assert found.tids() == [child.pid]
        assert procfs.status(found.read_thread(child.pid, "status")).inner > 0
        assert procfs.maps(found.read("maps", procfs.MAPS_SIZE_MAX))[-1].end > 0
        assert isinstance(found.sockets(), dict)


def test_no_file_grows_past_its_limit() -> None:
    whole = procfs.read_file("/proc/self/mountinfo", procfs.MOUNTINFO_SIZE_MAX)
    assert procfs.read_file("/proc/self/mountinfo", 100) == whole[:100]


def test_a_process_that_ends_is_gone_at_every_read(child: subprocess.Popen[bytes]) -> None:
    with Process(child.pid) as found:
        child.kill()
        child.wait()
        for read in (
            lambda: found.read("stat"),
            lambda: found.read("maps", procfs.MAPS_SIZE_MAX),
            lambda: found.read_thread(child.pid, "syscall"),
            found.tids,
            found.sockets,
            lambda: found.open("mem"),
        ):
            with pytest.raises(Gone):
                read()
    with pytest.raises(Gone):
        Process(child.pid)


def test_an_id_that_was_given_to_another_process_leads_nobody_astray(tmp_path: Path) -> None:
    """The directory is held open, so a new one at its path is not the one that is read."""
    for start in (b"1", b"2"):
        (tmp_path / "7" / "task" / "7").mkdir(parents=True)
        (tmp_path / "7" / "stat").write_bytes(start)
        if start == b"1":
            found = Process(7, str(tmp_path))
            (tmp_path / "7").rename(tmp_path / "old")
    assert found.read("stat") == b"1"
    found.close()
    found.close()


def test_what_may_not_be_read_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    with Process(os.getpid()) as found:
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(Denied):
            found.read("stat")
        with pytest.raises(Denied):
            found.open("mem")


def test_any_other_error_is_one_of_reading() -> None:
    with Process(os.getpid()) as found, pytest.raises(ProcError):
        found.read("task")
