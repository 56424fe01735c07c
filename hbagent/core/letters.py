"""Dead letters: what was given up after the last retry, and is told again once its hook works.

A pager that is down for an hour must not be the reason that nobody hears of a host which is still dead by then. So the
newest letter about each trouble, or its end, is kept in mind. The hook is tried with one of them now and then; as soon
as anything that it was given ends well, all others follow. What is no longer true is told to nobody.
"""

from __future__ import annotations

from .records import HookRun
from .states import Axis
from .units import HOUR, MINUTE

#: A hook that has given up is tried again after this, then after twice as long each time, up to the other.
AGAIN_NS = 10 * MINUTE
AGAIN_MAX_NS = HOUR
#: A letter that fails while others of its hook do not is given up for good after so many times.
TIMES_MAX = 3
#: Letters of one hook that are kept in mind; beyond, the oldest is a matter for people.
LETTERS_MAX = 10_000

#: Subject and axis; a summary is known by its event.
_Key = tuple[str, "Axis | None"]


class _Hook:
    __slots__ = ("due", "letters", "tries")

    def __init__(self) -> None:
        #: The one that is to be tried first, first.
        self.letters: dict[_Key, HookRun] = {}
        self.due = 0
        #: Failed in a row.
        self.tries = 0


class Letters:
    """The letters that may still be told, by hook. What is handed out is kept in mind no more, until it fails again."""

    def __init__(self) -> None:
        self._hooks: dict[str, _Hook] = {}
        #: How often a letter was tried because its hook works, by run.
        self._times: dict[str, int] = {}

    def given_up(self, run: HookRun, now: int) -> None:
        """The last retry of `run` has failed."""
        hook = self._hooks.setdefault(run.hook, _Hook())
        key = _key_of(run)
        newer = hook.letters.get(key)
        if newer is not None and newer.queued > run.queued:
            return
        hook.letters.pop(key, None)
        hook.letters[key] = run
        while len(hook.letters) > LETTERS_MAX:
            self._times.pop(hook.letters.pop(next(iter(hook.letters))).run_id, None)
        hook.due = now + min(AGAIN_NS << min(hook.tries, 10), AGAIN_MAX_NS)

    def worked(self, run: HookRun) -> list[HookRun]:
        """A run of its hook has ended well: the letters of that hook that are to be tried now, the oldest first."""
        self._times.pop(run.run_id, None)
        hook = self._hooks.pop(run.hook, None)
        if hook is None:
            return []
        older = hook.letters.get(_key_of(run))
        if older is not None and older.queued <= run.queued:
            # Whoever knows the newer does not want to hear the older.
            del hook.letters[_key_of(run)]
        found = []
        for letter in sorted(hook.letters.values(), key=lambda one: one.queued):
            times = self._times.get(letter.run_id, 0)
            if times < TIMES_MAX:
                self._times[letter.run_id] = times + 1
                found.append(letter)
            else:
                del self._times[letter.run_id]
        return found

    def due(self, now: int) -> list[HookRun]:
        """One letter of each hook that was left alone for long enough."""
        found = []
        for hook in self._hooks.values():
            if hook.letters and now >= hook.due:
                found.append(hook.letters.pop(next(iter(hook.letters))))
                hook.tries += 1
                hook.due = now + AGAIN_MAX_NS
        return found

    def deadline(self) -> int | None:
        """When `due` wants to be called; None while there is no letter."""
        return min((hook.due for hook in self._hooks.values() if hook.letters), default=None)

    def __len__(self) -> int:
        return sum(len(hook.letters) for hook in self._hooks.values())


def _key_of(run: HookRun) -> _Key:
    return (run.event_id, None) if run.members else (run.subject, run.axis)
