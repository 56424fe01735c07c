"""What the root says of hosts, waited for: that they are ALIVE, and that the one that runs now is the one it hears.

Clocks of two hosts are not compared. A host says for how long its daemon has run; when the root's last proof of life is
younger than that, it is of this daemon and of none before it.
"""

from __future__ import annotations

DOCUMENTATION = """
module: alive
short_description: Wait until the root sees nodes and leaders alive
version_added: 0.1.0
author: hbagent (@hbagent)
description:
  - Runs on the root's host, or on any host that may ask the root.
  - Never fails because of a node; what is missing is returned, so that each host can fail for itself.
options:
  nodes:
    description: Nodes by name, and for how many seconds the agent of each has run.
    type: dict
    default: {}
  leaders:
    description: Leaders by name, and for how many seconds each has run.
    type: dict
    default: {}
  timeout:
    description: Seconds to wait at most.
    type: float
    default: 60.0
  command:
    description: How to ask the root.
    type: list
    elements: str
    default: [/opt/hbagent/current/bin/hbagent, status, --config, /etc/hbagent/root.toml, -o, json]
attributes:
  check_mode:
    support: none
    description: It only asks.
"""

EXAMPLES = """
- name: Ask the root
  become: true
  hbagent.hbagent.alive:
    nodes:
      dc1/rack07/host11: 4.2
"""

RETURN = """
missing:
  description: Of each node or leader that is not alive in time, what the root says of it.
  type: dict
  returned: always
seconds:
  description: How long it took.
  type: float
  returned: always
"""

import json  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

ASKING_SECONDS = 20


def asked(command):
    """The root's answer, or None and why there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ASKING_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    try:
        return json.loads(done.stdout), ""
    except ValueError:
        return None, done.stderr.strip() or f"exit {done.returncode} without an answer"


def missing(document, nodes, leaders, passed_s):
    """A sentence for each of them that is not alive, by name."""
    found = {node["node"]: node for node in document.get("nodes", ())}
    spoken = {row["leader"]: row for rack in document.get("racks", ()) for row in rack.get("leaders", ())}
    said = {}
    for name, running_s in nodes.items():
        said[name] = lacking(found.get(name), "liveness", float(running_s) + passed_s)
    for name, running_s in leaders.items():
        said[name] = lacking(spoken.get(name), "state", float(running_s) + passed_s)
    return {name: sentence for name, sentence in said.items() if sentence}


def lacking(row, word, running_s):
    if row is None:
        return "the root does not know it"
    age = row.get("age_s")
    cause = " ({})".format(row["cause"]) if row.get("cause") else ""
    if row.get(word) != "ALIVE":
        return f"the root says {row.get(word)}{cause}"
    if age is None or age >= running_s:
        return "what the root last heard is older than its last start"
    return ""


def main():
    command = ["/opt/hbagent/current/bin/hbagent", "status", "--config", "/etc/hbagent/root.toml", "-o", "json"]
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "dict", "default": {}},
            "leaders": {"type": "dict", "default": {}},
            "timeout": {"type": "float", "default": 60.0},
            "command": {"type": "list", "elements": "str", "default": command},
        },
        supports_check_mode=False,
    )
    params = module.params
    began = time.monotonic()
    while True:
        passed_s = time.monotonic() - began
        document, why = asked(params["command"])
        if document is None:
            said = dict.fromkeys((*params["nodes"], *params["leaders"]), f"the root does not answer: {why}")
        else:
            said = missing(document, params["nodes"], params["leaders"], passed_s)
        if not said or passed_s > params["timeout"]:
            module.exit_json(changed=False, missing=said, seconds=round(passed_s, 3))
        time.sleep(0.5)


if __name__ == "__main__":
    main()
