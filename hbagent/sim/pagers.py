"""Alertmanagers as they behave: an alert is its labels, and burns until its end time, which each post moves.

They know nothing of one another, and now and then one of them does not take what it is posted.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from hbagent.core.effects import PostAlerts
from hbagent.core.states import Axis

if TYPE_CHECKING:
    from .world import World

Key = tuple[str, Axis]
_AXES = {
    "HbagentHostSuspect": Axis.LIVENESS,
    "HbagentHostDown": Axis.LIVENESS,
    "HbagentHostAway": Axis.LIVENESS,
    "HbagentRackDown": Axis.RACK,
    "HbagentLeaderLost": Axis.LEADER,
    "HbagentRootIsolated": Axis.ROOT,
}
_NAMES = {Axis.LIVENESS: "host", Axis.HEALTH: "host", Axis.RACK: "rack", Axis.LEADER: "leader"}


class Pagers:
    """All members of all sinks, by address."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: Address -> labels -> when it ends, by the wall clock.
        self._alerts: dict[str, dict[tuple[tuple[str, str], ...], int]] = {}
        #: Share of posts that are not taken.
        self.failures = 0.05
        self.posts = 0

    def take(self, at: int, order: PostAlerts) -> str:
        """A post arrives; why it is not taken, or ""."""
        self.posts += 1
        if self._world.rng.random() < self.failures:
            return "503 Service Unavailable"
        alerts = self._alerts.setdefault(order.url, {})
        for alert in msgspec.json.decode(order.body):
            labels: dict[str, Any] = alert["labels"]
            alerts[tuple(sorted(labels.items()))] = _nanoseconds(alert["endsAt"])
        return ""

    def active(self, url: str, at: int) -> set[Key]:
        """What a member holds to burn now."""
        wall = self._world.root.wall(at)
        found = set()
        for labels, ends in self._alerts.get(url, {}).items():
            key = _key(dict(labels))
            if ends > wall and key is not None:
                found.add(key)
        return found


def _key(labels: dict[str, str]) -> Key | None:
    name = labels["alertname"]
    axis = Axis.HEALTH if name.startswith("HbagentHealth") else _AXES.get(name)
    if axis is None:
        # That it flaps, and that the alarm path works.
        return None
    return (labels[_NAMES[axis]] if axis in _NAMES else "root", axis)


def _nanoseconds(time: str) -> int:
    moment = datetime.datetime.fromisoformat(time.replace("Z", "+00:00"))
    return round(moment.timestamp() * 1000) * 1_000_000
