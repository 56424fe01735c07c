"""The root's promise: a change is on disk before its leader may forget it and before anybody is told.

Each test is a conversation with the root; see `tests.playbook`.
"""

from __future__ import annotations

import msgspec
import pytest

from hbagent.core.config import RackConfig
from hbagent.core.effects import Note, Persist, RunHook
from hbagent.core.messages import KeepFailed, Kept, RackReports, Reconfigured, Terminate, WallTime
from hbagent.core.records import Batch, Event, HookRun, NodeState, Restored, RunState
from hbagent.core.refusals import REMEMBERED_MAX
from hbagent.core.root import RootCore
from hbagent.core.states import Kind, Liveness
from hbagent.core.units import SECOND
from tests.build import (
    EPOCH,
    LEADER,
    LEADER2,
    NODE,
    NODE2,
    RACK,
    WALL_NS,
    ended,
    hook,
    root_config,
    root_core,
    row,
    run,
    summary,
    transition,
    transitions,
)
from tests.playbook import Playbook

ALIVE, SUSPECT, DEAD, LEFT = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD, Liveness.LEFT


class Disk:
    """What the root was told is kept, as a start finds it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.nodes: dict[str, NodeState] = {}
        self.runs: dict[str, HookRun] = {}
        self.marks: dict[tuple[str, int], object] = {}

    def write(self, batch: Batch) -> None:
        self.events.extend(batch.events)
        self.nodes.update((state.node, state) for state in batch.nodes)
        self.runs.update((run.run_id, run) for run in batch.runs)
        self.marks.update(((mark.leader, mark.slot), mark) for mark in batch.marks)

    def restored(self) -> Restored:
        return Restored(
            nodes=tuple(self.nodes.values()),
            marks=tuple(self.marks.values()),  # type: ignore[arg-type]
            runs=tuple(run for run in self.runs.values() if run.state is RunState.PENDING),
            newest_sequence=max((event.sequence for event in self.events), default=0),
        )


#: A leader that sends no summary is asked whether it is there.
ASKING = ("witness", "send")


def play(core: RootCore, *, quiet: tuple[str, ...] = ()) -> Playbook:
    """A conversation with a root whose leader holds its lease and has told of a living node."""
    book = Playbook(core, quiet=(*ASKING, *quiet))
    book = book >> (LEADER, summary(1)) >> (LEADER, transitions(transition(1)))
    return book << "node-joined node1 UNKNOWN>ALIVE" << "persist 1: node-joined node1; mark 1"


def runs_of(book: Playbook) -> list[str]:
    return [effect.run_id for effect in book.effects if isinstance(effect, RunHook)]


def document(book: Playbook) -> dict[str, object]:
    """What the newest hook process reads."""
    read: dict[str, object] = msgspec.json.decode(book.newest(RunHook).input)
    return read


# ---- on disk first ---------------------------------------------------------------------------------------


def test_a_death_is_on_disk_before_its_leader_may_forget_it_and_before_a_hook_is_told() -> None:
    assert (
        play(root_core(hook("page")))
        >> Kept(1)
        << f"ack {LEADER} 1"
        >> (LEADER, transitions(transition(2, SUSPECT, ALIVE), transition(3, DEAD, SUSPECT)))
        << "node-suspect node1 ALIVE>SUSPECT silence"
        << "node-dead node1 SUSPECT>DEAD silence"
        << "persist 2: node-suspect node1; node-dead node1; mark 3; pending page"
        >> 2.5
        >> Kept(2)
        << f"ack {LEADER} 3"
        << "run page node-dead node1"
    )


def test_what_comes_while_a_batch_is_on_its_way_waits_for_the_next() -> None:
    assert (
        play(root_core())
        >> (LEADER, transitions(transition(2, SUSPECT, ALIVE)))
        << "node-suspect node1 ALIVE>SUSPECT silence"
        >> (LEADER, transitions(transition(3, ALIVE, SUSPECT)))
        << "node-recovered node1 SUSPECT>ALIVE"
        >> Kept(1)
        << f"ack {LEADER} 1"
        << "persist 2: node-suspect node1; node-recovered node1; mark 3"
    )


def test_transitions_that_come_again_are_acknowledged_and_make_no_second_event() -> None:
    again = transitions(transition(1), transition(2, SUSPECT, ALIVE))
    assert (
        play(root_core())
        >> (LEADER, again)
        << "node-suspect node1 ALIVE>SUSPECT silence"
        >> (LEADER, again)
        >> Kept(1)
        << f"ack {LEADER} 1"
        << "persist 2: node-suspect node1; mark 2"
        >> (LEADER, again)
        >> Kept(2)
        << f"ack {LEADER} 2"
        >> (LEADER, again)
        << f"ack {LEADER} 2"
    )


def test_a_gap_is_refused_and_nothing_behind_it_is_taken_in() -> None:
    book = play(root_core()) >> (LEADER, transitions(transition(3, DEAD, SUSPECT), base=2)) << "note refused"
    assert book >> (LEADER, transitions(transition(2, SUSPECT, ALIVE))) << "node-suspect node1 ALIVE>SUSPECT silence"
    assert isinstance(book.core, RootCore) and book.core.refused == {"gap": 1}


def test_numbers_that_fell_out_of_a_full_outbox_are_no_gap() -> None:
    assert (
        play(root_core())
        >> (LEADER, transitions(transition(8, DEAD, ALIVE), base=8, after=7))
        << "node-dead node1 ALIVE>DEAD silence"
        >> Kept(1)
        << f"ack {LEADER} 1"
        << "persist 2: node-dead node1; mark 8"
    )


def test_without_a_lease_a_leaders_transitions_are_left_to_be_sent_again() -> None:
    assert (
        Playbook(root_core(start_grace_ns=10**12))
        >> (LEADER, transitions(transition(1)))
        >> (LEADER, summary(1))
        >> (LEADER, transitions(transition(1)))
        << "node-joined node1 UNKNOWN>ALIVE"
        << "persist 1: node-joined node1; mark 1"
    )


@pytest.mark.parametrize(
    ("sender", "message", "reason"),
    [
        ("dc1/rack2-leader1", summary(2), "forged-rack"),
        ("dc1/rack2-leader1", transitions(transition(2)), "forged-id"),
        (LEADER, summary(2, rack="dc1/rack2"), "forged-rack"),
        (LEADER, transitions(transition(2, node="dc1/rack2/node1")), "forged-rack"),
        ("dc1/rack2-leader1", RackReports(rack=RACK, epoch=EPOCH, reports=()), "forged-rack"),
        (NODE, transitions(transition(2)), "forged-id"),
        (LEADER, WallTime(0).__class__, "unexpected-type"),
    ],
)
def test_nobody_speaks_for_a_rack_that_is_not_his(sender: str, message: object, reason: str) -> None:
    core = root_core()
    book = play(core)
    racks = (*core.config.racks, RackConfig(name="dc1/rack2", leaders=("dc1/rack2-leader2",)))
    core.receive("", Reconfigured(msgspec.structs.replace(core.config, racks=racks)), book.now)
    assert book >> (sender, message) << "note refused"
    assert core.refused == {reason: 1}
    assert list(core.nodes) == [NODE]


def test_a_rack_that_was_taken_out_of_the_config_is_said_once_for_each_of_its_leaders_and_looks_like_no_attack() -> (
    None
):
    core = root_core(leaders=(LEADER, LEADER2))
    book = play(core)
    whole = core.config
    core.receive("", Reconfigured(msgspec.structs.replace(whole, racks=())), book.now)
    said = [
        (sender, message)
        for number in (2, 3)
        for sender in (LEADER, LEADER2)
        for message in (
            summary(number),
            transitions(transition(number)),
            RackReports(rack=RACK, epoch=EPOCH, reports=()),
        )
    ]

    def told() -> list[tuple[str, str, object, object]]:
        effects = [effect for sender, message in said for effect in core.receive(sender, message, book.now)]
        notes = [effect for effect in effects if isinstance(effect, Note)]
        return [(note.level, note.what, note.fields["leader"], note.fields["rack"]) for note in notes]

    assert told() == [("warning", "unconfigured-rack", LEADER, RACK), ("warning", "unconfigured-rack", LEADER2, RACK)]
    assert core.refused == {"unconfigured-rack": len(said)}
    assert told() == []
    core.receive("", Reconfigured(whole), book.now)
    core.receive("", Reconfigured(msgspec.structs.replace(whole, racks=())), book.now)
    assert len(told()) == 2


def test_a_leader_whose_other_rack_is_in_no_config_goes_on_speaking_for_the_first() -> None:
    core = root_core()
    elsewhere = (LEADER, transitions(transition(2, node="dc1/rack9/node1"), transition(3, DEAD, ALIVE)))
    book = play(core) >> elsewhere << "note unconfigured-rack" << "node-dead node1 ALIVE>DEAD silence"
    assert book
    assert core.refused == {"unconfigured-rack": 1}


def test_a_leader_that_invents_racks_has_so_many_lines_and_no_more() -> None:
    core = root_core()
    play(core)
    lines = 0
    for number in range(2 * REMEMBERED_MAX):
        lines += len(core.receive(LEADER, summary(2, rack=f"dc1/invented{number}"), SECOND))
    assert (lines, core.refused) == (REMEMBERED_MAX, {"unconfigured-rack": 2 * REMEMBERED_MAX})


# ---- a disk that fails -----------------------------------------------------------------------------------


def test_a_disk_that_fails_silences_no_alarm_and_is_tried_again() -> None:
    core = root_core(hook("page"))
    book = (
        play(core)
        >> Kept(1)
        << f"ack {LEADER} 1"
        >> (LEADER, transitions(transition(2, DEAD, ALIVE)))
        << "node-dead node1 ALIVE>DEAD silence"
        << "persist 2: node-dead node1; mark 2; pending page"
        >> KeepFailed(2, "no space left on device")
        << "note store-failed"
        << "run page node-dead node1"
        >> 1.0
        << "persist 3: node-dead node1; mark 2; pending page"
    )
    assert book
    assert core.ledger.degraded == "store: no space left on device"
    assert (
        book
        >> KeepFailed(3, "no space left on device")
        >> ended(runs_of(book)[0])
        << "note hook-done"
        >> (LEADER, transitions(transition(3, ALIVE, DEAD)))
        << "node-recovered node1 DEAD>ALIVE"
        << "run page node-recovered node1"
        >> 1.0
        << "persist 4: node-dead node1; mark 2; pending page"
        >> Kept(4)
        << "note store-works-again"
        << f"ack {LEADER} 2"
        << "persist 5: node-recovered node1; mark 3; done page; pending page"
        >> Kept(5)
        << f"ack {LEADER} 3"
    )
    assert core.ledger.degraded == ""
    assert len(runs_of(book)) == 2, "nothing was told twice"


def test_a_disk_that_does_not_answer_silences_no_alarm() -> None:
    core = root_core(hook("page"))
    assert (
        play(core)
        >> (LEADER, transitions(transition(2, DEAD, ALIVE)))
        << "node-dead node1 ALIVE>DEAD silence"
        >> 3.0
        << "note store-stuck"
        << "run page node-dead node1"
        >> Kept(1)
        << "note store-works-again"
        << f"ack {LEADER} 1"
        << "persist 2: node-dead node1; mark 2; pending page"
        >> Kept(2)
        << f"ack {LEADER} 2"
    )


# ---- a root that is started again ------------------------------------------------------------------------


def owed() -> HookRun:
    book = play(root_core(hook("page"))) >> (LEADER, transitions(transition(2, DEAD, ALIVE))) >> Kept(1)
    (written,) = book.newest(Persist).batch.runs
    assert isinstance(written, HookRun)
    return written


def test_a_run_that_was_owed_is_run_again_with_the_same_event_id() -> None:
    restored = Restored(runs=(owed(),), newest_sequence=2)
    book = Playbook(root_core(hook("page"), seed=99, restored=restored)) >> 0.1 << "run page node-dead node1"
    assert book
    assert (document(book)["event_id"], document(book)["attempt"]) == (owed().event_id, 1)


def test_a_run_that_had_failed_before_goes_on_with_its_attempts() -> None:
    tried = msgspec.structs.replace(owed(), attempt=2)
    book = Playbook(root_core(hook("page"), restored=Restored(runs=(tried,)))) >> 0.1 << "run page node-dead node1"
    assert book
    assert document(book)["attempt"] == 3


def test_a_run_owed_to_a_hook_that_is_gone_is_put_aside() -> None:
    book = Playbook(root_core(restored=Restored(runs=(owed(),)))) >> 0.3 << "persist 1: dead page"
    assert book


def test_a_root_that_is_started_again_goes_on_where_it_was() -> None:
    disk = Disk()
    first = (
        play(root_core(hook("page")), quiet=("run",))
        >> Kept(1)
        >> (
            LEADER,
            transitions(transition(2, DEAD, ALIVE), transition(3, node=NODE2)),
        )
    )
    for effect in first.effects:
        if isinstance(effect, Persist):
            disk.write(effect.batch)
    rows = (row("node1", DEAD, version=2), row("node2", version=3))
    core = root_core(hook("page"), seed=2, restored=disk.restored())
    assert (
        Playbook(core, quiet=("run",))
        >> (LEADER, summary(9, *rows, newest=3))
        >> (LEADER, transitions(transition(2, DEAD, ALIVE), transition(3, node=NODE2)))
        << f"ack {LEADER} 3"
        >> (LEADER, transitions(transition(4, ALIVE, DEAD)))
        << "node-recovered node1 DEAD>ALIVE"
        << "persist 1: node-recovered node1; mark 4; pending page"
    )
    sequences = [event.sequence for event in disk.events]
    assert sequences == sorted(set(sequences))
    assert core.chronicle.newest == max(sequences) + 1


def test_a_leader_that_was_lost_is_still_lost_for_the_next_life_of_the_root() -> None:
    lost = NodeState(node=LEADER, rack=RACK, liveness=DEAD, open="leader-lost")
    core = root_core(hook("page"), restored=Restored(nodes=(lost,)))
    assert (
        Playbook(core)
        >> 30
        >> (LEADER, summary(1))
        << "leader-recovered rack1-leader1"
        << "persist 1: leader-recovered rack1-leader1; pending page"
    )


# ---- hooks -----------------------------------------------------------------------------------------------


def after_death(*on: Kind) -> Playbook:
    """A hook was told of a death and ended well."""
    book = play(root_core(hook("page", *on)), quiet=("persist", "ack", "note")) >> Kept(1)
    book = book >> (LEADER, transitions(transition(2, DEAD, ALIVE))) << "node-dead node1 ALIVE>DEAD silence"
    book = book >> Kept(2) << "run page node-dead node1"
    return book >> ended(runs_of(book)[0])


def test_a_hook_told_of_a_death_is_told_of_the_recovery() -> None:
    assert (
        after_death()
        >> Kept(3)
        >> (LEADER, transitions(transition(3, ALIVE, DEAD)))
        << "node-recovered node1 DEAD>ALIVE"
        >> Kept(4)
        << "run page node-recovered node1"
    )


def test_a_hook_told_of_a_death_is_told_of_a_restart_that_ends_it() -> None:
    back = transition(3, ALIVE, DEAD, kind=Kind.NODE_RESTARTED, incarnation=8)
    assert (
        after_death()
        >> Kept(3)
        >> (LEADER, transitions(back))
        << "node-restarted node1 DEAD>ALIVE"
        >> Kept(4)
        << "run page node-restarted node1"
    )


def test_a_hook_told_of_a_death_is_told_of_an_end_that_only_a_summary_tells() -> None:
    book = after_death() >> Kept(3) >> (LEADER, summary(2, row(version=3), newest=3)) >> 2.5
    assert (
        book
        >> (LEADER, summary(3, row(version=3), newest=3))
        << "node-recovered node1 DEAD>ALIVE"
        >> Kept(4)
        << "run page node-recovered node1"
    )


def test_the_end_is_told_only_after_the_run_that_told_the_beginning_has_ended() -> None:
    book = play(root_core(hook("page")), quiet=("persist", "ack", "note")) >> Kept(1)
    book = book >> (LEADER, transitions(transition(2, DEAD, ALIVE))) << "node-dead node1 ALIVE>DEAD silence" >> Kept(2)
    book = book << "run page node-dead node1" >> (LEADER, transitions(transition(3, ALIVE, DEAD)))
    book = book << "node-recovered node1 DEAD>ALIVE" >> Kept(3) >> ended(runs_of(book)[0], 1)
    assert book >> 1.0 << "run page node-dead node1" >> ended(runs_of(book)[0]) << "run page node-recovered node1"


def test_a_hook_that_keeps_failing_is_put_aside_and_that_is_written_and_said() -> None:
    core = root_core(hook("page"), hook_retries_ns=(10**9,))
    book = play(core, quiet=("ack", "node-dead")) >> Kept(1) >> (LEADER, transitions(transition(2, DEAD, ALIVE)))
    book = book << "persist 2: node-dead node1; mark 2; pending page" >> Kept(2) << "run page node-dead node1"
    run_id = runs_of(book)[0]
    assert (
        book
        >> ended(run_id, 3)
        << "note hook-failed"
        << "persist 3: pending page"
        >> Kept(3)
        >> 1.0
        << "run page node-dead node1"
        >> ended(run_id, 3)
        << "note hook-given-up"
        << "persist 4: dead page"
    )
    assert book.newest(Note).fields["error"] == "exit 3"
    assert (core.dispatch.waiting, core.dispatch.dead) == (0, 1)


# ---- reload ----------------------------------------------------------------------------------------------


def test_a_new_hook_counts_from_the_reload_on_and_a_lease_and_its_marks_are_kept() -> None:
    core = root_core()
    assert (
        play(core)
        >> Kept(1)
        << f"ack {LEADER} 1"
        >> Reconfigured(root_config(hook("page")))
        << "note membership"
        >> (LEADER, transitions(transition(2, DEAD, ALIVE)))
        << "node-dead node1 ALIVE>DEAD silence"
        << "persist 2: node-dead node1; mark 2; pending page"
    )


def test_a_new_length_of_leases_counts_from_the_reload_on() -> None:
    core = root_core(lease_ns=5 * 10**9)
    book = play(core) >> Kept(1) << f"ack {LEADER} 1" >> Reconfigured(root_config(lease_ns=20 * 10**9))
    assert book << "note membership" >> (LEADER, summary(2, row(version=1), newest=1)) >> 19
    assert core.leaders[LEADER].lease.held


def test_a_rack_that_is_gone_from_the_config_is_forgotten_with_its_nodes_and_its_leader() -> None:
    core = root_core()
    book = play(core) >> Kept(1) << f"ack {LEADER} 1" >> Reconfigured(root_config(racks=())) << "note membership"
    assert book << "persist 2: forget rack1-leader1; forget node1"
    assert (core.nodes, core.leaders) == ({}, {})


def test_a_root_that_was_told_to_end_writes_what_it_has_and_starts_nothing_more() -> None:
    core = root_core(hook("page"), restored=Restored(runs=(owed(),)))
    core.ledger.run(run(7, state=RunState.DONE))
    assert Playbook(core) >> Terminate() << "persist 1: done page" << "exit" >> Kept(1) >> 60
    assert {core.wake(now) for now in range(60 * 10**9, 90 * 10**9, 10**9 // 4)} == {()}


def test_a_run_of_no_one_is_no_news() -> None:
    assert Playbook(root_core(hook("page"))) >> ended(run().run_id) >> Kept(7) >> KeepFailed(7, "no space")


def test_times_are_those_of_the_leaders_wall_clock_where_it_knows_them() -> None:
    book = play(root_core())
    (joined,) = book.newest(Persist).batch.events
    assert joined.at_wall_ns == WALL_NS + 10**9
    assert joined.sequence == 1 and joined.event_id.endswith("-1")
    assert book.newest(Persist).batch.marks[0].epoch == EPOCH
