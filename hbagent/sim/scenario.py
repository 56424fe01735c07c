"""What is to be simulated: a few numbers and a seed, and nothing else, so that one line brings a run back."""

from __future__ import annotations

import msgspec

from hbagent.core.config import HookConfig, LeaderConfig, SinkConfig
from hbagent.core.units import MILLISECOND, SECOND

#: Bounds of one process's memory: a host takes about 6 KiB, an hour of one host about 7,000 events.
HOSTS_MAX = 200_000
SECONDS_MAX = 86_400
#: One rack's expected nodes and its leaders.
LEADERS_MAX = 3


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Equal scenarios give equal traces."""

    hosts: int = 16
    racks: int = 2
    leaders: int = 1
    seconds: int = 60
    seed: int = 1
    #: Share of lossy messages (beats, reports, summaries) that never arrive.
    loss: float = 0.0
    #: Names of `faults.CATALOG`.
    faults: tuple[str, ...] = ()
    interval_ns: int = SECOND
    #: Detector, deadlines and periods of every leader; names, racks and root are filled in.
    leader: LeaderConfig = LeaderConfig(name="", racks={})
    #: Somebody who is told at once, somebody who is told of what lasts, and two Alertmanagers.
    hooks: tuple[HookConfig, ...] = (
        HookConfig(name="pager", argv=("/bin/pager",)),
        HookConfig(name="ticket", argv=("/bin/ticket",), hold_ns=3 * SECOND),
    )
    sinks: tuple[SinkConfig, ...] = (
        SinkConfig(name="alerts", urls=("http://one:9093", "http://two:9093"), resend_ns=5 * SECOND),
    )
    lease_ns: int = 5 * SECOND

    @property
    def end_ns(self) -> int:
        """When the run ends, in virtual nanoseconds."""
        return self.seconds * SECOND

    @property
    def dead_after_ns(self) -> int:
        """Silence that ends in DEAD: the stated bound, from which the checker starts."""
        return max(self.leader.dead_after_intervals * self.interval_ns, self.leader.dead_after_min_ns)

    @property
    def fresh_ns(self) -> int:
        """The oldest that a beat may be on arrival and still prove life."""
        return self.interval_ns + self.leader.detector.margin_ns

    def problem(self) -> str:
        """Why this cannot be run; "" when it can."""
        if not 1 <= self.hosts <= HOSTS_MAX:
            return f"hosts = {self.hosts}: must be 1 to {HOSTS_MAX}"
        if not 1 <= self.racks <= self.hosts:
            return f"racks = {self.racks}: must be 1 to the number of hosts, {self.hosts}"
        if not 1 <= self.leaders <= LEADERS_MAX:
            return f"leaders = {self.leaders}: a rack has 1 to {LEADERS_MAX}"
        if not 1 <= self.seconds <= SECONDS_MAX:
            return f"seconds = {self.seconds}: must be 1 to {SECONDS_MAX}"
        if not 0 <= self.loss < 1:
            return f"loss = {self.loss}: must be a share from 0 to below 1"
        if self.interval_ns < 10 * MILLISECOND:
            return "interval: must be at least 10 ms"
        return ""

    def command(self) -> str:
        """The line that runs this again."""
        words = [f"hbagent sim --hosts {self.hosts} --racks {self.racks}"]
        if self.leaders != 1:
            words.append(f"--leaders {self.leaders}")
        words.append(f"--seconds {self.seconds} --seed {self.seed}")
        if self.loss:
            words.append(f"--loss {self.loss:g}")
        words.extend(f"--fault {name}" for name in self.faults)
        return " ".join(words)
