from __future__ import annotations

from typing import Any

import pytest

from hbagent.core.accounts import TRIES, Accounts
from hbagent.core.config import DetectorConfig
from hbagent.core.detector import make_detector
from hbagent.core.member import Member
from hbagent.core.messages import Account, AccountWanted, Evidence
from hbagent.core.roster import Change
from hbagent.core.states import Kind, Liveness
from hbagent.core.units import SECOND
from tests.build import NODE, NODE2, T


@pytest.fixture
def member() -> Member:
    return Member(NODE, make_detector(DetectorConfig(), lambda instant: 0), SECOND, 0)


@pytest.fixture
def accounts(member: Member) -> Accounts:
    return Accounts({NODE: member})


def back(member: Member, kind: Kind = Kind.NODE_RECOVERED, silent_ns: int | None = T(4)) -> Change:
    evidence = Evidence(text="beats again", silent_ns=silent_ns)
    before, after = Liveness.SUSPECT, Liveness.ALIVE
    return Change(member=member, kind=kind, before=before, after=after, cause=None, evidence=evidence)


def asked(accounts: Accounts) -> list[tuple[str, int, int]]:
    found = []
    for send in accounts.ask():
        assert isinstance(send.message, AccountWanted)
        found.append((send.peer, send.message.number, send.message.since_ns // SECOND))
    return found


def account(number: int, **fields: Any) -> Account:
    return Account(number=number, incarnation=7, covered_ns=T(9), **fields)


def test_whoever_is_back_is_asked_about_a_time_that_grows_until_he_answers(member: Member, accounts: Accounts) -> None:
    accounts.want(back(member))
    assert [asked(accounts), asked(accounts)] == [[(NODE, 1, 6)], [(NODE, 1, 7)]]
    change = accounts.take(NODE, account(1, suspended_ns=T(4)))
    assert change is not None
    assert (change.kind, change.before, change.after) == (Kind.NODE_ACCOUNTED, member.liveness, member.liveness)
    assert change.evidence.text.startswith("suspended: ") and change.evidence.silent_ns == T(4)
    assert asked(accounts) == []


def test_whoever_never_answers_is_left_alone(member: Member, accounts: Accounts) -> None:
    accounts.want(back(member))
    assert [len(asked(accounts)) for _ in range(TRIES + 2)] == [1] * TRIES + [0, 0]
    assert accounts.take(NODE, account(1)) is None


def test_of_two_silences_the_newer_is_accounted_for(member: Member, accounts: Accounts) -> None:
    accounts.want(back(member))
    accounts.want(back(member))
    assert accounts.take(NODE, account(1)) is None
    assert accounts.take(NODE, account(2)) is not None
    assert accounts.take(NODE, account(2)) is None


@pytest.mark.parametrize(
    ("kind", "silent_ns"), [(Kind.NODE_RESTARTED, T(4)), (Kind.NODE_JOINED, T(4)), (Kind.NODE_RECOVERED, None)]
)
def test_another_life_knows_nothing_of_the_one_before(
    member: Member, accounts: Accounts, kind: Kind, silent_ns: int | None
) -> None:
    accounts.want(back(member, kind, silent_ns))
    assert asked(accounts) == []


def test_nobody_answers_for_another_and_whoever_is_not_expected_any_more_is_not_asked(
    member: Member, accounts: Accounts
) -> None:
    accounts.want(back(member))
    assert accounts.take(NODE2, account(1)) is None
    accounts.forget(NODE)
    assert asked(accounts) == []
    assert accounts.take(NODE, account(1)) is None
