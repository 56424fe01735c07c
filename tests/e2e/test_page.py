"""The status page in a real browser: what it looks like to somebody, and how long he waits for the truth.

The first half has a core of its own, that says what a test has it say; the second a real datacenter.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from hbagent.demo.datacenter import Plan, held_ports, wait_until
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet
from tests.e2e.patient import PATIENT
from tests.web.browser import PROGRAM, Browser, Page
from tests.web.parts import HOSTILE, Core, Running, cell, explained, incident, leader, rack, root, running, view
from tests.web.test_nodepage import everything

pytestmark = [pytest.mark.e2e, pytest.mark.needs(PROGRAM), pytest.mark.timeout(120)]

#: A page that has heard nothing for three seconds says so, and looks twice a second: against hanging.
OLD_S = 20.0
GREY = "getComputedStyle(document.querySelector('a.cell')).backgroundColor"
LIVE = "document.getElementById('age').textContent === 'live'"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own, about which the browser may have nothing to complain at the end.

    It stands after the server in a test's arguments, so that it ends first.
    """
    made = browser.page()
    yield made
    complaints = made.complaints
    made.close()
    assert complaints == []


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def server(core: Core) -> Iterator[Running]:
    with running(core) as made:
        yield made


def class_of(node: str) -> str:
    return f"document.querySelector('[data-node=\"{node}\"]').className"


# ---- what is shown ---------------------------------------------------------------------------------------


def test_a_page_goes_live_and_follows(core: Core, server: Running, page: Page) -> None:
    page.open(server.url)
    page.wait(LIVE)
    assert page.value(class_of("dc/r1/n1")) == "cell good"
    changed = {"incidents": [incident()], "racks": [rack(state="DEGRADED")]}
    server.do(lambda: core.show(cell(liveness="DEAD", cause="host-gone", flapping=True), **changed))
    page.wait(f"{class_of('dc/r1/n1')} === 'cell bad flapping'")
    assert page.value("document.title") == "✗ CRITICAL dc/root"
    assert page.value("document.querySelector('[data-count=dead]').textContent") == "1"
    assert "node-dead (host-gone)" in page.text()
    assert page.value("document.querySelector('#problems a').href") == server.url + "node/dc/r1/n1"
    server.do(lambda: core.show(cell("dc/r1/n2"), gone=["dc/r1/n1"], incidents=[]))
    page.wait(
        "document.querySelectorAll('a.cell').length === 1 && document.querySelector('a.cell').title.includes('n2')"
    )
    assert page.value("document.getElementById('problems').hidden")
    assert "No incident is open." in page.text()


def test_another_life_of_the_root_makes_the_grid_anew(core: Core, server: Running, page: Page) -> None:
    page.open(server.url)
    page.wait(LIVE)
    core.says["cells"] = view(cell("dc/r7/n5", "SUSPECT"), life="b", racks=[rack("dc/r7"), rack("dc/r8")])
    page.wait("document.querySelectorAll('.rack').length === 2")
    assert page.value("document.querySelector('a.cell').textContent") == "!"
    assert page.value("document.querySelector('a.cell').href") == server.url + "node/dc/r7/n5"


def test_a_page_that_hears_nothing_has_no_colour_until_it_does(core: Core, server: Running, page: Page) -> None:
    page.open(server.url)
    page.wait(LIVE)
    green = page.value(GREY)
    core.silent = True
    page.wait("document.body.className === 'old'", OLD_S)
    assert page.value(GREY) != green
    assert "it says nothing about now" in page.text()
    assert page.value("document.title") == "? dc/root"
    core.silent = False
    page.wait(f"document.body.className === '' && {LIVE}", OLD_S)
    assert page.value(GREY) == green


