"""What `hbagent doctor` looks at for operators: the root's port for them, and an operator's own way there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hbagent.core.units import SECOND
from hbagent.role.settings import OperatorSettings, RootSettings
from hbagent.transport import allow, keys

from .checks import CONNECT_S, FAIL, OK, WARN, Finding, is_absent, unreachable
from .query import Asker, Denied, NoTarget, Unanswered, of_operator


def port_findings(settings: RootSettings) -> Iterator[Finding]:
    """The operators' port of this host's root: whether it listens, and who may come."""
    if not settings.operators_port:
        yield Finding(OK, "operators", f"no port: they ask on this host alone, at {settings.query}")
        return
    reason, absent = unreachable(settings.operators_port), is_absent(settings.query)
    if reason and not absent:
        text = f"{settings.operators_port}: {reason}, although the root runs: was the port changed without a restart?"
        yield Finding(FAIL, "operators", text)
    elif absent and not reason:
        text = f"{settings.operators_port}: another process listens there: end it, or choose another port"
        yield Finding(FAIL, "operators", text)
    else:
        yield Finding(OK, "operators", f"{settings.operators_port}: {'free' if absent else 'listening'}")
    yield from _who(settings)


def _who(settings: RootSettings) -> Iterator[Finding]:
    """Who may come, with which right; whose key is missing, and whose stands in vain in the allow-list."""
    if not settings.operators:
        text = "nobody may come to the port: add an [[operator]] table for each, with a public_key and a right"
        yield Finding(WARN, "operators", text)
        return
    enrolled = set() if settings.security.plain else _enrolled(settings.security.allow)
    for operator in settings.operators:
        if operator.public_key or operator.name in enrolled or settings.security.plain:
            print_ = f", fingerprint {keys.fingerprint(operator.public_key)}" if operator.public_key else ""
            yield Finding(OK, "operators", f"{operator.name} may {operator.right}{print_}")
        else:
            remedy = "write their public_key, or enrol it with hbagent keys init --allow"
            yield Finding(WARN, "operators", f"{operator.name} has no key, and is refused: {remedy}")
    for name in sorted(enrolled - {operator.name for operator in settings.operators}):
        text = f"{name} is in the allow-list and has no [[operator]] table, so is refused: add one with a right"
        yield Finding(WARN, "operators", text)


def _enrolled(file: Path | None) -> set[str]:
    """Names of operators in the allow-list; that it cannot be read is told elsewhere."""
    try:
        peers = allow.load(file).peers if file is not None else ()
    except (allow.AllowError, OSError):
        return set()
    return {peer.name for peer in peers if peer.role is allow.Role.OPERATOR}


def operator_findings(settings: OperatorSettings, config: Path) -> Iterator[Finding]:
    """An operator's own file: the key can be used, and the root answers to it."""
    try:
        pair = keys.load_secret(settings.key)
    except keys.KeyFileError as error:
        yield Finding(FAIL, "key", f"{error}; make one with: hbagent keys init NAME --dir {settings.key.parent}")
        return
    yield Finding(OK, "key", f"{settings.key} of {pair.name}, fingerprint {keys.fingerprint(pair.public)}")
    try:
        with Asker(of_operator(settings, config), round(CONNECT_S * SECOND)) as asker:
            about = asker.ask("ping")
    except (Unanswered, Denied, NoTarget) as error:
        why = error.why if isinstance(error, Unanswered) else str(error)
        yield Finding(FAIL, "root", f"{settings.connect}: {why}")
        return
    found = about.get("name") if isinstance(about, dict) else None
    yield Finding(OK, "root", f"{settings.connect}: root {found} answers")
