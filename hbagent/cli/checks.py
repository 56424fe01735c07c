"""What `hbagent doctor` looks at: each check takes settings, looks at the host, and comes back with findings.

A finding is ok, warn or fail. `fail` means that the daemon cannot do its work; `warn` that it may, or that this user
cannot tell; either says what to do. No check changes anything, and none waits longer than `CONNECT_S` for anybody
but a name server and the helper.
"""

from __future__ import annotations

import os
import resource
import socket as bsd
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import zmq

from hbagent.core.checks import ExecCheck
from hbagent.core.units import SECOND
from hbagent.diagnosis import helper, stacks
from hbagent.hooks import runner
from hbagent.probes.host import clock_synchronised
from hbagent.role.settings import AgentSettings, LeaderSettings, RootSettings, Settings
from hbagent.transport import allow, keys, sockets

from .advice import advice
from .query import NO_SOCKET, NOT_LISTENING, Asker, Denied, NoTarget, Target, Unanswered, why_closed

OK, WARN, FAIL = "ok", "warn", "fail"

#: How long a connection, or an answer, may take. Further away than this, no beat would come in time either.
CONNECT_S = 2.0
#: The helper looks twice, a second apart.
HELPER_S = 4.0
#: A leader keeps a connection for beats, one for reports and one for control of each agent, and twice as many for a
#: moment when a rack reconnects.
DESCRIPTORS_PER_PEER = 6
#: Files, state, query connections, libzmq's own.
DESCRIPTORS_BASE = 128
#: Below the first a state directory is about to fail, below the second somebody should look.
FREE_MIN_BYTES = 16 << 20
FREE_WARN_BYTES = 256 << 20
#: No host has an earlier time than this program's first release.
EARLIEST_WALL_S = 1_735_689_600


#: How a key is found by hand that systemd hands to a unit.
BY_HAND = f"{keys.CREDENTIALS_VARIABLE}=/etc/hbagent/keys"


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor."""

    grade: str
    #: What was looked at: config, key, clock...
    what: str
    text: str


def role_of(settings: Settings) -> str:
    """agent | leader | root"""
    if isinstance(settings, AgentSettings):
        return "agent"
    return "leader" if isinstance(settings, LeaderSettings) else "root"


def name_of(settings: Settings) -> str:
    """The full name of the daemon."""
    return settings.core.node if isinstance(settings, AgentSettings) else settings.core.name


# ---- this host -------------------------------------------------------------------------------------------


def host_findings(now_wall_s: float | None = None) -> Iterator[Finding]:
    """What does not depend on any config: the libraries and the clock. `now_wall_s` replaces the wall clock."""
    yield from library()
    yield from clock(time.time() if now_wall_s is None else now_wall_s)


def library() -> Iterator[Finding]:
    """libzmq is safe and speaks CURVE."""
    try:
        sockets.require_libzmq()
    except RuntimeError as error:
        yield Finding(FAIL, "libzmq", f"{error}: install the pinned pyzmq wheel")
    else:
        yield Finding(OK, "libzmq", f"{zmq.zmq_version()} with CURVE, pyzmq {zmq.__version__}")


def clock(wall_s: float) -> Iterator[Finding]:
    """The wall clock is plausible and kept in step. No verdict depends on it; every time that people see does."""
    if wall_s < EARLIEST_WALL_S:
        when = time.strftime("%Y-%m-%d", time.gmtime(wall_s))
        yield Finding(WARN, "clock", f"the wall clock says {when}: set it; shown times will be wrong, verdicts not")
    elif clock_synchronised() is False:
        yield Finding(WARN, "clock", "the kernel's clock is not synchronized: run chrony or systemd-timesyncd")
    else:
        yield Finding(OK, "clock", "synchronized")


# ---- one daemon ------------------------------------------------------------------------------------------


def daemon_findings(settings: Settings, config: Path) -> Iterator[Finding]:
    """Everything about one daemon of this host, in the order in which trouble is best mended."""
    yield from key(settings)
    if isinstance(settings, (LeaderSettings, RootSettings)):
        yield from allow_list(settings)
    if isinstance(settings, RootSettings):
        yield from hooks(settings)
    yield from descriptors(settings)
    if isinstance(settings, (LeaderSettings, RootSettings)):
        yield from state_directory(settings.state_dir)
        yield from answers(settings, config)
        yield from own_ports(settings)
    else:
        yield from echo(settings)
        yield from prober(settings)
        yield from diagnosis(settings.prober.helper)
    yield from peers(settings)


def key(settings: Settings) -> Iterator[Finding]:
    """The secret key can be used and belongs to the daemon's name."""
    security, name = settings.security, name_of(settings)
    if security.plain or security.key is None:
        yield Finding(OK, "key", "none: plain text, which never leaves this host")
        return
    try:
        file = keys.secret_file(security.key, {**_lent_by_the_unit(role_of(settings)), **os.environ})
    except keys.KeyFileError:
        text = f"{security.key}: systemd gives it to the unit, which does not run or whose files this user may not read"
        yield Finding(WARN, "key", f"{text}; as root: {BY_HAND} hbagent doctor")
        return
    if out_of_sight(file):
        yield Finding(WARN, "key", f"{file}: not readable by this user; run the doctor as the daemon's user")
        return
    try:
        pair = keys.load_secret(file)
    except keys.KeyFileError as error:
        remedy = f"; make it with: hbagent keys init {name} --dir {file.parent}"
        makes_it = keys.secret_path(name, file.parent) == file and not file.exists()
        yield Finding(FAIL, "key", f"{error}{remedy if makes_it else ''}")
        return
    if pair.name != name:
        yield Finding(FAIL, "key", f"{file} is the key of {pair.name}, not of {name}: name the right file")
    else:
        yield Finding(OK, "key", f"{file}, fingerprint {keys.fingerprint(pair.public)}")


