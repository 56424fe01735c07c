"""Daemons of this host, brought to what its files say: started, restarted or reloaded where they are behind.

What is to be done is read from the host each time, never remembered from an earlier task: a daemon that runs another
release than the chosen one, or that started before its unit or key was written, is restarted; one whose config is newer
than what it last read is reloaded, and one that refused it, or that said that it takes a restart, is known by its
journal. So a play that broke off is made good by the next one, and so is what somebody did by hand.
"""

from __future__ import annotations

DOCUMENTATION = """
module: daemons
short_description: Start, restart or reload hbagent's daemons where they are behind, and see that they stay up
version_added: 0.1.0
author: hbagent (@hbagent)
description:
  - Succeeds when every daemon has said READY and has run without a restart for O(settle).
  - Fails with the last lines of the journal of the daemon that does not.
options:
  daemons:
    description: Which are to run.
    type: list
    elements: str
    choices: [agent, leader, root]
    default: []
  absent:
    description: Which are to be stopped and disabled, and the files that go with each.
    type: dict
    default: {}
  gone:
    description: Files that must not be there.
    type: list
    elements: str
    default: []
  look:
    description: Change nothing; wait until they run, and tell.
    type: bool
    default: false
  blame:
    description: Why a daemon is not as it should be, by daemon; fails with that and its journal.
    type: dict
    default: {}
  restart:
    description: Which are restarted whatever they run.
    type: list
    elements: str
    choices: [agent, leader, root]
    default: []
  helper:
    description: Whether the socket of the diagnosis helper listens.
    type: bool
    default: true
  prefix:
    description: Where releases lie.
    type: path
    default: /opt/hbagent
  etc:
    description: Where the config lies.
    type: path
    default: /etc/hbagent
  settle:
    description: Seconds that a daemon has to run without a restart.
    type: float
    default: 3.0
  timeout:
    description: Seconds until it has to have said READY.
    type: float
    default: 30.0
  since:
    description: Invocations by daemon, as an earlier call returned them; fails when one has been replaced since.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Says what it would start, restart or reload.
"""

EXAMPLES = """
- name: Run what this host runs
  become: true
  hbagent.hbagent.daemons:
    daemons: [agent, leader]
"""

RETURN = """
changes:
  description: What was done, a sentence each.
  type: list
  elements: str
  returned: always
invocations:
  description: systemd's id of the run of each daemon.
  type: dict
  returned: success
running_s:
  description: For how long each daemon has run.
  type: dict
  returned: success
"""

import glob  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.hbagent.hbagent.plugins.module_utils.systemd import Failed, Systemd  # noqa: E402

#: Receivers before senders.
ORDER = ("root", "leader", "agent")
UNITS = "/etc/systemd/system"
HELPER = "hbagent-diagnose.socket"
SHOWN = (
    *("ActiveState", "SubState", "UnitFileState", "LoadState", "NeedDaemonReload", "MainPID", "InvocationID"),
    *("NRestarts", "ExecMainStartTimestampMonotonic", "StateChangeTimestampMonotonic", "ActiveEnterTimestampMonotonic"),
)
#: Written last into a release that is complete.
MARK = "complete.json"
JOURNAL_LINES = 20
#: What a daemon says of reading its config, and how many such lines of it are looked at.
SAID = ("needs-restart", "config-refused", "reload-failed", "reloaded")
SAID_MAX = 1000
#: For a daemon to read its config again.
RELOAD_SECONDS = 10.0


class Host(Systemd):
    """systemd of this host, and its journal."""

    def __init__(self, module):
        super().__init__(module)
        self.journalctl = module.get_bin_path("journalctl", required=True)

    def show(self, unit):
        return self.properties(unit, SHOWN)

    def journal(self, unit, *more):
        command = (self.journalctl, "--no-pager", "--output=cat", "--unit=" + unit, *more)
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def last_lines(self, unit):
        command = (self.journalctl, "--no-pager", "--output=short-iso", "--unit=" + unit, f"-n{JOURNAL_LINES}")
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return "The last lines of {}:\n{}".format(unit, text.strip() or "(none)")

    def settle_times(self, paths):
        """What was written by a clock that was ahead counts as written now: once, and not until that time has come."""
        for path in paths:
            if newer([path], time.time()) and not self.module.check_mode:
                os.utime(path)


