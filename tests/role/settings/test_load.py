"""Config files become settings, and what does not fit together is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.config import (
    AgentConfig,
    DetectorConfig,
    HookConfig,
    LeaderConfig,
    ProberConfig,
    RackConfig,
    RootConfig,
    SinkConfig,
)
from hbagent.core.states import Kind
from hbagent.core.units import MILLISECOND, MINUTE, SECOND
from hbagent.probes import defaults
from hbagent.role.settings import (
    AgentSettings,
    AnySettings,
    ConfigError,
    Endpoint,
    LeaderSettings,
    Logging,
    RootSettings,
    Security,
    load_agent,
    load_any,
    load_leader,
    load_root,
)
from hbagent.role.settings.load import read_agent, read_any, read_leader, read_root
from hbagent.transport import keys

KEY = "R[&C4]+AHCkK>B<.=:zF@Vn[+Yo50-uxXD9{LoFz"
HERE = Path("/etc/hbagent/t.toml")
Reader = Callable[[Path, str], AnySettings]

AGENT = f"""\
[agent]
node = "dc1/rack1/node1"
[security]
key = "node1.key"
[[leader]]
name = "dc1/rack1-leader1"
publish = "tcp://10.0.0.1:5701"
control = "tcp://10.0.0.1:5702"
public_key = "{KEY}"
"""
LEADER = f"""\
[leader]
name = "dc1/rack1-leader1"
[security]
key = "leader.key"
allow = "allow.toml"
[root]
name = "dc1/root"
publish = "tcp://10.0.0.9:5711"
control = "tcp://10.0.0.9:5712"
public_key = "{KEY}"
[[rack]]
name = "dc1/rack1"
nodes = ["node1", "node2"]
"""
PEER_KEY = "jMjFdF=XUD4k4f*4nVAJtJFi]T%Rh3i#cYT0(8?*"
PEER = f"""\
[[peer]]
name = "dc1/rack1-leader2"
control = "tcp://10.0.0.2:5702"
public_key = "{PEER_KEY}"
"""
SINK = """\
[[alertmanager]]
name = "am"
urls = ["http://10.0.0.1:9093"]
"""
ROOT = """\
[root]
name = "dc1/root"
[security]
key = "root.key"
allow = "allow.toml"
[[rack]]
name = "dc1/rack1"
leaders = ["dc1/rack1-leader1"]
"""


def problems(read: Reader, text: str, path: Path = HERE) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read(path, text)
    return [str(problem).removeprefix(f"{path}:").strip() for problem in raised.value.problems]


def without(text: str, *starts: str) -> str:
    """The text without the lines that start so."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(starts))


def plain(text: str) -> str:
    """The same daemon in plain text on loopback."""
    bare = without(text, "key", "allow", "public_key").replace("10.0.0.", "127.0.0.")
    return bare.replace("[security]\n", "[security]\nplain = true\n")


# ---- right files -----------------------------------------------------------------------------------------


def test_a_short_agent_file_has_all_defaults() -> None:
    endpoint = Endpoint(
        name="dc1/rack1-leader1", publish="tcp://10.0.0.1:5701", control="tcp://10.0.0.1:5702", public_key=KEY
    )
    assert read_agent(HERE, AGENT) == AgentSettings(
        core=AgentConfig(node="dc1/rack1/node1", leaders=("dc1/rack1-leader1",), echo_port=5703),
        leaders=(endpoint,),
        security=Security(key=Path("/etc/hbagent/node1.key")),
        logging=Logging(),
        echo_bind="0.0.0.0",
        echo_port=5703,
        reconnect_ns=(SECOND, 3 * SECOND),
        prober=ProberConfig(
            probes=defaults.PROBES,
            notify="/run/hbagent/notify",
            state_dir="/var/lib/hbagent/agent",
            helper="/run/hbagent-diagnose.sock",
        ),
    )


