"""What a probe looks at: one Struct for each kind of check, with what it needs to know.

Plain values from the local config file; `probes` has the code that looks, one file for each kind. None of them waits
longer than the time limit of its probe, which is not theirs to know.
"""

from __future__ import annotations

from typing import Union

import msgspec

from .units import MINUTE, SECOND


class ExecCheck(msgspec.Struct, frozen=True, kw_only=True, tag="exec"):
    """A program under the Nagios plugin contract: exit status, first line, performance data."""

    argv: tuple[str, ...]
    #: Added to a clean environment.
    env: dict[str, str] = {}


class HttpCheck(msgspec.Struct, frozen=True, kw_only=True, tag="http"):
    """An HTTP request."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = {}
    #: Status codes that are good; empty: 200 to 399.
    status: tuple[int, ...] = ()
    #: Text that the first 64 KiB of the body must hold; "" for any.
    expect: str = ""
    #: Check the certificate and the host name.
    verify: bool = True
    #: File of certificates to trust instead of the system's.
    ca: str = ""
    #: Days before the certificate's end from which on this is a WARNING; 0: not looked at.
    certificate_days: int = 0


class TcpCheck(msgspec.Struct, frozen=True, kw_only=True, tag="tcp"):
    """A TCP connection; what to send, and what to expect."""

    host: str
    port: int
    send: str = ""
    #: Text that the answer must hold; "": being connected is enough.
    expect: str = ""


class UnixCheck(msgspec.Struct, frozen=True, kw_only=True, tag="unix"):
    """A connection to a unix stream socket."""

    path: str
    send: str = ""
    expect: str = ""


class ProcessCheck(msgspec.Struct, frozen=True, kw_only=True, tag="process"):
    """Processes that must be there; found by exactly one of name, pidfile, cmdline and unit."""

    #: Exact name of the program.
    process: str = ""
    pidfile: str = ""
    #: Regular expression for the whole command line.
    cmdline: str = ""
    unit: str = ""
    #: How many there must be.
    least: int = 1
    most: int = 0


class UnitCheck(msgspec.Struct, frozen=True, kw_only=True, tag="unit"):
    """A systemd unit that must be active."""

    unit: str


class FileCheck(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """A file that must exist and be fresh."""

    path: str
    #: Age of its content (modification time) from which on it is WARNING, CRITICAL; 0: any age.
    warning_age_ns: int = 0
    critical_age_ns: int = 0
    size_min: int = 0
    #: The file must *not* exist.
    absent: bool = False


class LogCheck(msgspec.Struct, frozen=True, kw_only=True, tag="log"):
    """A log that must not fall silent, or must not hold certain lines."""

    path: str
    #: CRITICAL when no (matching) line came for this long; 0: silence is good.
    silence_ns: int = 0
    #: Regular expression; with `silence_ns` only such lines count.
    match: str = ""
    #: Regular expressions of lines that make it WARNING or CRITICAL for `hold_ns`.
    warning: str = ""
    critical: str = ""
    hold_ns: int = 5 * MINUTE


class HostCheck(msgspec.Struct, frozen=True, kw_only=True, tag="host"):
    """The host itself: `what` is a key of `probes.host.MEASURES`."""

    what: str
    #: From which value on; None: the default of `what`.
    warning: float | None = None
    critical: float | None = None
    #: disk, inodes, readonly: only these mounts; empty: all real ones.
    mounts: tuple[str, ...] = ()


class NeighboursCheck(msgspec.Struct, frozen=True, kw_only=True, tag="neighbours"):
    """Services on other hosts that programs of this host use, as the kernel of this host sees them."""

    #: A connection on which nothing was acknowledged for this long counts.
    window_ns: int = 10 * SECOND
    #: So many of them make a service silent.
    least: int = 1
    #: Only these services, as "10.0.0.5:5432" or "[fd00::5]:5432"; empty: all.
    only: tuple[str, ...] = ()


Check = Union[
    ExecCheck,
    HttpCheck,
    TcpCheck,
    UnixCheck,
    ProcessCheck,
    UnitCheck,
    FileCheck,
    LogCheck,
    HostCheck,
    NeighboursCheck,
]
