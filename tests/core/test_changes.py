from __future__ import annotations

import msgspec

from hbagent.core.changes import PROBER, TEXT_MAX, bad_parts, compare, sentence, told, worst_first
from hbagent.core.messages import CHANGES_MAX, AppRow, HealthChange, ProbeResult, Report
from hbagent.core.states import AppState, Health, Stall

OK, WARNING, CRITICAL = Health.OK, Health.WARNING, Health.CRITICAL
STALLED, DEADLOCKED = Health.STALLED, Health.DEADLOCKED


def app(name: str, health: Health, **fields: object) -> AppRow:
    return AppRow(name=name, health=health, state=AppState.READY, **fields)  # type: ignore[arg-type]


def probe(name: str, health: Health, text: str = "") -> ProbeResult:
    return ProbeResult(name=name, health=health, text=text)


def report(*rows: AppRow | ProbeResult) -> Report:
    return Report(
        incarnation=1,
        number=1,
        apps=tuple(row for row in rows if isinstance(row, AppRow)),
        probes=tuple(row for row in rows if isinstance(row, ProbeResult)),
    )


def shown(before: Report, after: Report) -> list[str]:
    return [f"{c.subject} {c.name} {c.before.value}>{c.after.value}" for c in compare(bad_parts(before), after)]


def test_parts_are_compared_by_subject_and_name() -> None:
    before = report(app("web", OK), probe("web", OK), probe("disk", WARNING))
    after = report(app("web", DEADLOCKED), probe("web", OK), probe("disk", CRITICAL))
    assert shown(before, after) == ["app web OK>DEADLOCKED", "probe disk WARNING>CRITICAL"]


def test_what_appears_well_or_vanishes_well_is_no_change() -> None:
    assert shown(report(probe("a", OK)), report(probe("b", OK), app("c", OK))) == []


def test_what_appears_bad_was_never_told_of_and_what_vanishes_bad_has_ended() -> None:
    before, after = report(probe("old", CRITICAL)), report(app("new", STALLED))
    assert shown(before, after) == ["app new OK>STALLED", "probe old CRITICAL>OK"]
    assert compare(bad_parts(before), after)[1].text == "it is not reported any more"


def test_the_prober_is_no_part_of_a_report_and_does_not_vanish_with_it() -> None:
    assert compare({PROBER: STALLED}, report(probe("disk", OK))) == ()


def test_the_worst_comes_first_and_of_what_is_well_again_what_was_worst() -> None:
    before = report(probe("a", CRITICAL), probe("b", DEADLOCKED), probe("c", OK), probe("d", OK), app("d", OK))
    after = report(probe("a", OK), probe("b", OK), probe("c", WARNING), probe("d", STALLED), app("d", STALLED))
    assert [f"{c.subject} {c.name}" for c in compare(bad_parts(before), after)] == [
        "app d",
        "probe d",
        "probe c",
        "probe b",
        "probe a",
    ]


def test_a_change_has_the_diagnosis_the_proof_and_where_the_rest_of_it_is() -> None:
    row = app("web", DEADLOCKED, text="t" * 1000, stall=Stall.DEADLOCKED, details=("one", "two"), bundle="web-1")
    (change,) = compare({}, report(row))
    assert (change.stall, change.details, change.bundle) == (Stall.DEADLOCKED, ("one", "two"), "web-1")
    assert len(change.text) == TEXT_MAX


def test_only_so_many_are_told_and_only_the_worst_with_its_proof() -> None:
    change = HealthChange(subject="app", name="web", before=OK, after=CRITICAL, details=("proof",))
    many = worst_first(
        msgspec.structs.replace(change, name=f"{number:03}", after=DEADLOCKED if number == 70 else CRITICAL)
        for number in range(80)
    )
    few = told(many)
    assert len(few) == CHANGES_MAX
    assert (few[0].name, few[0].details) == ("070", ("proof",))
    assert {one.details for one in few[1:]} == {()}


def test_people_are_told_the_worst_in_a_sentence() -> None:
    bad = compare({}, report(app("web", DEADLOCKED, text="thread worker-1 holds 0x1"), probe("disk", WARNING)))
    assert sentence(bad, OK, DEADLOCKED) == "app web is DEADLOCKED: thread worker-1 holds 0x1; and 1 more changed"
    good = compare({("probe", "disk"): WARNING}, report(probe("disk", OK, "31% used")))
    assert sentence(good, WARNING, OK) == "probe disk is OK again, and was WARNING: 31% used"
    assert sentence((), WARNING, OK) == "its health is OK, and was WARNING"
