"""The names of the nodes that were seen last, in a file of the user's, so that a shell can complete them at once.

A shell reads it while somebody waits with a finger on the Tab key, so nobody is asked then. Only names by the grammar
get in: nothing in the file can mean anything to a shell. It is written for people at a terminal, not for scripts, and
that it cannot be written is no trouble of theirs.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from hbagent.core.names import is_node

#: Names that are kept: a shell reads this many in a moment.
NAMES_MAX = 20_000
#: A file that is younger is not written anew: nodes come and go by the day.
FRESH_S = 60.0


def place(environment: Mapping[str, str]) -> Path:
    """Where the names are: `$XDG_CACHE_HOME/hbagent/nodes`, else below `~/.cache`."""
    base = environment.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "hbagent" / "nodes"


def is_fresh(environment: Mapping[str, str] = os.environ) -> bool:
    """True when the names were kept just now."""
    try:
        return time.time() - place(environment).stat().st_mtime < FRESH_S
    except (OSError, RuntimeError):
        return False


def remember(names: Iterable[str], environment: Mapping[str, str] = os.environ) -> None:
    """Keep the names of nodes for completion, unless that was done just now."""
    try:
        if is_fresh(environment):
            return
        file = place(environment)
        kept = [name for name in names if is_node(name)][:NAMES_MAX]
        if not kept:
            return
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, whole = tempfile.mkstemp(dir=file.parent, prefix="nodes.")
        try:
            with os.fdopen(descriptor, "w") as stream:
                stream.writelines(f"{name}\n" for name in kept)
            os.replace(whole, file)
        except OSError:
            os.unlink(whole)
    except (OSError, RuntimeError):
        return
