from __future__ import annotations

import json

import msgspec

from hbagent.core.messages import Evidence
from hbagent.core.states import Liveness
from hbagent.core.views import count_liveness, evidence_view, incarnation_view, seconds_of


def test_every_liveness_is_counted_also_when_nobody_has_it() -> None:
    counts = count_liveness([Liveness.ALIVE, Liveness.DEAD, Liveness.ALIVE])
    assert counts == {"ALIVE": 2, "SUSPECT": 0, "DEAD": 1, "LEFT": 0, "UNKNOWN": 0}


def test_ages_are_seconds_with_milliseconds_and_unknown_ones_are_null() -> None:
    assert (seconds_of(1_234_567_890), seconds_of(0), seconds_of(None)) == (1.235, 0.0, None)


def test_an_incarnation_survives_a_reader_that_knows_no_integers() -> None:
    shown = evidence_view(Evidence(text="silent", incarnation=2**64 - 1, sequence=7))
    read = json.loads(msgspec.json.encode(shown), parse_int=float)
    assert int(read["incarnation"], 16) == 2**64 - 1
    assert read["sequence"] == 7
    assert (incarnation_view(5), incarnation_view(None)) == ("0000000000000005", None)
