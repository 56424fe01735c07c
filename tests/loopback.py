"""An address of this host for the tests of one process."""

from __future__ import annotations

import os

#: No other process binds here: a port that was chosen and is closed stays free, until whoever chose it comes back.
OWN = f"127.{64 + (os.getpid() >> 16) % 64}.{(os.getpid() >> 8) % 256}.{os.getpid() % 256}"
