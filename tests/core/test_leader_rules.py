"""The leader: numbered verdicts that reach the root once, a summary a second, and nobody who speaks for another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from hbagent.core.effects import Happened, Keep, Note, Publish, Rewrite, Send
from hbagent.core.leader import LeaderCore
from hbagent.core.memory import Entry
from hbagent.core.messages import (
    Admission,
    Farewell,
    FarewellAck,
    Hello,
    HostFacts,
    KeepFailed,
    Kept,
    Linked,
    RackReports,
    RackSummary,
    Reconfigured,
    Refused,
    Report,
    Terminate,
    Transitions,
    TransitionsAck,
    WallTime,
)
from hbagent.core.roster import INTERVAL_MIN_NS
from hbagent.core.states import Cause, Liveness
from hbagent.core.units import SECOND
from tests.build import (
    INCARNATION,
    LEADER,
    NODE,
    NODE2,
    RACK,
    ROOT,
    WALL_NS,
    T,
    beat,
    give,
    leader_config,
    leader_core,
)
from tests.playbook import Playbook

QUIET = ("summary", "keep", "rewrite", "rackreports")
STRANGER = "dc1/rack9/node1"


def play(core: LeaderCore, *, quiet: tuple[str, ...] = QUIET) -> Playbook:
    """A conversation with a leader that has its link to the root."""
    return Playbook(core, quiet=quiet) >> Linked(ROOT, True) << "note root-linked"


def live(book: Playbook, length: int, *nodes: str, incarnation: int = INCARNATION) -> Playbook:
    """`length` seconds in which these nodes beat once a second."""
    core = book.core
    assert isinstance(core, LeaderCore)
    begin = book.now // SECOND
    for second in range(begin + 1, begin + length + 1):
        book.wait(T(second) - book.now)
        for node in nodes or (NODE,):
            book.take(give(core, beat(second, incarnation=incarnation), book.now, node))
    return book


def acked(core: LeaderCore, number: int) -> tuple[str, TransitionsAck]:
    return (ROOT, TransitionsAck(epoch=core.epoch, number=number))


def published(book: Playbook, kind: type) -> list[Any]:
    return [e.message for e in book.effects if isinstance(e, Publish) and isinstance(e.message, kind)]


class Disk:
    """A journal as a start finds it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def follow(self, effects: Iterable[object]) -> list[Entry]:
        for effect in effects:
            if isinstance(effect, Rewrite):
                self.entries = list(effect.entries)
            elif isinstance(effect, Keep):
                self.entries.extend(effect.entries)
        return self.entries


# ---- verdicts --------------------------------------------------------------------------------------------


def test_a_death_is_told_to_the_root_and_kept_at_once_and_sent_again_until_acknowledged() -> None:
    core = leader_core("node1", resend_ns=T(2))
    book = live(play(core, quiet=("summary", "rewrite")), 1)
    book = book << "node-joined node1 UNKNOWN>ALIVE" << "keep 2" << f"tell {ROOT} 1" >> acked(core, 1) << "keep 3"
    assert (
        book
        >> 5.1
        << "node-suspect node1 ALIVE>SUSPECT silence"
        << "keep 4"
        << f"tell {ROOT} 2"
        << f"tell {ROOT} 2"
        << "node-dead node1 SUSPECT>DEAD silence"
        << "keep 5"
        << f"tell {ROOT} 3"
        >> acked(core, 3)
        << "keep 6"
        >> 60
    )


def test_an_acknowledgement_is_kept_so_that_a_next_life_sends_nothing_again() -> None:
    core, disk = leader_core("node1"), Disk()
    book = live(play(core), 3) >> acked(core, 1)
    disk.follow(book.effects)
    again = leader_core("node1", seed=2, kept=disk.entries)
    assert Playbook(again, quiet=QUIET) >> Linked(ROOT, True) << "note root-linked" >> 1


