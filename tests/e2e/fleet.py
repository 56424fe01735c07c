"""A datacenter of real processes to break, and the questions that a test asks of it.

What a test knows comes from where an operator would look: the query sockets of root and leaders, the history, the
hook's file, the log. Every wait is for a condition and has a bound; the bound is there against hanging and is no
promise of speed. What was measured is handed to `figures` instead.
"""

from __future__ import annotations

import collections
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from hbagent.cli.query import Asker, Denied, NoTarget, Target, Unanswered
from hbagent.core.units import SECOND
from hbagent.demo.datacenter import Datacenter, Plan, wait_until
from hbagent.transport.allow import AllowList, load, save
from hbagent.transport.keys import KeyPair, load_secret

#: A machine that runs other tests beside these has been seen to need 8 s for eleven daemons.
START_SECONDS = 45.0
#: A daemon that was told to end has two seconds; the rest is for a busy machine.
END_SECONDS = 20.0
#: Lines of each log that a failure shows.
TAIL_LINES = 15
ALTERED = "tests.e2e.altered"
#: What may be said of any node, and of a rack, of which some process had no processor for a second.
PASSING = ("node-suspect", "node-recovered", "node-accounted")

Row = dict[str, Any]


class Fleet(Datacenter):
    """A datacenter that can be hurt and asked."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        super().__init__(directory, plan)
        #: Process name to the guard that is taken out of it (see `altered`).
        self.without: dict[str, str] = {}
        #: Process name to variables that only it gets.
        self.variables: dict[str, Mapping[str, str]] = {}

    def command(self, name: str) -> list[str]:
        command = super().command(name)
        guard = self.without.get(name)
        return command if guard is None else [*command[:2], ALTERED, guard, *command[3:]]

    def environment_of(self, name: str) -> dict[str, str]:
        return {**self.environment, **self.variables.get(name, {})}

    # ---- names -------------------------------------------------------------------------------------------

    @property
    def agents(self) -> tuple[str, ...]:
        """Process names of all agents."""
        return tuple(name for name in self.names if "-node" in name)

    @property
    def nodes(self) -> dict[str, str]:
        """Process name to node name of all agents: "rack1-node1" to "demo/rack1/node1"."""
        return {name: node_of(name) for name in self.agents}

    def keys(self, name: str) -> KeyPair:
        """The key pair of a process."""
        full = node_of(name) if "-node" in name else f"demo/{name}"
        return load_secret(self.directory / "keys" / f"{full.replace('/', '.')}.key")

    def allow_file(self, rack: str = "rack1") -> Path:
        """The allow-list of a rack's leaders, or with "root" of the root."""
        return self.directory / "etc" / f"{rack}-allow.toml"

    def edit_allowed(self, change: Callable[[AllowList], AllowList], rack: str = "rack1") -> None:
        """Write another allow-list, as `hbagent keys` does."""
        save(self.allow_file(rack), change(load(self.allow_file(rack))))

    def setting(self, name: str, key: str) -> str:
        """The first value of a key in a process's config file."""
        for line in self.config(name).read_text().splitlines():
            word, _, value = line.partition(" = ")
            if word == key:
                return value.strip('"')
        raise KeyError(key)

    # ---- processes ---------------------------------------------------------------------------------------

    def restart(self, *names: str) -> None:
        """kill -9 those that still run, and start all of them."""
        for name in names:
            if self.processes[name].poll() is None:
                self.kill(name)
        self.start(names)

    def end(self, name: str, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Ask a process to end; its exit status, and how many seconds it took."""
        begun = time.monotonic()
        self.signal(name, number)
        return self.processes[name].wait(END_SECONDS), time.monotonic() - begun

    @contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """SIGSTOP these processes, and SIGCONT them in the same order at the end."""
        for name in names:
            self.signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            for name in names:
                self.signal(name, signal.SIGCONT)

    def rss_bytes(self, name: str) -> int:
        """Resident memory of a process."""
        with open(f"/proc/{self.processes[name].pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    # ---- questions ---------------------------------------------------------------------------------------

    def ask(self, what: str, of: str = "root", **options: Any) -> Any:
        """The answer of a root or leader; None when there is none."""
        try:
            with Asker(Target(endpoint=f"ipc://{self.directory}/run/{of}.sock"), 2 * SECOND) as asker:
                return asker.ask(what, **options)
        except (Unanswered, NoTarget, Denied):
            return None

    def states(self, of: str = "root") -> dict[str, tuple[str, str | None]]:
        """Liveness and cause by node; empty when nobody answers."""
        status = self.ask("status", of) or {"nodes": []}
        return {row["node"]: (row["liveness"], row["cause"]) for row in status["nodes"]}

    def state(self, name: str, of: str = "root") -> tuple[str, str | None]:
        """Liveness and cause of an agent's node."""
        return self.states(of).get(node_of(name), ("", None))

    def liveness(self, name: str, of: str = "root") -> str:
        return self.state(name, of)[0]

    def row(self, name: str, of: str = "root") -> Row:
        """An agent's node in the answer to `status`."""
        status = self.ask("status", of) or {"nodes": []}
        return next((row for row in status["nodes"] if row["node"] == node_of(name)), {})

    def refusals(self, of: str) -> dict[str, int]:
        """How many messages a root or leader has refused, by reason."""
        return {reason: int(count) for reason, count in self._itself(of)["refused"].items()}

    def refused(self, reason: str, of: str) -> int:
        """How many messages a root or leader has refused for a reason."""
        return self.refusals(of).get(reason, 0)

    def newest(self) -> int:
        """Sequence of the newest event; what is told after it is the work of a test."""
        return int(self._itself("root")["newest_event"])

    def _itself(self, of: str) -> Row:
        """What a root or leader that runs says of itself: it may be slow to."""
        until = time.monotonic() + END_SECONDS
        status = self.ask("status", of)
        while status is None and time.monotonic() < until:
            status = self.ask("status", of)
        assert status is not None, f"{of} does not answer"
        return dict(status["root"])

    def events(self, after: int = 0, *kinds: str) -> list[Row]:
        """Events of the history, oldest first: those of some kinds, or all."""
        answer = self.ask("events", limit=10_000, after=after) or {"events": []}
        return [row for row in reversed(answer["events"]) if not kinds or row["kind"] in kinds]

    def lasting(self, after: int = 0) -> list[Row]:
        """Events without those of a doubt that passed, and without what a node tells of its silence afterwards: a
        machine that stands still for a second may have such of any node at any time."""
        return [row for row in self.events(after) if row["kind"] not in PASSING]

    def told(self) -> list[Row]:
        """What the hook was given, one document a run."""
        return [msgspec.json.decode(line) for line in whole_lines(self.hooks_file)]

    def hook_runs(self, after: int = 0, *kinds: str) -> collections.Counter[str]:
        """Runs by event id, of events after a sequence: those of some kinds, or all."""
        wanted = {row["event_id"] for row in self.events(after, *kinds)}
        return collections.Counter(row["event_id"] for row in self.told() if row["event_id"] in wanted)

    # ---- logs --------------------------------------------------------------------------------------------

    def log(self, name: str) -> str:
        """All that a process has written so far, in all its lives."""
        file = self.directory / "log" / f"{name}.log"
        # The last character may be half there.
        return file.read_text(errors="replace") if file.exists() else ""

    def lines(self, name: str, *words: str, skip: int = 0) -> list[str]:
        """Log lines that hold all these words, without the first `skip` characters of the log."""
        return [line for line in self.log(name)[skip:].splitlines() if all(word in line for word in words)]

    def tails(self) -> Iterator[tuple[str, str]]:
        """The end of each log, for a failure."""
        for name in self.names:
            process = self.processes.get(name)
            state = "not started" if process is None else "running" if process.poll() is None else process.returncode
            yield f"{name} ({state})", "\n".join(self.log(name).splitlines()[-TAIL_LINES:])

    # ---- conditions --------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], object], what: str, seconds: float = 15.0) -> float:
        """Wait for a condition; how many seconds that took. Fails with what is so instead."""
        begun = time.monotonic()
        held = wait_until(condition, seconds, step=0.02)
        assert held, f"not within {seconds} s: {what}; the root says {self.states()}"
        return time.monotonic() - begun

    def until_liveness(self, name: str, liveness: str, seconds: float = 15.0, of: str = "root") -> float:
        return self.until(lambda: self.liveness(name, of) == liveness, f"{name} {liveness}", seconds)

    def calm(self) -> bool:
        """True when all nodes are alive, all racks well, and nothing waits to be told."""
        status = self.ask("status")
        return (
            status is not None
            and len(status["nodes"]) == len(self.agents)
            and all(row["liveness"] == "ALIVE" and row["cause"] is None for row in status["nodes"])
            and all(rack["state"] == "OK" for rack in status["racks"])
            and status["root"]["hooks_waiting"] == 0
            and not status["root"]["degraded"]
            and all(self._leader_calm(rack["rack"]) for rack in status["racks"])
        )

    def _leader_calm(self, rack: str) -> bool:
        for leader in self.leaders_of(rack.rpartition("/")[2]):
            status = self.ask("status", leader)
            if status is None or any(row["liveness"] != "ALIVE" or row["age_s"] is None for row in status["nodes"]):
                return False
            if any(entry["outbox"] for one in status["racks"] for entry in one["leaders"]):
                return False
        return True

    def prove(self, racks: Iterable[str] = ()) -> None:
        """Wait until each leader, or those of these racks, knows that the echo ports of its nodes work, without which
        no end can be proved."""
        wanted = tuple(racks) or self.racks
        self.until(lambda: self._provable(wanted), "all echo ports have answered", START_SECONDS)

    def _provable(self, racks: Iterable[str]) -> bool:
        for rack in racks:
            for leader in self.leaders_of(rack):
                status = self.ask("status", leader)
                if status is None or not all(seen["echo"] for row in status["nodes"] for seen in row["observers"]):
                    return False
        return True

    def heal(self) -> None:
        """Let everything go on that stands still, and start what does not run."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
        self.start([name for name in self.names if name in self.processes and self.processes[name].poll() is not None])

    def settle(self, seconds: float = START_SECONDS) -> float:
        """Wait until everything is well again: how every row ends."""
        return self.until(self.calm, "all nodes alive and all told", seconds)

    def wake_up(self) -> None:
        """Write the files, start everything, and wait until all is well."""
        self.write()
        self.start()
        self.settle()


def node_of(name: str) -> str:
    """ "demo/rack1/node1" of "rack1-node1"."""
    rack, _, node = name.partition("-")
    return f"demo/{rack}/{node}"


def whole_lines(file: Path) -> list[str]:
    """Lines of a file to which somebody is writing; none when there is no such file yet."""
    return file.read_text(errors="replace").split("\n")[:-1] if file.exists() else []


def ids(rows: Iterable[Row]) -> list[str]:
    """Node, kind and cause of events, short enough to compare and to read in a failure."""
    return [f"{row['node'] or row['leader']} {row['kind']} {row['cause'] or ''}".rstrip() for row in rows]