def test_a_short_leader_file_has_all_defaults() -> None:
    endpoint = Endpoint(name="dc1/root", publish="tcp://10.0.0.9:5711", control="tcp://10.0.0.9:5712", public_key=KEY)
    racks: dict[str, tuple[str, ...]] = {"dc1/rack1": ("dc1/rack1/node1", "dc1/rack1/node2")}
    assert read_leader(HERE, LEADER) == LeaderSettings(
        core=LeaderConfig(name="dc1/rack1-leader1", racks=racks, root="dc1/root"),
        publish="tcp://*:5701",
        control="tcp://*:5702",
        query="ipc:///run/hbagent-leader/leader.sock",
        state_dir=Path("/var/lib/hbagent/leader"),
        root=endpoint,
        security=Security(key=Path("/etc/hbagent/leader.key"), allow=Path("/etc/hbagent/allow.toml")),
        logging=Logging(),
    )


def test_a_short_root_file_has_all_defaults() -> None:
    assert read_root(HERE, ROOT) == RootSettings(
        core=RootConfig(name="dc1/root", racks=(RackConfig(name="dc1/rack1", leaders=("dc1/rack1-leader1",)),)),
        publish="tcp://*:5711",
        control="tcp://*:5712",
        query="ipc:///run/hbagent-root/root.sock",
        state_dir=Path("/var/lib/hbagent/root"),
        security=Security(key=Path("/etc/hbagent/root.key"), allow=Path("/etc/hbagent/allow.toml")),
        logging=Logging(),
    )


def test_every_agent_key_reaches_its_setting() -> None:
    tables = """\
interval = "250ms"
report_interval = "5s"
farewell = "3s"
[prober]
enabled = false
[log]
level = "debug"
format = "json"
[echo]
bind = "127.0.0.1"
port = 6000
[network]
reconnect_min = "200ms"
reconnect_max = "1s"
"""
    read = read_agent(HERE, AGENT.replace("[security]", tables + "[security]"))
    assert read.core == AgentConfig(
        node="dc1/rack1/node1",
        leaders=("dc1/rack1-leader1",),
        interval_ns=250 * MILLISECOND,
        report_interval_ns=5 * SECOND,
        farewell_ns=3 * SECOND,
        echo_port=6000,
        prober=False,
    )
    assert (read.echo_bind, read.echo_port) == ("127.0.0.1", 6000)
    assert read.logging == Logging(level="debug", format="json")
    assert read.reconnect_ns == (200 * MILLISECOND, SECOND)


def test_every_leader_key_reaches_its_setting() -> None:
    tables = """\
publish = "tcp://127.0.0.1:6001"
control = "ipc://run/control.sock"
query = "ipc://run/leader.sock"
state_dir = "state"
summary_interval = "500ms"
report_interval = "5s"
join_grace = "3s"
dead_after_intervals = 4
dead_after_min = "1s"
dead_after = "10s"
host_gone_slack = "300ms"
gate_share = 0.5
gate_min = 4
gate_hold = "2s"
dark_share = 1
outbox_max = 500
[detector]
kind = "phi"
margin = "50ms"
mistakes_per_day = 24
margin_min = "10ms"
margin_max = "1s"
phi_threshold = 12
window_samples = 200
deviation_min = "20ms"
pause = "1s"
[doubt]
enabled = false
pings = 3
ping_spacing = "20ms"
neighbours = 1
echo_check = "5m"
share = 0.01
burst = 40
"""
    read = read_leader(HERE, LEADER.replace("[security]", tables + "[security]") + PEER)
    assert read.core == LeaderConfig(
        name="dc1/rack1-leader1",
        racks={"dc1/rack1": ("dc1/rack1/node1", "dc1/rack1/node2")},
        root="dc1/root",
        detector=DetectorConfig(
            kind="phi",
            margin_ns=50 * MILLISECOND,
            mistakes_per_day=24.0,
            margin_min_ns=10 * MILLISECOND,
            margin_max_ns=SECOND,
            phi_threshold=12.0,
            window_samples=200,
            deviation_min_ns=20 * MILLISECOND,
            pause_ns=SECOND,
        ),
        dead_after_intervals=4,
        dead_after_min_ns=SECOND,
        dead_after_ns=10 * SECOND,
        host_gone_slack_ns=300 * MILLISECOND,
        gate_share=0.5,
        gate_min=4,
        gate_hold_ns=2 * SECOND,
        dark_share=1.0,
        doubt=False,
        pings=3,
        ping_spacing_ns=20 * MILLISECOND,
        neighbours=1,
        echo_check_ns=5 * MINUTE,
        ask_share=0.01,
        ask_burst=40,
        peers=("dc1/rack1-leader2",),
        join_grace_ns=3 * SECOND,
        summary_interval_ns=500 * MILLISECOND,
        report_interval_ns=5 * SECOND,
        outbox_max=500,
    )
    assert (read.publish, read.control) == ("tcp://127.0.0.1:6001", "ipc:///etc/hbagent/run/control.sock")
    assert (read.query, read.state_dir) == ("ipc:///etc/hbagent/run/leader.sock", Path("/etc/hbagent/state"))
    assert read.peers == (Endpoint(name="dc1/rack1-leader2", control="tcp://10.0.0.2:5702", public_key=PEER_KEY),)


