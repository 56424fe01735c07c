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
    Answer,
    Ask,
    Effects,
    Exit,
    Happened,
    Keep,
    KillProber,
    Note,
    Persist,
    PostAlerts,
    Publish,
    PublishBeat,
    Recall,
    Rewrite,
    RunHook,
    Send,
    StartProber,
    Witness,
)
from hbagent.core.leader import LeaderCore
from hbagent.core.messages import (
    Answered,
    Effort,
    HookFinished,
    KeepFailed,
    Kept,
    LastHeard,
    Located,
    Pong,
    Posted,
    ProberEnded,
    RackSummary,
    Recalled,
    Refused,
    Relayed,
    Suspended,
    Terminate,
    Transitions,
    TransitionsAck,
    WallTime,
)
from hbagent.core.root import RootCore
from hbagent.core.states import Health, Outcome
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.wire import beat as beat_wire
from hbagent.wire import codec
from hbagent.wire.pages import fit_report, report_pages, summary_pages, transition_pages
from hbagent.wire.refusal import Refusal

from .asking import Asking, Question
from .checker import Checker
from .disk import Journal, Store
from .host import FAR, Host
from .network import Network, Route
from .prober import FACTS, Prober
from .scenario import Scenario
from .trace import Trace

#: The datacenter's name in node names.
DATACENTER = "sim"
ROOT = f"{DATACENTER}/root"
#: Processes of one command start within this.
START_NS = SECOND
#: A prober's process starts, reads the host's facts and says what it knows within this, and then so often.
PROBER_NS = (MILLISECOND, 8 * MILLISECOND)
FACTS_NS = 10 * SECOND
#: A hook process takes this long.
HOOK_NS = (10 * MILLISECOND, 400 * MILLISECOND)
#: A post to an Alertmanager takes this long.
POST_NS = (2 * MILLISECOND, 60 * MILLISECOND)
#: Where every agent answers signed questions.
ECHO_PORT = 7079
#: One host in so many has a firewall before that port; there only silence can judge.
FIREWALLED = 8
#: Leaders and the root are told the time each second. An agent is told so seldom, and after each pause, because ten
#: thousand of them would be told nothing else.
WALL_NS = SECOND
AGENT_WALL_NS = 10 * SECOND
#: A core that wants to be woken this often at one instant turns in place.
SPINS_MAX = 100
#: ...and is let go on after this.
SPIN_NS = 100 * MILLISECOND

