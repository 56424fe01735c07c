"""Places where a test can make the process die, as a crash would, between one step on disk and the next.

`HBAGENT_FAILPOINT=name` ends the process when `name` is passed for the first time, `name:3` for the third. The
exit is immediate: nothing is flushed, no handler runs, exactly as after kill -9. Without the variable a point costs
one comparison of strings.
"""

from __future__ import annotations

import os

#: Exit status of a process that a failpoint ended: what a shell shows for kill -9.
EXIT_STATUS = 137

#: Every point there is. A test visits each.
POINTS = (
    "journal-append-begin",
    "journal-append-written",
    "journal-append-synced",
    "journal-rewrite-begin",
    "journal-rewrite-written",
    "journal-rewrite-synced",
    "journal-rewrite-renamed",
    "journal-rewrite-done",
    "quarantine-begin",
    "quarantine-done",
    "evidence-begin",
    "evidence-written",
    "evidence-synced",
    "evidence-renamed",
    "evidence-thinned",
    "history-created",
    "history-commit-begin",
    *(f"history-wrote-{name}" for name in ("events", "nodes", "marks", "hook_runs", "unsent", "verdicts")),
    *(f"history-wrote-{name}" for name in ("convictions", "tallies", "troubles", "incidents", "silences")),
    "history-pruned",
    "history-commit-filled",
    "history-commit-done",
    "history-upgrade-filled",
    "history-upgrade-done",
    "history-salvage-begin",
    "history-salvage-filled",
    "history-salvage-ready",
    "history-salvage-cleared",
    "history-salvage-done",
    "backup-written",
)


def parse(text: str) -> tuple[str, int]:
    """Name and count of a setting such as "journal-append-synced:3"; the count is 1 when it is left out.

    Raises ValueError for a name that is no failpoint or a count that is no positive number: a test that names a
    point that does not exist would prove nothing.
    """
    name, _, count = text.partition(":")
    if name not in POINTS or (count and not count.isdecimal()):
        raise ValueError(f"HBAGENT_FAILPOINT={text!r}: want name or name:count, name one of {', '.join(POINTS)}")
    return name, max(1, int(count or 1))


_name, _left = parse(os.environ["HBAGENT_FAILPOINT"]) if os.environ.get("HBAGENT_FAILPOINT") else ("", 0)


def hit(name: str) -> None:
    """Pass the point `name`; does not return when it is armed and its count is used up."""
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os._exit(EXIT_STATUS)