@pytest.mark.parametrize(
    ("lines", "detector"),
    [
        ("", DetectorConfig()),
        ('margin = "50ms"', DetectorConfig(margin_ns=50 * MILLISECOND, mistakes_per_day=0)),
        ('margin = "50ms"\nmistakes_per_day = 10', DetectorConfig(margin_ns=50 * MILLISECOND, mistakes_per_day=10)),
        ("mistakes_per_day = 0.5", DetectorConfig(mistakes_per_day=0.5)),
        ('margin = "5s"', DetectorConfig(margin_ns=5 * SECOND, mistakes_per_day=0)),
        ('margin_min = "400ms"', DetectorConfig(margin_ns=400 * MILLISECOND, margin_min_ns=400 * MILLISECOND)),
        ('margin_max = "90ms"', DetectorConfig(margin_ns=90 * MILLISECOND, margin_max_ns=90 * MILLISECOND)),
    ],
)
def test_a_margin_stays_as_written_unless_learning_is_asked_for(lines: str, detector: DetectorConfig) -> None:
    text = LEADER.replace("[security]", f"[detector]\n{lines}\n[security]")
    assert read_leader(HERE, text).core.detector == detector


def test_every_root_key_reaches_its_setting() -> None:
    tables = """\
lease = "3s"
start_grace = "1s"
join_grace = "2s"
hook_concurrency = 2
hook_queue_max = 200
[[hook]]
name = "page"
command = ["hooks.d/page", "--to", "../ops", "--to", ""]
on = ["node-dead", "rack-dark"]
timeout = "5s"
[[hook]]
name = "log"
command = ["/usr/bin/logger"]
[[alertmanager]]
name = "am"
urls = ["http://10.0.0.1:9093/", "https://am2/alerts"]
on = ["node-dead"]
drills = true
hold = "5s"
resend = "30s"
"""
    read = read_root(HERE, ROOT.replace("[security]", tables + "[security]"))
    page = HookConfig(
        name="page",
        argv=("/etc/hbagent/hooks.d/page", "--to", "../ops", "--to", ""),
        on=(Kind.NODE_DEAD, Kind.RACK_DARK),
        timeout_ns=5 * SECOND,
    )
    sink = SinkConfig(
        name="am",
        urls=("http://10.0.0.1:9093", "https://am2/alerts"),
        on=(Kind.NODE_DEAD, Kind.NODE_RECOVERED, Kind.NODE_STEADY, Kind.RACK_RECOVERED, Kind.LEADER_RECOVERED),
        drills=True,
        hold_ns=5 * SECOND,
        resend_ns=30 * SECOND,
    )
    assert read.core == RootConfig(
        name="dc1/root",
        racks=(RackConfig(name="dc1/rack1", leaders=("dc1/rack1-leader1",)),),
        hooks=(page, HookConfig(name="log", argv=("/usr/bin/logger",))),
        sinks=(sink,),
        lease_ns=3 * SECOND,
        start_grace_ns=SECOND,
        join_grace_ns=2 * SECOND,
        hook_concurrency=2,
        hook_queue_max=200,
    )


