"""When something breaks and heals so often that each time is told no more.

Each trouble of a subject weighs one, and half as much after each half-life: troubles in a row add up, those of last
week count for nothing. Of a node's health each part is weighed by itself, and each step for the worse: one bad probe
must not hold down what is told of another. At the weight `start` a subject begins to flap, which is told once, and it
is over once the weight has sunk below `stop`, which is told once too: two bounds, so that the word itself does not
flap. A share of the last twenty results would need as many results to forget as to learn; a weight needs only time.

Only telling is held down. The state of what flaps is shown as it is.
"""

from __future__ import annotations

import heapq
import math

from .config import FlapConfig
from .states import Axis

#: Half-lives of quiet after which flapping is over, however bad it was: a weight that grew without bound would hold
#: down for hours what broke once a second for minutes.
QUIET_HALF_LIVES = 4
#: Subjects, axes and parts that are remembered: of each of 10,000 nodes its liveness and a part or two.
KEYS_MAX = 25_000

#: Subject, axis, and the part of a node's health; "" on the other axes.
Key = tuple[str, Axis, str]


class Flapping:
    """Weights by subject, axis and part. Bounded: beyond `KEYS_MAX` the one that was calm for longest is forgotten."""

    __slots__ = ("_calm", "_config", "_due", "_flapping", "_keys", "_weight_max")

    def __init__(self, config: FlapConfig) -> None:
        self._config = config
        self._weight_max = max(config.start, config.stop * float(1 << QUIET_HALF_LIVES))
        #: Weight, and when it was that; the one whose trouble is longest ago first.
        self._calm: dict[Key, tuple[float, int]] = {}
        self._flapping: dict[Key, tuple[float, int]] = {}
        #: The keys of both, by subject.
        self._keys: dict[str, set[Key]] = {}
        #: When to look at what flaps: an entry for each, early rather than late, and some of what was forgotten.
        self._due: list[tuple[int, str, Axis, str]] = []

    def use(self, config: FlapConfig) -> None:
        """Another config: what flaps goes on until it is below the new `stop`."""
        self._config = config
        self._weight_max = max(config.start, config.stop * 2**QUIET_HALF_LIVES)
        self._look_anew()

    def trouble(self, subject: str, axis: Axis, now: int, part: str = "") -> bool:
        """Weigh one more; True when it begins to flap with this one."""
        key = (subject, axis, part)
        if key in self._flapping:
            self._flapping[key] = (self._heavier(self._flapping[key], now), now)
            return False
        weight = self._heavier(self._calm.pop(key, (0.0, now)), now)
        self._forget_light(now)
        if len(self._flapping) >= KEYS_MAX:
            self._leave(key)
            return False
        if weight < self._config.start:
            self._calm[key] = (weight, now)
            self._keys.setdefault(subject, set()).add(key)
            return False
        self.resume(subject, axis, now, weight, part)
        return True

    def resume(self, subject: str, axis: Axis, now: int, weight: float | None = None, part: str = "") -> None:
        """It flaps already, for a life of this process before said so: take it up where it would have begun."""
        key = (subject, axis, part)
        self._calm.pop(key, None)
        if key in self._flapping:
            return
        self._keys.setdefault(subject, set()).add(key)
        self._flapping[key] = (self._config.start if weight is None else weight, now)
        heapq.heappush(self._due, (self._over_at(key), *key))

    def is_flapping(self, subject: str, axis: Axis, part: str = "") -> bool:
        """True from the trouble with which it began until `steady` has said that it is over."""
        return (subject, axis, part) in self._flapping

    def steady(self, now: int) -> list[Key]:
        """What flaps no more, each told once, the one that was due first first."""
        over = []
        while self._due and self._due[0][0] <= now:
            _, subject, axis, part = heapq.heappop(self._due)
            key = (subject, axis, part)
            if key not in self._flapping:
                continue
            at = self._over_at(key)
            if at > now:
                heapq.heappush(self._due, (at, *key))
                continue
            # What is left of the weight counts for the next time.
            self._calm[key] = (self._weight(self._flapping.pop(key), now), now)
            over.append(key)
        return over

    def deadline(self) -> int | None:
        """When to call `steady`; None while nothing flaps. It may be too early, never too late."""
        return self._due[0][0] if self._due else None

    def forget(self, subject: str) -> None:
        """A subject that is known no more; its flapping ends without a word."""
        for key in self._keys.pop(subject, ()):
            self._calm.pop(key, None)
            self._flapping.pop(key, None)
        # Their entries are passed over when they come due; so many that most are of those, and it is done at once.
        if len(self._due) > 2 * len(self._flapping):
            self._look_anew()

    def _leave(self, key: Key) -> None:
        """Nothing is remembered of it any more."""
        keys = self._keys.get(key[0], set())
        keys.discard(key)
        if not keys:
            self._keys.pop(key[0], None)

    def _look_anew(self) -> None:
        self._due = [(self._over_at(key), *key) for key in self._flapping]
        heapq.heapify(self._due)

    def _weight(self, kept: tuple[float, int], now: int) -> float:
        weight, at = kept
        return weight * math.pow(0.5, max(now - at, 0) / self._config.half_life_ns)

    def _heavier(self, kept: tuple[float, int], now: int) -> float:
        return min(self._weight(kept, now) + 1.0, self._weight_max)

    def _over_at(self, key: Key) -> int:
        """The first nanosecond at which the weight is below `stop`."""
        weight, at = self._flapping[key]
        return at + int(math.log2(max(weight / self._config.stop, 1.0)) * self._config.half_life_ns) + 1

    def _forget_light(self, now: int) -> None:
        """Drop what was calm for so long that it weighs nothing, and beyond the bound the calmest."""
        nothing = now - 2 * QUIET_HALF_LIVES * self._config.half_life_ns
        while self._calm:
            key = next(iter(self._calm))
            if self._calm[key][1] > nothing and len(self._calm) + len(self._flapping) < KEYS_MAX:
                return
            del self._calm[key]
            self._leave(key)
