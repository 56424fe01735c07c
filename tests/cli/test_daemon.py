from __future__ import annotations

import resource
import subprocess
import sys

_SHOW = """
import resource
from hbagent.cli.daemon import allow_descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
allow_descriptors()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_daemon_uses_all_the_descriptors_that_it_may() -> None:
    shown = subprocess.run([sys.executable, "-c", _SHOW], capture_output=True, text=True, check=True).stdout.split()
    assert shown == [str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])] * 2