def _lent_by_the_unit(role: str) -> dict[str, str]:
    """Where a running unit finds its credentials, for whoever may look there."""
    directory = f"/run/credentials/hbagent-{role}.service"
    return {keys.CREDENTIALS_VARIABLE: directory} if os.access(directory, os.X_OK, effective_ids=True) else {}


def out_of_sight(path: Path) -> bool:
    """True when a file is there, or may be, but out of this user's sight."""
    try:
        return not os.access(path, os.R_OK, effective_ids=True) and path.stat().st_uid != os.geteuid()
    except PermissionError:
        return True
    except OSError:
        return False


def allow_list(settings: LeaderSettings | RootSettings) -> Iterator[Finding]:
    """Everyone who is expected has a key that is admitted."""
    file = settings.security.allow
    if settings.security.plain or file is None:
        return
    try:
        admitted = allow.load(file)
    except (allow.AllowError, OSError) as error:
        yield Finding(FAIL, "allow-list", f"{error}: nobody is admitted; mend it with hbagent keys")
        return
    role = allow.Role.AGENT if isinstance(settings, LeaderSettings) else allow.Role.LEADER
    known = frozenset(peer.name for peer in admitted.peers if peer.role is role)
    missing = [name for name in expected(settings) if name not in known]
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        text = f"{file}: {len(missing)} of {len(expected(settings))} expected {role.value} have no key there ({some}): "
        yield Finding(WARN, "allow-list", f"{text}they are refused until hbagent keys init ... --allow adds them")
    else:
        yield Finding(OK, "allow-list", f"{file}: {len(known)} {role.value}, all that are expected")


def expected(settings: LeaderSettings | RootSettings) -> list[str]:
    """Who should connect: the nodes of a leader, the leaders of a root."""
    if isinstance(settings, LeaderSettings):
        return [node for nodes in settings.core.racks.values() for node in nodes]
    return list(dict.fromkeys(leader for rack in settings.core.racks for leader in rack.leaders))


def hooks(settings: RootSettings) -> Iterator[Finding]:
    """Each hook may be run; a root refuses to start otherwise."""
    for hook in settings.core.hooks:
        reason = runner.check(hook.argv)
        if reason:
            yield Finding(FAIL, "hook", f"{hook.name}: {reason}")
        else:
            yield Finding(OK, "hook", f"{hook.name}: {hook.argv[0]}")
        for text in advice(hook):
            yield Finding(WARN, "hook", f"{hook.name}: {text}")


