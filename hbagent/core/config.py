"""Settings of the cores: plain frozen values in integer nanoseconds, each with its reason.

`role.settings` makes these from a TOML file; tests and the simulator make them by hand.
"""

from __future__ import annotations

import msgspec

from .checks import Check
from .states import Health, Kind
from .units import HOUR, MILLISECOND, MINUTE, SECOND


class DetectorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """When silence becomes suspicious. See `core.detector`."""

    #: adaptive | phi | fixed
    kind: str = "adaptive"
    #: adaptive, fixed: how much later than expected a beat may come. A scheduler pause or one TCP retransmission
    #: (200 ms at least) is longer than a small margin; a large one delays SUSPECT, and
    #: where no second path is known to work DEAD as well.
    margin_ns: int = 150 * MILLISECOND
    #: adaptive: wrong suspicions a day that are accepted of one node. The margin is learned from the node's own
    #: lateness so that there are as many, between `margin_min_ns` and `margin_max_ns`; until enough is known it is
    #: `margin_ns`. 0: the margin stays as it is.
    mistakes_per_day: float = 1.0
    #: Below this every scheduler of a busy host would be suspected.
    margin_min_ns: int = 20 * MILLISECOND
    margin_max_ns: int = 3 * SECOND
    #: phi: 8 is 10^-8 a beat if arrivals were normal, which they are not; Akka and Cassandra ship 8.
    phi_threshold: float = 8.0
    #: phi: how many inter-arrival times are kept.
    window_samples: int = 1000
    #: phi: deviation is never taken below this (Akka: 100 ms), else a quiet LAN makes every jitter a suspicion.
    deviation_min_ns: int = 100 * MILLISECOND
    #: phi: added to the mean (Akka: 3 s), the pause a healthy sender may take.
    pause_ns: int = 0


class ProbeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One probe: what it looks at, how often, and how much it takes to believe it."""

    name: str
    check: Check
    interval_ns: int = 10 * SECOND
    timeout_ns: int = 5 * SECOND
    #: Distance of the runs while the last one disagrees with the hard state.
    retry_interval_ns: int = 2 * SECOND
    #: Good runs in a row that make it OK, and failed ones that make it fail.
    rise: int = 2
    fall: int = 3
    #: After the prober's start, failures do not count for this long, unless the probe was good before.
    start_grace_ns: int = 0
    #: CRITICAL: what does not answer in time is broken. UNKNOWN: as other systems have it.
    on_timeout: Health = Health.CRITICAL
    #: The application that it looks at: when it fails, that one is stuck, and is examined.
    app: str = ""
    #: With `ProberConfig.quorum`: how much it counts; 0: it is shown and counts nothing.
    weight: float = 1.0
    #: On without being configured; left out where there is nothing to look at.
    default: bool = False


class AppConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One application that is expected, and how it is recognised. Others may report themselves as well."""

    name: str
    #: Recognised by its systemd unit, or by the process id in a file; "" for both: by `hbagent run-app NAME`.
    unit: str = ""
    pidfile: str = ""
    #: Users, beside root, that may speak for it; empty: the one that spoke first.
    users: tuple[int, ...] = ()
    #: It must say WATCHDOG=1 within this; 0: only when it asks for it itself (WATCHDOG_USEC).
    watchdog_ns: int = 0
    #: A progress mark must move within this while work is queued, where the mark does not say.
    window_ns: int = 30 * SECOND
    #: One with a watchdog must say READY=1 or WATCHDOG=1 within this of its start.
    start_timeout_ns: int = 90 * SECOND
    #: A job must report success within this, also across restarts; 0: it is no job.
    ttl_ns: int = 0
    #: Health of a job that is overdue.
    overdue: Health = Health.CRITICAL
    #: Restart `unit` when it is found in one of `restart_on`, after evidence was taken. Off by default.
    restart: bool = False
    restart_on: tuple[Health, ...] = (Health.DEADLOCKED, Health.STALLED)
    weight: float = 1.0


class ProberConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `core.prober.ProberCore`, and of its process."""

    probes: tuple[ProbeConfig, ...] = ()
    apps: tuple[AppConfig, ...] = ()
    #: Checks at once.
    concurrency: int = 8
    facts_interval_ns: int = 10 * SECOND
    #: Share of all weight at which a state counts as it is; below, anything bad is a WARNING. 0: the worst decides.
    quorum: float = 0.0
    #: Applications that were not configured and report themselves.
    guests_max: int = 64
    #: Restarts of one unit within `restart_window_ns`, then no more, loudly.
    restarts_max: int = 3
    restart_window_ns: int = 10 * MINUTE
    #: Where applications report; "" for nowhere.
    notify: str = ""
    #: Where evidence and what must survive a restart are kept; "" for nowhere.
    state_dir: str = ""
    #: Bundles kept, and for how long.
    bundles_max: int = 20
    bundles_age_ns: int = 14 * 24 * HOUR
    #: Socket of the privileged helper; "" for none.
    helper: str = ""
    #: Where metrics are written for node_exporter, "" for nowhere, and the full name of the host that stands in them.
    textfile: str = ""
    node: str = ""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `core.agent.AgentCore`."""

    node: str
    leaders: tuple[str, ...]
    version: str = ""
    interval_ns: int = SECOND
    #: A report is sent when something changes and at least this often.
    report_interval_ns: int = 30 * SECOND
    #: Run the prober: without it there are beats and nothing else.
    prober: bool = True
    #: The prober's mark moves each second; when it stands still for this long, the leader calls the prober STALLED.
    prober_window_ns: int = 10 * SECOND
    #: When it stands still for this long, the prober is killed and started again.
    prober_patience_ns: int = 30 * SECOND
    #: Hello is repeated from this on, doubling with jitter up to `hello_max_ns`, until admitted.
    hello_min_ns: int = SECOND
    hello_max_ns: int = 60 * SECOND
    #: How long a leaving agent waits for its leaders' acknowledgement.
    farewell_ns: int = SECOND
    #: Start a drill when the root asks for one: nothing else that this agent runs can be asked for from elsewhere.
    drills: bool = False
    echo_port: int = 0
    boot_id: str = ""


class LeaderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `core.leader.LeaderCore`."""

    name: str
    #: Expected nodes (full names) of each rack.
    racks: dict[str, tuple[str, ...]]
    root: str = "root"
    version: str = ""
    detector: DetectorConfig = DetectorConfig()
    #: DEAD this many announced intervals after the last proof of life...
    dead_after_intervals: int = 5
    #: ...and never before this: five intervals of 100 ms would be half a second, less than many VM pauses.
    dead_after_min_ns: int = 2500 * MILLISECOND
    #: After a leader's start, a node that was known ALIVE and is not heard within this is DEAD; one that nobody
    #: ever heard is UNKNOWN(never-seen). A reconnect takes up to 5 s on a rack of 500.
    join_grace_ns: int = 30 * SECOND
    #: Ask before suspecting. Without it only silence decides.
    doubt: bool = True
    #: A doubt asks this often, this far apart; 8 ms is more than a round trip in a datacenter.
    pings: int = 6
    ping_spacing_ns: int = 8 * MILLISECOND
    #: Neighbours of the rack that are asked as well.
    neighbours: int = 2
    #: Nothing heard from anybody on any path: DEAD(host-gone) one announced interval and this after the last evidence.
    host_gone_slack_ns: int = 500 * MILLISECOND
    #: A node whose kernel answers and whose agent does not is DEAD(process-frozen) after this.
    dead_after_ns: int = 30 * SECOND
    #: The echo path is evidence only if it worked in this incarnation; it is tried again this often.
    echo_check_ns: int = 30 * MINUTE
    #: While this share of a rack, and at least `gate_min` nodes, are late together, the observer's own side is the
    #: likelier cause: verdicts of silence wait, at most `gate_hold_ns`.
    gate_share: float = 0.25
    gate_min: int = 3
    gate_hold_ns: int = 5 * SECOND
    #: This share of a rack silent at once (and at least `gate_min`) is rack-dark.
    dark_share: float = 0.55
    #: Other leaders of the racks, by name: they are asked what they have heard.
    peers: tuple[str, ...] = ()
    #: Questions may be this share of the beats taken in, over time...
    ask_share: float = 0.003
    #: ...and so many in a burst: thirty hosts that vanish at once need about a thousand.
    ask_burst: int = 1000
    summary_interval_ns: int = SECOND
    #: Each report is passed on when it changes and at least this often.
    report_interval_ns: int = 30 * SECOND
    #: The loop is looked at this often to measure its own lag.
    tick_ns: int = 20 * MILLISECOND
    #: Unacknowledged transitions are sent again after this.
    resend_ns: int = 2 * SECOND
    #: Transitions kept for a root that is away. 10,000 are about 4 MB; beyond, the oldest of a node with newer
    #: ones are folded away and counted.
    outbox_max: int = 10_000
    #: Beats a second allowed of one node, as a multiple of its announced rate (and at least 20).
    noisy_factor: int = 10


class HookConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One hook: a script for events. Paths come only from the local config."""

    name: str
    argv: tuple[str, ...]
    #: Event kinds that it is told of.
    on: tuple[Kind, ...] = (
        Kind.NODE_DEAD,
        Kind.NODE_RECOVERED,
        Kind.NODE_AWAY,
        Kind.HEALTH_CHANGED,
        Kind.NODE_FLAPPING,
        Kind.NODE_STEADY,
        Kind.RACK_DARK,
        Kind.RACK_RECOVERED,
        Kind.LEADER_LOST,
        Kind.LEADER_RECOVERED,
        Kind.ROOT_ISOLATED,
    )
    #: It is also told of drills.
    drills: bool = True
    timeout_ns: int = 30 * SECOND
    #: What is over within this is not told.
    hold_ns: int = 0


class SinkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One Alertmanager cluster: what burns is posted to each of its members, again and again while it burns."""

    name: str
    #: Base addresses of the members, such as http://127.0.0.1:9093.
    urls: tuple[str, ...]
    on: tuple[Kind, ...] = HookConfig(name="", argv=()).on
    drills: bool = False
    hold_ns: int = 0
    #: Alertmanager forgets what it does not hear of within its resolve_timeout, 5 minutes by default.
    resend_ns: int = 60 * SECOND


class FlapConfig(msgspec.Struct, frozen=True, kw_only=True):
    """When a node changes too often to tell of each change. See `core.flapping`."""

    #: Each trouble weighs one and half as much after each `half_life_ns`. Flapping begins at the weight `start`, and
    #: ends below `stop`.
    start: float = 2.5
    stop: float = 1.0
    half_life_ns: int = 5 * MINUTE


class BrakeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How many notifications one receiver gets one by one; what is beyond comes as a summary. See `core.brake`."""

    #: Within this time...
    window_ns: int = 10 * SECOND
    #: ...of one node, of one rack, of everything.
    node_max: int = 5
    rack_max: int = 5
    all_max: int = 20
    #: This many of one rack that were in doubt together are one summary.
    group_min: int = 3


class RackConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One rack as the root knows it."""

    name: str
    leaders: tuple[str, ...]
    #: Last parts of the names of its nodes; empty: they are not known here.
    nodes: tuple[str, ...] = ()


class RootConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `core.root.RootCore`."""

    name: str
    racks: tuple[RackConfig, ...]
    version: str = ""
    hooks: tuple[HookConfig, ...] = ()
    #: A leader that sends no summary for this long has lost its right to speak. Five summaries; never under 2.5 s.
    lease_ns: int = 5 * SECOND
    #: After the root's own start, leaders get this long to be heard.
    start_grace_ns: int = 10 * SECOND
    join_grace_ns: int = 30 * SECOND
    #: How long a summary that is ahead of the transitions is held before it is believed.
    patience_ns: int = 2 * SECOND
    #: Hook processes at once.
    hook_concurrency: int = 4
    #: Waits before a failed hook is tried again; after the last it goes to the dead-letter table.
    hook_retries_ns: tuple[int, ...] = (SECOND, 5 * SECOND, 30 * SECOND, 2 * MINUTE)
    #: Hook runs waiting at most; beyond, the oldest of the same node are folded into the newest, and counted.
    hook_queue_max: int = 10_000
    #: Events kept in memory for `explain`, per node.
    story_length: int = 20
    sinks: tuple[SinkConfig, ...] = ()
    flap: FlapConfig = FlapConfig()
    brake: BrakeConfig = BrakeConfig()
    #: While another node of the rack is in doubt, a death of silence waits at most this long; an interval.
    doubt_wait_ns: int = SECOND
    #: After a trouble of a rack, a leader or the root is over, what it explained is asked for again for this long: two
    #: summaries, and the time of a reconnect (measured 0.3 to 1.9 s).
    settle_ns: int = 4 * SECOND
    #: That the alarm path works is told this often, to hooks that ask for `watchdog`.
    watchdog_ns: int = 60 * SECOND
    #: A node that stays LEFT this long is a WARNING.
    left_warn_after_ns: int = HOUR
