from __future__ import annotations

from typing import Any

from tests.ansible.plugins import addresses, inventory, plugin

files = plugin("filter", "files")
GROUPS = inventory({"a": ["h1", "h2", "h3"]}, ["h2"], ["h1"])
WHO = plugin("filter", "topology").topology(GROUPS, addresses(GROUPS), "dc1")
KEYS = "/etc/hbagent/keys"


def of(host: str, generations: dict[str, Any] | None = None, **more: Any) -> Any:
    return files.host_files(WHO, host, generations or {}, **more)


def test_a_host_has_the_units_and_keys_of_what_it_runs() -> None:
    found = of("h2")
    assert set(found["copies"]) == {
        "/etc/systemd/system/hbagent-agent.service",
        "/etc/systemd/system/hbagent-leader.service",
        "/etc/systemd/system/hbagent-diagnose.socket",
        "/etc/systemd/system/hbagent-diagnose@.service",
        "/etc/sysusers.d/hbagent.conf",
    }
    assert found["keys"] == [
        {"src": "dc1.a.h2.key", "dest": f"{KEYS}/agent.key"},
        {"src": "dc1.a-h2.key", "dest": f"{KEYS}/leader.key"},
    ]
    assert list(found["absent"]) == ["root"] and f"{KEYS}/root.key" in found["absent"]["root"]


def test_the_agents_file_is_not_for_the_group_that_may_give_orders() -> None:
    assert of("h1")["readers"] == {"agent": "hbagent-agent", "root": "hbagent"}


def test_without_the_helper_its_units_are_not_copied() -> None:
    assert not [path for path in of("h3", diagnose=False)["copies"] if "diagnose" in path]


def test_a_server_in_rotation_has_both_keys_and_a_credential_for_the_next() -> None:
    drop_in = "/etc/systemd/system/hbagent-leader.service.d/rotation.conf"
    found = of("h2", {"dc1/a-h2": {"generation": 0, "phase": "offered"}})
    assert {"src": "dc1.a-h2.next.key", "dest": f"{KEYS}/leader-next.key"} in found["keys"]
    content = f"[Service]\nLoadCredential=leader-next.key:{KEYS}/leader-next.key\n"
    assert found["drop_ins"] == {drop_in: content} and drop_in not in found["gone"]
    ended = of("h2", {"dc1/a-h2": 1})
    assert drop_in in ended["gone"] and f"{KEYS}/leader-next.key" in ended["gone"]


def test_an_agent_has_one_key_at_a_time() -> None:
    for phase, source in (("offered", "dc1.a.h3.key"), ("used", "dc1.a.h3.next.key")):
        found = of("h3", {"dc1/a/h3": {"generation": 0, "phase": phase}})
        assert found["keys"] == [{"src": source, "dest": f"{KEYS}/agent.key"}] and found["drop_ins"] == {}


def test_the_directory_of_the_text_file_becomes_writable() -> None:
    found = of("h3", drop_ins={"agent": "[Service]\nMemoryMax=1G"}, textfile="/var/lib/node/hbagent.prom")
    content = "[Service]\nMemoryMax=1G\n[Service]\nReadWritePaths=/var/lib/node\n"
    assert found["drop_ins"] == {"/etc/systemd/system/hbagent-agent.service.d/site.conf": content}
    assert {"path": "/etc/systemd/system/hbagent-agent.service.d", "group": "root", "mode": "0755"} in found[
        "directories"
    ]


def test_whatever_a_host_may_have_is_in_the_list_of_all_files() -> None:
    everything = files.all_files()
    for host in GROUPS["all"]:
        for phase in ("offered", "used"):
            generations = {name: {"generation": 0, "phase": phase} for name in WHO["names"]}
            found = of(host, generations, drop_ins={"agent": "[Service]", "leader": "[Service]", "root": "[Service]"})
            written = [*found["copies"], *found["links"], *(row["dest"] for row in found["keys"])]
            written += found["drop_ins"]
            assert not set(written) - set(everything["files"])
            places = {row["path"] for row in found["directories"]} - {"/etc/hbagent/keys", "/etc/hbagent/hooks.d"}
            assert not places - set(everything["directories"])
