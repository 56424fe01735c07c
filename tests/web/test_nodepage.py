"""One node's page: everything that is known of it, and nothing that it wrote but as text."""

from __future__ import annotations

from typing import Any

import msgspec

from hbagent.core.messages import HostFacts, Measure
from hbagent.core.states import AppState, Health, Liveness, Stall
from hbagent.core.views import AppView, MarkView, ObserverView, ProbeView
from hbagent.web.nodepage import node_page
from tests.web.parts import AT, HOSTILE, SINCE, explained
from tests.web.test_markup import Reader


def node(**fields: Any) -> Any:
    return explained(node=msgspec.structs.replace(explained().node, **fields))


def everything(text: str) -> Any:
    """A view in which every text is `text`."""
    probe = ProbeView(
        name=text,
        kind=text,
        health=Health.CRITICAL,
        since_s=61.0,
        text=text,
        age_s=0.2,
        soft=Health.OK,
        attempts=2,
        app=text,
        measures=[Measure(label=text, value=1.5, unit=text), Measure(label="none", value=None)],
    )
    app = AppView(
        name=text,
        health=Health.DEADLOCKED,
        since_s=3.0,
        state=AppState.STUCK,
        text=text,
        status=text,
        stall=Stall.DEADLOCKED,
        details=[text],
        pid=7,
        bundle=text,
        marks=[MarkView(name=text, count=1957, queued=3, age_s=9.0, window_s=3.0)],
    )
    seen = ObserverView(leader=text, liveness=Liveness.SUSPECT, cause=text, age_s=None, speaks=False)
    facts = HostFacts(hostname=text, kernel=text, load_1m=0.5, cpu_percent=12.0, errors=(text,))
    step = {"after_ms": 1.5, "text": text}
    evidence = {"text": text, "steps": [step]}
    return msgspec.structs.replace(
        node(
            liveness=Liveness.SUSPECT,
            health=Health.DEADLOCKED,
            cause=text,
            observers=[seen],
            probes=[probe],
            apps=[app],
            facts=facts,
            facts_age_s=3.0,
            incidents=["i17"],
            covered_by=[text],
            flapping=True,
        ),
        story=[{"leader": text, "liveness": "SUSPECT", "cause": text, "evidence": evidence, "account": text}],
        events=[
            {
                "at": SINCE,
                "kind": "health-changed",
                "leader": text,
                "cause": text,
                "liveness": {"from": "ALIVE", "to": "ALIVE"},
                "health": {"from": "OK", "to": "DEADLOCKED"},
                "evidence": evidence,
                "withheld": text,
            },
            {"at": text, "kind": text, "liveness": {"from": text, "to": text}, "health": None, "evidence": None},
        ],
    )


def page(view: Any, age_s: float = 0.0) -> str:
    return node_page(view, AT, "../../../", "abc-1", age_s).decode()


def test_a_healthy_node_is_told_in_a_page() -> None:
    made = page(explained())
    assert '<span id="verdict" class="good">✓ ALIVE and OK</span> dc/r1/n1' in made
    assert '<a href="../../../">All racks</a> / dc/r1 / n1' in made
    assert 'data-about="dc/r1/n1"' in made
    assert "No leader has told anything of this node." in made
    assert "Nothing has happened to it." in made


def test_everything_that_is_known_stands_there() -> None:
    texts = " ".join(Reader(page(everything("pump"))).texts)
    for text in (
        "D DEADLOCKED",
        "! SUSPECT",
        "i17",
        "no: it lost its lease, or has not heard this node",
        "Application pump",
        "stuck, DEADLOCKED, for 3.0s, pid 7",
        "1,957",
        "(OK, 2 times in a row) pump",
        "pump 1.5pump",
        "1.500 ms  pump",
        "pump It says of its silence: pump",
        "health-changed",
        "told to nobody: pump",
        "12.0 %",
    ):
        assert text in texts, text


def test_a_change_of_health_is_told_as_one() -> None:
    made = page(everything("pump"))
    assert '<td>health-changed</td><td class="good">OK</td><td class="bad">DEADLOCKED</td>' in made


def test_whatever_the_node_wrote_is_text() -> None:
    read, plain = Reader(page(everything(HOSTILE))), Reader(page(everything("pump")))
    assert read.tags == plain.tags
    assert "\x1b" not in "".join(read.texts)
    assert "\u202e" not in "".join(read.texts)
    assert len(page(everything(HOSTILE))) < 60_000


def test_a_leaders_own_story_is_read_too() -> None:
    told = {"at": SINCE, "kind": "node-dead", "liveness": {"from": "ALIVE", "to": "DEAD"}, "evidence": {"text": "gone"}}
    assert '<span class="bad">DEAD</span>' in page(explained(story=[told]))


def test_old_data_has_no_colour() -> None:
    assert " class=old>" in page(explained(), 9.0)
    assert " class=old>" not in page(explained())
