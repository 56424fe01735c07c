"""Which files a host has, beside the config files: those that come out of its release, its keys, what must be gone.

Think of it as the list that an undertaker would want: whatever the role writes outside of a release stands here, so
`remove.yml` has nothing to guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ETC = "/etc/hbagent"
UNITS = "/etc/systemd/system"
#: The administrator's place, as that of the units: /usr may be read-only.
SYSUSERS = "/etc/sysusers.d/hbagent.conf"
HELPER_UNITS = ("hbagent-diagnose.socket", "hbagent-diagnose@.service")
SERVERS = ("leader", "root")
DAEMONS = ("agent", *SERVERS)
#: Who reads the settings of a daemon. The agent is apart: with the other group it could give orders at the root.
READERS = {"agent": "hbagent-agent", "leader": "hbagent", "root": "hbagent"}
#: Links through /opt/hbagent/current, by destination.
LINKS = {
    "/usr/local/bin/hbagent": "bin/hbagent",
    "/usr/local/bin/check_hbagent": "bin/check_hbagent",
    "/usr/local/share/man/man1/hbagent.1": "share/man/man1/hbagent.1",
    "/usr/local/share/man/man5/hbagent.toml.5": "share/man/man5/hbagent.toml.5",
    "/usr/local/share/man/man8/hbagent-agent.8": "share/man/man8/hbagent-agent.8",
    "/usr/local/share/man/man8/hbagent-leader.8": "share/man/man8/hbagent-leader.8",
    "/usr/local/share/man/man8/hbagent-root.8": "share/man/man8/hbagent-root.8",
    "/usr/local/share/bash-completion/completions/hbagent": "share/bash-completion/completions/hbagent",
}


def host_files(
    topology: Mapping[str, Any],
    host: str,
    generations: Mapping[str, Any],
    diagnose: bool = True,
    drop_ins: Mapping[str, str] | None = None,
    textfile: str = "",
) -> dict[str, Any]:
    """What host `host` is to have and not to have."""
    names = topology["hosts"][host]["names"]
    units = [f"hbagent-{daemon}.service" for daemon in names] + (list(HELPER_UNITS) if diagnose else [])
    keys, written, gone = [], {}, []
    for daemon, name in names.items():
        phase = _phase(generations.get(name))
        stem = name.replace("/", ".")
        # A server speaks with both keys at once; an agent goes over to the next one when that is used.
        own = f"{stem}.next" if daemon == "agent" and phase == "used" else stem
        keys.append({"src": f"{own}.key", "dest": f"{ETC}/keys/{daemon}.key"})
        rotation = f"{UNITS}/hbagent-{daemon}.service.d/rotation.conf"
        if daemon in SERVERS and phase:
            keys.append({"src": f"{stem}.next.key", "dest": f"{ETC}/keys/{daemon}-next.key"})
            written[rotation] = f"[Service]\nLoadCredential={daemon}-next.key:{ETC}/keys/{daemon}-next.key\n"
        elif daemon in SERVERS:
            gone += [rotation, f"{ETC}/keys/{daemon}-next.key"]
        site = f"{UNITS}/hbagent-{daemon}.service.d/site.conf"
        text = str((drop_ins or {}).get(daemon, ""))
        if daemon == "agent" and textfile:
            text = f"{text.rstrip()}\n[Service]\nReadWritePaths={textfile.rpartition('/')[0] or '/'}\n".lstrip()
        if text:
            written[site] = text if text.endswith("\n") else f"{text}\n"
        else:
            gone.append(site)
    # Daemons of two groups go through it to their files; what lies in it, nobody else is told.
    directories = [(ETC, "hbagent", "0751"), (f"{ETC}/keys", "root", "0700")]
    if "root" in names:
        directories.append((f"{ETC}/hooks.d", "root", "0755"))
    directories += [(path, "root", "0755") for path in dict.fromkeys(path.rpartition("/")[0] for path in written)]
    return {
        "directories": [{"path": path, "group": group, "mode": mode} for path, group, mode in directories],
        "copies": {
            **{f"{UNITS}/{unit}": f"share/hbagent/systemd/{unit}" for unit in units},
            SYSUSERS: "share/hbagent/hbagent.sysusers",
        },
        "links": LINKS,
        "readers": {daemon: READERS[daemon] for daemon in names},
        "keys": keys,
        "drop_ins": written,
        "gone": gone,
        "absent": {daemon: _of_daemon(daemon) for daemon in SERVERS if daemon not in names},
    }


def all_files() -> dict[str, list[str]]:
    """Everything outside of a release that a host may have, whatever it runs; directories after what is in them."""
    drop_ins = [f"{UNITS}/{unit}.d" for unit in (*(f"hbagent-{daemon}.service" for daemon in DAEMONS), *HELPER_UNITS)]
    daemons = [path for daemon in DAEMONS for path in _of_daemon(daemon)]
    files = [*daemons, *(f"{UNITS}/{unit}" for unit in HELPER_UNITS), SYSUSERS, *LINKS]
    run = [f"/run{private}/hbagent{daemon}" for private in ("", "/private") for daemon in ("", "-leader", "-root")]
    state = ["/var/lib/hbagent", "/var/lib/private/hbagent", *run, "/run/hbagent-diagnose.sock"]
    return {"files": files, "directories": [*drop_ins, ETC, *state, "/opt/hbagent"]}


def _of_daemon(daemon: str) -> list[str]:
    """The files that go with a daemon."""
    etc = [f"{daemon}.toml", f"keys/{daemon}.key"]
    unit = f"hbagent-{daemon}.service"
    found = [unit]
    if daemon in SERVERS:
        etc += [f"{daemon}-allow.toml", f"keys/{daemon}-next.key"]
        found.append(f"{unit}.d/rotation.conf")
    return [f"{ETC}/{name}" for name in etc] + [f"{UNITS}/{name}" for name in (*found, f"{unit}.d/site.conf")]


def _phase(entry: Any) -> str:
    return str(entry.get("phase", "")) if isinstance(entry, Mapping) else ""


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"host_files": host_files, "all_files": lambda _: all_files()}
