"""What an echo request and its answer look like, and who can make them: 48 bytes under a key of leader and agent.

A neighbour may carry both without being able to forge either. An answer is never longer than the request, and a
request can never be mistaken for an answer, so two responders cannot be made to talk to each other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

try:
    # hashlib loads OpenSSL: 3.4 MB of an agent's 26.
    from _blake2 import blake2s
except ImportError:
    from hashlib import blake2s

REQUEST_MAGIC = b"HBE?"
ANSWER_MAGIC = b"HBE!"

#: Request: magic, nonce, zeros, MAC. Answer: magic, nonce, incarnation, sequence, MAC. The zeros make them equal in
#: length, so that an answer to a forged source address amplifies nothing.
NONCE_SIZE = 12
MAC_SIZE = 16
_SIGNED_SIZE = 32
FRAME_SIZE = _SIGNED_SIZE + MAC_SIZE
_ZEROS = bytes(16)
_ANSWER = struct.Struct("!4s12sQQ")


def request(key: bytes, nonce: bytes) -> bytes:
    """A request of `FRAME_SIZE` bytes. Raises ValueError when the nonce is not `NONCE_SIZE` bytes."""
    if len(nonce) != NONCE_SIZE:
        raise ValueError(f"a nonce has {NONCE_SIZE} bytes, not {len(nonce)}")
    signed = REQUEST_MAGIC + nonce + _ZEROS
    return signed + _mac(key, signed)


def answer(data: bytes, keys: Sequence[bytes], incarnation: int, sequence: int) -> bytes | None:
    """The answer to a request that was made with one of the keys; None for anything else. As long as the request."""
    if len(data) != FRAME_SIZE or data[:4] != REQUEST_MAGIC or data[16:_SIGNED_SIZE] != _ZEROS:
        return None
    for key in keys:
        if _equal(_mac(key, data[:_SIGNED_SIZE]), data[_SIGNED_SIZE:]):
            signed = _ANSWER.pack(ANSWER_MAGIC, data[4:16], incarnation, sequence)
            return signed + _mac(key, signed)
    return None


def read_answer(data: bytes, key: bytes, nonce: bytes) -> tuple[int, int] | None:
    """Incarnation and sequence of the answer to the request with this nonce; None when it is not one."""
    if len(data) != FRAME_SIZE or data[:4] != ANSWER_MAGIC or data[4:16] != nonce:
        return None
    if not _equal(_mac(key, data[:_SIGNED_SIZE]), data[_SIGNED_SIZE:]):
        return None
    _, _, incarnation, sequence = _ANSWER.unpack(data[:_SIGNED_SIZE])
    return incarnation, sequence


def _mac(key: bytes, data: bytes) -> bytes:
    return blake2s(data, digest_size=MAC_SIZE, key=key).digest()


def _equal(left: bytes, right: bytes) -> bool:
    """Equality in a time that does not depend on where they differ; hmac.compare_digest would load OpenSSL."""
    return int.from_bytes(left, "big") ^ int.from_bytes(right, "big") == 0
