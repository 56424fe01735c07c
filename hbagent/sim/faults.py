"""What goes wrong, and when: drawn from the seed before the run begins.

Each fault is a function that puts a few events into the world's heap, all between `Plan.begin` and `Plan.heal_by`, and
takes away whatever it did. What follows is quiet, so that the checker may ask whether everybody agrees again. Some
agents are stopped for good in every run: without a death there is no completeness to check.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from hbagent.core.messages import Order, Ordered
from hbagent.core.states import Health, IncidentState
from hbagent.core.units import HOUR, MILLISECOND, SECOND

from .disk import Store
from .host import FAR, Host
from .network import Route
from .world import World


class Plan:
    """Where a fault draws its times, and what it has taken."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        end = world.scenario.end_ns
        #: Everybody has started and is known by then.
        self.begin = min(4 * SECOND, end // 5)
        #: Faults are over by then.
        self.heal_by = end * 6 // 10
        #: Agents that no fault has taken yet: what was stopped for good stays stopped.
        self.free = list(world.agents)
        self.rng.shuffle(self.free)

    def instant(self, before: int = 0) -> int:
        """A random instant for a fault that lasts no longer than `before`."""
        return self.rng.randrange(self.begin, max(self.begin + 1, self.heal_by - before))

    def length(self, *ranges_s: tuple[float, float]) -> int:
        """A random length: first one of the ranges in seconds, then a point in it; never beyond the time there is."""
        low, high = self.rng.choice(ranges_s)
        return min(round(self.rng.uniform(low, high) * SECOND), self.heal_by - self.begin)

    def some(self, hosts: list[Host], share: int) -> list[Host]:
        """A random one of `share` of the hosts, at least one."""
        return self.rng.sample(hosts, max(1, len(hosts) // share)) if hosts else []

    def take(self, count: int) -> list[Host]:
        """Agents for this fault alone."""
        taken, self.free = self.free[:count], self.free[count:]
        return taken


def quiet(plan: Plan) -> None:
    """Nothing but the agents that are stopped in every run."""


def stops(plan: Plan) -> None:
    """A few agents die and stay dead."""
    count = max(1, len(plan.world.agents) // (8 if len(plan.world.agents) <= 64 else 100))
    for host in plan.take(count):
        plan.world.push(plan.instant(), plan.world.crash, host)


def loss(plan: Plan) -> None:
    """One per cent of the lossy frames never arrive; streams retransmit as many."""
    usual = plan.world.network.loss
    plan.world.push(plan.begin, _weather, plan.world, {"loss": max(usual, 0.01)})
    plan.world.push(plan.heal_by, _weather, plan.world, {"loss": usual})


def delay(plan: Plan) -> None:
    """Five per cent of the lossy frames are late by up to half a second, and overtaken."""
    plan.world.push(plan.begin, _weather, plan.world, {"late": 0.05, "late_ns": 500 * MILLISECOND})
    plan.world.push(plan.heal_by, _weather, plan.world, {"late": 0.0})


def duplicate(plan: Plan) -> None:
    """A tenth of the lossy frames comes twice, the second time up to four seconds later."""
    plan.world.push(plan.begin, _weather, plan.world, {"doubled": 0.1})
    plan.world.push(plan.heal_by, _weather, plan.world, {"doubled": 0.0})


def _weather(at: int, world: World, shares: dict[str, float], *_: object) -> None:
    for name, share in shares.items():
        setattr(world.network, name, share)


def partition(plan: Plan) -> None:
    """Cuts of one agent, a rack or a leader, of one or both directions, short and long; some agents die within."""
    for _ in range(3):
        routes = _cut_routes(plan)
        up, down = plan.rng.choice([(True, True), (True, False), (False, True)])
        length = plan.length((0.2, 2.9), (3, 12))
        at = plan.instant(length)
        for route in routes:
            _cut(plan, route, at, at + length, up, down)
    # A death within a short cut: the beats of its last moments arrive when nobody is there any more.
    for host in plan.take(1):
        length = plan.length((1.5, 2.9))
        at = plan.instant(length)
        for route in host.routes_out:
            _cut(plan, route, at, at + length, True, True)
        plan.world.push(at + plan.rng.randrange(length // 2, length), plan.world.crash, host)


def _cut_routes(plan: Plan) -> list[Route]:
    world = plan.world
    what = plan.rng.choice(("agent", "agent", "rack", "leader", "peers"))
    if what == "agent":
        return list(plan.rng.choice(world.agents).routes_out)
    leader = plan.rng.choice(world.leaders)
    if what == "peers" and leader.peers_out:
        return [*leader.peers_out, *leader.peers_in]
    return list(leader.routes_in) if what == "rack" else [leader.route_to[world.root.name]]


def _cut(plan: Plan, route: Route, at: int, until: int, up: bool, down: bool) -> None:
    plan.world.push(at, _begin_cut, plan.world, route, (up, down))
    plan.world.push(until, _end_cut, plan.world, route, (up, down))
    if route.server is plan.world.root:
        _expect_silence(plan, route.client, at, until)


def _begin_cut(at: int, world: World, route: Route, directions: tuple[bool, bool]) -> None:
    world.trace.add(at, "cut", route.client.name, route.server.name, directions)
    world.network.cut(at, route, *directions)


def _end_cut(at: int, world: World, route: Route, directions: tuple[bool, bool]) -> None:
    world.trace.add(at, "heal", route.client.name, route.server.name)
    world.network.heal(at, route, *directions)


def _expect_silence(plan: Plan, leader: Host, at: int, until: int) -> None:
    """A leader that nobody hears for longer than its lease must be UNKNOWN by then, with all its nodes."""
    lapsed = at + plan.world.scenario.lease_ns + SECOND // 2
    if lapsed < until:
        plan.world.push(lapsed, plan.world.checker.expect_unknown, leader, at)


def agent_crash(plan: Plan) -> None:
    """Agents are killed and started again, at once or later, some of them again and again."""
    for host in plan.take(max(2, len(plan.world.agents) // 10)):
        for _ in range(plan.rng.choice((1, 1, 3))):
            down = plan.length((0.02, 0.5), (1, 4), (6, 12))
            at = plan.instant(down)
            plan.world.push(at, plan.world.crash, host)
            plan.world.push(at + down, plan.world.start, host)


def agent_pause(plan: Plan) -> None:
    """Agents stand still and go on (SIGSTOP, swap, a busy VM)."""
    for host in plan.take(max(2, len(plan.world.agents) // 10)):
        _pause(plan, host, plan.length((0.1, 0.9), (1.2, 4), (6, 14)))


def _pause(plan: Plan, host: Host, length: int) -> int:
    at = plan.instant(length)
    plan.world.push(at, plan.world.pause, host)
    plan.world.push(at + length, plan.world.resume, host)
    return at


def agent_sleep(plan: Plan) -> None:
    """Agents' machines are suspended, and their monotonic clocks with them (a paused VM, a snapshot)."""
    for host in plan.take(max(2, len(plan.world.agents) // 10)):
        # Not by about as much as a beat may be old: then each jitter decides anew whether one is, for half a minute.
        _sleep(plan, host, plan.length((0.3, 0.9), (1.5, 4.8), (6, 14)))


def _sleep(plan: Plan, host: Host, length: int) -> int:
    """Suspend a machine: its process, its kernel, its clock."""
    at = plan.instant(length)
    world = plan.world
    world.push(at, world.vanish, host)
    world.push(at, world.pause, host)
    # Just before the process runs again: it must not see a clock that went on.
    world.push(at + length - 1, world.suspended, host, length)
    world.push(at + length, world.reappear, host)
    world.push(at + length, world.resume, host)
    return at


def host_gone(plan: Plan) -> None:
    """Machines lose their power or their network, or are suspended, and nobody is told; some never come back."""
    for host in plan.take(max(2, len(plan.world.agents) // 10)):
        length = plan.length((0.3, 1.2), (2, 8), (8, 14))
        what = plan.rng.choice(("power", "power", "network", "suspended"))
        if what == "suspended":
            _sleep(plan, host, length)
            continue
        at = plan.instant(length)
        _vanish(plan, host, at, at + length)
        if what == "power":
            plan.world.push(at, plan.world.crash, host)
            if plan.rng.random() < 0.75:
                plan.world.push(at + length + plan.rng.randrange(2 * SECOND), plan.world.start, host)


def _vanish(plan: Plan, host: Host, at: int, until: int) -> None:
    plan.world.push(at, plan.world.vanish, host)
    plan.world.push(until, plan.world.reappear, host)


def freeze(plan: Plan) -> None:
    """Processes stand still on living hosts for a moment, for half a minute, or for good (SIGSTOP, a freezer)."""
    for number, host in enumerate(plan.take(max(3, len(plan.world.agents) // 10))):
        if number == 0:
            plan.world.push(plan.begin + plan.rng.randrange(SECOND), plan.world.pause, host)
            continue
        _pause(plan, host, plan.length((0.1, 1), (2, 10), (10, 30)))


def link_cut_in(plan: Plan) -> None:
    """At one leader nothing arrives of some agents, which hear it well; one of them dies meanwhile."""
    _cut_one_way(plan, up=True)
    # What it answered before it died arrives when nobody is there any more. Behind a firewall it is doubted longest;
    # and a longer cut would cost the connection, with all that waits in it.
    for host in ([host for host in plan.free if host.firewalled] or plan.free)[:1]:
        plan.free.remove(host)
        length = plan.length((1.5, 1.9))
        at = plan.instant(length)
        _cut(plan, plan.rng.choice(host.routes_out), at, at + length, True, False)
        plan.world.push(at + plan.rng.randrange(length * 2 // 3, length), plan.world.crash, host)


def link_cut_out(plan: Plan) -> None:
    """Some agents hear nothing of one leader, at which all that they send arrives."""
    _cut_one_way(plan, up=False)


def _cut_one_way(plan: Plan, up: bool) -> None:
    for host in plan.take(max(2, len(plan.world.agents) // 10)):
        length = plan.length((0.2, 2.9), (4, 14))
        at = plan.instant(length)
        _cut(plan, plan.rng.choice(host.routes_out), at, at + length, up, not up)


def rack_dark(plan: Plan) -> None:
    """All machines of a rack are gone at once, or all their ways to its leaders; one of them may not come back."""
    agents = _rack(plan)
    length = plan.length((2, 5), (5, 12))
    at = plan.instant(length)
    switch = plan.rng.random() < 0.5
    for host in agents:
        begin = at + plan.rng.randrange(20 * MILLISECOND)
        if not switch:
            _vanish(plan, host, begin, at + length)
            continue
        for route in host.routes_out:
            _cut(plan, route, begin, at + length, True, True)
    if plan.rng.random() < 0.5 and agents[0] in plan.free:
        plan.free.remove(agents[0])
        plan.world.push(at + length // 2, plan.world.crash, agents[0])


def rack_back(plan: Plan) -> None:
    """A dark rack comes back bit by bit: most of its machines together, others seconds later, a few never."""
    agents = [host for host in _rack(plan) if host in plan.free]
    length = plan.length((5, 8))
    at = plan.instant(length + 8 * SECOND)
    for host in agents:
        begin, back = at + plan.rng.randrange(20 * MILLISECOND), at + length
        chance = plan.rng.random()
        if chance < 0.1:
            plan.free.remove(host)
            plan.world.push(begin, plan.world.vanish, host)
            plan.world.push(begin, plan.world.crash, host)
            continue
        back += plan.rng.randrange(300 * MILLISECOND) if chance < 0.7 else plan.rng.randrange(8 * SECOND)
        _vanish(plan, host, begin, back)


def power_strip(plan: Plan) -> None:
    """Up to half of a rack's machines lose their power at one instant."""
    agents = [host for host in _rack(plan) if host in plan.free]
    length = plan.length((2, 5), (5, 12))
    at = plan.instant(length)
    for host in agents[: max(1, round(len(agents) * plan.rng.uniform(0.3, 0.5)))]:
        plan.free.remove(host)
        _vanish(plan, host, at, at + length)
        plan.world.push(at, plan.world.crash, host)
        plan.world.push(at + length + plan.rng.randrange(SECOND), plan.world.start, host)


def _rack(plan: Plan) -> list[Host]:
    """The agents of a random rack."""
    leader = plan.rng.choice(plan.world.leaders)
    return [route.client for route in leader.routes_in]


def mass_freeze(plan: Plan) -> None:
    """Many processes of a rack stand still at once on living hosts (a busy hypervisor, a shared disk)."""
    agents = _rack(plan)
    count = max(1, round(len(agents) * plan.rng.uniform(0.3, 1.0)))
    length = plan.length((0.3, 1.5), (2, 8))
    at = plan.instant(length)
    for host in plan.rng.sample(agents, count):
        plan.world.push(at + plan.rng.randrange(20 * MILLISECOND), plan.world.pause, host)
        plan.world.push(at + length, plan.world.resume, host)


def neighbour_liar(plan: Plan) -> None:
    """Agents that are asked about their neighbours answer with garbage, with a refusal, or not; others need them."""
    world = plan.world
    for host in plan.some(world.agents, 3):
        world.push(plan.begin, _set_liar, host, plan.rng.choice(("garbage", "refusal", "silence")))
        world.push(plan.heal_by, _set_liar, host, "")
    link_cut_in(plan)
    host_gone(plan)


def _set_liar(at: int, host: Host, how: str, *_: object) -> None:
    host.liar = how


def app_stuck(plan: Plan) -> None:
    """Applications deadlock, or fail, and get well again: at once, after seconds, again and again, or never."""
    world = plan.world
    hosts = plan.some(world.agents, 4)
    for number, host in enumerate(hosts):
        at = plan.instant()
        for _ in range(plan.rng.choice((1, 1, 3))):
            bad = plan.rng.choice((Health.DEADLOCKED, Health.DEADLOCKED, Health.CRITICAL, Health.WARNING))
            world.push(at, world.become, host, bad)
            at += plan.length((0.05, 0.5), (1, 6), (8, 14))
            if at >= plan.heal_by or number == 0:
                break
            world.push(at, world.become, host, Health.OK)
            at += plan.length((0.05, 0.5), (1, 6))
            if at >= plan.heal_by:
                break


def prober_stuck(plan: Plan) -> None:
    """Probers stand still beside agents that beat: too briefly to be told, longer, or until they are killed for it."""
    world = plan.world
    for host in plan.some(world.agents, 5):
        length = plan.length((1, 8), (14, 24), (31, 40))
        at = plan.instant(length)
        world.push(at, world.hold_prober, host)
        world.push(at + length, world.release_prober, host)


def goodbye(plan: Plan) -> None:
    """Agents leave on purpose; some come back."""
    for host in plan.take(max(2, len(plan.world.agents) // 10)):
        away = plan.length((1.5, 12))
        at = plan.instant(away)
        plan.world.push(at, plan.world.terminate, host)
        if plan.rng.random() < 0.5:
            plan.world.push(at + away, plan.world.start, host)


def leader_restart(plan: Plan) -> None:
    """Leaders are killed and started again, for less or more than their lease; nodes die meanwhile."""
    world = plan.world
    for leader in plan.some(world.leaders, 2):
        down = plan.length((0.2, 4), (6, 9))
        # Early: a death in the meantime is told when `join_grace` is over, and that must come before the end.
        at = plan.rng.randrange(plan.begin, max(plan.begin + 1, plan.heal_by // 2 - down))
        world.push(at, world.crash, leader)
        world.push(at + down, world.start, leader)
        _expect_silence(plan, leader, at, at + down)
        victims = [host for host in plan.free if leader.name in host.route_to]
        if victims:
            victim = plan.rng.choice(victims)
            plan.free.remove(victim)
            world.push(at + plan.rng.randrange(down), world.crash, victim)


def leader_down(plan: Plan) -> None:
    """A leader dies and stays dead."""
    leader = plan.rng.choice(plan.world.leaders)
    at = plan.instant()
    plan.world.push(at, plan.world.crash, leader)
    _expect_silence(plan, leader, at, plan.world.scenario.end_ns)


def observer_pause(plan: Plan) -> None:
    """Leaders stand still: the process alone, or the whole machine with its network."""
    for leader in plan.some(plan.world.leaders, 2):
        for _ in range(3):
            length = plan.length((0.03, 0.5), (0.5, 3), (3, 12))
            at = _pause(plan, leader, length)
            if plan.rng.random() < 0.5:
                for route in leader.routes:
                    _cut(plan, route, at, at + length, True, True)


def leader_frozen(plan: Plan) -> None:
    """Leaders are frozen, or suspended with their clocks and their network, for seconds; nodes die meanwhile."""
    world = plan.world
    for leader in plan.some(world.leaders, 2):
        length = plan.length((1, 5), (5, 14))
        at = (_sleep if plan.rng.random() < 0.5 else _pause)(plan, leader, length)
        _expect_silence(plan, leader, at, at + length)
        victims = [host for host in plan.free if leader.name in host.route_to]
        if victims:
            victim = plan.rng.choice(victims)
            plan.free.remove(victim)
            world.push(at + plan.rng.randrange(length), world.crash, victim)


def root_restart(plan: Plan) -> None:
    """The root is killed and started again, several times."""
    for _ in range(3):
        down = plan.length((0.1, 3), (6, 9))
        at = plan.instant(down)
        plan.world.push(at, plan.world.crash, plan.world.root)
        plan.world.push(at + down, plan.world.start, plan.world.root)


def root_pause(plan: Plan) -> None:
    """The root stands still: the process alone, or the whole machine with its network."""
    root = plan.world.root
    for _ in range(2):
        length = plan.length((0.5, 4), (6, 12))
        at = _pause(plan, root, length)
        if plan.rng.random() < 0.5:
            for route in root.routes_in:
                plan.world.push(at, _begin_cut, plan.world, route, (True, True))
                plan.world.push(at + length, _end_cut, plan.world, route, (True, True))


def operators(plan: Plan) -> None:
    """People silence nodes and racks, for some seconds or for longer than the run, end that early, and acknowledge."""
    world = plan.world
    for host in plan.take(max(3, len(world.agents) // 5)):
        down = plan.length((1, 3), (4, 14))
        at = plan.instant(down)
        world.push(at, world.crash, host)
        world.push(at + down, world.start, host)
    for number in range(6):
        node = plan.rng.choice(world.agents).name
        rack = node.rpartition("/")[0]
        nodes, racks, kinds = plan.rng.choice(
            [((node,), (), ()), ((node,), (), ()), ((), (rack,), ()), ((f"{rack}/*",), (), ()), ((), (), ("node-*",))]
        )
        order = Order(
            id=number,
            what="silence",
            reason="works",
            nodes=nodes,
            racks=racks,
            kinds=kinds,
            length_ns=plan.length((3, 8), (8, 20), (100, 100)),
            maintenance=plan.rng.random() < 0.3,
        )
        at = plan.instant()
        world.push(at, _order, world, order)
        if plan.rng.random() < 0.4:
            world.push(at + plan.rng.randrange(8 * SECOND), _unsilence, world)
    for _ in range(2):
        world.push(plan.instant(), _acknowledge, world, plan.rng)


def _order(at: int, world: World, order: Order, *_: object) -> None:
    world.trace.add(at, "order", order.what, order.target)
    world.tell(at, world.root, Ordered(order, "operator"))


def _unsilence(at: int, world: World, *_: object) -> None:
    """End the newest silence that an operator was told of."""
    ids = [answer["silence"].silence for answer in world.answers if isinstance(answer, dict) and "silence" in answer]
    if ids:
        _order(at, world, Order(id=0, what="unsilence", target=ids[-1], reason="done"))


def _acknowledge(at: int, world: World, rng: random.Random, *_: object) -> None:
    """Take one of the incidents that nobody has taken yet."""
    store = world.root.disk
    assert isinstance(store, Store)
    firing = [one.incident_id for one in store.incidents.values() if one.state is IncidentState.FIRING]
    if firing:
        _order(at, world, Order(id=0, what="ack", target=rng.choice(firing), reason="mine"))


def flapping(plan: Plan) -> None:
    """Agents end and are started again, many times in a row."""
    for host in plan.take(2):
        at = plan.begin + plan.rng.randrange(4 * SECOND)
        for _ in range(plan.rng.randrange(3, 9)):
            down = plan.length((0.05, 0.5), (1, 2))
            if at + down >= plan.heal_by:
                break
            plan.world.push(at, plan.world.crash, host)
            plan.world.push(at + down, plan.world.start, host)
            at += down + plan.length((0.3, 3))


def clock_step(plan: Plan) -> None:
    """Wall clocks jump by an hour or a day, everywhere."""
    hosts = [plan.world.root, *plan.world.leaders, *plan.some(plan.world.agents, 4)]
    for host in hosts:
        step = plan.rng.choice((HOUR, -24 * HOUR, 24 * HOUR, -5 * SECOND))
        plan.world.push(plan.instant(), _step, plan.world, host, step)


def _step(at: int, world: World, host: Host, step: int) -> None:
    world.trace.add(at, "step", host.name, step)
    host.wall_offset_ns += step
    host.stepped = True


def disk_trouble(plan: Plan) -> None:
    """Disks of leaders and root fail for a while, or take most of a second to sync."""
    for host in (plan.world.root, *plan.some(plan.world.leaders, 2)):
        length = plan.length((1, 8))
        at = plan.instant(length)
        failing = plan.rng.random() < 0.5
        plan.world.push(at, _set_disk, host, failing, not failing)
        plan.world.push(at + length, _set_disk, host, False, False)


def _set_disk(at: int, host: Host, failing: bool, slow: bool) -> None:
    assert host.disk is not None
    host.disk.failing = failing
    host.disk.slow = slow
    if failing or slow:
        host.disk.troubled.append([at, FAR])
    elif host.disk.troubled:
        host.disk.troubled[-1][1] = at


def hook_failure(plan: Plan) -> None:
    """Half of the hook processes fail."""
    plan.world.hook_failures = 0.5
    plan.world.push(plan.heal_by, _mend_hooks, plan.world)


def _mend_hooks(at: int, world: World, *_: object) -> None:
    world.hook_failures = 0.0


#: Every fault by its name on the command line.
CATALOG: dict[str, Callable[[Plan], None]] = {
    "quiet": quiet,
    "loss": loss,
    "delay": delay,
    "duplicate": duplicate,
    "partition": partition,
    "agent-crash": agent_crash,
    "agent-pause": agent_pause,
    "agent-sleep": agent_sleep,
    "host-gone": host_gone,
    "freeze": freeze,
    "mass-freeze": mass_freeze,
    "link-cut-in": link_cut_in,
    "link-cut-out": link_cut_out,
    "rack-dark": rack_dark,
    "rack-back": rack_back,
    "power-strip": power_strip,
    "neighbour-liar": neighbour_liar,
    "app-stuck": app_stuck,
    "prober-stuck": prober_stuck,
    "goodbye": goodbye,
    "leader-restart": leader_restart,
    "leader-down": leader_down,
    "observer-pause": observer_pause,
    "leader-frozen": leader_frozen,
    "root-restart": root_restart,
    "root-pause": root_pause,
    "operators": operators,
    "flapping": flapping,
    "clock-step": clock_step,
    "disk-trouble": disk_trouble,
    "hook-failure": hook_failure,
}


def schedule(world: World) -> Plan:
    """Put the scenario's faults, and the stops of every run, into the world's heap."""
    plan = Plan(world, random.Random(f"{world.scenario.seed}/faults"))
    stops(plan)
    for name in world.scenario.faults:
        CATALOG[name](plan)
    return plan