def test_a_next_life_first_sends_what_this_one_could_not() -> None:
    core, disk = leader_core("node1"), Disk()
    book = live(Playbook(core), 3)
    disk.follow(book.effects)
    again = leader_core("node1", seed=2, kept=disk.entries)
    described, told = [e.message for e in again.receive("", Linked(ROOT, True), 0) if isinstance(e, Send)]
    assert isinstance(described, RackSummary), "the root hears nobody without a lease"
    assert isinstance(told, Transitions)
    assert (told.epoch, told.present) == (core.epoch, again.epoch)
    assert [t.number for t in told.items] == [1]


def test_a_node_that_dies_while_its_leader_is_away_is_told_after_the_grace() -> None:
    core, disk = leader_core("node1"), Disk()
    disk.follow(live(Playbook(core), 5).effects)
    again = Playbook(leader_core("node1", seed=2, kept=disk.entries, join_grace_ns=T(30)), quiet=QUIET)
    assert again >> 24 >> 7 << "node-suspect node1 ALIVE>SUSPECT silence" << "node-dead node1 SUSPECT>DEAD silence"


def test_a_node_that_lives_through_its_leaders_restart_makes_no_event() -> None:
    core, disk = leader_core("node1"), Disk()
    disk.follow(live(Playbook(core), 5).effects)
    again = Playbook(leader_core("node1", seed=2, now=T(7), kept=disk.entries), now=T(7), quiet=QUIET)
    assert live(again, 60)


def test_without_a_link_nothing_is_sent_and_nothing_forgotten() -> None:
    core = leader_core("node1")
    book = live(Playbook(core, quiet=QUIET), 1) << "node-joined node1 UNKNOWN>ALIVE"
    assert (
        book
        >> Linked(ROOT, True)
        << "note root-linked"
        << f"tell {ROOT} 1"
        >> Linked(ROOT, False)
        << "note root-link-lost"
        >> Linked(ROOT, False)
        >> Linked(ROOT, True)
        << "note root-linked"
        << f"tell {ROOT} 1"
    )


def test_a_refused_key_is_said_and_other_links_are_nobodys_news() -> None:
    core = leader_core("node1")
    assert (
        Playbook(core)
        >> Linked(ROOT, False, refused=True)
        << "note root-refused-our-key"
        >> Linked(NODE, True)
        >> Linked(NODE, False)
    )


def test_a_verdict_carries_when_and_on_what_it_was_reached() -> None:
    book = live(play(leader_core("node1")), 1)
    (joined,) = book.newest(Send).message.items
    assert (joined.number, joined.node, joined.at_wall_ns) == (1, NODE, WALL_NS + T(1))
    assert (joined.incarnation, joined.sequence) == (INCARNATION, 1)


# ---- the observer doubts itself --------------------------------------------------------------------------


def test_a_leader_that_stood_still_says_so_and_judges_nobody_before_it_has_listened() -> None:
    core = leader_core("node1")
    book = live(play(core), 5)
    begun = len(book.effects)
    book.now = T(15)
    book.take(core.wake(book.now))
    assert any(isinstance(e, Note) and e.what == "stalled" for e in book.effects[begun:])
    live(book, 60)
    assert [e.kind.value for e in book.effects if isinstance(e, Happened)] == ["node-joined"]


def test_a_short_lag_is_no_stall() -> None:
    core = leader_core("node1")
    book = live(play(core), 5)
    begun = len(book.effects)
    book.now += T(0.4)
    book.take(core.wake(book.now))
    assert not [e for e in book.effects[begun:] if isinstance(e, Note)]


# ---- summaries -------------------------------------------------------------------------------------------