class Daemon:
    """One of them."""

    def __init__(self, host, name):
        self.host = host
        self.name = name
        self.unit = f"hbagent-{name}.service"
        self.etc = host.module.params["etc"]
        self.prefix = host.module.params["prefix"]
        names = [os.path.join(UNITS, self.unit), os.path.join(UNITS, self.unit + ".d")]
        self.units = [*names, *glob.glob(os.path.join(names[1], "*.conf"))]
        self.keys = [os.path.join(self.etc, "keys", name + suffix) for suffix in (".key", "-next.key")]
        self.config = os.path.join(self.etc, name + ".toml")
        self.release = os.path.realpath(os.path.join(self.prefix, "current"))
        # A release that was installed anew under the same name is another one, too.
        self.mark = os.path.join(self.release, MARK)

    def bring(self, forced):
        """Started, restarted or reloaded, whichever is needed."""
        self.host.settle_times([*self.units, *self.keys, self.config, self.mark])
        shown = self.host.show(self.unit)
        if shown.get("UnitFileState") != "enabled" and self.host.change("enabled " + self.unit):
            self.host.told("enable", self.unit)
        if shown.get("ActiveState") not in ("active", "reloading", "activating"):
            if self.host.change("started " + self.unit):
                self.host.told("reset-failed", self.unit, check=False)
                self.told("start")
            return
        run = "_SYSTEMD_INVOCATION_ID=" + shown.get("InvocationID", "")
        # The newest so many of this run, which come newest first.
        said = self.said(run, f"-n{SAID_MAX}", "--reverse")[::-1]
        why = "asked to" if forced else self.behind(shown, said)
        if why:
            self.restart(why)
        elif refused(said) or newer([self.config], since(shown, "StateChangeTimestampMonotonic")):
            self.reload()

    def behind(self, shown, said):
        """Why it has to be restarted, "" when it has not."""
        started = since(shown, "ExecMainStartTimestampMonotonic")
        if not runs_from(shown.get("MainPID", "0"), self.release) or newer([self.mark], started):
            return "another release"
        if newer(self.units, started):
            return "its unit"
        if newer(self.keys, started):
            return "its key"
        return "a setting that is read at its start" if "needs-restart" in said else ""

    def said(self, *which):
        """What it said of its config, word by word."""
        return words(self.name, self.host.journal(self.unit, "--grep=" + "|".join(SAID), *which))

    def restart(self, why):
        if self.host.change(f"restarted {self.unit} ({why})"):
            self.told("restart")

    def reload(self):
        if not self.host.change("reloaded " + self.unit):
            return
        position = self.cursor()
        self.told("reload")
        until = time.monotonic() + RELOAD_SECONDS
        while time.monotonic() < until:
            said = self.said(*position)
            if refused(said):
                text = self.host.journal(self.unit, *position)
                raise Failed(f"{self.unit} keeps its old config:\n{text.strip()}")
            if "reloaded" in said:
                if "needs-restart" in said:
                    self.restart("a setting that is read at its start")
                return
            time.sleep(0.1)
        self.restart("it does not say that it reloaded")

    def cursor(self):
        text = self.host.journal(self.unit, "-n0", "--show-cursor")
        words = text.strip().rpartition("cursor: ")[2].strip()
        return ("--after-cursor=" + words,) if words else ("--since=now",)

    def told(self, verb):
        try:
            if verb != "reload":
                # systemd does not see by itself that the first drop-in of a unit has come, with its directory.
                self.host.told("daemon-reload")
            self.host.told(verb, self.unit)
        except Failed as failed:
            raise Failed(f"{failed}\n{self.host.last_lines(self.unit)}") from failed

    def settled(self, settle, until):
        """Wait until it has run for `settle` without a restart; its state then."""
        first = None
        while True:
            shown = self.host.show(self.unit)
            up = shown.get("ActiveState") in ("active", "reloading") and shown.get("SubState") in ("running", "reload")
            if up and first is None:
                first = shown
            if first is not None and (not up or shown["InvocationID"] != first["InvocationID"]):
                raise Failed(f"{self.unit} does not stay up.\n{self.host.last_lines(self.unit)}")
            if up and running_s(shown) >= settle:
                return shown
            if not up and time.monotonic() > until:
                state = "{} ({})".format(shown.get("ActiveState"), shown.get("SubState"))
                raise Failed(f"{self.unit} is {state}.\n{self.host.last_lines(self.unit)}")
            time.sleep(0.2)

    def end(self, files):
        """Stopped and disabled, and its files gone."""
        shown = self.host.show(self.unit)
        up = shown.get("ActiveState") not in ("inactive", "failed") or shown.get("UnitFileState") == "enabled"
        if up and self.host.change("stopped " + self.unit):
            self.host.told("disable", "--now", self.unit)
        remove(self.host, files)


def since(shown, name):
    """A moment of systemd's by the wall clock, as files have it; 0 for never."""
    moment = int(shown.get(name) or 0) / 1e6
    # A pause between the two clocks would make it earlier than all that was written just before.
    ahead = max(time.time() - time.monotonic() for _ in range(3))
    return ahead + moment if moment else 0.0


