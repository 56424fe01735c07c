"""Each guard is shown to matter: with it switched off, the checker turns a row red.

A guard that may be taken out without any row turning red protects nothing, or the checker is blind to what it
protects. The run that turned red is green again with the guard in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from hbagent.core import inquiry
from hbagent.core.config import LeaderConfig
from hbagent.core.datacenter import Datacenter
from hbagent.core.doubt import Doubt
from hbagent.core.gate import Gate
from hbagent.core.inquiry import Inquiry, Proof
from hbagent.core.leader import LeaderCore
from hbagent.core.leaderrecord import LeaderRecord
from hbagent.core.lease import Lease
from hbagent.core.member import Member
from hbagent.core.messages import Pong
from hbagent.core.observer import OwnLag
from hbagent.core.order import Order, Verdict
from hbagent.core.outbox import Outbox
from hbagent.core.patience import Patience
from hbagent.core.roster import Roster
from hbagent.core.states import Path
from hbagent.sim.run import play
from hbagent.sim.scenario import Scenario
from hbagent.sim.world import World

#: Who changes no guard need not see on each save what it prevents.
pytestmark = pytest.mark.slow

#: Seeds that are tried until a row turns red.
SEEDS = 40

Off = Callable[[pytest.MonkeyPatch], None]


def red(
    row: str, seed: int, fault: str, *, drains: bool = True, doubt: bool = True, hosts: int = 16, racks: int = 2
) -> list[str]:
    """The lines of one of the checker's rows after a run."""
    leader = LeaderConfig(name="", racks={}, doubt=doubt)
    world = World(Scenario(hosts=hosts, racks=racks, seed=seed, faults=(fault,), leader=leader))
    world.drains = drains
    play(world)
    return [line for line in world.checker.violations if line.startswith(f"{row}:")]


def first_red(row: str, fault: str, *, says: str = "", **settings: Any) -> int | None:
    """The first seed for which `row` turns red with a line that holds `says`; None when it stays green."""
    for seed in range(SEEDS):
        if any(says in line for line in red(row, seed, fault, **settings)):
            return seed
    return None


def no_credit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OwnLag, "since", lambda self, instant: 0)


def no_hold(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OwnLag, "hold", lambda self, until: None)


def no_ages(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Member, "age_of", lambda self, offset, now: 0)


def no_order(patch: pytest.MonkeyPatch) -> None:
    def judge(self: Order, incarnation: int, sequence: int) -> Verdict:
        self.incarnation, self.sequence = incarnation, sequence
        return Verdict.FRESH

    patch.setattr(Order, "judge", judge)


def no_resend(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "rewind", lambda self: None)


def no_marks(patch: pytest.MonkeyPatch) -> None:
    """The root takes whatever a leader sends, as often as it is sent."""
    patch.setattr(LeaderRecord, "taken", lambda self, epoch: 0)


def no_recall(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Roster, "recall", lambda self, *known: None)


def no_lease(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lease, "lapsed", lambda self, now: False)


def lapse_is_silence(patch: pytest.MonkeyPatch) -> None:
    """A leader that is lost counts as one that has listened and heard nobody."""
    patch.setattr(Datacenter, "someone_is_lost", lambda self, rack: False)


def no_lag_at_the_root(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lease, "extend", lambda self, lag_ns, since: None)


def no_journal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LeaderCore, "_restore", lambda self, kept, now: None)


# ---- doubt and causes ------------------------------------------------------------------------------------


def a_closed_connection_convicts(patch: pytest.MonkeyPatch) -> None:
    def convict(member: Member, doubt: Doubt) -> None:
        doubt.exited = doubt.closed

    patch.setattr(inquiry, "_convict", convict)


def an_answer_proves_life_when_it_arrives(patch: pytest.MonkeyPatch) -> None:
    """...and not when it was asked for; nor is a question forgotten to which there was no sign of its delivery."""
    proved = Roster.proved

    def pong(self: Inquiry, sender: str, pong: Pong) -> Proof | None:
        member = self._members.get(sender)
        if member is None or pong.incarnation != member.order.incarnation:
            return None
        return Proof(member, 0, pong.incarnation, pong.sequence, Path.CONTROL)

    patch.setattr(Inquiry, "pong", pong)
    patch.setattr(Roster, "proved", lambda self, proof, now: proved(self, replace(proof, at=now), now))


def tcp_is_asked_each_time(patch: pytest.MonkeyPatch) -> None:
    def ask_udp(self: Inquiry, member: Member, doubt: Doubt, now: int) -> None:
        self._ask_echo(member, Path.TCP, now)

    patch.setattr(Inquiry, "_ask_udp", ask_udp)


