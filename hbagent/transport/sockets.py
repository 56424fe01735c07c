"""Every ZeroMQ socket of the project, each made by one function with all its options.

Three rules hold for all of them:

- A TCP socket speaks CURVE, or PLAIN (a name without proof) and then only on loopback; ipc may do without.
- No ZMTP heartbeats. With them libzmq 4.3.5 aborts a whole process whose SUB stalled and came back (libzmq #3937),
  and a PONG proves only that an I/O thread lives.
- No waiting at close, and every queue is bounded: what matters is kept and repeated by a core, not by a socket.

Recovery after a network cut is the work of four options together on the calling side: IMMEDIATE, CONNECT_TIMEOUT,
TCP_MAXRT and a reconnect interval with jitter. Measured after cuts of 20 and 40 s: traffic again in 0.3 to 1.9 s and
nothing stale; without them 7 to 14 s and hundreds of stale messages.

A PUB calls several leaders, each with its own server key: libzmq copies the options of a socket at `connect`, so
the key is set before each, and a later reconnect still uses the key of its own connection.

A bound SUB sends its subscription only when its thread services it. A leader that does not poll at once is deaf
to agents that are already connected.
"""

from __future__ import annotations

import errno
import os
import re
import socket as bsd
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import zmq

from hbagent.transport.keys import KeyPair, is_key
from hbagent.wire.version import FRAME_SIZE_MAX

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]

#: Older ones have remotely exploitable defects without authentication (CVE-2020-15166 and others fixed with it).
LIBZMQ_MIN = (4, 3, 3)

#: Largest message taken: a whole frame and what CURVE adds to it (a name of 8 bytes, nonce 8, tag 16, flags 1),
#: rounded up. A peer that announces more is disconnected before anything is allocated.
MESSAGE_SIZE_MAX = FRAME_SIZE_MAX + 64

#: Handshakes cost the leader 0.5 ms each. When a rack comes back at once and they time out before their turn, they
#: start again, for ever: 10,000 callers with 2 s never converged, with 3 ms for each they did in 10 s (measured).
HANDSHAKE_MIN_MS = 10_000
HANDSHAKE_PER_PEER_MS = 3

#: Callers wait longer than any leader may need, so that the leader alone decides.
CALLER_HANDSHAKE_MS = 30_000

#: libzmq's default of 100 lets about 200 connections a second through.
BACKLOG = 4096

#: How long a connection may stay without acknowledgement before the kernel of the caller gives it up.
TCP_MAXRT_MS = 3_000

#: The called side cannot call again, and a caller that has nothing to say does not notice for ten seconds that its
#: connection was given up. So that side waits until the caller's keepalive has noticed the cut by itself.
CALLED_MAXRT_MS = 20_000

#: How long one attempt to connect may take. The kernel's own is over two minutes: it doubles its waits.
CONNECT_TIMEOUT_MS = 2_000

#: Messages of one peer that wait for the leader's thread: a stall of ten seconds at a hundred a second, and never
#: more than 64 MB even if a peer that we admitted fills it with the largest frames.
INTAKE_QUEUE_MAX = 1_000

#: Control messages of one peer in each direction; the cores repeat what matters.
CONTROL_QUEUE_MAX = 100

#: Reports that wait for one leader. They are repeated in full, so a long queue would only make them old.
REPORT_QUEUE_MAX = 16

#: Pages of 32 KiB that wait for one console: 64 MiB, the longest answer there is.
QUERY_QUEUE_MAX = 2_048

#: The same for an operator on another host: 16 MiB, the status of 25,000 nodes. Whoever does not read is cut.
OPERATOR_QUEUE_MAX = 512

#: `sun_path` of a unix socket, less the zero at its end.
_IPC_PATH_MAX = 107

_LOOPBACK = re.compile(r"tcp://(?:127\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})|\[::1\]):(?:\d{1,5}|\*)")


class EndpointError(ValueError):
    """An endpoint that must not, or cannot, be used; the text says why and what to write."""


