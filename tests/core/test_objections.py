"""The chain of objections, one by one and in its order; that they end is proved in `test_alerts`."""

from __future__ import annotations

from typing import Any

from hbagent.core.config import HookConfig, SinkConfig
from hbagent.core.incidents import Incidents
from hbagent.core.ledger import Ledger
from hbagent.core.messages import Order
from hbagent.core.notice import ROOT as ROOT_SUBJECT
from hbagent.core.objections import Key, Objections
from hbagent.core.records import Restored, Trouble
from hbagent.core.states import Axis, Cause, Kind, Reason
from hbagent.core.units import SECOND
from hbagent.core.waiting import Waiting, WaitingRoom
from hbagent.core.wallclock import WallClock
from tests.build import LEADER, LEADER2, NODE, NODE2, RACK, WALL_NS, hook, root_config, run


class Court:
    """Objections with a rack of two leaders, and one trouble: `NODE` is dead."""

    def __init__(self, **settings: Any) -> None:
        waits = {"settle_ns": 4 * SECOND, "doubt_wait_ns": SECOND}
        self.config = root_config(hook("page"), leaders=(LEADER, LEADER2), **{**waits, **settings})
        self.wall = WallClock()
        self.wall.tell(WALL_NS, 0)
        self.troubles: dict[Key, Trouble] = {}
        self.incidents = Incidents(Ledger())
        self.room = WaitingRoom()
        self.all = Objections(self.config, Restored(), self.troubles, self.incidents, self.room, self.wall)
        self.dead = self.burn(NODE)

    def burn(self, subject: str, axis: Axis = Axis.LIVENESS, **fields: Any) -> Trouble:
        values = {"kind": Kind.NODE_DEAD, "cause": Cause.HOST_GONE, "incident": "", **fields}
        trouble = Trouble(subject=subject, axis=axis, rack=RACK, **values)
        self.troubles[subject, axis] = trouble
        return trouble

    def silence(self, maintenance: bool = False, **globs: Any) -> str:
        values: dict[str, Any] = {"reason": "test", "length_ns": 60 * SECOND, "maintenance": maintenance, **globs}
        order = Order(id=1, what="silence", **values)
        return self.all.silences.add(order, "ada", WALL_NS).silence_id

    def says(self, now: int = 0, receiver: HookConfig | SinkConfig | None = None, began: int = 0) -> Any:
        trouble = self.troubles[NODE, Axis.LIVENESS]
        return self.all.to_telling(Waiting(run(1), began), receiver or self.config.hooks[0], trouble, now)


def test_nothing_objects_to_a_plain_death() -> None:
    assert Court().says() is None


def test_a_maintenance_comes_before_a_silence_and_both_before_a_parent() -> None:
    court = Court()
    court.burn(RACK, Axis.RACK, kind=Kind.RACK_DARK, incident="i9")
    assert court.says()[:2] == (Reason.INHIBITED, "i9")
    silence = court.silence(nodes=(NODE,))
    assert court.says()[:2] == (Reason.SILENCE, silence)
    maintenance = court.silence(maintenance=True, racks=(RACK,))
    assert court.says()[:2] == (Reason.MAINTENANCE, maintenance)


def test_who_only_waits_is_judged_ahead_of_time_and_a_silence_is_not_shortened_by_that() -> None:
    court = Court()
    silence = court.silence(nodes=(NODE2,))
    waiting, ticket = Waiting(run(1), 0), hook("ticket", hold_ns=10 * SECOND)
    trouble = court.troubles[NODE, Axis.LIVENESS]
    held = court.all.to_telling(waiting, ticket, trouble, 0)
    assert held is not None and held.reason is Reason.HOLD
    assert court.all.to_telling(waiting, ticket, trouble, 0, 10 * SECOND) is None
    court.burn(NODE2)
    covered = court.troubles[NODE2, Axis.LIVENESS]
    for now in range(0, 60, 6):
        objection = court.all.to_telling(waiting, ticket, covered, now * SECOND, (now + 10) * SECOND)
        assert objection is not None and objection[:2] == (Reason.SILENCE, silence)


def test_a_silence_may_mean_a_cause_or_a_kind() -> None:
    court = Court()
    court.silence(causes=("process-*",))
    court.silence(kinds=("node-suspect",))
    assert court.says() is None
    court.silence(kinds=("node-*",))
    assert court.says().reason is Reason.SILENCE


def test_all_leaders_of_the_rack_must_be_lost_to_speak_for_a_node() -> None:
    court = Court()
    court.burn(LEADER, Axis.LEADER, kind=Kind.LEADER_LOST)
    assert court.says() is None
    court.burn(LEADER2, Axis.LEADER, kind=Kind.LEADER_LOST)
    assert court.says()[:2] == (Reason.INHIBITED, LEADER)


