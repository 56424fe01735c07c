"""A process that writes, and dies where it is told to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Commits batch 1, 2, 3... up to a number; prints each once it is promised. A few events are kept, so that some go.
WRITER = """
import sys
from pathlib import Path
from tests.store.samples import SqliteHistory, batch
history = SqliteHistory(Path(sys.argv[1]))
number = history.restore().newest_sequence
while number < int(sys.argv[2]):
    number += 1
    history.commit(batch(number))
    print(number, flush=True)
"""


def run_writer(path: Path, count: int, point: str = "") -> tuple[int, list[int], str]:
    ended = subprocess.run(
        [sys.executable, "-c", WRITER, str(path), str(count)],
        env={**os.environ, "HBAGENT_FAILPOINT": point},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    return ended.returncode, [int(number) for number in ended.stdout.split()], ended.stderr
