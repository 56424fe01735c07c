"""Whose fault a silence is: the node's, its rack's, its leader's or the root's own. One story is one event."""

from __future__ import annotations

import msgspec
import pytest

from hbagent.core.accuracy import NODE_YEAR_NS
from hbagent.core.config import HookConfig, RackConfig
from hbagent.core.effects import Answer, Effects, Fetch, Happened, Persist, RunHook, Send, Witness
from hbagent.core.messages import (
    Answered,
    Disconnected,
    Evidence,
    HookFinished,
    Kept,
    LeaderStats,
    NodeRow,
    Ping,
    Pong,
    Query,
    RackSummary,
    Step,
    Suspended,
    Transition,
    Transitions,
)
from hbagent.core.records import Batch, Conviction, Event, NodeState, Restored
from hbagent.core.root import RootCore
from hbagent.core.rootviews import status_view
from hbagent.core.states import Cause, Kind, Liveness, Outcome, Path, RackState
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.core.views import AccuracyView
from hbagent.core.wallclock import rfc3339
from tests.build import EPOCH, INCARNATION, T, hook, root_config, root_core, transition

ALIVE, SUSPECT, DEAD, LEFT, UNKNOWN = (
    Liveness.ALIVE,
    Liveness.SUSPECT,
    Liveness.DEAD,
    Liveness.LEFT,
    Liveness.UNKNOWN,
)
EVERYTHING = tuple(kind for kind in Kind if kind is not Kind.WATCHDOG)


