"""Key files: one CURVE key pair to a name, the secret readable by its owner alone.

A name is its key: whoever holds the secret file of `dc1/rack07/host12` can speak as that node, and as no other.
So a secret that others could have read is refused rather than used, and nothing here ever prints one.

Both kinds of file are one comment line and one line of three words::

    # hbagent secret key. Whoever reads this can speak as the node below. Keep it at mode 0600.
    curve-secret dc1/rack07/host12 <40 characters of Z85>

The public half is not kept in the secret file: it is computed, so the two can never disagree.

A daemon whose user exists only while it runs owns no file. Its key is root's, and systemd hands it a copy: the path
`credential:NAME` is that of the copy, which is either the user's own, or root's with leave for that user alone.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import zmq
from zmq.utils import z85

from hbagent.core.names import is_node, is_part, is_rack

#: A Curve25519 key is 32 bytes, which Z85 writes as 40 characters.
KEY_TEXT_LENGTH = 40

#: A key file is about 200 bytes; anything much larger is something else and is not read.
KEY_FILE_SIZE_MAX = 4096

#: What the path of a secret key begins with that systemd hands over (`LoadCredential=` of the unit).
CREDENTIAL = "credential:"
#: Where systemd puts what it hands over, in the environment of the unit (systemd.exec(5)).
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"

_SECRET_HEADER = "# hbagent secret key. Whoever reads this can speak as the name below. Keep it at mode 0600."
_PUBLIC_HEADER = "# hbagent public key. May be shown to anyone."
#: A file's list of who may do what, as acl(5) has it and linux/posix_acl_xattr.h writes it.
_ACL = "system.posix_acl_access"
_ACL_VERSION = 2
_ACL_HEAD = struct.Struct("<I")
#: Tag, rights, whose.
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_OWNER, _ACL_USER, _ACL_MASK = 0x01, 0x02, 0x10
_SECRET_WORD = "curve-secret"
_PUBLIC_WORD = "curve-public"


class KeyFileError(Exception):
    """A key file that cannot be used; the text names the file, the reason and the remedy."""


class PublicKey(msgspec.Struct, frozen=True):
    """A name and its public key in Z85."""

    name: str
    key: str


class KeyPair(msgspec.Struct, frozen=True):
    """A name with both halves of its key in Z85. Its `repr` leaves the secret out, so a log cannot hold it."""

    name: str
    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(name={self.name!r}, public={self.public!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("name", self.name), ("public", self.public)]


def is_key(text: str) -> bool:
    """True when `text` is a 32-byte key in Z85."""
    return raw_key(text) is not None


def raw_key(text: str) -> bytes | None:
    """The 32 bytes of a key in Z85, or None when the text is not one."""
    if len(text) != KEY_TEXT_LENGTH:
        return None
    try:
        return z85.decode(text)
    except (ValueError, KeyError, struct.error):
        return None


def key_text(raw: bytes) -> str:
    """The Z85 text of the 32 bytes of a key."""
    return z85.encode(raw).decode("ascii")


def fingerprint(public: str) -> str:
    """A short name of a public key for logs and people: 16 hexadecimal digits (BLAKE2s, 64 bits).

    Enough to tell keys apart by eye; what is admitted is always decided by the whole key.
    """
    from hashlib import blake2s  # loads OpenSSL, 3 MB of memory that a running agent has no other use for

    return blake2s(public.encode("ascii", "replace"), digest_size=8).hexdigest()


def secret_path(name: str, directory: Path) -> Path:
    """Where the secret key of `name` lies below `directory`."""
    return directory / f"{name.replace('/', '.')}.key"


def public_path(name: str, directory: Path) -> Path:
    """Where the public key of `name` lies below `directory`."""
    return directory / f"{name.replace('/', '.')}.pub"


def generate(name: str, directory: Path) -> KeyPair:
    """The key pair of `name` below `directory`; made and written durably when there is none, else the one there is.

    An existing secret is never overwritten: a new key would lock the name out wherever the old one is enrolled.
    A missing public file is written again. Raises KeyFileError, also when another name owns the file.
    """
    if not _is_name(name):
        raise KeyFileError(
            f"{name!r}: not a name; write dc/rack/host for a node, dc/name for a leader or root, one word "
            "for an operator"
        )
    path = secret_path(name, directory)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.path.lexists(path):
            _, secret = zmq.curve_keypair()
            _write_new(path, f"{_SECRET_HEADER}\n{_SECRET_WORD} {name} {secret.decode()}\n", 0o600)
        pair = load_secret(path)
        if pair.name != name:
            raise KeyFileError(f"{path}: holds the key of {pair.name}, whose file name is the same as that of {name}")
        public = public_path(name, directory)
        if not os.path.lexists(public):
            _write_new(public, f"{_PUBLIC_HEADER}\n{_PUBLIC_WORD} {name} {pair.public}\n", 0o644)
    except OSError as error:
        raise KeyFileError(f"{error.filename or path}: {error.strerror or error}") from error
    if load_public(public).key != pair.public:
        raise KeyFileError(f"{public}: does not belong to {path}; remove it and run this again")
    return pair


def secret_file(path: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """The file of a secret key; that of `credential:NAME` is where systemd has put it. Raises KeyFileError."""
    text = str(path)
    if not text.startswith(CREDENTIAL):
        return path
    name = text[len(CREDENTIAL) :]
    directory = environment.get(CREDENTIALS_VARIABLE, "")
    if not directory:
        raise KeyFileError(
            f"{text}: ${CREDENTIALS_VARIABLE} is not set; systemd sets it for a unit with LoadCredential={name}:FILE, "
            "and by hand it is the directory of the keys"
        )
    return Path(directory, name)


def load_secret(path: Path, of: str = "") -> KeyPair:
    """The key pair of a secret key file, or of `credential:NAME`.

    Raises KeyFileError when the file is missing, malformed, a symbolic link, readable or writable by anybody but its
    owner and this user, or owned by anybody but root and this user; and when it is not the key `of` this name, for who
    has it would be taken for another.
    """
    path = secret_file(path)
    name, secret = _parse(path, _read(path, secret=True), _SECRET_WORD)
    if of and name != of:
        raise KeyFileError(f"{path} is the key of {name}, not of {of}")
    return KeyPair(name=name, public=zmq.curve_public(secret.encode()).decode(), secret=secret)


def load_public(path: Path) -> PublicKey:
    """The name and key of a public key file. Raises KeyFileError when it is missing or malformed."""
    name, key = _parse(path, _read(path, secret=False), _PUBLIC_WORD)
    return PublicKey(name=name, key=key)


def _is_name(name: str) -> bool:
    return is_node(name) or is_rack(name) or is_part(name)


def _read(path: Path, *, secret: bool) -> str:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if secret else 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise KeyFileError(f"{path}: is a symbolic link; write the path of the file itself") from error
        raise KeyFileError(f"{path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path}: is not a regular file")
        if secret:
            _check_private(path, status, descriptor)
        data = os.read(descriptor, KEY_FILE_SIZE_MAX + 1)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > KEY_FILE_SIZE_MAX:
        raise KeyFileError(f"{path}: larger than {KEY_FILE_SIZE_MAX} bytes, so not a key file")
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{path}: not a key file") from error


def _check_private(path: Path, status: os.stat_result, descriptor: int) -> None:
    if status.st_mode & 0o077 and not _is_lent(status, descriptor):
        mode = stat.S_IMODE(status.st_mode)
        raise KeyFileError(
            f"{path}: mode {mode:04o} lets others read or change the secret; chmod 600 it, "
            "and make a new key if others were on this machine"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise KeyFileError(f"{path}: owned by uid {status.st_uid}; chown it to uid {os.geteuid()} or to root")


def _is_lent(status: os.stat_result, descriptor: int) -> bool:
    """Whether root's file may be read by root and this user, and by nobody else: so systemd lends a credential.

    The group's bits of its mode, 0440, are then the most that the list of its entries grants, and no group's.
    """
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o337:
        return False
    try:
        data = os.getxattr(descriptor, _ACL)
    except OSError:
        return False
    if data[: _ACL_HEAD.size] != _ACL_HEAD.pack(_ACL_VERSION) or (len(data) - _ACL_HEAD.size) % _ACL_ENTRY.size:
        return False
    entries = [_ACL_ENTRY.unpack_from(data, at) for at in range(_ACL_HEAD.size, len(data), _ACL_ENTRY.size)]
    granted = {(tag, who if tag == _ACL_USER else None) for tag, rights, who in entries if rights}
    return granted <= {(_ACL_OWNER, None), (_ACL_MASK, None), (_ACL_USER, os.geteuid())}


def _parse(path: Path, text: str, word: str) -> tuple[str, str]:
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("# ")]
    if len(lines) != 1 or len(lines[0]) != 3:
        raise KeyFileError(f'{path}: not a key file; it should hold one line "{word} NAME KEY"')
    found, name, key = lines[0]
    if found != word:
        raise KeyFileError(f'{path}: should start with "{word}"; is this the other half of the pair?')
    if not _is_name(name):
        raise KeyFileError(f"{path}: {name!r} is not a name")
    if not is_key(key):
        raise KeyFileError(f"{path}: the third word is not a key of {KEY_TEXT_LENGTH} Z85 characters")
    return name, key


def _write_new(path: Path, text: str, mode: int) -> None:
    """Write `text` to a file that must not exist yet: whole and on disk, or not there at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(descriptor, mode)
            os.write(descriptor, text.encode("ascii"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.link(draft, path)
    finally:
        os.unlink(draft)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
