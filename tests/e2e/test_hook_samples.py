"""A shipped hook against the real thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbagent.demo.datacenter import wait_until
from tests.e2e.watchers import ALERTMANAGER, alertmanagers
from tests.etc.test_hooks_d import EVENT, GONE, now, run

pytestmark = [pytest.mark.e2e, pytest.mark.paired, pytest.mark.needs(ALERTMANAGER)]


def test_alertmanager_takes_what_the_hook_tells_and_its_end(tmp_path: Path) -> None:
    with alertmanagers(tmp_path, 1) as (server,):
        assert run("alertmanager", server.url, event={**GONE, "at": now()}).returncode == 0
        assert wait_until(lambda: ("HbagentHostDown", "dc1/rack1/node1") in server.alerts(), 30)
        assert server.alert("HbagentHostDown")["labels"]["severity"] == "critical"
        recovered = {**EVENT, "kind": "node-recovered", "cause": None, "host": "up", "at": now()}
        assert run("alertmanager", server.url, event=recovered).returncode == 0
        assert wait_until(lambda: not server.alerts(), 30)