def test_each_second_a_summary_tells_all_of_every_rack() -> None:
    racks = {RACK: (NODE, NODE2), "dc1/rack2": ("dc1/rack2/node1",)}
    book = live(play(leader_core(racks=racks)), 10)
    book.wait(T(0.9))
    summaries = published(book, RackSummary)
    for rack, nodes in racks.items():
        of_rack = [summary for summary in summaries if summary.rack == rack]
        assert 10 <= len(of_rack) <= 12
        assert {len(summary.nodes) for summary in of_rack} == {len(nodes)}
    numbers = [summary.number for summary in summaries]
    assert numbers == sorted(set(numbers))
    newest = [summary for summary in summaries if summary.rack == RACK][-1]
    alive, never = newest.nodes
    assert (alive.node, alive.liveness, alive.version) == ("node1", Liveness.ALIVE, 1)
    assert alive.sequence in (9, 10)
    assert (never.liveness, never.cause, never.age_ns, never.version) == (
        Liveness.UNKNOWN,
        Cause.NEVER_SEEN,
        None,
        0,
    )
    assert newest.newest == 1


def test_a_dead_node_keeps_in_the_summaries_the_sequence_that_it_was_judged_at() -> None:
    core = leader_core("node1")
    book = live(play(core), 3)
    book.wait(T(20) - book.now)
    # They were sent when it lived and waited somewhere: they prove nothing, and must not outweigh another observer.
    for second in (4, 5, 6):
        assert not any(isinstance(effect, Happened) for effect in give(core, beat(second), book.now))
    book.wait(T(1))
    (dead,) = published(book, RackSummary)[-1].nodes
    assert (dead.liveness, dead.sequence) == (Liveness.DEAD, 3)


def test_a_leader_that_was_held_up_sends_one_summary_and_not_all_that_it_missed() -> None:
    core = leader_core("node1")
    book = live(play(core), 2)
    begun = len(published(book, RackSummary))
    book.now = T(20)
    book.take(core.wake(book.now))
    book.wait(T(0.99))
    assert len(published(book, RackSummary)) - begun <= 2


def test_a_report_is_passed_on_when_it_comes_and_every_half_minute() -> None:
    core = leader_core("node1", report_interval_ns=T(30))
    book = live(play(core), 1)
    report = Report(incarnation=INCARNATION, number=1, facts=HostFacts(load_1m=1.0))
    book = book >> (NODE, report)
    live(book, 2)
    (passed,) = published(book, RackReports)
    assert [(item.node, item.report) for item in passed.reports] == [("node1", report)]
    live(book, 30)
    first, second = published(book, RackReports)
    assert second.reports[0].age_ns > T(25)
    assert first.epoch == core.epoch


def test_a_report_of_a_life_before_or_overtaken_on_the_way_is_stale() -> None:
    core = leader_core("node1")
    book = live(play(core), 2)
    live(book, 2, incarnation=5)
    core.receive(NODE, Report(incarnation=5, number=2), book.now)
    core.receive(NODE, Report(incarnation=5, number=1), book.now)
    core.receive(NODE, Report(incarnation=INCARNATION, number=9), book.now)
    assert core.refused["stale"] == 2
    report = core.roster.members[NODE].report
    assert report is not None and (report.incarnation, report.number) == (5, 2)


# ---- F20 and F21: who may say what -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "message", "reason"),
    [
        (STRANGER, Report(incarnation=1, number=1), "unexpected-node"),
        (STRANGER, Farewell(incarnation=1, sequence=1), "unexpected-node"),
        (NODE, TransitionsAck(epoch=1, number=99), "forged-id"),
        (NODE, WALL_NS, "unexpected-type"),
        ("", Refused(NODE, "malformed", "no magic"), "malformed"),
    ],
)
def test_what_a_peer_may_not_say_is_counted_and_changes_nothing(sender: str, message: object, reason: str) -> None:
    core = leader_core("node1")
    book = live(play(core), 1) << "node-joined node1 UNKNOWN>ALIVE" << f"tell {ROOT} 1"
    assert book >> (sender, message) << "note refused" >> (sender, message) >> (sender, message)
    assert core.refused == {reason: 3}
    assert core.stats(book.now).outbox == 1


def test_beats_of_a_stranger_are_counted_and_said_once_a_second() -> None:
    core = leader_core("node1")
    notes = 0
    for number in range(1, 101):
        effects = give(core, beat(number), T(number / 25), STRANGER)
        notes += sum(isinstance(effect, Note) for effect in effects)
    assert core.refused == {"unexpected-node": 100}
    assert notes == 4
    assert list(core.roster.members) == [NODE]


