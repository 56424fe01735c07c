"""Why nobody was told: each notification that was not sent, and what keeps the next one back, in sentences. Pure.

Each has exactly one reason, and a name behind it: a silence, an incident, a summary. Where the answer also knows that
silence, its author and its own reason stand in the sentence, for they are what whoever wonders asks next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hbagent.core.states import Reason
from hbagent.core.wallclock import rfc3339

from .answers import Row, number, row, rows, word
from .grid import Screen, clean, paint
from .incidents import few, silence_sentence, texts
from .pieces import clock

_WHY = {
    Reason.SILENCE: "{ref} covered it",
    Reason.MAINTENANCE: "{ref} covered it",
    Reason.INHIBITED: "incident {ref} explains it",
    Reason.FLAPPING: "it changed too often, which was told once (event {ref})",
    Reason.BRAKE: "there were too many at once; the summary {ref} stands for it",
    Reason.GROUPED: "several of its rack came together; the summary {ref} stands for them",
    Reason.GRACE: "a root or leader had just started and did not know all its nodes yet",
    Reason.DOUBT: "other nodes of its rack were in doubt, and it may have been one trouble of the rack",
    Reason.HOLD: "it was over within the time that {receiver} waits",
    Reason.RECOVERED: "it was over before it could be told",
    Reason.NEVER_TOLD: "it is the end of something that {receiver} was never told of",
    Reason.SUPERSEDED: "the newer event {ref} took its place while it waited",
    Reason.ACKNOWLEDGED: "it was acknowledged, and this was no worse",
    Reason.RACK_DARK: "its whole rack was dark, and that was told",
    Reason.REFINED: "it only says more of what had been told",
    Reason.LATE: "it was reported long after it happened",
}
_WHY_WAITING = {
    Reason.SILENCE: "{ref} covers it",
    Reason.MAINTENANCE: "{ref} covers it",
    Reason.FLAPPING: "it changes too often, which was told once (event {ref})",
    Reason.BRAKE: "there are too many at once",
    Reason.GROUPED: "others of its rack may belong to it",
    Reason.GRACE: "a root or leader has just started and does not know all its nodes yet",
    Reason.DOUBT: "other nodes of its rack are in doubt, and it may be one trouble of the rack",
    Reason.HOLD: "{receiver} waits whether it is over soon",
    Reason.ACKNOWLEDGED: "it was acknowledged, and this is no worse",
}
_STATES = {
    "suppressed": "not sent",
    "held": "waits",
    "pending": "is on its way",
    "dead": "was given up",
    "done": "sent",
}


def unsent_lines(document: Row, silences: Mapping[str, Row], now: str, screen: Screen) -> list[str]:
    """The answer to "why was I not told?", newest first."""
    subject = clean(word(document, "node") or word(document, "rack") or word(document, "incident"), screen)
    lines = [paint(f"{subject}, now", "bold", screen), *(f"  {line}" for line in _present(document, now, screen))]
    unsent = rows(document, "unsent")
    lines += ["", paint("Not sent, newest first", "bold", screen)]
    if not unsent:
        return [*lines, "  nothing was kept back"]
    incident = bool(word(document, "incident"))
    for each in unsent:
        lines += [f"  {line}" for line in _sentence(each, silences, incident, now, screen)]
    return lines


def _present(document: Row, now: str, screen: Screen) -> list[str]:
    """What burns, who was told, and what keeps the next notification back."""
    lines = []
    for trouble in rows(document, "burning"):
        what = " ".join(filter(None, (word(trouble, "kind"), word(trouble, "cause"), word(trouble, "incident"))))
        told = texts(trouble, "told")
        since = clock(word(trouble, "since"), now, screen)
        who = f"told to {few(told)}" if told else "nobody was told"
        lines.append(clean(f"{word(trouble, 'subject')} burns ({what}) since {since}; {who}", screen))
    lines += [f"covered by {silence_sentence(silence, now, screen)}" for silence in rows(document, "covered_by")]
    lines += [f"explained by {clean(name, screen)}" for name in texts(document, "inhibited_by")]
    if document.get("flapping") is True:
        lines.append("it changes too often: each change is told no more until it is steady")
    lines += [f"{clean(name, screen)} is acknowledged" for name in texts(document, "acknowledged")]
    return lines or ["nothing burns, and nothing would keep a notification back"]


def _sentence(unsent: Row, silences: Mapping[str, Row], with_subject: bool, now: str, screen: Screen) -> Sequence[str]:
    at = word(unsent, "at") or rfc3339(int(number(unsent, "at_wall_ns") or 0))
    state = word(unsent, "state")
    about = f" of {word(unsent, 'subject')}" if with_subject and word(unsent, "subject") else ""
    head = (
        f"{word(unsent, 'kind') or 'an event'}{about} to {word(unsent, 'receiver') or '?'} {_STATES.get(state, state)}"
    )
    text = word(unsent, "text")
    line = clean(f"{head}: {why(unsent, silences)}", screen)
    lines = [f"{clock(at, now, screen)}  {line}"]
    ref = silences.get(word(unsent, "ref"))
    if ref is not None:
        lines.append(f"    {silence_sentence(ref, now, screen)}")
    if text:
        lines.append(f"    it would have said: {clean(text, screen)}")
    return lines


def why(unsent: Row, silences: Mapping[str, Row]) -> str:
    """The one reason of a notification that was not sent, in words; it may hold anything until it is cleaned."""
    name, ref = word(unsent, "reason"), word(unsent, "ref")
    words = _WHY_WAITING if word(unsent, "state") == "held" else {}
    known = {reason.value: text for reason, text in {**_WHY, **words}.items()}
    if name not in known:
        return name or "no reason is known"
    what = row(silences, ref)
    called = f"{'maintenance' if what.get('maintenance') is True or name == 'maintenance' else 'silence'} {ref}"
    if name in (Reason.SILENCE.value, Reason.MAINTENANCE.value):
        ref = called
    # Neither name is a template, whatever braces it has.
    return known[name].format(ref=ref or "(unknown)", receiver=word(unsent, "receiver") or "the receiver")
