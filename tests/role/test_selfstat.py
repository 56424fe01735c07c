"""What the kernel says of this process."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from hbagent.role.selfstat import process_facts


def test_the_facts_are_those_of_this_process() -> None:
    before = sum(os.times()[:2])
    facts = process_facts(commit_s=0.5, reads=(5, 2), defects=3)
    # They are counted in hundredths of a second, and rounded.
    assert facts.cpu_s is not None and before - 0.1 < facts.cpu_s < sum(os.times()[:2]) + 0.1
    assert facts.resident_bytes and facts.virtual_bytes and facts.resident_bytes < facts.virtual_bytes
    assert facts.threads == threading.active_count() or (facts.threads or 0) >= 1
    # The kernel's start is in whole seconds.
    assert facts.started_s is not None and -2 < time.time() - facts.started_s < 24 * 3600
    assert facts.open_fds and facts.fds_max and facts.open_fds < facts.fds_max
    assert (facts.commit_s, facts.reads, facts.defects) == (0.5, (5, 2), 3)


def test_the_descriptor_that_lists_the_others_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "self" / "fd").mkdir(parents=True)
    for number in range(5):
        (tmp_path / "self" / "fd" / str(number)).touch()
    assert process_facts(proc=tmp_path).open_fds == 4


def test_without_proc_there_is_less_to_tell(tmp_path: Path) -> None:
    facts = process_facts(proc=tmp_path)
    assert facts.cpu_s is not None
    assert facts.resident_bytes is facts.open_fds is facts.threads is facts.started_s is None
