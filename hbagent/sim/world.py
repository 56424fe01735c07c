"""A datacenter in one process: the production cores under a virtual clock.

The second of the two drivers that turn the cores' crank (the first has sockets). It knows no more of a core than
`receive`, `wake`, `deadline` and the effects, and puts every message through the bytes of `hbagent.wire`. Time is one
heap of (instant, number, what to do): the number makes ties fall in the order in which they were made, so a run is a
function of its scenario alone.

A process that is held still (SIGSTOP, a scheduler, a VM) finds its messages waiting when it runs again; like the
production loop it takes in all of them before it judges.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

import msgspec

from hbagent.core.agent import AgentCore
from hbagent.core.config import AgentConfig, LeaderConfig, RackConfig, RootConfig
from hbagent.core.effects import (
    Effects,
    Exit,
    Happened,
    Keep,
    Note,
    Persist,
    Publish,
    PublishBeat,
    Rewrite,
    RunHook,
    Send,
    TakeFacts,
)
from hbagent.core.leader import LeaderCore
from hbagent.core.messages import (
    FactsTaken,
    HookFinished,
    HostFacts,
    KeepFailed,
    Kept,
    RackSummary,
    Refused,
    Terminate,
    Transitions,
    TransitionsAck,
    WallTime,
)
from hbagent.core.root import RootCore
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.wire import beat as beat_wire
from hbagent.wire import codec
from hbagent.wire.pages import fit_report, report_pages, summary_pages, transition_pages
from hbagent.wire.refusal import Refusal

from .checker import Checker
from .disk import Journal, Store
from .host import FAR, Host
from .network import Network, Route
from .scenario import Scenario
from .trace import Trace

#: The datacenter's name in node names.
DATACENTER = "sim"
ROOT = f"{DATACENTER}/root"
#: Processes of one command start within this.
START_NS = SECOND
#: Reading a host's facts takes this long.
FACTS_NS = (MILLISECOND, 8 * MILLISECOND)
#: A hook process takes this long.
HOOK_NS = (10 * MILLISECOND, 400 * MILLISECOND)
#: A core that wants to be woken this often at one instant turns in place.
SPINS_MAX = 100
#: ...and is let go on after this.
SPIN_NS = 100 * MILLISECOND

#: What hosts say of themselves; a change from one to the next is now and then more than noise.
_FACTS = tuple(
    HostFacts(cpu_count=8, cpu_percent=10.0 + 15 * busy, load_1m=0.5 * busy, memory_used_percent=40.0, hostname="sim")
    for busy in range(4)
)

_Event = tuple[int, int, Callable[..., None], Any, Any, Any]


class World:
    """All hosts, the network between them, and the clock."""

    def __init__(self, scenario: Scenario, keep_trace: bool = False) -> None:
        self.scenario = scenario
        self.now = 0
        self.events = 0
        self._heap: list[_Event] = []
        self._made = 0
        self.rng = random.Random(f"{scenario.seed}/world")
        self.trace = Trace(keep_trace)
        self.network = Network(self.push, self.tell, random.Random(f"{scenario.seed}/network"), scenario.loss)
        self.checker = Checker(scenario, self)
        #: Take in what waits before judging, as the production loop does. Only a test sets it to False.
        self.drains = True
        #: Share of hook processes that fail.
        self.hook_failures = 0.02
        self.beats = 0
        self.hook_runs = 0
        self.refused = 0
        self.notes: dict[str, int] = {}
        self.root = self._make_root()
        self.leaders: list[Host] = []
        self.agents: list[Host] = []
        #: Expected nodes that have no host.
        self.absent: list[str] = []
        self.by_name: dict[str, Host] = {}
        self._make_racks()

    # ---- building ----------------------------------------------------------------------------------------

    def _make_root(self) -> Host:
        scenario = self.scenario
        racks = tuple(
            RackConfig(name=f"{DATACENTER}/rack{rack}", leaders=self._leader_names(rack))
            for rack in range(1, scenario.racks + 1)
        )
        config = RootConfig(
            name=ROOT,
            racks=racks,
            hooks=scenario.hooks,
            lease_ns=scenario.lease_ns,
            join_grace_ns=scenario.leader.join_grace_ns,
        )
        host = Host(ROOT, "root", config, self.rng)
        host.disk = Store()
        return host

    def _leader_names(self, rack: int) -> tuple[str, ...]:
        return tuple(f"{DATACENTER}/rack{rack}-leader{n}" for n in range(1, self.scenario.leaders + 1))

    def _make_racks(self) -> None:
        scenario = self.scenario
        sizes = [len(range(rack, scenario.hosts, scenario.racks)) for rack in range(scenario.racks)]
        for rack, size in enumerate(sizes, 1):
            nodes = tuple(f"{DATACENTER}/rack{rack}/node{n}" for n in range(1, size + 1))
            missing = nodes[-1] if size > 2 and self.rng.random() < 0.2 else ""
            leaders = [self._make_leader(name, rack, nodes) for name in self._leader_names(rack)]
            for node in nodes:
                if node == missing:
                    self.absent.append(node)
                else:
                    self.agents.append(self._make_agent(node, leaders))
        for host in (self.root, *self.leaders, *self.agents):
            self.by_name[host.name] = host

    def _make_leader(self, name: str, rack: int, nodes: tuple[str, ...]) -> Host:
        racks = {f"{DATACENTER}/rack{rack}": nodes}
        config: LeaderConfig = msgspec.structs.replace(self.scenario.leader, name=name, racks=racks, root=ROOT)
        host = Host(name, "leader", config, self.rng)
        host.disk = Journal()
        self._join(host, self.root)
        self.leaders.append(host)
        return host

    def _make_agent(self, node: str, leaders: list[Host]) -> Host:
        config = AgentConfig(
            node=node, leaders=tuple(leader.name for leader in leaders), interval_ns=self.scenario.interval_ns
        )
        host = Host(node, "agent", config, self.rng)
        for leader in leaders:
            self._join(host, leader)
        return host

    def _join(self, client: Host, server: Host) -> None:
        route = Route(client, server)
        client.routes_out.append(route)
        server.routes_in.append(route)
        client.route_to[server.name] = route
        server.route_to[client.name] = route

    # ---- the clock ---------------------------------------------------------------------------------------

    def push(self, at: int, action: Callable[..., None], one: Any = None, two: Any = None, three: Any = None) -> None:
        """Do `action(at, one, two, three)` at the instant `at`."""
        self._made += 1
        heapq.heappush(self._heap, (at, self._made, action, one, two, three))

    def run(self, until: int) -> None:
        """Let the time pass."""
        heap, pop = self._heap, heapq.heappop
        events = 0
        while heap and heap[0][0] <= until:
            at, _, action, one, two, three = pop(heap)
            self.now = at
            events += 1
            action(at, one, two, three)
        self.now = until
        self.events += events

    # ---- processes ---------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Start the root, the leaders and the agents within a second, each at a time of its own."""
        self.push(0, self.start, self.root)
        for host in (*self.leaders, *self.agents):
            self.push(self.rng.randrange(START_NS), self.start, host)

    def start(self, at: int, host: Host, *_: Any) -> None:
        """Start the process of `host`; nothing happens when there is one."""
        if host.core is not None:
            return
        host.life += 1
        host.started_at = at
        if host.outages and host.outages[-1][1] == FAR:
            host.outages[-1][1] = at
        now = host.local(at)
        rng = random.Random(host.rng.getrandbits(64))
        if host.role == "agent":
            host.core = AgentCore(host.config, rng, now)
        elif host.role == "leader":
            assert isinstance(host.disk, Journal)
            host.core = LeaderCore(host.config, rng, now, host.disk.load())
        else:
            assert isinstance(host.disk, Store)
            host.core = RootCore(host.config, rng, now, host.disk.load())
        self.trace.add(at, "start", host.name, host.life)
        self.checker.started(at, host)
        for route in host.routes_out:
            self.network.connect_soon(at, route)
        if host.role != "agent":
            self.network.server_came(at, host)
            self._wall_time(at, host, host.life)
        self._plan(at, host)

    def crash(self, at: int, host: Host, *_: Any) -> None:
        """End the process of `host` as kill -9 does."""
        if host.core is None:
            return
        self.trace.add(at, "crash", host.name)
        host.core = None
        host.wake_at = host.wake_for = FAR
        host.inbox.clear()
        host.outages.append([at, FAR])
        if host.disk is not None:
            kept = host.disk.crash(host.rng)
            if host.role == "root":
                for batch in kept:
                    self.checker.committed(at, host, batch)
        self.network.server_gone(at, host)
        self.network.client_gone(at, host)

    def pause(self, at: int, host: Host, *_: Any) -> None:
        """Hold the process of `host` still; holds add up."""
        host.paused += 1
        if host.paused == 1:
            self.trace.add(at, "pause", host.name)
            host.pauses.append([at, FAR])
            host.wake_at = host.wake_for = FAR

    def resume(self, at: int, host: Host, *_: Any) -> None:
        """Take one hold away. The process first takes in what waits, then judges."""
        host.paused -= 1
        if host.paused:
            return
        self.trace.add(at, "resume", host.name, len(host.inbox))
        host.pauses[-1][1] = at
        if host.core is None:
            return
        inbox, host.inbox = host.inbox, []
        if not self.drains:
            self._turn(at, host)
        for action, one, two, three in inbox:
            action(at, one, two, three)
        self._plan(at, host)

    def terminate(self, at: int, host: Host, *_: Any) -> None:
        """SIGTERM."""
        self.tell(at, host, Terminate())

    # ---- turning the crank -------------------------------------------------------------------------------

    def _plan(self, at: int, host: Host) -> None:
        """Ask for the core's deadline, and see that it is woken by then."""
        core = host.core
        if core is None or host.paused:
            return
        deadline = core.deadline()
        if deadline is None or deadline >= host.wake_for:
            return
        due = host.virtual(deadline)
        if due <= at:
            due = at
            if host.spins > SPINS_MAX:
                self.checker.spins(at, host)
                host.spins = 0
                due = at + SPIN_NS
        if due < host.wake_at:
            host.wake_at = due
            host.wake_for = deadline
            self._made += 1
            heapq.heappush(self._heap, (due, self._made, self._wake, host, None, None))

    def _wake(self, at: int, host: Host, *_: Any) -> None:
        if host.wake_at != at:
            return
        host.wake_at = host.wake_for = FAR
        if host.core is None or host.paused:
            return
        host.spins = host.spins + 1 if at == host.woken_at else 0
        host.woken_at = at
        self._turn(at, host)
        self._plan(at, host)

    def _turn(self, at: int, host: Host) -> None:
        effects = host.core.wake(host.local(at))
        if effects:
            self._perform(at, host, effects)

    def tell(self, at: int, host: Host, message: object) -> None:
        """Give a process a message of its own host."""
        self._local(at, host, message, host.life)

    def _local(self, at: int, host: Host, message: object, life: int) -> None:
        if host.core is None or host.life != life:
            return
        if host.paused:
            host.inbox.append((self._local, host, message, life))
            return
        self._receive(at, host, "", message)

    def _receive(self, at: int, host: Host, sender: str, message: object) -> None:
        effects = host.core.receive(sender, message, host.local(at))
        if effects:
            self._perform(at, host, effects)
        self._plan(at, host)

    # ---- frames that arrive ------------------------------------------------------------------------------

    def _beat_in(self, at: int, route: Route, data: bytes, sent: int) -> None:
        """A beat reached the leader's host."""
        host = route.server
        if sent < route.valid_from or host.core is None:
            return
        if sent > route.newest_sent:
            route.newest_sent = sent
            route.newest = data
        self.checker.arrived(at, route, sent)
        if host.paused:
            host.inbox.append((self._beat_taken, route, data, sent))
            return
        self._beat_taken(at, route, data, sent)

    def _beat_taken(self, at: int, route: Route, data: bytes, sent: int) -> None:
        """The leader reads a beat from its socket."""
        host = route.server
        self.beats += 1
        self.trace.beat(at, data)
        core, name, now = host.core, route.client.name, host.local(at)
        found = beat_wire.decode(data)
        if isinstance(found, Refusal):
            self._receive(at, host, "", Refused(name, found.reason.value, found.detail))
            return
        numbers = (
            found.incarnation,
            found.sequence,
            found.sent_mono_ns,
            found.due_in_ns,
            found.interval_ns,
            found.loop_gap_ns,
            found.progress,
            found.health_digest,
        )
        # As in the production intake: an ordinary beat takes the short way, on which no deadline comes nearer.
        taker = core.roster.takers.get(name)
        if taker is not None and not found.leaving and taker(*numbers, now):
            return
        effects = core.beat(name, *numbers, found.leaving, now)
        if effects:
            self._perform(at, host, effects)
        self._plan(at, host)

    def _summary_in(self, at: int, route: Route, data: bytes, sent: int) -> None:
        """A summary reached the root's host: proof of its leader's life."""
        if sent >= route.valid_from and route.server.core is not None and sent > route.newest_sent:
            route.newest_sent = sent
        self._frame_in(at, route, data, sent)

    def _frame_in(self, at: int, route: Route, data: bytes, sent: int) -> None:
        """Another frame reached the listening host."""
        host = route.server
        if sent < route.valid_from or host.core is None:
            return
        if host.paused:
            host.inbox.append((self._frame_taken, host, route.client.name, data))
            return
        self._frame_taken(at, host, route.client.name, data)

    def _frame_back(self, at: int, route: Route, data: bytes, sent: int) -> None:
        """A frame reached the connecting host."""
        host = route.client
        if sent < route.valid_from or sent < host.started_at or host.core is None:
            return
        if host.paused:
            host.inbox.append((self._frame_taken, host, route.server.name, data))
            return
        self._frame_taken(at, host, route.server.name, data)

    def _frame_taken(self, at: int, host: Host, sender: str, data: bytes) -> None:
        """The process reads a frame from its socket."""
        message: object = codec.decode(data)
        if isinstance(message, Refusal):
            self.refused += 1
            message = Refused(sender, message.reason.value, message.detail)
            sender = ""
        self._receive(at, host, sender, message)

    # ---- effects -----------------------------------------------------------------------------------------

    def _perform(self, at: int, host: Host, effects: Effects) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is PublishBeat:
                data = beat_wire.encode(effect.beat)  # type: ignore[union-attr]
                for route in host.routes_out:
                    self.network.publish(at, route, self._beat_in, data)
            else:
                self._PERFORMERS[kind](self, at, host, effect)

    def _publish(self, at: int, host: Host, effect: Publish) -> None:
        message = effect.message
        frames: tuple[Any, ...]
        intake = self._frame_in
        if isinstance(message, RackSummary):
            self.checker.summary(at, host, message)
            intake = self._summary_in
            frames = summary_pages(message)
        elif host.role == "leader":
            frames = report_pages(message)  # type: ignore[arg-type]
        else:
            frames = (fit_report(message),)  # type: ignore[arg-type]
        for frame in frames:
            data = codec.encode(frame)
            for route in host.routes_out:
                self.network.publish(at, route, intake, data)

    def _send(self, at: int, host: Host, effect: Send) -> None:
        route = host.route_to[effect.peer]
        message = effect.message
        frames: tuple[Any, ...] = (message,)
        intake = self._frame_in
        if isinstance(message, Transitions):
            frames = transition_pages(message)
        elif isinstance(message, RackSummary):
            self.checker.summary(at, host, message)
            intake = self._summary_in
            frames = summary_pages(message)
        elif isinstance(message, TransitionsAck):
            self.checker.acknowledged(at, effect.peer, message)
        for frame in frames:
            data = codec.encode(frame)
            self.trace.add(at, "send", host.name, effect.peer, data.hex())
            if route.client is host:
                self.network.up(at, route, intake, data)
            else:
                self.network.down(at, route, self._frame_back, data)

    def _take_facts(self, at: int, host: Host, effect: TakeFacts) -> None:
        busy = host.rng.random()
        facts = _FACTS[0 if busy < 0.9 else int(busy * 40) % 4]
        self.push(at + host.rng.randrange(*FACTS_NS), self._local, host, FactsTaken(facts), host.life)

    def _write(self, at: int, host: Host, effect: Keep | Rewrite | Persist) -> None:
        disk = host.disk
        assert disk is not None
        what = effect.batch if isinstance(effect, Persist) else (isinstance(effect, Rewrite), effect.entries)
        done = disk.write(effect.token, what, at, host.rng)
        self.push(done, self._written, host, effect.token, host.life)

    def _written(self, at: int, host: Host, token: int, life: int) -> None:
        disk = host.disk
        if host.life != life or disk is None:
            return
        if disk.failing:
            if disk.discard(token, at):
                self._local(at, host, KeepFailed(token, "no space left on device"), life)
            return
        what = disk.sync(token)
        if what is None:
            return
        if host.role == "root":
            self.checker.committed(at, host, what)
            for event in what.events:
                self.trace.add(at, "event", event.event_id, event.kind.value, event.node, event.leader, event.late)
        self._local(at, host, Kept(token), life)

    def _run_hook(self, at: int, host: Host, effect: RunHook) -> None:
        self.hook_runs += 1
        failed = host.rng.random() < self.hook_failures
        took = host.rng.randrange(*HOOK_NS)
        self.trace.add(at, "hook", effect.run_id, failed)
        self.checker.hook_started(at, effect, failed)
        result = HookFinished(
            run_id=effect.run_id,
            exit_code=1 if failed else 0,
            error="exit 1" if failed else "",
            duration_ns=took,
        )
        self.push(at + took, self._local, host, result, host.life)

    def _happened(self, at: int, host: Host, effect: Happened) -> None:
        self.trace.add(at, "happened", host.name, effect.node, effect.kind.value, effect.before, effect.after)
        self.checker.happened(at, host, effect)

    def _note(self, at: int, host: Host, effect: Note) -> None:
        self.notes[effect.what] = self.notes.get(effect.what, 0) + 1

    def _exit(self, at: int, host: Host, effect: Exit) -> None:
        self.trace.add(at, "exit", host.name)
        self.checker.left(at, host)
        self.crash(at, host)

    def _wall_time(self, at: int, host: Host, life: int, *_: Any) -> None:
        if host.life != life or host.core is None:
            return
        if not host.paused:
            self._receive(at, host, "", WallTime(host.wall(at)))
        self.push(at + SECOND, self._wall_time, host, life)

    _PERFORMERS: dict[type, Callable[..., None]] = {
        Publish: _publish,
        Send: _send,
        TakeFacts: _take_facts,
        Keep: _write,
        Rewrite: _write,
        Persist: _write,
        RunHook: _run_hook,
        Happened: _happened,
        Note: _note,
        Exit: _exit,
    }
