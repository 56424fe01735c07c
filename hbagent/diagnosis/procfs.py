"""What `/proc` says of a process: files that may vanish between any two reads, and text that nobody signed.

Two halves. `Process` reads: it holds the directory of one process open, so that an id that is given to somebody else
meanwhile cannot lead it astray, and whatever goes wrong is one of `ProcError`. The parsers below are total: bytes in,
a value out, or `Garbled`.

Nothing here waits for the process that it reads about, with two exceptions: `maps`, `mem` and `cmdline` wait for locks
of its memory, and a page of its memory may have to come from a filesystem that never answers. So everything here is
called in a process that can be left behind (`apart`).
"""

from __future__ import annotations

import os
from typing import Final

import msgspec

PROC: Final = "/proc"
#: `status` with the masks of 8,192 processors is 6 kB; all other small files are below 1 kB.
_SMALL: Final = 8192
#: 100,000 mappings of 80 bytes: more than the kernel allows a process by default (vm.max_map_count 65,530).
MAPS_SIZE_MAX: Final = 8 << 20
#: Some 10,000 mounts: a host of many containers.
MOUNTINFO_SIZE_MAX: Final = 2 << 20
#: Sockets that listen come first in `net/tcp`; of the others there may be a hundred thousand.
SOCKETS_SIZE_MAX: Final = 256 << 10


class ProcError(Exception):
    """Something about a process could not be read; the text is for people."""


class Gone(ProcError):
    """The process or thread has ended."""


class Denied(ProcError):
    """This host does not let us look."""


class Garbled(ProcError):
    """It reads otherwise than the kernel documents it."""


class Stat(msgspec.Struct, frozen=True, gc=False):
    """`stat` of a process or thread; kernel documentation, filesystems/proc."""

    name: str
    state: str
    parent: int
    #: Clock ticks on a processor, in user and kernel mode.
    ticks: int
    #: When it began, in clock ticks since the host did.
    start: int
    threads: int


class Status(msgspec.Struct, frozen=True, gc=False):
    """`status` of a thread."""

    name: str
    state: str
    #: Its id in the innermost pid namespace.
    inner: int
    #: Context switches, of its own will and not.
    switches: tuple[int, int]


class Mapping(msgspec.Struct, frozen=True, gc=False):
    """One line of `maps`."""

    start: int
    end: int
    #: As "rw-p".
    permissions: str
    offset: int
    device: tuple[int, int]
    inode: int
    #: As the kernel writes it: "" for anonymous memory, "[heap]", or a path, with " (deleted)" behind it.
    path: str


class Mount(msgspec.Struct, frozen=True, gc=False):
    """One line of `mountinfo`."""

    device: tuple[int, int]
    #: What of the filesystem is mounted, and where.
    root: str
    point: str
    type: str
    options: str


class Listener(msgspec.Struct, frozen=True, gc=False):
    """One listening socket of `net/tcp`."""

    address: str
    port: int
    #: Connections that are complete and that nobody has accepted.
    waiting: int
    inode: int


class Process:
    """The files of one process. Raises `ProcError` when there is none that may be seen."""

    def __init__(self, pid: int, proc: str = PROC) -> None:
        self.pid = pid
        self._fds: list[int] = []
        self._root = self._open_directory(f"{proc}/{pid}")
        try:
            self._tasks = self._open_directory("task", self._root)
        except ProcError:
            self.close()
            raise

    def _open_directory(self, path: str, at: int | None = None) -> int:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
        except OSError as error:
            raise _named(error, path) from None
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        """Let go of the directories. Harmless when repeated."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tids(self) -> list[int]:
        """Ids of its threads, lowest first."""
        try:
            found = sorted(int(name) for name in os.listdir(self._tasks) if name.isdigit())
        except OSError as error:
            raise _named(error, "task") from None
        if not found:
            raise Gone("task: no thread is left")
        return found

    def read(self, name: str, limit: int = _SMALL) -> bytes:
        """A file of the process, up to `limit` bytes."""
        return _read(name, self._root, limit)

    def read_thread(self, tid: int, name: str) -> bytes:
        """A small file of one of its threads."""
        return _read(f"{tid}/{name}", self._tasks, _SMALL)

    def open(self, name: str) -> int:
        """A file of the process, opened for reading; the caller closes it."""
        try:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._root)
        except OSError as error:
            raise _named(error, name) from None

    def sockets(self) -> dict[int, int]:
        """Inodes of its sockets, each with one of the descriptors it has."""
        found = {}
        fd = self._open_directory("fd", self._root)
        try:
            for name in os.listdir(fd):
                try:
                    target = os.readlink(name, dir_fd=fd)
                except OSError:  # closed meanwhile
                    continue
                inode = target[8:-1]
                if target.startswith("socket:[") and inode.isdigit() and name.isdigit():
                    found[int(inode)] = int(name)
        except OSError as error:
            raise _named(error, "fd") from None
        finally:
            self._fds.remove(fd)
            os.close(fd)
        return found


def read_file(path: str, limit: int = _SMALL) -> bytes:
    """A file of a kernel's filesystem, up to `limit` bytes. Raises `ProcError`."""
    return _read(path, None, limit)


