"""What a drill is called, and what must come of it."""

from __future__ import annotations

from hbagent.core.drill import OUTCOMES, PREFIX, is_drill
from hbagent.core.names import is_part
from hbagent.core.states import HEALTH_OF, Health
from hbagent.demo.victim import DRILLS


def test_a_drill_is_known_by_its_name() -> None:
    assert is_drill(f"{PREFIX}1f") and is_part(f"{PREFIX}1f")
    assert not is_drill("web")


def test_every_drill_that_the_program_can_do_has_an_outcome_and_none_is_good() -> None:
    assert set(DRILLS) == set(OUTCOMES)
    for health, stall in OUTCOMES.values():
        assert health is not Health.OK
        assert stall is None or HEALTH_OF[stall] is health
