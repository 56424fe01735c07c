"""All applications of a host, and the rules by which a datagram is believed to come from one of them.

Who sent it is what the kernel says of the sender: its process, its user, its unit. A name in the datagram is believed
only of root, of the users that the config lists, and otherwise of the user that spoke for that name first; so nobody
speaks for an application of another user, and the most a stranger can do is to use up names that nobody configured.
"""

from __future__ import annotations

from typing import Any

from .app import App
from .config import AppConfig, ProberConfig
from .effects import Drop, Effect, Watch
from .messages import Notified
from .names import is_part
from .states import AppState, Health, Stall
from .wallclock import WallClock

#: Refused datagrams are counted by these reasons.
STRANGER, FORBIDDEN, FULL, MALFORMED = "stranger", "forbidden", "too-many-apps", "malformed"
#: Keys that only say who is meant.
_NAMING = ("X_HBAGENT_APP", "X_HBAGENT_MAIN", "MAINPID", "X_HBAGENT_STACKS", "BARRIER")
_ROOT = 0


class Apps:
    """The applications by name, and by what they are recognised by."""

    def __init__(self, config: ProberConfig, now: int) -> None:
        self._guests_max = config.guests_max
        self._guest = AppConfig(name="guest")
        self.by_name: dict[str, App] = {}
        #: Datagrams refused, by reason.
        self.refused: dict[str, int] = {}
        self.reconfigure(config, now)

    def reconfigure(self, config: ProberConfig, now: int) -> None:
        """Go on with other settings; who is still configured stays what it is."""
        self._guests_max = config.guests_max
        wanted = {app.name: app for app in config.apps}
        for name in {probe.app: None for probe in config.probes if probe.app}:
            wanted.setdefault(name, AppConfig(name=name))
        kept = self.by_name
        self.by_name = {name: app for name, app in kept.items() if app.guest and name not in wanted}
        for name, app_config in wanted.items():
            app = kept.get(name)
            if app is None or app.guest or app.config != app_config:
                app = App(app_config, now)
            self.by_name[name] = app

    def notified(self, notified: Notified, now: int) -> list[Effect]:
        """A datagram came."""
        effects: list[Effect] = []
        app = self._of(notified, now)
        if isinstance(app, str):
            self.refused[app] = self.refused.get(app, 0) + 1
            return [Drop(notified.stacks)] if notified.stacks else []
        fields = dict(notified.fields)
        if fields.get("X_HBAGENT_FORGET") == "1":
            return self._forget(app, now)
        main = fields.get("X_HBAGENT_MAIN") or fields.get("MAINPID")
        if main is not None:
            effects += self._main(app, main, notified, now)
        elif not app.pid and "X_HBAGENT_APP" not in fields:
            app.pid, app.start = notified.pid, notified.start
            effects.append(Watch(notified.pid, notified.start))
        if notified.stacks:
            if app.stacks:
                effects.append(Drop(app.stacks))
            app.stacks = notified.stacks
        known = app.speakers()
        said = [item for item in notified.fields if item[0] not in _NAMING]
        bad = app.tell(said, now, notified.pid, begins="X_HBAGENT_MAIN" in fields)
        if notified.pid in app.speakers() - known:
            effects.append(Watch(notified.pid, notified.start))
        if bad:
            self.refused[MALFORMED] = self.refused.get(MALFORMED, 0) + bad
        return effects

    def _forget(self, app: App, now: int) -> list[Effect]:
        """It is over and done with: a guest is no longer known, a configured one begins anew."""
        name, stacks = app.config.name, app.stacks
        if app.guest:
            del self.by_name[name]
        else:
            self.by_name[name] = App(app.config, now)
        return [Drop(stacks)] if stacks else []

    def _main(self, app: App, main: str, notified: Notified, now: int) -> list[Effect]:
        """It names its own main process: one of its own user, which is not the process of another application."""
        pid = int(main) if main.isascii() and main.isdecimal() and len(main) <= 10 else 0
        if not pid or notified.main_uid == -1 or notified.uid not in (_ROOT, notified.main_uid):
            self.refused[FORBIDDEN] = self.refused.get(FORBIDDEN, 0) + 1
            return []
        if (pid, notified.main_start) == (app.pid, app.start):
            app.pid_told = True
            return []
        app.begin(pid, notified.main_start, now)
        return [Watch(pid, notified.main_start)]

    def _of(self, notified: Notified, now: int) -> App | str:
        """Whose datagram it is, or why it is nobody's."""
        name = next((value for key, value in notified.fields if key == "X_HBAGENT_APP"), "")
        if name:
            return self._named(name, notified, now)
        lineage = (notified.pid, *notified.ancestors)
        by_pid = {app.pid: app for app in self.by_name.values() if app.pid}
        for pid in lineage:
            app = by_pid.get(pid)
            # A process that was born after its parent's id was given away has another parent.
            if app is not None and (pid != notified.pid or not app.start or app.start == notified.start):
                return app if self._may_speak(app, notified) else FORBIDDEN
        if not notified.unit:
            return STRANGER
        for app in self.by_name.values():
            if app.config.unit == notified.unit:
                return app if self._may_speak(app, notified) else FORBIDDEN
        return self._named(notified.unit.rpartition(".")[0] or notified.unit, notified, now)

    def _named(self, name: str, notified: Notified, now: int) -> App | str:
        app = self.by_name.get(name)
        if app is None:
            if not is_part(name):
                return MALFORMED
            if not self._room():
                return FULL
            app = self.by_name[name] = App(AppConfig(name=name), now, guest=True)
        return app if self._may_speak(app, notified) else FORBIDDEN

    def _may_speak(self, app: App, notified: Notified) -> bool:
        if notified.uid == _ROOT:
            return True
        if app.config.users:
            return notified.uid in app.config.users
        if app.uid is None:
            app.uid = notified.uid
        return notified.uid == app.uid

    def _room(self) -> bool:
        """A guest that ended well may go for a new one; who is in trouble is never forgotten."""
        guests = [app for app in self.by_name.values() if app.guest]
        if len(guests) < self._guests_max:
            return True
        ended = [app for app in guests if app.state is AppState.STOPPED and app.due_at is None]
        if not ended:
            return False
        oldest = min(ended, key=lambda app: app.since)
        del self.by_name[oldest.config.name]
        return True

    def gone(self, pid: int, now: int) -> list[Effect]:
        """A process ended."""
        effects: list[Effect] = []
        for app in self.by_name.values():
            app.lost(pid)
            if app.pid == pid:
                app.gone(now)
                if app.stacks:
                    effects.append(Drop(app.stacks))
                    app.stacks = 0
        return effects

    # ---- over restarts of the prober -----------------------------------------------------------------------

    def keep(self, wall: WallClock, now: int) -> dict[str, Any]:
        """What the next life must know."""
        return {
            name: {
                "guest": app.guest,
                "uid": app.uid,
                "pid": app.pid,
                "start": app.start,
                "told": app.pid_told,
                "state": app.state.value,
                "health": app.health.value,
                "stall": app.stall.value if app.stall is not None else None,
                "text": app.text,
                "bundle": app.bundle,
                "watchdog_ns": app.watchdog_ns,
                "ttl_ns": app.ttl_ns,
                "due_wall_ns": wall.at(app.due_at) if app.due_at is not None else None,
            }
            for name, app in self.by_name.items()
        }

    def restore(self, kept: object, alive: dict[int, int], wall: WallClock, now: int) -> list[Effect]:
        """Go on where an earlier life ended; what makes no sense is passed over."""
        effects: list[Effect] = []
        if not isinstance(kept, dict):
            return effects
        for name, item in kept.items():
            if isinstance(name, str) and isinstance(item, dict) and is_part(name):
                effects += self._restore(name, item, alive, wall, now)
        return effects

    def _restore(
        self, name: str, item: dict[str, Any], alive: dict[int, int], wall: WallClock, now: int
    ) -> list[Effect]:
        app = self.by_name.get(name)
        if app is None:
            if not item.get("guest") or not self._room():
                return []
            app = self.by_name[name] = App(AppConfig(name=name), now, guest=True)
        uid, pid, start = item.get("uid"), item.get("pid"), item.get("start")
        app.uid = uid if isinstance(uid, int) else None
        app.restore(
            state=_word(AppState, item.get("state"), AppState.READY),
            health=_word(Health, item.get("health"), Health.OK),
            stall=_word(Stall, item.get("stall"), None),
            text=str(item.get("text", "")),
            bundle=str(item.get("bundle", "")),
            watchdog_ns=_count(item.get("watchdog_ns")),
            now=now,
        )
        due_wall, ttl = item.get("due_wall_ns"), _count(item.get("ttl_ns"))
        if ttl and not app.config.ttl_ns:
            app.ttl_ns = ttl
        if isinstance(due_wall, int) and app.ttl_ns and wall.at(now):
            # A wall clock that was set back meanwhile must not grant more than a whole term.
            app.due_at = now + max(0, min(due_wall - wall.at(now), app.ttl_ns))
        if not isinstance(pid, int) or not isinstance(start, int) or not pid:
            return []
        if alive.get(pid) == start:
            app.pid, app.start, app.pid_told = pid, start, bool(item.get("told"))
            return [Watch(pid, start)]
        if item.get("told"):
            app.pid_told = True
            app.gone(now)
        return []

    def gist(self) -> list[tuple[object, ...]]:
        """The part of what is kept that must be on disk soon when it changes."""
        return [
            (name, app.uid, app.pid, app.start, app.state, app.health, app.stall, app.bundle, app.ttl_ns, app.due_at)
            for name, app in self.by_name.items()
        ]

    def sorted(self) -> list[App]:
        """By name."""
        return [self.by_name[name] for name in sorted(self.by_name)]


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _word(words: Any, value: object, default: Any) -> Any:
    try:
        return words(value)
    except ValueError:
        return default
