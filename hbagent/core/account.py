"""Why a node was silent, from what its agent says once it is back: one word and one sentence with the numbers.

A silence is one interval in which nothing was to be heard, and an excess. The agent's own clock says how late its
loop was, its kernel says why: no CPU to be had, a quota used up, the host asleep. What of the excess is explained so is
split into parts that do not overlap:

    suspended      the host slept; no clock of the agent's saw it, so it is beside the lateness
    throttled      lateness in which the control group's quota was used up; the kernel counts it as waiting, too
    starved        the rest of the lateness in which the loop was ready to run and had no CPU
    stopped        lateness in which it did not even want to run, most of it at once: SIGSTOP, a freezer, a machine
                   that was paused
    loop-stalled   the same in small pieces: a loop that is busy or blocked again and again

If they make up half of the excess, the largest part names the cause. If not, the node ran, and what was between it
and the leader is to blame: `restarted-link` when the connection was lost, `network` when beats were sent and not
heard. `unknown` when the agent was not there or has no record.
"""

from __future__ import annotations

from .messages import Account
from .units import show_duration

#: Words for a node that could send nothing: its beats were not late.
STOOD_STILL = ("suspended", "throttled", "starved", "stopped")
#: Less than this part of the silence explains nothing, and is not mentioned.
_MENTIONED = 10


def reason(account: Account, silent_ns: int, interval_ns: int = 0) -> tuple[str, str]:
    """A stable word and a sentence. `interval_ns` is the announced interval, in which silence is no news."""
    excess = silent_ns - interval_ns if silent_ns > interval_ns else silent_ns
    parts = sorted(_parts(account), key=lambda part: -part[1])
    of = show_duration(silent_ns)
    if 2 * sum(length for _, length, _ in parts) >= max(1, excess):
        word, length, what = parts[0]
        more = [f"{what} for {show_duration(part)}" for _, part, what in parts[1:] if part * _MENTIONED >= excess]
        return word, " and ".join([f"{what} for {show_duration(length)} of {of}", *more])
    late = f"its loop was late by {show_duration(account.loop_gap_ns)}"
    if 2 * account.covered_ns < silent_ns:
        return "unknown", f"its records go back {show_duration(account.covered_ns)} of {of}"
    sent = f"it sent {account.beats} beats in {show_duration(account.covered_ns)}, {late}"
    if account.links_lost:
        times = "once" if account.links_lost == 1 else f"{account.links_lost} times"
        return "restarted-link", f"its connection was lost {times}; {sent}"
    if account.beats and account.beats * 2 * (interval_ns or silent_ns) >= account.covered_ns:
        return "network", f"what it sent did not arrive: {sent}"
    return "unknown", sent


def _parts(account: Account) -> tuple[tuple[str, int, str], ...]:
    """Word, length and words for people of each part of what the agent explains."""
    late = account.loop_gap_ns
    # A group's throttled time is summed over all processors and may be more than has passed.
    throttled = min(account.throttled_ns, late)
    starved = max(0, min(account.run_delay_ns, late) - throttled)
    still = late - throttled - starved
    at_once = 2 * account.loop_gap_max_ns >= late
    return (
        ("suspended", account.suspended_ns, "its host was suspended"),
        ("throttled", throttled, "its CPU quota was used up"),
        ("starved", starved, "its loop waited for a CPU"),
        ("stopped", still, "its process stood still with CPU to be had")
        if at_once
        else ("loop-stalled", still, "its loop was busy or blocked"),
    )
