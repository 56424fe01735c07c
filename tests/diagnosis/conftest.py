"""Time enough."""

from __future__ import annotations

import pytest

from hbagent.core.units import SECOND
from hbagent.diagnosis import examination


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An examination leaves nothing out because the machine stood still."""
    monkeypatch.setattr(examination, "ALL_NS", 50 * SECOND)
    monkeypatch.setattr(examination, "TELL_NS", 20 * SECOND)
    monkeypatch.setattr(examination, "PYTHON_S", 20)
    monkeypatch.setattr(examination, "JVM_S", 20)
