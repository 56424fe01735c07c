"""Asking a root or a leader: one question on its unix socket or operators' port, one answer as plain dicts and lists.

The answer stays undecoded JSON values on purpose. A console may be older or newer than the daemon it asks; it shows
what it knows and passes the rest on, so nothing here insists on a schema (see `answers`).

Whom to ask is a config file of a root or a leader, which names the socket, or the socket itself; from another host it
is the root's operators' port, with a key (`remote`), or the operator's own file, which says both. A leader answers the
same questions for its own racks, so every command goes on working beside a root that is gone.
"""

from __future__ import annotations

import argparse
import errno
import grp
import os
import socket as bsd
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import zmq

from hbagent.cli import EXIT_USAGE
from hbagent.core.messages import AnswerPage, Order, Query
from hbagent.core.units import MILLISECOND, MINUTE, SECOND, parse_duration, seconds, show_duration
from hbagent.role.settings import AgentSettings, ConfigError, LeaderSettings, OperatorSettings, load_any, values
from hbagent.role.settings.document import parse, read_text
from hbagent.transport.sockets import EndpointError, query_dealer
from hbagent.wire import codec, rules
from hbagent.wire.pages import AnswerAssembly

from .answers import Row, of_racks
from .grid import Screen, clean
from .remote import KeyProblem, Line, server_key, unreachable

#: Nobody answered, so nothing is known: the exit code of UNKNOWN.
EXIT_UNREACHABLE = 3
#: Tried in this order when nothing else names a config file: a host with a root is asked for everything.
DEFAULT_CONFIGS = (Path("/etc/hbagent/root.toml"), Path("/etc/hbagent/leader.toml"))
CONFIG_VARIABLE = "HBAGENT_CONFIG"
#: An operator's own file, below the directory for such files. What somebody wrote for themselves comes before those.
OWN_CONFIG = Path("hbagent", "operator.toml")
#: A daemon answers from memory within milliseconds; two seconds also cover one that is starved of CPU.
TIMEOUT_DEFAULT = "2s"
#: The whole of an answer, however steadily its pages drip in: 64 MiB over a unix socket take under a second.
ANSWER_TIME_MAX_NS = 30 * SECOND
#: What `why_closed` says of a daemon that does not run.
NO_SOCKET, NOT_LISTENING = "there is no such socket", "nobody listens there"


class NoTarget(Exception):
    """Nothing says whom to ask, or what says it is wrong; the text is one line for people."""


class Unanswered(Exception):
    """No answer that could be read; the text says who was asked, what happened and what to try, `why` only what."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text)
        self.why = why


class Denied(Exception):
    """The daemon answered that it cannot answer this; the text is its reason."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to ask."""

    #: ipc://... of the query socket, or tcp://... of the operators' port.
    endpoint: str
    #: root | leader; "" when only the socket was named.
    role: str = ""
    #: The file that named the socket.
    config: Path | None = None
    #: Of the operators' port: the root's public key, and the file of the own secret one.
    server_key: str = ""
    key: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that asks: --config, --socket, --connect and its keys, --timeout."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help=f"root.toml or leader.toml of the daemon to ask, or an operator.toml (else ${CONFIG_VARIABLE}, else "
        f"~/.config/{OWN_CONFIG} or {' or '.join(map(str, DEFAULT_CONFIGS))})",
    )
    where.add_argument("--socket", metavar="ipc://PATH", help="the query socket itself")
    where.add_argument("--connect", metavar="tcp://HOST:PORT", help="the operators' port of a root on another host")
    parser.add_argument("--server-key", metavar="KEY", help="with --connect: the root's public key, or its .pub file")
    parser.add_argument("--key", metavar="FILE", type=Path, help="with --connect: the own secret key")
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=timeout_ns,
        default=timeout_ns(TIMEOUT_DEFAULT),
        help=f"how long to wait for an answer (default {TIMEOUT_DEFAULT})",
    )