def test_a_stranger_is_told_why_it_is_not_admitted() -> None:
    core = leader_core("node1")
    effects = core.receive(STRANGER, Hello(incarnation=1, interval_ns=SECOND, version=""), 0)
    (answer,) = [e.message for e in effects if isinstance(e, Send)]
    assert isinstance(answer, Admission) and not answer.accepted
    assert answer.reason == f"{STRANGER} is not expected here; this leader leads {RACK}"


def test_an_expected_agent_is_admitted_with_a_key_of_its_own_that_stays() -> None:
    core = leader_core()
    hello = Hello(incarnation=1, interval_ns=SECOND, version="")
    answers = [core.receive(node, hello, 0)[0] for node in (NODE, NODE, NODE2)]
    keys = [a.message.echo_key for a in answers if isinstance(a, Send) and isinstance(a.message, Admission)]
    assert keys[0] == keys[1] != keys[2]
    assert {len(key) for key in keys} == {32}


def test_the_version_in_a_greeting_travels_with_the_nodes_report() -> None:
    core = leader_core()
    core.receive(NODE, Report(incarnation=1, number=1), 0)

    def told(now: int) -> list[str]:
        published = [e.message for e in core.wake(now) if isinstance(e, Publish)]
        return [item.version for m in published if isinstance(m, RackReports) for item in m.reports]

    assert told(2 * SECOND) == [""]
    core.receive(NODE, Hello(incarnation=1, interval_ns=SECOND, version="1.0.0"), 3 * SECOND)
    assert told(4 * SECOND) == ["1.0.0"], "at once, and not with the next report"
    core.receive(NODE, Hello(incarnation=1, interval_ns=SECOND, version="1.0.0"), 5 * SECOND)
    assert told(6 * SECOND) == []


def test_a_noisy_node_is_cut_down_to_its_share_and_still_lives() -> None:
    core = leader_core("node1", noisy_factor=10)
    book = live(play(core), 2)
    sequence = 2
    for _ in range(5):
        for step in range(1, 101):
            sequence += 1
            at = book.now + step * 10_000_000
            give(core, msgspec.structs.replace(beat(sequence), sent_mono_ns=at), at)
        book.wait(SECOND)
    assert core.refused["noisy"] >= 5 * 75
    assert core.roster.members[NODE].liveness is Liveness.ALIVE
    assert INTERVAL_MIN_NS < SECOND


def test_beats_that_waited_while_the_leader_stood_still_are_no_flood() -> None:
    """After a minute's pause a minute of beats is in the queue, and the newest of them is what shows the node alive."""
    core = leader_core("node1", noisy_factor=10)
    book = live(play(core), 2)
    paused, resumed = book.now, book.now + 60 * SECOND
    for second in range(1, 61):
        old = msgspec.structs.replace(beat(2 + second), sent_mono_ns=paused + second * SECOND)
        give(core, old, resumed)
    assert "noisy" not in core.refused
    assert core.roster.members[NODE].order.sequence == 62
    assert core.roster.members[NODE].heard_at == resumed
    # From then on its share is that of a second again.
    for sequence in range(63, 63 + 1300):
        give(core, msgspec.structs.replace(beat(sequence), sent_mono_ns=resumed), resumed)
    assert core.refused["noisy"] > 0


# ---- goodbye, F28 ----------------------------------------------------------------------------------------


def test_a_goodbye_is_acknowledged_as_often_as_it_is_said_and_told_once() -> None:
    core = leader_core("node1")
    book = live(play(core), 1) << "node-joined node1 UNKNOWN>ALIVE" << f"tell {ROOT} 1"
    farewell = Farewell(incarnation=INCARNATION, sequence=2)
    assert (
        book
        >> (NODE, farewell)
        << "node-left node1 ALIVE>LEFT left"
        << f"tell {ROOT} 2"
        << f"send {NODE} FarewellAck"
        >> (NODE, farewell)
        << f"send {NODE} FarewellAck"
    )
    assert book.newest(Send).message == FarewellAck(incarnation=INCARNATION)


