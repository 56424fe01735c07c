"""Looks at real processes: at this one, at sleeping ones, and at threads that lock one another out."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hbagent.core.diagnosis import Look
from hbagent.core.proof import APART_NS, futex_of
from hbagent.core.states import Stall
from hbagent.core.units import MILLISECOND
from hbagent.diagnosis import examine as examination
from hbagent.diagnosis import procfs
from hbagent.diagnosis.examine import Findings, LookRow, Subject, examine, look
from hbagent.diagnosis.procfs import Mapping
from tests.diagnosis.victim import CROSSED, HANDED_ON, locked_out, victim, waiting
from tests.reporting import wait_for

SOON_NS = 20 * MILLISECOND


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    assert wait_for(lambda: procfs.read_file(f"/proc/{process.pid}/wchan").endswith(b"nanosleep"))
    yield process
    process.kill()
    process.wait()


def start_of(pid: int) -> int:
    return procfs.stat(procfs.read_file(f"/proc/{pid}/stat")).start


# ---- the looks -----------------------------------------------------------------------------------------------


def test_a_process_that_sleeps_is_idle(sleeper: subprocess.Popen[bytes]) -> None:
    found = examine(sleeper.pid, start=start_of(sleeper.pid), apart_ns=SOON_NS)
    assert (found.verdict, found.name, found.threads_total) == (Stall.IDLE, "sleep", 1)
    assert [row.tid for row in found.threads] == [sleeper.pid]
    assert len(found.looks) == 2


def test_findings_survive_being_sent(sleeper: subprocess.Popen[bytes]) -> None:
    found = examine(sleeper.pid, apart_ns=SOON_NS)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Findings) == found


def test_a_stopped_process_is_paused(sleeper: subprocess.Popen[bytes]) -> None:
    os.kill(sleeper.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
    assert examine(sleeper.pid, stuck=True, apart_ns=SOON_NS).verdict is Stall.PAUSED


def test_the_order_is_look_evidence_look_stopping_reads(sleeper: subprocess.Popen[bytes]) -> None:
    told: list[str] = []

    def between(subject: Subject, first: Look) -> None:
        told.append(f"between {subject.pid == sleeper.pid} {len(first.threads)}")

    def last(subject: Subject, findings: Findings) -> None:
        told.append(f"last {subject.name} {findings.verdict.value} {len(findings.looks)}")

    examine(sleeper.pid, between=between, last=last, apart_ns=SOON_NS)
    assert told == ["between True 1", "last sleep IDLE 2"]


def test_evidence_that_takes_long_puts_no_second_look_off(sleeper: subprocess.Popen[bytes]) -> None:
    looks: list[int] = []
    found = examine(sleeper.pid, between=lambda _, first: looks.append(first.sighting.ended_ns), apart_ns=SOON_NS)
    assert found.looks[1].proof_ns > 0
    assert len(looks) == 1


# ---- whom to look at -----------------------------------------------------------------------------------------


def test_a_process_that_is_not_there_is_unknown() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    found = examine(child.pid)
    assert (found.verdict, found.text) == (Stall.UNKNOWN, f"there is no process {child.pid}")


def test_another_process_under_the_same_id_is_not_looked_at(sleeper: subprocess.Popen[bytes]) -> None:
    found = examine(sleeper.pid, start=start_of(sleeper.pid) - 1)
    assert (found.verdict, found.threads) == (Stall.UNKNOWN, ())
    assert "another process" in found.text


def test_a_process_that_ends_between_the_looks_is_unknown(sleeper: subprocess.Popen[bytes]) -> None:
    def end(subject: Subject, first: Look) -> None:
        sleeper.kill()
        sleeper.wait()

    found = examine(sleeper.pid, between=end, apart_ns=SOON_NS)
    assert (found.verdict, len(found.looks)) == (Stall.UNKNOWN, 1)


def test_a_zombie_is_unknown(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    found = examine(sleeper.pid, apart_ns=SOON_NS)
    assert found.verdict is Stall.UNKNOWN
    assert "parent" in found.text


# ---- which libraries are known -------------------------------------------------------------------------------


def library(*paths: str, low: bool = False) -> tuple[str, int, int | None]:
    base = 0x10000 if low else 0x7F0000000000
    mappings = [
        Mapping(base + at * 0x1000, base + (at + 1) * 0x1000, "r-xp", 0, (254, 0), 5, path)
        for at, path in enumerate(paths)
    ]
    why, code, release = examination._library(mappings)
    return why, len(code), release


def test_code_of_glibc_is_known_by_its_names() -> None:
    assert library("/usr/bin/x", "/usr/lib/x86_64-linux-gnu/libc.so.6") == ("", 1, None)
    assert library("/lib64/libc-2.31.so", "/lib64/libpthread-2.31.so") == ("", 2, 31)
    assert library("/lib64/libc-2.17.so (deleted)") == ("", 1, 17)


@pytest.mark.parametrize("path", ["/lib/ld-musl-x86_64.so.1", "/lib/libc.musl-x86_64.so.1"])
def test_musl_has_no_owners(path: str) -> None:
    assert "musl" in library(path, "/lib/libc.so.6")[0]


@pytest.mark.parametrize("path", ["/usr/bin/static", "/opt/libc.so.6.bak", "/opt/xlibc.so.6", "/system/lib64/libc.so"])
def test_without_glibc_there_is_no_proof(path: str) -> None:
    assert "without glibc" in library(path)[0]


def test_a_process_of_32_bits_has_no_proof() -> None:
    assert "32-bit" in library("/lib/libc.so.6", low=True)[0]


# ---- threads that lock one another out -----------------------------------------------------------------------


@pytest.mark.needs("gcc")
def test_a_cycle_among_a_hundred_threads_is_seen_in_one_look(tmp_path: Path) -> None:
    rows: list[LookRow] = []
    with victim(tmp_path, CROSSED) as pid, Subject(pid) as subject:
        # They are on their way into the second lock when the program says that it is ready.
        assert wait_for(lambda: bool(look(subject).sighting.cycles))
        seen = look(subject, rows).sighting
        names = {one.snapshot.tid: one.snapshot.name for one in look(subject).threads}
    (cycle,) = seen.cycles
    assert sorted(names[edge.waiter] for edge in cycle) == ["guard", "teller"]
    assert [edge.kind for edge in cycle] == ["mutex", "mutex"]
    assert rows[-1].threads == 100


@pytest.mark.slow
@pytest.mark.needs("gcc")
def test_a_ring_that_a_third_thread_could_unlock_is_proved_and_that_thread_is_assumed_not_to(tmp_path: Path) -> None:
    with victim(tmp_path, HANDED_ON) as pid:
        assert wait_for(lambda: locked_out(pid))
        found = examine(pid)
        assert found.verdict is Stall.DEADLOCKED and found.proof is not None
        assert found.proof.assumes[-1] == (
            "1 more thread, neither in the cycle nor waiting for it, unlocks nothing that another one owns"
        )
        # This one does, and they go on: what was assumed was not so.
        os.kill(pid, signal.SIGUSR1)
        assert wait_for(
            lambda: not any(call[:1] == ["202"] for name in ("teller", "guard") for call in waiting(pid, name))
        )
        assert examine(pid, stuck=True).verdict is not Stall.DEADLOCKED


#: Two words that hold the ids of threads, and two threads that wait for them by a call of their own: a lock whose words
#: mean what its makers like.
BY_HAND = """
#include <linux/futex.h>
#include <sys/syscall.h>
static int words[2];
static pthread_barrier_t both;
static void *hold(void *at) {
    int mine = at != NULL;
    words[mine] = gettid();
    pthread_barrier_wait(&both);
    for (;;) syscall(SYS_futex, &words[!mine], FUTEX_WAIT, words[!mine], NULL, NULL, 0);
}
int main(void) {
    pthread_t thread;
    pthread_barrier_init(&both, NULL, 3);
    pthread_create(&thread, NULL, hold, NULL);
    pthread_create(&thread, NULL, hold, &both);
    pthread_barrier_wait(&both);
    ready();
}
"""


@pytest.mark.needs("gcc")
def test_a_lock_of_somebody_s_own_making_is_none_of_glibc(tmp_path: Path) -> None:
    def words(seen: Look) -> list[int]:
        calls = [futex_of(one.snapshot.call) for one in seen.threads]
        return sorted(call.value for call in calls if call is not None)

    with victim(tmp_path, BY_HAND) as pid, Subject(pid) as subject:
        # Before they wait for one another, they wait to meet.
        assert wait_for(lambda: words(look(subject)) == sorted(map(int, os.listdir(f"/proc/{pid}/task")))[1:])
        seen = look(subject)
        assert len(words(seen)) == 2
        assert (seen.sighting.edges, seen.no_proof) == ({}, "")


#: Two crossed mutexes in memory that a child of this process could hold as well.
ACROSS = """
#include <sys/mman.h>
static pthread_mutex_t *locks;
static pthread_barrier_t both;
static void *take(void *at) {
    int mine = at != NULL;
    pthread_mutex_lock(&locks[mine]);
    pthread_barrier_wait(&both);
    pthread_mutex_lock(&locks[!mine]);
    return NULL;
}
int main(void) {
    pthread_t thread;
    locks = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_KIND | MAP_ANONYMOUS, -1, 0);
    pthread_mutex_init(&locks[0], NULL);
    pthread_mutex_init(&locks[1], NULL);
    pthread_barrier_init(&both, NULL, 3);
    pthread_create(&thread, NULL, take, NULL);
    pthread_create(&thread, NULL, take, locks);
    pthread_barrier_wait(&both);
    ready();
}
"""


@pytest.mark.needs("gcc")
@pytest.mark.parametrize(("memory", "cycles"), [("MAP_PRIVATE", 1), ("MAP_SHARED", 0)])
def test_locks_in_memory_that_others_may_share_have_no_owner(tmp_path: Path, memory: str, cycles: int) -> None:
    with victim(tmp_path, ACROSS, f"-DMAP_KIND={memory}") as pid, Subject(pid) as subject:
        # Before they wait for one another, they wait to meet.
        assert wait_for(lambda: bool((seen := look(subject)).sighting.cycles or seen.no_proof))
        seen = look(subject)
    assert len(seen.sighting.cycles) == cycles
    assert ("no proof across processes" in seen.no_proof) is (cycles == 0)


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.needs("gcc")
def test_a_deadlock_is_proved_with_the_names_of_threads_and_locks(tmp_path: Path) -> None:
    with victim(tmp_path, CROSSED) as pid:
        assert wait_for(lambda: locked_out(pid))
        found = examine(pid)
    assert (found.verdict, found.threads_total, found.no_proof) == (Stall.DEADLOCKED, 100, "")
    assert found.proof is not None
    assert found.proof.apart_ns >= APART_NS
    told = {link.name: (link.symbol, link.owner_name) for link in found.proof.cycle}
    assert told == {"teller": ("safe (in victim)", "guard"), "guard": ("till (in victim)", "teller")}
    assert [row.name for row in found.threads[:2]] == [link.name for link in found.proof.cycle]
    assert len(found.threads) == examination.ROWS_MAX


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.needs("gcc")
def test_a_program_that_carries_its_library_within_itself_gets_no_proof(tmp_path: Path) -> None:
    with victim(tmp_path, CROSSED, "-static") as pid:
        assert wait_for(lambda: locked_out(pid))
        found = examine(pid, stuck=True)
    assert (found.verdict, found.proof) == (Stall.LOCK_WAIT, None)
    assert "without glibc as a shared library" in found.text


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.root
@pytest.mark.needs("gcc", "setpriv")
def test_whoever_may_not_look_says_so(tmp_path: Path) -> None:
    with victim(tmp_path, CROSSED) as pid:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                found = examine(pid, stuck=True)
                code = 0 if found.verdict is Stall.UNKNOWN and "CAP_SYS_PTRACE" in found.text else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
