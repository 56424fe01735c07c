from __future__ import annotations

from itertools import chain

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbagent.core import messages as m
from hbagent.core.states import Health, Liveness
from hbagent.wire import codec, pages
from hbagent.wire.pages import PAGE_SIZE_MAX, AnswerAssembly, answer_pages

from . import samples

BIG = 2**63 - 1
LONGEST_ROW = msgspec.structs.replace(
    samples.ROW, node="n" * 64, since_ns=BIG, age_ns=BIG, incarnation=2**64 - 1, sequence=BIG, version=BIG
)


def summary(nodes: int) -> m.RackSummary:
    rows = tuple(msgspec.structs.replace(LONGEST_ROW, node=f"{'n' * 58}-{number:05}") for number in range(nodes))
    return m.RackSummary(rack="dc1/rack07", epoch=4, number=360, newest=9, nodes=rows, stats=samples.STATS)


def assert_frames_fit(messages: tuple[m.WireMessage, ...]) -> None:
    for message in messages:
        frame = codec.encode(message)
        assert len(frame) <= PAGE_SIZE_MAX
        assert codec.decode(frame) == message


# ---- summaries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [0, 1, 40, 500, 10_000])
def test_a_summary_is_cut_into_pages_that_fit_and_lose_nobody(nodes: int) -> None:
    whole = summary(nodes)
    cut = pages.summary_pages(whole)
    assert_frames_fit(cut)
    assert tuple(chain.from_iterable(page.nodes for page in cut)) == whole.nodes
    assert [(page.page, page.pages) for page in cut] == [(number, len(cut)) for number in range(len(cut))]
    assert all((page.number, page.stats) == (whole.number, whole.stats) for page in cut)


def test_a_small_rack_is_one_page_and_pages_are_filled() -> None:
    assert len(pages.summary_pages(summary(80))) == 1
    cut = pages.summary_pages(summary(500))
    assert min(len(codec.encode(page)) for page in cut[:-1]) > PAGE_SIZE_MAX - 500


def test_stats_that_fill_a_page_are_a_defect() -> None:
    with pytest.raises(ValueError, match="fills a page"):
        pages.summary_pages(msgspec.structs.replace(summary(1), stats=m.LeaderStats(degraded="x" * PAGE_SIZE_MAX)))


def test_a_row_that_no_page_can_hold_is_a_defect() -> None:
    endless = msgspec.structs.replace(samples.ROW, node="n" * PAGE_SIZE_MAX)
    with pytest.raises(ValueError, match="a page has room for"):
        pages.summary_pages(msgspec.structs.replace(summary(1), nodes=(samples.ROW, endless)))


def test_a_rack_beyond_all_pages_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGES_MAX", 2)
    with pytest.raises(ValueError, match="2 at most"):
        pages.summary_pages(summary(500))


# ---- reports ---------------------------------------------------------------------------------------------


def report(probes: int = 1, text: str = "", disks: int = 0, errors: tuple[str, ...] = ()) -> m.Report:
    facts = m.HostFacts(
        disks=tuple(m.Disk(mount=f"/srv/{n:05}", total_bytes=BIG, used_percent=1.0) for n in range(disks)),
        errors=errors,
    )
    results = tuple(m.ProbeResult(name=f"p{n}", health=Health.CRITICAL, text=text) for n in range(probes))
    return m.Report(incarnation=17, number=3, facts=facts, health=Health.CRITICAL, probes=results, digest=5)


def rack_reports(*reports: m.Report) -> m.RackReports:
    items = tuple(m.NodeReport(node=f"host{n}", report=item, age_ns=BIG) for n, item in enumerate(reports))
    return m.RackReports(rack="dc1/rack07", epoch=4, reports=items)


def test_reports_are_cut_into_messages_that_fit_and_lose_nobody() -> None:
    whole = rack_reports(*[samples.REPORT] * 1000)
    cut = pages.report_pages(whole)
    assert_frames_fit(cut)
    assert len(cut) > 1
    assert tuple(chain.from_iterable(page.reports for page in cut)) == whole.reports


