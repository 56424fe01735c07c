"""A whole datacenter on loopback: one real process per root, leader and agent, with real keys and free ports.

Everything lies in one directory: `etc/<name>.toml`, `keys/`, `run/<name>.pid`, `log/<name>.log`, `state/<name>/`, and
`hooks.jsonl`, to which the demo's hook appends each event it is told. It is also how the tests build theirs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from hbagent.core.states import Kind
from hbagent.role.settings.schema import HOOK_KINDS
from hbagent.transport.allow import AllowList, Role, save
from hbagent.transport.keys import KeyPair, generate

#: A process that was told to end gets this long before it is killed: a farewell takes a second at most.
STOP_SECONDS = 3.0
#: The application of a plan with one, as process and as application; its marks must move within this.
SHOP = "shop"
SHOP_WINDOW_S = 3.0
_PR_SET_PDEATHSIG = 1
#: Whoever tries things out wants to see each by itself; a real root folds what comes too often or all at once.
_EACH_BY_ITSELF = {
    "flap": ("start = 1000",),
    "brake": ("node_max = 1000", "rack_max = 1000", "all_max = 10000"),
}
_TOLD = [kind.value for kind in HOOK_KINDS if kind not in (Kind.NODE_UNKNOWN, Kind.WATCHDOG)]

#: Keys, publish port and control port of a rack's leaders, by process name.
Leaders = dict[str, tuple[KeyPair, int, int]]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How large, how fast, and with which extra lines of config."""

    racks: int = 2
    nodes: int = 4
    leaders: int = 1
    interval: str = "250ms"
    reconnect: tuple[str, str] = ("100ms", "300ms")
    #: Lines added to the first table ([agent], [leader], [root]) of each file of that role.
    agent_lines: tuple[str, ...] = ()
    leader_lines: tuple[str, ...] = ()
    root_lines: tuple[str, ...] = ()
    #: Lines of [prober] of each agent's file. A laptop's full disk is not what a demo is about.
    prober_lines: tuple[str, ...] = ("defaults = false",)
    #: An application under the first agent, `demo.victim`, that deadlocks when it is told to.
    shop: bool = False
    #: A status page, at `Datacenter.page`.
    page: bool = False
    #: Tables added at the end of each file of that role.
    agent_tables: str = ""
    leader_tables: str = ""
    root_tables: str = ""


