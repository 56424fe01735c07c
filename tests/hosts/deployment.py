"""hbagent on the hosts of a lab, put there by Ansible as its users do it, and what its root says of them.

Six hosts: the root, which is an agent, too; two leaders and an agent in one rack; a leader and an agent in another.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hbagent.core.states import Kind
from hbagent.role.settings.schema import HOOK_KINDS
from tests.hosts.lab import Host, Lab, wait_until

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".venv/bin"
CONTROLLER = ROOT / ".venv/controller/bin"
DATACENTER = "dc1"
RACKS = {"a": (1, 2, 3, 4), "b": (5, 6)}
LEADERS = (2, 3, 5)
#: Where the root's hook writes down what it is told, a line each.
TOLD = "/var/lib/hbagent/root/told.jsonl"
#: Several run at once, and each writes a line.
HOOK = f"#!/bin/sh\nexec flock {TOLD}.lock sh -c '(cat; echo) >>{TOLD}'\n"
#: What the hook is told of: all but a sign of life each minute, and the health of hosts, whose processors, memory and
#: disk are those of a machine that runs tests.
KINDS = tuple(sorted(kind.value for kind in HOOK_KINDS if kind not in (Kind.WATCHDOG, Kind.HEALTH_CHANGED)))
#: Longer than anything that is waited for here takes on a busy machine.
BOUND_S = 60.0
#: For an answer of the root. The commands' own default is for people.
ANSWER = ("--timeout", "20s")
#: For the unit of an agent that is killed. systemd would start it again after 0.2 s, and for a leader that gets no turn
#: until then its host has refused nothing.
SLOWER = "RestartSec=3"
_RECAP = re.compile(r"^(\S+)\s+: (ok=.*)$", re.MULTILINE)


class Play(NamedTuple):
    """What one run of a playbook came to."""

    code: int
    seconds: float
    output: str
    #: By host: ok, changed, unreachable, failed and so on.
    recap: dict[str, dict[str, int]]

    @property
    def changed(self) -> int:
        """Changes on all hosts."""
        return sum(counts["changed"] for counts in self.recap.values())

    def tasks_changed(self) -> str:
        """The tasks that changed something, for the message of a test."""
        tasks = re.split(r"^(?=TASK |RUNNING HANDLER )", self.output, flags=re.MULTILINE)
        return "\n".join(task.strip()[:1500] for task in tasks if re.search(r"^changed:", task, re.MULTILINE))


class Deployment:
    """The fleet. Everything that an operator would do goes through its root host."""

    def __init__(self, lab: Lab, directory: Path, *, six: bool = False) -> None:
        self.lab = lab
        self.directory = directory
        self.six = six
        #: Further variables of all hosts.
        self.variables: dict[str, Any] = {}
        #: The numbers of the hosts that lead.
        self.leaders: Sequence[int] = LEADERS
        self.hosts = {host.name: host for host in lab.hosts}
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "vault-password").write_text("of a datacenter that is gone in ten minutes\n")
        (directory / "vault-password").chmod(0o600)
        # Whatever this machine has set elsewhere is not read.
        (directory / "ansible.cfg").touch()
        hook = directory / "tell"
        hook.write_text(HOOK)
        hook.chmod(0o755)

    # ---- who is who ------------------------------------------------------------------------------------------

    def host(self, number: int) -> Host:
        """By its number from 1."""
        return self.lab.hosts[number - 1]

    @property
    def root(self) -> Host:
        """Where the root runs."""
        return self.host(1)

    def rack_of(self, host: Host) -> str:
        """The full name of its rack."""
        return next(f"{DATACENTER}/{rack}" for rack, members in RACKS.items() if host.number in members)

    def node(self, host: Host) -> str:
        """Its full name."""
        return f"{self.rack_of(host)}/{host.name}"

    def nodes(self) -> dict[str, Host]:
        """All of them, by their full names."""
        members = sorted(number for rack in RACKS.values() for number in rack)
        return {self.node(self.host(number)): self.host(number) for number in members if number <= len(self.lab.hosts)}

    # ---- Ansible ---------------------------------------------------------------------------------------------

    def inventory(self) -> dict[str, Any]:
        """The inventory, as Ansible reads it."""

        def hosts(numbers: Sequence[int]) -> dict[str, Any]:
            return {"hosts": {self.host(n).name: {} for n in numbers if n <= len(self.lab.hosts)}}

        addresses = {
            host.name: {"ansible_host": host.address6 if self.six else host.address} for host in self.lab.hosts
        }
        racks = {f"rack_{rack}": hosts(members) for rack, members in RACKS.items()}
        common = {
            "ansible_user": "root",
            "ansible_ssh_common_args": self.lab.ssh_options(),
            "ansible_python_interpreter": "/usr/bin/python3",
            "hbagent_datacenter": DATACENTER,
            "hbagent_wheelhouse": os.path.relpath(ROOT / "dist/wheelhouse", self.directory),
            "hbagent_controller_command": str(BIN / "hbagent"),
            "hbagent_hook_files": ["tell"],
            "hbagent_hooks": [{"name": "tell", "command": ["hooks.d/tell"], "on": list(KINDS)}],
            # Every event is told by itself: the tests hurt the same host again and again.
            "hbagent_root_settings": {
                "flap": {"start": 1000, "stop": 1},
                "brake": {"node_max": 1000, "rack_max": 1000, "all_max": 10_000},
            },
            **self.variables,
        }
        children = {"hbagent_root": hosts((1,)), "hbagent_leaders": hosts(self.leaders), **racks}
        return {"all": {"hosts": addresses, "vars": common, "children": children}}

    def play(self, playbook: str, *arguments: str, **variables: Any) -> Play:
        """Run a playbook of the collection, as it was built and installed."""
        inventory = self.directory / "inventory.json"
        inventory.write_text(json.dumps(self.inventory(), indent=1))
        command = [str(CONTROLLER / "ansible-playbook"), "-i", str(inventory), f"hbagent.hbagent.{playbook}"]
        command += [*arguments, "--extra-vars", json.dumps(variables)] if variables else arguments
        environment = {
            "PATH": f"{CONTROLLER}:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.directory / "collections"),
            "ANSIBLE_VAULT_PASSWORD_FILE": str(self.directory / "vault-password"),
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_FORKS": "6",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "tmp"),
            # A host that is gone is noticed, as with the ansible.cfg of the example.
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s -o ConnectTimeout=10"
            " -o ServerAliveInterval=5 -o ServerAliveCountMax=3",
            # It goes with the lab: nobody calls hosts of the same name through connections to these.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.lab.directory / "ssh"),
        }
        began = time.monotonic()
        done = subprocess.run(
            ["ip", "netns", "exec", self.lab.switch, *command],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        recap = {
            host: {key: int(value) for key, value in (pair.split("=") for pair in counts.split())}
            for host, counts in _RECAP.findall(done.stdout)
        }
        (self.directory / f"{playbook}.log").write_text(done.stdout)
        return Play(done.returncode, time.monotonic() - began, done.stdout, recap)

    # ---- what the root says ----------------------------------------------------------------------------------

    def ask(self, *command: str, check: bool = True) -> Any:
        """The answer of a command at the root's host, as JSON; None when it has none."""
        done = self.root.run("hbagent", *command, *ANSWER, "-o", "json", check=False)
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(done.stdout)
        if check:
            raise AssertionError(f"hbagent {' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return None

    def states(self) -> dict[str, tuple[str, str | None]]:
        """Liveness and cause of each node, at the root."""
        status = self.ask("status", check=False) or {"nodes": []}
        return {node["node"]: (node["liveness"], node["cause"]) for node in status["nodes"]}

    def all_alive(self) -> bool:
        """True when the root sees all nodes ALIVE, marked by nothing."""
        states = self.states()
        return all(states.get(node) == ("ALIVE", None) for node in self.nodes())

    def wait_alive(self, bound_s: float = BOUND_S) -> None:
        """Until they are."""
        assert wait_until(self.all_alive, bound_s), self.states()

    def events(self) -> list[dict[str, Any]]:
        """All that the root's history has, the oldest first."""
        return [json.loads(line) for line in self.root.shell("hbagent events export").splitlines() if line]

    def told(self) -> list[dict[str, Any]]:
        """What the hook was told so far."""
        # No line is read while it is written.
        script = f"test ! -e {TOLD}.lock || flock --shared {TOLD}.lock cat {TOLD} 2>/dev/null || true"
        return [json.loads(line) for line in self.root.shell(script).splitlines() if line.strip()]

    def all_told(self) -> bool:
        """True when the hook was told all of what has happened so far."""
        happened = (self.ask("status", check=False) or {"root": {}})["root"].get("newest_event")
        kept = [event["sequence"] for event in self.events()]
        # A hook is owed what is on the disk.
        if happened is None or max(kept, default=0) < happened:
            return False
        status = self.ask("status", check=False)
        return bool(status) and status["root"]["hooks_waiting"] == 0

    def wait_told(self) -> None:
        """Until it was."""
        assert wait_until(self.all_told, BOUND_S), self.ask("hooks", "list")

    @contextlib.contextmanager
    def quiet(self) -> Iterator[Quiet]:
        """What the hook is told meanwhile, and which nodes leave ALIVE."""
        self.wait_told()
        before, newest = len(self.told()), len(self.events())
        seen = Quiet()
        yield seen
        self.wait_told()
        seen.told = self.told()[before:]
        seen.events = self.events()[newest:]


class Quiet:
    """What was heard of a while in which nothing should be."""

    told: list[dict[str, Any]]
    events: list[dict[str, Any]]

    @property
    def alarms(self) -> list[tuple[str, str, str | None]]:
        """What somebody was told: kind, whom about, cause."""
        return [(e["kind"], e["node"] or e["rack"], e["cause"]) for e in self.told]

    @property
    def departures(self) -> list[tuple[str, str, str | None]]:
        """Changes of a node's liveness to anything else than ALIVE: kind, node, cause."""
        return [
            (e["kind"], e["node"], e["cause"])
            for e in self.events
            if e["node"] and e["liveness"]["to"] not in ("ALIVE", None) and e["liveness"]["from"] == "ALIVE"
        ]
