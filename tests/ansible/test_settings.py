from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hbagent.role.settings import AgentSettings, LeaderSettings, RootSettings, load_any
from hbagent.transport.allow import load
from hbagent.transport.keys import generate
from tests.ansible.plugins import addresses, inventory, plugin

settings = plugin("filter", "settings")
to_toml = plugin("filter", "toml").to_toml
topology = plugin("filter", "topology").topology
GROUPS = inventory({"a": ["h1", "h2", "h3"], "b": ["h4"]}, ["h1", "h2", "h4"], ["h1"])


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A key and a next one for each name, and a place where daemons find their own."""
    found = {}
    for name in topology(GROUPS, addresses(GROUPS), "dc1")["names"]:
        public, following = (generate(name, tmp_path / which).public for which in ("keys", "next"))
        found[name] = {"public": public, "next": following}
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for daemon, name in (("agent", "dc1/a/h1"), ("leader", "dc1/a-h1"), ("root", "dc1/root")):
        for source, suffix in (("keys", ""), ("next", "-next")):
            secret = (tmp_path / source / f"{name.replace('/', '.')}.key").read_bytes()
            (credentials / f"{daemon}{suffix}.key").write_bytes(secret)
            (credentials / f"{daemon}{suffix}.key").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    return found


def one(keys: dict[str, Any]) -> dict[str, Any]:
    """The keys of a fleet in which none is rotated."""
    return {name: {"public": entry["public"], "next": ""} for name, entry in keys.items()}


def read(directory: Path, content: dict[str, Any]) -> Any:
    path = directory / "file.toml"
    path.write_text(to_toml(content))
    return load_any(path)


def who(generations: dict[str, Any] | None = None, *, six: bool = False) -> Any:
    return topology(GROUPS, addresses(GROUPS, six=six), "dc1", generations)


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
def test_the_daemons_take_what_is_written(tmp_path: Path, keys: dict[str, Any], six: bool) -> None:
    found = who(six=six)
    agent = read(tmp_path, settings.agent_settings(found, "h1", one(keys)))
    leader = read(tmp_path, settings.leader_settings(found, "h1", one(keys)))
    root = read(tmp_path, settings.root_settings(found))
    assert isinstance(agent, AgentSettings) and [e.name for e in agent.leaders] == ["dc1/a-h1", "dc1/a-h2"]
    assert isinstance(leader, LeaderSettings) and [peer.name for peer in leader.peers] == ["dc1/a-h2"]
    assert leader.core.racks == {"dc1/a": ("dc1/a/h1", "dc1/a/h2", "dc1/a/h3")}
    assert isinstance(root, RootSettings) and [rack.name for rack in root.core.racks] == ["dc1/a", "dc1/b"]
    assert agent.echo_bind == ("::" if six else "0.0.0.0")
    assert root.publish == ("tcp://[::]:5711" if six else "tcp://*:5711")


def test_what_a_site_sets_is_taken_beside_what_the_inventory_says(tmp_path: Path, keys: dict[str, Any]) -> None:
    probe = {"name": "ssh", "kind": "tcp", "host": "127.0.0.1", "port": 22}
    extra = {"agent": {"interval": "2s"}, "app": [{"name": "shop"}]}
    agent = read(tmp_path, settings.agent_settings(who(), "h1", one(keys), extra, [probe], 5799, "/var/lib/x.prom"))
    assert (agent.core.interval_ns, agent.echo_port, agent.core.node) == (2_000_000_000, 5799, "dc1/a/h1")
    assert [probe.name for probe in agent.prober.probes][-1:] == ["ssh"] and agent.prober.textfile == "/var/lib/x.prom"


def test_the_root_gets_its_store_page_operators_and_sinks(tmp_path: Path, keys: dict[str, Any]) -> None:
    content = settings.root_settings(
        who(),
        {"root": {"lease": "6s"}},
        store="history",
        web={"listen": "127.0.0.1:8780"},
        metrics={"hosts": "problems"},
        operators_listen="tcp://*:5713",
        operators=[{"name": "alice", "public_key": keys["dc1/b/h4"]["next"], "right": "write"}],
        alertmanagers=[{"name": "am", "urls": ["http://192.0.2.9:9093"]}],
    )
    root = read(tmp_path, content)
    assert (root.store, root.metric_hosts, root.operators_port) == ("history", "problems", "tcp://*:5713")
    assert [operator.name for operator in root.operators] == ["alice"] and root.core.lease_ns == 6_000_000_000


def test_a_hook_is_one_that_is_shipped_one_of_the_site_or_any_program() -> None:
    hooks = [{"name": str(n), "command": [word, "-v"]} for n, word in enumerate(("mail", "hooks.d/own", "/bin/true"))]
    assert [hook["command"][0] for hook in settings.root_settings(who(), hooks=hooks)["hook"]] == [
        "/opt/hbagent/current/share/hbagent/hooks.d/mail",
        "/etc/hbagent/hooks.d/own",
        "/bin/true",
    ]


@pytest.mark.parametrize(
    ("daemon", "extra"),
    [("agent", {"leader": []}), ("agent", {"agent": {"node": "x"}}), ("leader", {"root": {}}), ("root", {"rack": []})],
)
def test_what_the_inventory_decides_cannot_be_set(daemon: str, extra: dict[str, Any]) -> None:
    found = who()
    with pytest.raises(ValueError, match=f"hbagent_{daemon}_settings sets .* follows from the inventory"):
        if daemon == "root":
            settings.root_settings(found, extra)
        else:
            getattr(settings, f"{daemon}_settings")(found, "h1", {}, extra)


def test_the_allow_list_has_exactly_the_hosts_of_the_inventory(tmp_path: Path, keys: dict[str, Any]) -> None:
    path = tmp_path / "allow.toml"
    path.write_text(to_toml(settings.allow_list(who(), "h1", "leader", one(keys))))
    assert {peer.name for peer in load(path).peers} == {"dc1/a/h1", "dc1/a/h2", "dc1/a/h3"}
    path.write_text(to_toml(settings.allow_list(who(), "h1", "root", one(keys))))
    assert {peer.name for peer in load(path).peers} == {"dc1/a-h1", "dc1/a-h2", "dc1/b-h4"}


def called(generations: dict[str, Any], keys: dict[str, Any]) -> dict[str, str]:
    agent = settings.agent_settings(who(generations), "h3", keys)
    return {row["public_key"]: row["publish"] for row in agent["leader"] if row["name"] == "dc1/a-h1"}


def test_a_leader_in_rotation_is_served_and_accepted_with_both_keys(tmp_path: Path, keys: dict[str, Any]) -> None:
    mine = {**one(keys), "dc1/a-h1": keys["dc1/a-h1"]}
    both = {keys["dc1/a-h1"]["public"], keys["dc1/a-h1"]["next"]}
    for phase in ("offered", "used"):
        found = who({"dc1/a-h1": {"generation": 0, "phase": phase}})
        leader = read(tmp_path, settings.leader_settings(found, "h1", mine))
        assert leader.rotation is not None and leader.rotation.publish == "tcp://*:5721"
        assert set(settings.allow_list(found, "h1", "root", mine)["leaders"]["dc1/a-h1"]) == both
        peer = settings.leader_settings(found, "h2", mine)["peer"][0]
        assert {peer["public_key"], peer["next_public_key"]} == both


def test_others_call_the_next_key_once_it_is_used(keys: dict[str, Any]) -> None:
    mine = {**one(keys), "dc1/a-h1": keys["dc1/a-h1"]}
    old, new = keys["dc1/a-h1"]["public"], keys["dc1/a-h1"]["next"]
    assert called({"dc1/a-h1": {"generation": 0, "phase": "offered"}}, mine) == {old: "tcp://192.0.2.1:5701"}
    assert called({"dc1/a-h1": {"generation": 0, "phase": "used"}}, mine) == {new: "tcp://192.0.2.1:5721"}
    # It has ended: the next key is the key, and nothing changes for who calls.
    done = {**one(keys), "dc1/a-h1": {"public": new, "next": ""}}
    assert called({"dc1/a-h1": 1}, done) == {new: "tcp://192.0.2.1:5721"}


def test_the_roots_rotation_is_in_its_file_and_in_the_leaders(tmp_path: Path, keys: dict[str, Any]) -> None:
    mine = {**one(keys), "dc1/root": keys["dc1/root"]}
    found = who({"dc1/root": {"generation": 1, "phase": "used"}})
    root = read(tmp_path, settings.root_settings(found))
    assert (root.publish, root.rotation.publish) == ("tcp://*:5731", "tcp://*:5711")
    leader = settings.leader_settings(found, "h4", mine)
    assert (leader["root"]["publish"], leader["root"]["public_key"]) == (
        "tcp://192.0.2.1:5711",
        keys["dc1/root"]["next"],
    )


def test_a_host_without_a_key_yet_can_be_written_for_a_dry_run() -> None:
    assert settings.allow_list(who(), "h1", "leader", {})["agents"]["dc1/a/h3"] == ["0" * 40]