def _read(path: str, at: int | None, limit: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=at)
        try:
            data = os.read(fd, limit)
            if limit == _SMALL or not data:
                return data
            parts, size = [data], len(data)
            while size < limit and (data := os.read(fd, limit - size)):
                parts.append(data)
                size += len(data)
            return b"".join(parts)
        finally:
            os.close(fd)
    except OSError as error:
        raise _named(error, path) from None


def _named(error: OSError, path: str) -> ProcError:
    if isinstance(error, (FileNotFoundError, ProcessLookupError)):
        return Gone(f"{path}: {error.strerror}")
    if isinstance(error, PermissionError):
        return Denied(f"{path}: {error.strerror}")
    return ProcError(f"{path}: {error.strerror}")


# ---- parsers -------------------------------------------------------------------------------------------------


def stat(data: bytes) -> Stat:
    """Of `stat`. The name may hold anything, brackets and line ends too; the last bracket ends it."""
    _, opened, rest = data.partition(b"(")
    name, closed, tail = rest.rpartition(b")")
    fields = tail.split()
    if not opened or not closed or len(fields) < 20:
        raise Garbled(f"stat: {data[:60]!r}")
    return Stat(
        name=_text(name),
        state=_state(fields[0]),
        parent=_integer(fields[1]),
        ticks=_integer(fields[11]) + _integer(fields[12]),
        threads=_integer(fields[17]),
        start=_integer(fields[19]),
    )


def status(data: bytes) -> Status:
    """Of `status`. Line ends in the name are escaped by the kernel."""
    if not data.startswith(b"Name:\t"):
        raise Garbled(f"status: {data[:60]!r}")
    # Of a kernel without pid namespaces: its id is the only one.
    inner = _after(data, b"\nNSpid:") if b"\nNSpid:" in data else _after(data, b"\nPid:")
    ids = inner.split()
    if not ids:
        raise Garbled("status: no id")
    return Status(
        name=_text(data[6:].partition(b"\n")[0]),
        state=_state(_after(data, b"\nState:\t")[:1]),
        inner=_integer(ids[-1]),
        switches=(
            _integer(_after(data, b"\nvoluntary_ctxt_switches:").strip()),
            _integer(_after(data, b"\nnonvoluntary_ctxt_switches:").strip()),
        ),
    )


def _after(data: bytes, word: bytes) -> bytes:
    at = data.find(word)
    if at < 0:
        raise Garbled(f"status: no {_text(word.strip())}")
    at += len(word)
    end = data.find(b"\n", at)
    return data[at:end] if end >= 0 else data[at:]


def syscall(data: bytes) -> str:
    """Of `syscall`: the line; "running", or numbers."""
    line = data.strip()
    fields = line.split()
    if line == b"running" or (len(fields) in (3, 9) and all(map(_is_number, fields))):
        return line.decode("ascii")
    raise Garbled(f"syscall: {data[:60]!r}")


def _is_number(field: bytes) -> bool:
    digits = field[2:] if field[:2] == b"0x" else field.lstrip(b"-")
    return len(field) <= 20 and digits.isalnum() and not digits.lower().strip(b"0123456789abcdef")


def schedstat(data: bytes) -> tuple[int, int]:
    """Of `schedstat`: nanoseconds on a processor, and ready without one."""
    fields = data.split()
    if len(fields) < 2:
        raise Garbled(f"schedstat: {data[:60]!r}")
    return _integer(fields[0]), _integer(fields[1])


def wchan(data: bytes) -> str:
    """Of `wchan`: a function of the kernel; "" for 0, which means running, or that we may not know."""
    text = _text(data.strip())[:64]
    return "" if text == "0" else text


def stack(data: bytes) -> tuple[str, ...]:
    """Of `stack`: the kernel's functions, innermost first."""
    found = []
    for line in data.splitlines()[:64]:
        _, closed, rest = line.partition(b"] ")
        if closed:
            found.append(_text(rest.strip())[:100])
    return tuple(found)


def maps(data: bytes) -> list[Mapping]:
    """Of `maps`, in order of address. A last line that was cut off is left out."""
    return [mapping(line) for line in data[: data.rfind(b"\n") + 1].splitlines() if line]