def timeout_ns(text: str) -> int:
    """A waiting time as nanoseconds: "500ms", "2s", or a bare number of seconds; from 10 ms to 5 minutes."""
    try:
        value = parse_duration(text) if not _is_number(text) else seconds(float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not 10 * MILLISECOND <= value <= 5 * MINUTE:
        raise argparse.ArgumentTypeError(f"{text!r} must be from 10ms to 5m")
    return value


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal() and text.isascii()


def answered(args: argparse.Namespace, act: Callable[[Asker], int]) -> int:
    """Run `act` with someone to ask; returns its exit code, or that of what went wrong, said on standard error."""
    try:
        with Asker(target_of(args), args.timeout) as asker:
            return act(asker)
    except (NoTarget, Denied) as error:
        say(str(error))
        return EXIT_USAGE
    except Unanswered as error:
        say(str(error))
        return EXIT_UNREACHABLE


def say(text: str) -> None:
    """One line on standard error; what came from elsewhere is in it, so it is cleaned as an ASCII screen needs it."""
    print(f"hbagent: {clean(text, Screen(unicode=False))}", file=sys.stderr)


def target_of(args: argparse.Namespace) -> Target:
    """Whom to ask, by the options of `add_arguments`. Raises NoTarget, ConfigError."""
    if args.connect is None:
        for option, value in (("--server-key", args.server_key), ("--key", args.key)):
            if value is not None:
                raise NoTarget(f"{option} is for --connect tcp://HOST:PORT, or for an operator's file (--config)")
        return find_target(args.config, args.socket, os.environ)
    if args.server_key is None or args.key is None:
        raise NoTarget("--connect needs --server-key (the root's public key) and --key (the file of your own)")
    try:
        endpoint = values.tcp_connect_address(args.connect)
    except ValueError as error:
        raise NoTarget(f"--connect {args.connect!r}: {error}") from error
    return Target(endpoint=endpoint, role="root", server_key=args.server_key, key=args.key)


def find_target(config: Path | None, endpoint: str | None, environment: Mapping[str, str]) -> Target:
    """Whom to ask, by option, environment or default place.

    Raises NoTarget, and ConfigError when the config file says nothing usable about its socket.
    """
    if endpoint is not None:
        try:
            return Target(endpoint=values.query_address(endpoint))
        except ValueError as error:
            raise NoTarget(f"--socket {endpoint!r}: {error}") from error
    if config is None and environment.get(CONFIG_VARIABLE):
        config = Path(environment[CONFIG_VARIABLE])
    if config is None:
        config = next((path for path in (*_own_configs(environment), *DEFAULT_CONFIGS) if os.path.lexists(path)), None)
        # A file in a directory that is closed is not even seen.
        place, right = (DEFAULT_CONFIGS[0].parent, os.X_OK) if config is None else (config, os.R_OK)
        if place.exists() and not os.access(place, right, effective_ids=True):
            who = audience(str(place))
            text = f"whom to ask? {place} is open to {who} alone: become a member, or use --connect with a key"
            raise NoTarget(text)
    if config is None:
        places = " nor ".join(map(str, DEFAULT_CONFIGS))
        raise NoTarget(f"whom to ask? There is neither {places}; name the root's or leader's file with --config FILE")
    return _from_config(config)


def _own_configs(environment: Mapping[str, str]) -> list[Path]:
    """Where the operator's own file would be."""
    home = environment.get("HOME", "")
    base = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    return [Path(base, OWN_CONFIG)] if os.path.isabs(base) else []


def _from_config(path: Path) -> Target:
    try:
        settings = load_any(path)
    except ConfigError as error:
        # A mistake elsewhere in the file must not blind whoever wants to see what still runs.
        target = _from_broken_config(path)
        if target is None:
            raise
        count = len(error.problems)
        say(f"{path} has {count} problem(s); try: hbagent check-config {path}")
        return target
    if isinstance(settings, AgentSettings):
        raise NoTarget(f"{path} is an agent's; only a root or a leader can be asked, so name its file with --config")
    if isinstance(settings, OperatorSettings):
        return of_operator(settings, path)
    role = "leader" if isinstance(settings, LeaderSettings) else "root"
    return Target(endpoint=settings.query, role=role, config=path)


def of_operator(settings: OperatorSettings, path: Path) -> Target:
    """The root that an operator's own file names."""
    return Target(endpoint=settings.connect, role="root", config=path, server_key=settings.server_key, key=settings.key)


def _from_broken_config(path: Path) -> Target | None:
    """The socket written in a file that has problems; None when that much cannot be read either."""
    try:
        content = parse(path, read_text(path))
    except ConfigError:
        return None
    for role in ("leader", "root"):
        table = content.get(role)
        address = table.get("query") if isinstance(table, dict) else None
        try:
            path_of_socket = values.query_address(address).removeprefix("ipc://")
        except ValueError:
            continue
        whole = os.path.join(os.path.dirname(os.path.abspath(path)), path_of_socket)
        return Target(endpoint=f"ipc://{whole}", role=role, config=path)
    return None


class Asker:
    """One connection to one daemon. Ask, read, ask again; close it, or use it in a `with`."""

    def __init__(self, target: Target, timeout: int) -> None:
        self.target = target
        self._timeout_ns = timeout
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._line: Line | None = None
        try:
            if target.key is not None:
                self._line = Line(self._context, target.endpoint, server_key(target.server_key), target.key)
                self._socket = self._line.socket
            else:
                self._socket = query_dealer(self._context, target.endpoint)
        except (EndpointError, KeyProblem) as error:
            self._context.term()
            raise NoTarget(str(error)) from error
        self._asked = 0
        self._met = False

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection up; an answer that is still on its way is lost."""
        if self._line is not None:
            self._line.close()
        self._socket.close()
        self._context.term()

    def ask(self, what: str, *, node: str = "", limit: int = 100, after: int = 0, **more: Any) -> Any:
        """The answer to one query of `core.messages.Query`, as plain JSON values.

        Raises Unanswered when none came in time or it made no sense, Denied when the daemon refused.
        """
        return self._exchanged(lambda id: Query(id=id, what=what, node=node, limit=limit, after=after, **more))

    def order(self, what: str, **fields: Any) -> Any:
        """The answer to one order of `core.messages.Order`, as plain JSON values. Raises as `ask`, and Denied for what
        nobody would read.

        One that was not answered may have been carried out: whoever orders again should look first.
        """
        fault = rules.broken(Order(id=0, what=what, **fields))
        if fault:
            raise Denied(f"no such order: {fault}")
        return self._exchanged(lambda id: Order(id=id, what=what, **fields))

    def _exchanged(self, message_of: Callable[[int], Query | Order]) -> Any:
        if not self._met or self._line is not None:
            self._meet()
        self._asked += 1
        self._met = False
        message = message_of(self._asked)
        try:
            self._socket.send(codec.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            raise self.unanswered("it takes no more questions") from None
        document = self._document(AnswerAssembly(message.id))
        self._met = True
        return document

    def _meet(self) -> None:
        """Raises Unanswered when nobody is there; libzmq would wait in silence."""
        if self._line is None:
            obstacle = why_closed(self.target.endpoint)
            if obstacle:
                raise self.unanswered(obstacle)
            return
        self._line.begin()
        give_up_at = time.monotonic_ns() + self._timeout_ns
        while not self._ready(self._line, zmq.POLLOUT, give_up_at):
            if time.monotonic_ns() >= give_up_at:
                raise self.unanswered(unreachable(self.target.endpoint) or f"no handshake within {self._patience}")

    def _ready(self, line: Line, flag: int, until: int) -> bool:
        """Wait for something to happen, not longer than `until`. Raises Unanswered when waiting is useless."""
        ready, trouble = line.wait(flag, max(0, -(-(until - time.monotonic_ns()) // MILLISECOND)))
        if not ready and trouble:
            raise self.unanswered(trouble)
        return ready

    @property
    def _patience(self) -> str:
        return _plain(self._timeout_ns)

    def _document(self, assembly: AnswerAssembly) -> Any:
        give_up_at = time.monotonic_ns() + ANSWER_TIME_MAX_NS
        while True:
            page = self._page(give_up_at)
            if page.id != assembly.id:
                continue  # the late answer to a question that was given up
            try:
                document = assembly.add(page)
                if document is None:
                    continue
                if assembly.error:
                    raise Denied(assembly.error)
                return msgspec.json.decode(document)
            except (ValueError, RecursionError) as error:
                raise self.unanswered(f"its answer cannot be read ({error})") from error

    def _page(self, give_up_at: int) -> AnswerPage:
        now = time.monotonic_ns()
        wait_until = min(now + self._timeout_ns, give_up_at)
        while now < wait_until:
            if self._readable(wait_until):
                message = codec.decode(self._socket.recv_multipart(zmq.NOBLOCK)[-1])
                if isinstance(message, AnswerPage):
                    return message
            now = time.monotonic_ns()
        raise self.unanswered(f"nobody answers within {self._patience}")

    def _readable(self, until: int) -> bool:
        if self._line is not None:
            return self._ready(self._line, zmq.POLLIN, until)
        return bool(self._socket.poll(max(0, -(-(until - time.monotonic_ns()) // MILLISECOND))))

    def unanswered(self, why: str) -> Unanswered:
        """The error that says who was asked, why that came to nothing, and what to try."""
        role, config = self.target.role, self.target.config
        running = f"hbagent {role}" if role else "its hbagent root or leader"
        doctor = f"hbagent doctor --config {config}" if config else "hbagent doctor"
        who = f"{role} at {self.target.endpoint}" if role else self.target.endpoint
        if self._line is not None:
            try_this = f"; try: {doctor}" if config else ""
            return Unanswered(f"cannot reach {who}: {why}{try_this}", why)
        return Unanswered(f"cannot reach {who}: {why}; is {running} running there? try: {doctor}", why)


def status(asker: Asker, racks: Sequence[str] = (), brief: bool = False) -> Row:
    """The answer to "status", narrowed to some racks. Raises as `Asker.ask`, Denied for a rack that is not there.

    `brief`: without the nodes of which there is nothing to tell but that they are well; `answers.known` counts them.
    """
    try:
        return of_racks(as_row(asker, asker.ask("status", brief=brief)), racks)
    except ValueError as error:
        raise Denied(str(error)) from error


def as_row(asker: Asker, document: Any) -> Row:
    """An answer that must be an object. Raises Unanswered when it is not."""
    if not isinstance(document, dict):
        raise asker.unanswered("its answer is not an object")
    return document


def why_closed(endpoint: str) -> str:
    """Why nobody can answer at a query socket; "" when somebody listens there."""
    path = endpoint.removeprefix("ipc://")
    with bsd.socket(bsd.AF_UNIX, bsd.SOCK_STREAM | bsd.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return NO_SOCKET
        except PermissionError:
            return f"permission denied; it is open to {audience(path)}"
        except BlockingIOError:
            return ""  # its queue of callers is full: somebody is there, and busy
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                return NOT_LISTENING
            return error.strerror or str(error)
    return ""


def audience(path: str) -> str:
    """Who may use a socket file of mode 0660, in words."""
    try:
        gid = os.stat(path).st_gid
    except OSError:
        return "its owner and group"
    try:
        return f"its owner and the group {grp.getgrgid(gid).gr_name}"
    except KeyError:
        return f"its owner and the group {gid}"


def _plain(value_ns: int) -> str:
    return f"{value_ns // SECOND} s" if value_ns % SECOND == 0 else show_duration(value_ns)