def descriptors(settings: Settings) -> Iterator[Finding]:
    """A process started from here may open as many files as the daemon has connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    peers = 1 if isinstance(settings, AgentSettings) else len(expected(settings))
    needed = DESCRIPTORS_BASE + DESCRIPTORS_PER_PEER * peers
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield Finding(OK, "open files", f"{_limit(soft)} allowed here, {needed} needed")
        return
    text = f"{soft} allowed here, {needed} needed: set LimitNOFILE={needed} in the unit, or ulimit -n {needed}"
    enough = hard == resource.RLIM_INFINITY or hard >= needed
    yield Finding(WARN, "open files", text if enough else f"{text} as root, for the hard limit is {hard}")


def _limit(value: int) -> str:
    return "any number" if value == resource.RLIM_INFINITY else str(value)


def state_directory(path: Path) -> Iterator[Finding]:
    """The daemon can write its state, and there is room."""
    at = path
    while not os.path.lexists(at) and at != at.parent:
        at = at.parent
    made = "" if at == path else f" (it will be made in {at})"
    try:
        is_directory = stat.S_ISDIR(at.stat().st_mode)
    except OSError as error:
        # systemd has it be a link into a place that root alone gets to.
        text = f"{path}: cannot be looked at ({error.strerror}): as root: {BY_HAND} hbagent doctor"
        yield Finding(WARN, "state", text)
        return
    if not is_directory:
        yield Finding(FAIL, "state", f"{at} is not a directory: move it away, or name another state_dir")
        return
    if not os.access(at, os.W_OK | os.X_OK, effective_ids=True):
        owner = at.stat().st_uid
        text = f"{path}: not writable by this user{made}; {at} belongs to uid {owner}: "
        yield Finding(WARN, "state", f"{text}run the doctor as the daemon's user, or chown it to that user")
        return
    filesystem = os.statvfs(at)
    free = filesystem.f_bavail * filesystem.f_frsize
    room = f"{free >> 20} MiB free"
    if filesystem.f_flag & os.ST_RDONLY:
        yield Finding(FAIL, "state", f"{path}: on a file system that is mounted read-only")
    elif free < FREE_MIN_BYTES:
        yield Finding(FAIL, "state", f"{path}: {room}: make room, or what happens will not be kept")
    elif free < FREE_WARN_BYTES or (not filesystem.f_favail and filesystem.f_files):
        yield Finding(WARN, "state", f"{path}: {room}, {filesystem.f_favail} files: make room")
    else:
        yield Finding(OK, "state", f"{path}: writable{made}, {room}")


def answers(settings: LeaderSettings | RootSettings, config: Path) -> Iterator[Finding]:
    """The daemon answers on its query socket, and is the one that the config speaks of."""
    role, place = role_of(settings), settings.query
    try:
        with Asker(Target(endpoint=place, role=role, config=config), round(CONNECT_S * SECOND)) as asker:
            about = asker.ask("ping")
    except (Unanswered, Denied, NoTarget) as error:
        why = error.why if isinstance(error, Unanswered) else str(error)
        yield Finding(FAIL, "query", f"{place}: {why}: {_remedy(place, f'hbagent {role} --config {config}')}")
        return
    found = about.get("name") if isinstance(about, dict) else None
    if found != settings.core.name:
        yield Finding(FAIL, "query", f"{place}: {found!r} answers there, not {settings.core.name}")
    else:
        yield Finding(OK, "query", f"{place}: {role} {settings.core.name} answers")


def _remedy(endpoint: str, command: str) -> str:
    if is_absent(endpoint):
        return f"start it with {command}"
    if why_closed(endpoint):
        return "run the doctor as a user who may ask"
    return "it is stuck or starved; its log may say why"


def is_absent(endpoint: str) -> bool:
    """True when it is certain that no daemon serves a query socket."""
    return why_closed(endpoint) in (NO_SOCKET, NOT_LISTENING)


def own_ports(settings: LeaderSettings | RootSettings) -> Iterator[Finding]:
    """While the daemon runs, its ports can be reached from here; while it does not, nobody else has taken them."""
    absent = is_absent(settings.query)
    for what, endpoint in (("publish", settings.publish), ("control", settings.control)):
        reason = unreachable(endpoint)
        if reason and not absent:
            text = f"{endpoint}: {reason}, although it runs: was the port changed without a restart?"
            yield Finding(FAIL, what, text)
        elif absent and not reason:
            yield Finding(FAIL, what, f"{endpoint}: another process listens there: end it, or choose another port")
        else:
            yield Finding(OK, what, f"{endpoint}: {'free' if absent else 'listening'}")


def peers(settings: Settings) -> Iterator[Finding]:
    """Those whom the daemon calls can be reached."""
    if isinstance(settings, RootSettings):
        return
    if isinstance(settings, AgentSettings):
        for leader in settings.leaders:
            yield from _reached("leader", leader.name, leader.publish, leader.control)
        return
    yield from _reached("root", settings.root.name, settings.root.publish, settings.root.control)
    for peer in settings.peers:
        yield from _reached("peer", peer.name, peer.control)


def _reached(what: str, name: str, *endpoints: str) -> Iterator[Finding]:
    # Without another leader a leader still judges; it only knows less.
    grade, role = (WARN, "leader") if what == "peer" else (FAIL, what)
    for endpoint in endpoints:
        reason = unreachable(endpoint)
        if reason:
            text = f"{name} at {endpoint}: {reason}: is hbagent {role} running there, is the port open?"
            yield Finding(grade, what, text)
        else:
            yield Finding(OK, what, f"{name} at {endpoint}: reachable")


def echo(settings: AgentSettings) -> Iterator[Finding]:
    """The echo responder listens; whether a wall lets others through to it only a leader can know."""
    if not settings.echo_bind:
        yield Finding(OK, "echo", "off: when this host falls silent, nothing more will be known of it")
        return
    host = f"[{settings.echo_bind}]" if ":" in settings.echo_bind else settings.echo_bind
    endpoint = f"tcp://{host}:{settings.echo_port}"
    reason = unreachable(endpoint)
    if reason:
        text = f"{endpoint}: {reason}: is hbagent agent running? Without it the cause of a silence stays unknown"
        yield Finding(WARN, "echo", text)
    else:
        yield Finding(OK, "echo", f"{endpoint}: listening; open it, UDP and TCP, to the other hosts of the rack")


# ---- what an agent's prober needs ------------------------------------------------------------------------


def prober(settings: AgentSettings) -> Iterator[Finding]:
    """Where applications report and evidence is kept, and each program that a probe runs."""
    if not settings.core.prober:
        yield Finding(WARN, "prober", "switched off: this host tells neither facts nor health")
        return
    config = settings.prober
    if config.notify:
        yield from _notify(config.notify)
    if config.state_dir:
        yield from state_directory(Path(config.state_dir))
    for probe in config.probes:
        if isinstance(probe.check, ExecCheck):
            reason = runner.check(probe.check.argv)
            if reason:
                yield Finding(FAIL, "probe", f"{probe.name}: {reason}; until then it is UNKNOWN")
            else:
                yield Finding(OK, "probe", f"{probe.name}: {probe.check.argv[0]}; hbagent probe run {probe.name}")


def _notify(path: str) -> Iterator[Finding]:
    """Somebody listens where applications report, and every user of the host gets there."""
    directory = Path(path).parent
    with bsd.socket(bsd.AF_UNIX, bsd.SOCK_DGRAM) as sender:
        try:
            sender.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError as error:
            text = f"{path}: {error.strerror}: nobody listens there until the agent runs"
            if not path.startswith("@") and not directory.is_dir():
                text += f", and {directory} is no directory (in the unit: RuntimeDirectory=hbagent)"
            yield Finding(WARN, "notify", text)
            return
    if not path.startswith("@") and not directory.stat().st_mode & stat.S_IXOTH:
        yield Finding(WARN, "notify", f"{path}: other users cannot get there: chmod o+x {directory}")
    else:
        yield Finding(OK, "notify", f"{path}: applications can report there")


# ---- what this host permits for diagnosis ----------------------------------------------------------------


def diagnosis(helper_path: str) -> Iterator[Finding]:
    """What a diagnosis may see on this host, and which programs help it. `helper_path`: the helper's socket, or ""."""
    # The default names one that need not be there.
    present = bool(helper_path) and os.path.lexists(helper_path)
    yield from _proofs()
    yield from _rights(present)
    if present:
        yield from _helper(helper_path)
    for program, path, gain in (
        ("py-spy", stacks.find_py_spy(), "stacks of Python programs; pip install hbagent[stacks]"),
        ("jcmd", stacks.find_jcmd(), "stacks and deadlocks of Java programs; install a JDK"),
    ):
        yield Finding(OK, "diagnosis", f"{program}: {path or f'not installed; it would tell {gain}'}")


