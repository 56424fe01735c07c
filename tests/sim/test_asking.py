"""Asking: what a question finds, by what is the matter with whoever is asked."""

from __future__ import annotations

from typing import Any

import pytest

from hbagent.core.echo import read_answer, request
from hbagent.core.effects import ASK_NS, WITNESS_NS, Ask, Send, Witness
from hbagent.core.messages import Answered, Ping
from hbagent.core.states import Outcome, Path
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.sim.asking import BACKLOG, REFUSALS, Question
from hbagent.sim.faults import schedule
from hbagent.sim.host import Host
from hbagent.sim.scenario import Scenario
from hbagent.sim.world import ECHO_PORT, World

NONCE = b"twelve bytes"


class Desk:
    """A rack in which everybody has met, and the answers to what the test asks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(Scenario(hosts=4, racks=1), keep_trace=True)
        self.answers: list[tuple[int, Answered]] = []
        self._answered = self.world.answered
        monkeypatch.setattr(self.world, "answered", self._take)
        self.world.start_all()
        self.world.run(5 * SECOND)
        (self.leader,) = self.world.leaders
        self.agent, self.neighbour = [host for host in self.world.agents if not host.firewalled][:2]
        self.key = self.agent.core.echo_keys[0]
        self.route = self.agent.routes_out[0]

    def _take(self, at: int, question: Question, answered: Answered) -> None:
        if question.number >= 1000:
            self.answers.append((at - self.asked_at, answered))
        else:
            self._answered(at, question, answered)

    def ask(self, path: Path, asker: Host | None = None, number: int = 1000) -> None:
        """Send a signed question to the agent."""
        self.asked_at = self.world.now
        data = request(self.key, NONCE)
        order = Ask(self.agent.name, number, path, self.agent.address, ECHO_PORT, data)
        self.world.asking.ask(self.world.now, asker or self.leader, order)

    def witness(self, number: int = 1000) -> None:
        """Send a ping, and look for its acknowledgement."""
        self.asked_at = self.world.now
        effects = (Witness(self.agent.name, number), Send(self.agent.name, Ping(number=number)))
        self.world._perform(self.world.now, self.leader, effects)

    def result(self, within_ns: int = SECOND) -> tuple[int, Answered]:
        """The one answer that came, and after how long."""
        self.world.run(self.world.now + within_ns)
        ((after, answered),) = self.answers
        return after, answered


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


@pytest.mark.parametrize("path", [Path.UDP, Path.TCP])
def test_a_living_agent_answers_in_milliseconds_and_the_answer_is_its_own(desk: Desk, path: Path) -> None:
    desk.ask(path)
    after, answered = desk.result()
    assert after < 100 * MILLISECOND and answered.outcome is Outcome.ANSWERED and answered.path is path
    assert read_answer(answered.data, desk.key, NONCE) == (desk.agent.core.incarnation, desk.agent.core.sequence - 1)


@pytest.mark.parametrize("path", [Path.UDP, Path.TCP])
def test_a_living_host_without_a_process_refuses(desk: Desk, path: Path) -> None:
    desk.world.crash(desk.world.now, desk.agent)
    desk.ask(path)
    after, answered = desk.result()
    assert after < 100 * MILLISECOND and answered.outcome is Outcome.REFUSED


def test_a_kernel_stops_refusing_datagrams_after_a_few(desk: Desk) -> None:
    desk.world.crash(desk.world.now, desk.agent)
    for number in range(REFUSALS + 3):
        desk.ask(Path.UDP, number=1000 + number)
    desk.world.run(desk.world.now + SECOND)
    outcomes = [answered.outcome for _, answered in desk.answers]
    assert outcomes.count(Outcome.REFUSED) == REFUSALS and outcomes.count(Outcome.SILENT) == 3


@pytest.mark.parametrize("path", [Path.UDP, Path.TCP])
def test_a_machine_that_is_away_says_nothing(desk: Desk, path: Path) -> None:
    desk.world.vanish(desk.world.now, desk.agent)
    desk.ask(path)
    after, answered = desk.result()
    assert after == ASK_NS and answered.outcome is Outcome.SILENT


@pytest.mark.parametrize("path", [Path.UDP, Path.TCP])
def test_behind_a_firewall_nothing_is_said_whether_a_process_runs_or_not(desk: Desk, path: Path) -> None:
    desk.agent.firewalled = True
    desk.ask(path)
    assert desk.result()[1].outcome is Outcome.SILENT


@pytest.mark.parametrize(("up", "down"), [(True, False), (False, True)])
def test_a_cut_in_either_direction_silences_the_leaders_question_and_not_a_neighbours(
    desk: Desk, up: bool, down: bool
) -> None:
    desk.world.network.cut(desk.world.now, desk.route, up, down)
    desk.ask(Path.UDP)
    assert desk.result()[1].outcome is Outcome.SILENT
    desk.answers.clear()
    desk.ask(Path.UDP, desk.neighbour)
    assert desk.result()[1].outcome is Outcome.ANSWERED


def test_a_stopped_process_answers_when_it_goes_on_in_time_and_else_not(desk: Desk) -> None:
    desk.world.pause(desk.world.now, desk.agent)
    desk.ask(Path.UDP)
    desk.world.push(desk.world.now + ASK_NS // 2, desk.world.resume, desk.agent)
    after, answered = desk.result()
    assert ASK_NS // 2 < after < ASK_NS and answered.outcome is Outcome.ANSWERED
    desk.answers.clear()
    desk.world.pause(desk.world.now, desk.agent)
    desk.ask(Path.UDP)
    desk.world.push(desk.world.now + 2 * ASK_NS, desk.world.resume, desk.agent)
    assert desk.result()[1].outcome is Outcome.SILENT


def test_the_connections_that_a_stopped_process_does_not_take_fill_its_queue(desk: Desk) -> None:
    desk.world.pause(desk.world.now, desk.agent)
    for number in range(BACKLOG + 5):
        desk.ask(Path.TCP, number=1000 + number)
    desk.world.run(desk.world.now + SECOND)
    assert desk.agent.backlog == BACKLOG
    desk.world.resume(desk.world.now, desk.agent)
    assert desk.agent.backlog == 0


def test_an_asker_that_stood_still_reads_the_answer_before_it_finds_that_the_time_is_over(desk: Desk) -> None:
    desk.ask(Path.UDP)
    desk.world.pause(desk.world.now, desk.leader)
    desk.world.run(desk.world.now + 3 * SECOND)
    assert desk.answers == []
    desk.world.resume(desk.world.now, desk.leader)
    assert desk.result()[1].outcome is Outcome.ANSWERED


def test_each_question_of_a_dead_asker_is_forgotten(desk: Desk) -> None:
    desk.ask(Path.UDP)
    desk.witness(1001)
    desk.world.crash(desk.world.now, desk.leader)
    desk.world.start(desk.world.now, desk.leader)
    desk.world.run(desk.world.now + SECOND)
    assert desk.answers == []


# ---- what a kernel acknowledges --------------------------------------------------------------------------


def test_the_kernel_of_a_living_host_acknowledges_whether_its_process_runs_or_stands_still(desk: Desk) -> None:
    desk.witness()
    after, answered = desk.result()
    assert after <= 80 * MILLISECOND and (answered.path, answered.outcome) == (Path.KERNEL, Outcome.ACKED)
    desk.answers.clear()
    desk.world.pause(desk.world.now, desk.agent)
    desk.witness(1001)
    after, answered = desk.result()
    assert 40 * MILLISECOND <= after <= 160 * MILLISECOND and answered.outcome is Outcome.ACKED


@pytest.mark.parametrize(("up", "down"), [(True, False), (False, True), (True, True)])
def test_nothing_is_acknowledged_over_a_way_that_is_cut(desk: Desk, up: bool, down: bool) -> None:
    desk.world.network.cut(desk.world.now, desk.route, up, down)
    desk.witness()
    after, answered = desk.result()
    assert after == WITNESS_NS and answered.outcome is Outcome.SILENT


def test_a_cut_that_ends_in_time_lets_the_acknowledgement_pass(desk: Desk) -> None:
    desk.world.network.cut(desk.world.now, desk.route, False, True)
    desk.witness()
    desk.world.run(desk.world.now + 10 * MILLISECOND)
    desk.world.network.heal(desk.world.now, desk.route, False, True)
    assert desk.result()[1].outcome is Outcome.ACKED


def test_the_connection_of_a_dead_process_is_closed(desk: Desk) -> None:
    desk.world.crash(desk.world.now, desk.agent)
    desk.witness()
    after, answered = desk.result()
    assert after < 10 * MILLISECOND and answered.outcome is Outcome.CLOSED


def test_half_a_connection_to_a_machine_that_is_away_is_neither_acknowledged_nor_closed(desk: Desk) -> None:
    desk.world.vanish(desk.world.now, desk.agent)
    desk.world.crash(desk.world.now, desk.agent)
    desk.world.run(desk.world.now + SECOND)
    desk.witness()
    assert desk.result()[1].outcome is Outcome.SILENT


def test_a_connection_on_which_nothing_was_heard_cannot_be_watched(desk: Desk) -> None:
    desk.route.known = 0
    desk.witness()
    assert desk.result()[1].outcome is Outcome.UNSENT


def test_every_question_of_a_troubled_run_has_exactly_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Scenario(faults=("partition", "agent-crash", "agent-pause", "loss"), leaders=2))
    asked: dict[Any, int] = {}
    for name in ("_ask", "_witness"):
        kind = {"_ask": Ask, "_witness": Witness}[name]
        perform = world._PERFORMERS[kind]

        def counted(world: World, at: int, host: Host, effect: Any, perform: Any = perform) -> None:
            asked[host.name, host.life, effect.number] = 0
            perform(world, at, host, effect)

        monkeypatch.setitem(world._PERFORMERS, kind, counted)
    answered = world.answered

    def taken(at: int, question: Question, message: Answered) -> None:
        asked[question.asker.name, question.life, question.number] += 1
        answered(at, question, message)

    monkeypatch.setattr(world, "answered", taken)
    schedule(world)
    world.start_all()
    world.run(world.scenario.end_ns)
    lives = {host.name: host.life for host in (world.root, *world.leaders, *world.agents) if host.runs}
    counts = [count for (name, life, _), count in asked.items() if lives.get(name) == life]
    assert len(counts) > 100 and max(counts) == 1
    # The newest are still under way.
    assert counts.count(0) < 10
