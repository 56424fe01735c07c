from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hbagent.store.claim import Claim, ClaimedError

HOLD = "import sys, pathlib; from hbagent.store.claim import Claim; Claim(pathlib.Path(sys.argv[1])).take(); \
print('held', flush=True); sys.stdin.read()"


def test_only_one_holds_a_file(tmp_path: Path) -> None:
    first, second = Claim(tmp_path / "state"), Claim(tmp_path / "state")
    first.take()
    first.take()
    with pytest.raises(ClaimedError, match=r"state\.lock"):
        second.take()
    first.release()
    second.take()
    second.release()


def test_files_are_claimed_apart(tmp_path: Path) -> None:
    claims = [Claim(tmp_path / name) for name in ("a", "b")]
    for claim in claims:
        claim.take()
    for claim in claims:
        claim.release()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state"
    command = [sys.executable, "-c", HOLD, str(path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        claim = Claim(path)
        with pytest.raises(ClaimedError):
            claim.take()
        holder.kill()
        holder.wait(10)
        claim.take()
        claim.release()
