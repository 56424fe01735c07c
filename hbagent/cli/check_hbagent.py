"""`check_hbagent`: what the root knows, as a Nagios plugin, for whoever has an Icinga, Naemon or Checkmk already.

One line of text and performance data, then a line for each problem, the worst first; the exit code is OK 0, WARNING 1,
CRITICAL 2 or UNKNOWN 3, and nothing else, whatever goes wrong: a scheduler takes any other number for a defect, and
argparse's own 2 for a fire. The verdict is that of `hbagent status` but for the states that have a threshold; old data
are UNKNOWN, and so is a root that cannot be asked.

Rules of the contract: Monitoring Plugins Development Guidelines, as in `probes.plugin`, which reads them.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hbagent import __version__
from hbagent.core.states import Health, Liveness, RackState
from hbagent.core.units import SECOND
from hbagent.probes.plugin import breaches, is_range
from hbagent.role.settings import ConfigError

from . import query
from .answers import (
    DRILL,
    TROUBLES,
    Row,
    code_of,
    code_of_rack,
    culprit,
    data_age_s,
    gravest,
    health_of,
    judged_health,
    liveness_of,
    number,
    row,
    rows,
    seconds_between,
    state_of,
    troubled,
    word,
)
from .grid import Screen, clean
from .pieces import age

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
#: Port of a root that is named by its host alone.
DEFAULT_PORT = 5713
#: A scheduler of checks gives up after a minute, and kills; a plugin's own limit is ten seconds.
TIME_DEFAULT_S, TIME_MAX_S = 10, 300
#: Three leases of a leader: older data are no news even on a bad day.
AGE_DEFAULT_S = 15.0
#: Problems that are told one by one, and how long each line may be: 4 kB, and a scheduler reads eight.
PROBLEMS_MAX = 20
LINE_LENGTH_MAX = 200
_ASCII = Screen(unicode=False)
#: What would end the text, or become a tag in somebody's web page.
_PLAIN = str.maketrans({"|": "/", "<": "(", ">": ")", "`": "'"})

_DARK, _INCIDENTS, _NO_HEALTH = "DARK", "INCIDENTS", "HEALTH-UNKNOWN"
#: What a threshold may count.
COUNTED = (
    *(liveness.value for liveness in Liveness if liveness is not Liveness.ALIVE),
    *(health.value for health in Health if health not in (Health.OK, Health.UNKNOWN)),
    _NO_HEALTH,
    _DARK,
    _INCIDENTS,
)


class _TimeUp(Exception):
    """The time limit has come."""


class _Parser(argparse.ArgumentParser):
    """Ends a wrong call as UNKNOWN, on standard output, where a scheduler looks for the reason."""

    def error(self, message: str) -> NoReturn:
        print(f"HBAGENT UNKNOWN - {plain(message)}; see check_hbagent --help")
        self.exit(UNKNOWN)


class Verdict:
    """What a check has found so far."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        #: Lines for the long output.
        self.problems: list[str] = []

    def add(self, code: int, problem: str = "") -> None:
        """One more finding."""
        self.codes.append(code)
        if problem:
            self.problems.append(problem)


def main(argv: Sequence[str] | None = None) -> int:
    """Check, print, and return the exit code. `argv` is without the program's name."""
    try:
        args = _parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else UNKNOWN
    before = signal.signal(signal.SIGALRM, _time_is_up)
    alarm = signal.setitimer(signal.ITIMER_REAL, args.timeout)
    try:
        code, lines = _checked(args)
    except _TimeUp:
        code, lines = UNKNOWN, [f"HBAGENT UNKNOWN - no answer within {args.timeout:g} s"]
    except ConfigError as error:
        code, lines = UNKNOWN, [f"HBAGENT UNKNOWN - {plain(str(error.problems[0]))}"]
    except Exception as error:
        code, lines = UNKNOWN, [f"HBAGENT UNKNOWN - {plain(str(error) or repr(error))}"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, *alarm)
        signal.signal(signal.SIGALRM, before)
    print("\n".join(lines))
    sys.stdout.flush()
    return code


