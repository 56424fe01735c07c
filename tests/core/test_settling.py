from __future__ import annotations

from hbagent.core.settling import Settling
from hbagent.core.states import Reason
from tests.build import RACK


def test_a_rack_settles_until_its_time_is_over() -> None:
    settling = Settling()
    assert settling.of(RACK, 0) is None
    settling.begin(RACK, Reason.INHIBITED, "i7", 100)
    found = settling.of(RACK, 99)
    assert found is not None and (found.reason, found.ref, found.until) == (Reason.INHIBITED, "i7", 100)
    assert settling.of(RACK, 100) is None
    assert settling.of("dc1/rack2", 50) is None


def test_a_shorter_time_does_not_end_a_longer_one() -> None:
    settling = Settling()
    settling.begin(RACK, Reason.INHIBITED, "i7", 100)
    settling.begin(RACK, Reason.GRACE, "", 50)
    found = settling.of(RACK, 60)
    assert found is not None and found.until == 100
    settling.begin(RACK, Reason.GRACE, "", 200)
    found = settling.of(RACK, 150)
    assert found is not None and found.reason is Reason.GRACE


def test_who_begins_to_listen_ends_the_wait_for_him_and_no_other() -> None:
    settling = Settling()
    settling.begin(RACK, Reason.GRACE, "", 1000)
    settling.listen(RACK, 50)
    assert settling.of(RACK, 50) is None
    settling.begin(RACK, Reason.INHIBITED, "i7", 100)
    settling.listen(RACK, 50)
    found = settling.of(RACK, 60)
    assert found is not None and found.reason is Reason.INHIBITED
