"""Dead letters: what was given up after the last retry, and is told again once its hook works.

A pager that is down for an hour must not be the reason that nobody hears of a host which is still dead by then. So
letters are kept in mind. A hook is tried with one of its own now and then; as soon as anything that it was given ends
well, all others follow. Whether a letter is still true is for `core.alerts` to say: it takes one, and gives it back
when something objects for now.
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


class _Hook:
    __slots__ = ("due", "letters", "tries")

    def __init__(self) -> None:
        #: By run; the one that is to be tried first, first.
        self.letters: dict[str, HookRun] = {}
        self.due = 0
        #: Failed in a row.
        self.tries = 0


class Letters:
    """The letters that may still be told, by hook. What was taken is kept in mind no more, until it is given up again
    or given back."""

    def __init__(self) -> None:
        self._hooks: dict[str, _Hook] = {}
        #: How often a letter was told again because its hook works, by run.
        self._times: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(len(hook.letters) for hook in self._hooks.values())

    def given_up(self, run: HookRun, now: int) -> None:
        """The last retry of `run` has failed."""
        hook = self._keep(run)
        hook.due = now + min(AGAIN_NS << min(hook.tries, 10), AGAIN_MAX_NS)

    def give_back(self, run: HookRun) -> None:
        """It was taken, and something objects to it for now."""
        self._keep(run)

    def _keep(self, run: HookRun) -> _Hook:
        hook = self._hooks.setdefault(run.hook, _Hook())
        hook.letters.pop(run.run_id, None)
        hook.letters[run.run_id] = run
        while len(hook.letters) > LETTERS_MAX:
            self.forget(next(iter(hook.letters.values())))
        return hook

    def forget(self, run: HookRun) -> None:
        """Somebody else sees to it, or it is true no more."""
        self._times.pop(run.run_id, None)
        hook = self._hooks.get(run.hook)
        if hook is not None:
            hook.letters.pop(run.run_id, None)

    def worked(self, run: HookRun, now: int) -> list[HookRun]:
        """A run of its hook has ended well: takes the letters of that hook that may be told now, the oldest first."""
        self.forget(run)
        hook = self._hooks.get(run.hook)
        if hook is None:
            return []
        hook.tries, hook.due = 0, now + AGAIN_NS
        found = []
        for letter in sorted(hook.letters.values(), key=lambda one: one.queued):
            if _is_overtaken(letter, run) or self._times.get(letter.run_id, 0) >= TIMES_MAX:
                self.forget(letter)
            else:
                found.append(letter)
        hook.letters.clear()
        return found

    def told_again(self, run: HookRun) -> None:
        """It is owed once more, for its hook works."""
        self._times[run.run_id] = self._times.get(run.run_id, 0) + 1

    def due(self, now: int) -> list[str]:
        """The hooks that were left alone for long enough."""
        return [name for name, hook in self._hooks.items() if hook.letters and now >= hook.due]

    def take(self, name: str) -> list[HookRun]:
        """All letters of a hook, the one that is to be tried next first."""
        letters = list(self._hooks[name].letters.values())
        self._hooks[name].letters.clear()
        return letters

    def looked_at(self, name: str, tried: bool, now: int) -> None:
        """A hook is tried with one of its letters; or with none, as nothing can be told now."""
        hook = self._hooks[name]
        hook.tries += tried
        hook.due = now + (AGAIN_MAX_NS if tried else AGAIN_NS)

    def deadline(self) -> int | None:
        """When `due` wants to be asked; None while there is no letter."""
        return min((hook.due for hook in self._hooks.values() if hook.letters), default=None)


def _is_overtaken(letter: HookRun, told: HookRun) -> bool:
    """True when `told` is a newer word about all that `letter` tells of: of a node's health only its end is, and of
    many only `core.alerts` knows."""
    same = (letter.subject, letter.axis, letter.members) == (told.subject, told.axis, ())
    return same and letter.queued < told.queued and (told.end or told.axis is not Axis.HEALTH)