def test_dark_light_and_paper_are_three_looks_in_each_of_which_text_can_be_read(
    core: Core, server: Running, page: Page
) -> None:
    core.says["cells"] = view(
        *(cell(f"dc/r1/n{n}", state) for n, state in enumerate(("ALIVE", "DEAD", "SUSPECT", "LEFT")))
    )
    page.open(server.url)
    looks = {}
    for medium, scheme in (("screen", "light"), ("screen", "dark"), ("print", "light")):
        page.media(medium, scheme)
        looks[medium, scheme] = page.value("getComputedStyle(document.body).backgroundColor")
        for selector in (".cell:not(.covered)", "#verdict", "td.bad", ".note", "h2"):
            assert page.value(CONTRAST.replace("SELECTOR", selector)) >= 4.5, (medium, scheme, selector)
    assert looks["screen", "light"] != looks["screen", "dark"]
    assert looks["print", "light"] == "rgb(255, 255, 255)"


#: The smallest contrast of all that a selector finds, as WCAG 2 computes it: 4.5 is what small text needs.
CONTRAST = """(() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (colour) => colour.slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return Math.min(...[...document.querySelectorAll('SELECTOR')].map((element) => {
    const pair = [light(numbers(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  }));
})()"""


def test_on_paper_nothing_is_folded_or_scrolled_away(core: Core, server: Running, page: Page) -> None:
    core.says["explain"] = everything("pump")
    page.open(server.url + "node/dc/r1/n1")
    shown = "document.querySelector('details pre').checkVisibility()"
    assert not page.value(shown)
    page.media("print")
    assert page.value(shown)
    core.show(*(cell(f"dc/r1/n{number}", "DEAD") for number in range(100)))
    page.open(server.url)
    page.wait("document.querySelectorAll('#problems tbody tr').length === 100")
    box = "document.querySelectorAll('.box')[1]"
    assert page.value(f"{box}.scrollHeight === {box}.clientHeight")
    page.media("screen")
    assert page.value(f"{box}.scrollHeight > {box}.clientHeight")


def test_without_scripts_everything_is_there_and_leads_on(core: Core, server: Running, page: Page) -> None:
    core.show(cell(liveness="DEAD", cause="host-gone"), incidents=[incident()])
    page.scripts(False)
    page.open(server.url)
    text = page.text()
    for shown in (
        "✗ CRITICAL",
        "node-dead (host-gone)",
        "dc/r1",
        "host-gone",
        "leaders hold their lease",
        "every 10 s",
    ):
        assert shown in text
    page.open(server.url + "node/dc/r1/n1")
    assert "ALIVE and OK" in page.text()


def test_hostile_text_is_text_in_a_browser_too(core: Core, server: Running, page: Page) -> None:
    odd = cell(liveness="DEAD", cause=HOSTILE, text=HOSTILE)
    said = {
        "racks": [rack(leaders=[leader(HOSTILE, "DEAD", cause=HOSTILE)])],
        "incidents": [incident(text=HOSTILE, members=[HOSTILE])],
        "root": root(degraded=HOSTILE),
    }
    core.says["explain"] = everything(HOSTILE)
    page.open(server.url)
    page.wait(LIVE)
    server.do(lambda: core.show(odd, **said))
    page.wait("document.title.startsWith('✗')")
    for path in ("", "node/dc/r1/n1", "node/%3Cscript%3Ealert(1)%3C/script%3E"):
        page.open(server.url + path)
        page.wait("document.body.innerText.includes('<script>alert(1)')")
        assert page.value("document.scripts.length") == 1
        assert "\u202e" not in page.value("document.documentElement.outerHTML")
    page.forgive("404 (Not Found)")


def test_the_policy_stops_what_would_be_inline(server: Running, page: Page) -> None:
    page.open(server.url)
    with pytest.raises(RuntimeError, match="TrustedHTML"):
        page.value("document.body.innerHTML = '<b>x</b>'")
    for attempt in (
        "document.createElement('script').textContent = 'window.ran = true'",
        "document.body.setAttribute('onclick', 'window.ran = true')",
    ):
        with pytest.raises(RuntimeError, match="TrustedScript"):
            page.value(attempt)
    page.value("document.body.setAttribute('style', 'color: rgb(1, 2, 3)')")
    assert page.value("getComputedStyle(document.body).color") != "rgb(1, 2, 3)"
    assert any("ContentSecurityPolicyIssue" in text for text in page.complaints)
    for word in ("ContentSecurityPolicyIssue", "Content Security Policy", "This document requires"):
        page.forgive(word)


