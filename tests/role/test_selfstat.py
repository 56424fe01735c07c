"""What the kernel says of this process."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from hbagent.role.selfstat import process_facts


def test_the_facts_are_those_of_this_process() -> None:
    facts = process_facts(commit_s=0.5, reads=(5, 2), defects=3)
    assert facts.cpu_s is not None and abs(facts.cpu_s - sum(os.times()[:2])) < 1
    assert facts.resident_bytes and facts.virtual_bytes and facts.resident_bytes < facts.virtual_bytes
    assert facts.threads == threading.active_count() or (facts.threads or 0) >= 1
    assert facts.started_s is not None and 0 < time.time() - facts.started_s < 24 * 3600
    assert facts.open_fds and facts.fds_max and facts.open_fds < facts.fds_max
    assert (facts.commit_s, facts.reads, facts.defects) == (0.5, (5, 2), 3)


def test_one_more_descriptor_is_one_more() -> None:
    before = process_facts().open_fds
    descriptor = os.open("/", os.O_RDONLY)
    try:
        assert process_facts().open_fds == (before or 0) + 1
    finally:
        os.close(descriptor)


def test_without_proc_there_is_less_to_tell(tmp_path: Path) -> None:
    facts = process_facts(proc=tmp_path)
    assert facts.cpu_s is not None
    assert facts.resident_bytes is facts.open_fds is facts.threads is facts.started_s is None
