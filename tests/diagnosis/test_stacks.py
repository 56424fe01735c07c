"""What runtimes say of their own threads: taken apart, cleaned, and asked for without harm."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.diagnosis import Look, ThreadLook
from hbagent.core.proof import Link, Proof, Sighting, Snapshot
from hbagent.demo.datacenter import wait_until
from hbagent.diagnosis import procfs, stacks
from hbagent.diagnosis.examination import investigate
from hbagent.diagnosis.helper import Request
from hbagent.diagnosis.stacks import PauseMeter, Stacks, own_stacks, parse_dump, parse_faulthandler, parse_py_spy

#: As HotSpot 17 prints it, shortened.
DUMP = """\
2026-01-02 03:04:05
Full thread dump OpenJDK 64-Bit Server VM (17.0.15+6-Debian-1deb12u1 mixed mode, sharing):

"payer" #12 prio=5 os_prio=0 tid=0x00007f4e540b72c0 nid=0x347f waiting for monitor entry  [0x00007]
   java.lang.Thread.State: BLOCKED (on object monitor)
\tat Dead.pay(Dead.java:6)
\t- waiting to lock <0x00000000ffd198c0> (a java.lang.Object)

"booker" #13 [13440] prio=5 os_prio=0 tid=0x00007f4e540b8370 nid=13440 waiting on condition  [0x00007]
   java.lang.Thread.State: WAITING (parking)
\tat jdk.internal.misc.Unsafe.park(java.base@17.0.15/Native Method)

"VM Periodic Task Thread" os_prio=0 cpu=1.69ms elapsed=1.21s tid=0x00007f4e540ade40 nid=0x347d waiting on condition

JNI global refs: 6, weak refs: 0

"""
DEADLOCK = """
Found one Java-level deadlock:
=============================
"payer":
  waiting to lock monitor 0x00007f4dbc0667f0 (object 0x00000000ffd198c0, a java.lang.Object),
  which is held by "booker"

"booker":
  waiting for ownable synchronizer 0x00000000ffd2ae28, (a java.util.concurrent.locks.ReentrantLock$NonfairSync),
  which is held by "payer"

Java stack information for the threads listed above:
===================================================
"payer":
\tat Dead.pay(Dead.java:6)
\t- waiting to lock <0x00000000ffd198c0> (a java.lang.Object)
"booker":
\tat jdk.internal.misc.Unsafe.park(java.base@17.0.15/Native Method)
\t- parking to wait for  <0x00000000ffd2ae28> (a java.util.concurrent.locks.ReentrantLock$NonfairSync)
\tat java.util.concurrent.locks.LockSupport.park(java.base@17.0.15/LockSupport.java:211)
\tat java.util.concurrent.locks.AbstractQueuedSynchronizer.acquire(java.base@17.0.15/AQS.java:715)

Found 1 deadlock.
"""
#: The ids here of the threads of these dumps.
OUTER = {0x347F: 91, 13440: 92, 0x347D: 93}
JAVA = """
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;

public class Locks {
  static final Object a = new Object(), b = new Object();
  static final ReentrantLock p = new ReentrantLock(), q = new ReentrantLock();
  static final CountDownLatch both = new CountDownLatch(2);

  static void meet() { both.countDown(); try { both.await(); } catch (InterruptedException e) { } }

  static void monitors(Object first, Object second) {
    synchronized (first) { meet(); synchronized (second) { } }
  }

  static void locks(ReentrantLock first, ReentrantLock second) { first.lock(); meet(); second.lock(); }

  static void patient(ReentrantLock first, ReentrantLock second) throws InterruptedException {
    first.lock(); meet(); second.tryLock(1, TimeUnit.HOURS);
  }

  interface Work { void run() throws Exception; }

  static void thread(String name, Work work) {
    new Thread(() -> { try { work.run(); } catch (Exception e) { } }, name).start();
  }

