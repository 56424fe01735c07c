"""What a drill is called, and what must come of it."""

from __future__ import annotations

from hbagent.core.drill import LENGTH_NS, OUTCOMES, PREFIX, UNDER_WAY, VERDICT_NS, WARM_UP_NS, WINDOW_NS, is_drill
from hbagent.core.drills import too_many
from hbagent.core.names import is_part
from hbagent.core.states import HEALTH_OF, Health
from hbagent.demo.victim import DRILLS


def test_a_drill_is_known_by_its_name() -> None:
    assert is_drill(f"{PREFIX}1f") and is_part(f"{PREFIX}1f")
    assert not is_drill("web")


def test_it_is_there_until_the_latest_word_of_it_and_not_much_longer() -> None:
    latest = WARM_UP_NS + WINDOW_NS + VERDICT_NS
    assert latest < LENGTH_NS <= 2 * latest


def test_whoever_comes_too_early_is_told_that_others_are_under_way() -> None:
    assert UNDER_WAY in too_many()


def test_every_drill_that_the_program_can_do_has_an_outcome_and_none_is_good() -> None:
    assert set(DRILLS) == set(OUTCOMES)
    for health, stall in OUTCOMES.values():
        assert health is not Health.OK
        assert stall is None or HEALTH_OF[stall] is health
