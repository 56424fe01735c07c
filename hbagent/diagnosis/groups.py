"""What the control groups of a process say: whether it is frozen, held back by a quota, under pressure.

Both versions may be mounted at once, each with some controllers (kernel documentation, cgroup-v1 and cgroup-v2). A
group that this process cannot see, as from inside a container, says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hbagent.core.units import MICROSECOND

from . import procfs

#: Resources of which version 2 tells the pressure of a group.
_PRESSURES: Final = ("cpu", "memory", "io")


class Groups:
    """The control groups of one process, found once. Nothing here raises."""

    def __init__(self, process: procfs.Process, mounts: Sequence[procfs.Mount]) -> None:
        try:
            self.paths: Mapping[str, str] = procfs.cgroup(process.read("cgroup"))
        except procfs.ProcError:
            self.paths = {}
        self._mounts = [mount for mount in mounts if mount.type in ("cgroup", "cgroup2") and mount.point]
        self._unified = self._directory("")
        self._freezer = self._directory("freezer")
        self._cpu = self._directory("cpu")

    def _directory(self, controller: str) -> str | None:
        path = self.paths.get(controller)
        if path is None:
            return None
        for mount in self._mounts:
            if controller:
                fits = mount.type == "cgroup" and controller in mount.options.split(",")
            else:
                fits = mount.type == "cgroup2"
            root = mount.root.rstrip("/")
            if fits and (path == root or path.startswith(f"{root}/")) and ".." not in path.split("/"):
                return mount.point + path[len(root) :]
        return None

    def frozen(self) -> str:
        """Why nothing of the process can run; "" when that is not so, or not known."""
        state = self._read(self._freezer, "freezer.state")
        if state is not None and state.strip() in (b"FROZEN", b"FREEZING"):
            return f"its control group {self.paths['freezer']} is frozen"
        events = self._read(self._unified, "cgroup.events")
        if events is not None and procfs.counters(events).get("frozen") == 1:
            return f"its control group {self.paths['']} is frozen"
        return ""

    def throttled_ns(self) -> int | None:
        """Time for which a quota has held the group back; None when there is no telling."""
        for directory, name, word, unit_ns in (
            (self._unified, "cpu.stat.local", "throttled_usec", MICROSECOND),
            (self._unified, "cpu.stat", "throttled_usec", MICROSECOND),
            (self._cpu, "cpu.stat", "throttled_time", 1),
        ):
            data = self._read(directory, name)
            found = procfs.counters(data).get(word) if data is not None else None
            if found is not None:
                return found * unit_ns
        return None

    def facts(self) -> dict[str, Any]:
        """All of it, for evidence."""
        pressure = {}
        for name in _PRESSURES:
            data = self._read(self._unified, f"{name}.pressure")
            try:
                found = procfs.pressure(data) if data is not None else {}
            except procfs.ProcError:
                found = {}
            if found:
                pressure[name] = found
        path = self.paths.get("") or self.paths.get("freezer") or self.paths.get("cpu") or ""
        return {"path": path, "frozen": bool(self.frozen()), "throttled_ns": self.throttled_ns(), "pressure": pressure}

    def _read(self, directory: str | None, name: str) -> bytes | None:
        if directory is None:
            return None
        try:
            return procfs.read_file(f"{directory}/{name}")
        except procfs.ProcError:
            return None