  public static void main(String[] args) throws Exception {
    switch (args[0]) {
      case "monitors" -> { thread("payer", () -> monitors(a, b)); thread("booker", () -> monitors(b, a)); }
      case "locks" -> { thread("payer", () -> locks(p, q)); thread("booker", () -> locks(q, p)); }
      case "forged" -> thread(args[1], () -> Thread.sleep(3_600_000));
      case "patient" -> { thread("payer", () -> patient(p, q)); thread("booker", () -> patient(q, p)); }
    }
    System.out.println("READY");
    Thread.sleep(3_600_000);
  }
}
"""
needs_java = pytest.mark.needs("java", "javac", "jcmd")
needs_py_spy = pytest.mark.skipif(not stacks.find_py_spy(), reason="needs py-spy")


# ---- Java ------------------------------------------------------------------------------------------------


def test_threads_of_a_dump_are_told_with_their_ids_and_stacks() -> None:
    threads, proof = parse_dump(DUMP.encode(), {0x347F: 91})
    assert [(thread.tid, thread.name, thread.doing, len(thread.frames)) for thread in threads] == [
        (91, "payer", "waiting for monitor entry", 2),
        (13440, "booker", "waiting on condition", 1),
        (0x347D, "VM Periodic Task Thread", "waiting on condition", 0),
    ]
    assert threads[0].frames[0] == "at Dead.pay(Dead.java:6)"
    assert proof is None


def test_a_deadlock_that_the_jvm_names_is_its_word() -> None:
    _, proof = parse_dump((DUMP + DEADLOCK).encode(), OUTER)
    assert proof is not None
    assert [(link.tid, link.name, link.kind, link.address, link.owner, link.owner_name) for link in proof.cycle] == [
        (91, "payer", "Java monitor", "0x00000000ffd198c0", 92, "booker"),
        (92, "booker", "Java ownable synchronizer", "0x00000000ffd2ae28", 91, "payer"),
    ]
    assert "its word is taken" in proof.assumes[0]
    assert proof.others == 0


@pytest.mark.parametrize(
    ("what", "by"),
    [
        # A wait that ends by itself.
        ("LockSupport.park(", "LockSupport.parkNanos("),
        # A cycle that does not close, and one whose lock nobody holds.
        ('  which is held by "payer"', '  which is held by "somebody"'),
        ('  which is held by "payer"', "  which is held by UNKNOWN_owner_addr=0x0000"),
        ("waiting to lock monitor", "waiting to read"),
        ("Java stack information", "No information"),
    ],
)
def test_a_cycle_that_does_not_hold_for_ever_is_no_proof(what: str, by: str) -> None:
    assert what in DEADLOCK
    assert parse_dump((DUMP + DEADLOCK.replace(what, by)).encode(), OUTER)[1] is None


def test_threads_of_one_name_are_not_mixed_up() -> None:
    twice = DUMP.replace('"VM Periodic Task Thread"', '"payer"')
    assert parse_dump((twice + DEADLOCK).encode(), OUTER)[1] is None


@pytest.mark.parametrize("outer", [{}, {0x347F: 91}, {13440: 92}])
def test_a_deadlock_of_threads_that_the_process_does_not_have_is_no_proof(outer: dict[int, int]) -> None:
    assert parse_dump((DUMP + DEADLOCK).encode(), outer)[1] is None


def test_a_deadlock_of_threads_that_are_not_in_the_list_is_no_proof() -> None:
    assert parse_dump((DUMP.replace('"payer"', '"buyer"') + DEADLOCK).encode(), OUTER)[1] is None


END = "JNI global refs: 6, weak refs: 0\n"


@pytest.mark.parametrize("forged", [DEADLOCK, f"\n{END}{DEADLOCK}"])
def test_a_name_in_the_list_of_threads_is_not_the_word_of_the_jvm(forged: str) -> None:
    line = '"VM Periodic Task Thread"'
    named = DUMP.replace(line, f'"x\n{forged}"')
    assert parse_dump(named.encode(), OUTER)[1] is None
    assert [thread.name for thread in parse_dump(named.encode(), OUTER)[0]][:2] == ["payer", "booker"]


@pytest.mark.parametrize("end", ["JNI global references: 11\n", END])
def test_the_list_of_threads_ends_as_each_release_ends_it(end: str) -> None:
    assert parse_dump((DUMP.replace(END, end) + DEADLOCK).encode(), OUTER)[1] is not None
    assert parse_dump((DUMP.replace(END, "") + DEADLOCK).encode(), OUTER)[1] is None
    assert parse_dump((DUMP.replace(END, f"{end}and more\n") + DEADLOCK).encode(), OUTER)[1] is None


def proof_of_thread(tid: int, kind: str) -> Proof:
    link = Link(tid=tid, name="a", kind=kind, address="0x1", owner=tid, owner_name="a")
    return Proof(cycle=(link,))


@pytest.mark.parametrize(
    ("kind", "moved", "still"),
    [
        ("Java ownable synchronizer", (0, 0), True),
        ("Java ownable synchronizer", (1, 0), False),
        ("Java ownable synchronizer", (0, 1), False),
        # Before release 24 HotSpot wakes the first that waits for a monitor itself.
        ("Java monitor", (5, 0), True),
        ("Java monitor", (0, 50), False),
        ("Java monitor", (50, 0), False),
    ],
)
def test_only_threads_that_did_not_move_are_believed_to_be_deadlocked(
    kind: str, moved: tuple[int, int], still: bool
) -> None:
    with subprocess.Popen(["sleep", "60"]) as process, procfs.Process(process.pid) as subject:
        try:
            assert wait_until(lambda: "nanosleep" in Path(f"/proc/{process.pid}/wchan").read_text(), 30)
            status = procfs.status(subject.read("status"))
            then = (status.switches[0] - moved[0], status.switches[1] - moved[1])
            snapshot = Snapshot(process.pid, process.pid, "sleep", "S", then, "")
            now_ns = time.monotonic_ns()
            look = Look(sighting=Sighting(now_ns, now_ns), threads=(ThreadLook(snapshot),))
            assert stacks.stood_still(subject, proof_of_thread(process.pid, kind), look) is still
            assert not stacks.stood_still(subject, proof_of_thread(process.pid + 1, kind), look)
            nobody = msgspec.structs.replace(look, threads=())
            assert not stacks.stood_still(subject, proof_of_thread(process.pid, kind), nobody)
            os.kill(process.pid, signal.SIGSTOP)
            assert wait_until(lambda: state(process.pid) == "T", 30)
            then = procfs.status(subject.read("status")).switches
            stopped = ThreadLook(msgspec.structs.replace(snapshot, switches=then))
            look = msgspec.structs.replace(look, threads=(stopped,))
            assert not stacks.stood_still(subject, proof_of_thread(process.pid, kind), look)
        finally:
            process.kill()


@given(st.binary() | st.text().map(lambda text: (DUMP + DEADLOCK.replace("payer", text)).encode()))
def test_any_bytes_are_a_dump_or_none(data: bytes) -> None:
    threads, proof = parse_dump(data, OUTER)
    assert len(threads) <= stacks.THREADS_MAX
    assert proof is None or isinstance(proof, Proof)


def test_a_name_cannot_make_a_pattern_slow() -> None:
    line = '"' + '" nid=' * 200_000 + "\n"
    parse_dump((line + DEADLOCK).encode())


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("java")
    (directory / "Locks.java").write_text(JAVA)
    subprocess.run(["javac", "-d", str(directory), str(directory / "Locks.java")], check=True, timeout=60)
    return directory


@contextlib.contextmanager
def jvm(classes: Path, kind: str, *options: str, argument: str = "") -> Iterator[int]:
    command = ["java", "-Xmx64m", "-XX:+UseSerialGC", *options, "-cp", str(classes), "Locks", kind, argument]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"READY\n"
            yield process.pid
        finally:
            process.kill()


def asked(pid: int) -> Stacks:
    """The answer once the two threads have met."""
    answer = Stacks(by="jvm")

    def told() -> bool:
        nonlocal answer
        answer = stacks.jvm_stacks(pid, 20)
        waiting = [thread for thread in answer.threads if thread.name in ("payer", "booker")]
        return answer.error != "" or all(("lock" in str(thread.frames)) for thread in waiting)

    assert wait_until(told, 50)
    return answer


@needs_java
@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.parametrize(("kind", "lock"), [("monitors", "Java monitor"), ("locks", "Java ownable synchronizer")])
def test_a_real_jvm_names_its_deadlock(classes: Path, kind: str, lock: str) -> None:
    with jvm(classes, kind) as pid:
        assert stacks.runtime_of(pid) == "jvm"
        assert wait_until(lambda: stacks.jvm_stacks(pid, 20).proof is not None, 50)
        answer = stacks.jvm_stacks(pid, 20)
        names = {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
    assert answer.proof is not None and answer.error == ""
    assert sorted(link.name for link in answer.proof.cycle) == ["booker", "payer"]
    assert [link.kind for link in answer.proof.cycle] == [lock, lock]
    assert [names[link.tid] for link in answer.proof.cycle] == [link.name for link in answer.proof.cycle]
    assert 0 < answer.pause_ns < answer.took_ns


@pytest.mark.usefixtures("patient")
@needs_java
@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.parametrize("kind", ["monitors", "locks"])
def test_the_deadlock_of_a_real_jvm_is_the_verdict(classes: Path, kind: str) -> None:
    with jvm(classes, kind) as pid:
        assert wait_until(lambda: stacks.jvm_stacks(pid, 20).proof is not None, 50)
        found = investigate(Request(pid=pid, stuck=True))
    assert found["verdict"] == "DEADLOCKED", found["text"]
    assert sorted(link["name"] for link in found["proof"]["cycle"]) == ["booker", "payer"]


@pytest.mark.usefixtures("patient")
@needs_java
@pytest.mark.slow
@pytest.mark.paired
def test_a_name_cannot_forge_the_word_of_a_real_jvm(classes: Path) -> None:
    name = "x\n" + DEADLOCK.replace("payer", "main").replace("booker", "Signal Dispatcher")
    with jvm(classes, "forged", argument=name) as pid:
        assert wait_until(lambda: "Found one Java-level" in str(dump_of(pid)), 50)
        assert stacks.jvm_stacks(pid, 20).proof is None
        found = investigate(Request(pid=pid, stuck=True))
    assert (found["verdict"], found["proof"]) == ("LOCK-WAIT", None)


def dump_of(pid: int) -> bytes:
    return subprocess.run(["jcmd", str(pid), "Thread.print"], capture_output=True, timeout=30).stdout


@needs_java
@pytest.mark.slow
@pytest.mark.paired
def test_threads_that_wait_for_one_another_with_a_time_limit_are_not_deadlocked(classes: Path) -> None:
    with jvm(classes, "patient") as pid:
        answer = asked(pid)
        said = dump_of(pid)
    # The JVM itself calls it one.
    assert b"Found one Java-level deadlock" in said
    assert (answer.error, answer.proof) == ("", None)


@needs_java
@pytest.mark.slow
@pytest.mark.paired
def test_a_jvm_that_a_signal_would_kill_gets_none(classes: Path) -> None:
    # Such a JVM opens its socket by itself, unless that is forbidden, too.
    with jvm(classes, "monitors", "-Xrs") as pid:
        assert stacks.jvm_stacks(pid, 20).error == ""
        assert state(pid) == "S"
    with jvm(classes, "monitors", "-Xrs", "-XX:+DisableAttachMechanism") as pid:
        assert "cannot be asked without killing it" in stacks.jvm_stacks(pid, 20).error
        assert state(pid) == "S"


@needs_java
@pytest.mark.slow
@pytest.mark.paired
def test_a_socket_that_is_not_the_jvms_is_not_believed(classes: Path) -> None:
    import socket

    with jvm(classes, "monitors") as pid, socket.socket(socket.AF_UNIX) as false:
        path = Path(f"/tmp/.java_pid{pid}")
        false.bind(str(path))
        false.listen()
        try:
            answer = stacks.jvm_stacks(pid, 30)
        finally:
            path.unlink()
    assert "is not the JVM's own socket" in answer.error


def test_without_a_jdk_and_for_what_is_gone_there_is_a_reason() -> None:
    assert stacks.jvm_stacks(os.getpid(), 1, program="").error
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    assert stacks.jvm_stacks(process.pid, 1).error


# ---- Python by py-spy ------------------------------------------------------------------------------------

LOCKED = """
import threading
a, b, both = threading.Lock(), threading.Lock(), threading.Barrier(2)
def pay(first, second):
    with first:
        both.wait()
        with second: pass