def only(cut: tuple[m.RackReports, ...]) -> m.Report:
    assert_frames_fit(cut)
    (page,) = cut
    (item,) = page.reports
    return item.report


def test_a_report_too_long_for_a_page_first_loses_long_texts() -> None:
    found = only(pages.report_pages(rack_reports(report(probes=50, text="t" * 1200, disks=2))))
    assert {len(probe.text) for probe in found.probes} == {pages.TEXT_LENGTH_SHORT}
    assert found.facts is not None
    assert len(found.facts.disks) == 2


def test_then_its_facts() -> None:
    found = only(pages.report_pages(rack_reports(report(probes=50, text="t", disks=800))))
    assert len(found.probes) == 50
    assert found.facts is not None
    assert found.facts.disks == ()
    assert found.facts.errors == ("facts left out: longer than a page of 32768 bytes",)


def test_then_what_is_ok_so_that_nothing_bad_seems_to_be_gone() -> None:
    bad = report(probes=50).probes
    good = tuple(m.ProbeResult(name=f"q{n}", health=Health.OK) for n in range(800))
    apps = (samples.APP, msgspec.structs.replace(samples.APP, name="well", health=Health.OK))
    found = only(pages.report_pages(rack_reports(msgspec.structs.replace(report(), probes=good + bad, apps=apps))))
    assert found.probes == bad
    assert [app.name for app in found.apps] == ["web"]
    assert found.facts is not None
    assert found.facts.errors == ("facts and what is OK left out: longer than a page of 32768 bytes",)


def test_then_its_probes_but_never_its_health() -> None:
    found = only(pages.report_pages(rack_reports(report(probes=900, errors=("e" * 60_000,)))))
    assert (found.probes, found.health, found.number, found.digest) == ((), Health.CRITICAL, 3, 5)
    assert found.facts is not None
    assert found.facts.errors == ("facts, probes and apps left out: longer than a page of 32768 bytes",)


def test_before_any_text_is_cut_go_the_numbers_then_the_marks_and_the_proof() -> None:
    measured = tuple(msgspec.structs.replace(samples.PROBE, name=f"p{n}", text="t" * 300) for n in range(62))
    whole = msgspec.structs.replace(samples.REPORT, probes=measured)
    found = only(pages.report_pages(rack_reports(whole)))
    assert [probe.measures for probe in found.probes] == [()] * 62
    assert (found.apps, len(found.probes[0].text)) == (samples.REPORT.apps, 300)
    proved = tuple(msgspec.structs.replace(samples.APP, name=f"a{n}") for n in range(45))
    found = only(pages.report_pages(rack_reports(msgspec.structs.replace(whole, probes=measured[:40], apps=proved))))
    assert [(app.details, app.marks, app.text) for app in found.apps] == [((), (), samples.APP.text)] * 45
    assert len(found.probes[0].text) == 300


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.builds(report, st.integers(0, 900), st.sampled_from(["", "ü" * 300]), st.integers(0, 900)), max_size=6)
)
def test_no_report_that_a_node_may_send_makes_a_page_too_large(reports: list[m.Report]) -> None:
    cut = pages.report_pages(rack_reports(*reports))
    assert_frames_fit(cut)
    assert sum(len(page.reports) for page in cut) == len(reports)


def test_a_report_that_fits_is_left_as_it_is() -> None:
    assert pages.fit_report(samples.REPORT) is samples.REPORT


# ---- transitions -----------------------------------------------------------------------------------------


def test_transitions_are_cut_in_order_into_messages_that_fit() -> None:
    items = tuple(msgspec.structs.replace(samples.TRANSITION, number=number) for number in range(9, 1009))
    whole = m.Transitions(epoch=4, base=5, after=8, items=items, dropped=2)
    cut = pages.transition_pages(whole)
    assert_frames_fit(cut)
    assert tuple(chain.from_iterable(page.items for page in cut)) == items
    assert {(page.epoch, page.base, page.dropped) for page in cut} == {(4, 5, 2)}
    assert [page.after for page in cut] == [8, *(page.items[-1].number for page in cut[:-1])]