def _time_is_up(number: int, frame: FrameType | None) -> NoReturn:
    raise _TimeUp


def plain(text: str) -> str:
    """`text` as one line that neither ends the text of a plugin nor means anything to a terminal or a web page."""
    return clean(text, _ASCII).translate(_PLAIN)[:LINE_LENGTH_MAX]


# ---- the call --------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="check_hbagent",
        description="Nagios plugin: what an hbagent root knows of its nodes.",
        epilog="Thresholds are [STATE=]RANGE, as in -w SUSPECT=3 -c DEAD=0; a bare range counts DEAD. A state with a "
        f"threshold is judged by it alone, every other as hbagent status does. States: {', '.join(COUNTED)}.",
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"check_hbagent {__version__}")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-H",
        "--hostname",
        dest="connect",
        metavar="HOST[:PORT]",
        type=_endpoint,
        help=f"operators' port of the root (default port {DEFAULT_PORT}); with --server-key and --key",
    )
    where.add_argument("--socket", metavar="ipc://PATH", help="the query socket of the root on this host")
    where.add_argument("--config", metavar="FILE", type=Path, help="root.toml, leader.toml or operator.toml")
    parser.add_argument("--server-key", metavar="KEY", help="with -H: the root's public key, or its .pub file")
    parser.add_argument("--key", metavar="FILE", type=Path, help="with -H: the secret key of an operator")
    parser.add_argument("--rack", metavar="RACK", action="append", default=[], help="only this rack; may be repeated")
    parser.add_argument("--node", metavar="NODE", action="append", default=[], help="only this node; may be repeated")
    parser.add_argument(
        "--skip-covered", action="store_true", help="leave out nodes that a silence or a maintenance covers"
    )
    for short, long, what in (("-w", "--warning", "WARNING"), ("-c", "--critical", "CRITICAL")):
        parser.add_argument(
            short,
            long,
            metavar="[STATE=]RANGE",
            type=_threshold,
            action="append",
            default=[],
            help=f"{what} when so many are in a state; may be repeated",
        )
    parser.add_argument(
        "-a",
        "--max-age",
        metavar="SECONDS",
        type=_seconds,
        default=AGE_DEFAULT_S,
        help=f"older data are UNKNOWN (default {AGE_DEFAULT_S:g})",
    )
    parser.add_argument(
        "-t",
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=TIME_DEFAULT_S,
        help=f"UNKNOWN when it takes longer (default {TIME_DEFAULT_S})",
    )
    return parser


def _endpoint(text: str) -> str:
    """ "root.example" as "tcp://root.example:5713"; a port, a scheme and IPv6 may be written."""
    address = text.removeprefix("tcp://")
    if address.count(":") > 1 and not address.startswith("["):
        address = f"[{address}]"
    has_port = ":" in address.rpartition("]")[2]
    return f"tcp://{address}" if has_port else f"tcp://{address}:{DEFAULT_PORT}"


def _threshold(text: str) -> tuple[str, str]:
    state, _, threshold = text.rpartition("=")
    state = state.upper() or Liveness.DEAD.value
    if state not in COUNTED:
        raise argparse.ArgumentTypeError(f"{state!r} is none of {', '.join(COUNTED)}")
    if not is_range(threshold):
        raise argparse.ArgumentTypeError(f"{threshold!r} is no range as in 10, 10:, ~:10, 10:20 or @10:20")
    return state, threshold


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= TIME_MAX_S:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0, {TIME_MAX_S} at most")
    return value


# ---- the check -------------------------------------------------------------------------------------------


