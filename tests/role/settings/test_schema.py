"""The config files that are shipped: they load, name every key, and every default they show is the real one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from hbagent.core.checks import ExecCheck
from hbagent.core.config import AppConfig, ProbeConfig
from hbagent.core.states import Kind
from hbagent.core.units import SECOND
from hbagent.probes.host import MEASURES
from hbagent.role.settings import Settings
from hbagent.role.settings.document import Shape
from hbagent.role.settings.load import read_agent, read_any, read_leader, read_root
from hbagent.role.settings.probing import KINDS
from hbagent.role.settings.schema import AGENT_SHAPES, LEADER_SHAPES, ROOT_SHAPES

ETC = Path(__file__).parents[3] / "etc"
FILES: dict[str, Mapping[str, Shape]] = {"agent": AGENT_SHAPES, "leader": LEADER_SHAPES, "root": ROOT_SHAPES}

#: `#key = value` shows a default; `#  ` before it belongs to an example.
DEFAULT = re.compile(r"^#(?=[a-z_]+ = )", re.MULTILINE)
EXAMPLE = re.compile(r"^#  (?=\[|[a-z_]+ = )", re.MULTILINE)


def shipped(name: str) -> str:
    return (ETC / f"{name}.toml").read_text()


def read(name: str, text: str) -> Settings:
    readers: dict[str, Callable[[Path, str], Settings]] = {
        "agent": read_agent,
        "leader": read_leader,
        "root": read_root,
    }
    return readers[name](ETC / f"{name}.toml", text)


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_file_loads_as_what_it_is(name: str) -> None:
    assert read_any(ETC / f"{name}.toml", shipped(name)) == read(name, shipped(name))


@pytest.mark.parametrize("name", FILES)
def test_every_default_shown_is_the_real_one(name: str) -> None:
    text, shown = DEFAULT.subn("", shipped(name))
    assert shown >= 8
    assert read(name, text) == read(name, shipped(name))


@pytest.mark.parametrize("name", FILES)
def test_every_key_is_shown_in_its_table_with_a_comment_above(name: str) -> None:
    for section, shape in FILES[name].items():
        header = f"[[{section}]]" if shape.repeated else f"[{section}]"
        beginning = re.compile(rf"^(?:#  )?{re.escape(header)}\n", re.MULTILINE)
        table = re.split(r"^\[", beginning.split(shipped(name), maxsplit=1)[1], maxsplit=1, flags=re.MULTILINE)[0]
        for key in [*shape.keys, *(key for keys in shape.kinds.values() for key in keys)]:
            match = re.search(rf"^((?:#.*\n)(?:#?[a-z_]+ = .*\n)*)#?(?:  )?{key} = ", table, re.MULTILINE)
            assert match, f"etc/{name}.toml does not explain {key} in {header}"


def test_the_examples_load_too() -> None:
    text, lines = EXAMPLE.subn("", shipped("root"))
    assert lines >= 5
    settings = read_root(ETC / "root.toml", text)
    hooks = {hook.name: hook for hook in settings.core.hooks}
    assert list(hooks) == ["syslog", "chat", "mail", "webhook", "heartbeat", "fence"]
    assert [hook.argv[0] for hook in hooks.values() if not Path(hook.argv[0]).is_file()] == []
    assert {hooks[name].hold_ns for name in ("chat", "mail", "webhook")} == {10 * SECOND}, "what wakes people waits"
    text, lines = EXAMPLE.subn("", shipped("leader"))
    assert lines == 12
    leader = read_leader(ETC / "leader.toml", text)
    assert [peer.name for peer in leader.peers] == ["dc1/rack07-leader2"]
    assert leader.rotation is not None
    text, lines = EXAMPLE.subn("", shipped("agent"))
    assert lines >= 80
    prober = read_agent(ETC / "agent.toml", text).prober
    assert {type(probe.check) for probe in prober.probes} == {make for make, _ in KINDS.values()}, "one of each kind"
    assert [app.name for app in prober.apps] == ["web"]


def test_the_defaults_that_examples_show_are_the_real_ones() -> None:
    text = EXAMPLE.sub("", shipped("agent"))
    usual = ProbeConfig(name="imap", check=ExecCheck(argv=("x",)))
    (imap,) = [probe for probe in read_agent(ETC / "agent.toml", text).prober.probes if probe.name == "imap"]
    assert msgspec.structs.replace(imap, check=usual.check, app="") == usual
    (web,) = read_agent(ETC / "agent.toml", text).prober.apps
    usual_app = AppConfig(name="web")
    for field in ("window_ns", "start_timeout_ns", "overdue", "restart_on", "weight"):
        assert getattr(web, field) == getattr(usual_app, field), field


def test_the_measures_that_are_listed_are_those_that_there_are() -> None:
    listed = re.search(r"thresholds of your own: ([^.]*)\.", shipped("agent").replace("\n#", ""))
    assert listed is not None
    assert re.findall(r"[a-z]+(?:-[a-z]+)?", listed[1].replace(" or ", " ")) == list(MEASURES)


def test_every_kind_that_a_hook_may_be_told_of_is_listed() -> None:
    comment = shipped("root").split("# What it is told of:")[1].split("\n#on")[0]
    listed = re.findall(r"[a-z]+(?:-[a-z]+)*", comment.replace("#", ""))
    assert listed == [kind.value for kind in Kind if kind not in (Kind.NODE_JOINED, Kind.NODE_ACCOUNTED)]


def test_the_shipped_hooks_are_programs_that_only_their_owner_can_change() -> None:
    for hook in read_root(ETC / "root.toml", EXAMPLE.sub("", shipped("root"))).core.hooks:
        mode = Path(hook.argv[0]).stat().st_mode
        assert mode & 0o111 == 0o111, hook.argv[0]
        assert mode & 0o002 == 0, hook.argv[0]


def test_two_daemons_on_one_host_have_nothing_in_common_by_default() -> None:
    leader = read_leader(ETC / "leader.toml", shipped("leader"))
    root = read_root(ETC / "root.toml", shipped("root"))
    agent = read_agent(ETC / "agent.toml", shipped("agent"))
    places = [leader.publish, leader.control, leader.query, str(leader.state_dir)]
    places += [root.publish, root.control, root.query, str(root.state_dir)]
    assert len(set(places)) == len(places)
    assert not any(place.endswith(f":{agent.echo_port}") for place in places)
