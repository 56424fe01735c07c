"""A host as if hbagent had never been on it, but for the journal, which is the host's.

What is stopped and removed is all that hbagent may have, not only what this host is to have, so that leavings of
installs that broke off go, too. What merely begins with the same word is somebody else's.
"""

from __future__ import annotations

DOCUMENTATION = """
module: wiped
short_description: Stop hbagent on this host, and take away everything that belongs to it
version_added: 0.1.0
author: hbagent (@hbagent)
description:
  - Stops and disables every unit of hbagent, removes its files and directories, its user and its groups.
  - With O(stop) it only stops.
options:
  stop:
    description: Units that are stopped and disabled; nothing is removed then.
    type: list
    elements: str
    default: []
  files:
    description: Files and links that are removed.
    type: list
    elements: str
    default: []
  directories:
    description: Directories that are removed with what is in them.
    type: list
    elements: str
    default: []
  users:
    description: Users that are removed.
    type: list
    elements: str
    default: [hbagent-agent]
  groups:
    description: Groups that are removed.
    type: list
    elements: str
    default: [hbagent, hbagent-diagnose]
attributes:
  check_mode:
    support: full
    description: Says what it would stop and remove.
"""

EXAMPLES = """
- name: Remove hbagent
  become: true
  hbagent.hbagent.wiped:
    directories: [/opt/hbagent, /etc/hbagent]
"""

RETURN = """
changes:
  description: What was done, a sentence each.
  type: list
  elements: str
  returned: always
"""

import glob  # noqa: E402
import grp  # noqa: E402
import os  # noqa: E402
import pwd  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.hbagent.hbagent.plugins.module_utils.systemd import Failed, Systemd  # noqa: E402

UNITS = "/etc/systemd/system"
OURS = re.compile(r"hbagent-(agent|leader|root)\.service|hbagent-diagnose(\.socket|@\.service)")
#: There while the Debian package is installed.
DEBIAN = "/opt/hbagent/package"


class Host(Systemd):
    """This one."""

    def stop(self, unit):
        shown = self.properties(unit, ("ActiveState", "UnitFileState"))
        runs = shown.get("ActiveState") not in ("inactive", "failed")
        enabled = shown.get("UnitFileState") in ("enabled", "enabled-runtime")
        if (runs or enabled) and self.change("stopped " + unit):
            if enabled:
                self.told("disable", unit)
            self.told("stop", unit)

    def units(self):
        """Those that are there: sockets first, so that nothing is started by one."""
        paths = glob.glob(os.path.join(UNITS, "hbagent-*.socket")) + glob.glob(os.path.join(UNITS, "hbagent-*.service"))
        names = [os.path.basename(path) for path in paths]
        return [name for name in names if OURS.fullmatch(name) and "@" not in name]

    def remove(self, path):
        if os.path.lexists(path) and self.change("removed " + path):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    def remove_empty(self, directory):
        """A directory that was made for one of our files."""
        try:
            if not self.module.check_mode and not os.listdir(directory):
                os.rmdir(directory)
        except OSError:
            pass

    def remove_account(self, what, name):
        """A user or a group of this host; a user's own group goes with it."""
        known, command = {"user": (pwd.getpwnam, "userdel"), "group": (grp.getgrnam, "groupdel")}[what]
        try:
            known(name)
        except KeyError:
            return
        if self.change(f"removed the {what} {name}"):
            words = (self.module.get_bin_path(command, required=True), name)
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Failed(f"{command} {name}: {done.stderr.strip()}")


def wipe(host, files, directories, users, groups):
    for unit in host.units():
        host.stop(unit)
    for path in files:
        host.remove(path)
    for path in directories:
        host.remove(path)
    if host.changes and not host.module.check_mode:
        host.told("daemon-reload")
        host.told("reset-failed", "hbagent-*", check=False)
    made = {os.path.dirname(path) for path in files if "/man/" in path or "completion" in path}
    for directory in sorted(made):
        host.remove_empty(directory)
        if os.path.basename(os.path.dirname(directory)) == "bash-completion":
            host.remove_empty(os.path.dirname(directory))
    for name in users:
        host.remove_account("user", name)
    for name in groups:
        host.remove_account("group", name)


def main():
    words = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "stop": words,
            "files": words,
            "directories": words,
            "users": {"type": "list", "elements": "str", "default": ["hbagent-agent"]},
            "groups": {"type": "list", "elements": "str", "default": ["hbagent", "hbagent-diagnose"]},
        },
        supports_check_mode=True,
    )
    host = Host(module)
    params = module.params
    if os.path.exists(DEBIAN):
        module.fail_json(msg="hbagent is on this host as a Debian package: dpkg --purge hbagent takes it away")
    try:
        if params["stop"]:
            for unit in params["stop"]:
                host.stop(unit)
        else:
            wipe(host, params["files"], params["directories"], params["users"], params["groups"])
    except Failed as failed:
        module.fail_json(msg=str(failed), changes=host.changes, changed=bool(host.changes))
    module.exit_json(changed=bool(host.changes), changes=host.changes)


if __name__ == "__main__":
    main()
