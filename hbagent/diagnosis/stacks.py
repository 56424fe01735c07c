"""What the runtime of a language knows of its own threads: stacks by source line, and deadlocks that it names itself.

The kernel sees a Python lock as a wait like any other, and a Java monitor not at all. Three who know more are asked,
each only where it can do no harm:

- Python by `py-spy`, which reads the memory of the process and does not stop it. Only when that fails, and only at
  the end of an examination, may it stop the process, within a time limit; for how long is measured.
- The JVM by the socket that it opens for its own tools, through which `jcmd` asks too. If it has not opened it yet,
  `jcmd` makes it do so, for which it sends SIGQUIT: never to a JVM that does not catch it (-Xrs), for it would die. A
  thread dump holds up all threads of a JVM for a moment, so it is asked at the end. When it names a deadlock, that is
  a proof by the JVM's own word: where that stands behind the list of threads, whose names may hold anything, and when
  the kernel knows these threads and has not seen them move.
- A program that wrote its stacks itself, with Python's faulthandler, into a memory file that it handed over.

Everything that comes back is the word of the looked-at process: cleaned, capped, and believed about itself alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import stat
import struct
import time
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from hbagent.core.diagnosis import Look
from hbagent.core.proof import Link, Proof
from hbagent.core.units import MILLISECOND, SECOND

from . import procfs, tool

#: A thread dump of some 10,000 Java threads; the deadlocks stand at its end.
DUMP_MAX = 8 << 20
#: Of a memory file with stacks: what 100 threads of 20 frames each take.
OWN_STACKS_MAX = 64 << 10
#: A stack is read from the top; what lies under 64 frames is the runtime's own start, or the same recursion.
FRAMES_MAX = 64
#: Lines that a program writes before its stacks.
SAID_MAX = 16
#: Threads that are told; more do not fit into a bundle.
THREADS_MAX = 256
LINE_MAX = 240
#: Of `maps`, to find out which runtime a process has loaded: some 10,000 mappings.
MAPS_MAX = 1 << 20
#: A look that does not stop the process may find it in the middle of a change.
TRIES = 3
JCMD_PLACES = ("/usr/local/bin", "/usr/bin", "/usr/lib/jvm/*/bin", "/opt/*/bin")

#: fcntl(2): which changes of a memory file are forbidden. Works on files in memory only.
_GET_SEALS = 1034
_THREAD = re.compile(r'"(?P<name>.*)" .*?(?:\bnid=(?P<nid>0x[0-9a-f]+|\d+) (?P<doing>[^\[]*)(?:\[.*)?)')
_WAITS = re.compile(
    r"  waiting (?:to lock|for) (?:JVMTI raw )?(?P<kind>monitor|ownable synchronizer) (?P<address>0x[0-9a-f]+),? "
    r"\((?:object (?P<object>0x[0-9a-f]+), )?(?P<what>.*)\),?"
)
_HELD = re.compile(r'  which is held by "(?P<owner>.*)"')
_DEADLOCK = "Found one Java-level deadlock:"
#: The line that ends the list of threads.
_LIST_ENDS = re.compile(r"^JNI global ref(?:s|erences): [0-9]+(?:, weak refs: [0-9]+)?$", re.MULTILINE)
#: HotSpot before release 24 wakes the first that waits for a monitor after 1, 8, 64 and 512 ms, and then each second.
_EARLY_WAKES = 4
_WAKES_EVERY_NS = SECOND
#: A thread may have any name, and patterns take the square of a line's length.
_JAVA_LINE_MAX = 1000
#: A wait without a time limit; a timed one is in `parkNanos` or `parkUntil`.
_PARKED = "java.util.concurrent.locks.LockSupport.park("
_OWN_THREAD = re.compile(
    r"(?:Current thread|Thread) (?P<id>0x[0-9a-f]+)(?: \[(?P<name>.*)\])? \(most recent call first\):"
)

_MONITOR = "Java monitor"
JVM_ASSUMES = ("the JVM names this deadlock itself, and its word is taken for it", "nobody interrupts these threads")


class ThreadStack(msgspec.Struct, frozen=True, kw_only=True):
    """One thread, as its runtime tells it."""

    #: 0 when the runtime does not say.
    tid: int = 0
    name: str = ""
    #: What it is doing, in the runtime's words: "holds the GIL", "waiting for monitor entry".
    doing: str = ""
    #: From the top: "payer (billing.py:41)".
    frames: tuple[str, ...] = ()


class Stacks(msgspec.Struct, frozen=True, kw_only=True):
    """What one source told."""

    #: py-spy, jvm, faulthandler
    by: str
    threads: tuple[ThreadStack, ...] = ()
    #: What else it said: which mark stands still.
    said: tuple[str, ...] = ()
    #: Why there is nothing, and what would help.
    error: str = ""
    #: A deadlock that the runtime names itself.
    proof: Proof | None = None
    #: For how long the process was stopped for it, at most.
    pause_ns: int = 0
    took_ns: int = 0


def runtime_of(pid: int) -> str:
    """ "python", "jvm" or "": what runs the program, by its executable and by the libraries that it has loaded.

    Reads `maps`, which hangs when the process does so in a fault: call it in a process that may be left behind.
    Raises OSError.
    """
    name = os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    if re.fullmatch(r"(python|pypy)[0-9.]*[a-z]*", name):
        return "python"
    if name == "java":
        return "jvm"
    with open(f"/proc/{pid}/maps", "rb") as file:
        maps = file.read(MAPS_MAX)
    if b"/libjvm.so" in maps:
        return "jvm"
    return "python" if re.search(rb"/libpython[0-9.]+(?:\.so|[a-z]*\.so)", maps) else ""


# ---- Python ----------------------------------------------------------------------------------------------


def find_py_spy() -> str:
    """Path of py-spy; "" when it is not installed."""
    return tool.find("py-spy")


def python_stacks(pid: int, seconds: float, stop: bool = False, program: str | None = None) -> Stacks:
    """The Python stacks of a process, by py-spy. With `stop` it may stop the process while it looks."""
    program = find_py_spy() if program is None else program
    if not program:
        return Stacks(by="py-spy", error="py-spy is not installed (pip install hbagent[stacks])")
    argv = [program, "dump", "--json", "--pid", str(pid)]
    begin_ns = time.monotonic_ns()
    deadline_ns = begin_ns + round(seconds * 1e9)
    error = ""
    for _ in range(1 if stop else TRIES):
        left_s = (deadline_ns - time.monotonic_ns()) / 1e9
        if left_s <= 0:
            break
        pause = PauseMeter(pid)
        done = (
            tool.run(argv, left_s, DUMP_MAX, pause.look)
            if stop
            else tool.run([*argv, "--nonblocking"], left_s, DUMP_MAX)
        )
        if stop:
            pause.end()
        took_ns = time.monotonic_ns() - begin_ns
        error = done.error
        if not error:
            try:
                threads = parse_py_spy(done.output)
            except ValueError as problem:
                error = f"py-spy: {problem}"
            else:
                return Stacks(by="py-spy", threads=threads, pause_ns=pause.pause_ns, took_ns=took_ns)
        elif stop:
            return Stacks(by="py-spy", error=clean(error), pause_ns=pause.pause_ns, took_ns=took_ns)
    return Stacks(by="py-spy", error=clean(error or "timeout"), took_ns=time.monotonic_ns() - begin_ns)


class _Frame(msgspec.Struct):
    name: str
    short_filename: str | None = None
    filename: str = ""
    line: int = 0


class _PySpyThread(msgspec.Struct):
    os_thread_id: int | None = None
    thread_name: str | None = None
    active: bool = False
    owns_gil: bool = False
    frames: list[_Frame] = []


def parse_py_spy(output: bytes) -> tuple[ThreadStack, ...]:
    """The threads in the output of `py-spy dump --json`. Raises ValueError when it is anything else."""
    try:
        threads = msgspec.json.decode(output, type=list[_PySpyThread])
    except msgspec.DecodeError as error:
        raise ValueError(f"unexpected output: {error}") from None
    return tuple(
        ThreadStack(
            tid=thread.os_thread_id or 0,
            name=clean(thread.thread_name or "", 64),
            doing=", ".join(word for word, so in (("active", thread.active), ("holds the GIL", thread.owns_gil)) if so)
            or "idle",
            frames=tuple(
                clean(f"{frame.name} ({frame.short_filename or frame.filename}:{frame.line})")
                for frame in thread.frames[:FRAMES_MAX]
            ),
        )
        for thread in threads[:THREADS_MAX]
    )


class PauseMeter:
    """For how long a process is stopped by a tracer, seen from outside: the time around every look that finds it so.

    Too much rather than too little: from the last look that found it running to the first that does again.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pause_ns = 0
        #: It was stopped before we came, by somebody else.
        self._before = self._state()
        self._free_ns = time.monotonic_ns()
        self._stopped = False

    def look(self) -> None:
        """Call this often."""
        now_ns = time.monotonic_ns()
        stopped = self._state() == "t"
        if not stopped:
            if self._stopped:
                self.pause_ns += now_ns - self._free_ns
            self._free_ns = now_ns
        self._stopped = stopped

    def end(self) -> None:
        """The tracer is gone. A process that it left stopped goes on."""
        self.look()
        # A tracer of the older kind that is killed may leave its SIGSTOP behind.
        if self._state() == "T" and self._before not in "Tt":
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGCONT)
            self.pause_ns += time.monotonic_ns() - self._free_ns
        self._stopped = False

    def _state(self) -> str:
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read(512).rpartition(b") ")[2][:1].decode()
        except OSError:
            return "X"


