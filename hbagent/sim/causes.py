"""What a verdict may claim, and what must be claimed: each cause of a leader's verdicts against the truth.

A cause is a statement about the world, so it can be false. Here the other side of each is known: which process ran,
which kernel was there, which way was clear, which question came back with which answer.

    cause         no cause is claimed against the truth, and none without the evidence that it stands for
    frozen        a process that is held still on a reachable host is not DEAD before `dead_after`
    askable       nobody is suspected whose process runs and could have been asked
    dark          nobody is DEAD alone who fell silent together with most of the rack
    mass          nor are many of a rack at once, before the rack has been given time
    prompt        what can be known at once is told at once: an end, a host that is gone, a process held still
    anew          whose rack was dark and is heard again is asked once more, and given time, before it is DEAD
    asks          questions stay within their budget; TCP and closed ports are asked a few times and no more
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hbagent.core.effects import Ask, Happened
from hbagent.core.messages import Answered, Beat, HeardWanted, LastHeard, Ping, Pong, Relay
from hbagent.core.states import Cause, Kind, Liveness, Outcome, Path
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.wire import beat as beat_wire

from .host import FAR, Host

if TYPE_CHECKING:
    from .asking import Question
    from .network import Route
    from .scenario import Scenario
    from .world import World

#: From a kill to DEAD(process-exit), where the way is clear and the echo path was proved.
EXIT_NS = 50 * MILLISECOND
#: From the end of a host's time to DEAD(host-gone): how long the last question may take.
GONE_SLACK_NS = 150 * MILLISECOND
#: From a stop to SUSPECT(process-frozen), beyond an interval and the largest margin: one more question.
FROZEN_SLACK_NS = 1250 * MILLISECOND
#: Whoever has run, and could be reached, for so long has been asked and has had the time to answer.
ASKABLE_NS = 600 * MILLISECOND
#: Evidence about a node whose cause is known is sought once a second, and looked at for a quarter more.
EVIDENCE_NS = 2 * SECOND
#: What a question of another leader's, or of a neighbour's, may be late.
RELAYED_NS = 250 * MILLISECOND
#: Nodes that fall silent within this fall silent together.
TOGETHER_NS = 200 * MILLISECOND
#: Many: more than this share of a rack, and more than so many.
MASS_SHARE = 0.3
MASS_MIN = 3
#: What happened in a rack so long before may have used up the patience that its leader has with it.
QUIET_NS = 30 * SECOND
#: TCP questions to one stopped process of one leader: its doubt's, one that a lost connection makes, and a trial
#: that was under way.
TCP_ASKS = 3
#: Refusals of UDP that one ended process makes to one leader in `EVIDENCE_NS`, no more than its kernel grants: three
#: for each doubt, and trials.
UDP_REFUSALS = 6
#: Pings of one leader to one node of which an answer may still come.
PINGS_KEPT = 100
#: Questions to the node itself before it is called dead after its rack came back, and those granted for them.
ANEW_ASKS = 3
ANEW_GRANT = 20
#: Questions a second that the budget gives to leaders of a few nodes, whatever their beats.
REFILL = 21

Violate = Callable[[int, str, str], None]
Spans = Iterable[list[int]]
_DEAD, _SUSPECT, _ALIVE = Liveness.DEAD.value, Liveness.SUSPECT.value, Liveness.ALIVE.value


class Record:
    """What one leader can know of one node by asking, and what it said of it."""

    __slots__ = (
        "acked_at",
        "answered_at",
        "asked_at",
        "pings",
        "promises",
        "proved_life",
        "refused",
        "tcp_asked",
        "tcp_proved_life",
        "told",
        "vouched_at",
    )

    def __init__(self) -> None:
        self.forget()
        #: (instant, liveness, cause) of each verdict.
        self.told: list[tuple[int, str, Cause | None]] = []
        #: (what, begin, due) of what must be told.
        self.promises: list[tuple[Cause, int, int]] = []

    def forget(self) -> None:
        """Another life of the leader."""
        #: Which life of the node's process its echo port answered for, over any path and over TCP.
        self.proved_life = -1
        self.tcp_proved_life = -1
        #: When the leader last got an acknowledgement, an answer, or somebody else's word.
        self.acked_at = self.answered_at = self.vouched_at = -FAR
        #: When its newest pings were sent, by their numbers.
        self.pings: dict[int, int] = {}
        #: Its newest questions to the node itself.
        self.asked_at: deque[int] = deque(maxlen=ANEW_ASKS)
        #: (begin, count) of TCP questions within a pause, and of refusals of late.
        self.tcp_asked = (-1, 0)
        self.refused = (-1, 0)


class Claims:
    """Watches causes. The checker hands on what it hears."""

    def __init__(self, scenario: Scenario, world: World, violate: Violate) -> None:
        self._scenario = scenario
        self._world = world
        self._violate = violate
        self._records: dict[tuple[str, str], Record] = {}
        #: Questions of each leader's present life, and those granted to it.
        self._asked: dict[str, int] = {}
        self._granted: dict[str, int] = {}
        #: Since when (leader, rack) that was dark to it is not any more; None while it is.
        self._lit_at: dict[tuple[str, str], int | None] = {}

    def record(self, leader: str, node: str) -> Record:
        """What `leader` knows of `node`."""
        key = (leader, node)
        found = self._records.get(key)
        if found is None:
            found = self._records[key] = Record()
        return found

    def started(self, host: Host) -> None:
        """A leader's process started: it has asked nobody yet."""
        self._asked[host.name] = self._granted[host.name] = 0
        self._lit_at = {key: at for key, at in self._lit_at.items() if key[0] != host.name}
        for route in host.routes_in:
            record = self._records.get((host.name, route.client.name))
            if record is not None:
                record.forget()

    # ---- questions and answers ---------------------------------------------------------------------------

    def asked(self, at: int, host: Host, peer: str, message: object) -> None:
        """A leader sends a message; those that ask about a node are paid from its budget."""
        if isinstance(message, (Ping, Relay, HeardWanted)):
            self._pay(at, host)
        if isinstance(message, Ping):
            record = self.record(host.name, peer)
            record.asked_at.append(at)
            record.pings[message.number] = at
            if len(record.pings) > PINGS_KEPT:
                del record.pings[next(iter(record.pings))]

    def echo_asked(self, at: int, host: Host, order: Ask) -> None:
        """An echo request leaves."""
        if host.role != "leader":
            return
        self._pay(at, host)
        self.record(host.name, order.peer).asked_at.append(at)
        agent = self._world.by_name[order.peer]
        # A node that is DEAD is in no doubt; its path is tried again at doubling distances.
        doubted = host.route_to[order.peer].told in (_ALIVE, _SUSPECT)
        if order.path is not Path.TCP or not doubted or not agent.pauses or agent.pauses[-1][1] != FAR:
            return
        record = self.record(host.name, order.peer)
        span, count = record.tcp_asked
        begin = agent.pauses[-1][0]
        count = count + 1 if span == begin else 1
        record.tcp_asked = (begin, count)
        if count > TCP_ASKS:
            self._violate(at, "asks", f"{host.name}: {order.peer} stands still and is asked by TCP {count} times")

    def _pay(self, at: int, host: Host) -> None:
        count = self._asked[host.name] = self._asked.get(host.name, 0) + 1
        config = self._scenario.leader
        seconds = (at - host.started_at) / SECOND + 1
        # Ten per cent more: beats that waited while a leader stood still come in all at once.
        beats = 1.1 * seconds * len(host.routes_in) * SECOND / self._scenario.interval_ns
        allowed = config.ask_burst + REFILL * seconds + config.ask_share * beats + self._granted.get(host.name, 0)
        if count > allowed:
            self._violate(at, "asks", f"{host.name}: {count} questions, {allowed:.0f} are in its budget")

    def answered(self, at: int, question: Question, answered: Answered) -> None:
        """A question came back to whoever asked it."""
        host, outcome = question.asker, answered.outcome
        if host.role == "agent":
            self._relayed(at, host, question, outcome)
            return
        if host.role != "leader" or self._world.by_name[answered.peer].role != "agent":
            return
        record = self.record(host.name, answered.peer)
        agent = self._world.by_name[answered.peer]
        if outcome is Outcome.ACKED:
            # A driver may find out later, and what was sent with the question may have been sent again: that it was
            # asked is all that an acknowledgement proves.
            record.acked_at = max(record.acked_at, question.asked_at)
        elif outcome is Outcome.ANSWERED:
            record.answered_at = max(record.answered_at, question.asked_at)
            record.proved_life = agent.life
            if answered.path is Path.TCP:
                record.tcp_proved_life = agent.life
        elif outcome is Outcome.REFUSED and answered.path is Path.UDP:
            begin, count = record.refused
            begin, count = (begin, count + 1) if at - begin < EVIDENCE_NS else (at, 1)
            record.refused = (begin, count)
            if count > UDP_REFUSALS:
                self._violate(at, "asks", f"{host.name}: {answered.peer} refused UDP {count} times and is asked again")

    def _relayed(self, at: int, neighbour: Host, question: Question, outcome: Outcome) -> None:
        """A neighbour has an answer for a leader: when it is honest and its way is clear, the leader will have it."""
        route = neighbour.route_to.get(question.peer)
        if outcome is Outcome.ANSWERED and not neighbour.liar and route is not None and route.open and not route.stuck:
            self.record(question.peer, question.about).vouched_at = at

    def heard(self, at: int, host: Host, sender: str, message: Pong | LastHeard) -> None:
        """A leader reads an answer of an agent, or of another leader."""
        if host.role != "leader":
            return
        if isinstance(message, Pong):
            if self._world.by_name[sender].role == "agent":
                # It lived when it was asked; when it answered, nobody here can know.
                record = self.record(host.name, sender)
                record.answered_at = max(record.answered_at, record.pings.get(message.number, -FAR))
            return
        newest = beat_wire.decode(host.route_to[message.node].newest)
        if message.age_ns is None or not isinstance(newest, Beat) or newest.incarnation != message.incarnation:
            return
        if (message.sequence or 0) > newest.sequence:
            record = self.record(host.name, message.node)
            record.vouched_at = max(record.vouched_at, at - message.age_ns)

    # ---- what is going to be seen ------------------------------------------------------------------------

    def _watched(self, agent: Host) -> Iterable[tuple[Route, Record]]:
        """The leaders that see the agent well at this instant."""
        if self._world.network.loss:
            return
        for route in agent.routes_out:
            leader = route.server
            sees = route.open and not route.stuck and route.known == route.connection and leader.runs
            if sees and route.told == _ALIVE and self._asked.get(leader.name, 0) < self._scenario.leader.ask_burst // 2:
                yield route, self.record(leader.name, agent.name)

    def exits(self, at: int, agent: Host) -> None:
        """The process of `agent` is being killed."""
        if agent.role != "agent" or agent.paused or agent.gone or agent.firewalled:
            return
        for _, record in self._watched(agent):
            if record.tcp_proved_life == agent.life:
                record.promises.append((Cause.PROCESS_EXIT, at, at + EXIT_NS))

    def vanishes(self, at: int, agent: Host) -> None:
        """The machine of `agent` goes away."""
        if agent.role != "agent" or not agent.runs or agent.firewalled:
            return
        scenario = self._scenario
        due = at + scenario.interval_ns + scenario.leader.host_gone_slack_ns + GONE_SLACK_NS
        rack = agent.name.rpartition("/")[0] + "/"
        if any(other.liar == "silence" and other.name.startswith(rack) for other in self._world.agents):
            # Who never reports back is in doubt, for a moment, at each question that he is to pass on: two close the
            # gate together with this one.
            due += scenario.leader.gate_hold_ns + scenario.interval_ns
        for _, record in self._watched(agent):
            if record.proved_life == agent.life:
                record.promises.append((Cause.HOST_GONE, at, due))

    def freezes(self, at: int, agent: Host) -> None:
        """The process of `agent` is being held still, and its kernel is not."""
        if agent.role != "agent" or agent.core is None or agent.gone:
            return
        scenario = self._scenario
        due = at + scenario.interval_ns + scenario.leader.detector.margin_max_ns + FROZEN_SLACK_NS
        for _, record in self._watched(agent):
            record.promises.append((Cause.PROCESS_FROZEN, at, due))

    # ---- verdicts ----------------------------------------------------------------------------------------

    def told(self, at: int, route: Route, verdict: Happened) -> None:
        """A leader changed its mind about a node."""
        if verdict.kind is Kind.NODE_ACCOUNTED:
            return
        leader, agent = route.server, route.client
        record = self.record(leader.name, agent.name)
        before = record.told[-1] if record.told else (0, "", None)
        record.told.append((at, verdict.after, verdict.cause))
        self._light(at, route)
        cause = verdict.cause
        if verdict.after == verdict.before == _SUSPECT and before[1:] == (_SUSPECT, cause):
            self._wrong(at, "order", route, f"SUSPECT({_word(cause)}) told twice")
        if verdict.after == _DEAD:
            self._dead(at, route, record, verdict)
        elif verdict.after == _SUSPECT:
            self._suspect(at, route, record, verdict)

    def _wrong(self, at: int, row: str, route: Route, text: str) -> None:
        self._violate(at, row, f"{route.server.name}: {route.client.name} {text}")

    def _dead(self, at: int, route: Route, record: Record, verdict: Happened) -> None:
        cause, agent, leader = verdict.cause, route.client, route.server
        if verdict.before == _ALIVE and cause is not Cause.PROCESS_EXIT:
            self._wrong(at, "order", route, f"went from ALIVE to DEAD({_word(cause)})")
        if cause is Cause.PROCESS_EXIT:
            since = at - SECOND // 2 - paused_since(leader, at)
            if agent.started_at <= route.newest_sent and not overlap(agent.outages, since, at):
                self._wrong(at, "cause", route, "DEAD(process-exit), and its process runs")
            if agent.firewalled:
                self._wrong(at, "cause", route, "DEAD(process-exit) behind a firewall")
            return
        if cause is Cause.HOST_GONE:
            self._gone(at, route, record)
        elif cause is Cause.PROCESS_FROZEN:
            if record.acked_at < at - EVIDENCE_NS - SECOND - paused_since(leader, at):
                self._wrong(at, "cause", route, "DEAD(process-frozen) without an acknowledgement of late")
        elif cause is not Cause.SILENCE:
            self._wrong(at, "cause", route, f"DEAD({_word(cause)})")
        window = at - self._scenario.interval_ns - self._scenario.leader.host_gone_slack_ns + RELAYED_NS
        if cause is not Cause.PROCESS_FROZEN and not overlap(leader.pauses, window - SECOND, at):
            self._no_sign(at, route, record, window, cause)
        self._askable(at, route, _DEAD)
        self._anew(at, route, record, cause)
        self._frozen(at, route, cause)
        self._dark(at, route, cause)
        self._mass(at, route, cause)

    def _gone(self, at: int, route: Route, record: Record) -> None:
        agent, leader = route.client, route.server
        if agent.firewalled or record.proved_life < 0:
            self._wrong(at, "cause", route, "DEAD(host-gone), and no second path to it was proved")
        window = at - self._scenario.interval_ns - self._scenario.leader.host_gone_slack_ns
        if overlap(leader.pauses, window - SECOND, at) or overlap(agent.absences, window, at):
            return
        if route.open and not route.stuck and route.clear_at < window and route.known == route.connection:
            self._wrong(at, "cause", route, "DEAD(host-gone), and its kernel could be reached all the time")

    def _no_sign(self, at: int, route: Route, record: Record, window: int, cause: Cause | None) -> None:
        """Nobody is called dead for silence who gave a sign of life within the time that silence takes.

        What a new process answers is no sign of the one before, of which the verdict speaks.
        """
        if route.client.started_at > route.newest_sent:
            return
        if record.vouched_at > window:
            self._wrong(at, "cause", route, f"DEAD({_word(cause)}), and a neighbour had an answer from it")
        if record.answered_at > window:
            self._wrong(at, "cause", route, f"DEAD({_word(cause)}), and it had answered")
        if cause is Cause.HOST_GONE and record.acked_at > window:
            self._wrong(at, "cause", route, "DEAD(host-gone), and its kernel had acknowledged")

    def _suspect(self, at: int, route: Route, record: Record, verdict: Happened) -> None:
        cause, agent, leader = verdict.cause, route.client, route.server
        patience = EVIDENCE_NS + paused_since(leader, at)
        if cause is Cause.PROCESS_FROZEN and record.acked_at < at - patience - self._scenario.interval_ns:
            self._wrong(at, "cause", route, "SUSPECT(process-frozen) without an acknowledgement of late")
        elif cause is Cause.LINK_CUT:
            since = at - patience - 2 * self._scenario.interval_ns
            away = any(a < since and b > at for a, b in (*agent.outages, *agent.pauses, *agent.absences))
            # In a rack that is dark there is nobody left to ask whether what others knew still holds.
            if away and any(silent_since(other.client, other, at) == at for other in _rackmates(route)):
                self._wrong(at, "cause", route, "SUSPECT(link-cut), and nobody can have heard it")
        # Whoever others hear is asked once a second, and SUSPECT(link-cut) is no suspicion of him.
        if verdict.before == _ALIVE and cause is not Cause.LINK_CUT:
            self._askable(at, route, _SUSPECT)

    def _askable(self, at: int, route: Route, what: str) -> None:
        """The process runs, both ways are clear, the leader has not been away: a question would have been answered."""
        agent, leader = route.client, route.server
        since = at - ASKABLE_NS
        if self._world.network.loss or not self._scenario.leader.doubt or not agent.runs or agent.gone:
            return
        if not route.open or route.stuck or route.clear_at > since or route.known != route.connection:
            return
        spans = (*agent.pauses, *agent.outages, *agent.absences, *leader.pauses, *leader.outages)
        # What a new process answers says nothing of the one before, and it is that one of which the verdict speaks.
        if agent.started_at > min(since, route.newest_sent) or leader.started_at > since or overlap(spans, since, at):
            return
        if self._asked.get(leader.name, 0) < self._scenario.leader.ask_burst // 2:
            self._wrong(at, "askable", route, f"{what}, and it would have answered")

    def _light(self, at: int, route: Route) -> None:
        """A rack is dark to a leader from its first node that is told so until too few of its nodes are."""
        key = (route.server.name, route.client.name.rpartition("/")[0])
        told = self.record(route.server.name, route.client.name).told[-1]
        if told[2] is Cause.RACK_DARK:
            self._lit_at[key] = None
        if self._lit_at.get(key, 0) is not None:
            return
        dark = watched = 0
        for other in route.server.routes_in:
            if other.client.name.startswith(key[1] + "/"):
                newest = self.record(key[0], other.client.name).told[-1:]
                # Of what an earlier life told, this one knows that its nodes lived then.
                before = newest != [] and newest[0][0] < route.server.started_at
                is_dark = newest != [] and newest[0][2] is Cause.RACK_DARK
                dark += is_dark and not before
                watched += newest != [] and (newest[0][1] in (_ALIVE, _SUSPECT) or (is_dark and before))
        if dark < self._scenario.leader.dark_share * (dark + watched):
            self._lit_at[key] = at
            self._granted[key[0]] = self._granted.get(key[0], 0) + ANEW_GRANT * dark

    def lit_at(self, route: Route, since: int) -> int:
        """When the rack of a node, dark to a leader after `since` and this node with it, was seen to be back; FAR while
        it is not, -1 when it was not dark."""
        told = self.record(route.server.name, route.client.name).told
        if not any(cause is Cause.RACK_DARK for when, _, cause in told if when >= since):
            return -1
        lit_at = self._lit_at.get((route.server.name, route.client.name.rpartition("/")[0]), -1)
        return FAR if lit_at is None else lit_at

    def _anew(self, at: int, route: Route, record: Record, cause: Cause | None) -> None:
        """Nobody is called dead of what was found while his whole rack was silent."""
        lit_at = self._lit_at.get((route.server.name, route.client.name.rpartition("/")[0]))
        if lit_at is None or not self._scenario.leader.doubt:
            return
        before = [why for when, _, why in record.told if route.server.started_at <= when <= lit_at]
        if before[-1:] != [Cause.RACK_DARK] or any(word == _ALIVE for when, word, _ in record.told if when > lit_at):
            return
        if at - lit_at < self._scenario.leader.gate_hold_ns:
            self._wrong(
                at, "anew", route, f"DEAD({_word(cause)}) {(at - lit_at) / SECOND:.3f} s after its rack is back"
            )
        asked = sum(when >= lit_at for when in record.asked_at)
        # Where it is, and with which key it is asked, it says when it connects.
        if asked < ANEW_ASKS and route.known:
            self._wrong(at, "anew", route, f"DEAD({_word(cause)}), asked {asked} times since its rack is back")

    def _frozen(self, at: int, route: Route, cause: Cause | None) -> None:
        agent, leader = route.client, route.server
        if agent.core is None or not agent.paused or agent.gone:
            return
        begin = agent.pauses[-1][0]
        spans = (*agent.absences, *agent.outages, *leader.pauses, *leader.outages)
        if not route.open or route.stuck or route.clear_at > begin or overlap(spans, begin - SECOND, at):
            return
        held = at - begin
        if held < self._scenario.leader.dead_after_ns - self._scenario.interval_ns:
            self._wrong(at, "frozen", route, f"DEAD({_word(cause)}) after {held / SECOND:.3f} s of standing still")

    def _dark(self, at: int, route: Route, cause: Cause | None) -> None:
        """Most of the rack fell silent with it, and is still."""
        begin = silent_since(route.client, route, at)
        rack = route.client.name.rpartition("/")[0]
        peers = [other for other in route.server.routes_in if other.client.name.startswith(rack + "/")]
        together = [
            other
            for other in peers
            if other.client.core is not None or other.client.gone
            if abs(silent_since(other.client, other, at) - begin) <= TOGETHER_NS
        ]
        silent = sum(self._mute(other, at) for other in together)
        config = self._scenario.leader
        if begin < at and silent >= config.gate_min and silent > config.dark_share * len(peers) + 1:
            self._wrong(at, "dark", route, f"DEAD({_word(cause)}) together with {silent} of {len(peers)}")

    def _mute(self, route: Route, at: int) -> bool:
        """True when nobody has a sign of the node: no beat, no kernel that acknowledges, nobody else who hears it.

        A leader whose present life has not heard it yet cannot miss it either.
        """
        if not route.heard or route.newest_sent > at - self._scenario.interval_ns - TOGETHER_NS:
            return False
        frozen = route.client.paused and not route.client.gone
        record = self.record(route.server.name, route.client.name)
        if record.told and record.told[-1][2] is Cause.LINK_CUT:
            # What others knew of it holds until one of them says otherwise.
            return False
        return not frozen and record.vouched_at < at - EVIDENCE_NS - self._scenario.interval_ns

    def _mass(self, at: int, route: Route, cause: Cause | None) -> None:
        """Many of the rack fell silent with it, after a time of quiet: first the gate holds, and then the brake."""
        begin = silent_since(route.client, route, at)
        rack = route.client.name.rpartition("/")[0] + "/"
        peers = [other for other in route.server.routes_in if other.client.name.startswith(rack)]
        spans = [span for other in peers for span in _spans(other)]
        alone = [span for span in spans if abs(span[0] - begin) > TOGETHER_NS]
        if overlap((*alone, *route.server.pauses, *route.server.outages), begin - QUIET_NS, at):
            return
        # This one is the next of them. A proved end is held by nothing.
        dead = 1 + sum(self._died_of_silence(other) for other in peers)
        config = self._scenario.leader
        patience = config.gate_hold_ns + self._scenario.dead_after_ns
        if dead > max(MASS_MIN, MASS_SHARE * len(peers)) and at - begin < patience:
            self._wrong(
                at, "mass", route, f"DEAD({_word(cause)}) with {dead - 1} more, {(at - begin) / SECOND:.3f} s on"
            )

    def _died_of_silence(self, route: Route) -> bool:
        told = self.record(route.server.name, route.client.name).told
        return route.told == _DEAD and bool(told) and told[-1][2] is not Cause.PROCESS_EXIT

    # ---- at the end --------------------------------------------------------------------------------------

    def finish(self, at: int) -> None:
        """What had to be told."""
        for (leader, node), record in self._records.items():
            route = self._world.by_name[leader].route_to[node]
            for cause, begin, due in record.promises:
                if due < at and self._undisturbed(route, cause, begin, due):
                    self._kept(route, record, cause, begin, due)

    def _kept(self, route: Route, record: Record, cause: Cause, begin: int, due: int) -> None:
        after = _SUSPECT if cause is Cause.PROCESS_FROZEN else _DEAD
        told = [(word, why) for when, word, why in record.told if when <= due]
        if told[-1:] != [(after, cause)]:
            last = f"{told[-1][0]}({_word(told[-1][1])})" if told else "unheard"
            said = f"is {last}; {after}({cause.value}) was due by then, from {begin / SECOND:.3f} s"
            self._wrong(due, "prompt", route, said)

    def _undisturbed(self, route: Route, cause: Cause, begin: int, due: int) -> bool:
        """Nothing but the one thing happened to this node and its way, and the leader watched all the time."""
        agent, leader = route.client, route.server
        own = {
            Cause.PROCESS_EXIT: agent.outages,
            Cause.HOST_GONE: agent.absences,
            Cause.PROCESS_FROZEN: agent.pauses,
        }[cause]
        if not any(a == begin and b > due for a, b in own):
            return False
        before = begin - 3 * SECOND - self._scenario.interval_ns
        cuts = [span for span in route.cut_spans if cause is not Cause.HOST_GONE or span[0] != begin]
        if overlap((*leader.pauses, *leader.outages, *cuts), before, due):
            return False
        others = [agent.outages, agent.absences, agent.pauses]
        if cause is Cause.HOST_GONE:
            # Whatever happens to its process meanwhile, nobody sees it.
            others = []
        if any(overlap(spans, before, due) for spans in others if spans is not own):
            return False
        if overlap([span for span in own if span[0] != begin], before, due):
            return False
        # Two that are late, and one more for a moment by jitter, close the gate.
        return cause is Cause.PROCESS_EXIT or self.crowd(route, begin, due)[0] < self._scenario.leader.gate_min - 1

    def crowd(self, route: Route, begin: int, due: int) -> tuple[int, int, int]:
        """How many of the rack may have been silent at the leader between `begin` and `due`, of how many that ran
        then, and when the last of them was no longer."""
        rack = route.client.name.rpartition("/")[0] + "/"
        count = ran = 0
        last = 0
        patience = self._scenario.leader.dead_after_ns + 10 * SECOND
        for other in route.server.routes_in:
            agent = other.client
            if not agent.name.startswith(rack):
                continue
            spans = (*agent.outages, *agent.pauses, *agent.absences, *other.cut_spans)
            # It is heard again some seconds after a cut: retransmission, connection, first beat.
            near = [b for a, b in spans if a > begin - patience and a <= due and b + 6 * SECOND >= begin]
            ran += not overlap(agent.outages, begin - patience, begin) or bool(near)
            if near:
                count += 1
                if other is not route:
                    last = max(last, *near)
        return count, ran, last


def overlap(spans: Spans, begin: int, end: int) -> bool:
    """True when one of the spans has an instant between `begin` and `end`."""
    return any(a <= end and b >= begin for a, b in spans)


def paused_since(leader: Host, at: int) -> int:
    """How long the leader was held still of late: what it knows is older by so much."""
    return sum(min(b, at) - a for a, b in leader.pauses if b > at - 20 * SECOND and a < at)


def silent_since(agent: Host, route: Route, at: int) -> int:
    """When `agent` last stopped, stood still, went away or lost its way to the leader; `at` when none of it is so."""
    spans = (*agent.outages, *agent.pauses, *agent.absences, *route.cut_spans)
    return min((a for a, b in spans if a <= at < b), default=at)


def _rackmates(route: Route) -> list[Route]:
    """The ways of the others of its rack to the same leader."""
    rack = route.client.name.rpartition("/")[0] + "/"
    return [other for other in route.server.routes_in if other is not route and other.client.name.startswith(rack)]


def _spans(route: Route) -> list[list[int]]:
    """When the leader could not hear the agent."""
    agent = route.client
    return [*agent.outages, *agent.pauses, *agent.absences, *route.cut_spans]


def _word(cause: Cause | None) -> Any:
    return cause.value if cause is not None else None