def test_metrics_of_a_host_are_written_with_its_name() -> None:
    assert read_agent(HERE, AGENT).prober.textfile == ""
    prober = read_agent(HERE, AGENT + '[metrics]\ntextfile = "../x.prom"\n').prober
    assert (prober.textfile, prober.node) == ("/etc/hbagent/../x.prom", "dc1/rack1/node1")


def test_the_root_may_tell_of_fewer_hosts() -> None:
    assert read_root(HERE, ROOT).metric_hosts == "all"
    assert read_root(HERE, ROOT + '[metrics]\nhosts = "problems"\n').metric_hosts == "problems"


def test_an_echo_that_is_off_has_neither_address_nor_port() -> None:
    read = read_agent(HERE, AGENT + "[echo]\nenabled = false\nport = 6000\n")
    assert (read.echo_bind, read.echo_port, read.core.echo_port) == ("", 0, 0)


def test_relative_paths_start_at_the_directory_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "agent.toml").write_text(AGENT)
    monkeypatch.chdir(tmp_path)
    assert load_agent("etc/agent.toml").security.key == tmp_path / "etc" / "node1.key"


def test_plain_text_on_loopback_needs_no_keys() -> None:
    addresses = 'publish = "tcp://127.0.0.1:5701"\ncontrol = "ipc://control.sock"\n[security]\n'
    assert read_agent(HERE, plain(AGENT)).leaders[0].public_key == ""
    leader = read_leader(HERE, plain(LEADER).replace("[security]\n", addresses))
    assert leader.security == Security(plain=True)


@pytest.mark.parametrize(
    ("text", "load", "kind"),
    [(AGENT, load_agent, AgentSettings), (LEADER, load_leader, LeaderSettings), (ROOT, load_root, RootSettings)],
)
def test_the_sections_tell_whose_file_it_is(
    tmp_path: Path, text: str, load: Callable[[Path], AnySettings], kind: type
) -> None:
    (tmp_path / "t.toml").write_text(text)
    assert isinstance(load_any(tmp_path / "t.toml"), kind)
    assert load_any(str(tmp_path / "t.toml")) == load(tmp_path / "t.toml")


# ---- wrong files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "whose file is this? It has no section [agent], [leader] or [root]"),
        ("[agnet]\nnode = 1\n", 'has no section [agent], [leader] or [root], did you mean "agent"?'),
        ("[[leader]]\n[security]\nplain = true\n", "missing section [agent]"),
    ],
)
def test_a_file_of_nobody_is_told(text: str, says: str) -> None:
    assert problems(read_any, text)[0].endswith(says)


def test_a_leader_file_with_a_typo_reads_as_promised() -> None:
    text = LEADER.replace("[root]\n", '[detector]\nmargn = "20ms"\n[root]\n')
    assert problems(read_leader, text) == ['7: [detector]: unknown key "margn", did you mean "margin"?']


