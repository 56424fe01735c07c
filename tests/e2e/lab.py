"""A fleet on hosts of its own, and the faults whose causes hbagent tells apart.

Each fault says what it does, what the root is to say of it, and who may be called dead meanwhile. It is done to real
processes in network namespaces; see `hbagent.bench.hosts` for what can go wrong with those.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from hbagent.bench.hosts import PROGRAMS, Apart
from hbagent.demo.datacenter import Plan, wait_until
from tests.e2e.fleet import END_SECONDS, Fleet

#: What a test of a lab needs of the machine.
NEEDS = (pytest.mark.root, pytest.mark.needs(*PROGRAMS))
#: Of an agent with each leader: beats, reports, control.
CONNECTIONS = 3
#: cgroup version 1 has a hierarchy for freezing; version 2 has a file in each group.
_FREEZERS = (
    (Path("/sys/fs/cgroup/freezer"), "freezer.state", "FROZEN", "THAWED"),
    (Path("/sys/fs/cgroup/unified"), "cgroup.freeze", "1", "0"),
    (Path("/sys/fs/cgroup"), "cgroup.freeze", "1", "0"),
)


class Lab(Apart, Fleet):
    """A fleet that can also be cut. Several threads may hurt it."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        super().__init__(directory, plan)
        self._starter = ThreadPoolExecutor(1)
        #: Hosts whose faults are a part of them: `heal` leaves these as they are.
        self.walled: frozenset[str] = frozenset()

    def start(self, names: Iterable[str] | None = None) -> None:
        """All from one thread that stays: a process ends with the thread that started it, not only with its parent."""
        self._starter.submit(super().start, names).result()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._starter.shutdown()

    def heal(self) -> None:
        self.switch.heal(*(name for name in self.names if name not in self.walled))
        super().heal()

    def calm(self) -> bool:
        return super().calm() and all(self.rack_calm(rack) for rack in self.racks)

    def rack_calm(self, rack: str) -> bool:
        """True when all nodes of one rack are alive at the root, and connected to all its leaders again.

        The echo port of a node answers long before its connections are back, so to be alive is not enough.
        """
        leaders, states = self.leaders_of(rack), self.states()
        if any(self.processes[name].poll() is not None for name in (*leaders, *self.nodes_of(rack))):
            return False
        if any(self.connected(name, leader) != CONNECTIONS for name in self.nodes_of(rack) for leader in leaders):
            return False
        if any(states.get(self.nodes[name]) != ("ALIVE", None) for name in self.nodes_of(rack)):
            return False
        return self._leader_calm(f"demo/{rack}")

    @contextlib.contextmanager
    def in_freezer(self, name: str) -> Iterator[None]:
        """Freeze a process by its cgroup, as `docker pause` and some batch systems do."""
        group, file, on, off = _freezer()
        directory = group / f"hbagent-{os.getpid()}-{name}"
        directory.mkdir()
        try:
            (directory / "cgroup.procs").write_text(str(self.processes[name].pid))
            (directory / file).write_text(on)
            try:
                yield
            finally:
                (directory / file).write_text(off)
        finally:
            with contextlib.suppress(OSError):
                (group / "cgroup.procs").write_text(str(self.processes[name].pid))
            assert wait_until(lambda: _removed(directory), END_SECONDS), f"{directory} is left"

    def descriptors(self, name: str) -> int:
        """Open descriptors of a process."""
        return len(os.listdir(f"/proc/{self.processes[name].pid}/fd"))


def can_freeze() -> bool:
    """True when this machine lets a test freeze a process by its cgroup."""
    return os.geteuid() == 0 and any(_usable(*freezer) for freezer in _FREEZERS)


def _freezer() -> tuple[Path, str, str, str]:
    return next(freezer for freezer in _FREEZERS if _usable(*freezer))


def _usable(group: Path, file: str, on: str, off: str) -> bool:
    directory = group / f"hbagent-{os.getpid()}-look"
    try:
        directory.mkdir()
    except OSError:
        return False
    try:
        return (directory / file).exists()
    finally:
        directory.rmdir()


def _removed(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        directory.rmdir()
    return not directory.exists()


# ---- the faults whose causes are told apart ----------------------------------------------------------------


class Where(NamedTuple):
    """Whom a fault is done to."""

    lab: Lab
    rack: str
    node: str

    @property
    def leader(self) -> str:
        return self.lab.leaders_of(self.rack)[0]

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.lab.nodes_of(self.rack)


class Fault(NamedTuple):
    """One thing that goes wrong, and what is to be said of it."""

    name: str
    begin: Callable[[Where], object]
    end: Callable[[Where], object]
    #: Liveness and cause at the root.
    verdict: tuple[str, str]
    #: True when all nodes of the rack are to have that verdict, not the one alone.
    whole_rack: bool = False
    #: True when the node really is dead.
    fatal: bool = False


FAULTS = (
    Fault(
        "process-exit",
        lambda at: at.lab.kill(at.node),
        lambda at: at.lab.start([at.node]),
        ("DEAD", "process-exit"),
        fatal=True,
    ),
    Fault(
        "process-frozen",
        lambda at: at.lab.signal(at.node, signal.SIGSTOP),
        lambda at: at.lab.signal(at.node, signal.SIGCONT),
        ("SUSPECT", "process-frozen"),
    ),
    Fault(
        "host-gone",
        lambda at: at.lab.switch.isolate(at.node),
        lambda at: at.lab.switch.heal(at.node),
        ("DEAD", "host-gone"),
        fatal=True,
    ),
    Fault(
        "link-cut in",
        lambda at: at.lab.switch.cut(at.node, at.leader),
        lambda at: at.lab.switch.heal(at.node),
        ("ALIVE", "link-cut"),
    ),
    Fault(
        "link-cut out",
        lambda at: at.lab.switch.cut(at.leader, at.node),
        lambda at: at.lab.switch.heal(at.node),
        ("ALIVE", "link-cut"),
    ),
    Fault(
        "observer-stalled",
        lambda at: at.lab.signal(at.leader, signal.SIGSTOP),
        lambda at: at.lab.signal(at.leader, signal.SIGCONT),
        ("UNKNOWN", "observer-stalled"),
        whole_rack=True,
    ),
    Fault(
        "leader-lost",
        lambda at: at.lab.kill(at.leader),
        lambda at: at.lab.start([at.leader]),
        ("UNKNOWN", "leader-lost"),
        whole_rack=True,
    ),
    Fault(
        "rack-dark",
        lambda at: at.lab.switch.isolate(*at.nodes),
        lambda at: at.lab.switch.heal(*at.nodes),
        ("UNKNOWN", "rack-dark"),
        whole_rack=True,
    ),
)
