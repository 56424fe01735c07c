"""One word for a node: what its probes and applications come to together."""

from __future__ import annotations

from collections.abc import Iterable

from .states import HEALTH_ORDER, Health

#: Place of each in `HEALTH_ORDER`: 0 is the worst.
RANK = {health: rank for rank, health in enumerate(HEALTH_ORDER)}


def worse(one: Health, other: Health) -> Health:
    """The worse of two, by `HEALTH_ORDER`."""
    return min(one, other, key=RANK.__getitem__)


def worst(healths: Iterable[Health]) -> Health:
    """The worst of them; OK when there are none."""
    return min(healths, key=RANK.__getitem__, default=Health.OK)


def combined(parts: Iterable[tuple[Health, float]], quorum: float = 0.0) -> Health:
    """The health of a whole from (health, weight) of its parts; OK when it has none.

    With `quorum` 0 the worst part decides, whatever the weights. Otherwise the whole has the worst state that parts of
    `quorum` of all the weight are in or beyond, and anything bad with less weight than that is a WARNING. A part of
    weight 0 counts nothing.
    """
    if not quorum:
        return worst(health for health, _ in parts)
    weights = dict.fromkeys(HEALTH_ORDER, 0.0)
    for health, weight in parts:
        weights[health] += weight
    needed = quorum * sum(weights.values())
    if not needed:
        return Health.OK
    reached = 0.0
    for health in HEALTH_ORDER:
        if health is Health.OK:
            break
        reached += weights[health]
        # Sums of shares such as 0.1 do not come out even.
        if reached >= needed * (1 - 1e-9):
            return health
    return Health.WARNING if reached else Health.OK