def test_who_asks_for_no_parents_is_told_of_what_they_would_explain() -> None:
    court = Court()
    court.burn(RACK, Axis.RACK, kind=Kind.RACK_DARK, incident="i9")
    assert court.says(receiver=hook("nodes", Kind.NODE_DEAD, Kind.NODE_RECOVERED)) is None
    assert court.says(receiver=hook("racks", Kind.NODE_DEAD, Kind.RACK_DARK)).reason is Reason.INHIBITED


def test_the_roots_isolation_explains_everything_but_itself() -> None:
    court = Court()
    isolated = court.burn(ROOT_SUBJECT, Axis.ROOT, kind=Kind.ROOT_ISOLATED)
    assert court.says()[:2] == (Reason.INHIBITED, ROOT_SUBJECT)
    assert court.all.parent(court.burn(LEADER, Axis.LEADER)) is isolated
    assert court.all.parent(isolated) is None


def test_after_a_parent_its_nodes_are_asked_again_for_a_while() -> None:
    court = Court()
    dark = court.burn(RACK, Axis.RACK, kind=Kind.RACK_DARK, incident="i9")
    del court.troubles[RACK, Axis.RACK]
    court.all.parent_over(dark, 10)
    assert court.says(11) == (Reason.INHIBITED, "i9", 10 + 4 * SECOND)
    assert court.says(10 + 4 * SECOND) is None


def test_a_leader_that_is_back_beside_one_that_never_left_asks_for_no_patience() -> None:
    court = Court()
    lost = court.burn(LEADER, Axis.LEADER, kind=Kind.LEADER_LOST)
    del court.troubles[LEADER, Axis.LEADER]
    court.all.parent_over(lost, 0)
    assert court.says() is None


def test_grace_asks_for_patience_with_silence_and_not_with_an_exit() -> None:
    court = Court()
    court.all.settle(RACK, 0)
    assert court.says().reason is Reason.GRACE
    court.burn(NODE, cause=Cause.PROCESS_EXIT)
    assert court.says() is None


def test_what_flaps_and_what_somebody_knows_of_is_kept_back() -> None:
    court = Court()
    court.burn(NODE, flapping="e-1")
    assert court.says() is None, "nobody has told this receiver that it flaps"
    court.burn(NODE, flapping="e-1", flap_told=("page",))
    assert court.says()[:2] == (Reason.FLAPPING, "e-1")
    court.burn(NODE, flapping="e-1")
    assert court.says(receiver=hook("quiet", Kind.NODE_DEAD))[:2] == (Reason.FLAPPING, "e-1"), (
        "he does not want to know"
    )
    name = court.incidents.join(court.dead, "host-gone", 3, "")
    court.burn(NODE, incident=name)
    assert court.says() is None
    court.incidents.acknowledge(name, "ada", "", 0)
    assert court.says()[:2] == (Reason.ACKNOWLEDGED, name)


def test_a_doubt_about_another_node_is_waited_for_but_not_by_a_sink_and_not_twice() -> None:
    court = Court()
    court.all.suspect(RACK, NODE)
    assert court.says() is None, "in doubt alone"
    court.all.suspect(RACK, NODE2)
    assert court.says() == (Reason.DOUBT, "", SECOND)
    assert court.says(SECOND) is None
    assert court.says(receiver=SinkConfig(name="am", urls=())) is None
    court.all.trust(RACK, NODE2)
    assert court.says() is None


def test_the_last_one_in_doubt_waits_with_those_that_wait_already() -> None:
    court = Court()
    other = Waiting(run(2, rack=RACK, reason=Reason.DOUBT), 0)
    other.until = 700
    court.room.seat(other)
    assert court.says(100) == (Reason.DOUBT, "", 700)
    assert court.says(700) is None


def test_the_hold_of_a_receiver_counts_from_the_first_of_it() -> None:
    court = Court()
    slow = hook("slow", hold_ns=10 * SECOND)
    assert court.says(SECOND, slow, began=0) == (Reason.HOLD, "", 10 * SECOND)
    assert court.says(10 * SECOND, slow, began=0) is None


def test_news_are_kept_back_by_silences_alone() -> None:
    court = Court()
    court.burn(RACK, Axis.RACK, kind=Kind.RACK_DARK)
    news = run(1, subject=NODE, axis=Axis.LIVENESS, rack=RACK, kind=Kind.NODE_UNKNOWN)
    assert court.all.to_news(news, 0) is None
    silence = court.silence(racks=("dc1/*",))
    assert court.all.to_news(news, 0) == (Reason.SILENCE, silence, None)


def test_a_trouble_that_is_over_and_flaps_burns_no_more() -> None:
    court = Court()
    court.burn(NODE, over=True)
    assert court.all.burning((NODE, Axis.LIVENESS)) is None
