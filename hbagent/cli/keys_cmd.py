"""`hbagent keys init|show|revoke|in-use`: key files, and the allow-list that says whose keys may speak.

A secret goes into a file of mode 0600 and nowhere else: not to the terminal, not into a log.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hbagent.cli import EXIT_USAGE
from hbagent.core.names import is_node, is_rack
from hbagent.transport.allow import AllowError, AllowList, Peer, Role, editing, load, save
from hbagent.transport.keys import (
    KeyFileError,
    PublicKey,
    fingerprint,
    generate,
    is_key,
    load_public,
    load_secret,
    secret_path,
)

from . import keys_in_use

_ROLES = {"agent": Role.AGENT, "leader": Role.LEADER, "operator": Role.OPERATOR}


class _Refused(Exception):
    """What was asked for cannot be done; the text says why and what to do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `keys`."""
    words = parser.add_subparsers(metavar="init|show|revoke|in-use", required=True, dest="word")

    init = words.add_parser("init", allow_abbrev=False, help="make key pairs; those that exist are kept")
    init.add_argument(
        "names", metavar="NAME", nargs="+", help="node (dc/rack/host), leader or root (dc/name), operator (one word)"
    )
    init.add_argument("--dir", metavar="DIR", type=Path, required=True, help="where the key files go")
    init.add_argument("--allow", metavar="FILE", type=Path, help="enrol the public keys in this allow-list too")
    init.add_argument("--role", choices=_ROLES, help="the role to enrol for (default: that which the name has)")

    show = words.add_parser("show", allow_abbrev=False, help="show the public part of key files or an allow-list")
    show.add_argument("files", metavar="FILE", nargs="*", type=Path, help="a .key or .pub file")
    show.add_argument("--allow", metavar="FILE", type=Path, help="an allow-list")

    revoke = words.add_parser("revoke", allow_abbrev=False, help="take keys out of an allow-list")
    revoke.add_argument("name", metavar="NAME", help="whose keys")
    revoke.add_argument("--allow", metavar="FILE", type=Path, required=True, help="the allow-list")
    revoke.add_argument("--key", metavar="KEY", help="only this one: a fingerprint as `keys show` prints, or the key")

    in_use = words.add_parser("in-use", allow_abbrev=False, help="tell who still uses a key that is being changed")
    keys_in_use.add_arguments(in_use)


def run(args: argparse.Namespace) -> int:
    """Do it. Returns 0, or `EXIT_USAGE` with the reason on standard error; of in-use see there."""
    if args.word == "in-use":
        return keys_in_use.run(args)
    try:
        if args.word == "init":
            _init(args.names, args.dir, args.allow, args.role)
        elif args.word == "show":
            _show(args.files, args.allow)
        else:
            _revoke(args.name, args.allow, args.key)
    except AllowError as error:
        for problem in error.problems:
            print(f"hbagent: {problem}", file=sys.stderr)
        return EXIT_USAGE
    except (KeyFileError, _Refused) as error:
        print(f"hbagent: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"hbagent: {error.filename or args.allow}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def _init(names: list[str], directory: Path, allow: Path | None, role: str | None) -> None:
    if role is not None and allow is None:
        raise _Refused("--role says how to enrol, and there is no --allow FILE to enrol in")
    made = []
    for name in names:
        existed = secret_path(name, directory).exists()
        pair = generate(name, directory)
        made.append(PublicKey(name, pair.public))
        print(f"{_line(name, pair.public)}  {secret_path(name, directory)} ({'kept' if existed else 'new'})")
    if allow is not None:
        with editing(allow) as known:
            wanted = _enrol(known, made, role)
            if wanted is not known:
                save(allow, wanted)
    for public in made:
        if _usual_role(public.name) is Role.OPERATOR:
            _say_how_to_admit(public, allow is not None)


def _say_how_to_admit(public: PublicKey, enrolled: bool) -> None:
    """An operator is admitted by the root's config, which says what they may."""
    key = "" if enrolled else f'public_key = "{public.key}"\n'
    table = f'[[operator]]\nname = "{public.name}"\n{key}right = "read"'
    print(f"To let {public.name} in, add this to root.toml and reload the root:\n{table}", file=sys.stderr)


def _enrol(known: AllowList, keys: list[PublicKey], role: str | None) -> AllowList:
    for public in keys:
        try:
            known = known.allow(_ROLES[role] if role else _usual_role(public.name), public.name, public.key)
        except ValueError as error:
            raise _Refused(str(error)) from error
    return known


def _usual_role(name: str) -> Role:
    if is_node(name):
        return Role.AGENT
    return Role.LEADER if is_rack(name) else Role.OPERATOR


def _show(files: list[Path], allow: Path | None) -> None:
    if not files and allow is None:
        raise _Refused("keys show needs a key file, or --allow FILE")
    for file in files:
        public = load_public(file) if file.suffix == ".pub" else load_secret(file)
        print(_line(public.name, public.key if isinstance(public, PublicKey) else public.public))
    if allow is not None:
        for peer in load(allow).peers:
            print(f"{_line(peer.name, peer.user_id)}  {peer.role.value}")


def _revoke(name: str, allow: Path, key: str | None) -> None:
    with editing(allow) as known:
        mine = [peer for peer in known.peers if peer.name == name]
        gone = [peer for peer in mine if key is None or key in (peer.user_id, fingerprint(peer.user_id))]
        if not gone:
            raise _Refused(_nothing_to_revoke(name, allow, key, mine))
        for peer in gone:
            known = known.revoke(name, peer.user_id)
        save(allow, known)
    for peer in gone:
        print(f"{_line(name, peer.user_id)}  revoked")
    print("Daemons that use this list on this host read it within a second; copy it to the others.", file=sys.stderr)


def _nothing_to_revoke(name: str, allow: Path, key: str | None, mine: list[Peer]) -> str:
    if not mine:
        return f"{allow}: has no key of {name}"
    known = ", ".join(fingerprint(peer.user_id) for peer in mine)
    what = "key" if key is not None and is_key(key) else "fingerprint"
    return f"{allow}: {name} has no such {what}; it has {known}"


def _line(name: str, public: str) -> str:
    return f"{name}  {public}  {fingerprint(public)}"
