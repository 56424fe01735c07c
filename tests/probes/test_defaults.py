"""What runs on a host of which nothing is configured."""

from __future__ import annotations

from hbagent.core.checks import HostCheck
from hbagent.core.states import Health
from hbagent.probes.defaults import PROBES
from hbagent.probes.host import MEASURES


def test_every_measure_is_on_by_default_under_its_own_name() -> None:
    checks = [probe.check for probe in PROBES]
    assert [check.what for check in checks if isinstance(check, HostCheck)] == list(MEASURES)
    assert [probe.name for probe in PROBES] == list(MEASURES)


def test_nobody_asked_for_them_so_they_are_patient() -> None:
    for probe in PROBES:
        assert probe.default
        assert probe.on_timeout is Health.UNKNOWN
        assert probe.timeout_ns < probe.interval_ns
        # What is held for minutes after one moment is believed at once.
        assert probe.fall == (1 if probe.name in ("oom", "clock", "readonly") else 3)
