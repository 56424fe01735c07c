"""The key of a leader, and that of the root, is changed under a running datacenter, and nobody notices.

Five steps: the next key is served beside the present one; whoever calls is told of it, one by one and without a
restart; the daemon says when nobody uses the present key any more; the next key takes its place; the present one is
revoked. The states that the root shows are looked at all the while.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable

import pytest
import zmq

from hbagent.demo.datacenter import Plan, held_ports
from hbagent.transport import sockets
from hbagent.transport.allow import Role
from hbagent.transport.keys import KeyPair, generate
from hbagent.transport.monitor import Link, LinkEvent, Monitor
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet
from tests.e2e.patient import PATIENT

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("healed"), pytest.mark.paired, pytest.mark.timeout(180)]

ONE, OTHER = "rack1-leader1", "rack1-leader2"
LEADERS = (ONE, OTHER)


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    # At shorter ones a machine that keeps a thread from running for half a second has its process leave out a beat.
    made = build(Plan(racks=1, nodes=4, leaders=2, interval="1s", leader_tables=PATIENT, root_lines=('lease = "30s"',)))
    made.wake_up()
    return made


class Change:
    """The key of one daemon of a fleet, on its way to the next one."""

    def __init__(self, fleet: Fleet, who: str, round: int) -> None:
        self.fleet, self.who, self.name = fleet, who, f"demo/{who}"
        self.old_file = fleet.setting(who, "key")
        self.new_file = f"../next{round}/demo.{who}.key"
        self.old: KeyPair = generate(self.name, (fleet.config(who).parent / self.old_file).parent)
        self.new = generate(self.name, fleet.directory / f"next{round}")
        self.ports = [fleet.setting(who, key) for key in ("publish", "control")]
        self._held = contextlib.ExitStack()
        self.next_ports = [f"tcp://127.0.0.1:{port}" for port in self._held.enter_context(held_ports(2))]
        # They are used until the datacenter ends.
        weakref.finalize(fleet, self._held.close)

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        file = self.fleet.config(name)
        file.write_text(change(file.read_text()))

    def reload(self, name: str, change: Callable[[str], str]) -> None:
        """Give a process another file, and wait until it has taken it over."""
        before = len(self.fleet.lines(name, "reloaded"))
        self.edit(name, change)
        self.fleet.signal(name, signal.SIGHUP)
        self.fleet.until(lambda: len(self.fleet.lines(name, "reloaded")) > before, f"{name} has read its file")
        assert not self.fleet.lines(name, "needs-restart"), "nobody has to be restarted for it"

    def restart(self) -> None:
        assert self.fleet.end(self.who)[0] == 0
        self.fleet.start([self.who])
        self.fleet.settle()

    # ---- the steps ---------------------------------------------------------------------------------------

    def serve(self) -> None:
        """1: both keys are served, and a leader's next key is let in where it calls."""
        table = (
            f'[rotation]\nkey = "{self.new_file}"\npublish = "{self.next_ports[0]}"\ncontrol = "{self.next_ports[1]}"'
        )
        self.edit(self.who, lambda text: text.replace("[security]", f"{table}\n[security]"))
        if self.who != "root":
            self.fleet.edit_allowed(lambda allow: allow.allow(Role.LEADER, self.name, self.new.public), "root")
            present, coming = (f'public_key = "{pair.public}"' for pair in (self.old, self.new))
            self.reload(OTHER, lambda text: text.replace(present, f"{present}\nnext_{coming}"))
        self.restart()

    def moved(self, text: str) -> str:
        """A caller's file with the next key and its ports."""
        for here, there in zip((*self.ports, self.old.public), (*self.next_ports, self.new.public), strict=True):
            text = text.replace(f'"{here}"', '"<next>"').replace(f'"{there}"', f'"{here}"').replace("<next>", there)
        return text

    def move(self, *names: str) -> None:
        """2: those who call are told of the next key and its ports."""
        for name in names:
            self.reload(name, self.moved)

    def in_use(self, *options: str) -> tuple[int, str]:
        """3: who still uses the present key."""
        command = [sys.executable, "-m", "hbagent", "keys", "in-use", "--config", str(self.fleet.config(self.who))]
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def until_in_use(self, said: str) -> tuple[int, str]:
        """The same once it begins like this: connections are counted a moment after they are made."""
        answer = (0, "")
        for _ in range(30):
            answer = self.in_use()
            if answer[1].startswith(said):
                break
        assert answer[1].startswith(said), answer
        return answer

    def take_over(self) -> None:
        """4: the next key and its ports become those of the daemon."""

        def change(text: str) -> str:
            head, _, rest = text.partition("[rotation]")
            text = head + "[security]" + rest.partition("[security]")[2]
            text = text.replace(f'"{self.old_file}"', f'"{self.new_file}"')
            for here, there in zip(self.ports, self.next_ports, strict=True):
                text = text.replace(f'"{here}"', f'"{there}"')
            return text

        self.edit(self.who, change)
        self.restart()

    def revoke(self) -> None:
        """5: the old key is nobody's."""
        if self.who != "root":
            self.fleet.edit_allowed(lambda allow: allow.revoke(self.name, self.old.public), "root")
            self.reload(OTHER, lambda text: text.replace(f'next_public_key = "{self.old.public}"\n', ""))

    def all_steps(self, *callers: str) -> None:
        self.serve()
        code, said = self.until_in_use(f"{len(callers)} still use key ")
        assert code == 1, said
        self.move(*callers)
        code, said = self.in_use("--wait", "30s")
        assert (code, "any more" in said) == (0, True), said
        self.take_over()
        self.revoke()