def test_everything_wrong_with_an_agent_file_comes_at_once() -> None:
    text = """\
[agent]
node = "rack1/node1"
[network]
reconnect_min = "9s"
[[leader]]
name = "dc1/l1"
publish = "tcp://*:5701"
control = "tcp://h:1"
[[leader]]
publish = "tcp://h:1"
control = "tcp://h:1"
public_key = "short"
"""
    found = problems(read_agent, text)
    assert [line.partition(":")[0] for line in found] == [
        'missing key "key", the file of the own secret key; "hbagent keys init" makes one',
        *["2", "3", "5", "7", "9", "11", "11", "12"],
    ]


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (read_agent, without(AGENT, "key"), '3: [security]: missing key "key", the file of the own secret key'),
        (read_leader, without(LEADER, "allow"), '3: [security]: missing key "allow", the file of who may connect'),
        (read_agent, without(AGENT, "public_key"), '5: leader "dc1/rack1-leader1": missing key "public_key"'),
        (read_leader, without(LEADER, "public_key"), '6: [root]: missing key "public_key"'),
        (read_agent, AGENT.replace(KEY, KEY[1:]), "40 characters"),
        (read_agent, AGENT.replace(KEY, "none.pub"), "/etc/hbagent/none.pub"),
        (read_agent, AGENT.replace("[security]", "[echo]\nbinds = 1\n[security]"), 'did you mean "bind"?'),
        (read_agent, AGENT + '[network]\nreconnect_max = "500ms"\n', "reconnect_min is longer than reconnect_max"),
        (read_agent, AGENT + AGENT[AGENT.index("[[leader]]") :], "there is another [[leader]] of this name"),
        (read_agent, AGENT + AGENT[AGENT.index("[[leader]]") :], "another leader has this address"),
        (read_agent, AGENT.replace("5702", "5701"), "another key of this table has the same address"),
        (read_leader, LEADER.replace('"dc1/root"', '"dc1/rack1-leader1"'), "the root has the name of this leader"),
        (read_leader, LEADER + LEADER[LEADER.index("[[rack]]") :], "there is another [[rack]] of this name"),
        (read_leader, LEADER.replace('"node2"', '"node1"'), '13: rack "dc1/rack1": nodes[1] = "node1": stands here'),
        (read_leader, without(LEADER, "nodes"), 'missing key "nodes"'),
        (read_leader, LEADER.replace("[security]", f'query = "ipc://{"d" * 100}/s"\n[security]'), "107 bytes"),
        (read_leader, LEADER + "[doubt]\npings = 0\n", "pings = 0: must be a whole number from 1 to 20"),
        (read_leader, LEADER + "[doubt]\nenable = false\n", 'did you mean "enabled"?'),
        (read_leader, LEADER + "[detector]\npings = 3\n", "it belongs to [doubt]"),
        (read_leader, LEADER.replace("[sec", 'dead_after = "2d"\n[sec'), "must be from 100ms to 1d"),
        (read_leader, LEADER.replace("[sec", "gate_share = 0\n[sec"), "must be a number from 0.01 to 1"),
        (read_leader, LEADER + '[detector]\nmargin_min = "4s"\n', "margin_min is longer than margin_max"),
        (
            read_leader,
            LEADER + '[detector]\nmargin = "5s"\nmistakes_per_day = 1\n',
            '15: [detector]: margin = "5s": learning starts there: it must be from margin_min to margin_max, 20ms',
        ),
        (read_leader, LEADER + PEER + PEER, "there is another [[peer]] of this name"),
        (read_leader, LEADER + PEER + PEER, "another peer has this address"),
        (
            read_leader,
            LEADER + PEER + PEER.replace("leader2", "leader3").replace("0.2", "0.3"),
            "this is the key of dc1/rack1-leader2",
        ),
        (read_leader, LEADER + PEER.replace("leader2", "leader1"), 'name = "dc1/rack1-leader1": this leader itself'),
        (read_leader, LEADER + PEER.replace("rack1-leader2", "root"), "the root leads no rack"),
        (read_leader, LEADER + PEER.replace(PEER_KEY, KEY), "this is the key of the root"),
        (read_leader, LEADER + without(PEER, "public_key"), '14: peer "dc1/rack1-leader2": missing key "public_key"'),
        (read_leader, LEADER + without(PEER, "control"), 'missing key "control"'),
        (read_leader, LEADER + PEER + 'publish = "tcp://10.0.0.2:5701"\n', 'unknown key "publish"'),
        (
            read_leader,
            LEADER + "".join(PEER.replace("leader2", f"leader{n}").replace("0.2", f"0.{n}") for n in (2, 3, 4)),
            '22: peer "dc1/rack1-leader4": a rack has at most 3 leaders, this one among them',
        ),
        (read_root, ROOT.replace('"dc1/rack1-leader1"', '"dc1/root"'), "the root's own name is among the leaders"),
        (read_root, ROOT.replace('["dc1/rack1-leader1"]', "[]"), "1 to 3 items"),
        (read_root, ROOT.replace("[security]", 'lease = "2s"\n[security]'), "from 2500ms to 10m"),
        (read_root, ROOT + '[metrics]\nhosts = "some"\n', "must be one of all, problems, none"),
        (read_agent, AGENT + '[metrics]\ntextfile = "/x/y.txt"\n', 'must end in ".prom"'),
        (
            read_agent,
            AGENT + '[prober]\nenabled = false\n[metrics]\ntextfile = "/x/y.prom"\n',
            "is written by the prober, which [prober] does not enable",
        ),
        (read_root, ROOT + SINK.replace("9093", "9093?x"), "without ? and #"),
        (read_root, ROOT + SINK.replace("http:", "tcp:"), 'must be an address as in "http://'),
        (read_root, ROOT + SINK + 'on = ["node-recovered"]\n', "must be one of node-suspect"),
        (read_root, ROOT + SINK + '[[hook]]\nname = "am"\ncommand = ["/bin/x"]\n', "there is a [[hook]] of this name"),
        (read_root, ROOT + without(SINK, "urls"), 'missing key "urls"'),
        (read_root, ROOT + '[[hook]]\nname = "h"\ncommand = [""]\n', 'command[0] = "": must be the path of a program'),
        (read_root, ROOT + '[[hook]]\nname = "h"\ncommand = "/bin/x"\n', "must be a list"),
        (read_root, ROOT + '[[hook]]\nname = "h"\ncommand = ["x"]\non = []\n', "1 to 17 items"),
        (read_root, ROOT + '[[hook]]\nname = "h"\ncommand = ["x"]\non = ["node-joined"]\n', "must be one of"),
        (read_root, ROOT + '[[hook]]\nname = "h"\ncommand = ["x"]\non = ["node-ded"]\n', 'did you mean "node-dead"?'),
    ],
)
def test_what_cannot_work_is_told(read: Reader, text: str, says: str) -> None:
    assert any(says.lower() in problem.lower() for problem in problems(read, text)), problems(read, text)


