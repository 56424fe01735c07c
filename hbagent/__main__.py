"""`python -m hbagent` is the `hbagent` command."""

from __future__ import annotations

import sys

from hbagent.cli import main

if __name__ == "__main__":
    sys.exit(main())