class Target(msgspec.Struct, frozen=True):
    """Whom to call: a leader's or root's endpoint and its public key ("" in plain mode)."""

    endpoint: str
    server_key: str = ""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls: the name, its keys (None is plain mode), and its own wait before it reconnects.

    Draw `reconnect_ms` at random for each process, 1 to 3 s in a rack of 500: libzmq adds jitter of up to the same
    again only while RECONNECT_IVL_MAX is 0.
    """

    name: str
    keys: KeyPair | None
    reconnect_ms: int


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Who is called: its keys (None is plain mode), its ZAP domain, and how many peers may come at once."""

    keys: KeyPair | None
    domain: str
    peers_expected: int


def require_libzmq() -> None:
    """Raises RuntimeError when libzmq is too old to be safe or was built without CURVE."""
    version = zmq.zmq_version_info()
    if version < LIBZMQ_MIN:
        raise RuntimeError(
            f"libzmq {zmq.zmq_version()} has known holes; {'.'.join(map(str, LIBZMQ_MIN))} is the oldest safe one"
        )
    if not zmq.has("curve"):
        raise RuntimeError("this libzmq was built without CURVE; install the pyzmq wheel, or libzmq with libsodium")


def is_local(endpoint: str) -> bool:
    """True for ipc and for a numeric loopback address: where plain mode is allowed."""
    if endpoint.startswith("ipc://"):
        return True
    match = _LOOPBACK.fullmatch(endpoint)
    return match is not None and all(part is None or int(part) <= 255 for part in match.groups())


# ---- the calling side --------------------------------------------------------------------------------------
#
# A socket made without targets may be given to a `transport.monitor` before it is connected, so that no event is
# missed.


def beat_publisher(context: Context, caller: Caller, targets: Sequence[Target]) -> Socket:
    """PUB for beats: keeps only the newest in its queue, sends it to every target. Send one frame, never parts.

    Without CONFLATE a PUB keeps the oldest and drops the newest while a leader is away, and floods it afterwards.
    """
    socket = _calling(context, zmq.PUB, caller)
    socket.setsockopt(zmq.CONFLATE, 1)
    return _connected(socket, caller, targets)


def report_publisher(
    context: Context, caller: Caller, targets: Sequence[Target], queue_max: int = REPORT_QUEUE_MAX
) -> Socket:
    """PUB for reports, or a leader's summaries: what may be lost, because the next one says it all again."""
    socket = _calling(context, zmq.PUB, caller)
    socket.setsockopt(zmq.SNDHWM, queue_max)
    return _connected(socket, caller, targets)


def control_dealer(context: Context, caller: Caller, targets: Sequence[Target]) -> Socket:
    """DEALER to the control socket of a leader or root. Send without waiting: zmq.Again means not connected.

    Use one for each leader: a DEALER with several takes turns among them.
    """
    socket = _calling(context, zmq.DEALER, caller)
    socket.setsockopt(zmq.SNDHWM, CONTROL_QUEUE_MAX)
    socket.setsockopt(zmq.RCVHWM, CONTROL_QUEUE_MAX)
    return _connected(socket, caller, targets)


def query_dealer(context: Context, endpoint: str) -> Socket:
    """DEALER of a console to a query socket on this host. Raises EndpointError when it is not ipc."""
    _ipc_path(endpoint)
    socket = _bounded(context, zmq.DEALER)
    socket.setsockopt(zmq.SNDHWM, CONTROL_QUEUE_MAX)
    socket.setsockopt(zmq.RCVHWM, QUERY_QUEUE_MAX)
    return _or_closed(socket, lambda: socket.connect(endpoint))


def operator_dealer(context: Context, caller: Caller) -> Socket:
    """DEALER of a console to the operators' port of a root on another host; `connect` it. Send as a control DEALER."""
    socket = _calling(context, zmq.DEALER, caller)
    socket.setsockopt(zmq.SNDHWM, CONTROL_QUEUE_MAX)
    socket.setsockopt(zmq.RCVHWM, QUERY_QUEUE_MAX)
    return socket


def connect(socket: Socket, caller: Caller, target: Target) -> None:
    """Have a socket made above call one more target. Raises EndpointError."""
    if caller.keys is None:
        _require_local(target.endpoint)
    else:
        _require_tcp_or_ipc(target.endpoint)
        if not is_key(target.server_key):
            raise EndpointError(f"{target.endpoint}: needs the public key of whoever listens there")
        socket.setsockopt(zmq.CURVE_SERVERKEY, target.server_key.encode())
    socket.setsockopt(zmq.IPV6, int("[" in target.endpoint))
    _or_explained(target.endpoint, lambda: socket.connect(target.endpoint))


