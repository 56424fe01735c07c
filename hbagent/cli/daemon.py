"""Starting a daemon: what goes wrong before its loop runs becomes one clear line and an exit code."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

from . import EXIT_DEFECT, EXIT_UNAVAILABLE, EXIT_USAGE


def run_daemon(role: str, config: Path) -> int:
    """Run `role` with the config file until it ends; returns the exit code. Raises ConfigError for a bad file."""
    if role == "agent":
        from hbagent.role.light import lighten

        lighten()
    allow_descriptors()
    from hbagent.role.defects import Hopeless
    from hbagent.transport.allow import AllowError
    from hbagent.transport.keys import KeyFileError
    from hbagent.transport.sockets import EndpointError, require_libzmq

    try:
        require_libzmq()
        _make(role, config).run()
    except (AllowError, KeyFileError) as error:
        return _fail(error, EXIT_USAGE)
    except Hopeless:
        # The log has said why. Whoever started this process should start it again.
        return EXIT_DEFECT
    except (EndpointError, RuntimeError, OSError) as error:
        return _fail(error, EXIT_UNAVAILABLE)
    return 0


def allow_descriptors() -> None:
    """Use all the descriptors that the system allows: a leader needs three for each agent, and shells give 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # What cannot be raised stays as it was; `hbagent doctor` tells when that is too few.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _make(role: str, config: Path):  # type: ignore[no-untyped-def]
    """The process object of a role; only its own modules are loaded."""
    if role == "agent":
        from hbagent.role.agent import Agent

        return Agent(config)
    if role == "leader":
        from hbagent.role.leader import Leader

        return Leader(config)
    from hbagent.role.root import Root

    return Root(config)


def _fail(error: BaseException, code: int) -> int:
    for line in str(error).splitlines() or [repr(error)]:
        print(f"hbagent: {line}", file=sys.stderr)
    return code