threading.Thread(target=pay, args=(a, b), name="payer").start()
threading.Thread(target=pay, args=(b, a), name="booker").start()
print("READY", flush=True)
"""
BUSY = """
import threading, time
print("READY", flush=True)
while True: time.sleep(0.0005)
"""


@contextlib.contextmanager
def python(program: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"READY\n"
            yield process.pid
        finally:
            process.kill()


@needs_py_spy
def test_both_lines_of_a_python_deadlock_are_told_without_stopping_it() -> None:
    with python(LOCKED) as pid:
        assert stacks.runtime_of(pid) == "python"
        answer = stacks.python_stacks(pid, 30)

        def both_wait() -> bool:
            nonlocal answer
            answer = stacks.python_stacks(pid, 30)
            tops = {thread.name: thread.frames[0] for thread in answer.threads}
            return tops.get("payer") == tops.get("booker") == "pay (<string>:7)"

        # They are on their way into the second lock when the program says that it is ready.
        assert wait_until(both_wait, 30), answer
    assert (answer.error, answer.pause_ns) == ("", 0)
    # Before 3.11 an interpreter does not know them itself.
    assert all(thread.tid for thread in answer.threads) is (sys.version_info >= (3, 11))


@needs_py_spy
def test_the_pause_of_a_stopping_dump_is_measured_and_over() -> None:
    with python(LOCKED) as pid:
        answer = stacks.python_stacks(pid, 30, stop=True)
        assert answer.error == ""
        assert 0 <= answer.pause_ns <= answer.took_ns
        assert wait_until(lambda: state(pid) == "S", 30)


@needs_py_spy
def test_a_dump_that_is_cut_off_leaves_nothing_stopped() -> None:
    with python(BUSY) as pid:
        for tenth_ms in range(0, 200, 7):
            stacks.python_stacks(pid, tenth_ms / 10_000, stop=True)
            assert wait_until(lambda: state(pid) in "SR", 30)


@needs_py_spy
def test_what_is_no_python_is_told_as_an_error() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        answer = stacks.python_stacks(process.pid, 30)
        process.kill()
    assert answer.error and answer.threads == ()


def test_without_py_spy_it_is_said_how_to_get_it() -> None:
    assert "pip install hbagent[stacks]" in stacks.python_stacks(os.getpid(), 1, program="").error


def test_output_of_py_spy_is_cleaned_and_capped() -> None:
    thread = {
        "os_thread_id": 7,
        "thread_name": "evil\x1b[2J",
        "active": True,
        "owns_gil": True,
        "frames": [{"name": "f\n\x07", "short_filename": None, "filename": "x.py", "line": 3}] * 100,
        "unknown": 1,
    }
    (told,) = parse_py_spy(json.dumps([thread]).encode())
    assert (told.tid, told.name, told.doing) == (7, "evil?[2J", "active, holds the GIL")
    assert (told.frames[0], len(told.frames)) == ("f ? (x.py:3)", stacks.FRAMES_MAX)
    with pytest.raises(ValueError, match="unexpected output"):
        parse_py_spy(b"{}")


def test_a_process_that_somebody_stopped_is_not_continued() -> None:
    with python(BUSY) as pid:
        os.kill(pid, 19)
        assert wait_until(lambda: state(pid) == "T", 30)
        meter = PauseMeter(pid)
        meter.look()
        meter.end()
        assert state(pid) == "T"


def test_a_process_that_a_tracer_left_stopped_goes_on() -> None:
    with python(BUSY) as pid:
        meter = PauseMeter(pid)
        meter.look()
        os.kill(pid, 19)
        assert wait_until(lambda: state(pid) == "T", 30)
        meter.end()
        assert wait_until(lambda: state(pid) in "SR", 30)
        assert meter.pause_ns > 0


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# ---- a program's own -------------------------------------------------------------------------------------


def test_stacks_that_a_program_wrote_itself_are_read() -> None:
    fd = os.memfd_create("stacks")
    os.write(fd, b"mark worker has stood at 7 for 3.0 s\n")
    faulthandler.dump_traceback(fd, all_threads=True)
    answer = own_stacks(fd)
    os.close(fd)
    assert (answer.error, answer.said) == ("", ("mark worker has stood at 7 for 3.0 s",))
    (mine,) = [thread for thread in answer.threads if thread.doing == "current"]
    assert mine.frames[0].startswith("test_stacks_that_a_program_wrote_itself_are_read (test_stacks.py:")


def test_of_several_dumps_the_last_counts() -> None:
    text = b"""Timeout (0:00:01)!