def _checked(args: argparse.Namespace) -> tuple[int, list[str]]:
    # The time limit ends the whole check; that of each wait lies a little beyond it.
    with query.Asker(query.target_of(args), round((args.timeout + 1) * SECOND)) as asker:
        document = query.status(asker, args.rack)
    return judge(
        _narrowed(document, args.node, args.skip_covered), args.warning, args.critical, args.max_age, bool(args.node)
    )


def _narrowed(document: Row, wanted: Sequence[str], skip_covered: bool) -> Row:
    """The answer about some nodes and their racks. Raises Denied for a node that is not there."""
    nodes, racks = rows(document, "nodes"), rows(document, "racks")
    for name in wanted:
        if not any(_is_called(node, name) for node in nodes):
            raise query.Denied(f"no node {name!r} is known there")
    if wanted:
        nodes = [node for node in nodes if any(_is_called(node, name) for name in wanted)]
        homes = {word(node, "rack") for node in nodes}
        racks = [rack for rack in racks if word(rack, "rack") in homes]
    if skip_covered:
        nodes = [node for node in nodes if not node.get("covered_by")]
    return {**document, "nodes": nodes, "racks": racks}


def _is_called(node: Row, name: str) -> bool:
    full = word(node, "node")
    return full == name or full.endswith(f"/{name}")


def judge(
    document: Row,
    warnings: Iterable[tuple[str, str]],
    criticals: Iterable[tuple[str, str]],
    age_max_s: float,
    nodes_only: bool = False,
) -> tuple[int, list[str]]:
    """Exit code and lines for an answer to "status". Thresholds are state and range each. Pure."""
    limits = {state: (threshold, "") for state, threshold in warnings}
    for state, threshold in criticals:
        limits[state] = (limits.get(state, ("", ""))[0], threshold)
    incidents = _incidents(document, nodes_only)
    counts = _counts(document, incidents)
    verdict = Verdict()
    for problem in _of_the_root(document):
        verdict.add(*problem)
    for code, text in _of_racks(document, age_max_s, limits, nodes_only):
        verdict.add(code, text)
    for node, trouble in troubled(document):
        verdict.add(OK if _state(trouble) in limits else code_of(trouble), _node_line(node, trouble, document))
    for state, (warning, critical) in limits.items():
        code = CRITICAL if breaches(critical, counts[state]) else WARNING if breaches(warning, counts[state]) else OK
        verdict.add(code)
    if not rows(document, "nodes"):
        verdict.add(UNKNOWN, "no node to speak of is known there")
    verdict.problems += [_incident_line(incident) for incident in incidents]
    code = gravest(verdict.codes)
    said = verdict.problems[:PROBLEMS_MAX]
    if len(verdict.problems) > PROBLEMS_MAX:
        said.append(f"and {len(verdict.problems) - PROBLEMS_MAX} more")
    head = f"HBAGENT {_NAMES[code]} - {_summary(document, counts)}"
    return code, [f"{head} | {_performance(document, counts, limits, age_max_s)}", *map(plain, said)]


def _state(trouble: str) -> str:
    """What a threshold calls one of `TROUBLES`."""
    return _NO_HEALTH if trouble == "health UNKNOWN" else trouble


def _incidents(document: Row, nodes_only: bool) -> list[Row]:
    """The incidents of the answer's racks, or of its nodes alone."""
    racks = {word(rack, "rack") for rack in rows(document, "racks")}
    named = {name for node in rows(document, "nodes") for name in node.get("incidents") or () if isinstance(name, str)}
    return [
        incident
        for incident in rows(document, "incidents")
        if (word(incident, "incident") in named if nodes_only else word(incident, "rack") in (*racks, ""))
    ]


