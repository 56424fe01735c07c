"""The live allow-list: another file is taken over by itself, a bad one is told and changes nothing."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hbagent.role import allowed as allowed_module
from hbagent.role.allowed import PROBLEMS_TOLD_MAX, Allowed
from hbagent.role.driver import Driver
from hbagent.role.settings import Operator, Security
from hbagent.role.worker import Worker
from hbagent.transport.allow import AllowError, AllowList, Role, load, save
from tests.role.conftest import StartWorker
from tests.role.parts import Lines
from tests.role.test_driver import turn_until
from tests.transport.doors import enrolled, new_keys

NODE1, NODE2 = new_keys("demo/rack1/node1"), new_keys("demo/rack1/node2")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "allow.toml"
    save(path, enrolled(NODE1, NODE2))
    return path


@pytest.fixture
def allowed(file: Path, lines: Lines) -> Allowed:
    return Allowed(Security(allow=file), Role.AGENT, (), lines)


@pytest.fixture
def look(allowed: Allowed, driver: Driver, start_worker: StartWorker) -> Callable[..., None]:
    """Looks at the file and waits for what comes of it."""
    worker: Worker = start_worker()

    def now(force: bool = False) -> None:
        allowed.look(worker, driver.mailbox.post, force)
        assert turn_until(driver, lambda: not allowed._looking)

    return now


def test_the_list_is_there_at_the_start(allowed: Allowed) -> None:
    assert allowed.senders == {NODE1.public: NODE1.name, NODE2.public: NODE2.name}


def test_a_start_without_a_list_is_refused(tmp_path: Path, lines: Lines) -> None:
    with pytest.raises(AllowError, match="No such file"):
        Allowed(Security(allow=tmp_path / "none.toml"), Role.AGENT, (), lines)


def test_a_revoked_key_is_gone_at_the_next_look(
    allowed: Allowed, file: Path, look: Callable[..., None], lines: Lines
) -> None:
    seen: list[dict[str, str]] = []
    allowed.on_change = lambda: seen.append(allowed.senders)
    look()
    assert seen == [], "nothing has changed"
    save(file, enrolled(NODE2))
    look()
    assert seen == [{NODE2.public: NODE2.name}]
    assert lines.of("allow-list") == [{"keys": 1}]
    look()
    assert len(seen) == 1


def test_a_change_that_keeps_size_and_time_is_seen_too(allowed: Allowed, file: Path, look: Callable[..., None]) -> None:
    before = file.stat()
    save(file, enrolled(new_keys(NODE1.name), NODE2))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    look()
    assert NODE1.public not in allowed.senders


def damaged(file: Path) -> None:
    file.write_text("[agents\n")


def others_can_write(file: Path) -> None:
    file.chmod(0o666)


@pytest.mark.parametrize("spoil", [damaged, others_can_write, Path.unlink])
def test_a_bad_file_keeps_the_old_list_and_is_told_once(
    allowed: Allowed, file: Path, look: Callable[..., None], lines: Lines, spoil: Callable[[Path], None]
) -> None:
    before = allowed.list
    spoil(file)
    look()
    if spoil is others_can_write:
        # The mode is no part of what is looked at; a reload reads anyway.
        look(force=True)
    look()
    look()
    assert allowed.list is before
    assert len(lines.of("allow-list-refused")) == 1
    assert str(file) in lines.of("allow-list-refused")[0]["problem"]
    file.unlink(missing_ok=True)
    save(file, enrolled(NODE2))
    look()
    assert allowed.senders == {NODE2.public: NODE2.name}


def test_so_many_problems_are_told_and_the_rest_counted(
    allowed: Allowed, file: Path, look: Callable[..., None], lines: Lines
) -> None:
    file.write_text("[agents]\n" + "".join(f'"bad {number}" = []\n' for number in range(100)))
    look()
    assert len(lines.of("allow-list-refused")) == PROBLEMS_TOLD_MAX + 1
    assert lines.of("allow-list-refused")[-1] == {"more_problems": 100 - PROBLEMS_TOLD_MAX}


def test_a_reload_reads_an_unchanged_file_again(allowed: Allowed, look: Callable[..., None], lines: Lines) -> None:
    look(force=True)
    assert lines.of("allow-list") == [{"keys": 2}]


def test_what_is_forced_while_a_look_is_under_way_is_done_by_the_next(
    allowed: Allowed, driver: Driver, start_worker: StartWorker, lines: Lines
) -> None:
    worker = start_worker()
    allowed.look(worker, driver.mailbox.post)
    allowed.look(worker, driver.mailbox.post, force=True)
    assert turn_until(driver, lambda: not allowed._looking)
    assert lines.of("allow-list") == []
    allowed.look(worker, driver.mailbox.post)
    assert turn_until(driver, lambda: lines.of("allow-list"))


def test_plain_mode_has_no_file_and_the_names_of_the_config(
    driver: Driver, start_worker: StartWorker, lines: Lines
) -> None:
    allowed = Allowed(Security(plain=True), Role.AGENT, ["demo/rack1/node1"], lines)
    assert allowed.senders == {"demo/rack1/node1": "demo/rack1/node1"}
    changed: list[AllowList] = []
    allowed.on_change = lambda: changed.append(allowed.list)
    allowed.look(start_worker(), driver.mailbox.post, force=True)
    assert not allowed._looking
    allowed.use_names(["demo/rack1/node2"])
    assert [list(found.senders(Role.AGENT)) for found in changed] == [["demo/rack1/node2"]]


def test_names_of_the_config_mean_nothing_where_there_are_keys(allowed: Allowed) -> None:
    allowed.use_names(["demo/rack1/node9"])
    assert "demo/rack1/node9" not in allowed.senders.values()


def test_other_leaders_are_those_of_the_config_whatever_the_file_says(
    file: Path, lines: Lines, driver: Driver, start_worker: StartWorker
) -> None:
    save(file, enrolled(NODE1).allow(Role.LEADER, "demo/rack9-leader1", NODE2.public))
    leader2, leader3 = new_keys("demo/rack1-leader2"), new_keys("demo/rack1-leader3")
    allowed = Allowed(Security(allow=file), Role.AGENT, (), lines, {leader2.name: (leader2.public,)})
    assert allowed.senders == {NODE1.public: NODE1.name}
    assert allowed.senders_and_peers == {NODE1.public: NODE1.name, leader2.public: leader2.name}
    changed: list[dict[str, str]] = []
    allowed.on_change = lambda: changed.append(allowed.senders_and_peers)
    allowed.use_peers({leader2.name: (leader2.public,)})
    assert changed == []
    allowed.use_peers({leader3.name: (leader3.public,)})
    assert changed == [{NODE1.public: NODE1.name, leader3.public: leader3.name}]
    allowed.look(start_worker(), driver.mailbox.post, force=True)
    assert turn_until(driver, lambda: len(changed) == 2)
    assert changed[0] == changed[1]


def test_the_key_of_another_leader_is_no_agent_s(file: Path, lines: Lines) -> None:
    allowed = Allowed(Security(allow=file), Role.AGENT, (), lines, {"demo/rack1-leader2": (NODE1.public,)})
    assert allowed.senders == {NODE2.public: NODE2.name}
    (line,) = lines.of("key-of-another-leader")
    assert (line["leader"], line["refused"]) == ("demo/rack1-leader2", NODE1.name)


def test_the_loop_turns_on_while_a_list_is_read(
    file: Path, driver: Driver, start_worker: StartWorker, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = Allowed(Security(allow=file), Role.AGENT, (), lines)
    keys = [f"{number:05d}".ljust(40, "x") for number in range(1_000)]
    text = file.read_text() + "".join(f'"demo/rack1/host{at}" = ["{key}"]\n' for at, key in enumerate(keys))
    file.write_text(text.replace("[leaders]", "").replace("[operators]", ""))
    go_on = threading.Event()

    def slow(path: Path) -> AllowList:
        assert go_on.wait(20), "the loop waits for the reader"
        return load(path)

    monkeypatch.setattr(allowed_module, "load_allow", slow)
    allowed.look(start_worker(), driver.mailbox.post)
    turns: list[int] = []
    for number in range(50):
        driver.call_later(time.monotonic_ns(), functools.partial(turns.append, number))
        driver.turn()
    assert turns == list(range(50)) and len(allowed.senders) == 2
    go_on.set()
    assert turn_until(driver, lambda: len(allowed.senders) == 1_002)


# ---- operators -------------------------------------------------------------------------------------------


def test_operators_are_those_of_the_config_with_its_keys_or_those_of_the_file(
    file: Path, lines: Lines, driver: Driver, start_worker: StartWorker
) -> None:
    own, enrolled_key, stray = new_keys("alice"), new_keys("bob"), new_keys("carol")
    listed = enrolled(NODE1).allow(Role.OPERATOR, "bob", enrolled_key.public)
    save(file, listed.allow(Role.OPERATOR, "carol", stray.public))
    named = (Operator(name="alice", public_key=own.public, right="write"), Operator(name="bob"), Operator(name="dora"))
    allowed = Allowed(Security(allow=file), Role.AGENT, (), lines, operators=named)
    assert allowed.operators == {own.public: ("alice", True), enrolled_key.public: ("bob", False)}
    assert allowed.senders == {NODE1.public: NODE1.name}
    changes: list[dict[str, tuple[str, bool]]] = []
    allowed.on_change = lambda: changes.append(allowed.operators)
    allowed.use_operators(named)
    assert changes == [], "nothing has changed"
    allowed.use_operators((Operator(name="bob", right="write"),))
    assert changes == [{enrolled_key.public: ("bob", True)}]
    assert allowed.list.by_user_id(own.public) is None, "and the doorkeeper knows"
    save(file, enrolled(NODE1))
    allowed.look(start_worker(), driver.mailbox.post)
    assert turn_until(driver, lambda: len(changes) == 2)
    assert changes[1] == {}


def test_an_operator_with_the_key_of_another_is_told_and_refused(file: Path, lines: Lines) -> None:
    allowed = Allowed(
        Security(allow=file), Role.AGENT, (), lines, operators=(Operator(name="eve", public_key=NODE1.public),)
    )
    assert allowed.operators == {}
    assert allowed.senders[NODE1.public] == NODE1.name
    (told,) = lines.of("key-of-another")
    assert (told["operator"], told["key_of"]) == ("eve", NODE1.name)


def test_in_plain_mode_an_operator_is_their_name(lines: Lines) -> None:
    allowed = Allowed(
        Security(plain=True), Role.LEADER, ("demo/l1",), lines, operators=(Operator(name="alice", right="write"),)
    )
    assert allowed.operators == {"alice": ("alice", True)}
    assert allowed.senders == {"demo/l1": "demo/l1"}
