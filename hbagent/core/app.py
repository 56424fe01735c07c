"""One application: what it says of itself, what it promised, and whether it keeps that.

It is stuck when its watchdog was not fed, when a progress mark stands still while work is queued for it, when it says
so itself, or when a probe of it gets no answer. Nobody working because there is nothing to do is not stuck. What being
stuck means is for an examination to find out; until that has come back, nothing new is said of its health.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .config import AppConfig
from .messages import DETAILS_MAX, AppRow, Examined, MarkRow
from .pace import EXAMINED_MAX, WINDOW_NS, Pace
from .states import HEALTH_OF, AppState, Health, Stall
from .units import MINUTE, SECOND, show_duration

#: Progress marks of one application; a thread pool has dozens.
MARKS_MAX = 64
#: A text that an application says of itself.
TEXT_LENGTH_MAX = 200
#: How long a stuck application keeps its old health while it is examined: two looks a second apart, and some time.
EXAMINATION_NS = 3 * SECOND
#: An ended process may still have its exit status reported by whoever started it.
RESULT_NS = SECOND
#: systemd may take longer than that to say whether it stopped a unit.
UNIT_NS = 4 * SECOND
#: Who was stuck in an earlier life of the prober stays so for this long, or until it moves: a restart of the prober is
#: no recovery. As long as the longest usual window.
RESTORED_NS = MINUTE

#: A program that was asked to end, or says that it does, has so long for it, as the stop of a unit has 90 s: while it
#: does nothing is due of it. One that lives on after that is judged again.
STOP_NS = 5 * MINUTE
#: SIGINT and SIGTERM: who gets one ends, as a rule. SIGHUP and SIGQUIT make many a program do something else.
_ENDING = (2, 15)
_SIGNALS_MAX = 64
#: What is said of the end of a process, and only of that one.
_OF_AN_END = ("STOPPING", "X_HBAGENT_ASKED", "X_HBAGENT_RESULT")
_ENDED = (AppState.STOPPING, AppState.STOPPED, AppState.FAILED)


class _Mark:
    """One progress mark as it was told last."""

    __slots__ = ("by", "count", "moved_at", "queued", "window_ns")

    def __init__(self, now: int) -> None:
        #: The process that told it last.
        self.by = 0
        self.count: int | None = None
        self.queued: int | None = None
        self.window_ns = 0
        self.moved_at = now

    def tell(self, count: int, queued: int | None, window_ns: int, now: int) -> bool:
        """A datagram named this mark; True when it has moved since the last one."""
        # Work that comes after a rest has the whole window, and so has a thread that starts again from zero.
        moved = self.count is not None and count != self.count
        if moved or self.count is None or (self.queued == 0 and queued != 0):
            self.moved_at = now
        self.count, self.queued, self.window_ns = count, queued, window_ns
        return moved

    @property
    def idle(self) -> bool:
        return self.queued == 0


class App:
    """One application and everything that is known of it."""

    def __init__(self, config: AppConfig, now: int, *, guest: bool = False) -> None:
        self.config = config
        self.guest = guest
        #: By its full name, as the kernel's control groups have it.
        self.unit = config.unit if not config.unit or "." in config.unit else f"{config.unit}.service"
        #: The unit in which its process was when it was heard first.
        self.runs_in = self.unit
        #: Who speaks for it, beside root and the configured users; None: nobody has yet.
        self.uid: int | None = None
        #: Its process, and that process's start time; 0: not known.
        self.pid = 0
        self.start = 0
        #: It said so itself; otherwise it was only the first to speak.
        self.pid_told = False
        #: Who named that process last, itself or whoever started it, and its parent; 0: not known.
        self.named_by = self.parent = 0
        self.state = AppState.READY
        self.status = ""
        self.stacks = 0
        self.marks: dict[str, _Mark] = {}
        self.health = Health.OK
        self.text = ""
        self.since = now
        self.stall: Stall | None = None
        self.details: tuple[str, ...] = ()
        self.pace = Pace()
        #: The evidence of the trouble that it is in now has been kept.
        self.evident = False
        #: What the last examination found, in a clause.
        self._found = ""
        #: Why it is not restarted any more; "" while it may be.
        self.given_up = ""
        self.heard_at: int | None = None
        self.watchdog_ns = config.watchdog_ns
        #: From when on the watchdog counts; None: it has not been fed yet.
        self._fed_at: int | None = None
        self._started_at = now
        self._extended_until = now
        self._says_stuck = False
        #: Names of its probes that get no answer.
        self._silent: dict[str, str] = {}
        self._stuck_at: int | None = None
        self._examine_at: int | None = None
        self.examining = False
        self._gone_at: int | None = None
        self._judged_from: int | None = None
        #: Its process that is gone; 0: it is not, or was none.
        self.gone_pid = self.gone_start = 0
        #: The question to systemd how that one ended: none yet (None), under way (its number), or answered (0).
        self._question: int | None = None
        #: Signals that whoever started it was asked to hand on; an end by one of these is no failure.
        self.asked: set[int] = set()
        #: Since when it stops because it was asked to, or said so; None: it does not, or that was too long ago.
        self._asked_at: int | None = None
        #: It said that it stops, and nothing else since; or it has only guessed so as it ended.
        self.says_stopping = self.guesses = False
        self._result = ""
        #: How the last run of a job failed, for as long as none has succeeded since.
        self.failed_run = ""
        self.ttl_ns = config.ttl_ns
        #: A job's next success is due at this instant; None: it is no job.
        self.due_at: int | None = now + config.ttl_ns if config.ttl_ns else None

    # ---- what it says ------------------------------------------------------------------------------------

    def begin(self, pid: int, start: int, now: int) -> None:
        """It has a (new) process of its own telling, or of that of whoever started it."""
        self.pid, self.start, self.pid_told = pid, start, True
        self._restart(now)

    def named(self, by: int, ancestors: Sequence[int]) -> None:
        """This process has named the main one: itself, one that it has started, or its parent."""
        self.named_by = by
        lineage = (by, *ancestors, 0)
        self.parent = lineage[lineage.index(self.pid) + 1] if self.pid in lineage else by

    def others(self, by: int, ancestors: Sequence[int]) -> Sequence[str]:
        """What this process says of an end and does not mean the main one: that is told of by itself, its children, and
        whoever named it; by its parent as well, which may be one that it has relieved and stops itself. Who was
        relieved speaks of its own end, and so does whoever started that one."""
        if not self.pid or not self.pid_told or by in (self.pid, self.named_by) or self.pid in ancestors:
            return ()
        return _OF_AN_END[:1] if by == self.parent or not self.named_by else _OF_AN_END

    def tell(
        self, fields: Iterable[tuple[str, str]], now: int, by: int = 0, begins: bool = False, others: Sequence[str] = ()
    ) -> int:
        """Take what a datagram says; returns how many of its lines made no sense. What is unknown is passed over.

        `by` is the process that sent it. With `begins` it is what whoever started the application says of it: a term
        is then set and not yet kept, and a watchdog not yet fed. Lines of `others` are about another
        process of it.
        """
        self.heard_at = now
        fields = tuple(fields)
        guess = ("X_HBAGENT_GUESS", "1") in fields
        bad = 0
        for key, value in fields:
            if key in others:
                bad += not self._other_ended(key, value, now)
            elif key == "STOPPING" and value == "1":
                self._stop(by, guess, now)
            else:
                bad += not self._tell(key, value, now, by, begins)
        return bad

    def _other_ended(self, key: str, value: str, now: int) -> bool:
        """Another process of it ends, or has ended: of a job, with a success nevertheless."""
        if key == "X_HBAGENT_RESULT" and value == "0":
            self._succeed(now)
        return key == "STOPPING" or _is_count(value)

    def _tell(self, key: str, value: str, now: int, by: int, begins: bool) -> bool:
        if key == "READY" and value == "1":
            self._fed_at = now
            self._succeed(now)
            self._come(AppState.READY)
            if self._gone_at is None:
                self.says_stopping = self.guesses = False
        elif key == "RELOADING" and value == "1":
            self._come(AppState.RELOADING)
        elif key == "STATUS":
            self.status = value[:TEXT_LENGTH_MAX]
        elif key == "WATCHDOG" and value == "1":
            self._fed_at = now
            self._says_stuck = False
            self._judged_from = None
            if self.state is AppState.STARTING:
                self.state = AppState.READY
        elif key == "WATCHDOG" and value == "trigger":
            self._says_stuck = True
        elif key == "WATCHDOG_USEC":
            return self._watchdog(value, now, begins)
        elif key == "EXTEND_TIMEOUT_USEC":
            extended = _usec(value)
            if extended is None:
                return False
            self._extended_until = max(self._extended_until, now + extended)
        elif key == "X_HBAGENT_PROGRESS":
            return self._progress(value, now, by)
        elif key == "X_HBAGENT_TTL_USEC":
            ttl = _usec(value)
            if not ttl:
                return False
            self.ttl_ns = ttl
            if not begins:
                self._succeed(now)
            elif self.due_at is None:
                self.due_at = now + ttl
        elif key == "X_HBAGENT_ASKED":
            return self._ask(value, now)
        elif key == "X_HBAGENT_RESULT":
            return self._ended(value, now)
        return True

    def _watchdog(self, value: str, now: int, begins: bool) -> bool:
        watchdog = _usec(value)
        if watchdog is None:
            return False
        self.watchdog_ns = watchdog
        if begins and watchdog and self._fed_at is None and self.state is AppState.READY:
            self.state, self._started_at = AppState.STARTING, now
        if self._fed_at is not None:
            self._fed_at = now
        return True

    def _progress(self, value: str, now: int, by: int) -> bool:
        """`MARK COUNT [queued=N] [window=SECONDS]`."""
        name, *words = value.split()[:8] or [""]
        if not name or len(name) > 64 or not words or not _is_count(words[0]):
            return False
        options = dict(word.partition("=")[::2] for word in words[1:])
        queued, window = options.get("queued"), options.get("window")
        if queued is not None and not _is_count(queued):
            return False
        window_ns = _seconds(window) if window is not None else self.config.window_ns
        if not window_ns or (name not in self.marks and len(self.marks) >= MARKS_MAX):
            return False
        mark = self.marks.setdefault(name, _Mark(now))
        mark.by = by
        if mark.tell(int(words[0]), None if queued is None else int(queued), window_ns, now):
            self._judged_from = None
        return True

    def _come(self, state: AppState) -> None:
        if self._gone_at is None or state is AppState.READY:
            self.state = state

    def _stop(self, by: int, guess: bool, now: int) -> None:
        """It says that it stops; the process that has ended since may have been the one that said so."""
        if not self.pid and self.gone_pid and self.state in (AppState.STOPPED, AppState.FAILED):
            # It is known how it ended.
            return
        if self._gone_at is None:
            self.state, self._asked_at = AppState.STOPPING, now
        elif not by or by != self.gone_pid:
            return
        elif not guess or not self.runs_in:
            self.state, self._gone_at = AppState.STOPPED, None
        if guess:
            self.guesses = True
        else:
            self.says_stopping = True

    def _ask(self, value: str, now: int) -> bool:
        """It was sent a signal by whoever started it."""
        number = int(value) if _is_count(value) else 0
        if not 0 < number <= _SIGNALS_MAX:
            return False
        self.asked.add(number)
        # Nobody is well because he was asked to stop while he is stuck: he may not hear it.
        lives = self.state in (AppState.STARTING, AppState.READY, AppState.RELOADING) or self._asked_at is not None
        if number in _ENDING and lives and self._gone_at is None:
            self.state, self._asked_at = AppState.STOPPING, now
        return True

    # ---- what becomes of it ------------------------------------------------------------------------------

    def lost(self, pid: int) -> None:
        """A process that was not the main one, and may have told of marks, has ended; nothing is due of it any more."""
        self.marks = {name: mark for name, mark in self.marks.items() if mark.by != pid}

    def speakers(self) -> set[int]:
        """Processes, beside the main one, of whose marks something is due."""
        return {mark.by for mark in self.marks.values()} - {0, self.pid}

    def gone(self, now: int) -> None:
        """Its process has ended."""
        told, self.gone_pid, self.gone_start = self.pid_told, self.pid, self.start
        self.pid = self.start = 0
        self._question = None
        self.marks.clear()
        self._silent.clear()
        self._says_stuck = False
        self._fed_at = self._judged_from = self._asked_at = None
        if self.state is AppState.STOPPING and self.guesses and not self.says_stopping and self.runs_in:
            self._gone_at = now
        elif self.state is AppState.STOPPING or (self.says_stopping and self.state not in _ENDED):
            self.state = AppState.STOPPED
        elif (told or self.state is AppState.STUCK) and self.state not in _ENDED:
            self._gone_at = now

    def wants_answer(self) -> bool:
        """Nobody has said how it ended, or it has only guessed, and systemd may know."""
        return self._gone_at is not None and self._question is None and bool(self.runs_in and self.gone_pid)

    def ask(self, run: int) -> None:
        """Systemd is asked."""
        self._question = run

    def answered(self, run: int, stopped: bool | None, text: str) -> None:
        """Systemd answers; who said something of his own meanwhile is not contradicted."""
        if run != self._question:
            return
        self._question = 0
        if self._gone_at is None or stopped is None:
            return
        self._gone_at = None
        if stopped:
            self.state = AppState.STOPPED
        else:
            self._fail(text)

    def _told_until(self) -> int:
        """Until when it may become known how it ended."""
        assert self._gone_at is not None
        return self._gone_at + (UNIT_NS if self._question else RESULT_NS)

    def _ended(self, value: str, now: int) -> bool:
        """Whoever started it tells its exit status."""
        if not _is_count(value):
            return False
        self._gone_at = None
        self.marks.clear()
        self._fed_at = None
        code = int(value)
        if code == 0:
            self.state = AppState.STOPPED
            self._succeed(now)
        elif self.says_stopping or code - 128 in self.asked:
            # On purpose. A program that catches the signal that asked ends with the status of one that does not.
            self.state = AppState.STOPPED
        else:
            self._fail(f"it ended by signal {code - 128}" if code > 128 else f"it ended with exit status {code}")
        return True

    def _fail(self, text: str) -> None:
        self.state, self._result = AppState.FAILED, text
        if self.ttl_ns:
            self.failed_run = text

    def _succeed(self, now: int) -> None:
        self.failed_run = ""
        if self.ttl_ns:
            self.due_at = now + self.ttl_ns

    def _restart(self, now: int) -> None:
        self.state = AppState.STARTING if self.watchdog_ns else AppState.READY
        self.marks.clear()
        self._silent.clear()
        self._fed_at = None
        self._started_at = self._extended_until = now
        self._says_stuck = False
        self._gone_at = self._judged_from = self._asked_at = None
        self.gone_pid = 0
        self.says_stopping = self.guesses = False
        self.asked.clear()
        self._result = ""
        self._rest()

    def restarted(self, now: int) -> None:
        """Its unit was restarted: another process, of which nothing is known yet."""
        self.pid = self.start = self.named_by = self.parent = 0
        self.pid_told = False
        self._restart(now)

    def probed(self, probe: str, silent: bool, text: str) -> None:
        """One of its probes gets no answer, or gets one again."""
        if silent:
            self._silent[probe] = text
        else:
            self._silent.pop(probe, None)

    def forgive(self, now: int) -> None:
        """Nobody listened for a while: what was promised counts from now."""
        if self._fed_at is not None:
            self._fed_at = now
        self._started_at = now
        for mark in self.marks.values():
            mark.moved_at = now

    def slept(self, suspended_ns: int, now: int) -> None:
        """The host was suspended; a job's time goes on meanwhile."""
        if self.due_at is not None:
            self.due_at -= suspended_ns
        self.forgive(now)

    # ---- verdict -----------------------------------------------------------------------------------------

    def look(self, now: int) -> bool:
        """Form the health anew; True when it, or the state, changed."""
        before = self.health, self.state, self.stall, self.bundle
        if self._gone_at is not None and now >= self._told_until():
            self._gone_at = None
            if self.guesses:
                self.state = AppState.STOPPED
            else:
                self._fail("its process is gone, and nobody said why")
        self._look(now)
        if self.health is not before[0]:
            self.since = now
        return before != (self.health, self.state, self.stall, self.bundle)

    def _look(self, now: int) -> None:
        if self._asked_at is not None and (self.state is not AppState.STOPPING or now >= self._asked_at + STOP_NS):
            if self.state is AppState.STOPPING:
                # It has other plans.
                self.state = AppState.READY
                self.forgive(now)
            self._asked_at = None
        if self.due_at is not None and now >= self.due_at:
            self._rest()
            self._be(AppState.EXPIRED, self.config.overdue, f"no success within {show_duration(self.ttl_ns)}")
            return
        if self.state is AppState.EXPIRED:
            self.state = AppState.STOPPED
        if self._gone_at is not None:
            # Until it is known how it ended, it is what it was.
            return
        if self.state in _ENDED:
            self._rest()
        if self.state is AppState.FAILED:
            self._be(AppState.FAILED, Health.CRITICAL, self._result)
            return
        if self.state in _ENDED:
            self._be(self.state, Health.OK, "")
            return
        trouble = self.trouble(now)
        if not trouble and self._judged_from is not None and now < self._judged_from:
            return
        self._judged_from = None
        if not trouble:
            late = self.state is AppState.STARTING and now >= self._start_until()
            self._rest()
            if late:
                text = f"it did not say READY=1 within {show_duration(self.config.start_timeout_ns)}"
                self._be(AppState.STARTING, Health.CRITICAL, text)
            else:
                self._be(AppState.READY if self.state is AppState.STUCK else self.state, Health.OK, "")
            return
        if self._stuck_at is None:
            self._stuck_at, self._examine_at = now, self.pace.earliest(now)
        if self.stall is not None:
            self._be(AppState.STUCK, HEALTH_OF[self.stall], f"{trouble}; {self._found}" if self._found else trouble)
        elif not self.findable or now >= self._stuck_at + EXAMINATION_NS:
            self._be(AppState.STUCK, Health.STALLED, f"{trouble}{self._unexamined(now)}")

    def _be(self, state: AppState, health: Health, text: str) -> None:
        if self.failed_run and health is Health.OK:
            # To begin again is no success yet.
            health = Health.CRITICAL
            text = self.failed_run if state is AppState.STOPPED else f"{self.failed_run}, and is running again"
        self.state, self.health, self.text = state, health, text

    def _unexamined(self, now: int) -> str:
        if not self.findable or self._examine_at is None or now >= self._examine_at:
            return ""
        return f"; it was examined {EXAMINED_MAX} times within {show_duration(WINDOW_NS)}, and will be again later"

    def _rest(self) -> None:
        """It is not stuck (any more). What it was found in, and the evidence, stay known."""
        self._stuck_at = self._examine_at = None
        self.stall = None
        self.pace.over()
        self.details = ()
        self._found = self.given_up = ""
        self.evident = False

    def trouble(self, now: int) -> str:
        """Why it is stuck, in a clause; "" when it is not."""
        if self._says_stuck:
            return "it says itself that it is stuck"
        if self._starves(now):
            assert self._fed_at is not None
            return f"its watchdog was not fed for {show_duration(now - self._fed_at)}"
        for name, mark in sorted(self.marks.items()):
            if not mark.idle and now >= mark.moved_at + mark.window_ns:
                queued = "" if mark.queued is None else f" with {mark.queued} queued"
                return f"mark {name} has stood at {mark.count} for {show_duration(now - mark.moved_at)}{queued}"
        for name, text in sorted(self._silent.items()):
            return f"probe {name}: {text}" if text else f"probe {name} gets no answer"
        return ""

    def _starves(self, now: int) -> bool:
        due = self._feeding_due()
        return due is not None and now >= due

    def _feeding_due(self) -> int | None:
        if not self.watchdog_ns or self._fed_at is None or self.state in _ENDED:
            return None
        return max(self._fed_at + self.watchdog_ns, self._extended_until)

    def _start_until(self) -> int:
        return max(self._started_at + self.config.start_timeout_ns, self._extended_until)

    # ---- examination -------------------------------------------------------------------------------------

    @property
    def findable(self) -> bool:
        """Its process is known, or where to find it."""
        return bool(self.pid or self.config.unit or self.config.pidfile)

    def wants_examination(self, now: int) -> bool:
        """It is stuck, and it is time to look (again)."""
        return self._examine_at is not None and now >= self._examine_at and not self.examining and self.findable

    @property
    def bundle(self) -> str:
        """Name of the newest evidence about it; "" for none."""
        return self.pace.newest

    def begin_examination(self, now: int) -> None:
        """It is being examined."""
        self.examining = True
        self.pace.begun(now)

    def was_put_off(self, now: int) -> int | None:
        """For how long its examination had to be put off; None when it had not, or that was said."""
        if self.stall is not None or self._examine_at is None or not self.findable:
            return None
        return self._examine_at - now if self.pace.put_off(self._examine_at, now) else None

    def examined(self, examined: Examined, now: int) -> None:
        """The examination came back."""
        self.examining = False
        self.pace.kept(examined.bundle, self._stuck_at is not None)
        if self._stuck_at is None:
            # It moved again meanwhile; the evidence is kept all the same.
            return
        first = self.stall is None
        self._examine_at = self.pace.after(first, examined.stall is self.stall, now)
        if examined.stall is Stall.UNKNOWN and not first:
            # It could not be looked at this time; what was found then still stands.
            return
        self.stall = examined.stall
        self.details = examined.details
        self.evident = self.evident or bool(examined.bundle)
        self._found = examined.text or examined.error

    def restore(
        self,
        *,
        state: AppState,
        health: Health,
        stall: Stall | None,
        text: str,
        bundle: str,
        first_bundle: str,
        watchdog_ns: int,
        asked: Iterable[int],
        says_stopping: bool,
        guesses: bool,
        failed_run: str,
        now: int,
    ) -> None:
        """Go on where an earlier life of the prober ended. Who was stuck then is so until the time has come to judge
        anew; its promises count from now."""
        self.state, self.health, self.stall = state, health, stall
        self.text, self.pace.newest = text, bundle
        self.pace.first = first_bundle if state is AppState.STUCK else ""
        self.watchdog_ns = self.config.watchdog_ns or watchdog_ns
        self.since = now
        if self.watchdog_ns and state in (AppState.READY, AppState.STUCK):
            self._fed_at = now
        self.asked, self.failed_run = set(asked), failed_run
        self.says_stopping, self.guesses = says_stopping, guesses
        if state is AppState.STOPPING:
            self._asked_at = now
        if state is AppState.FAILED:
            self._result = text
        if state is AppState.STUCK:
            self._judged_from = now + RESTORED_NS

    def stuck_marks(self) -> dict[str, tuple[int, int | None, int, int]]:
        """Of one that is stuck: count, queue and window of each mark, and when it moved last."""
        if self.state is not AppState.STUCK:
            return {}
        return {
            name: (mark.count, mark.queued, mark.window_ns, mark.moved_at)
            for name, mark in self.marks.items()
            if mark.count is not None
        }

    def restore_mark(self, name: str, count: int, queued: int | None, window_ns: int, moved_at: int, now: int) -> None:
        """A mark that stood still when an earlier life of the prober ended."""
        if len(self.marks) < MARKS_MAX and window_ns > 0:
            mark = self.marks[name] = _Mark(now)
            mark.tell(count, queued, window_ns, now)
            mark.moved_at = min(moved_at, now)

    # ---- showing and keeping -----------------------------------------------------------------------------

    def deadlines(self, examinations: bool = True) -> Iterator[int]:
        """When it may change by itself; with `examinations` also when it wants to be examined."""
        if self._gone_at is not None:
            yield self._told_until()
        if self._judged_from is not None:
            yield self._judged_from
        if self.state is AppState.EXPIRED:
            return
        if self.due_at is not None:
            yield self.due_at
        if self._stuck_at is not None:
            if self.stall is None and self.health is Health.OK:
                yield self._stuck_at + EXAMINATION_NS
            if examinations and self._examine_at is not None and not self.examining and self.findable:
                yield self._examine_at
            return
        if self._asked_at is not None:
            yield self._asked_at + STOP_NS
        if self.state in _ENDED:
            return
        due = self._feeding_due()
        if due is not None:
            yield due
        if self.state is AppState.STARTING and self.health is Health.OK:
            yield self._start_until()
        for mark in self.marks.values():
            if not mark.idle:
                yield mark.moved_at + mark.window_ns

    def row(self, now: int) -> AppRow:
        """Its line in a report."""
        marks = tuple(
            MarkRow(
                name=name,
                count=mark.count or 0,
                queued=mark.queued,
                age_ns=now - mark.moved_at,
                window_ns=mark.window_ns,
            )
            for name, mark in sorted(self.marks.items())
        )
        about = self.pace.lines()
        return AppRow(
            name=self.config.name,
            health=self.health,
            state=self.state,
            text=f"{self.text}; {self.given_up}" if self.given_up else self.text,
            status=self.status,
            stall=self.stall,
            details=(*self.details[: DETAILS_MAX - len(about)], *about),
            pid=self.pid,
            since_ns=now - self.since,
            bundle=self.bundle,
            marks=marks,
        )


def _usec(value: str) -> int | None:
    """Nanoseconds of a number of microseconds; None for what is none, or longer than a year."""
    if not _is_count(value):
        return None
    ns = int(value) * 1000
    return ns if ns <= 365 * 24 * 60 * MINUTE else None


def _seconds(value: str) -> int | None:
    try:
        ns = round(float(value) * SECOND)
    except (ValueError, OverflowError):
        return None
    return ns if SECOND // 10 <= ns <= 24 * 60 * MINUTE else None


def _is_count(value: str) -> bool:
    return value.isascii() and value.isdecimal() and len(value) <= 19
