"""Asking: who is asked about a node in doubt, on which path, when, and what each answer means.

A question costs a few packets and an answer ends a doubt in a millisecond where a margin would end it in hundreds. So
the first goes out when a beat is barely late, and the rest only if that stays without an answer:

    at once       ping on the control connection, whose delivery the kernel over there must acknowledge; UDP echo
    8 ms apart    the same in turn, six in all
    with the 3rd  two neighbours of the rack and the other leaders
    afterwards    at growing distances, twice a second at the end; once a second when the cause is known

TCP is asked only when the kernel has said that a connection is gone or a port is closed, and once, unless it was taken
and closed at once as an ending process does: a stopped process's accept queue fills, and then its host looks dead.

A neighbour always reports back. One that does not is in doubt itself: so a rack that lost its power is seen as one
before its first node is called dead.

All of it is paid from one budget, a share of the beats that come in, so a storm of doubts costs no more than quiet
does; a node that could not be asked about is judged by its silence alone.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping

import msgspec

from .config import LeaderConfig
from .doubt import Doubt
from .echo import NONCE_SIZE, read_answer, request
from .effects import Ask, Effect, Send, Witness
from .member import Member
from .messages import RELAY_TIME_NS, Answered, HeardWanted, LastHeard, Ping, Pong, Relay, Relayed
from .states import Cause, Liveness, Outcome, Path
from .units import MILLISECOND, SECOND, show_duration

#: After the first round: the next question after this, then twice that...
AGAIN_MIN_NS = 50 * MILLISECOND
#: ...up to this. With the acknowledgement on its way, evidence is never older than an interval and half a second.
AGAIN_MAX_NS = 500 * MILLISECOND
#: A stopped process, or one that others hear, is asked about no more often than this.
SETTLED_NS = SECOND
#: A neighbour that has not reported back after this is asked about as well: its own time, and a way there and back.
REPORT_NS = RELAY_TIME_NS + 60 * MILLISECOND
#: An ending process may take a connection and close it; its port is refused as soon as it has ended.
TCP_TRIES_MAX = 4
#: An agent knows its key once it was admitted, so its echo is tried so much later; a failure is tried again.
CHECK_AFTER_NS = 100 * MILLISECOND
CHECK_RETRY_NS = 500 * MILLISECOND
#: UDP questions to a closed port: Linux stops refusing after six.
REFUSED_UDP_MAX = 3
#: Questions refilled each second whatever the beats, so that a rack of four can be asked about at all: a vanished
#: host takes some thirty.
REFILL_MIN = 20
#: Nodes that are looked at to find a neighbour who lives: in a dark rack of thousands there is none.
NEIGHBOURS_TRIED_MAX = 100
#: Questions granted for a node that is asked anew: eight rounds of a doubt, to its end a second or two later.
ANEW_GRANT = 20
#: Questions under way. Each ends within a second but for pings, which end with their doubt.
QUESTIONS_MAX = 4096
#: ...and about one node: a doubt may last for days, and whoever never answers must not fill the table.
QUESTIONS_PER_NODE_MAX = 64


class _Question(msgspec.Struct, frozen=True, gc=False):
    """Something that was asked and not answered yet."""

    member: Member
    path: Path
    asked_at: int
    nonce: bytes = b""
    #: Neighbour or leader that was asked; "" for the node itself.
    helper: str = ""
    #: A trial of the echo path and no doubt.
    check: bool = False


class Proof(msgspec.Struct, frozen=True, gc=False):
    """The node itself answered: it lived at `at`."""

    member: Member
    at: int
    incarnation: int
    sequence: int
    path: Path


class Inquiry:
    """All asking of one leader. Orders gather in `effects`, which the leader takes after each call."""

    def __init__(self, config: LeaderConfig, rng: random.Random, members: Mapping[str, Member]) -> None:
        self._config = config
        self._rng = rng
        self._members = members
        self.effects: list[Effect] = []
        self._number = 0
        self._questions: dict[int, _Question] = {}
        #: (when, tie, node): next question of a doubt.
        self._rounds: list[tuple[int, int, str]] = []
        #: (when, tie, node): next trial of an echo path.
        self._checks: list[tuple[int, int, str]] = []
        #: (when, number): by then a neighbour has reported back.
        self._reports: list[tuple[int, int]] = []
        self._tie = 0
        self._tokens = config.ask_burst
        self.doubts = 0
        self.asked = 0
        self.cleared = 0
        #: Questions that the budget did not allow.
        self.unasked = 0

    def reconfigure(self, config: LeaderConfig) -> None:
        """Ask by other settings from now on."""
        self._config = config
        self._tokens = min(self._tokens, config.ask_burst)

    def take(self) -> list[Effect]:
        """The orders that have gathered."""
        effects, self.effects = self.effects, []
        return effects

    # ---- when --------------------------------------------------------------------------------------------

    def deadline(self) -> int | None:
        """When `wake` has something to do."""
        # Asked at every turn of the loop, mostly for nothing: a list of three would be half of its cost.
        at = self._rounds[0][0] if self._rounds else None
        if self._checks and (at is None or self._checks[0][0] < at):
            at = self._checks[0][0]
        if self._reports and (at is None or self._reports[0][0] < at):
            at = self._reports[0][0]
        return at

    def wake(self, now: int) -> list[str]:
        """Ask whoever's turn it is; returns the neighbours that did not report back."""
        mute = []
        while self._reports and self._reports[0][0] <= now:
            question = self._questions.pop(heapq.heappop(self._reports)[1], None)
            if question is not None:
                mute.append(question.helper)
                doubt = question.member.doubt
                if doubt is not None:
                    doubt.step(now, f"{question.helper.rpartition('/')[2]} did not report back")
        while self._rounds and self._rounds[0][0] <= now:
            member = self._members.get(heapq.heappop(self._rounds)[2])
            if member is not None and member.doubt is not None and now >= member.ask_at > 0:
                self._round(member, member.doubt, now)
        while self._checks and self._checks[0][0] <= now:
            member = self._members.get(heapq.heappop(self._checks)[2])
            if member is not None and now >= member.check_at > 0:
                self._check(member, now)
        return mute

    def refill(self, beats: int) -> None:
        """Once a second: `beats` came in since the last time."""
        self._tokens = min(self._config.ask_burst, self._tokens + REFILL_MIN + int(beats * self._config.ask_share))

    # ---- a doubt -----------------------------------------------------------------------------------------

    def begin(self, member: Member, doubt: Doubt, now: int) -> None:
        """A node is in doubt."""
        self.doubts += 1
        if self._config.doubt:
            self._round(member, doubt, now)

    def ask_anew(self, member: Member, doubt: Doubt, now: int) -> None:
        """Its rack was dark and is heard again, and this node is not yet: what it was asked before counts no more.

        Silence has filled no budget meanwhile, so the first questions are granted.
        """
        self.end(member)
        doubt.ask_anew(now)
        if self._config.doubt:
            self._tokens = min(self._config.ask_burst, self._tokens + ANEW_GRANT)
            member.ask_at = now
            self._tie += 1
            heapq.heappush(self._rounds, (now, self._tie, member.name))

    def closed(self, member: Member, doubt: Doubt, now: int) -> None:
        """The kernel closed the node's control connection: ask at once whether anybody still listens there."""
        if doubt.closed:
            return
        doubt.closed = True
        doubt.closed_at = now
        doubt.step(now, "its control connection was closed")
        _convict(member, doubt)
        if self._config.doubt:
            self._ask_tcp(member, doubt, now)

    def end(self, member: Member) -> None:
        """The doubt is over; what is still under way about it answers nothing."""
        member.ask_at = 0
        for number in member.questions:
            self._questions.pop(number, None)
        member.questions.clear()

    def _round(self, member: Member, doubt: Doubt, now: int) -> None:
        number = doubt.pings
        doubt.pings += 1
        config = self._config
        cause = doubt.cause(member.interval_ns + config.host_gone_slack_ns)
        first = number < config.pings
        if number % 2 == 0 or not first:
            self._ask_control(member, doubt, now)
        if cause is not Cause.PROCESS_FROZEN and (number % 2 == 1 or number == 0 or not first):
            self._ask_udp(member, doubt, now)
        if cause is not Cause.PROCESS_FROZEN and (number == 2 or not first):
            self._ask_helpers(member, doubt, now)
        if doubt.closed:
            self._ask_tcp(member, doubt, now)
        wait = config.ping_spacing_ns
        if number + 1 >= config.pings:
            wait = min(AGAIN_MIN_NS << min(number + 1 - config.pings, 8), AGAIN_MAX_NS)
            if cause is not Cause.SILENCE or member.cause is Cause.RACK_DARK:
                wait = max(wait, SETTLED_NS)
        member.ask_at = now + wait
        self._tie += 1
        heapq.heappush(self._rounds, (member.ask_at, self._tie, member.name))

    def _ask_control(self, member: Member, doubt: Doubt, now: int) -> None:
        if not member.address:
            return
        number = self._question(_Question(member, Path.KERNEL, now))
        if not number:
            return
        doubt.unanswered += 1
        self.effects += (Witness(member.name, number), Send(member.name, Ping(number=number)))
        if doubt.pings == 1:
            doubt.step(now, "asked on its control connection")

    def _ask_udp(self, member: Member, doubt: Doubt, now: int) -> None:
        if not member.echo_port or not member.echo_key or doubt.refused_udp >= REFUSED_UDP_MAX:
            return
        if self._ask_echo(member, Path.UDP, now):
            doubt.unanswered += 1
            if doubt.pings == 1:
                doubt.step(now, f"asked its echo port {member.echo_port}/udp")

    def _ask_tcp(self, member: Member, doubt: Doubt, now: int) -> None:
        frozen = doubt.acked_at is not None and not doubt.closed
        if not doubt.tcp_open or frozen or not member.echo_port or not member.echo_key:
            return
        if self._ask_echo(member, Path.TCP, now):
            doubt.tcp_tries += 1
            doubt.tcp_open = False
            if doubt.tcp_tries == 1:
                doubt.step(now, f"asked its echo port {member.echo_port}/tcp")

    def _ask_echo(self, member: Member, path: Path, now: int, check: bool = False) -> bool:
        if not member.address:
            return False
        nonce = self._nonce()
        number = self._question(_Question(member, path, now, nonce, "", check))
        if number:
            data = request(member.echo_key, nonce)
            self.effects.append(Ask(member.name, number, path, member.address, member.echo_port, data))
        return number > 0

    def _ask_helpers(self, member: Member, doubt: Doubt, now: int) -> None:
        asked = [leader for leader in self._config.peers if self._ask_leader(member, leader, now)]
        if member.echo_port and member.echo_key and member.address:
            asked += [n.short for n in self._neighbours(member) if self._ask_neighbour(member, n, now)]
        if asked and not doubt.helpers:
            doubt.step(now, f"asked {', '.join(asked)} about it")
        doubt.helpers += len(asked)

    def _ask_leader(self, member: Member, leader: str, now: int) -> bool:
        number = self._question(_Question(member, Path.LEADER, now, b"", leader))
        if number:
            self.effects.append(Send(leader, HeardWanted(number=number, node=member.name)))
        return number > 0

    def _ask_neighbour(self, member: Member, neighbour: Member, now: int) -> bool:
        nonce = self._nonce()
        number = self._question(_Question(member, Path.NEIGHBOUR, now, nonce, neighbour.name))
        if number:
            data = request(member.echo_key, nonce)
            relay = Relay(number=number, address=member.address, port=member.echo_port, request=data)
            self.effects.append(Send(neighbour.name, relay))
            heapq.heappush(self._reports, (now + REPORT_NS, number))
            if member.doubt is not None:
                member.doubt.neighbours += 1
        return number > 0

    def _neighbours(self, member: Member) -> list[Member]:
        """Living nodes of the same rack, from a random place on: a fixed choice would wear two of them out."""
        nodes = self._config.racks.get(member.rack, ())
        found: list[Member] = []
        start = self._rng.randrange(len(nodes)) if nodes else 0
        for offset in range(min(len(nodes), NEIGHBOURS_TRIED_MAX)):
            if len(found) >= self._config.neighbours:
                break
            other = self._members.get(nodes[(start + offset) % len(nodes)])
            if other is None or other is member or other.liveness is not Liveness.ALIVE or other.doubt is not None:
                continue
            if other.address:
                found.append(other)
        return found

    def _nonce(self) -> bytes:
        return self._rng.getrandbits(8 * NONCE_SIZE).to_bytes(NONCE_SIZE, "big")

    def _question(self, question: _Question) -> int:
        """Its number; 0 when the budget does not allow it. Trials pay nothing: they are two in half an hour."""
        if (self._tokens < 1 and not question.check) or len(self._questions) >= QUESTIONS_MAX:
            self.unasked += 1
            return 0
        if not question.check:
            self._tokens -= 1
        self.asked += 1
        self._number += 1
        self._questions[self._number] = question
        if not question.check:
            numbers = question.member.questions
            numbers.append(self._number)
            if len(numbers) > QUESTIONS_PER_NODE_MAX:
                for number in numbers[: QUESTIONS_PER_NODE_MAX // 2]:
                    self._questions.pop(number, None)
                del numbers[: QUESTIONS_PER_NODE_MAX // 2]
        return self._number

    # ---- whether the echo path works ---------------------------------------------------------------------

    def check_soon(self, member: Member, now: int) -> None:
        """The node was admitted: find out whether its echo port can be reached from here, in this incarnation."""
        if self._config.doubt and member.echo_port:
            self._check_later(member, now, CHECK_AFTER_NS)
            member.check_wait_ns = CHECK_RETRY_NS

    def _check_later(self, member: Member, now: int, wait_ns: int) -> None:
        # After a restart of the leader everybody is admitted at once: a hundred a second are tried.
        spread = min(wait_ns, len(self._members) * 10 * MILLISECOND) + 1
        member.check_at = now + wait_ns + self._rng.randrange(spread)
        self._tie += 1
        heapq.heappush(self._checks, (member.check_at, self._tie, member.name))

    def _check(self, member: Member, now: int) -> None:
        member.check_at = 0
        if member.doubt is not None:
            self._check_later(member, now, CHECK_RETRY_NS)
            return
        if member.echo_key:
            self._ask_echo(member, Path.UDP, now, check=True)
        self._check_later(member, now, member.check_wait_ns)
        member.check_wait_ns = min(2 * member.check_wait_ns, self._config.echo_check_ns)

    def _checked(self, question: _Question, answered: Answered, now: int) -> None:
        """UDP first, and TCP only of a node that answers or is being heard: one that stands still must not be asked
        by TCP for nothing, and some networks let no UDP through."""
        member = question.member
        found = None
        if answered.outcome is Outcome.ANSWERED:
            found = read_answer(answered.data, member.echo_key, question.nonce)
        if question.path is Path.TCP:
            member.tcp_proved = None if found is None else found[0]
        else:
            member.udp_proved = None if found is None else found[0]
        if found is not None and found[0] == member.order.incarnation:
            member.answered_at = max(member.answered_at, question.asked_at)
        if question.path is Path.UDP:
            if found is not None or (member.liveness is Liveness.ALIVE and member.doubt is None):
                self._ask_echo(member, Path.TCP, now, check=True)
            return
        if found is None:
            return
        # Both work: there is no hurry until the next regular trial.
        member.check_wait_ns = self._config.echo_check_ns
        self._check_later(member, now, member.check_wait_ns)

    # ---- answers -----------------------------------------------------------------------------------------

    def answered(self, answered: Answered, now: int) -> Proof | None:
        """An own question came back. The proof of life in it, if it is one; other evidence goes into the doubt."""
        question = self._questions.get(answered.number)
        if question is None or question.member.name != answered.peer or question.path is not answered.path:
            return None
        # A ping may arrive although nobody could watch its delivery: on a connection that is just being made.
        if answered.path is not Path.KERNEL or answered.outcome not in (Outcome.ACKED, Outcome.UNSENT):
            del self._questions[answered.number]
        if question.check:
            self._checked(question, answered, now)
            return None
        member, doubt = question.member, question.member.doubt
        if doubt is None:
            return None
        if answered.path is Path.KERNEL:
            self._witnessed(member, doubt, answered.outcome, question.asked_at, now)
            return None
        if answered.outcome is Outcome.ANSWERED:
            return self._proof(question, answered.data)
        self._not_answered(member, doubt, answered, now)
        return None

    def _witnessed(self, member: Member, doubt: Doubt, outcome: Outcome, asked_at: int, now: int) -> None:
        if outcome is Outcome.ACKED:
            if doubt.acked(asked_at):
                doubt.step(now, "its kernel acknowledged the question; its agent has not answered")
        elif outcome is Outcome.CLOSED:
            self.closed(member, doubt, now)
        elif outcome is Outcome.SILENT:
            if doubt.kernel_failed_at <= (doubt.acked_at or 0):
                doubt.step(now, "its kernel has not acknowledged the question")
                if doubt.acked_at is not None:
                    self._hurry(member, doubt, now)
            doubt.kernel_failed_at = max(doubt.kernel_failed_at, asked_at)

    def _failed_elsewhere(self, member: Member, doubt: Doubt, asked_at: int, now: int) -> None:
        """Somebody else found nothing. Where others knew better until now, by then its last sign is as old as one that
        its host is gone by: the word of one, while others are still being asked, must not be all that it dies of."""
        fresh_ns = member.interval_ns + self._config.host_gone_slack_ns
        known = doubt.cause(fresh_ns) is Cause.LINK_CUT
        doubt.elsewhere_failed_at = max(doubt.elsewhere_failed_at, asked_at)
        if known and doubt.cause(fresh_ns) is Cause.SILENCE:
            doubt.judge_from = now + self._config.pings * self._config.ping_spacing_ns + REPORT_NS
            self._hurry(member, doubt, now)

    def _hurry(self, member: Member, doubt: Doubt, now: int) -> None:
        """What was known of a silent node holds no longer: ask as one asks about a new doubt."""
        doubt.pings = 0
        self._round(member, doubt, now)

    def _not_answered(self, member: Member, doubt: Doubt, answered: Answered, now: int) -> None:
        outcome, tcp = answered.outcome, answered.path is Path.TCP
        where = f"{member.echo_port}/{answered.path.value}"
        if outcome is Outcome.REFUSED:
            if tcp or not doubt.refused_udp:
                doubt.step(now, f"its host is up and refuses {where}: nobody listens there")
            doubt.refused_tcp |= tcp
            doubt.refused_udp += not tcp
            _convict(member, doubt)
            if not tcp:
                self._ask_tcp(member, doubt, now)
        elif tcp and outcome is Outcome.CLOSED:
            doubt.step(now, f"{where} was taken and closed without an answer")
            doubt.tcp_open = doubt.tcp_tries < TCP_TRIES_MAX
            if doubt.tcp_tries == 1:
                self._ask_tcp(member, doubt, now)
        elif tcp and outcome is Outcome.UNSENT:
            doubt.tcp_open = doubt.tcp_tries < TCP_TRIES_MAX
        elif tcp:
            doubt.step(now, f"nothing came back from {where}")

    def _proof(self, question: _Question, data: bytes) -> Proof | None:
        found = read_answer(data, question.member.echo_key, question.nonce)
        if found is None or found[0] != question.member.order.incarnation:
            return None
        return Proof(question.member, question.asked_at, found[0], found[1], question.path)

    def pong(self, sender: str, pong: Pong) -> Proof | None:
        """The agent answered on the control path."""
        question = self._questions.get(pong.number)
        if question is None or question.member.name != sender or question.path is not Path.KERNEL:
            return None
        if pong.incarnation != question.member.order.incarnation:
            return None
        return Proof(question.member, question.asked_at, pong.incarnation, pong.sequence, Path.CONTROL)

    def relayed(self, sender: str, relayed: Relayed, now: int) -> Member | None:
        """A neighbour reports; returns the node about which something is known by it."""
        question = self._questions.get(relayed.number)
        if question is None or question.helper != sender or question.path is not Path.NEIGHBOUR:
            return None
        del self._questions[relayed.number]
        member, doubt = question.member, question.member.doubt
        if doubt is None:
            return None
        doubt.replies += 1
        short = sender.rpartition("/")[2]
        if relayed.outcome is not Outcome.ANSWERED or self._proof(question, relayed.answer) is None:
            doubt.step(now, f"{short} got nothing from it: {relayed.outcome.value}")
            # A host that refuses is there; and an answer that is none was made up.
            doubt.confirmed += relayed.outcome in (Outcome.SILENT, Outcome.CLOSED)
            if relayed.outcome is not Outcome.UNSENT:
                self._failed_elsewhere(member, doubt, question.asked_at, now)
            return None
        if doubt.heard_elsewhere(short, question.asked_at):
            doubt.step(now, f"{short} got an answer from it")
        return member

    def last_heard(self, sender: str, heard: LastHeard, now: int) -> Member | None:
        """Another leader says when it heard the node; returns the node about which something is known by it."""
        question = self._questions.get(heard.number)
        if question is None or question.helper != sender or question.path is not Path.LEADER:
            return None
        del self._questions[heard.number]
        member, doubt = question.member, question.member.doubt
        if doubt is None or heard.node != member.name:
            return None
        if heard.age_ns is None:
            doubt.step(now, f"{sender} has never heard it")
            return None
        later = heard.incarnation == member.order.incarnation and (heard.sequence or 0) > member.order.sequence
        # A leader that has never heard the node could say nothing of it.
        doubt.confirmed += not later
        if not later or heard.age_ns > member.interval_ns + self._config.host_gone_slack_ns:
            self._failed_elsewhere(member, doubt, question.asked_at, now)
        if later and doubt.heard_elsewhere(sender, max(question.asked_at - heard.age_ns, doubt.since + 1)):
            doubt.step(now, f"{sender} heard it {show_duration(heard.age_ns)} before it was asked")
        elif not later and doubt.helpers <= len(self._config.peers) + self._config.neighbours:
            doubt.step(now, f"{sender} has heard nothing later either")
        return member


def _convict(member: Member, doubt: Doubt) -> None:
    """A closed connection, and nobody who listens where this very life of the agent once answered: it has ended.

    By UDP as well, where that worked: a firewall that answers for a host with resets does so for TCP.
    """
    proved = member.tcp_proved is not None and member.tcp_proved == member.order.incarnation
    refused = doubt.refused_tcp and (doubt.refused_udp > 0 or member.udp_proved != member.order.incarnation)
    doubt.exited = doubt.closed and refused and proved