# ---- JVM -------------------------------------------------------------------------------------------------


def find_jcmd() -> str:
    """Path of a JDK's `jcmd`; "" when there is none."""
    return tool.find("jcmd", JCMD_PLACES)


def jvm_stacks(pid: int, seconds: float, program: str | None = None) -> Stacks:
    """The thread dump of a JVM, and the deadlock that it names. All of its threads wait for a moment meanwhile."""
    begin_ns = time.monotonic_ns()
    deadline_ns = begin_ns + round(seconds * 1e9)
    try:
        dump, pause_ns = _dump(pid, deadline_ns, find_jcmd() if program is None else program)
    except (OSError, ValueError) as error:
        took_ns = time.monotonic_ns() - begin_ns
        return Stacks(by="jvm", error=clean(_reason(error)), took_ns=took_ns)
    threads, proof = parse_dump(dump, inner_ids(pid))
    return Stacks(by="jvm", threads=threads, proof=proof, pause_ns=pause_ns, took_ns=time.monotonic_ns() - begin_ns)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError):
        return "the JVM belongs to another user, and answers only to that one and to root"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _dump(pid: int, deadline_ns: int, jcmd: str) -> tuple[bytes, int]:
    """The dump, and how long the JVM took for it. Raises OSError, ValueError."""
    status = _status(pid)
    uid = int(status["Uid"].split()[1])
    if os.geteuid() not in (0, uid):
        raise PermissionError
    # Of a JVM in a container, the id inside and its own /tmp.
    path = f"/proc/{pid}/root/tmp/.java_pid{status['NSpid'].split()[-1]}"
    if not _is_socket(path):
        if not int(status["SigCgt"], 16) >> (signal.SIGQUIT - 1) & 1:
            raise ValueError("the JVM does not catch SIGQUIT (-Xrs), and cannot be asked without killing it")
        if not jcmd:
            raise ValueError("no JDK with jcmd is installed, and nobody has asked this JVM before")
        done = tool.run([jcmd, str(pid), "VM.version"], _left_s(deadline_ns), DUMP_MAX)
        if done.error:
            raise ValueError(f"jcmd: {done.error}")
    return _ask_jvm(path, pid, deadline_ns)