def running_s(shown):
    moment = int(shown.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    return max(0.0, time.monotonic() - moment) if moment else 0.0


def words(name, text):
    """The words of SAID that lines of a daemon begin with, as text or as JSON. No value of a field passes for one."""
    as_json = r'\{"at": "[^"]*", "level": "[a-z]*", "role": "' + name + '", "what": "'
    said = "({})".format("|".join(SAID))
    return re.findall(rf'^(?:{name} |{as_json}){said}(?![^\s"])', text, re.MULTILINE)


def refused(said):
    """Whether the last word was that it keeps its old config."""
    return bool(said) and said[-1] in ("config-refused", "reload-failed")


def newer(paths, moment):
    for path in paths:
        try:
            if os.stat(path).st_mtime > moment:
                return True
        except OSError:
            continue
    return False


def runs_from(pid, release):
    """Whether a process was started from a release: its interpreter's path names it."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            program = os.fsdecode(file.read().split(b"\0")[0])
    except OSError:
        return False
    # The directory alone: the interpreter in it is a link to one that all share.
    return os.path.realpath(os.path.dirname(program)).startswith(release + "/")


def main():
    choices = ["agent", "leader", "root"]
    module = AnsibleModule(
        argument_spec={
            "daemons": {"type": "list", "elements": "str", "choices": choices, "default": []},
            "absent": {"type": "dict", "default": {}},
            "gone": {"type": "list", "elements": "str", "default": []},
            "look": {"type": "bool", "default": False},
            "blame": {"type": "dict", "default": {}},
            "restart": {"type": "list", "elements": "str", "choices": choices, "default": []},
            "helper": {"type": "bool", "default": True},
            "prefix": {"type": "path", "default": "/opt/hbagent"},
            "etc": {"type": "path", "default": "/etc/hbagent"},
            "settle": {"type": "float", "default": 3.0},
            "timeout": {"type": "float", "default": 30.0},
            "since": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    host = Host(module)
    daemons = [Daemon(host, name) for name in ORDER if name in module.params["daemons"]]
    try:
        answer = bring_all(host, daemons)
    except Failed as failed:
        module.fail_json(msg=str(failed), changes=host.changes, changed=bool(host.changes))
    module.exit_json(changed=bool(host.changes), changes=host.changes, **answer)


def bring_all(host, daemons):
    params = host.module.params
    if not params["look"]:
        change_all(host, daemons)
    if host.module.check_mode:
        return {"invocations": {}, "running_s": {}}
    until = time.monotonic() + params["timeout"]
    shown = {daemon.name: daemon.settled(params["settle"], until) for daemon in daemons}
    for daemon in daemons:
        wanted = params["since"].get(daemon.name)
        if wanted and shown[daemon.name]["InvocationID"] != wanted:
            raise Failed(f"{daemon.unit} has been restarted since.\n{host.last_lines(daemon.unit)}")
        if params["blame"].get(daemon.name):
            raise Failed("{}\n{}".format(params["blame"][daemon.name], host.last_lines(daemon.unit)))
    return {
        "invocations": {name: found["InvocationID"] for name, found in shown.items()},
        "running_s": {name: running_s(found) for name, found in shown.items()},
    }


def change_all(host, daemons):
    params = host.module.params
    remove(host, params["gone"])
    helper = host.show(HELPER)
    stale = [host.show(daemon.unit).get("NeedDaemonReload") == "yes" for daemon in daemons]
    if (any(stale) or helper.get("NeedDaemonReload") == "yes") and host.change("read the units again"):
        host.told("daemon-reload")
    for name, files in sorted(params["absent"].items()):
        Daemon(host, name).end(files)
    bring_helper(host, helper, params["helper"])
    for daemon in daemons:
        daemon.bring(daemon.name in params["restart"])


def remove(host, paths):
    there = [path for path in paths if os.path.lexists(path)]
    if there and host.change("removed {}".format(", ".join(there))):
        for path in there:
            os.unlink(path)


def bring_helper(host, shown, wanted):
    host.settle_times([os.path.join(UNITS, HELPER)])
    active = shown.get("ActiveState") == "active"
    enabled = shown.get("UnitFileState") == "enabled"
    if wanted and not (active and enabled):
        if host.change("started " + HELPER):
            host.told("enable", "--now", HELPER)
    elif wanted and newer([os.path.join(UNITS, HELPER)], since(shown, "ActiveEnterTimestampMonotonic")):
        if host.change("restarted " + HELPER):
            host.told("restart", HELPER)
    elif not wanted and (active or enabled) and host.change("stopped " + HELPER):
        host.told("disable", "--now", HELPER)


if __name__ == "__main__":
    main()
