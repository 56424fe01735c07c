"""`hbagent notify KEY=VALUE...`: tell the agent of this host how a script is doing, as systemd-notify tells systemd.

It ends when the agent has taken the words, so that the agent sees who sent them.
"""

from __future__ import annotations

import argparse
import os
import sys

from hbagent.cli import EXIT_UNAVAILABLE, EXIT_USAGE
from hbagent.core.names import is_part
from hbagent.core.units import MICROSECOND, parse_duration
from hbagent.transport.teller import address_of, lines, send, settle

#: How long the agent may take for each of the words and their receipt.
TIMEOUT_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "fields", metavar="KEY=VALUE", nargs="*", help="READY=1, STATUS=..., WATCHDOG=1, STOPPING=1 ..."
    )
    parser.add_argument("--app", metavar="NAME", help="who is meant (default: whose process calls this)")
    parser.add_argument("--pid", action="store_true", help="the caller of this command is the main process")
    parser.add_argument("--ttl", metavar="TIME", help='all is well, and will be said again within this ("25h")')
    parser.add_argument("--result", metavar="CODE", type=int, help="the job has ended with this exit status")
    parser.add_argument("--socket", metavar="PATH", help="of the agent (default: $HBAGENT_NOTIFY, /run/hbagent/notify)")


def run(args: argparse.Namespace) -> int:
    try:
        datagram = lines(_fields(args))
    except ValueError as error:
        print(f"hbagent: {error}", file=sys.stderr)
        return EXIT_USAGE
    address = args.socket or address_of(os.environ)
    try:
        send(address, datagram, TIMEOUT_S)
        taken = settle(address, TIMEOUT_S)
    except OSError as error:
        print(f"hbagent: {address}: {error.strerror or error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    if not taken:
        print(f"hbagent: {address}: not taken within {TIMEOUT_S:g} s", file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0


def _fields(args: argparse.Namespace) -> list[str]:
    fields = list(args.fields)
    if args.result is not None:
        if not 0 <= args.result <= 255:
            raise ValueError(f"--result {args.result}: an exit status is 0 to 255")
        fields.append(f"X_HBAGENT_RESULT={args.result}")
    if args.ttl is not None:
        fields.append(f"X_HBAGENT_TTL_USEC={parse_duration(args.ttl) // MICROSECOND}")
    if args.pid:
        fields.append(f"MAINPID={os.getppid()}")
    if not fields:
        raise ValueError("nothing to tell: give KEY=VALUE, --ttl or --result")
    if args.app is not None:
        if not is_part(args.app):
            raise ValueError(f"--app {args.app!r} cannot be a name")
        fields.insert(0, f"X_HBAGENT_APP={args.app}")
    return fields
