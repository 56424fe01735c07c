"""What several observers say together. Liveness is proved by anybody; a DEAD yields only to a later beat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.fleet import Merged, NodeRecord, Seen, is_later, merge
from hbagent.core.states import Cause, Kind, Liveness
from tests.build import EPOCH, LEADER, LEADER2, NODE, RACK, T, row, transition

ALIVE, SUSPECT, DEAD, LEFT, UNKNOWN = (
    Liveness.ALIVE,
    Liveness.SUSPECT,
    Liveness.DEAD,
    Liveness.LEFT,
    Liveness.UNKNOWN,
)


def seen(
    liveness: Liveness,
    sequence: int = 10,
    incarnation: int | None = 7,
    heard: float | None = 1,
    version: int = 1,
    leader: str = LEADER,
    cause: Cause = Cause.SILENCE,
) -> Seen:
    view = Seen(leader, 0)
    view.liveness = liveness
    view.cause = None if liveness is ALIVE else cause
    view.incarnation, view.sequence = incarnation, sequence
    view.heard_at = None if heard is None else T(heard)
    view.version = version
    return view


def merged(*views: Seen) -> tuple[Liveness, Cause | None] | None:
    found = merge(views)
    return None if found is None else (found.liveness, found.cause)


# ---- one node, several observers -------------------------------------------------------------------------


def test_a_single_observer_is_believed() -> None:
    assert merged(seen(ALIVE)) == (ALIVE, None)
    assert merged(seen(DEAD)) == (DEAD, Cause.SILENCE)


def test_who_has_neither_heard_nor_judged_a_node_in_his_own_life_abstains() -> None:
    fresh = seen(UNKNOWN, heard=None, version=0)
    assert not fresh.speaks
    assert merged(fresh) is None
    assert merged(fresh, seen(DEAD)) == (DEAD, Cause.SILENCE), "and vetoes nothing"
    assert merged(seen(ALIVE, heard=None, version=0), seen(DEAD)) == (DEAD, Cause.SILENCE)


def test_who_judged_a_node_that_he_never_heard_speaks() -> None:
    assert seen(DEAD, heard=None, version=3).speaks


def test_dead_is_contradicted_only_by_a_later_beat() -> None:
    assert merged(seen(DEAD, sequence=10), seen(ALIVE, sequence=10)) == (DEAD, Cause.SILENCE)
    assert merged(seen(DEAD, sequence=10), seen(ALIVE, sequence=9)) == (DEAD, Cause.SILENCE)
    assert merged(seen(DEAD, sequence=10), seen(ALIVE, sequence=11)) == (ALIVE, Cause.LINK_CUT)


def test_old_beats_that_reach_the_observer_of_a_death_do_not_outweigh_what_another_hears() -> None:
    dead, hears = seen(DEAD, sequence=10), seen(ALIVE, sequence=12)
    dead.follow(row(liveness=DEAD, sequence=14), T(5))
    assert merged(dead, hears) == (ALIVE, Cause.LINK_CUT)
    dead.believe(row(sequence=15), EPOCH, T(6))
    assert dead.sequence == 15


def test_another_incarnation_is_later_when_it_was_heard_later() -> None:
    dead = seen(DEAD, sequence=500, incarnation=7, heard=10)
    assert merged(dead, seen(ALIVE, sequence=1, incarnation=8, heard=11)) == (ALIVE, Cause.LINK_CUT)
    assert merged(dead, seen(ALIVE, sequence=900, incarnation=6, heard=9)) == (DEAD, Cause.SILENCE)


def test_of_several_dead_each_must_be_beaten() -> None:
    assert merged(seen(DEAD, sequence=10), seen(DEAD, sequence=12), seen(ALIVE, sequence=11)) == (DEAD, Cause.SILENCE)


def test_no_verdict_contradicts_no_death() -> None:
    assert merged(seen(DEAD, sequence=10), seen(UNKNOWN, sequence=99)) == (DEAD, Cause.SILENCE)


def test_whoever_hears_the_node_wins_and_the_others_deafness_is_marked() -> None:
    assert merged(seen(SUSPECT), seen(ALIVE, sequence=11)) == (ALIVE, Cause.LINK_CUT)
    assert merged(seen(ALIVE), seen(ALIVE)) == (ALIVE, None)
    assert merged(seen(UNKNOWN), seen(ALIVE)) == (ALIVE, None)


def test_a_goodbye_outweighs_a_suspicion() -> None:
    assert merged(seen(SUSPECT), seen(LEFT)) == (LEFT, Cause.SILENCE)


def test_of_observers_that_say_the_same_the_one_with_the_latest_beat_decides() -> None:
    old = seen(ALIVE, sequence=500, incarnation=7, heard=10)
    new = seen(ALIVE, sequence=1, incarnation=8, heard=11, leader=LEADER2)
    for views in ((old, new), (new, old)):
        found = merge(views)
        assert found is not None and found.basis is new


VIEWS = st.lists(
    st.builds(
        seen,
        st.sampled_from(list(Liveness)),
        st.integers(1, 5),
        st.integers(1, 2),
        st.one_of(st.none(), st.integers(0, 5)),
        st.integers(0, 1),
        cause=st.sampled_from([Cause.SILENCE, Cause.LINK_CUT, Cause.RACK_DARK, Cause.PROCESS_EXIT]),
    ),
    max_size=4,
)


@given(VIEWS)
def test_nobody_is_merged_out_of_nothing(views: list[Seen]) -> None:
    speaking = [view for view in views if view.speaks]
    found = merge(views)
    if found is None:
        assert not speaking
        return
    assert found.basis in speaking
    assert found.liveness in [ALIVE if view.hears else view.liveness for view in speaking]
    if found.liveness is not DEAD:
        for dead in speaking:
            assert dead.liveness is not DEAD or is_later(found.basis, dead)
    if ALIVE in [view.liveness for view in speaking] and DEAD not in [view.liveness for view in speaking]:
        assert found.liveness is ALIVE


@given(st.permutations([seen(DEAD, 10), seen(ALIVE, 9), seen(ALIVE, 12), seen(SUSPECT, 11)]))
def test_the_order_of_the_observers_decides_nothing(views: list[Seen]) -> None:
    assert merged(*views) == (ALIVE, Cause.LINK_CUT)


@given(VIEWS)
def test_who_hears_a_node_makes_it_alive_unless_somebody_calls_it_dead(views: list[Seen]) -> None:
    speaking = [view for view in views if view.speaks]
    found = merge(views)
    hearing = [view for view in speaking if view.hears]
    dead = [view for view in speaking if view.liveness is DEAD]
    if found is None or not hearing:
        return
    if not dead:
        assert found.liveness is ALIVE, "neither a suspicion, nor a goodbye, nor a dark rack hides it"
        deaf = any(view.liveness is SUSPECT for view in speaking)
        assert (found.cause is Cause.LINK_CUT) == (deaf or found.basis.cause is Cause.LINK_CUT)
    elif found.liveness is DEAD:
        proved = any(view.cause is Cause.PROCESS_EXIT for view in dead)
        assert list(found.doubters) == ([] if proved else hearing)
        assert not any(all(is_later(view, one) for one in dead) for view in hearing)
    else:
        assert found.doubters == ()


@given(VIEWS)
def test_without_a_later_beat_no_word_raises_the_dead(views: list[Seen]) -> None:
    dead = [view for view in views if view.speaks and view.liveness is DEAD]
    found = merge(views)
    if found is not None and found.liveness is not DEAD:
        assert all(is_later(found.basis, one) for one in dead)


def test_a_suspicion_of_a_link_that_was_cut_is_a_proof_of_life() -> None:
    cut = seen(SUSPECT, cause=Cause.LINK_CUT)
    assert cut.hears and not seen(SUSPECT).hears
    assert merged(cut) == (ALIVE, Cause.LINK_CUT)
    assert merged(cut, seen(SUSPECT)) == (ALIVE, Cause.LINK_CUT)
    assert merged(cut, seen(DEAD, sequence=9)) == (ALIVE, Cause.LINK_CUT)
    assert merged(cut, seen(DEAD, sequence=10)) == (DEAD, Cause.SILENCE)


def test_a_dark_rack_of_one_observer_hides_no_node_that_another_hears() -> None:
    dark = seen(UNKNOWN, cause=Cause.RACK_DARK)
    assert merged(dark, seen(ALIVE)) == (ALIVE, None)
    assert merged(dark, seen(SUSPECT, cause=Cause.LINK_CUT)) == (ALIVE, Cause.LINK_CUT)
    assert merged(dark) == (UNKNOWN, Cause.RACK_DARK)


def test_a_death_is_doubted_by_who_heard_the_node_as_lately_and_not_when_it_was_proved() -> None:
    alive = seen(ALIVE, sequence=10)
    doubted = merge([seen(DEAD, sequence=10), alive])
    assert doubted is not None and doubted.doubters == (alive,)
    proved = merge([seen(DEAD, sequence=10, cause=Cause.PROCESS_EXIT), alive])
    assert proved is not None and proved.doubters == ()


# ---- one observer ----------------------------------------------------------------------------------------


def test_a_transition_is_taken_once() -> None:
    view = Seen(LEADER, 0)
    assert view.apply(transition(3, DEAD, SUSPECT), EPOCH, EPOCH, T(5))
    assert (view.liveness, view.version, view.heard_at) == (DEAD, 3, T(4))
    assert not view.apply(transition(3, DEAD, SUSPECT), EPOCH, EPOCH, T(6))
    assert not view.apply(transition(2, SUSPECT, ALIVE), EPOCH, EPOCH, T(6))
    assert view.liveness is DEAD


def test_the_numbers_of_two_lives_of_a_leader_have_nothing_to_do_with_one_another() -> None:
    view = Seen(LEADER, 0)
    view.apply(transition(30, DEAD, SUSPECT), EPOCH, EPOCH, T(5))
    assert view.apply(transition(1, ALIVE, DEAD), EPOCH + 1, EPOCH + 1, T(6))
    assert (view.liveness, view.version) == (ALIVE, 1)


def test_what_an_earlier_life_left_behind_yields_to_what_this_life_heard() -> None:
    view = Seen(LEADER, 0)
    view.believe(row(liveness=ALIVE, version=1), EPOCH, T(5))
    assert not view.apply(transition(40, DEAD, SUSPECT), 99, EPOCH, T(6))
    assert view.liveness is ALIVE


def test_what_an_earlier_life_left_behind_counts_while_this_life_has_not_heard_the_node() -> None:
    view = Seen(LEADER, 0)
    view.believe(row(liveness=DEAD, version=0, age_ns=None), EPOCH, T(5))
    assert view.apply(transition(40, DEAD, SUSPECT), 99, EPOCH, T(6))
    assert view.speaks


def test_a_row_that_is_followed_moves_ages_and_counts_and_no_verdict() -> None:
    view = Seen(LEADER, 0)
    view.apply(transition(1, DEAD), EPOCH, EPOCH, T(1))
    view.follow(row(liveness=ALIVE, sequence=30, lost=2, late=1, age_ns=T(1)), T(9))
    assert (view.liveness, view.sequence, view.lost, view.late, view.heard_at) == (DEAD, 10, 2, 1, T(8))


def test_a_row_that_is_believed_replaces_everything() -> None:
    view = Seen(LEADER, 0)
    view.apply(transition(1, DEAD), EPOCH, EPOCH, T(1))
    view.believe(row(liveness=ALIVE, version=4, since_ns=T(3)), EPOCH, T(9))
    assert (view.liveness, view.cause, view.version, view.since) == (ALIVE, None, 4, T(6))
    assert view.evidence is None


# ---- what people are told --------------------------------------------------------------------------------


def told(*values: Liveness) -> NodeRecord:
    record = NodeRecord(NODE, RACK)
    for value in values:
        kind = {SUSPECT: Kind.NODE_SUSPECT, DEAD: Kind.NODE_DEAD, LEFT: Kind.NODE_LEFT}.get(value, Kind.NODE_JOINED)
        record.tell(value, kind, 0)
    return record


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ((), ALIVE, Kind.NODE_JOINED),
        ((ALIVE,), SUSPECT, Kind.NODE_SUSPECT),
        ((ALIVE, SUSPECT), DEAD, Kind.NODE_DEAD),
        ((ALIVE, SUSPECT), ALIVE, Kind.NODE_RECOVERED),
        ((ALIVE, SUSPECT, DEAD), ALIVE, Kind.NODE_RECOVERED),
        ((ALIVE, LEFT), ALIVE, Kind.NODE_JOINED),
        ((ALIVE,), LEFT, Kind.NODE_LEFT),
        ((ALIVE,), UNKNOWN, Kind.NODE_UNKNOWN),
        ((ALIVE, DEAD, UNKNOWN), ALIVE, Kind.NODE_RECOVERED),
    ],
)
def test_a_change_has_the_kind_of_what_was_told_before(
    before: tuple[Liveness, ...], after: Liveness, kind: Kind
) -> None:
    assert told(*before).kind_of(Merged(after, None, seen(after)), 7) is kind


@pytest.mark.parametrize("cause", [Cause.RACK_DARK, Cause.ROOT_ISOLATED])
def test_who_was_only_out_of_sight_has_recovered_or_was_restarted(cause: Cause) -> None:
    record = told(ALIVE, UNKNOWN)
    record.cause = cause
    assert record.kind_of(Merged(ALIVE, None, seen(ALIVE)), 7) is Kind.NODE_RECOVERED
    assert record.kind_of(Merged(ALIVE, None, seen(ALIVE, incarnation=8)), 7) is Kind.NODE_RESTARTED


def test_who_comes_back_with_another_incarnation_was_restarted() -> None:
    back = Merged(ALIVE, None, seen(ALIVE, incarnation=8))
    assert told(ALIVE, DEAD).kind_of(back, 7) is Kind.NODE_RESTARTED
    assert told(ALIVE, DEAD).kind_of(back, None) is Kind.NODE_RECOVERED, "nothing is known of the one before"


def test_the_trouble_that_was_told_is_open_until_the_node_is_back_or_has_left() -> None:
    assert told(ALIVE, SUSPECT, DEAD).open == "node-suspect,node-dead"
    assert told(SUSPECT, DEAD, SUSPECT).open == "node-suspect,node-dead"
    assert told(SUSPECT, DEAD, UNKNOWN).open == "node-suspect,node-dead"
    assert (told(SUSPECT, ALIVE).open, told(SUSPECT, LEFT).open) == ("", "")


def test_a_next_life_of_the_root_knows_what_was_told() -> None:
    record = told(ALIVE, DEAD)
    record.cause, record.incarnation, record.sequence, record.since_wall_ns = Cause.SILENCE, 7, 10, 5
    again = NodeRecord(NODE, RACK)
    again.restore(record.state())
    assert again.state() == record.state()
    assert (again.told, again.open) == (DEAD, "node-dead")


@pytest.mark.parametrize("sequences", [(10, 10), (10, 12), (12, 10)])
def test_of_several_dead_the_cause_of_who_knows_more_is_told(sequences: tuple[int, int]) -> None:
    proved = seen(DEAD, sequence=sequences[0], cause=Cause.PROCESS_EXIT)
    guessed = seen(DEAD, sequence=sequences[1], cause=Cause.SILENCE, leader=LEADER2)
    assert merged(proved, guessed) == merged(guessed, proved) == (DEAD, Cause.PROCESS_EXIT)
