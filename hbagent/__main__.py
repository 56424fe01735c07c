"""`python -m hbagent` is `hbagent`."""

import sys

from hbagent.cli import main

if __name__ == "__main__":
    sys.exit(main())