def disconnect(socket: Socket, target: Target) -> None:
    """Call a target no longer; harmless when it was not called."""
    try:
        socket.disconnect(target.endpoint)
    except zmq.ZMQError as error:
        if error.errno != errno.ENOENT:
            raise


def reconnect(socket: Socket, caller: Caller, target: Target) -> None:
    """Call a target again that refused us, which libzmq never does by itself. Other targets are not disturbed."""
    disconnect(socket, target)
    connect(socket, caller, target)


# ---- the called side ---------------------------------------------------------------------------------------


def intake_subscriber(context: Context, host: Host, endpoint: str, queue_max: int = INTAKE_QUEUE_MAX) -> Socket:
    """SUB, bound: everything that agents, or leaders, publish. Poll it at once and drain it.

    Receive with `copy=False` and ask the frame for "User-Id"; a frame without one is nobody's. Raises EndpointError.
    """
    socket = _called(context, zmq.SUB, host)
    socket.setsockopt(zmq.RCVHWM, queue_max)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    return _bound(socket, host, endpoint)


def control_router(context: Context, host: Host, endpoint: str) -> Socket:
    """ROUTER, bound: the control path. Raises EndpointError.

    The routing id is libzmq's own random choice for each connection and proves nothing: who sent a frame is its
    "User-Id". Sending to a peer that has gone raises zmq.ZMQError EHOSTUNREACH, to one that does not read zmq.Again;
    without ROUTER_MANDATORY both would vanish in silence.
    """
    socket = _called(context, zmq.ROUTER, host)
    socket.setsockopt(zmq.RCVHWM, CONTROL_QUEUE_MAX)
    socket.setsockopt(zmq.SNDHWM, CONTROL_QUEUE_MAX)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return _bound(socket, host, endpoint)


def operator_router(context: Context, host: Host, endpoint: str) -> Socket:
    """ROUTER, bound: the operators' port. Who asks is the "User-Id" of a frame. Raises EndpointError."""
    socket = _called(context, zmq.ROUTER, host)
    socket.setsockopt(zmq.RCVHWM, CONTROL_QUEUE_MAX)
    socket.setsockopt(zmq.SNDHWM, OPERATOR_QUEUE_MAX)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return _bound(socket, host, endpoint)


def query_router(context: Context, endpoint: str, group: str = "") -> Socket:
    """ROUTER on a unix socket, mode 0660: who may ask is decided by the file's group, which is `group` when given. Call
    it from the main thread before others start, since the mode is set by the umask of the process.

    A stale socket file is replaced; a living one, or a file that is no socket, raises EndpointError, and so does a
    group that there is not, or that this process may not give a file to.
    """
    gid = _gid(group) if group else -1
    path = _ipc_path(endpoint)
    _clear_stale(path)
    socket = _bounded(context, zmq.ROUTER)
    socket.setsockopt(zmq.RCVHWM, CONTROL_QUEUE_MAX)
    socket.setsockopt(zmq.SNDHWM, QUERY_QUEUE_MAX)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    umask = os.umask(0o117)
    try:
        _or_closed(socket, lambda: _or_explained(endpoint, lambda: socket.bind(endpoint)))
    finally:
        os.umask(umask)
    return _or_closed(socket, lambda: _give(path, gid, group))


# ---- what they share ---------------------------------------------------------------------------------------


