"""What each Alertmanager must be told: what burns and nothing objects to, again and again, and each end until it was
taken.

Alertmanager keeps nothing for us. It forgets an alert that it does not hear of, its members do not share what they
were told, and one that was restarted knows nothing. So this is no queue of messages but a state that is brought to
each member of each sink, and every difference is repaired by the next post:

- An alert is its labels (`core.labels`). Each has a version, which rises with every change of it.
- A member owes itself the newest version of each alert (`_Member.owed`). What it has taken leaves that list; each
  `resend_ns` everything comes back onto it.
- One post is under way to a member at a time, with at most `POST_MAX` alerts, changes before repetitions. Whatever
  changes meanwhile is in the next one, in its newest state: a member that hangs makes no queue.
- Each post says that what burns ends `PROMISED * resend_ns` later, so a dead root leaves nothing that fires for ever;
  the end of a trouble is an end in the past.
- What is over is repeated for `REPEAT_ENDED_NS`, for a member that restarts meanwhile, and is owed to a member that
  cannot be reached for `OWED_ENDED_NS`.
- A trouble that becomes another one is two alerts: the new one begins in the post in which the old one ends.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from .config import SinkConfig
from .effects import PostAlerts
from .labels import AlertText, alert_of, flapping, watchdog
from .messages import Posted
from .records import Event, Trouble
from .states import Axis
from .units import HOUR, MINUTE, SECOND
from .wallclock import rfc3339

#: Alerts in one post: some 200 kB, which Alertmanager 0.25 takes in 15 ms (37 at most of 40).
POST_MAX = 500
#: What is over and was taken is repeated for as long as Prometheus repeats it.
REPEAT_ENDED_NS = 15 * MINUTE
#: What is over is owed for this long to a member that does not take it; its own end time has ended it there long ago.
OWED_ENDED_NS = HOUR
#: Alerts of one sink that are over and kept; beyond, the oldest are forgotten, and end by their end time.
ENDED_MAX = 10_000
#: A member that fails is tried again after this, doubling up to the other.
RETRY_MIN_NS = SECOND
RETRY_MAX_NS = 30 * SECOND
#: Firing is promised for so many repetitions: three posts may be lost.
PROMISED = 4
#: An end is told as so much earlier. Alertmanager judges by its own clock: where that is a millisecond behind ours, an
#: end of just now lies ahead, and the one that it was promised before wins, minutes later.
SKEW_NS = 10 * SECOND
#: Wall time is told each second; until then nothing can be posted.
_CLOCKLESS_NS = SECOND

_Key = tuple[tuple[str, str], ...]
_WATCHDOG_KEY: tuple[str, str] = ("", "watchdog")


class _Alert:
    """One alert of one sink, burning or over."""

    __slots__ = ("ended_wall_ns", "starts_wall_ns", "text", "version")

    def __init__(self, text: AlertText, starts_wall_ns: int) -> None:
        self.text = text
        self.starts_wall_ns = starts_wall_ns
        #: 0 while it burns.
        self.ended_wall_ns = 0
        #: Counted over all alerts of the sink, so that one which is forgotten and comes again has another.
        self.version = 0


class _Member:
    """One address of one sink, and what it has not been told."""

    __slots__ = ("failures", "not_before", "owed", "repeat_at", "token", "under_way", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        #: Changes; then what is only repeated. In the order in which they came.
        self.owed: dict[_Key, bool] = {}
        self.under_way: dict[_Key, int] = {}
        #: Of the post that is under way; 0 for none.
        self.token = 0
        self.failures = 0
        #: Monotonic. 0: at once.
        self.not_before = 0
        self.repeat_at = 0


class _Sink:
    """One sink: its alerts, and its members."""

    __slots__ = ("alerts", "burning", "changes", "config", "ended", "members")

    def __init__(self, config: SinkConfig) -> None:
        self.config = config
        self.changes = 0
        self.alerts: dict[_Key, _Alert] = {}
        #: Which alert tells of a subject and axis now.
        self.burning: dict[tuple[str, str], _Key] = {}
        #: Those that are over, the oldest first.
        self.ended: dict[_Key, None] = {}
        self.members = {url: _Member(url) for url in config.urls}

    def use(self, config: SinkConfig) -> None:
        """Another config of the same name. A new member is owed everything, as each is now and then."""
        self.config = config
        self.members = {url: self.members.get(url) or _Member(url) for url in config.urls}

    def fire(self, subject: tuple[str, str], text: AlertText, starts_wall_ns: int, now_wall: int) -> None:
        key = tuple(text.labels.items())
        old = self.burning.get(subject)
        alert = self.alerts.get(key)
        if alert is None:
            alert = self.alerts[key] = _Alert(text, starts_wall_ns)
        else:
            if alert.ended_wall_ns:
                # It burns again: its end, should it not have been told yet, is not told any more.
                alert.ended_wall_ns = 0
                alert.starts_wall_ns = starts_wall_ns
                del self.ended[key]
            alert.text = text
        self.burning[subject] = key
        self._changed(key, alert)
        if old is not None and old != key:
            self._end(old, now_wall)

    def resolve(self, subject: tuple[str, str], now_wall: int) -> None:
        key = self.burning.pop(subject, None)
        if key is not None:
            self._end(key, now_wall)

    def _end(self, key: _Key, now_wall: int) -> None:
        alert = self.alerts[key]
        # Before the wall clock is known `now_wall` is 0.
        alert.ended_wall_ns = max(now_wall, alert.starts_wall_ns, 1)
        self.ended[key] = None
        self._changed(key, alert)
        while len(self.ended) > ENDED_MAX:
            self._forget(next(iter(self.ended)))

    def _changed(self, key: _Key, alert: _Alert) -> None:
        self.changes += 1
        alert.version = self.changes
        for member in self.members.values():
            if not member.owed.get(key):
                member.owed.pop(key, None)
                member.owed[key] = True

    def _forget(self, key: _Key) -> None:
        del self.alerts[key]
        del self.ended[key]
        for member in self.members.values():
            member.owed.pop(key, None)

    def age(self, now_wall: int) -> None:
        """Forget what has been over for long enough."""
        for key in list(self.ended):
            over_for = now_wall - self.alerts[key].ended_wall_ns
            if over_for < REPEAT_ENDED_NS:
                break
            owed = any(member.owed.get(key) or key in member.under_way for member in self.members.values())
            if not owed or over_for >= OWED_ENDED_NS:
                self._forget(key)


class Sinks:
    """The state that each Alertmanager is to have. `wake` brings it there, one post for each member at a time."""

    def __init__(self, configs: tuple[SinkConfig, ...], life: int) -> None:
        self._life = life
        self._sinks: dict[str, _Sink] = {}
        self._tokens = 0
        #: Alerts taken and posts that failed, by sink; for the metrics.
        self.taken: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        #: Why the newest post to a member failed, by sink and url; what works is not in it.
        self.errors: dict[tuple[str, str], str] = {}
        self.use(configs)

    def use(self, configs: tuple[SinkConfig, ...]) -> None:
        """Other sinks: one that keeps its name keeps its alerts."""
        before = self._sinks
        self._sinks = {}
        for config in configs:
            sink = before.get(config.name)
            if sink is None:
                sink = _Sink(config)
                self.taken.setdefault(config.name, 0)
                self.failed.setdefault(config.name, 0)
            else:
                sink.use(config)
            self._sinks[config.name] = sink
        self.taken = {name: count for name, count in self.taken.items() if name in self._sinks}
        self.failed = {name: count for name, count in self.failed.items() if name in self._sinks}
        self.errors = {
            (name, url): error
            for (name, url), error in self.errors.items()
            if name in self._sinks and url in self._sinks[name].members
        }

    def fire(self, sink: str, trouble: Trouble, event: Event, now_wall: int) -> None:
        """`trouble` burns, as `event` tells; called again when it has become another one."""
        self._fire(sink, trouble, event, event.at_wall_ns or trouble.at_wall_ns, now_wall)

    def take_over(self, sink: str, trouble: Trouble) -> None:
        """An earlier life of the root has told of `trouble`, and it is not over yet."""
        self._fire(sink, trouble, None, trouble.at_wall_ns or trouble.since_wall_ns, 0)

    def _fire(self, name: str, trouble: Trouble, event: Event | None, starts: int, now_wall: int) -> None:
        sink = self._sinks.get(name)
        if sink is not None:
            sink.fire((trouble.subject, trouble.axis.value), alert_of(trouble, event), starts or now_wall, now_wall)

    def resolve(self, sink: str, subject: str, axis: Axis, now_wall: int) -> None:
        """The trouble of `subject` on `axis` is over, and its flapping. One that was never told is nothing."""
        found = self._sinks.get(sink)
        if found is not None:
            found.resolve((subject, axis.value), now_wall)
            found.resolve((subject, f"flapping {axis.value}"), now_wall)

    def flap(self, sink: str, subject: str, axis: Axis, rack: str, event_id: str, at_wall_ns: int) -> None:
        """`subject` changes too often on `axis` to tell of each change: one alert beside those of its troubles."""
        found = self._sinks.get(sink)
        if found is not None:
            text = flapping(subject, axis, rack, event_id)
            found.fire((subject, f"flapping {axis.value}"), text, at_wall_ns, at_wall_ns)

    def steady(self, sink: str, subject: str, axis: Axis, now_wall: int) -> None:
        """That is over."""
        found = self._sinks.get(sink)
        if found is not None:
            found.resolve((subject, f"flapping {axis.value}"), now_wall)

    def firing(self, sink: str) -> int:
        """Alerts of a sink that burn, without the watchdog."""
        found = self._sinks.get(sink)
        return 0 if found is None else len(found.burning) - (_WATCHDOG_KEY in found.burning)

    # ---- posting -----------------------------------------------------------------------------------------

    def wake(self, now: int, now_wall: int) -> tuple[PostAlerts, ...]:
        """Posts for the members that have none under way and are owed something."""
        if not now_wall:
            for _, member in self._members():
                member.not_before = max(member.not_before, now + _CLOCKLESS_NS)
            return ()
        posts: list[PostAlerts] = []
        for sink in self._sinks.values():
            if _WATCHDOG_KEY not in sink.burning:
                sink.fire(_WATCHDOG_KEY, watchdog(self._life), now_wall, now_wall)
            for member in sink.members.values():
                if now >= member.repeat_at:
                    self._repeat(sink, member, now, now_wall)
                if member.owed and not member.token and now >= member.not_before:
                    posts.append(self._post(sink, member, now_wall))
        return tuple(posts)

    def deadline(self) -> int | None:
        """When `wake` wants to be called; None without sinks."""
        return min((_due(member) for _, member in self._members()), default=None)

    def posted(self, result: Posted, now: int) -> None:
        """What came of a post. An answer to one that is not under way any more is nothing."""
        sink = self._sinks.get(result.sink)
        member = sink.members.get(result.url) if sink is not None else None
        if sink is None or member is None or not member.token or member.token != result.token:
            return
        member.token = 0
        told, member.under_way = member.under_way, {}
        if result.error:
            self.failed[result.sink] += 1
            self.errors[result.sink, result.url] = result.error
            wait = min(RETRY_MIN_NS << min(member.failures, 10), RETRY_MAX_NS)
            member.failures += 1
            member.not_before = now + wait
            return
        self.taken[result.sink] += len(told)
        self.errors.pop((result.sink, result.url), None)
        member.failures = 0
        for key, version in told.items():
            alert = sink.alerts.get(key)
            if alert is not None and alert.version == version:
                member.owed.pop(key, None)

    def _members(self) -> Iterator[tuple[_Sink, _Member]]:
        for sink in self._sinks.values():
            for member in sink.members.values():
                yield sink, member

    def _repeat(self, sink: _Sink, member: _Member, now: int, now_wall: int) -> None:
        sink.age(now_wall)
        member.repeat_at = now + sink.config.resend_ns
        for key in sink.alerts:
            member.owed.setdefault(key, False)

    def _post(self, sink: _Sink, member: _Member, now_wall: int) -> PostAlerts:
        changed = [key for key, new in member.owed.items() if new]
        chosen = changed[:POST_MAX]
        if len(chosen) < POST_MAX:
            repeated = [key for key, new in member.owed.items() if not new]
            chosen += repeated[: POST_MAX - len(chosen)]
        until = now_wall + PROMISED * sink.config.resend_ns
        body = msgspec.json.encode([_document(sink.alerts[key], until, now_wall) for key in chosen])
        self._tokens += 1
        member.token = self._tokens
        member.under_way = {key: sink.alerts[key].version for key in chosen}
        return PostAlerts(sink=sink.config.name, url=member.url, token=member.token, body=body)


def _due(member: _Member) -> int:
    """When a member wants to be looked at; what is under way to it is waited for."""
    if member.token:
        return member.repeat_at
    return member.not_before if member.owed else max(member.repeat_at, member.not_before)


def _document(alert: _Alert, until_wall_ns: int, now_wall: int) -> dict[str, object]:
    """One alert of Alertmanager's API v2."""
    # A wall clock that was set back must not make an end lie ahead, nor a beginning after the end.
    ends = min(alert.ended_wall_ns, now_wall) - SKEW_NS if alert.ended_wall_ns else until_wall_ns
    return {
        "labels": alert.text.labels,
        "annotations": alert.text.annotations,
        "startsAt": rfc3339(min(alert.starts_wall_ns, now_wall, ends)),
        "endsAt": rfc3339(ends),
    }
