"""What a message must hold beyond its types, before any core sees it.

The schema says "an integer"; a rule says "a page below the number of pages". Two kinds of rule are kept here: names
fit the grammar of `core.names`, so that none can hold a path, an escape sequence or a shell character; and numbers
that an ordering, a division or a buffer rests on are in range. What a peer may merely lie about, such as its own
age or lag, is no rule's business: refusing a rack's whole summary for one odd duration would cost more than it saves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from hbagent.core import messages as m
from hbagent.core.echo import FRAME_SIZE
from hbagent.core.names import is_node, is_part, is_rack

#: Pages of one summary. A page holds over 90 nodes, so this is a rack of some 90,000.
PAGES_MAX = 1024
#: Slice of an evidence bundle in one page: half a frame, as of every page.
EVIDENCE_BODY_MAX = 32 * 1024
#: A version, a boot id, a reason: kept by the receiver for each peer, so a peer must not choose how much.
WORD_LENGTH_MAX = 256
#: Why an operator wants something: a few sentences, kept and shown as they are.
REASON_LENGTH_MAX = 1000
#: Globs of one kind in an order, and characters of each; the root takes no more of them anyway.
ORDER_GLOBS_MAX = 256
#: Numeric IPv4 or IPv6, with a zone at most; what it stands for is the socket's to judge.
_ADDRESS = re.compile(r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|(?=[^%]*:)[0-9a-fA-F:.]{2,45}(?:%[A-Za-z0-9._-]{1,15})?)")
#: Length of an agreed key for signed echo requests.
ECHO_KEY_SIZE = 32


def broken(message: Any) -> str:
    """Which rule a decoded message breaks, for a log; "" when none. Total: never raises for a `WireMessage`."""
    return _RULES[type(message)](message)


def _negative(*numbers: int | None) -> bool:
    return any(number is not None and number < 0 for number in numbers)


def _infinite(numbers: Iterable[float | None]) -> bool:
    return any(number is not None and not math.isfinite(number) for number in numbers)


def _hello(hello: m.Hello) -> str:
    if _negative(hello.incarnation, hello.reads):
        return "negative incarnation or minor"
    if hello.interval_ns <= 0:
        return "interval is not above 0"
    if not 0 <= hello.echo_port <= 65535:
        return "echo port outside 0 to 65535"
    if not 0 <= hello.protocol_low <= hello.protocol_high:
        return "protocol range is empty"
    if max(len(hello.version), len(hello.boot_id)) > WORD_LENGTH_MAX:
        return f"version or boot id over {WORD_LENGTH_MAX} characters"
    return ""


def _admission(admission: m.Admission) -> str:
    if _negative(admission.epoch, admission.protocol, admission.reads):
        return "negative epoch, protocol or minor"
    if len(admission.echo_key) not in (0, ECHO_KEY_SIZE):
        return f"echo key has not {ECHO_KEY_SIZE} bytes"
    if len(admission.reason) > WORD_LENGTH_MAX:
        return f"reason over {WORD_LENGTH_MAX} characters"
    return ""


def _farewell(farewell: m.Farewell) -> str:
    return "negative incarnation or sequence" if _negative(farewell.incarnation, farewell.sequence) else ""


def _farewell_ack(ack: m.FarewellAck) -> str:
    return "negative incarnation" if _negative(ack.incarnation) else ""


def _ping(ping: m.Ping) -> str:
    return "negative number" if _negative(ping.number) else ""


def _pong(pong: m.Pong) -> str:
    return "negative number, incarnation or sequence" if _negative(pong.number, pong.incarnation, pong.sequence) else ""


def _relay(relay: m.Relay) -> str:
    if _negative(relay.number):
        return "negative number"
    if not 1 <= relay.port <= 65535:
        return "port outside 1 to 65535"
    if not _ADDRESS.fullmatch(relay.address):
        return "address is not a numeric IP address"
    if len(relay.request) != FRAME_SIZE:
        return f"request has not {FRAME_SIZE} bytes"
    return ""


def _relayed(relayed: m.Relayed) -> str:
    if _negative(relayed.number):
        return "negative number"
    return f"answer has not {FRAME_SIZE} bytes" if len(relayed.answer) not in (0, FRAME_SIZE) else ""


def _heard_wanted(wanted: m.HeardWanted) -> str:
    if not is_node(wanted.node):
        return "node is not a name"
    return "negative number or minor" if _negative(wanted.number, wanted.reads) else ""


def _last_heard(heard: m.LastHeard) -> str:
    if not is_node(heard.node):
        return "node is not a name"
    numbers = (heard.number, heard.age_ns, heard.incarnation, heard.sequence, heard.reads)
    return "negative number, age, incarnation, sequence or minor" if _negative(*numbers) else ""


def _account_wanted(wanted: m.AccountWanted) -> str:
    return "negative number or time" if _negative(wanted.number, wanted.since_ns) else ""


def _account(account: m.Account) -> str:
    numbers = (account.number, account.incarnation, account.covered_ns, account.loop_gap_max_ns, account.loop_gap_ns)
    more = (account.run_delay_ns, account.throttled_ns, account.suspended_ns, account.beats, account.links_lost)
    return "a negative count or duration" if _negative(*numbers, *more) else ""


def _evidence_wanted(wanted: m.EvidenceWanted) -> str:
    if not is_node(wanted.node):
        return "node is not a name"
    if max(len(wanted.app), len(wanted.bundle)) > WORD_LENGTH_MAX:
        return f"app or bundle over {WORD_LENGTH_MAX} characters"
    return "negative number" if _negative(wanted.number) else ""


def _evidence_page(page: m.EvidencePage) -> str:
    if not is_node(page.node):
        return "node is not a name"
    if len(page.body) > EVIDENCE_BODY_MAX:
        return f"body over {EVIDENCE_BODY_MAX} bytes"
    return "negative number or page" if _negative(page.number, page.page) else ""


def _drill_wanted(wanted: m.DrillWanted) -> str:
    if not is_node(wanted.node):
        return "node is not a name"
    if max(len(wanted.drill), len(wanted.app)) > WORD_LENGTH_MAX:
        return f"drill or app over {WORD_LENGTH_MAX} characters"
    return "negative number" if _negative(wanted.number) else ""


def _drill_begun(begun: m.DrillBegun) -> str:
    if not is_node(begun.node):
        return "node is not a name"
    return "negative number" if _negative(begun.number) else ""


def _report_wanted(wanted: m.ReportWanted) -> str:
    return "negative digest" if _negative(wanted.have) else ""


def _report(report: m.Report) -> str:
    if _negative(report.incarnation):
        return "negative incarnation"
    if report.number < 1:
        return "report number is not above 0"
    if report.facts is not None and _infinite(_measures(report.facts)):
        return "a fact is not a finite number"
    for probe in report.probes:
        if _infinite(number for measure in probe.measures for number in (measure.value, measure.least, measure.most)):
            return "a measure is not a finite number"
    if any(len(app.details) > m.DETAILS_MAX for app in report.apps):
        return f"an app has over {m.DETAILS_MAX} details"
    return "negative window" if _negative(report.window_ns) else ""


def _measures(facts: m.HostFacts) -> Iterable[float | None]:
    yield from (facts.cpu_percent, facts.load_1m, facts.memory_used_percent, facts.swap_used_percent)
    yield from (facts.psi_cpu, facts.psi_memory, facts.psi_io)
    yield from (disk.used_percent for disk in facts.disks)


def _rack_summary(summary: m.RackSummary) -> str:
    if not is_rack(summary.rack):
        return "rack is not a name"
    if _negative(summary.epoch, summary.number, summary.newest, summary.reads):
        return "negative epoch, number, newest or minor"
    if not 0 <= summary.page < summary.pages <= PAGES_MAX:
        return f"page {summary.page} of {summary.pages}"
    for row in summary.nodes:
        if not is_part(row.node):
            return "a node is not a name"
        if (row.incarnation or 0) < 0 or (row.sequence or 0) < 0 or row.version < 0:
            return "a node has a negative incarnation, sequence or version"
    return ""


def _rack_reports(reports: m.RackReports) -> str:
    if not is_rack(reports.rack):
        return "rack is not a name"
    if _negative(reports.epoch):
        return "negative epoch"
    for item in reports.reports:
        if not is_part(item.node):
            return "a node is not a name"
        if len(item.version) > WORD_LENGTH_MAX:
            return f"a version over {WORD_LENGTH_MAX} characters"
        fault = _report(item.report)
        if fault:
            return fault
    return ""


def _transitions(transitions: m.Transitions) -> str:
    if _negative(transitions.epoch, transitions.base, transitions.after, transitions.present):
        return "negative epoch, base, after or present"
    newest = transitions.after
    for item in transitions.items:
        if item.number <= newest:
            return "transition numbers do not rise"
        if not is_node(item.node):
            return "a node is not a name"
        if _negative(item.incarnation, item.sequence):
            return "a transition has a negative incarnation or sequence"
        if len(item.evidence.steps) > m.STEPS_MAX:
            return f"a transition has over {m.STEPS_MAX} steps"
        if len(item.evidence.changes) > m.CHANGES_MAX:
            return f"a transition has over {m.CHANGES_MAX} changes"
        if any(len(change.details) > m.DETAILS_MAX for change in item.evidence.changes):
            return f"a change has over {m.DETAILS_MAX} details"
        if _negative(item.report):
            return "negative report number"
        newest = item.number
    return ""


def _transitions_ack(ack: m.TransitionsAck) -> str:
    return "negative epoch or number" if _negative(ack.epoch, ack.number) else ""


def _welcome(welcome: m.Welcome) -> str:
    if len(welcome.version) > WORD_LENGTH_MAX:
        return f"version over {WORD_LENGTH_MAX} characters"
    return "negative minor" if _negative(welcome.reads) else ""


def _query(query: m.Query) -> str:
    if query.node and not is_node(query.node):
        return "node is not a name"
    if query.rack and not is_rack(query.rack):
        return "rack is not a name"
    words = (query.what, query.app, query.bundle, query.drill, query.event, query.incident, query.life)
    if max(map(len, words)) > WORD_LENGTH_MAX:
        return f"a word over {WORD_LENGTH_MAX} characters"
    return "negative id, limit or after" if _negative(query.id, query.limit, query.after) else ""


def _order(order: m.Order) -> str:
    if max(len(order.what), len(order.target), len(order.every)) > WORD_LENGTH_MAX:
        return f"a word over {WORD_LENGTH_MAX} characters"
    if len(order.reason) > REASON_LENGTH_MAX:
        return f"reason over {REASON_LENGTH_MAX} characters"
    for globs in (order.nodes, order.racks, order.causes, order.kinds):
        if len(globs) > ORDER_GLOBS_MAX or any(len(glob) > WORD_LENGTH_MAX for glob in globs):
            return f"over {ORDER_GLOBS_MAX} globs, or one over {WORD_LENGTH_MAX} characters"
    numbers = (order.id, order.begins_wall_ns, order.ends_wall_ns, order.length_ns)
    return "negative id, time or length" if _negative(*numbers) else ""


def _answer_page(page: m.AnswerPage) -> str:
    return "negative id or page" if _negative(page.id, page.page) else ""


_RULES: dict[type, Callable[[Any], str]] = {
    m.Hello: _hello,
    m.Admission: _admission,
    m.Farewell: _farewell,
    m.FarewellAck: _farewell_ack,
    m.EvidenceWanted: _evidence_wanted,
    m.EvidencePage: _evidence_page,
    m.DrillWanted: _drill_wanted,
    m.DrillBegun: _drill_begun,
    m.ReportWanted: _report_wanted,
    m.Ping: _ping,
    m.Pong: _pong,
    m.Relay: _relay,
    m.Relayed: _relayed,
    m.HeardWanted: _heard_wanted,
    m.LastHeard: _last_heard,
    m.AccountWanted: _account_wanted,
    m.Account: _account,
    m.Report: _report,
    m.RackSummary: _rack_summary,
    m.RackReports: _rack_reports,
    m.Transitions: _transitions,
    m.TransitionsAck: _transitions_ack,
    m.Welcome: _welcome,
    m.Query: _query,
    m.Order: _order,
    m.AnswerPage: _answer_page,
}
