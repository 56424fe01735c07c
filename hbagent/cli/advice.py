"""What is allowed in a config file and seldom meant: hooks that wait for what never comes.

Who acts on one kind alone (cuts the power of the dead) wants neither its end nor anything else. Who is told of several
tells people, and they also want to know when it is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hbagent.core.config import HookConfig
from hbagent.core.states import Kind

#: What begins, and what tells that it is over; a health says both with one kind.
_ENDS = {
    Kind.NODE_SUSPECT: Kind.NODE_RECOVERED,
    Kind.NODE_DEAD: Kind.NODE_RECOVERED,
    Kind.NODE_AWAY: Kind.NODE_RECOVERED,
    Kind.NODE_FLAPPING: Kind.NODE_STEADY,
    Kind.RACK_DARK: Kind.RACK_RECOVERED,
    Kind.LEADER_LOST: Kind.LEADER_RECOVERED,
    Kind.ROOT_ISOLATED: Kind.LEADER_RECOVERED,
}


def advice(hook: HookConfig) -> Iterator[str]:
    """What to think over in the `on` of a hook, a sentence each; none for most."""
    on = [kind for kind in hook.on if kind is not Kind.SUMMARY]
    if not on:
        yield (
            '"summary" alone tells it nothing: a summary comes, without being listed, to who is told of what it '
            "stands for; list that"
        )
    if len(on) < 2:
        return
    for end in dict.fromkeys(_ENDS.values()):
        begun = [kind for kind in on if _ENDS.get(kind) is end]
        if begun and end not in on:
            also = " (node-restarted does not tell all of it)" if Kind.NODE_RESTARTED in on and _of_node(begun) else ""
            yield f"it is told of {_words(begun)} and not when that is over{also}: add {_words([end])}"
    if Kind.NODE_DEAD in on and Kind.NODE_FLAPPING not in on:
        text = "it is told of node-dead, and nothing of a node that dies again and again"
        yield f"{text}: add {_words([Kind.NODE_FLAPPING, Kind.NODE_STEADY])}"


def _of_node(kinds: Iterable[Kind]) -> bool:
    return any(_ENDS[kind] is Kind.NODE_RECOVERED for kind in kinds)


def _words(kinds: Iterable[Kind]) -> str:
    return " and ".join(dict.fromkeys(kind.value for kind in kinds))