class Site:
    """Racks `dc1/r1`... of four nodes each with leaders that summarise each second, a root, its disk and its hook."""

    def __init__(self, racks: int = 1, leaders: int = 1, nodes: int = 4, restored: Restored | None = None) -> None:
        self.names = [f"dc1/r{number}" for number in range(1, racks + 1)]
        config = tuple(
            RackConfig(name=rack, leaders=tuple(f"{rack}-l{number}" for number in range(1, leaders + 1)))
            for rack in self.names
        )
        self.page: HookConfig = hook("page", *EVERYTHING)
        self.config = root_config(self.page, racks=config)
        self.core: RootCore = root_core(self.page, racks=config, restored=restored)
        self.leaders = [leader for rack in config for leader in rack.leaders]
        self.quiet: dict[str, None] = {}
        self.now = 0
        self.told: list[str] = []
        self.hooks: list[dict[str, object]] = []
        self.orders: list[object] = []
        self.disk: list[Batch] = []
        self._number = 0
        self._told_by = dict.fromkeys(self.leaders, 0)
        #: (leader, node) -> its row.
        self.rows: dict[tuple[str, str], NodeRow] = {}
        for leader in self.leaders:
            for number in range(1, nodes + 1):
                row = NodeRow(node=f"n{number}", liveness=ALIVE, age_ns=0, incarnation=INCARNATION, sequence=10)
                self.rows[leader, f"{leader[:-3]}/n{number}"] = row

    def settle(self) -> Site:
        """Everybody is heard and all nodes live."""
        self.run(2)
        assert {self.shown(node)[0] for node in self.core.nodes} == {ALIVE}
        self.told.clear()
        return self

    # ---- time ------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> list[str]:
        """Let time pass, with a summary of each leader that is not quiet each second; returns what was told."""
        begun, end = len(self.told), self.now + T(seconds)
        while True:
            due = SECOND * (self.now // SECOND + 1)
            wanted = self.core.deadline()
            at = min(due, end, wanted if wanted is not None else end)
            self.now = max(self.now, at)
            self.take(self.core.wake(self.now))
            if self.now == due:
                self.summarise()
            if self.now >= end:
                return self.told[begun:]

    def summarise(self) -> None:
        for leader in self.leaders:
            if leader not in self.quiet:
                self.say(leader)

    def say(self, leader: str, **fields: object) -> list[str]:
        """A summary of this leader now; a living node has beaten since the last."""
        begun = len(self.told)
        self._number += 1
        for (name, node), row in self.rows.items():
            if name == leader and row.liveness is ALIVE:
                self.rows[name, node] = msgspec.structs.replace(row, sequence=10 + self.now // SECOND)
        message = RackSummary(
            rack=leader[:-3],
            epoch=EPOCH,
            number=self._number,
            newest=self._told_by[leader],
            nodes=tuple(row for (name, _), row in self.rows.items() if name == leader),
            stats=LeaderStats(uptime_ns=self.now, stalls=2, suspended_ns=T(3)),
            **fields,  # type: ignore[arg-type]
        )
        self.give(leader, message)
        return self.told[begun:]

    # ---- verdicts --------------------------------------------------------------------------------------------

    def judge(
        self,
        leader: str,
        after: Liveness,
        cause: Cause | None,
        *nodes: str,
        sequence: int | None = None,
        **fields: object,
    ) -> list[str]:
        """A leader tells a verdict about each of these nodes (short names); returns what was told of it."""
        begun, items = len(self.told), []
        for short in nodes:
            node = f"{leader[:-3]}/{short}"
            before = self.rows[leader, node]
            self._told_by[leader] += 1
            known = sequence if sequence is not None else before.sequence
            item = transition(
                self._told_by[leader], after, before.liveness, node, cause=cause, sequence=known, at_wall_ns=0, **fields
            )
            if item.kind is not Kind.NODE_ACCOUNTED:
                self.rows[leader, node] = msgspec.structs.replace(
                    before,
                    liveness=after,
                    cause=cause,
                    version=item.number,
                    sequence=known,
                    incarnation=item.incarnation,
                )
            items.append(item)
        self.give(leader, Transitions(epoch=EPOCH, base=1, after=items[0].number - 1, items=tuple(items)))
        return self.told[begun:]

    # ---- the crank -------------------------------------------------------------------------------------------

    def give(self, sender: str, message: object) -> None:
        self.take(self.core.receive(sender, message, self.now))

    def take(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Happened):
                self.told.append(f"{effect.kind.value} {effect.node.removeprefix('dc1/')}")
            elif isinstance(effect, Persist):
                self.disk.append(effect.batch)
                self.give("", Kept(effect.token))
            elif isinstance(effect, RunHook):
                self.hooks.append(msgspec.json.decode(effect.input))
                self.give("", HookFinished(run_id=effect.run_id, exit_code=0))
            elif isinstance(effect, (Witness, Send, Answer, Fetch)):
                self.orders.append(effect)

    # ---- what came of it -------------------------------------------------------------------------------------

    def shown(self, node: str) -> tuple[Liveness, Cause | None]:
        found = self.core.shown(self.core.nodes[node if "/" in node else f"dc1/r1/{node}"])
        return found.liveness, found.cause

    def paged(self, *kinds: Kind) -> list[str]:
        """What the hook was told of these kinds, or of any."""
        wanted = [kind.value for kind in kinds or EVERYTHING]
        return [str(one["kind"]) for one in self.hooks if one["kind"] in wanted]

    def events(self) -> list[Event]:
        return [event for batch in self.disk for event in batch.events]

    def convictions(self) -> list[Conviction]:
        return [conviction for batch in self.disk for conviction in batch.convictions]

    def asked(self) -> list[int]:
        return [effect.number for effect in self.orders if isinstance(effect, Witness)]

    def restored(self) -> Restored:
        nodes: dict[str, NodeState] = {}
        for batch in self.disk:
            nodes.update((state.node, state) for state in batch.nodes)
        marks = {(mark.leader, mark.epoch): mark for batch in self.disk for mark in batch.marks}
        return Restored(nodes=tuple(nodes.values()), marks=tuple(marks.values()), newest_sequence=len(self.events()))

    def rack(self, number: int = 1) -> RackState:
        return status_view(self.core, self.config, self.now).racks[number - 1].state


L1, L2 = "dc1/r1-l1", "dc1/r1-l2"


# ---- several observers ---------------------------------------------------------------------------------------


def test_a_node_that_somebody_else_hears_is_alive_and_marked_also_with_one_leader() -> None:
    site = Site().settle()
    assert site.judge(L1, SUSPECT, Cause.LINK_CUT, "n1") == []
    assert site.shown("n1") == (ALIVE, Cause.LINK_CUT)
    site.run(20)
    assert (site.told, site.paged(Kind.NODE_SUSPECT, Kind.NODE_DEAD)) == ([], [])
    assert site.judge(L1, ALIVE, None, "n1") == []
    assert site.shown("n1") == (ALIVE, None)


def test_a_suspicion_that_turns_out_to_be_a_cut_link_is_taken_back() -> None:
    site = Site().settle()
    assert site.judge(L1, SUSPECT, Cause.SILENCE, "n1") == ["node-suspect r1/n1"]
    assert site.judge(L1, SUSPECT, Cause.LINK_CUT, "n1") == ["node-recovered r1/n1"]
    assert site.shown("n1") == (ALIVE, Cause.LINK_CUT)


def test_a_cut_link_that_only_a_summary_tells_of_is_a_proof_of_life_too() -> None:
    site = Site().settle()
    site.judge(L1, SUSPECT, Cause.SILENCE, "n1")
    known = site.rows[L1, "dc1/r1/n1"]
    site.rows[L1, "dc1/r1/n1"] = msgspec.structs.replace(known, cause=Cause.LINK_CUT, version=known.version + 1)
    assert site.run(2) == ["node-recovered r1/n1"]
    assert site.shown("n1") == (ALIVE, Cause.LINK_CUT)


def test_a_return_has_no_cause_although_the_other_leader_is_still_deaf() -> None:
    site = Site(leaders=2).settle()
    for leader in (L1, L2):
        site.judge(leader, SUSPECT, Cause.PROCESS_FROZEN, "n1")
    assert site.judge(L1, ALIVE, None, "n1", sequence=20) == ["node-recovered r1/n1"]
    assert site.shown("n1") == (ALIVE, Cause.LINK_CUT)
    site.run(1)
    assert [one["cause"] for one in site.hooks] == ["process-frozen", None]


def test_another_cause_of_the_same_suspicion_is_history_and_tells_nobody() -> None:
    site = Site().settle()
    site.judge(L1, SUSPECT, Cause.SILENCE, "n1")
    assert site.judge(L1, SUSPECT, Cause.PROCESS_FROZEN, "n1") == []
    assert site.shown("n1") == (SUSPECT, Cause.PROCESS_FROZEN)
    site.run(3)
    assert site.paged() == ["node-suspect"]
    newest = site.events()[-1]
    assert (newest.kind, newest.cause, newest.withheld) == (Kind.NODE_SUSPECT, Cause.PROCESS_FROZEN, "refined")
    assert site.restored().nodes[0].cause is Cause.PROCESS_FROZEN


def test_a_proved_death_is_told_straight_from_alive_and_its_restart_once() -> None:
    site = Site(leaders=2).settle()
    assert site.judge(L1, DEAD, Cause.PROCESS_EXIT, "n1") == ["node-dead r1/n1"]
    assert site.judge(L2, DEAD, Cause.PROCESS_EXIT, "n1") == []
    back = {"kind": Kind.NODE_RESTARTED, "incarnation": 8}
    site.now += T(0.4)
    assert site.judge(L1, ALIVE, None, "n1", sequence=1, **back) == ["node-restarted r1/n1"]
    assert site.judge(L2, ALIVE, None, "n1", sequence=1, **back) == []
    site.run(3)
    assert site.paged() == ["node-dead", "node-restarted"]
    assert [conviction.wrong for conviction in site.convictions()] == [False]


def test_a_death_that_another_leader_contradicts_is_never_told() -> None:
    site = Site(leaders=2).settle()
    site.run(0.6)
    site.judge(L1, SUSPECT, Cause.SILENCE, "n1")
    assert site.judge(L1, DEAD, Cause.HOST_GONE, "n1") == [], "the other heard it as lately, and has yet to speak"
    assert site.shown("n1") == (ALIVE, Cause.LINK_CUT)
    assert site.run(30) == []
    assert site.paged(Kind.NODE_SUSPECT, Kind.NODE_DEAD, Kind.NODE_RECOVERED) == []


def test_a_death_is_told_when_the_other_leader_has_heard_no_more_either() -> None:
    site = Site(leaders=2).settle()
    site.run(0.6)
    site.rows[L2, "dc1/r1/n1"] = msgspec.structs.replace(site.rows[L2, "dc1/r1/n1"], liveness=ALIVE)
    assert site.judge(L1, DEAD, Cause.HOST_GONE, "n1") == []
    held = msgspec.structs.replace(site.rows[L2, "dc1/r1/n1"], liveness=SUSPECT, cause=Cause.SILENCE)
    assert site.judge(L2, SUSPECT, Cause.SILENCE, "n1") == ["node-dead r1/n1"]
    assert held.sequence == site.rows[L1, "dc1/r1/n1"].sequence


def test_a_death_waits_for_a_leader_that_is_silent_itself_no_longer_than_for_a_summary_and_a_half() -> None:
    site = Site(leaders=2).settle()
    site.quiet[L2] = None
    site.run(0.6)
    assert site.judge(L1, DEAD, Cause.HOST_GONE, "n1") == []
    assert site.run(0.8) == []
    assert site.run(0.2) == ["node-dead r1/n1"]
    site.run(1)
    assert site.judge(L1, DEAD, Cause.HOST_GONE, "n2") == ["node-dead r1/n2"], "it has missed two by now"


def test_a_proved_death_waits_for_nobody() -> None:
    site = Site(leaders=2).settle()
    site.run(0.6)
    assert site.judge(L1, DEAD, Cause.PROCESS_EXIT, "n1") == ["node-dead r1/n1"]


def test_when_one_of_two_leaders_dies_the_nodes_never_leave_alive() -> None:
    site = Site(leaders=2).settle()
    site.quiet[L2] = None
    for _ in range(80):
        site.run(0.25)
        assert {site.shown(node) for node in site.core.nodes} == {(ALIVE, None)}
    assert site.told == ["leader-lost r1-l2"]


def test_the_darkness_of_one_leader_hides_no_node_that_another_hears() -> None:
    site = Site(leaders=2).settle()
    assert site.judge(L1, UNKNOWN, Cause.RACK_DARK, "n1", "n2", "n3", "n4") == []
    assert site.run(10) == []
    assert site.rack() is RackState.OK


# ---- a dark rack ---------------------------------------------------------------------------------------------


def test_a_rack_that_goes_dark_is_one_event_and_its_return_another() -> None:
    site = Site().settle()
    site.judge(L1, UNKNOWN, Cause.RACK_DARK, "n1", "n2", "n3", "n4")
    site.run(2)
    assert site.paged() == ["rack-dark"]
    assert (site.rack(), site.shown("n1")) == (RackState.DARK, (UNKNOWN, Cause.RACK_DARK))
    (dark,) = site.hooks
    assert (dark["rack"], dark["leader"], dark["cause"], dark["node"]) == ("dc1/r1", L1, "rack-dark", None)
    assert dict(dark["evidence"])["text"].startswith("4 of 4 nodes fell silent at once")  # type: ignore[call-overload]
    site.judge(L1, ALIVE, None, "n1", "n2", "n3", "n4")
    site.run(2)
    assert site.paged() == ["rack-dark", "rack-recovered"]
    assert (site.rack(), site.shown("n1")) == (RackState.OK, (ALIVE, None))
    rows = [event for event in site.events() if event.node and event.withheld == "rack-dark"]
    assert [event.kind for event in rows] == [Kind.NODE_UNKNOWN] * 4 + [Kind.NODE_RECOVERED] * 4, "history has them"
    assert site.convictions() == []


def test_how_long_the_rack_had_been_silent_is_in_the_evidence() -> None:
    site = Site().settle()
    site.say(L1, dark_ns=T(1.7))
    site.judge(L1, UNKNOWN, Cause.RACK_DARK, "n1", "n2", "n3", "n4")
    (dark,) = [event for event in site.events() if event.kind is Kind.RACK_DARK]
    assert dark.evidence is not None and dark.evidence.silent_ns == T(1.7)


def test_nodes_that_stay_silent_when_the_rack_is_back_are_told_one_by_one() -> None:
    site = Site(nodes=8).settle()
    names = [f"n{number}" for number in range(1, 9)]
    site.judge(L1, UNKNOWN, Cause.RACK_DARK, *names)
    site.judge(L1, ALIVE, None, *names[:7])
    site.judge(L1, SUSPECT, Cause.SILENCE, "n8")
    site.judge(L1, DEAD, Cause.HOST_GONE, "n8")
    site.run(2)
    assert site.paged() == ["rack-dark", "rack-recovered", "node-suspect", "node-dead"]


def test_a_rack_is_counted_when_all_that_its_leader_says_has_been_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(nodes=6).settle()
    effects: list[object] = []
    with monkeypatch.context() as patch:
        # Thirty verdicts with their evidence fill a message, and the next one waits already.
        patch.setattr(site, "take", effects.extend)
        site.judge(L1, UNKNOWN, Cause.RACK_DARK, "n1", "n2", "n3", "n4")
        site.judge(L1, UNKNOWN, Cause.RACK_DARK, "n5", "n6")
        assert (site.core.deadline() or 0) <= site.now
        effects.extend(site.core.wake(site.now))
    site.take(tuple(effects))  # type: ignore[arg-type]
    site.run(2)
    (dark,) = [event for event in site.events() if event.kind is Kind.RACK_DARK]
    assert dark.evidence is not None and dark.evidence.text.startswith("6 of 6 nodes")


def test_a_host_that_was_started_again_in_the_dark_pages_nobody() -> None:
    site = Site().settle()
    site.judge(L1, UNKNOWN, Cause.RACK_DARK, "n1", "n2", "n3", "n4")
    back = {"kind": Kind.NODE_RESTARTED, "incarnation": 8}
    told = site.judge(L1, ALIVE, None, "n1", "n2", "n3", "n4", sequence=1, **back)
    assert told.count("rack-recovered r1") == 1 and "node-restarted r1/n1" in told
    site.run(2)
    assert site.paged() == ["rack-dark", "rack-recovered"]


def test_a_suspicion_told_before_the_rack_went_dark_has_its_end() -> None:
    site = Site().settle()
    site.judge(L1, SUSPECT, Cause.SILENCE, "n1")
    site.judge(L1, UNKNOWN, Cause.RACK_DARK, "n1", "n2", "n3", "n4")
    site.judge(L1, ALIVE, None, "n1", "n2", "n3", "n4")
    site.run(2)
    assert sorted(site.paged()) == ["node-recovered", "node-suspect", "rack-dark", "rack-recovered"]


def test_a_root_that_starts_again_in_the_dark_tells_its_end_and_not_its_beginning() -> None:
    first = Site().settle()
    first.judge(L1, UNKNOWN, Cause.RACK_DARK, "n1", "n2", "n3", "n4")
    second = Site(restored=first.restored())
    second.rows = dict(first.rows)
    second._told_by = dict(first._told_by)
    second.run(4)
    assert second.rack() is RackState.DARK
    assert second.told == []
    second.judge(L1, ALIVE, None, "n1", "n2", "n3", "n4")
    assert "rack-recovered r1" in second.told


# ---- a root that is cut off ----------------------------------------------------------------------------------


def test_leaders_that_all_fall_silent_together_are_one_event_about_the_root() -> None:
    site = Site(racks=3).settle()
    site.quiet.update(dict.fromkeys(site.leaders))
    assert site.run(60) == ["root-isolated root"]
    assert {site.shown(node) for node in site.core.nodes} == {(UNKNOWN, Cause.ROOT_ISOLATED)}
    assert site.paged() == ["root-isolated"]
    (told,) = site.hooks
    assert dict(told["evidence"])["text"].startswith("3 of 3 leaders fell silent together")  # type: ignore[call-overload]
    view = status_view(site.core, site.config, site.now)
    assert view.root.isolated and {rack.state for rack in view.racks} == {RackState.UNKNOWN}


def test_the_end_of_isolation_is_told_once_and_nothing_of_the_leaders() -> None:
    site = Site(racks=3).settle()
    site.quiet.update(dict.fromkeys(site.leaders))
    site.run(20)
    site.quiet.clear()
    assert site.run(10) == ["leader-recovered root"]
    assert site.paged() == ["root-isolated", "leader-recovered"]
    assert (site.hooks[1]["cause"], site.hooks[1]["leader"]) == ("root-isolated", None)
    assert {site.shown(node) for node in site.core.nodes} == {(ALIVE, None)}
    assert not status_view(site.core, site.config, site.now).root.isolated


def test_who_was_not_told_of_the_isolation_is_not_told_of_its_end() -> None:
    site = Site(racks=2).settle()
    hooks = (hook("page", Kind.LEADER_LOST, Kind.LEADER_RECOVERED),)
    site.core.alerts.use(msgspec.structs.replace(site.core.config, hooks=hooks))
    site.quiet.update(dict.fromkeys(site.leaders))
    site.run(20)
    site.quiet.clear()
    site.run(5)
    assert site.paged() == []


def test_a_leader_that_does_not_come_back_with_the_others_is_lost_by_itself() -> None:
    site = Site(racks=3).settle()
    site.quiet.update(dict.fromkeys(site.leaders))
    site.run(20)
    del site.quiet["dc1/r1-l1"], site.quiet["dc1/r2-l1"]
    assert site.run(4) == ["leader-recovered root"]
    assert site.shown("dc1/r3/n1") == (UNKNOWN, Cause.ROOT_ISOLATED)
    assert site.run(4) == ["leader-lost r3-l1"]
    assert site.shown("dc1/r3/n1") == (UNKNOWN, Cause.LEADER_LOST)


def test_a_first_lapse_is_held_while_all_others_are_late_and_told_when_one_is_heard() -> None:
    site = Site(racks=3).settle()
    site.quiet["dc1/r1-l1"] = None
    site.run(2)
    site.quiet.update(dict.fromkeys(site.leaders))
    site.run(3.2)
    assert site.told == []
    assert site.shown("dc1/r1/n1")[0] is UNKNOWN, "what a silent leader said is not shown meanwhile"
    site.quiet = {"dc1/r1-l1": None}
    assert site.run(1) == ["leader-lost r1-l1"]


def test_one_rack_of_two_leaders_is_no_isolation() -> None:
    site = Site(leaders=2).settle()
    site.quiet.update(dict.fromkeys(site.leaders))
    assert site.run(20) == ["leader-lost r1-l1", "leader-lost r1-l2"]


def test_a_root_that_starts_again_while_it_is_cut_off_tells_only_the_end() -> None:
    first = Site(racks=2).settle()
    first.quiet.update(dict.fromkeys(first.leaders))
    first.run(20)
    second = Site(racks=2, restored=first.restored())
    second.quiet.update(dict.fromkeys(second.leaders))
    assert second.run(60) == []
    assert {second.shown(node) for node in second.core.nodes} == {(UNKNOWN, Cause.ROOT_ISOLATED)}
    second.quiet.clear()
    assert second.run(5)[0] == "leader-recovered root"


def test_a_root_that_never_hears_anybody_is_isolated() -> None:
    site = Site(racks=2)
    site.quiet.update(dict.fromkeys(site.leaders))
    assert site.run(60) == ["root-isolated root"]


# ---- lost, or stalled ----------------------------------------------------------------------------------------


def witnessed(site: Site, leader: str, outcome: Outcome) -> None:
    site.give("", Answered(peer=leader, number=site.asked()[-1], path=Path.KERNEL, outcome=outcome))


def test_a_leader_whose_kernel_acknowledges_and_who_does_not_answer_is_stalled() -> None:
    site = Site().settle()
    site.quiet[L1] = None
    site.run(2.6)
    watch, ping = site.orders
    assert isinstance(watch, Witness) and watch.peer == L1
    assert isinstance(ping, Send) and ping.message == Ping(number=watch.number)
    witnessed(site, L1, Outcome.ACKED)
    assert site.run(4) == ["leader-lost r1-l1"]
    assert {site.shown(node) for node in site.core.nodes} == {(UNKNOWN, Cause.OBSERVER_STALLED)}
    (lost,) = site.hooks
    assert (lost["kind"], lost["cause"]) == ("leader-lost", "observer-stalled")
    steps = dict(lost["evidence"])["steps"]  # type: ignore[call-overload]
    assert [step["text"] for step in steps][:2] == [
        "asked whether it is there",
        "the kernel of its host acknowledges",
    ]
    assert steps[0]["after_ms"] == 2500.0
    (view,) = status_view(site.core, site.config, site.now).racks[0].leaders
    assert (view.state, view.cause, view.stalls, view.suspended_s) == (SUSPECT, "observer-stalled", 2, 3.0)
    site.quiet.clear()
    assert site.run(2) == ["leader-recovered r1-l1"]


@pytest.mark.parametrize("outcome", [Outcome.SILENT, Outcome.CLOSED, Outcome.UNSENT])
def test_a_leader_whose_kernel_does_not_acknowledge_is_lost(outcome: Outcome) -> None:
    site = Site().settle()
    site.quiet[L1] = None
    site.run(2.6)
    witnessed(site, L1, outcome)
    site.run(4)
    assert site.shown("n1") == (UNKNOWN, Cause.LEADER_LOST)


def test_a_leader_whose_connection_was_closed_after_it_was_asked_is_lost() -> None:
    site = Site().settle()
    site.quiet[L1] = None
    site.run(2.6)
    witnessed(site, L1, Outcome.ACKED)
    site.give("", Disconnected(L1))
    site.run(4)
    assert site.shown("n1") == (UNKNOWN, Cause.LEADER_LOST)


def test_an_answer_renews_no_lease() -> None:
    site = Site().settle()
    site.quiet[L1] = None
    site.run(2.6)
    witnessed(site, L1, Outcome.ACKED)
    site.give(L1, Pong(number=site.asked()[-1], incarnation=EPOCH, sequence=0))
    site.run(1.3)
    witnessed(site, L1, Outcome.ACKED)
    site.give(L1, Pong(number=site.asked()[-1], incarnation=EPOCH, sequence=0))
    assert site.run(3) == ["leader-lost r1-l1"]
    assert site.shown("n1") == (UNKNOWN, Cause.LEADER_LOST), "it runs, and its summaries do not arrive"


def test_what_the_kernel_said_to_an_older_question_is_of_no_consequence() -> None:
    site = Site().settle()
    site.quiet[L1] = None
    site.run(2.6)
    older = site.asked()[-1]
    site.run(1.3)
    witnessed(site, L1, Outcome.SILENT)
    site.give("", Answered(peer=L1, number=older, path=Path.KERNEL, outcome=Outcome.ACKED))
    site.give("", Answered(peer="dc1/r9-l1", number=older, path=Path.KERNEL, outcome=Outcome.ACKED))
    site.run(2)
    assert site.shown("n1") == (UNKNOWN, Cause.LEADER_LOST)


def test_only_who_was_asked_may_answer() -> None:
    site = Site(racks=2).settle()
    site.quiet[L1] = None
    site.run(2.6)
    witnessed(site, L1, Outcome.ACKED)
    site.give("dc1/r2-l1", Pong(number=site.asked()[-1], incarnation=EPOCH, sequence=0))
    site.give("dc1/r9-l1", Pong(number=site.asked()[-1], incarnation=EPOCH, sequence=0))
    site.run(4)
    assert site.shown("n1") == (UNKNOWN, Cause.OBSERVER_STALLED)
    assert site.core.refused == {"forged-id": 1}


def test_a_stalled_leader_that_is_killed_is_lost_and_nobody_is_told_again() -> None:
    site = Site().settle()
    site.quiet[L1] = None
    site.run(2.6)
    witnessed(site, L1, Outcome.ACKED)
    site.run(4)
    site.give("", Disconnected(L1))
    site.run(2)
    assert site.shown("n1") == (UNKNOWN, Cause.LEADER_LOST)
    assert site.paged() == ["leader-lost"]
    assert (site.events()[-1].kind, site.events()[-1].withheld) == (Kind.LEADER_LOST, "refined")
    again = Site(restored=site.restored())
    again.quiet[L1] = None
    again.run(1)
    assert again.shown("n1") == (UNKNOWN, Cause.LEADER_LOST)


def test_a_stalled_leader_whose_host_vanishes_is_lost_within_a_lease() -> None:
    site = Site().settle()
    site.quiet[L1] = None
    site.run(2.6)
    witnessed(site, L1, Outcome.ACKED)
    site.run(4)
    before = len(site.asked())
    site.run(6)
    assert len(site.asked()) > before
    witnessed(site, L1, Outcome.SILENT)
    assert site.shown("n1") == (UNKNOWN, Cause.LEADER_LOST)


def test_a_leader_that_is_heard_is_asked_nothing() -> None:
    site = Site().settle()
    site.run(30)
    assert site.orders == []


def test_a_root_whose_host_slept_gives_its_leaders_a_whole_lease_to_come_back() -> None:
    site = Site(racks=2).settle()
    site.quiet.update(dict.fromkeys(site.leaders))
    site.run(4)
    site.give("", Suspended(T(3600)))
    assert site.run(3.9) == []
    site.quiet.clear()
    assert site.run(20) == []
    assert status_view(site.core, site.config, site.now).root.suspended_s == 3600.0


# ---- accuracy ------------------------------------------------------------------------------------------------


def accuracy(site: Site) -> AccuracyView:
    site.give("asker", Query(id=1, what="accuracy"))
    answer = site.orders.pop()
    assert isinstance(answer, Answer) and isinstance(answer.view, AccuracyView)
    return answer.view


def test_a_death_that_was_none_is_booked_with_its_account_and_both_are_on_disk() -> None:
    site = Site().settle()
    silent = Evidence(text="no answer on any path", silent_ns=T(1.5), steps=(Step(T(1), "asked"),))
    site.judge(L1, DEAD, Cause.HOST_GONE, "n1", evidence=silent)
    site.run(10)
    site.judge(L1, ALIVE, None, "n1")
    told = site.judge(
        L1, ALIVE, None, "n1", kind=Kind.NODE_ACCOUNTED, evidence=Evidence(text="its loop stood still for 11.0s")
    )
    site.run(1)
    assert told == []
    assert site.paged() == ["node-dead", "node-recovered"]
    *_, newest = site.convictions()
    assert (newest.cause, newest.detection_ns, newest.back_after_ns) == (Cause.HOST_GONE, T(1.5), T(10))
    assert newest.reason == "its loop stood still for 11.0s"
    view = accuracy(site)
    assert (view.all.verdicts, view.all.wrong, view.causes[0].cause) == (1, 1, "host-gone")
    assert view.mistakes[0].reason == "its loop stood still for 11.0s"
    (row,) = [event for event in site.events() if event.kind is Kind.NODE_ACCOUNTED]
    assert (row.liveness_from, row.liveness_to, row.withheld, row.leader) == (ALIVE, ALIVE, "accounted", L1)


def test_an_account_of_a_node_moves_nothing_and_its_rows_go_on() -> None:
    site = Site().settle()
    site.judge(L1, ALIVE, None, "n1", kind=Kind.NODE_ACCOUNTED, evidence=Evidence(text="throttled"))
    site.run(3)
    assert site.shown("n1") == (ALIVE, None)
    assert site.core.nodes["dc1/r1/n1"].seen[L1].sequence == 10 + site.now // SECOND


def test_a_node_that_says_goodbye_after_it_was_called_dead_was_not_dead() -> None:
    site = Site().settle()
    site.judge(L1, DEAD, Cause.SILENCE, "n1")
    site.judge(L1, LEFT, Cause.LEFT, "n1")
    assert [conviction.wrong for conviction in site.convictions()] == [False, True]


def test_living_nodes_are_watched_while_a_leader_speaks_for_them() -> None:
    site = Site(leaders=2).settle()
    before = site.core.accuracy.watched_ns
    site.run(100)
    watched = site.core.accuracy.watched_ns - before
    assert watched == pytest.approx(4 * T(100), rel=0.02), "two observers watch no more time than one"
    site.judge(L1, DEAD, Cause.PROCESS_EXIT, "n1")
    site.judge(L2, DEAD, Cause.PROCESS_EXIT, "n1")
    before = site.core.accuracy.watched_ns
    site.run(100)
    assert site.core.accuracy.watched_ns - before == pytest.approx(3 * T(100), rel=0.02)
    site.quiet.update(dict.fromkeys(site.leaders))
    before = site.core.accuracy.watched_ns
    site.run(100)
    assert site.core.accuracy.watched_ns == before
    site.quiet.clear()
    site.run(2)
    assert site.core.accuracy.watched_ns - before < 3 * T(3), "nor is what nobody saw counted afterwards"
    before = site.core.accuracy.watched_ns
    assert accuracy(site).node_years == pytest.approx(before / NODE_YEAR_NS, abs=1e-6)


def test_time_watched_is_on_disk_now_and_then_and_goes_on_in_the_next_life() -> None:
    site = Site().settle()
    site.run(700)
    tallies = [batch.tally for batch in site.disk if batch.tally is not None]
    assert len(tallies) == 2
    assert tallies[-1].watched_ns == pytest.approx(4 * T(600), rel=0.02)
    again = Site(restored=Restored(tallies=(tallies[-1],)))
    assert again.core.accuracy.watched_ns == tallies[-1].watched_ns


def test_the_book_begins_with_the_life_that_began_it_whether_or_not_it_was_written() -> None:
    site = Site()
    begun = rfc3339(site.core.wall.at(site.core.started))
    site.settle().run(100)
    assert accuracy(site).since == begun
    site.judge(L1, DEAD, Cause.PROCESS_EXIT, "n1")
    (tally,) = [batch.tally for batch in site.disk if batch.tally is not None]
    assert rfc3339(tally.since_wall_ns) == begun, "a death writes it as well"
    again = Site(restored=Restored(tallies=(tally,)))
    again.settle().run(100)
    assert accuracy(again).since == begun


def test_what_a_node_said_of_its_silence_is_in_its_explanation() -> None:
    site = Site(leaders=2).settle()
    site.judge(L2, ALIVE, None, "n1", kind=Kind.NODE_ACCOUNTED, evidence=Evidence(text="suspended for 3.0s"))
    steps = (Step(1_012 * MILLISECOND, "asked"), Step(1_014 * MILLISECOND, "its kernel acknowledges"))
    site.judge(L1, SUSPECT, Cause.PROCESS_FROZEN, "n1", evidence=Evidence(text="stopped", steps=steps))
    site.give("asker", Query(id=1, what="explain", node="dc1/r1/n1"))
    fetch = site.orders.pop()
    assert isinstance(fetch, Fetch)
    first, second = fetch.view.story
    assert first["evidence"]["steps"] == [
        {"after_ms": 1012.0, "text": "asked"},
        {"after_ms": 1014.0, "text": "its kernel acknowledges"},
    ]
    assert (second["leader"], second["account"]) == (L2, "suspended for 3.0s")


def test_transitions_of_a_kind_that_no_core_makes_are_of_no_consequence() -> None:
    site = Site().settle()
    strange: Transition = transition(1, ALIVE, ALIVE, "dc1/r1/n1", kind=Kind.SUMMARY)
    site.give(L1, Transitions(epoch=EPOCH, base=1, after=0, items=(strange,)))
    assert site.told == []