def _binding(ports: list[str]) -> tuple[str, str]:
    return f'publish = "{ports[0]}"', f'control = "{ports[1]}"'


class Onlooker:
    """Looks at what the root shows, as often as it can. A root that is started anew shows nothing."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._end = threading.Event()
        self.seen: dict[tuple[str, str | None], int] = {}
        self.looks = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._end.wait(0.05):
            states = self._fleet.states()
            self.looks += bool(states)
            for state in states.values():
                self.seen[state] = self.seen.get(state, 0) + 1

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def lost(fleet: Fleet, leaders: Iterable[str] = LEADERS) -> dict[tuple[str, str], int]:
    """Beats that each leader missed of each node in its present life."""
    return {(leader, node): fleet.row(node, of=leader)["lost"] for leader in leaders for node in fleet.agents}


def takes(target: sockets.Target, keys: KeyPair, seconds: float = 30.0) -> bool:
    """Whether a server takes this key of a client, and has the key that the client expects.

    One that does not know it refuses it; one that has another key hangs up, again and again.
    """
    heard: list[LinkEvent] = []
    context: sockets.Context = zmq.Context()
    caller = sockets.Caller(name=keys.name, keys=keys, reconnect_ms=100)
    dealer = sockets.control_dealer(context, caller, ())
    told = threading.Event()

    def tell(link: Link) -> None:
        heard.append(link.event)
        if link.event is not LinkEvent.LOST or heard.count(LinkEvent.LOST) > 2:
            told.set()

    monitor = Monitor({"": dealer}, tell)
    sockets.connect(dealer, caller, target)
    told.wait(seconds)
    monitor.stop()
    dealer.close()
    context.term()
    assert told.is_set(), f"{target.endpoint} neither lets in nor refuses: {heard}"
    return LinkEvent.UP in heard


def test_the_key_of_a_leader_is_changed_and_nobody_notices(fleet: Fleet, figures: Figures) -> None:
    mark, told = fleet.newest(), len(fleet.told())
    change = Change(fleet, ONE, 1)
    begun = time.monotonic()
    with Onlooker(fleet) as onlooker:
        change.serve()
        code, said = change.until_in_use("5 still use key ")
        assert (code, "demo/rack1-leader2, demo/rack1/node1" in said) == (1, True), said
        before = lost(fleet)
        change.move(*fleet.agents, OTHER)
        code, said = change.in_use("--wait", "30s", "-o", "json")
        assert code == 0, said
        found = json.loads(said)
        assert (found["old"]["peers"], found["new"]["peers"], found["new"]["key"]) == (0, 5, change.new.public)
        assert lost(fleet) == before, "no beat was lost on the way"
        assert not any(fleet.lines(name, "new-address-does-not-work") for name in fleet.names)
        change.take_over()
        change.revoke()
        time.sleep(1.0)
    figures("keys", f"a leader's key in {time.monotonic() - begun:.1f} s, {onlooker.looks} looks: {onlooker.seen}")
    assert list(onlooker.seen) == [("ALIVE", None)]
    assert fleet.events(mark) == []
    assert len(fleet.told()) == told
    assert change.in_use() == (0, change.in_use()[1])
    assert "no key is being changed" in change.in_use()[1]
    root = sockets.Target(fleet.setting("root", "control"), fleet.keys("root").public)
    fleet.until(lambda: not takes(root, change.old), "the root does not let the old key in", 30.0)
    assert takes(root, change.new)
    other = sockets.Target(fleet.setting(OTHER, "control"), fleet.keys(OTHER).public)
    fleet.until(lambda: not takes(other, change.old), "the other leader does not let the old key in", 30.0)
    own = fleet.setting(ONE, "control")
    assert own == change.next_ports[1]
    assert not takes(sockets.Target(own, change.old.public), fleet.keys("rack1-node1")), "the old key is still served"
    assert takes(sockets.Target(own, change.new.public), fleet.keys("rack1-node1"))
    # The two leaders go on asking each other, by the next keys.
    assert fleet.lines(OTHER, "peer-connected")
    assert not fleet.lines(OTHER, "peer-refused-our-key")
    assert not fleet.lines(ONE, "peer-refused-our-key")


def test_the_key_of_the_root_is_changed_and_nobody_notices(fleet: Fleet, figures: Figures) -> None:
    mark, told = fleet.newest(), len(fleet.told())
    change = Change(fleet, "root", 2)
    begun = time.monotonic()
    with Onlooker(fleet) as onlooker:
        change.all_steps(*LEADERS)
        time.sleep(1.0)
    figures("keys", f"the root's key in {time.monotonic() - begun:.1f} s, {onlooker.looks} looks: {onlooker.seen}")
    shown = {state for state in onlooker.seen if state[1] not in ("leader-lost", "never-seen")}
    assert shown == {("ALIVE", None)}
    assert fleet.events(mark) == []
    assert len(fleet.told()) == told
    own = fleet.setting("root", "control")
    assert not takes(sockets.Target(own, change.old.public), fleet.keys(OTHER)), "the old key is still served"
    assert takes(sockets.Target(own, change.new.public), fleet.keys(OTHER))


def test_who_was_not_told_of_the_next_key_goes_on_with_the_present_one(fleet: Fleet) -> None:
    mark = fleet.newest()
    change = Change(fleet, ONE, 3)
    told, untold = fleet.agents[:2], fleet.agents[2:]
    with Onlooker(fleet) as onlooker:
        change.serve()
        change.move(*told)
        names = [fleet.nodes[name] for name in untold]
        change.until_in_use("3 still use key ")
        code, said = change.in_use("-o", "json")
        assert (code, json.loads(said)["old"]["names"]) == (1, [f"demo/{OTHER}", *names])
        # Half way a death is noticed among both, and so is a return.
        for node in (told[0], untold[0]):
            fleet.end(node)
            fleet.until_liveness(node, "LEFT")
            fleet.until(
                lambda node=node: fleet.nodes[node] not in json.loads(change.in_use("-o", "json")[1])["old"]["names"],  # type: ignore[misc]
                f"{node} uses it no more",
            )
            fleet.start([node])
            fleet.until_liveness(node, "ALIVE")
        # Back, and on again: which of the two doors is used is each one's own business.
        change.move(told[1])
        fleet.until(lambda: fleet.nodes[told[1]] in change.in_use("-o", "json")[1], "one of them is back")
        change.move(told[1], *untold, OTHER)
        assert change.in_use("--wait", "30s")[0] == 0
        change.take_over()
        change.revoke()
    assert {state for state in onlooker.seen if state[0] != "LEFT"} == {("ALIVE", None)}
    assert {row["kind"] for row in fleet.events(mark)} <= {"node-left", "node-joined", "node-restarted"}


def test_an_address_that_does_not_work_is_not_moved_to(fleet: Fleet) -> None:
    mark = fleet.newest()
    change = Change(fleet, ONE, 4)
    node = fleet.agents[0]
    before = lost(fleet)
    # Nobody listens at a port that is held.
    with Onlooker(fleet) as onlooker, held_ports(1) as (wrong,):
        for name in (node, OTHER):
            # The key of nobody, and a port where nobody listens.
            change.reload(name, lambda text: text.replace(f'"{change.ports[1]}"', f'"tcp://127.0.0.1:{wrong}"'))
        for name in (node, OTHER):
            fleet.until(lambda: fleet.lines(name, "new-address-does-not-work"), "it is told", 30.0)  # noqa: B023
        assert "kept=" + change.ports[1] in fleet.lines(node, "new-address-does-not-work")[0]
        for name in (node, OTHER):
            change.reload(name, lambda text: text.replace(f'"tcp://127.0.0.1:{wrong}"', f'"{change.ports[1]}"'))
        time.sleep(0.5)
    assert lost(fleet) == before
    assert list(onlooker.seen) == [("ALIVE", None)]
    assert fleet.events(mark) == []