@pytest.mark.parametrize(
    ("read", "text", "line"),
    [
        (read_agent, plain(AGENT).replace('"tcp://127.0.0.1:5702"', '"tcp://localhost:5702"'), 8),
        (read_leader, plain(LEADER).replace('"tcp://127.0.0.9:5711"', '"tcp://10.0.0.9:5711"'), 7),
        (read_leader, plain(LEADER) + PEER, 14),
        (read_root, plain(ROOT).replace("[security]", 'control = "tcp://[::]:1"\n[security]'), 3),
    ],
)
def test_plain_text_that_would_leave_the_host_is_refused(read: Reader, text: str, line: int) -> None:
    found = problems(read, text)
    assert any(problem.startswith(f"{line}: ") and "plain text stays on this host" in problem for problem in found)


def test_a_default_address_that_plain_text_forbids_is_told_to_be_the_default() -> None:
    found = problems(read_root, plain(ROOT))
    assert [problem.split(" = ")[0] for problem in found] == ["1: [root]: publish", "1: [root]: control"]
    assert all("(the default) plain text stays" in problem for problem in found)


def test_a_fourth_leader_is_refused() -> None:
    table = AGENT[AGENT.index("[[leader]]") :]
    more = [table.replace("leader1", f"leader{n}").replace("10.0.0.1", f"10.0.0.{n}") for n in (2, 3, 4)]
    assert len(read_agent(HERE, AGENT + more[0] + more[1]).leaders) == 3
    assert problems(read_agent, AGENT + "".join(more)) == [
        '20: leader "dc1/rack1-leader4": a rack has at most 3 leaders'
    ]


def test_the_public_key_may_stand_in_the_file_that_keys_init_wrote(tmp_path: Path) -> None:
    pair = keys.generate("dc1/rack1-leader1", tmp_path)
    file = keys.public_path("dc1/rack1-leader1", tmp_path).name
    read = read_agent(tmp_path / "agent.toml", AGENT.replace(KEY, file))
    assert read.leaders[0].public_key == pair.public