def test_evidence_that_would_fill_a_page_is_cut() -> None:
    endless = msgspec.structs.replace(samples.EVIDENCE, text="ü" * 60_000)
    item = msgspec.structs.replace(samples.TRANSITION, evidence=endless)
    (page,) = pages.transition_pages(m.Transitions(epoch=4, base=9, after=8, items=(item,)))
    assert_frames_fit((page,))
    assert page.items[0].evidence.text.endswith("ü...")
    assert page.items[0].after is Liveness.DEAD


def test_changes_that_would_fill_a_page_lose_their_proofs_then_their_texts_then_all_but_the_worst() -> None:
    def carried(text: str, details: int) -> tuple[m.HealthChange, ...]:
        change = msgspec.structs.replace(samples.CHANGE, name="n" * 90, text=text, details=("d" * 100,) * details)
        evidence = m.Evidence(text="bad", changes=(change,) * m.CHANGES_MAX)
        item = msgspec.structs.replace(samples.HEALTH_TRANSITION, evidence=evidence)
        cut = pages.transition_pages(m.Transitions(epoch=4, base=10, after=9, items=(item,)))
        assert_frames_fit(cut)
        return cut[0].items[0].evidence.changes

    assert [len(change.details) for change in carried("t", 4)] == [4] * m.CHANGES_MAX
    assert [len(change.details) for change in carried("t" * 400, 20)] == [0] * m.CHANGES_MAX
    assert {len(change.text) for change in carried("t" * 4000, 20)} == {pages.TEXT_LENGTH_SHORT}


# ---- answers ---------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 100_000), st.text(max_size=600))
def test_an_answer_is_put_together_as_it_was(size: int, error: str) -> None:
    document = bytes(number % 251 for number in range(size))
    assembly = AnswerAssembly(2**63)
    found = None
    for page in answer_pages(2**63, document, error):
        assert found is None
        assert_frames_fit((page,))
        found = assembly.add(page)
    assert found == document
    assert (assembly.error == "") == (error == "")


def test_an_error_with_bytes_that_are_no_text_can_travel() -> None:
    (page,) = answer_pages(1, b"", "no such file: \udcff")
    assert page.error == r"no such file: \udcff"
    codec.encode(page)


def page(number: int, body: bytes = b"x", last: bool = False, id: int = 7) -> m.AnswerPage:
    return m.AnswerPage(id=id, page=number, last=last, body=body)


@pytest.mark.parametrize(
    ("taken", "refused", "why"),
    [
        ([], page(0, id=8), "page of answer 8, expected 7"),
        ([], page(1), "page 1 of answer 7, expected 0"),
        ([page(0)], page(0), "page 0 of answer 7, expected 1"),
        ([page(0)], page(2), "page 2 of answer 7, expected 1"),
        ([page(0, last=True)], page(1), "page 1 of answer 7, expected no more"),
        ([page(0)], page(1, body=b""), "page 1 of answer 7 is empty and not the last"),
    ],
)
def test_pages_that_do_not_follow_are_refused(taken: list[m.AnswerPage], refused: m.AnswerPage, why: str) -> None:
    assembly = AnswerAssembly(7)
    for good in taken:
        assembly.add(good)
    with pytest.raises(ValueError, match=why):
        assembly.add(refused)


def test_a_refused_page_leaves_the_assembly_as_it_was() -> None:
    assembly = AnswerAssembly(7)
    assembly.add(page(0, b"a"))
    with pytest.raises(ValueError):
        assembly.add(page(5))
    assert assembly.add(page(1, b"b", last=True)) == b"ab"


def test_a_document_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "DOCUMENT_SIZE_MAX", 100)
    assembly = AnswerAssembly(7)
    assert assembly.add(page(0, b"x" * 100)) is None
    with pytest.raises(ValueError, match="over 100 bytes"):
        assembly.add(page(1))