def mapping(line: bytes) -> Mapping:
    """Of one line of `maps`."""
    fields = line.split(None, 5)
    if len(fields) < 5:
        raise Garbled(f"maps: {line[:60]!r}")
    try:
        start, _, end = fields[0].partition(b"-")
        major, _, minor = fields[3].partition(b":")
        return Mapping(
            int(start, 16),
            int(end, 16),
            fields[1].decode("ascii"),
            int(fields[2], 16),
            (int(major, 16), int(minor, 16)),
            int(fields[4]),
            os.fsdecode(fields[5]) if len(fields) > 5 else "",
        )
    except ValueError:
        raise Garbled(f"maps: {line[:60]!r}") from None


def cgroup(data: bytes) -> dict[str, str]:
    """Of `cgroup`: the path in each hierarchy by the name of each of its controllers; "" is version 2."""
    found = {}
    for line in data.splitlines():
        _, first, rest = line.partition(b":")
        controllers, second, path = rest.partition(b":")
        if not first or not second or not path.startswith(b"/"):
            raise Garbled(f"cgroup: {line[:60]!r}")
        for name in controllers.split(b","):
            found[_text(name)] = os.fsdecode(path)
    return found


def mountinfo(data: bytes) -> list[Mount]:
    """Of `mountinfo`, in order of mounting. A last line that was cut off is left out."""
    found = []
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        left, middle, right = line.partition(b" - ")
        before, after = left.split(b" "), right.split(b" ")
        major, colon, minor = before[2].partition(b":") if len(before) > 5 else (b"", b"", b"")
        if not middle or not colon or len(after) < 3:
            raise Garbled(f"mountinfo: {line[:60]!r}")
        found.append(
            Mount(
                (_integer(major), _integer(minor)),
                _unescaped(before[3]),
                _unescaped(before[4]),
                _text(after[0]),
                os.fsdecode(after[2]),
            )
        )
    return found


def _unescaped(field: bytes) -> str:
    """Spaces, tabs, line ends and backslashes stand as octal numbers."""
    first, *others = field.split(b"\\")
    parts = [first]
    for part in others:
        digits = part[:3]
        if len(digits) == 3 and not digits.strip(b"01234567") and int(digits, 8) < 256:
            parts.append(bytes((int(digits, 8),)) + part[3:])
        else:
            parts.append(b"\\" + part)
    return os.fsdecode(b"".join(parts))


def listeners(data: bytes) -> list[Listener]:
    """Listening sockets of `net/tcp` or `net/tcp6`, which stand before all others."""
    found = []
    for line in data.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10:  # cut off
            break
        if fields[3] != b"0A":
            break
        found.append(_listener(fields))
    return found


def _listener(fields: list[bytes]) -> Listener:
    try:
        host, _, port = fields[1].partition(b":")
        _, _, waiting = fields[4].partition(b":")
        return Listener(address(host), int(port, 16), int(waiting, 16), int(fields[9]))
    except ValueError:
        raise Garbled(f"net/tcp: {b' '.join(fields)[:60]!r}") from None


def address(digits: bytes) -> str:
    """An address as the kernel writes it, in 32-bit words in the order of this host's bytes.

    Raises ValueError for what is none.
    """
    data = bytes.fromhex(digits.decode("ascii"))
    if len(data) not in (4, 16):
        raise ValueError(f"{len(data)} bytes are no address")
    words = [data[at : at + 4] for at in range(0, len(data), 4)]
    whole = b"".join(word[::-1] for word in words)
    if len(whole) == 4:
        return ".".join(map(str, whole))
    if not any(whole):
        return "[::]"
    return "[" + ":".join(f"{whole[at] << 8 | whole[at + 1]:x}" for at in range(0, 16, 2)) + "]"


def counters(data: bytes) -> dict[str, int]:
    """Of files with a word and a number on each line: `cpu.stat`, `cgroup.events`. Other lines are left out."""
    found = {}
    for line in data.splitlines():
        word, space, number = line.partition(b" ")
        if space and number.isdigit() and len(number) <= 20:
            found[_text(word)] = int(number)
    return found


def pressure(data: bytes) -> dict[str, float]:
    """Of a pressure file: per cent of the last 10 s, "some" and "full"; kernel documentation, accounting/psi."""
    found = {}
    for line in data.splitlines():
        word, _, rest = line.partition(b" ")
        name, _, number = rest.partition(b" ")[0].partition(b"=")
        if name == b"avg10":
            try:
                found[_text(word)] = float(number)
            except ValueError:
                raise Garbled(f"pressure: {line[:60]!r}") from None
    return found


def _integer(field: bytes) -> int:
    if not field.lstrip(b"-").isdigit() or len(field) > 20:
        raise Garbled(f"no number: {field[:30]!r}")
    try:
        return int(field)
    except ValueError:
        raise Garbled(f"no number: {field[:30]!r}") from None


def _state(field: bytes) -> str:
    if len(field) != 1 or not field.isalpha():
        raise Garbled(f"no state: {field[:30]!r}")
    return field.decode("ascii")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def lines(data: bytes) -> list[str]:
    """Lines of text, for people."""
    return _text(data).splitlines()