def test_a_public_key_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (problem,) = problems(read_agent, AGENT.replace(KEY, "n" * 300 + ".pub"), tmp_path / "agent.toml")
    assert "File name too long" in problem


def test_the_public_key_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    keys.generate("dc1/rack2-leader1", tmp_path)
    file = keys.public_path("dc1/rack2-leader1", tmp_path).name
    (problem,) = problems(read_agent, AGENT.replace(KEY, file), tmp_path / "agent.toml")
    assert "is the key of dc1/rack2-leader1, not of dc1/rack1-leader1" in problem


# ---- any file --------------------------------------------------------------------------------------------


def outcome(read: Reader, text: str) -> None:
    """Settings or ConfigError: whatever else is raised fails the test."""
    try:
        read(HERE, text)
    except ConfigError as error:
        assert error.problems
        assert all(str(problem).isprintable() for problem in error.problems)


NAMES = [
    "agent",
    "leader",
    "root",
    "peer",
    "doubt",
    "rack",
    "hook",
    "security",
    "log",
    "echo",
    "network",
    "detector",
    "x",
    '""',
    '"\\u0000"',
]
KEYS = [
    "name",
    "node",
    "nodes",
    "leaders",
    "publish",
    "control",
    "query",
    "public_key",
    "key",
    "allow",
    "plain",
    "command",
]
MORE_KEYS = [
    "on",
    "timeout",
    "interval",
    "lease",
    "kind",
    "state_dir",
    "bind",
    "port",
    "hook_queue_max",
    "reconnect_min",
    "margin",
    "margin_min",
    "mistakes_per_day",
]
VALUES = st.one_of(
    st.sampled_from(
        ['"dc1/r1"', '"dc1/r1/n1"', '"n1"', '["n1", "n1"]', '["dc1/r1"]', '["x", "", 1]', "[]", "[[]]", "{}", "[{}]"]
    ),
    st.sampled_from(['"tcp://127.0.0.1:1"', '"tcp://[::1]:2"', '"ipc://x"', '"ipc:///"', '"a.pub"', '"\\u0000"', '""']),
    st.sampled_from(
        ["true", "false", "1", "-1", "1e400", "nan", "0x" + "F" * 40, '"1s"', '"1e9d"', "1979-05-27", "07:32:00"]
    ),
    st.just(f'"{KEY}"'),
    st.text().map(lambda text: "'" + text.replace("'", "") + "'"),
)
HEADERS = st.sampled_from(NAMES).flatmap(lambda name: st.sampled_from([f"[{name}]", f"[[{name}]]", f"{name} = [1]"]))
PAIRS = st.tuples(st.sampled_from(KEYS + MORE_KEYS), VALUES).map(" = ".join)


@pytest.mark.parametrize("read", [read_agent, read_leader, read_root, read_any])
@given(text=st.text() | st.lists(HEADERS | PAIRS, max_size=12).map("\n".join))
def test_any_text_is_settings_or_a_config_error(read: Reader, text: str) -> None:
    outcome(read, text)


@pytest.mark.parametrize(("read", "text"), [(read_agent, AGENT), (read_leader, LEADER), (read_root, ROOT)])
@given(data=st.data())
def test_any_change_to_a_right_file_is_settings_or_a_config_error(read: Reader, text: str, data: st.DataObject) -> None:
    lines = text.splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    change = data.draw(st.sampled_from(["drop", "double", "value", "insert"]))
    if change == "drop":
        del lines[at]
    elif change == "double":
        lines.insert(at, lines[at])
    elif change == "insert":
        lines.insert(at, data.draw(HEADERS | PAIRS | st.text()))
    else:
        lines[at] = lines[at].partition("=")[0] + "= " + data.draw(VALUES)
    outcome(read, "\n".join(lines))


@given(raw=st.binary())
def test_any_bytes_are_settings_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(raw)
    with pytest.raises(ConfigError):  # no random bytes spell a whole config file
        load_any(file)
