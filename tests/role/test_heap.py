"""A process that made a large block once gives the next ones back."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from hbagent.role.heap import give_large_back
if sys.argv[1] == "set":
    assert give_large_back()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
blocks, pins = [], []
for _ in range(4):
    blocks.append(bytes(8 << 20))
    blocks.clear()
before = resident()
for _ in range(4):
    blocks.append(b"x" * (8 << 20))
    pins.append(bytearray(100_000))
blocks.clear()
print(resident() - before)
"""


def kept(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True, timeout=50)
    return int(run.stdout)


def test_large_blocks_go_back_to_the_kernel() -> None:
    assert kept("set") < 1 << 20
    assert kept("left alone") > 8 << 20, "which they do not by themselves"