def test_a_node_of_another_protocol_is_shown_incompatible_once() -> None:
    core = leader_core("node1")
    refused = Refused(NODE, "incompatible", "major 2")
    book = live(play(core), 1) << "node-joined node1 UNKNOWN>ALIVE" << f"tell {ROOT} 1"
    assert (
        book
        >> refused
        << "note refused"
        << "node-unknown node1 ALIVE>UNKNOWN incompatible"
        << f"tell {ROOT} 2"
        >> refused
        >> refused
    )
    assert core.refused == {"incompatible": 3}


# ---- the journal -----------------------------------------------------------------------------------------


def test_a_journal_that_fails_delays_no_verdict_and_is_shown_and_written_anew() -> None:
    core = leader_core("node1")
    book = play(core, quiet=("summary",)) >> 0.1 << "rewrite 1" >> Kept(1)
    live(book, 1)
    book = book << "node-joined node1 UNKNOWN>ALIVE" << "keep 2" << f"tell {ROOT} 1"
    book = book >> KeepFailed(2, "no space") << "note journal-failed"
    assert core.stats(book.now).degraded == "journal: no space"
    assert book >> acked(core, 1) << "keep 3" >> KeepFailed(3, "no space")
    live(book, 2)
    assert book << "rewrite 4" >> Kept(4) << "note journal-works-again" >> Kept(4)
    assert core.stats(book.now).degraded == ""


# ---- reload, end -----------------------------------------------------------------------------------------


def test_a_reload_adds_nodes_that_were_never_seen_and_keeps_what_is_known_of_the_others() -> None:
    core = leader_core("node1", "node2")
    book = live(play(core), 3, NODE, NODE2)
    book = book >> Reconfigured(leader_config("node1", "node3"))
    live(book, 60)
    assert [(m.name, m.liveness) for m in core.roster.members.values()] == [
        (NODE, Liveness.ALIVE),
        (f"{RACK}/node3", Liveness.UNKNOWN),
    ]
    assert [e.kind.value for e in book.effects if isinstance(e, Happened)] == ["node-joined", "node-joined"]
    assert [row.node for row in published(book, RackSummary)[-1].nodes] == ["node1", "node3"]
    assert book.newest(Rewrite).entries


def test_a_reload_may_add_and_take_away_racks() -> None:
    core = leader_core("node1")
    book = live(play(core), 1) >> acked(core, 1)
    two = leader_config(racks={"dc1/rack2": ("dc1/rack2/node1",)})
    book = book >> Reconfigured(two)
    book.wait(T(3))
    assert {summary.rack for summary in published(book, RackSummary)[-3:]} == {"dc1/rack2"}
    assert Playbook(core, now=book.now, quiet=QUIET) >> Reconfigured(leader_config(racks={})) << "note membership" >> 5


def test_on_its_way_out_a_leader_sends_and_keeps_what_it_has() -> None:
    core, disk = leader_core("node1"), Disk()
    book = live(play(core, quiet=("summary", "keep")), 1)
    begun = len(book.effects)
    book = book >> Terminate()
    disk.follow(book.effects[begun:])
    assert [entry["k"] for entry in disk.entries] == ["t", "n", "d"]
    assert core.deadline() is None
    assert core.wake(T(9)) == ()


def test_a_step_of_the_wall_clock_is_said_and_judges_nobody() -> None:
    core = leader_core("node1")
    book = live(play(core), 2) << "node-joined node1 UNKNOWN>ALIVE" << f"tell {ROOT} 1"
    assert live(book >> acked(core, 1) >> WallTime(WALL_NS + T(3600)) << "note wall-jump", 30)


def test_the_leaders_own_name_is_no_part_of_its_epoch() -> None:
    epochs = {leader_core("node1", seed=seed).epoch for seed in range(50)}
    assert len(epochs) == 50 and all(0 <= epoch < 2**63 for epoch in epochs)
    assert leader_config().name == LEADER