def test_a_nodes_page_follows_its_node(core: Core, server: Running, page: Page) -> None:
    page.open(server.url + "node/dc/r1/n1")
    page.wait(LIVE)
    core.says["explain"] = everything("pump")
    server.do(lambda: core.show(cell(liveness="SUSPECT", health="DEADLOCKED")))
    page.wait("document.body.innerText.includes('D DEADLOCKED')")
    assert explained().node.node in page.text()


# ---- a real datacenter -----------------------------------------------------------------------------------


#: A probe that says what a browser would like to obey.
TALKER = """
[[probe]]
name = "talker"
kind = "exec"
command = ["/bin/sh", "-c", "printf '<script>alert(1)</script>\\\\033[31m \\"quoted\\"'; exit 1"]
interval = "1s"
"""


@pytest.fixture(scope="module")
def leader_port() -> Iterator[int]:
    with held_ports(1) as (port,):
        yield port


@pytest.fixture(scope="module")
def fleet(build: Build, leader_port: int) -> Fleet:
    listens = f'[web]\nlisten = "127.0.0.1:{leader_port}"\n'
    made = build(Plan(racks=1, nodes=4, page=True, agent_tables=TALKER, leader_tables=listens + PATIENT))
    made.wake_up()
    return made


def open_at(page: Page, url: str) -> None:
    """A root on a busy machine may need longer than its page waits; the page then tries again by itself."""
    page.forgive("503 (Service Unavailable)")
    page.open(url)


def test_a_killed_agent_turns_its_cell_while_somebody_looks(page: Page, fleet: Fleet, figures: Figures) -> None:
    open_at(page, fleet.page)
    page.wait(f"{LIVE} && document.querySelectorAll('a.cell').length === 4")
    took = []
    for name in ("rack1-node2", "rack1-node3"):
        node = fleet.nodes[name]
        page.wait(f"!{class_of(node)}.includes('bad')")
        fleet.kill(name)
        took.append(page.wait(f"{class_of(node)} === 'cell bad'"))
    figures("page", f"a killed agent turns its cell within {max(took):.2f} s (most of {len(took)})")
    assert page.value("performance.now()") > 1000 * sum(took), "the page was loaded anew"


def test_what_a_probe_printed_is_text(page: Page, fleet: Fleet) -> None:
    node = fleet.nodes["rack1-node1"]
    open_at(page, fleet.page + f"node/{node}")
    page.wait("document.body.innerText.includes('<script>alert(1)</script>')", 30)
    assert "\x1b" not in page.value("document.documentElement.outerHTML")
    assert page.value("document.scripts.length") == 1


def test_machines_are_answered_by_root_and_leader(fleet: Fleet, leader_port: int) -> None:
    node = fleet.nodes["rack1-node1"]
    both = ("healthz", "readyz", "metrics", "api/v1/status", "api/v1/nodes", "api/v1/racks", f"api/v1/node/{node}")
    only_root = ("api/v1/events?limit=3", "api/v1/incidents", "api/v1/silences", "events")
    for path in (*both, *only_root[:-1]):
        assert status_of(fleet.page + path) == 200, path
    for path in both:
        assert status_of(f"http://127.0.0.1:{leader_port}/{path}") == 200, path
    for path in only_root:
        assert status_of(f"http://127.0.0.1:{leader_port}/{path}") == 404, path


def status_of(url: str) -> int:
    """The status of an answer that has a body; of a busy one as well, which says so and is asked again."""
    wait_until(lambda: answer_of(url) != 503, 15, step=0.5)
    return answer_of(url)


def answer_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_stopped_root_leaves_no_colour_and_its_return_brings_it_back(
    page: Page, fleet: Fleet, figures: Figures
) -> None:
    open_at(page, fleet.page)
    page.wait(LIVE)
    green = page.value(GREY)
    fleet.kill("root")
    took = page.wait("document.body.className === 'old'", OLD_S)
    figures("page", f"a killed root leaves no colour after {took:.2f} s")
    assert page.value(GREY) != green
    fleet.start(("root",))
    page.wait(f"document.body.className === '' && {LIVE}", 30)
    # What the browser itself says of a connection that was refused is no complaint about the page.
    page.forgive("net::ERR_")