def _counts(document: Row, incidents: Sequence[Row]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for node in rows(document, "nodes"):
        liveness = liveness_of(node)
        counts[liveness] += 1
        if liveness == Liveness.ALIVE.value:
            health = judged_health(node)
            counts[_NO_HEALTH if health == Health.UNKNOWN.value else health] += 1
            counts[DRILL] += health != health_of(node)
    counts[_DARK] = sum(state_of(rack) == RackState.DARK.value for rack in rows(document, "racks"))
    counts[_INCIDENTS] = len(incidents)
    return counts


def _of_the_root(document: Row) -> Iterator[tuple[int, str]]:
    root = row(document, "root")
    if root.get("isolated") is True:
        yield UNKNOWN, "the root hears no leader at all"
    if word(root, "degraded"):
        yield WARNING, f"the root is degraded: {word(root, 'degraded')}"


def _of_racks(
    document: Row, age_max_s: float, limits: dict[str, tuple[str, str]], nodes_only: bool
) -> Iterator[tuple[int, str]]:
    for rack in rows(document, "racks"):
        name, state, old_s = word(rack, "rack"), state_of(rack), data_age_s(rack)
        if old_s is None or old_s > age_max_s:
            yield UNKNOWN, f"{name}: its data are {f'{age(old_s)} old' if old_s is not None else 'missing'}"
        code = OK if nodes_only or (state == RackState.DARK.value and _DARK in limits) else code_of_rack(rack)
        if code != OK:
            yield code, f"{name}: rack is {state}"


def _node_line(node: Row, trouble: str, document: Row) -> str:
    now = word(row(document, "root"), "at")
    since = seconds_between(word(node, "since"), now)
    cause = f" ({word(node, 'cause')})" if word(node, "cause") else ""
    line = f"{word(node, 'node')}: {trouble}{cause}"
    found = culprit(node, drills=trouble == DRILL)
    if found is not None and trouble not in (liveness.value for liveness in Liveness):
        kind, part = found
        text = f": {word(part, 'text')}" if word(part, "text") else ""
        return f"{line} by {kind} {word(part, 'name')}{text}"
    return f"{line} for {age(since)}" if since is not None and since >= 0 else line


def _incident_line(incident: Row) -> str:
    acked = f", acknowledged by {word(incident, 'acked_by')}" if word(incident, "acked_by") else ""
    return f"incident {word(incident, 'incident')}: {word(incident, 'text')}{acked}"


def _summary(document: Row, counts: Counter[str]) -> str:
    racks, nodes = len(rows(document, "racks")), len(rows(document, "nodes"))
    worst = [_state(trouble) for trouble in TROUBLES]
    said = [f"{counts[state]} {state}" for state in worst if counts[state] and state != _NO_HEALTH]
    where = f"{nodes} node{'' if nodes == 1 else 's'} in {racks} rack{'' if racks == 1 else 's'}"
    text = f"{', '.join(said)} of {where}" if said else where
    text += f", {counts[_DARK]} dark" if counts[_DARK] else ""
    return f"{text}, {counts[_INCIDENTS]} incident{'' if counts[_INCIDENTS] == 1 else 's'}"


def _performance(document: Row, counts: Counter[str], limits: dict[str, tuple[str, str]], age_max_s: float) -> str:
    total = len(rows(document, "nodes"))
    items = [f"nodes={total};;;0"]
    for state in (Liveness.ALIVE.value, Health.OK.value, *COUNTED):
        warning, critical = limits.get(state, ("", ""))
        most = "" if state in (_DARK, _INCIDENTS) else f";{total}"
        items.append(f"{state.lower().replace('-', '_')}={counts[state]};{warning};{critical};0{most}")
    ages = [data_age_s(rack) for rack in rows(document, "racks")]
    known = [value for value in ages if value is not None]
    oldest = f"{max(known):.3f}s" if known and len(known) == len(ages) else "U"
    items.append(f"data_age={oldest};;{age_max_s:g};0")
    root = row(document, "root")
    items += [f"{name}={number(root, name) or 0:.0f};;;0" for name in ("hooks_waiting", "hooks_dead")]
    return " ".join(items)


if __name__ == "__main__":
    sys.exit(main())