def _bounded(context: Context, kind: int) -> Socket:
    """A socket that neither waits at close nor takes a frame that is too large."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_SIZE_MAX)
    return socket


def _networked(context: Context, kind: int) -> Socket:
    """The same for TCP: a lost host is noticed after 15 s without any traffic, else its connection stays for good."""
    socket = _bounded(context, kind)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 10)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 5)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    # A socket with something unsent to a lost host never notices by keepalive: the kernel is busy retransmitting.
    socket.setsockopt(zmq.TCP_MAXRT, TCP_MAXRT_MS)
    return socket


def _calling(context: Context, kind: int, caller: Caller) -> Socket:
    socket = _networked(context, kind)
    # No queue for a peer that is not connected: what would wait there is stale when it comes back.
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, CALLER_HANDSHAKE_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, caller.reconnect_ms)
    # Anything else here turns libzmq's jitter off, and a rack would come back in step.
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 0)
    if caller.keys is None:
        socket.setsockopt(zmq.PLAIN_USERNAME, caller.name.encode())
        socket.setsockopt(zmq.PLAIN_PASSWORD, b"none")
    else:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, caller.keys.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, caller.keys.secret.encode())
    return socket


def _called(context: Context, kind: int, host: Host) -> Socket:
    socket = _networked(context, kind)
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
    socket.setsockopt(zmq.TCP_MAXRT, CALLED_MAXRT_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, max(HANDSHAKE_MIN_MS, HANDSHAKE_PER_PEER_MS * host.peers_expected))
    # Without a doorkeeper CURVE admits every key; enforcing the domain turns that into nobody.
    socket.setsockopt(zmq.ZAP_DOMAIN, host.domain.encode())
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    if host.keys is None:
        socket.setsockopt(zmq.PLAIN_SERVER, 1)
    else:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, host.keys.secret.encode())
    return socket


def _connected(socket: Socket, caller: Caller, targets: Sequence[Target]) -> Socket:
    def connect_all() -> None:
        for target in targets:
            connect(socket, caller, target)

    return _or_closed(socket, connect_all)


def _bound(socket: Socket, host: Host, endpoint: str) -> Socket:
    def bind() -> None:
        if host.keys is None:
            _require_local(endpoint)
        else:
            _require_tcp_or_ipc(endpoint)
        socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        _or_explained(endpoint, lambda: socket.bind(endpoint))

    return _or_closed(socket, bind)


def _or_closed(socket: Socket, action: Callable[[], object]) -> Socket:
    """The socket after the action; closed when the action fails."""
    try:
        action()
    except BaseException:
        socket.close()
        raise
    return socket


def _or_explained(endpoint: str, action: Callable[[], object]) -> None:
    try:
        action()
    except zmq.ZMQError as error:
        raise EndpointError(f"{endpoint}: {zmq.strerror(error.errno or 0)}") from error


def _require_local(endpoint: str) -> None:
    if not is_local(endpoint):
        raise EndpointError(
            f"{endpoint}: plain text is allowed only on loopback, written as a number (tcp://127.0.0.1:PORT), "
            "and on ipc; set a key for anything else"
        )


def _require_tcp_or_ipc(endpoint: str) -> None:
    if not endpoint.startswith(("tcp://", "ipc://")):
        raise EndpointError(f"{endpoint}: should start with tcp:// or ipc://")


def _ipc_path(endpoint: str) -> Path:
    path = endpoint[len("ipc://") :]
    if not endpoint.startswith("ipc:///"):
        # An abstract name (ipc://@name) has no owner and no mode, so any user could take it or ask there.
        raise EndpointError(
            f"{endpoint}: should be ipc:// and an absolute path, as in ipc:///run/hbagent-root/root.sock"
        )
    if len(os.fsencode(path)) > _IPC_PATH_MAX:
        raise EndpointError(f"{endpoint}: the path of a unix socket may have {_IPC_PATH_MAX} bytes at most")
    return Path(path)


def _gid(group: str) -> int:
    import grp  # only where a group is named

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise EndpointError(f"there is no group {group!r} on this host; make it, or name another one") from None


def _give(path: Path, gid: int, group: str) -> None:
    """Give a file to a group; -1 leaves it as it is."""
    if gid < 0:
        # A sandbox may deny the call even where nothing is to be done.
        return
    try:
        os.chown(path, -1, gid)
    except OSError as error:
        remedy = "the daemon's user must be a member of it"
        raise EndpointError(f"{path}: cannot be given to the group {group}: {error.strerror}; {remedy}") from error


def _clear_stale(path: Path) -> None:
    """Remove a socket file that nobody listens on any more; libzmq would remove *anything* in its way."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise EndpointError(f"{path}: exists and is not a socket")
    with bsd.socket(bsd.AF_UNIX, bsd.SOCK_STREAM | bsd.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise EndpointError(f"{path}: something listens there already; is another one running?")