Thread 0x00007f1 (most recent call first):
  File "/a/x.py", line 1 in f
Thread 0x00007f2 [worker] (most recent call first):
  File "/a/x.py", line 2 in g
Timeout (0:00:01)!
Thread 0x00007f1 (most recent call first):
  File "/a/x.py", line 9 in f
"""
    threads, said = parse_faulthandler(text)
    assert [(thread.name, thread.frames) for thread in threads] == [("0x00007f1", ("f (x.py:9)",))]
    assert said == ("Timeout (0:00:01)!",)
    assert parse_faulthandler(
        text.partition(b"Timeout (0:00:01)!\nThread 0x00007f1 (most recent call first):\n  File")[0]
    )


def test_only_memory_files_are_read(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with tempfile.TemporaryFile(dir=tmp_path) as disk, open("/dev/zero", "rb") as device:
        for fd in (reader, device.fileno(), 9999):
            assert "not a memory file" in own_stacks(fd).error
        if os.statvfs(tmp_path).f_fsid != os.statvfs("/dev/shm").f_fsid:
            assert "not a memory file" in own_stacks(disk.fileno()).error
    os.close(reader)
    os.close(writer)


def test_a_huge_or_empty_memory_file_is_no_trouble() -> None:
    fd = os.memfd_create("stacks")
    assert own_stacks(fd).error == "the program wrote none"
    os.ftruncate(fd, 1 << 40)
    assert own_stacks(fd).threads == ()
    os.close(fd)


@given(st.binary(max_size=400))
def test_any_bytes_are_stacks_or_none(data: bytes) -> None:
    head = b"Thread 0x00007f1 (most recent call first):\n"
    for text in (data, head + data):
        threads, said = parse_faulthandler(text)
        assert all(line.isprintable() for thread in threads for line in (thread.name, *thread.frames))
        assert all(line.isprintable() for line in said)


def test_many_threads_are_told_up_to_a_bound() -> None:
    text = b"".join(b'Thread 0x%x (most recent call first):\n  File "x", line 1 in f\n' % at for at in range(1000))
    assert len(parse_faulthandler(text)[0]) == stacks.THREADS_MAX


def test_thread_ids_are_found_as_the_process_knows_them() -> None:
    barrier = threading.Event()
    other = threading.Thread(target=barrier.wait)
    other.start()
    try:
        assert stacks.inner_ids(os.getpid())[other.native_id or 0] == other.native_id
    finally:
        barrier.set()
        other.join()
