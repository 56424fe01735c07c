"""Asking nodes that are back why they were silent, until they say so: one question for each silence.

The word that is made of the answer (`core.account`) is history, and tells the detector whether a beat was late or the
node stood still.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from .account import STOOD_STILL, reason
from .effects import Send
from .member import Member
from .messages import Account, AccountWanted, Evidence
from .roster import Change
from .states import Kind
from .units import SECOND

#: A node that is back is asked this often, once a second, why it was silent; then nobody will know.
TRIES = 10


class _Owed(msgspec.Struct):
    """An account that has not come yet."""

    number: int
    silent_ns: int
    tries: int = 0


class Accounts:
    """The accounts that one leader waits for."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members = members
        self._owed: dict[str, _Owed] = {}
        self._number = 0

    def want(self, change: Change) -> None:
        """A node that was suspected, or worse, is back in the same life: it knows why it was not heard."""
        if change.kind is Kind.NODE_RECOVERED and change.evidence.silent_ns is not None:
            self._number += 1
            self._owed[change.member.name] = _Owed(self._number, change.evidence.silent_ns)

    def ask(self) -> Iterator[Send]:
        """At once and each second, since a node's beats are heard before its control connection is there again."""
        for node, owed in list(self._owed.items()):
            if owed.tries >= TRIES:
                del self._owed[node]
                continue
            owed.tries += 1
            since_ns = owed.silent_ns + owed.tries * SECOND + self._members[node].interval_ns
            yield Send(node, AccountWanted(number=owed.number, since_ns=since_ns))

    def take(self, sender: str, account: Account) -> Change | None:
        """A node says why it was silent; None when nobody wants to know, or not any more."""
        owed, member = self._owed.get(sender), self._members.get(sender)
        if owed is None or member is None or owed.number != account.number:
            return None
        del self._owed[sender]
        word, text = reason(account, owed.silent_ns, member.interval_ns)
        if word in STOOD_STILL:
            member.detector.forgive(owed.silent_ns)
        evidence = Evidence(
            text=f"{word}: {text}",
            incarnation=account.incarnation,
            silent_ns=owed.silent_ns,
            interval_ns=member.interval_ns,
            account=account,
        )
        return Change(
            member=member,
            kind=Kind.NODE_ACCOUNTED,
            before=member.liveness,
            after=member.liveness,
            cause=member.cause,
            evidence=evidence,
        )

    def forget(self, node: str) -> None:
        """A node is expected no longer."""
        self._owed.pop(node, None)