class Datacenter:
    """Writes the files of a plan and runs its processes. It ends what it started, and restarts nothing."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        self.directory = directory.resolve()
        self.plan = plan
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        count = 3 + 2 * plan.racks * plan.leaders + plan.racks * plan.nodes
        self._holding = contextlib.ExitStack()
        *self._ports, self._page_port = self._holding.enter_context(held_ports(count))
        # Whoever looks at a datacenter and runs none need not end it.
        weakref.finalize(self, self._holding.close)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2"}

    # ---- names -------------------------------------------------------------------------------------------

    @property
    def racks(self) -> tuple[str, ...]:
        """Short names of the racks."""
        return tuple(f"rack{number}" for number in range(1, self.plan.racks + 1))

    def leaders_of(self, rack: str) -> tuple[str, ...]:
        """Process names of a rack's leaders, as "rack1-leader1"."""
        return tuple(f"{rack}-leader{number}" for number in range(1, self.plan.leaders + 1))

    def nodes_of(self, rack: str) -> tuple[str, ...]:
        """Process names of a rack's agents, as "rack1-node1"."""
        return tuple(f"{rack}-node{number}" for number in range(1, self.plan.nodes + 1))

    @property
    def names(self) -> tuple[str, ...]:
        """Every process, in the order in which they are started."""
        leaders = [leader for rack in self.racks for leader in self.leaders_of(rack)]
        nodes = [node for rack in self.racks for node in self.nodes_of(rack)]
        return ("root", *leaders, *nodes, *((SHOP,) if self.plan.shop else ()))

    def address_of(self, name: str) -> str:
        """Where a process listens."""
        return "127.0.0.1"

    def config(self, name: str) -> Path:
        """The config file of a process."""
        return self.directory / "etc" / f"{name}.toml"

    def notify_socket(self, name: str) -> Path:
        """Where applications report to the prober of an agent."""
        return self.directory / "run" / f"{name}.notify"

    @property
    def page(self) -> str:
        """Where the root's status page is, when the plan has one."""
        return f"http://127.0.0.1:{self._page_port}/"

    @property
    def hooks_file(self) -> Path:
        """Where the demo's hook writes what it was told, one JSON document a line."""
        return self.directory / "hooks.jsonl"

    # ---- files -------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Make the directory anew: keys are kept, everything that an earlier run left is removed.

        Raises OSError, and RuntimeError when another datacenter runs there.
        """
        self._refuse_if_running()
        for old in ("state", "run", "log"):
            shutil.rmtree(self.directory / old, ignore_errors=True)
        self.hooks_file.unlink(missing_ok=True)
        for new in ("etc", "keys", "run", "log", "state"):
            (self.directory / new).mkdir(mode=0o700, parents=True, exist_ok=True)
        ports = iter(self._ports)
        root_keys = generate("demo/root", self.directory / "keys")
        root_ports = (next(ports), next(ports))
        leader_allow = AllowList()
        for rack in self.racks:
            leaders = {}
            for leader in self.leaders_of(rack):
                keys = generate(f"demo/{leader}", self.directory / "keys")
                leaders[leader] = (keys, next(ports), next(ports))
                leader_allow = leader_allow.allow(Role.LEADER, f"demo/{leader}", keys.public)
            agent_allow = AllowList()
            for node in self.nodes_of(rack):
                full = f"demo/{rack}/{node.partition('-')[2]}"
                agent_allow = agent_allow.allow(Role.AGENT, full, generate(full, self.directory / "keys").public)
                self._write_agent(node, full, leaders, next(ports))
            save(self.directory / "etc" / f"{rack}-allow.toml", agent_allow)
            for leader in leaders:
                self._write_leader(leader, rack, leaders, root_keys, root_ports)
        save(self.directory / "etc" / "root-allow.toml", leader_allow)
        self._write_root(root_ports)

    def _write_agent(self, name: str, node: str, leaders: Leaders, echo_port: int) -> None:
        text = [
            "[agent]",
            f'node = "{node}"',
            f'interval = "{self.plan.interval}"',
            *self.plan.agent_lines,
            "[security]",
            f'key = "../keys/{node.replace("/", ".")}.key"',
            "[echo]",
            f'bind = "{self.address_of(name)}"',
            f"port = {echo_port}",
            "[network]",
            f'reconnect_min = "{self.plan.reconnect[0]}"',
            f'reconnect_max = "{self.plan.reconnect[1]}"',
            "[prober]",
            f'notify = "{self.notify_socket(name)}"',
            f'state_dir = "{self.directory}/state/{name}"',
            'helper = ""',
            *self.plan.prober_lines,
        ]
        for leader, (keys, publish, control) in leaders.items():
            text += ["[[leader]]", *self._endpoint(leader, publish, control, keys)]
        text.append(self.plan.agent_tables)
        self._write_config(name, text)

    def _write_leader(
        self, name: str, rack: str, leaders: Leaders, root_keys: KeyPair, root_ports: tuple[int, int]
    ) -> None:
        nodes = ", ".join(f'"{node.partition("-")[2]}"' for node in self.nodes_of(rack))
        text = [
            "[leader]",
            f'name = "demo/{name}"',
            *self._binding(name, leaders[name][1:]),
            *self.plan.leader_lines,
            "[security]",
            f'key = "../keys/demo.{name}.key"',
            f'allow = "{rack}-allow.toml"',
            "[root]",
            *self._endpoint("root", *root_ports, root_keys),
            "[[rack]]",
            f'name = "demo/{rack}"',
            f"nodes = [{nodes}]",
        ]
        for peer, (keys, _, control) in leaders.items():
            if peer != name:
                text += ["[[peer]]", *self._endpoint(peer, None, control, keys)]
        text.append(self.plan.leader_tables)
        self._write_config(name, text)

    def _write_root(self, ports: tuple[int, int]) -> None:
        hook = self.directory / "etc" / "hook"
        # One printf is one write: two hooks at once do not mix their lines.
        hook.write_text(f"#!/bin/sh\nline=$(cat)\nprintf '%s\\n' \"$line\" >>'{self.hooks_file}'\n")
        hook.chmod(0o700)
        text = ["[root]", 'name = "demo/root"', *self._binding("root", ports), *self.plan.root_lines]
        if not any(line.startswith("lease") for line in self.plan.root_lines):
            # Three summaries: who watches a demo does not wait for five.
            text.append('lease = "3s"')
        if not any(line.startswith("settle") for line in self.plan.root_lines):
            # Four beats: on loopback nothing takes longer to be heard again.
            text.append('settle = "1s"')
        text += ["[security]", 'key = "../keys/demo.root.key"', 'allow = "root-allow.toml"']
        if self.plan.page:
            text += ["[web]", f'listen = "127.0.0.1:{self._page_port}"']
        for rack in self.racks:
            names = ", ".join(f'"demo/{leader}"' for leader in self.leaders_of(rack))
            text += ["[[rack]]", f'name = "demo/{rack}"', f"leaders = [{names}]"]
        kinds = ", ".join(f'"{kind}"' for kind in _TOLD)
        text += ["[[hook]]", 'name = "demo"', f'command = ["{hook}"]', f"on = [{kinds}]", self.plan.root_tables]
        for table, lines in _EACH_BY_ITSELF.items():
            if f"[{table}]" not in self.plan.root_tables:
                text += [f"[{table}]", *lines]
        self._write_config("root", text)

    def _binding(self, name: str, ports: tuple[int, int]) -> list[str]:
        return [
            f'publish = "tcp://{self.address_of(name)}:{ports[0]}"',
            f'control = "tcp://{self.address_of(name)}:{ports[1]}"',
            f'query = "ipc://{self.directory}/run/{name}.sock"',
            f'state_dir = "{self.directory}/state/{name}"',
        ]

    def _endpoint(self, name: str, publish: int | None, control: int, keys: KeyPair) -> list[str]:
        address = self.address_of(name)
        lines = [f'name = "demo/{name}"', f'control = "tcp://{address}:{control}"', f'public_key = "{keys.public}"']
        return lines if publish is None else [*lines, f'publish = "tcp://{address}:{publish}"']

    def _write_config(self, name: str, lines: Iterable[str]) -> None:
        self.config(name).write_text("\n".join([f"# {name} of a demo datacenter", *lines, ""]))

    def _refuse_if_running(self) -> None:
        for file in (self.directory / "run").glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(file.read_text())
                if b"hbagent" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    raise RuntimeError(f"{self.directory}: a datacenter runs there already ({file.stem} is {pid})")

    # ---- processes ---------------------------------------------------------------------------------------

    def start(self, names: Iterable[str] | None = None) -> None:
        """Start some processes, or all; their process ids are in `run/`."""
        for name in self.names if names is None else names:
            with (self.directory / "log" / f"{name}.log").open("ab") as log:
                process = subprocess.Popen(
                    self.command(name),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.environment_of(name),
                    start_new_session=True,
                    preexec_fn=self._end_with_parent,
                )
            self.processes[name] = process
            (self.directory / "run" / f"{name}.pid").write_text(f"{process.pid}\n")

    def command(self, name: str) -> list[str]:
        """The command line of a process."""
        if name == SHOP:
            return [sys.executable, "-m", "hbagent.demo.victim", "--app", SHOP, "--window", f"{SHOP_WINDOW_S:g}"]
        role = "root" if name == "root" else "leader" if "-leader" in name else "agent"
        return [sys.executable, "-m", "hbagent", role, "--config", str(self.config(name))]

    def environment_of(self, name: str) -> dict[str, str]:
        """The environment of a process."""
        if name == SHOP:
            return {**self.environment, "NOTIFY_SOCKET": str(self.notify_socket("rack1-node1"))}
        return self.environment

    def _end_with_parent(self) -> None:
        """In the child: should the demo be killed, nothing of it is left running."""
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def signal(self, name: str, number: int) -> None:
        """Send a signal to one of the processes."""
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        process = self.processes[name]
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End everything that is still running: agents first, so that they can say goodbye."""
        for role in (SHOP, "node", "leader", "root"):
            running = [p for name, p in self.processes.items() if role in name and p.poll() is None]
            for process in running:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            until = time.monotonic() + STOP_SECONDS
            for process in running:
                try:
                    process.wait(max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def __enter__(self) -> Datacenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._holding.close()


@contextlib.contextmanager
def held_ports(count: int) -> Iterator[list[int]]:
    """Ports of 127.0.0.1 that nobody used, and until the end nobody gets who does not ask for just these.

    A port that was looked for and let go is anybody's: another datacenter's that starts at the same moment, or that of
    a connection made while the daemon it is for is down. Held, it still refuses connections, and whoever reuses
    addresses, as all daemons do, may listen there.
    """
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        yield [each.getsockname()[1] for each in held]


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now."""
    held = []
    try:
        for _ in range(count):
            held.append(socket.create_server(("127.0.0.1", 0)))
        return [server.getsockname()[1] for server in held]
    finally:
        for server in held:
            server.close()


def wait_until(condition: Callable[[], object], seconds: float, step: float = 0.05) -> bool:
    """True as soon as `condition` holds, False when it did not within `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(step)
    return True
