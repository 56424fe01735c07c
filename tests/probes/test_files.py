"""Files that are fresh, old, small, gone, or of the future."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hbagent.core.checks import FileCheck
from hbagent.core.messages import CheckFinished
from hbagent.core.states import Health
from hbagent.core.units import MINUTE, SECOND
from hbagent.probes import mounts
from hbagent.probes.check import run


def aged(path: Path, seconds: float, content: bytes = b"x") -> Path:
    path.write_bytes(content)
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def look(path: Path, **fields: object) -> CheckFinished:
    return run(FileCheck(path=str(path), **fields), 20 * SECOND)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("age", "health"), [(0, Health.OK), (40, Health.OK), (61, Health.WARNING), (301, Health.CRITICAL)]
)
def test_age_has_two_thresholds(tmp_path: Path, age: float, health: Health) -> None:
    result = look(aged(tmp_path / "f", age), warning_age_ns=MINUTE, critical_age_ns=5 * MINUTE)
    assert result.health is health
    measures = {measure.label: measure for measure in result.measures}
    assert measures["age"].value == pytest.approx(age, abs=15)
    assert (measures["age"].warning, measures["age"].critical) == ("60", "300")


def test_any_age_is_good_when_none_is_asked_for(tmp_path: Path) -> None:
    assert look(aged(tmp_path / "f", 10**9)).health is Health.OK


def test_a_missing_file_is_critical_unless_it_must_be_absent(tmp_path: Path) -> None:
    assert look(tmp_path / "none").health is Health.CRITICAL
    assert look(aged(tmp_path / "f", 0) / "below").health is Health.CRITICAL
    assert look(tmp_path / "none", absent=True).health is Health.OK
    assert look(aged(tmp_path / "f", 0), absent=True).health is Health.CRITICAL


def test_a_dangling_link_is_missing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "none")
    assert look(tmp_path / "link").health is Health.CRITICAL


def test_a_file_that_is_too_small_is_critical(tmp_path: Path) -> None:
    file = aged(tmp_path / "f", 0, b"x" * 100)
    assert look(file, size_min=100).health is Health.OK
    result = look(file, size_min=101)
    assert result.health is Health.CRITICAL
    assert "has 100 B, at least 101 B wanted" in result.text


def test_a_time_in_the_future_does_not_make_a_file_fresh(tmp_path: Path) -> None:
    file = aged(tmp_path / "f", -7200)
    assert look(file, critical_age_ns=MINUTE).health is Health.WARNING
    assert look(file).health is Health.OK


def test_what_the_sandbox_hides_is_unknown_and_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, table in (("1", "8:1 / / rw"), ("self", "0:9 / / rw")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mountinfo").write_text(f"1 0 {table} - ext4 /dev/x rw\n")
    real = mounts.hidden
    monkeypatch.setattr(mounts, "hidden", lambda path: real(path, str(tmp_path)))
    result = look(tmp_path / "none", absent=True)
    assert result.health is Health.UNKNOWN
    assert "sandbox" in result.text


def test_a_loop_of_links_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert look(tmp_path / "a").health is Health.UNKNOWN
