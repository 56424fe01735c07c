"""`hbagent backup FILE`: a copy of the root's history that is whole, taken while the root goes on.

To go back to one: stop the root, put the copy in the place of `history.sqlite` in its state directory (without the
files `-wal` and `-shm` that lie beside it, and owned by the root's user), and start it. What happened since the copy
is not in the history then; what burns is told anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hbagent.core.wallclock import rfc3339
from hbagent.store.backup import back_up
from hbagent.store.history import HistoryError
from hbagent.store.opening import file_of, is_server

from . import EXIT_UNAVAILABLE, EXIT_USAGE, query, rootfile

#: The copy was made, and not everything in it is as it should be.
EXIT_WARNING = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `backup`."""
    rootfile.add_argument(parser)
    parser.add_argument("file", metavar="FILE", type=Path, help="where to; nothing may be there yet")
    parser.epilog = (
        "To restore: stop the root, put FILE in the place of history.sqlite in its state directory, remove the -wal "
        "and -shm beside it, start the root. A store in PostgreSQL is backed up with pg_dump --schema=hbagent."
    )


def run(args: argparse.Namespace) -> int:
    """Copy and look through the copy; 0, or 1 when something in it is damaged, or 64 and above when there is none."""
    try:
        settings = rootfile.settings_of(args)
        if is_server(settings.store):
            raise query.NoTarget("this root's store is a database server: back it up with pg_dump --schema=hbagent")
        found = back_up(file_of(settings.store, settings.state_dir), args.file)
    except query.NoTarget as error:
        query.say(str(error))
        return EXIT_USAGE
    except HistoryError as error:
        query.say(str(error))
        return EXIT_UNAVAILABLE
    newest = f", the newest of {rfc3339(found.newest_wall_ns)}" if found.newest_sequence else ""
    print(f"{args.file}: {found.rows['events']} events{newest}; {sum(found.rows.values())} rows, looked through")
    for problem in found.problems:
        query.say(problem)
    return EXIT_WARNING if found.problems else 0
