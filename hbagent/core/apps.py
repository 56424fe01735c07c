"""All applications of a host, and the rules by which a datagram is believed to come from one of them.

Who sent it is what the kernel says of the sender: its process, its user, its unit. A name in the datagram is believed
only of root, of the users that the config lists, of the processes of its unit where the config has one, and otherwise
of the user that spoke for that name first; so nobody speaks for an application of another user, and the most a stranger
can do is to use up names, and to have himself watched by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .app import App
from .config import AppConfig, ProberConfig
from .effects import Drop, Effect, Effects, Watch
from .messages import Notified, ProbeResult
from .names import is_part
from .refusals import Refusals
from .states import AppState, Health, Stall
from .units import MINUTE
from .wallclock import WallClock

#: Refused datagrams are counted by these reasons.
STRANGER, FORBIDDEN, FULL, MALFORMED = "stranger", "forbidden", "too-many-apps", "malformed"
#: Of the names that nobody configured, one user has this share; root has all.
SHARE = 4
#: Bundles that an examination is told to spare: two of as many applications as nobody has; of more, the others.
SPARED_MAX = 2000
#: For so long after somebody was refused for want of names that is shown.
FULL_SHOWN_NS = 10 * MINUTE
#: Keys that only say who is meant.
_NAMING = ("X_HBAGENT_APP", "X_HBAGENT_MAIN", "MAINPID", "X_HBAGENT_STACKS", "BARRIER")
_ROOT = 0


class Apps:
    """The applications by name, and by what they are recognised by."""

    def __init__(self, config: ProberConfig, now: int) -> None:
        self._guests_max = config.guests_max
        self.by_name: dict[str, App] = {}
        self._refusals = Refusals()
        #: Datagrams, and lines of datagrams, refused, by reason.
        self.refused = self._refusals.counts
        self._full_at: int | None = None
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
            if app == FULL:
                self._full_at = now
            effects += self._refuse(app, notified, now)
            return [*effects, Drop(notified.stacks)] if notified.stacks else effects
        fields = dict(notified.fields)
        if fields.get("X_HBAGENT_FORGET") == "1":
            return self._forget(app, now)
        main = fields.get("X_HBAGENT_MAIN") or fields.get("MAINPID")
        if main is not None:
            effects += self._main(app, main, notified, now)
        elif not app.pid and "X_HBAGENT_APP" not in fields:
            app.pid, app.start = notified.pid, notified.start
            app.runs_in = app.unit or _service(notified)
            effects.append(Watch(notified.pid, notified.start))
        if notified.stacks:
            if app.stacks:
                effects.append(Drop(app.stacks))
            app.stacks = notified.stacks
        known = app.speakers()
        said = [item for item in notified.fields if item[0] not in _NAMING]
        others = app.others(notified.pid, notified.ancestors)
        bad = app.tell(said, now, notified.pid, "X_HBAGENT_MAIN" in fields, others)
        if notified.pid in app.speakers() - known:
            effects.append(Watch(notified.pid, notified.start))
        for _ in range(bad):
            effects += self._refuse(MALFORMED, notified, now)
        return effects

    def _refuse(self, reason: str, notified: Notified, now: int) -> Effects:
        """Count it, and say it now and then."""
        name = next((value for key, value in notified.fields if key == "X_HBAGENT_APP"), "")
        return self._refusals.add(f"uid {notified.uid}", reason, now, f"process {notified.pid} {name}".strip())

    def full(self, now: int) -> bool:
        """Somebody was refused lately because all names are taken."""
        return self._full_at is not None and now < self._full_at + FULL_SHOWN_NS

    def full_row(self) -> ProbeResult:
        """What is told of that, as a probe would."""
        count = self.refused[FULL]
        text = f"names of applications are used up (guests_max = {self._guests_max}): {count} datagrams refused"
        return ProbeResult(name="applications", kind="agent", health=Health.WARNING, text=text)

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
            return [*self._refuse(FORBIDDEN, notified, now)]
        app.runs_in = app.unit or _service(notified)
        if (pid, notified.main_start) == (app.pid, app.start):
            app.pid_told = True
            app.named(notified.pid, notified.ancestors)
            return []
        app.begin(pid, notified.main_start, now)
        app.named(notified.pid, notified.ancestors)
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
            if app.unit == notified.unit:
                return app if self._may_speak(app, notified) else FORBIDDEN
        return self._named(notified.unit.rpartition(".")[0] or notified.unit, notified, now)

    def _named(self, name: str, notified: Notified, now: int) -> App | str:
        app = self.by_name.get(name)
        if app is None:
            if not is_part(name):
                return MALFORMED
            if not self._room(notified.uid):
                return FULL
            app = self.by_name[name] = App(AppConfig(name=name), now, guest=True)
            app.uid = notified.uid if notified.uid != _ROOT else None
        return app if self._may_speak(app, notified) else FORBIDDEN

    def _may_speak(self, app: App, notified: Notified) -> bool:
        if notified.uid == _ROOT:
            return True
        if app.config.users:
            return notified.uid in app.config.users
        if app.unit:
            if app.unit == notified.unit:
                app.uid = notified.uid
                return True
            # Who has ended is in no unit any more. A user who has processes there could do worse to them.
            return notified.uid == app.uid and (not notified.start or notified.pid in (app.pid, app.gone_pid))
        if app.uid is None:
            app.uid = notified.uid
        return notified.uid == app.uid

    def _room(self, uid: int | None) -> bool:
        """A guest of whom nothing is due may go for a new one; who is in trouble, or lives, is never forgotten."""
        guests = [app for app in self.by_name.values() if app.guest]
        if uid not in (_ROOT, None):
            own = [app for app in guests if app.uid == uid]
            if len(own) >= max(1, self._guests_max // SHARE):
                return self._make_room(own)
        return len(guests) < self._guests_max or self._make_room(guests)

    def _make_room(self, guests: list[App]) -> bool:
        idle = [app for app in guests if app.health is Health.OK and not app.pid and app.due_at is None]
        idle = [app for app in idle if not any(app.deadlines())]
        if not idle:
            return False
        oldest = min(idle, key=lambda app: app.heard_at or 0)
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

    # ---- evidence ------------------------------------------------------------------------------------------

    def spared(self) -> tuple[int, ...]:
        """Numbers of the bundles that no other makes room of: of who is in trouble first, then of who is expected."""
        apps = sorted(self.by_name.values(), key=lambda app: (app.state is not AppState.STUCK, app.guest))
        return tuple(number for app in apps for number in app.pace.named())[:SPARED_MAX]

    def lost_bundles(self, numbers: Iterable[int]) -> None:
        """These are not there any more."""
        gone = frozenset(numbers)
        for app in self.by_name.values():
            app.pace.lost(gone)

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
                "named_by": app.named_by,
                "parent": app.parent,
                "runs_in": app.runs_in,
                "state": app.state.value,
                "health": app.health.value,
                "stall": app.stall.value if app.stall is not None else None,
                "text": app.text,
                "bundle": app.bundle,
                "first_bundle": app.pace.first,
                "watchdog_ns": app.watchdog_ns,
                "ttl_ns": app.ttl_ns,
                "asked": sorted(app.asked),
                "says_stopping": app.says_stopping,
                "guesses": app.guesses,
                "failed_run": app.failed_run,
                "due_wall_ns": wall.at(app.due_at) if app.due_at is not None else None,
                "since_wall_ns": wall.at(app.since),
                "marks": {
                    mark: (count, queued, window_ns, wall.at(moved_at))
                    for mark, (count, queued, window_ns, moved_at) in app.stuck_marks().items()
                },
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
            if not item.get("guest") or not self._room(None):
                return []
            app = self.by_name[name] = App(AppConfig(name=name), now, guest=True)
        uid, pid, start = item.get("uid"), item.get("pid"), item.get("start")
        # Of one that has a unit, the next word from there tells it anew.
        app.uid = uid if isinstance(uid, int) and not app.unit else None
        app.restore(
            state=_word(AppState, item.get("state"), AppState.READY),
            health=_word(Health, item.get("health"), Health.OK),
            stall=_word(Stall, item.get("stall"), None),
            text=str(item.get("text", "")),
            bundle=str(item.get("bundle", "")),
            first_bundle=str(item.get("first_bundle", "")),
            watchdog_ns=_count(item.get("watchdog_ns")),
            asked=_counts(item.get("asked")),
            says_stopping=bool(item.get("says_stopping", item.get("state") == "stopping" and not item.get("asked"))),
            guesses=bool(item.get("guesses")),
            failed_run=str(item.get("failed_run", "")),
            now=now,
        )
        self._restore_ages(app, item, wall, now)
        due_wall, ttl = item.get("due_wall_ns"), _count(item.get("ttl_ns"))
        if ttl and not app.config.ttl_ns:
            app.ttl_ns = ttl
        if isinstance(due_wall, int) and app.ttl_ns and wall.at(now):
            # A wall clock that was set back meanwhile must not grant more than a whole term.
            app.due_at = now + max(0, min(due_wall - wall.at(now), app.ttl_ns))
        if not isinstance(pid, int) or not isinstance(start, int) or not pid:
            return []
        app.runs_in = app.unit or str(item.get("runs_in", ""))
        if alive.get(pid) == start:
            app.pid, app.start, app.pid_told = pid, start, bool(item.get("told"))
            app.named_by, app.parent = _count(item.get("named_by")), _count(item.get("parent"))
            return [Watch(pid, start)]
        if item.get("told"):
            app.pid, app.start, app.pid_told = pid, start, True
            app.gone(now)
        return []

    @staticmethod
    def _restore_ages(app: App, item: dict[str, Any], wall: WallClock, now: int) -> None:
        """Since when it has been so, and how long its marks have stood, as far as the wall clock can tell."""

        def then(wall_ns: object) -> int:
            return (
                now - max(0, wall.at(now) - wall_ns) if isinstance(wall_ns, int) and wall_ns and wall.at(now) else now
            )

        app.since = then(item.get("since_wall_ns"))
        marks = item.get("marks")
        if app.state is not AppState.STUCK or not isinstance(marks, dict):
            return
        for name, mark in marks.items():
            if isinstance(name, str) and isinstance(mark, (list, tuple)) and len(mark) == 4:
                count, queued, window_ns, moved_wall = mark
                if all(isinstance(number, int) for number in (count, window_ns, 0 if queued is None else queued)):
                    app.restore_mark(name, count, queued, window_ns, then(moved_wall), now)

    def gist(self) -> list[tuple[object, ...]]:
        """The part of what is kept that must be on disk soon when it changes."""
        return [
            (name, app.uid, app.pid, app.start, app.state, app.health, app.stall, app.bundle, app.ttl_ns, app.due_at)
            for name, app in self.by_name.items()
        ]

    def sorted(self) -> list[App]:
        """By name."""
        return [self.by_name[name] for name in sorted(self.by_name)]


def _service(notified: Notified) -> str:
    """The service that the sender is of, which systemd can be asked about."""
    return notified.unit if notified.unit.endswith(".service") else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _counts(value: object) -> list[int]:
    return [one for one in value if isinstance(one, int)] if isinstance(value, (list, tuple)) else []


def _word(words: Any, value: object, default: Any) -> Any:
    try:
        return words(value)
    except ValueError:
        return default
