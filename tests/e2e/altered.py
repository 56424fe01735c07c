"""Runs a daemon with one of its guards taken out: `python -m tests.e2e.altered GUARD agent|leader|root --config FILE`.

A row that stays green without the guard it is about proves nothing. So each of these is started once in the place of
a real daemon, and the row must turn red.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from hbagent.cli import main


def doorkeepers_nerves() -> None:
    """The thread that admits connections ends when it meets an unknown key."""
    from hbagent.transport.zap import ZapServer

    judge = ZapServer._judge

    def judge_and_end(self: ZapServer, request: list[bytes]) -> object:
        outcome, peer = judge(self, request)
        if peer is None:
            raise SystemExit
        return outcome, peer

    ZapServer._judge = judge_and_end  # type: ignore[assignment, method-assign]


def doorkeeper() -> None:
    """The same, and nobody notices."""
    from hbagent.transport.zap import ZapServer

    doorkeepers_nerves()
    ZapServer.alive = True  # type: ignore[assignment, method-assign]


def age_of_beats() -> None:
    """However long a beat was on its way, it counts as sent just now."""
    from hbagent.core.member import Member

    Member.age_of = lambda self, offset, now: 0  # type: ignore[method-assign]
    for_ever = 1 << 62
    setattr(Member, "fresh_ns", property(lambda self: for_ever, lambda self, value: None))  # noqa: B010


def order_of_beats() -> None:
    """Every beat is news, whatever its incarnation and sequence."""
    from hbagent.core.order import Order, Verdict

    def judge(self: Order, incarnation: int, sequence: int) -> Verdict:
        self.incarnation, self.sequence = incarnation, sequence
        return Verdict.FRESH

    Order.judge = judge  # type: ignore[method-assign]


def own_lag() -> None:
    """The loop takes no note of its own pauses."""
    from hbagent.core.observer import OwnLag

    OwnLag.tick = lambda self, planned, now: 0  # type: ignore[method-assign]


def marks() -> None:
    """The root forgets which transitions it has taken in."""
    from hbagent.core.leaderrecord import LeaderRecord

    LeaderRecord.taken = lambda self, epoch: 0  # type: ignore[method-assign]


def allow_list_of_messages() -> None:
    """Who may speak is decided when a connection is made, and never again."""
    from hbagent.role.intake import Intake

    first: dict[str, str] = {}

    def keep_first(self: Intake, senders: dict[str, str]) -> None:
        if not first:
            first.update(senders)

    setattr(Intake, "senders", property(lambda self: first, keep_first))  # noqa: B010


def leniency() -> None:
    """Whatever is newer than this version is refused: a head, a field or a type, in whatever message."""
    import msgspec

    from hbagent.role import intake
    from hbagent.wire import beat, codec
    from hbagent.wire.refusal import Reason, Refusal, refuse
    from hbagent.wire.version import HEAD_SIZE, MINOR, MINOR_AT

    def known(told: object, read: object) -> bool:
        """Everything that was told is in what was read."""
        if isinstance(told, dict) and isinstance(read, dict):
            return all(key in read and known(item, read[key]) for key, item in told.items())
        if isinstance(told, list) and isinstance(read, list):
            return all(map(known, told, read))
        return True

    decode, decode_beat = codec.decode, beat.decode

    def decode_strictly(data: bytes | memoryview) -> object:
        found = decode(data)
        if isinstance(found, Refusal):
            return found
        told = msgspec.msgpack.decode(memoryview(data)[HEAD_SIZE:])
        if data[MINOR_AT] > MINOR or not known(told, msgspec.to_builtins(found)):
            return refuse(Reason.MALFORMED, f"newer than minor {MINOR}: {type(found).__name__}")
        return found

    def decode_beat_strictly(data: bytes | memoryview) -> object:
        found = decode_beat(data)
        newer = not isinstance(found, Refusal) and data[MINOR_AT] > MINOR
        return refuse(Reason.MALFORMED, f"newer than minor {MINOR}: Beat") if newer else found

    codec.decode = decode_strictly  # type: ignore[assignment]
    setattr(intake, "decode_beat", decode_beat_strictly)  # noqa: B010


GUARDS: dict[str, Callable[[], None]] = {
    guard.__name__.replace("_", "-"): guard
    for guard in (
        doorkeepers_nerves,
        doorkeeper,
        age_of_beats,
        order_of_beats,
        own_lag,
        marks,
        allow_list_of_messages,
        leniency,
    )
}


if __name__ == "__main__":
    GUARDS[sys.argv[1]]()
    raise SystemExit(main(sys.argv[2:]))