def _proofs() -> Iterator[Finding]:
    machine = os.uname().machine
    # Programs in containers have their own library; that of the host is what most others have.
    library = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    if machine == "x86_64" and library:
        yield Finding(
            OK, "diagnosis", f"deadlocks are proved for 64-bit programs with glibc (here {library}, {machine})"
        )
    else:
        text = f"no deadlock can be proved here ({library or 'no glibc'}, {machine}); it is told as LOCK-WAIT"
        yield Finding(OK, "diagnosis", text)


def _rights(helped: bool) -> Iterator[Finding]:
    """What the kernel's settings leave to a daemon without capabilities, and whether a helper makes up for it."""
    grade = OK if helped else WARN
    remedy = "the helper may" if helped else "systemctl enable --now hbagent-diagnose.socket"
    scope = kernel_setting("/proc/sys/kernel/yama/ptrace_scope")
    if scope == "3":
        text = "kernel.yama.ptrace_scope is 3, so nobody may look into any process: no diagnosis until it is lowered"
        yield Finding(WARN, "diagnosis", text)
    elif scope in ("1", "2"):
        text = f"kernel.yama.ptrace_scope is {scope}, so the agent may look into no process, not even its own user's"
        yield Finding(grade, "diagnosis", f"{text}: {remedy}")
    hidden = hidepid()
    if hidden not in ("", "0", "off"):
        text = f"/proc is mounted with hidepid={hidden}, so the agent does not see processes of other users"
        yield Finding(grade, "diagnosis", f"{text}: {remedy}")
    if not helped:
        text = "no helper: the agent can look into processes of its own user only, and others stay UNKNOWN"
        yield Finding(WARN, "diagnosis", f"{text}: {remedy}")