def no_neighbours(patch: pytest.MonkeyPatch) -> None:
    """What neighbours answer is thrown away."""
    patch.setattr(Doubt, "heard_elsewhere", lambda self, who, at: False)


def no_acknowledgements(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Doubt, "acked", lambda self, asked_at: False)


def silence_proves_without_proof(patch: pytest.MonkeyPatch) -> None:
    """Silence on a path that never worked counts like silence on one that did."""
    patch.setattr(Patience, "may_be_gone", lambda self, member, doubt: True)


def no_gate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "hold_until", lambda self, now, grace_ns: 0)


def no_brake(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "brake", lambda self, dying, now, hold_ns: 0)


def nobody_is_asked_anew(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Inquiry, "ask_anew", lambda self, member, doubt, now: None)


def no_questions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Inquiry, "_round", lambda self, member, doubt, now: None)


def no_hurry(patch: pytest.MonkeyPatch) -> None:
    """A connection that is gone raises no doubt."""
    patch.setattr(Roster, "disconnected", lambda self, member, now: None)


@pytest.mark.parametrize(
    ("off", "fault", "row"),
    [
        (no_credit, "observer-pause", "accuracy"),
        (no_ages, "partition", "ghost"),
        (no_order, "duplicate", "monotone"),
        (no_resend, "partition", "bounded"),
        (no_marks, "root-pause", "once"),
        (no_recall, "leader-restart", "completeness"),
        (no_journal, "leader-restart", "completeness"),
        (no_lease, "leader-down", "lease"),
        (lapse_is_silence, "leader-down", "accuracy"),
        (no_lag_at_the_root, "root-pause", "accuracy"),
        (a_closed_connection_convicts, "partition", "cause"),
        (an_answer_proves_life_when_it_arrives, "link-cut-in", "ghost"),
        (tcp_is_asked_each_time, "freeze", "asks"),
        (no_neighbours, "link-cut-in", "cause"),
        (no_acknowledgements, "freeze", "frozen"),
        (silence_proves_without_proof, "host-gone", "cause"),
        (no_gate, "rack-back", "dark"),
        (no_questions, "delay", "askable"),
        (no_hurry, "agent-crash", "prompt"),
    ],
)
def test_without_the_guard_a_row_turns_red(off: Off, fault: str, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    off(monkeypatch)
    seed = first_red(row, fault)
    assert seed is not None
    monkeypatch.undo()
    assert not red(row, seed, fault)


@pytest.mark.parametrize(
    ("off", "fault", "row"),
    [
        # Half of eight nodes, and one that was dead before, look like a rack that is dark.
        (no_brake, "power-strip", "mass"),
        # What is asked of eight nodes spends no budget.
        (nobody_is_asked_anew, "rack-back", "anew"),
    ],
)
def test_without_the_guard_a_row_turns_red_in_larger_racks(
    off: Off, fault: str, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    off(monkeypatch)
    seed = first_red(row, fault, hosts=32, racks=1)
    assert seed is not None
    monkeypatch.undo()
    assert not red(row, seed, fault, hosts=32, racks=1)


def test_where_nobody_is_asked_a_stalled_leader_must_listen_before_it_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where somebody is, his answer makes up for it.
    no_hold(monkeypatch)
    seed = first_red("accuracy", "observer-pause", doubt=False)
    assert seed is not None
    monkeypatch.undo()
    assert not red("accuracy", seed, "observer-pause", doubt=False)


def test_without_a_budget_a_storm_of_doubts_asks_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    # Thirty-two nodes make no storm for a thousand questions, so they get fifty.
    leader = LeaderConfig(name="", racks={}, ask_burst=50)

    def asks(seed: int) -> list[str]:
        world = World(Scenario(hosts=64, seed=seed, faults=("rack-dark",), leader=leader))
        play(world)
        return [line for line in world.checker.violations if line.startswith("asks:")]

    monkeypatch.setattr(Inquiry, "refill", lambda self, beats: setattr(self, "_tokens", 1 << 30))
    seed = next((seed for seed in range(SEEDS) if asks(seed)), None)
    assert seed is not None
    monkeypatch.undo()
    assert not asks(seed)


def test_a_paused_leader_calls_the_living_dead_without_draining_and_its_own_lag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Either of the two suffices for a stopped process; the lag is for a machine that lost its packets as well.
    assert first_red("accuracy", "observer-pause", drains=False) is None
    no_credit(monkeypatch)
    no_hold(monkeypatch)
    assert first_red("accuracy", "observer-pause", says=" DEAD after", drains=False) is not None