def _ask_jvm(path: str, pid: int, deadline_ns: int) -> tuple[bytes, int]:
    """The answer to Thread.print over the socket that HotSpot opens for its tools (attachListener: "1", then command
    and three arguments, each ended by NUL; the answer is a result code, a line end, and text)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(_left_s(deadline_ns))
        link.connect(path)
        # The name lies in a directory that anybody may write to.
        credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", credentials)[0] != pid:
            raise ValueError(f"{path} is not the JVM's own socket")
        begin_ns = time.monotonic_ns()
        link.sendall(b"1\0jcmd\0Thread.print\0\0\0")
        answer = bytearray()
        while data := link.recv(1 << 16):
            answer += data
            if len(answer) > DUMP_MAX:
                raise ValueError(f"a thread dump of more than {DUMP_MAX >> 20} MiB")
            link.settimeout(_left_s(deadline_ns))
        pause_ns = time.monotonic_ns() - begin_ns
    code, _, dump = bytes(answer).partition(b"\n")
    if code != b"0":
        raise ValueError(f"the JVM refused: {answer[:200].decode(errors='replace')}")
    return dump, pause_ns


def _left_s(deadline_ns: int) -> float:
    left_ns = deadline_ns - time.monotonic_ns()
    if left_ns < MILLISECOND:
        raise TimeoutError("timeout")
    return left_ns / 1e9


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def parse_dump(dump: bytes, outer: Mapping[int, int] | None = None) -> tuple[tuple[ThreadStack, ...], Proof | None]:
    """Threads and the first proved deadlock of a HotSpot thread dump; `outer` has the ids here of thread ids inside.

    A deadlock counts only behind the list of threads, and when all of its threads are in that list and in `outer`.
    Total: what is no dump has no threads and no deadlock.
    """
    text = dump.decode(errors="replace")
    ends = list(_LIST_ENDS.finditer(text))
    head = text[: ends[-1].start()] if ends else text.partition(f"\n{_DEADLOCK}\n")[0]
    # A name with such a line in it could be anywhere.
    between, *deadlocks = text[ends[0].end() :].split(f"\n{_DEADLOCK}\n") if len(ends) == 1 else ("",)
    threads: list[ThreadStack] = []
    for block in _blocks(head.splitlines()):
        thread = _java_thread(block, outer or {})
        if thread is not None and len(threads) < THREADS_MAX:
            threads.append(thread)
    tids = _java_tids(head, outer or {}) if deadlocks and not between.strip() else {}
    cycles = [
        tuple(msgspec.structs.replace(link, tid=tids[link.name], owner=tids[link.owner_name]) for link in cycle)
        for cycle in map(_java_cycle, deadlocks)
        if cycle and all(tids.get(link.name) and tids.get(link.owner_name) for link in cycle)
    ]
    if not cycles:
        return tuple(threads), None
    return tuple(threads), Proof(cycle=cycles[0], others=len(cycles) - 1, assumes=JVM_ASSUMES)


def stood_still(process: procfs.Process, proof: Proof, first: Look) -> bool:
    """Whether the threads of a proof by the JVM's word sleep, and have not run since the first look but for what
    HotSpot itself does to those that wait for a monitor."""
    before = {thread.snapshot.tid: thread.snapshot.switches for thread in first.threads}
    wakes = _EARLY_WAKES + 1 + (time.monotonic_ns() - first.sighting.begun_ns) // _WAKES_EVERY_NS
    for link in proof.cycle:
        try:
            now = procfs.status(process.read_thread(link.tid, "status"))
        except procfs.ProcError:
            return False
        then = before.get(link.tid)
        allowed = wakes if link.kind == _MONITOR else 0
        if now.state != "S" or then is None or any(b - a > allowed for a, b in zip(then, now.switches, strict=True)):
            return False
    return True


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """The lines of each thread: from one that begins with a quoted name to the next empty one."""
    block: list[str] = []
    for line in lines:
        line = line[:_JAVA_LINE_MAX]
        if line.startswith('"'):
            if block:
                yield block
            block = [line]
        elif block and line:
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block


def _java_thread(block: list[str], outer: Mapping[int, int]) -> ThreadStack | None:
    match = _THREAD.fullmatch(block[0])
    if not match:
        return None
    return ThreadStack(
        tid=_tid(match, outer),
        name=clean(match["name"], 64),
        doing=clean(match["doing"].strip(), 64),
        frames=tuple(clean(line.strip()) for line in block[1:] if line.startswith("\t"))[:FRAMES_MAX],
    )


def _java_tids(head: str, outer: Mapping[int, int]) -> dict[str, int]:
    """Thread ids by name; 0 for a name that several threads have, and for one that is no thread of the process."""
    tids: dict[str, int] = {}
    for match in filter(None, (_THREAD.fullmatch(block[0]) for block in _blocks(head.splitlines()))):
        name = clean(match["name"], 64)
        tids[name] = 0 if name in tids else outer.get(int(match["nid"], 0), 0)
    return tids


def _tid(match: re.Match[str], outer: Mapping[int, int]) -> int:
    inner = int(match["nid"], 0)
    return outer.get(inner, inner)


def _java_cycle(text: str) -> tuple[Link, ...]:
    """The cycle that a section "Found one Java-level deadlock" tells; empty when it is none that holds for ever.

    The JVM also calls a cycle of timed `tryLock` calls a deadlock: such a thread waits in `LockSupport.parkNanos`.
    """
    told, _, stacks = text.partition("\nJava stack information for the threads listed above:\n")
    parked: dict[str, bool] = {}
    for block in _blocks(stacks.splitlines()):
        name = clean(block[0][1:].rpartition('"')[0], 64)
        # Two threads of one name: both must.
        parked[name] = parked.get(name, True) and any(_PARKED in line for line in block[:4])
    links = []
    for block in _blocks(told.splitlines()):
        waits = _WAITS.fullmatch(block[1]) if len(block) > 2 else None
        held = _HELD.fullmatch(block[2]) if len(block) > 2 else None
        name = clean(block[0][1:].rpartition('"')[0], 64)
        if not waits or not held or (waits["kind"] != "monitor" and not parked.get(name)):
            return ()
        address = waits["object"] or waits["address"]
        links.append(
            Link(
                tid=0,
                name=name,
                kind=_MONITOR if waits["kind"] == "monitor" else "Java ownable synchronizer",
                address=address,
                owner=0,
                owner_name=clean(held["owner"], 64),
                symbol=clean(f"{address} ({waits['what']})"),
            )
        )
    closed = all(link.owner_name == links[at - len(links) + 1].name for at, link in enumerate(links))
    return tuple(links) if closed else ()


# ---- a program's own stacks ------------------------------------------------------------------------------


def own_stacks(fd: int) -> Stacks:
    """The stacks that a program wrote into the memory file `fd` itself; the newest when there are several.

    Only a file in memory is read: of any other a read may hang.
    """
    try:
        fcntl.fcntl(fd, _GET_SEALS)
        size = os.fstat(fd).st_size
        data = os.pread(fd, OWN_STACKS_MAX, max(0, size - OWN_STACKS_MAX))
    except OSError as error:
        return Stacks(by="faulthandler", error=f"not a memory file: {error.strerror}")
    threads, said = parse_faulthandler(data)
    return Stacks(by="faulthandler", threads=threads, said=said, error="" if threads else "the program wrote none")


def parse_faulthandler(data: bytes) -> tuple[tuple[ThreadStack, ...], tuple[str, ...]]:
    """The threads of the last dump that Python's faulthandler wrote, and the lines before any. Total: what is no dump
    has no threads."""
    threads: dict[str, ThreadStack] = {}
    frames: list[str] = []
    said: list[str] = []
    for line in data.replace(b"\0", b"").decode(errors="replace").splitlines():
        head = _OWN_THREAD.fullmatch(line)
        if head:
            # The same thread again is the beginning of a later dump.
            if head["id"] in threads:
                threads.clear()
            frames = []
            doing = "current" if line.startswith("Current") else ""
            if len(threads) < THREADS_MAX:
                threads[head["id"]] = ThreadStack(name=clean(head["name"] or head["id"], 64), doing=doing)
        elif threads and line.startswith("  ") and len(frames) < FRAMES_MAX:
            frames.append(_own_frame(line.strip()))
            last = next(reversed(threads))
            threads[last] = msgspec.structs.replace(threads[last], frames=tuple(frames))
        elif line and not threads and len(said) < SAID_MAX:
            said.append(clean(line))
    return tuple(threads.values()), tuple(said)


def _own_frame(line: str) -> str:
    match = re.fullmatch(r'File "(.*)", line (\d+) in (.*)', line)
    return clean(f"{match[3]} ({os.path.basename(match[1])}:{match[2]})" if match else line)


# ---- helpers ---------------------------------------------------------------------------------------------


def clean(text: str, length_max: int = LINE_MAX) -> str:
    """One line of a program's words, fit for a terminal."""
    text = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text[: 4 * length_max].split()))
    return text if len(text) <= length_max else text[: length_max - 1] + "…"


def inner_ids(pid: int) -> dict[int, int]:
    """Thread id in the innermost pid namespace -> thread id here, of all threads of a process."""
    found = {}
    with contextlib.suppress(OSError):
        for tid in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError, KeyError, ValueError):
                found[int(_status(int(tid))["NSpid"].split()[-1])] = int(tid)
    return found


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", "rb") as file:
        lines = file.read(1 << 14).decode(errors="replace").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
