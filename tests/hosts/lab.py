"""A datacenter of real hosts on this machine: systemd, sshd, disks and networks of their own.

Each host is a container with a systemd of its own as its first process. All hang on one switch, which is a network
namespace without any other way out, so nothing that is done to them reaches this machine's network. Ansible runs
inside the switch.

By hand, and for as long as it is wanted::

    python -m tests.hosts.lab up --name x --hosts 3     tells how to get in, and writes an inventory
    python -m tests.hosts.lab down --name x

Killing the first process of a host whose network lives on looks like the end of all its processes: connections are
closed, ports refuse. A host that loses its power says nothing any more, so its traffic is dropped first.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.hosts.rootfs import rootfs

#: What a lab needs of the machine, beside the rights of root.
PROGRAMS = ("debootstrap", "ip", "nft", "nsenter", "ssh", "ssh-keygen", "systemd-nspawn")
#: Where labs lie: a host's disk must not lie on an overlay itself, as it may in a temporary directory.
LABS = Path("/var/tmp/hbagent-lab")
CGROUPS = Path("/sys/fs/cgroup")
#: From the start of the containers until systemd has started everything: 3.5 s for six when nothing else runs.
BOOT_SECONDS = 180.0
END_SECONDS = 30.0
#: Of the kernel's mount(2).
_MNT_DETACH = 2
_DROP_ALL = "table inet cut"


class Host:
    """One of them, by number from 1."""

    def __init__(self, lab: Lab, number: int) -> None:
        self.lab = lab
        self.number = number
        self.name = f"{lab.name}{number}"
        self.address = f"10.{lab.subnet}.{number}.2"
        self.address6 = f"fd77:{lab.subnet:x}:{number:x}::2"
        self.namespace = self.name
        #: Its end at the switch.
        self.port = f"port{number}"
        self.directory = lab.directory / self.name
        self.root = self.directory / "root"

    # ---- inside ----------------------------------------------------------------------------------------------

    @property
    def keeper(self) -> int:
        """The process id of what holds it, here; 0 when nothing does."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.directory / "pid").read_text())
            # An earlier lab may have left the file, and somebody else may have the number by now.
            if os.fsencode(self.root) in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return 0

    @property
    def init(self) -> int:
        """The process id of its first process, here; 0 when it does not run."""
        keeper = self.keeper
        with contextlib.suppress(OSError):
            for pid in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
                # What prepares the way for it is a child of the same, for a moment, and first of nothing.
                if re.search(r"^NSpid:.*\s1$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
                    return int(pid)
        return 0

    def run(self, *command: str, check: bool = True, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A command as root inside, past its network. Raises AssertionError with its output when it fails."""
        init = self.init
        assert init, f"{self.name} does not run"
        inside = ("nsenter", "--target", str(init), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8", "HOME": "/root"}
        done = subprocess.run(
            [*inside, "--root", "--wd=/", *command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {shlex.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def shell(self, script: str, check: bool = True, timeout: float = 120.0) -> str:
        """What a shell script prints that runs as root inside."""
        return self.run("sh", "-ec", script, check=check, timeout=timeout).stdout

    def journal(self, unit: str, lines: int | None = 50) -> str:
        """The newest lines of a unit, or all there are."""
        newest = "all" if lines is None else str(lines)
        return self.run("journalctl", "--no-pager", "-o", "cat", "-n", newest, "-u", unit, check=False).stdout

    @contextlib.contextmanager
    def changed_unit(self, unit: str, setting: str) -> Iterator[None]:
        """A service with another setting, until the end of the block."""
        directory = f"/run/systemd/system/{unit}.service.d"
        self.shell(f"mkdir -p {directory}; printf '[Service]\\n{setting}\\n' >{directory}/lab.conf")
        try:
            self.run("systemctl", "daemon-reload")
            yield
        finally:
            self.shell(f"rm -r {directory}; systemctl daemon-reload")

    # ---- power -----------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Switch it on; `Lab.wait_booted` waits until it is up."""
        # Its own groups must be entered before systemd starts, or hosts share one tree and some come up degraded.
        groups = [group / f"hblab-{self.name}" for group in _hierarchies()]
        for group in groups:
            group.mkdir(exist_ok=True)
        enter = "".join(f"echo 0 >{shlex.quote(str(group / 'cgroup.procs'))}; " for group in groups)
        nspawn = shlex.join(
            (
                *("systemd-nspawn", "--quiet", "-D", str(self.root), "--register=no", "--keep-unit"),
                *("--machine", self.name, "--hostname", self.name, "--console=pipe"),
                *("--network-namespace-path", f"/run/netns/{self.namespace}", "--boot"),
            )
        )
        with (self.directory / "console.log").open("ab") as log:
            process = subprocess.Popen(
                ["sh", "-c", f"{enter}exec {nspawn}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.directory / "pid").write_text(str(process.pid))
        self.lab.started.append(process)

    def is_up(self) -> bool:
        """True when systemd has started everything and sshd listens."""
        if not self.init:
            return False
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            done = self.run("systemctl", "is-system-running", check=False, timeout=10)
            return done.stdout.strip() in ("running", "degraded") and bool(self.shell("ss -Hltn 'sport = 22'"))
        return False

    def kill(self) -> None:
        """The end of all its processes at once, with its network alive. Nobody holds its disk after that."""
        for victim in (self.init, self.keeper):
            if victim:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                if wait_until(lambda: not self.keeper, END_SECONDS):
                    return

    def power_off(self) -> None:
        """As when the plug is pulled: first not a word any more, then nothing runs."""
        self.isolate()
        self.kill()

    # ---- cables ----------------------------------------------------------------------------------------------

    def pull_cable(self) -> None:
        """Its end at the switch has no carrier any more."""
        self.lab.in_switch("ip", "link", "set", self.port, "down")

    def plug_cable(self) -> None:
        """And back, with the routes that went with it."""
        self.lab.in_switch("ip", "link", "set", self.port, "up")
        self.lab.in_switch("ip", "-6", "addr", "replace", f"fd77:{self.lab.subnet:x}:{self.number:x}::1/64", "nodad",
                           "dev", self.port)  # fmt: skip

    def isolate(self) -> None:
        """The switch drops all that comes from it or goes to it, and says nothing."""
        for hook in ("input", "forward"):
            self.lab.nft(f"add rule inet cut {hook} iifname {self.port} drop")
        for hook in ("output", "forward"):
            self.lab.nft(f"add rule inet cut {hook} oifname {self.port} drop")

    # ---- cold ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """All its processes stand still; its kernel, which it shares with this machine, answers on."""
        state = CGROUPS / "freezer" / f"hblab-{self.name}" / "freezer.state"
        state.write_text("FROZEN")
        try:
            yield
        finally:
            state.write_text("THAWED")


class Lab:
    """All of them, and the switch. `up` makes it, `down` leaves nothing of it."""

    def __init__(self, name: str, hosts: int, directory: Path | None = None) -> None:
        self.name = name
        #: 10.SUBNET.HOST.2; namespaces keep labs apart, so two with the same number do no harm.
        self.subnet = 64 + zlib.crc32(name.encode()) % 128
        self.directory = directory or LABS / name
        self.switch = f"{name}-switch"
        self.key = self.directory / "key"
        self.started: list[subprocess.Popen[bytes]] = []
        self.hosts = tuple(Host(self, number) for number in range(1, hosts + 1))

    # ---- making ----------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Build the switch and switch all hosts on. Raises what the first failing step raises; `down` cleans up."""
        disk = rootfs()
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "lab.json").write_text(json.dumps({"name": self.name, "hosts": len(self.hosts)}))
        if not self.key.exists():
            _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        _do("ip", "netns", "add", self.switch)
        self.in_switch("ip", "link", "set", "lo", "up")
        # A namespace begins with the settings of this machine; what it forwards is its own.
        self.in_switch("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        hooks = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; }}; " for hook in ("input", "output", "forward")
        )
        self.nft(f"{_DROP_ALL} {{ {hooks} }}")
        for host in self.hosts:
            self._connect(host)
            self._disk(host, disk)
            host.boot()
        self.wait_booted(*self.hosts)
        self._known_hosts()

    def wait_booted(self, *hosts: Host) -> None:
        """Until these are up."""
        assert wait_until(lambda: all(host.is_up() for host in hosts), BOOT_SECONDS), "\n".join(
            f"{host.name} did not come up:\n{(host.directory / 'console.log').read_text(errors='replace')[-2000:]}"
            for host in hosts
            if not host.is_up()
        )

    def heal(self) -> None:
        """Nothing is cut any more."""
        for hook in ("input", "output", "forward"):
            self.nft(f"flush chain inet cut {hook}")
        for host in self.hosts:
            host.plug_cable()

    def down(self) -> None:
        """Switch all off and take everything away, also what an earlier process left."""
        for host in self.hosts:
            for state in CGROUPS.glob(f"freezer/hblab-{host.name}/freezer.state"):
                state.write_text("THAWED")
            host.kill()
            _unmount(host.root)
            subprocess.run(["ip", "netns", "del", host.namespace], check=False, stderr=subprocess.DEVNULL)
            for hierarchy in _hierarchies():
                _remove_groups(hierarchy / f"hblab-{host.name}")
        for process in self.started:
            process.kill()
            process.wait()
        self.started.clear()
        subprocess.run(["ip", "netns", "del", self.switch], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _connect(self, host: Host) -> None:
        inside = ("ip", "-n", host.namespace)
        there = ("ip", "-n", self.switch)
        gateway, gateway6 = f"10.{self.subnet}.{host.number}.1", f"fd77:{self.subnet:x}:{host.number:x}::1"
        _do("ip", "netns", "add", host.namespace)
        _do(*there, "link", "add", host.port, "type", "veth", "peer", "name", "host0", "netns", host.namespace)
        _do(*there, "addr", "add", f"{gateway}/24", "dev", host.port)
        _do(*there, "addr", "add", f"{gateway6}/64", "dev", host.port, "nodad")
        _do(*there, "link", "set", host.port, "up")
        _do(*inside, "link", "set", "lo", "up")
        _do(*inside, "addr", "add", f"{host.address}/24", "dev", "host0")
        _do(*inside, "addr", "add", f"{host.address6}/64", "dev", "host0", "nodad")
        _do(*inside, "link", "set", "host0", "up")
        _do(*inside, "route", "add", "default", "via", gateway)
        _do(*inside, "-6", "route", "add", "default", "via", gateway6)

    def _disk(self, host: Host, lower: Path) -> None:
        upper, work = host.directory / "upper", host.directory / "work"
        for directory in (upper, work, host.root):
            directory.mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        _do("mount", "-t", "overlay", "hbagent-lab", "-o", options, str(host.root))
        allowed = host.root / "root/.ssh/authorized_keys"
        allowed.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(f"{self.key}.pub", allowed)
        allowed.chmod(0o600)

    def _known_hosts(self) -> None:
        lines = []
        for host in self.hosts:
            key = (host.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
            lines.append(f"{host.address},{host.address6} {key[0]} {key[1]}\n")
        (self.directory / "known_hosts").write_text("".join(lines))

    # ---- using -----------------------------------------------------------------------------------------------

    def in_switch(self, *command: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
        """A command of this machine in the network namespace of the switch, from where all hosts are reached."""
        return _do("ip", "netns", "exec", self.switch, *command, check=check, **options)

    def nft(self, rules: str) -> None:
        """Rules for the switch."""
        self.in_switch("nft", "-f", "-", input=f"{rules}\n")

    def ssh_options(self) -> str:
        """What ssh and Ansible need to get in."""
        return f"-i {self.key} -o UserKnownHostsFile={self.directory}/known_hosts -o StrictHostKeyChecking=yes"


# ---- the machine -----------------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], object], bound_s: float) -> bool:
    """Wait until it holds; False when it does not within the bound."""
    end = time.monotonic() + bound_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True


def _do(*command: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    if check and done.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}: {done.stdout}")
    return done


def _hierarchies() -> tuple[Path, ...]:
    """Where a host gets a group of its own: what systemd manages, and what freezes."""
    named = tuple(CGROUPS / name for name in ("systemd", "unified", "freezer"))
    found = tuple(group for group in named if (group / "cgroup.procs").exists())
    return found or (CGROUPS,)


def _remove_groups(top: Path) -> None:
    """A tree of empty groups, the deepest first."""
    if top.is_dir():
        groups = sorted((Path(found) for found, _, _ in os.walk(top)), key=lambda group: -len(group.parts))
        for group in groups:
            wait_until(lambda group=group: _removed(group), END_SECONDS)  # type: ignore[misc]


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def _unmount(root: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    while os.path.ismount(root):
        if libc.umount2(os.fsencode(root), _MNT_DETACH):
            raise OSError(ctypes.get_errno(), f"cannot unmount {root}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The lab by hand."""
    parser = argparse.ArgumentParser(prog="python -m tests.hosts.lab", description="Real hosts on this machine.")
    parser.add_argument("what", choices=("up", "down"))
    parser.add_argument("--name", default="hb", help="of the lab, at most 6 characters; hosts are NAME1, NAME2, ...")
    parser.add_argument("--hosts", type=int, default=6)
    options = parser.parse_args(arguments)
    directory = LABS / options.name
    if options.what == "down":
        kept = directory / "lab.json"
        count = json.loads(kept.read_text())["hosts"] if kept.exists() else options.hosts
        Lab(options.name, count).down()
        return 0
    lab = Lab(options.name, options.hosts)
    try:
        lab.up()
    except BaseException:
        lab.down()
        raise
    inventory = "\n".join(
        f"{host.name} ansible_host={host.address} ansible_user=root hbagent_address6={host.address6}"
        for host in lab.hosts
    )
    ssh = lab.ssh_options()
    (directory / "hosts.ini").write_text(f"[all]\n{inventory}\n[all:vars]\nansible_ssh_common_args='{ssh}'\n")
    print(f"ip netns exec {lab.switch} ssh {ssh} root@{lab.hosts[0].address}")
    print(f"ip netns exec {lab.switch} ansible -i {directory}/hosts.ini all -m ping")
    return 0


if __name__ == "__main__":
    sys.exit(main())