def kernel_setting(path: str) -> str:
    """The text of a file below /proc/sys; "" when this kernel has none."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def hidepid(mounts: str = "/proc/self/mounts") -> str:
    """The value of hidepid with which /proc is mounted; "" when it is not given."""
    for line in reversed(kernel_setting(mounts).splitlines()):
        fields = line.split()
        if len(fields) > 3 and fields[1] == "/proc":
            given = [option.partition("=")[2] for option in fields[3].split(",") if option.startswith("hidepid=")]
            return given[0] if given else ""
    return ""


def _helper(path: str) -> Iterator[Finding]:
    """The helper answers about this very process."""
    try:
        helper.ask_helper(path, helper.Request(pid=os.getpid()), HELPER_S)
    except helper.HelperError as error:
        remedy = "systemctl status hbagent-diagnose.socket tells why; run the doctor as root or the agent's user"
        yield Finding(WARN, "diagnosis", f"the helper: {error}: {remedy}")
    else:
        yield Finding(OK, "diagnosis", f"the helper at {path} answers")


def unreachable(endpoint: str) -> str:
    """Why no connection to an endpoint can be made; "" when one was, and was closed again."""
    try:
        for address in _addresses(endpoint):
            with bsd.socket(address[0], bsd.SOCK_STREAM) as probe:
                probe.settimeout(CONNECT_S)
                probe.connect(address[1])
                return ""
    except TimeoutError:
        return f"no answer within {CONNECT_S:.0f} s (a firewall drops it, or the host is down)"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return "no such address"


def _addresses(endpoint: str) -> Iterable[tuple[int, str | tuple[str, int]]]:
    """Families and addresses of an endpoint; the first decides. Raises OSError for a name that nobody knows."""
    kind, _, rest = endpoint.partition("://")
    if kind == "ipc":
        return [(bsd.AF_UNIX, rest)]
    host, _, port = rest.rpartition(":")
    host = host.strip("[]")
    # Whoever listens everywhere listens on loopback too.
    host = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    found = bsd.getaddrinfo(host, int(port), type=bsd.SOCK_STREAM)
    return [(family, (str(address[0]), int(address[1]))) for family, _, _, _, address in found]
