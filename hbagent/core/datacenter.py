"""Who there is, as the root knows it: racks and their leaders from the config, nodes from what leaders tell.

The config may name nodes as well. They are shown before anybody has told of them and as long as they stand there; of
whom a leader tells beyond them is shown too, for leaders judge by their own lists, and a root that knows fewer must not
hide anybody.

And who may speak for whom: a leader speaks for a node while it holds its lease and has itself heard or judged it. When
nobody speaks for a node and a leader of its rack is lost, nothing is known of it, whatever was told last; for the one
who is lost may have known.
"""

from __future__ import annotations

from .config import RackConfig, RootConfig
from .fleet import NodeRecord, Seen, Shown
from .leaderrecord import LeaderRecord
from .lease import Lease
from .names import rack_of
from .rackrecord import RackRecord
from .states import Cause, Liveness
from .units import SECOND

#: Nodes of one rack: those beyond are refused rather than believed.
NODES_MAX = 20_000
#: A node that no leader of its rack has described for this long is expected no longer. It is missing in thirty
#: summaries: no page of them is lost as often in a row.
FORGET_NS = 30 * SECOND


class Datacenter:
    """Racks, leaders and nodes."""

    def __init__(self, config: RootConfig, now: int) -> None:
        self.leaders: dict[str, LeaderRecord] = {}
        #: Names of each rack's leaders, in the order of the config.
        self.racks: dict[str, tuple[str, ...]] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.rack_nodes: dict[str, list[NodeRecord]] = {}
        self.rack_records: dict[str, RackRecord] = {}
        #: Nodes that an operator has said are gone for good.
        self.forgotten: dict[str, None] = {}
        #: Nodes that the config names.
        self.expected: frozenset[str] = frozenset()
        self._take_racks(config, now)

    # ---- membership --------------------------------------------------------------------------------------

    def _take_racks(self, config: RootConfig, now: int) -> None:
        self.racks.clear()
        for rack in config.racks:
            self.racks[rack.name] = rack.leaders
            self.rack_nodes.setdefault(rack.name, [])
            self.rack_records.setdefault(rack.name, RackRecord(rack.name))
            for name in rack.leaders:
                self._expect(name, rack, config, now)

    def expect_nodes(self, config: RootConfig, since_wall_ns: int) -> None:
        """Show the nodes that the config names, but for those that an operator has said are gone for good."""
        self.expected = frozenset(f"{rack.name}/{node}" for rack in config.racks for node in rack.nodes)
        for node in (f"{rack.name}/{node}" for rack in config.racks for node in rack.nodes):
            record = self.record(node, rack_of(node)) if node not in self.forgotten else None
            if record is not None and not record.since_wall_ns:
                record.since_wall_ns = since_wall_ns

    def _expect(self, name: str, rack: RackConfig, config: RootConfig, now: int) -> None:
        leader = self.leaders.get(name)
        if leader is None:
            lease = Lease(name, config.lease_ns, now + config.start_grace_ns)
            self.leaders[name] = LeaderRecord(name, (rack.name,), lease)
        else:
            leader.racks = (*leader.racks, rack.name)

    def reconfigure(self, config: RootConfig, now: int) -> list[str]:
        """Other racks, other leaders; returns the names of leaders, nodes and racks that are gone.

        A leader that stays keeps its lease and how far it was heard out.
        """
        for leader in self.leaders.values():
            leader.racks = ()
            leader.lease.length_ns = config.lease_ns
        self._take_racks(config, now)
        gone = [leader.name for leader in self.leaders.values() if not leader.racks]
        for name in gone:
            del self.leaders[name]
        for record in list(self.nodes.values()):
            if record.rack not in self.racks:
                self.forget(record)
                gone.append(record.name)
                continue
            record.seen = {name: seen for name, seen in record.seen.items() if name in self.racks[record.rack]}
        for node in [node for node in self.forgotten if rack_of(node) not in self.racks]:
            del self.forgotten[node]
            gone.append(node)
        for rack in [rack for rack in self.rack_nodes if rack not in self.racks]:
            del self.rack_nodes[rack]
            if self.rack_records.pop(rack).dark:
                gone.append(rack)
        return gone

    def leader_of(self, sender: str, rack: str | None = None) -> LeaderRecord | None:
        """The sender's record, if it is a leader and leads `rack`."""
        leader = self.leaders.get(sender)
        return leader if leader is not None and (rack is None or rack in leader.racks) else None

    def record(self, node: str, rack: str) -> NodeRecord | None:
        """The record of `node`; None when it is new and its rack is full."""
        record = self.nodes.get(node)
        if record is None and len(self.rack_nodes[rack]) < NODES_MAX:
            record = self.nodes[node] = NodeRecord(node, rack)
            self.rack_nodes[rack].append(record)
        return record

    def forget(self, record: NodeRecord) -> None:
        """Take a node out of its rack."""
        del self.nodes[record.name]
        self.rack_nodes[record.rack].remove(record)

    def unexpected(self, now: int) -> list[NodeRecord]:
        """Nodes that are in no leader's config any more, nor in the root's: nobody would ever correct what is shown of
        them."""
        since = now - FORGET_NS
        found: list[NodeRecord] = []
        for rack, leaders in self.racks.items():
            leases = [self.leaders[name].lease for name in leaders]
            if all(lease.held and lease.held_since <= since for lease in leases):
                nodes = self.rack_nodes[rack]
                found.extend(
                    record
                    for record in nodes
                    if record.name not in self.expected
                    and all(seen.described_at <= since for seen in record.seen.values())
                )
        return found

    # ---- who may speak -----------------------------------------------------------------------------------

    def observers(self, record: NodeRecord) -> list[Seen]:
        """The views of leaders that hold their lease, in the order of the config."""
        return [
            seen
            for name in self.racks[record.rack]
            if self.leaders[name].lease.held and (seen := record.seen.get(name)) is not None
        ]

    def say(self, node: str) -> tuple[tuple[str, Liveness, Cause | None], ...]:
        """What each leader that may speak for a node, and does, says of it."""
        record = self.nodes.get(node)
        views = [] if record is None else self.observers(record)
        return tuple((view.leader, view.liveness, view.cause) for view in views if view.speaks)

    def someone_is_lost(self, rack: str) -> bool:
        """True when a leader of `rack` may know what the others do not, and has no right to speak."""
        return not all(self.leaders[name].lease.held for name in self.racks[rack])

    def listened_ns(self, rack: str) -> int:
        """For how long every leader of `rack` has been running."""
        return min(self.leaders[name].stats.uptime_ns for name in self.racks[rack])

    def shown(self, record: NodeRecord) -> Shown:
        """What a console is told of `record` now: what was told last, unless nobody may speak for it."""
        if record.told is None and not record.seen:
            return Shown(Liveness.UNKNOWN, Cause.NEVER_SEEN)
        if not any(view.speaks for view in self.observers(record)) and self.someone_is_lost(record.rack):
            return Shown(Liveness.UNKNOWN, self.why_silent(record.rack))
        if record.told is None:
            return Shown(Liveness.UNKNOWN, Cause.NEVER_SEEN)
        return Shown(record.told, record.cause)

    def why_silent(self, rack: str) -> Cause:
        """Why nobody speaks for a rack; when its leaders fell silent for several reasons, simply that they did."""
        leaders = [self.leaders[name] for name in self.racks[rack]]
        causes = {leader.cause: None for leader in leaders if not leader.lease.held}
        return next(iter(causes)) if len(causes) == 1 else Cause.LEADER_LOST
