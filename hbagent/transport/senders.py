"""Who sent a datagram: its process, as `/proc` shows it to everybody.

The kernel says which process and which user sent it; the rest is read here, at once, because the sender may be a
`systemd-notify` that ends a moment later. A process may vanish between any two reads, and its id may be given to
another: then less is known of it, and nothing wrong. Only `stat`, `status` and `cgroup` are read: none of them touches
the memory of the other process, which is what can hang.
"""

from __future__ import annotations

import os

from hbagent.core.units import SECOND

#: Generations above the sender that are looked at. A wrapper, a shell, a supervisor and a container's init are five.
ANCESTORS_MAX = 16
#: Senders whose ancestors and unit are remembered. Two reads for each of 16 ancestors are 0.3 ms; one `stat` is 15 us.
REMEMBERED_MAX = 256
#: And for how long: who lost an ancestor meanwhile is told with it for this long.
_REMEMBER_NS = 2 * SECOND
#: A `stat` has 52 numbers and a name of 64 bytes at most, a `status` some 1,500 bytes; a control group may have a
#: path of 4 KiB, and a line for each of a dozen hierarchies.
_READ = 16_384
_TICK_NS = SECOND // os.sysconf("SC_CLK_TCK")
#: What a path of control groups may hold that is no slice (systemd.unit(5)).
_UNITS = (".service", ".scope", ".socket", ".mount", ".swap")


class Process:
    """What is known of one process."""

    __slots__ = ("ancestors", "start", "unit")

    def __init__(self, start: int = 0, ancestors: tuple[int, ...] = (), unit: str = "") -> None:
        #: Clock ticks since the host's start; 0: it is gone, or not to be seen.
        self.start = start
        #: Nearest first.
        self.ancestors = ancestors
        #: "" when systemd does not run it.
        self.unit = unit


class Senders:
    """Looks senders up. Never raises for what another process does."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._known: dict[tuple[int, int, int], tuple[Process, int]] = {}

    def look(self, pid: int, sent_boot_ns: int | None, now: int) -> Process:
        """What is known of the process that sent a datagram at `sent_boot_ns` on the clock since the host's start.

        When it began after that, the id has another owner by now, and nothing is known of the sender.
        """
        found = self._stat(pid)
        if found is None:
            return Process()
        parent, start = found
        if sent_boot_ns is not None and start * _TICK_NS > sent_boot_ns:
            return Process()
        key = (pid, parent, start)
        known = self._known.get(key)
        if known is not None and now < known[1]:
            return known[0]
        self._known.pop(key, None)
        process = Process(start, self._ancestors(parent, start), self._unit(pid))
        if self.start(pid) not in (start, 0):
            # It ended in between, and its id has another owner: what was read may be that one's.
            return Process(start)
        while len(self._known) >= REMEMBERED_MAX:
            del self._known[next(iter(self._known))]
        self._known[key] = (process, now + _REMEMBER_NS)
        return process

    def user(self, pid: int) -> tuple[int, int]:
        """User and start time of a process that somebody names; (-1, 0) when it is not there."""
        start = self.start(pid)
        for line in self._read(pid, "status").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == b"Uid:" and words[1].isdigit() and start and self.start(pid) == start:
                return int(words[1]), start
        return -1, 0

    def start(self, pid: int) -> int:
        """When it began, in clock ticks; 0 when it is not there."""
        found = self._stat(pid)
        return found[1] if found is not None else 0

    def _ancestors(self, pid: int, born: int) -> tuple[int, ...]:
        found: list[int] = []
        while pid > 0 and len(found) < ANCESTORS_MAX:
            stat = self._stat(pid)
            # A parent is older than its child, or the id was given to another.
            if stat is None or stat[1] > born:
                break
            found.append(pid)
            pid, born = stat
        return tuple(found)

    def _unit(self, pid: int) -> str:
        """The system's unit. Below the first that is no slice a user's own manager may name its groups as it likes."""
        for line in self._read(pid, "cgroup").splitlines():
            hierarchy, _, rest = line.partition(b":")
            controllers, _, path = rest.partition(b":")
            if controllers == b"name=systemd" or (hierarchy == b"0" and not controllers and path != b"/"):
                for part in path.decode("utf-8", "replace").split("/"):
                    if part.endswith(_UNITS):
                        return part.removeprefix("_")
        return ""

    def _stat(self, pid: int) -> tuple[int, int] | None:
        """Parent and start time (proc(5), fields 4 and 22)."""
        # The name may hold anything, closing brackets too.
        words = self._read(pid, "stat").rpartition(b")")[2].split()
        try:
            return int(words[1]), int(words[19])
        except (IndexError, ValueError):
            return None

    def _read(self, pid: int, name: str) -> bytes:
        try:
            fd = os.open(f"{self._proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.read(fd, _READ)
        except OSError:  # ESRCH: it ended between the two
            return b""
        finally:
            os.close(fd)