#: The type byte of a `Pong`.
_PONG = next(code for code, message in codec.TYPES.items() if message is Pong)

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
        self.asking = Asking(self, random.Random(f"{scenario.seed}/asking"))
        #: Take in what waits before judging, as the production loop does. Only a test sets it to False.
        self.drains = True
        #: Share of hook processes that fail.
        self.hook_failures = 0.02
        self.beats = 0
        self.hook_runs = 0
        self.refused = 0
        self.notes: dict[str, int] = {}
        #: What operators were answered.
        self.answers: list[Any] = []
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
            sinks=scenario.sinks,
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
        firewalls = random.Random(f"{scenario.seed}/firewalls")
        for number, host in enumerate((self.root, *self.leaders, *self.agents), 1):
            self.by_name[host.name] = host
            host.address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            self.asking.addresses[host.address] = host
            host.firewalled = host.role == "agent" and firewalls.randrange(FIREWALLED) == 0

    def _make_leader(self, name: str, rack: int, nodes: tuple[str, ...]) -> Host:
        racks = {f"{DATACENTER}/rack{rack}": nodes}
        others = tuple(other for other in self._leader_names(rack) if other != name)
        config: LeaderConfig = msgspec.structs.replace(
            self.scenario.leader, name=name, racks=racks, root=ROOT, peers=others
        )
        host = Host(name, "leader", config, self.rng)
        host.disk = Journal()
        self._join(host, self.root)
        for other in self.leaders:
            if other.name in others:
                self._join_peers(host, other)
                self._join_peers(other, host)
        self.leaders.append(host)
        return host

    def _make_agent(self, node: str, leaders: list[Host]) -> Host:
        config = AgentConfig(
            node=node,
            leaders=tuple(leader.name for leader in leaders),
            interval_ns=self.scenario.interval_ns,
            echo_port=ECHO_PORT,
        )
        host = Host(node, "agent", config, self.rng)
        host.prober = Prober()
        for leader in leaders:
            self._join(host, leader)
        return host

    def _join(self, client: Host, server: Host) -> None:
        route = Route(client, server)
        client.routes_out.append(route)
        server.routes_in.append(route)
        client.route_to[server.name] = route
        server.route_to[client.name] = route

    def _join_peers(self, client: Host, server: Host) -> None:
        """Leaders of a rack: each has a connection to each, and speaks on its own."""
        route = Route(client, server)
        client.peers_out.append(route)
        server.peers_in.append(route)
        client.route_to[server.name] = route

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
        host.run_delay_ns = host.suspended_ns = 0
        for route in (*host.routes_out, *host.peers_out):
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
        self.checker.ends(at, host)
        host.core = None
        host.wake_at = host.wake_for = FAR
        host.inbox.clear()
        host.backlog = 0
        if host.prober is not None:
            host.prober.end(at)
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
            self.checker.claims.freezes(at, host)
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
        host.run_delay_ns += at - host.pauses[-1][0]
        inbox, host.inbox = host.inbox, []
        if host.role == "agent":
            self._receive(at, host, "", WallTime(host.wall(at)))
            self._receive(at, host, "", Effort(host.run_delay_ns, 0, host.suspended_ns))
        if not self.drains:
            self._turn(at, host)
        elif host.role == "leader":
            self._perform(at, host, host.core.lagged(host.local(at)))
        for action, one, two, three in inbox:
            action(at, one, two, three)
        self._plan(at, host)

    def vanish(self, at: int, host: Host, *_: Any) -> None:
        """The whole machine is away, kernel and all: nothing gets in or out, and nobody is told."""
        host.gone += 1
        if host.gone > 1:
            return
        self.trace.add(at, "vanish", host.name)
        self.checker.claims.vanishes(at, host)
        host.absences.append([at, FAR])
        for route in host.routes:
            self.network.cut(at, route, True, True)

    def reappear(self, at: int, host: Host, *_: Any) -> None:
        """Take one absence away."""
        host.gone -= 1
        if host.gone:
            return
        self.trace.add(at, "reappear", host.name)
        host.absences[-1][1] = at
        for route in host.routes:
            self.network.heal(at, route, True, True)

    def suspended(self, at: int, host: Host, length: int, *_: Any) -> None:
        """The monotonic clock of `host` has stood still for `length`; its process, still held, learns of it first."""
        self.trace.add(at, "slept", host.name, length)
        self.checker.slept(host, length)
        host.offset_ns -= length
        host.suspended_ns += length
        # It had no process that could have wanted to run.
        host.run_delay_ns -= length
        if host.core is not None:
            host.inbox.insert(0, (self._local, host, Suspended(length), host.life))

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
        now = host.local(at)
        if host.prober is not None:
            mark = host.prober.mark(now)
            if mark is not None:
                host.core.receive("", mark, now)
        effects = host.core.wake(now)
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

    def _summary_control_in(self, at: int, route: Route, data: bytes, sent: int) -> None:
        """The same on the control connection."""
        if sent >= route.valid_from and route.server.core is not None and sent > route.newest_sent:
            route.newest_sent = sent
        self._control_in(at, route, data, sent)

    def _frame_in(self, at: int, route: Route, data: bytes, sent: int) -> None:
        """Another frame reached the listening host."""
        host = route.server
        if sent < route.valid_from or host.core is None:
            return
        if host.paused:
            host.inbox.append((self._frame_taken, host, route.client.name, data))
            return
        self._frame_taken(at, host, route.client.name, data)

    def _control_in(self, at: int, route: Route, data: bytes, sent: int) -> None:
        """A frame of the control connection reached the listening host."""
        host = route.server
        if sent < route.valid_from or host.core is None:
            return
        if host.paused:
            host.inbox.append((self._control_taken, route, data, sent))
            return
        self._control_taken(at, route, data, sent)

    def _control_taken(self, at: int, route: Route, data: bytes, sent: int) -> None:
        """The listening process reads it, and sees from which connection it came."""
        host = route.server
        if route.known != route.connection:
            route.known = route.connection
            if host.role == "leader":
                self._receive(at, host, "", Located(route.client.name, route.client.address))
        if data[4] == _PONG:
            route.proof_sent = max(route.proof_sent, sent)
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
        elif isinstance(message, (Pong, LastHeard)):
            self.checker.heard(at, host, sender, message)
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
        message = effect.message
        # Another leader is answered on the connection on which it asked; all else leaves by the own one.
        answers = isinstance(message, LastHeard)
        route = self.by_name[effect.peer].route_to[host.name] if answers else host.route_to[effect.peer]
        frames: tuple[Any, ...] = (message,)
        intake = self._control_in
        if isinstance(message, Relayed) and host.liar:
            frames = self._lie(host, message)
        elif isinstance(message, Transitions):
            frames = transition_pages(message)
        elif isinstance(message, RackSummary):
            self.checker.summary(at, host, message)
            intake = self._summary_control_in
            frames = summary_pages(message)
        elif isinstance(message, TransitionsAck):
            self.checker.acknowledged(at, effect.peer, message)
        elif host.role == "leader":
            self.checker.claims.asked(at, host, effect.peer, message)
        for frame in frames:
            data = codec.encode(frame)
            self.trace.add(at, "send", host.name, effect.peer, data.hex())
            if route.client is host:
                self.network.up(at, route, intake, data)
            else:
                self.network.down(at, route, self._frame_back, data)

    @staticmethod
    def _lie(host: Host, message: Relayed) -> tuple[Any, ...]:
        """What a neighbour says that cannot be trusted."""
        if host.liar == "silence":
            return ()
        if host.liar == "refusal":
            return (Relayed(number=message.number, outcome=Outcome.REFUSED),)
        return (Relayed(number=message.number, outcome=Outcome.ANSWERED, answer=host.rng.randbytes(48)),)

    def _witness(self, at: int, host: Host, effect: Witness) -> None:
        self.trace.add(at, "witness", host.name, effect.peer, effect.number)
        self.asking.witness(at, host, effect)

    def _ask(self, at: int, host: Host, effect: Ask) -> None:
        self.trace.add(at, "ask", host.name, effect.peer, effect.path.value, effect.request.hex())
        self.checker.claims.echo_asked(at, host, effect)
        self.asking.ask(at, host, effect)

    def answered(self, at: int, question: Question, answered: Answered) -> None:
        """A question is answered, one way or the other."""
        self.checker.answered(at, question, answered)
        self._receive(at, question.asker, "", answered)

    # ---- probers -----------------------------------------------------------------------------------------

    def _start_prober(self, at: int, host: Host, effect: StartProber) -> None:
        prober = host.prober
        assert prober is not None
        prober.start(host.local(at))
        self.push(at + host.rng.randrange(*PROBER_NS), self._look_round, host, prober.life)

    def _look_round(self, at: int, host: Host, life: int, *_: Any) -> None:
        """A prober reads the facts of its host, and tells all that it knows."""
        prober = host.prober
        assert prober is not None
        if prober.started is None or prober.life != life:
            return
        self._tell_vitals(at, host, prober)
        self.push(at + FACTS_NS, self._look_round, host, life)

    def _tell_vitals(self, at: int, host: Host, prober: Prober) -> None:
        if prober.started is not None and not prober.stuck:
            busy = host.rng.random()
            self._local(at, host, prober.vitals(FACTS[0 if busy < 0.9 else int(busy * 40) % 4]), host.life)

    def _kill_prober(self, at: int, host: Host, effect: KillProber) -> None:
        assert host.prober is not None
        self.trace.add(at, "kill-prober", host.name)
        host.prober.end(at)
        host.prober.restarts.append(at)
        self.checker.health_changes(at, host)
        self._local_soon(at, host, ProberEnded("killed"))

    def _recall(self, at: int, host: Host, effect: Recall) -> None:
        self._local_soon(at, host, Recalled(number=effect.number, body=b"{}"))

    def _local_soon(self, at: int, host: Host, message: object) -> None:
        self.push(at + host.rng.randrange(*PROBER_NS), self._local, host, message, host.life)

    def become(self, at: int, host: Host, health: Health, *_: Any) -> None:
        """The application on `host` is in another state, and its prober finds out at once."""
        prober = host.prober
        assert prober is not None
        if health is prober.app:
            return
        self.trace.add(at, "app", host.name, health.value)
        prober.app = health
        prober.changes.append((at, health))
        self.checker.health_changes(at, host)
        self._tell_vitals(at, host, prober)

    def hold_prober(self, at: int, host: Host, *_: Any) -> None:
        """The prober of `host` does not go round any more."""
        assert host.prober is not None
        self.trace.add(at, "hold-prober", host.name)
        host.prober.hold(at)
        self.checker.health_changes(at, host)

    def release_prober(self, at: int, host: Host, *_: Any) -> None:
        """It does again, and tells what it has missed."""
        prober = host.prober
        assert prober is not None
        self.trace.add(at, "release-prober", host.name)
        prober.release(at)
        self.checker.health_changes(at, host)
        self._tell_vitals(at, host, prober)

    # ---- disks and hooks ---------------------------------------------------------------------------------

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

    def _post(self, at: int, host: Host, effect: PostAlerts) -> None:
        took = host.rng.randrange(*POST_NS)
        self.push(at + took, self._posted, host, effect, host.life)

    def _posted(self, at: int, host: Host, effect: PostAlerts, life: int) -> None:
        """What is on its way to an Alertmanager arrives there, also when the root has ended meanwhile."""
        error = self.checker.notices.posted(at, effect)
        self.trace.add(at, "post", effect.url, effect.token, error)
        result = Posted(sink=effect.sink, url=effect.url, token=effect.token, error=error)
        self._local(at, host, result, life)

    def _answer(self, at: int, host: Host, effect: Answer) -> None:
        """An operator reads what came of an order."""
        self.trace.add(at, "answer", effect.id, effect.error)
        if effect.view is not None:
            self.answers.append(effect.view)

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
        agent = host.role == "agent"
        if host.paused:
            if at == host.started_at:
                # However long it is held at its start: the first thing that a process learns is what time it is.
                host.inbox.insert(0, (self._first_wall_time, host, life, None))
        else:
            self._receive(at, host, "", WallTime(host.wall(at)))
            if agent and host.core is not None:
                self._receive(at, host, "", Effort(host.run_delay_ns, 0, host.suspended_ns))
        self.push(at + (AGENT_WALL_NS if agent else WALL_NS), self._wall_time, host, life)

    def _first_wall_time(self, at: int, host: Host, life: int, *_: Any) -> None:
        if host.life == life and host.core is not None:
            self._receive(at, host, "", WallTime(host.wall(at)))

    _PERFORMERS: dict[type, Callable[..., None]] = {
        Publish: _publish,
        Send: _send,
        Witness: _witness,
        Ask: _ask,
        StartProber: _start_prober,
        KillProber: _kill_prober,
        Recall: _recall,
        Keep: _write,
        Rewrite: _write,
        Persist: _write,
        RunHook: _run_hook,
        PostAlerts: _post,
        Answer: _answer,
        Happened: _happened,
        Note: _note,
        Exit: _exit,
    }
