"""When a certificate ends, read from the certificate itself.

Python tells the contents of a certificate only when it has verified it, and a probe that does not verify wants to
know the end all the same. The way there is short (RFC 5280, section 4.1; DER, ITU-T X.690): a sequence in a sequence,
past the version, the serial number, the algorithm and the issuer, to the sequence of two times.
"""

from __future__ import annotations

from datetime import datetime, timezone

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def ends(der: bytes) -> float:
    """The end of its validity, seconds since 1970. Raises ValueError when this is no certificate."""
    certificate, _ = _inside(der, _SEQUENCE)
    fields, _ = _inside(certificate, _SEQUENCE)
    if fields[:1] == bytes([_VERSION]):
        fields = _after(fields)
    for _ in ("serial number", "algorithm", "issuer"):
        fields = _after(fields)
    validity, _ = _inside(fields, _SEQUENCE)
    return _instant(_after(validity))


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, contents, and what follows."""
    if len(data) < 2:
        raise ValueError("the certificate ends in the middle")
    length, begin = data[1], 2
    if length >= 0x80:
        begin += length - 0x80
        if begin > 6:
            raise ValueError("a part of the certificate is too long")
        length = int.from_bytes(data[2:begin], "big")
    if len(data) < begin + length:
        raise ValueError("the certificate ends in the middle")
    return data[0], data[begin : begin + length], data[begin + length :]


def _inside(data: bytes, tag: int) -> tuple[bytes, bytes]:
    found, contents, rest = _element(data)
    if found != tag:
        raise ValueError(f"the certificate has {found:#x} where {tag:#x} should be")
    return contents, rest


def _after(data: bytes) -> bytes:
    return _element(data)[2]


def _instant(data: bytes) -> float:
    tag, contents, _ = _element(data)
    text = contents.decode("ascii")
    if tag == _UTC_TIME:
        # Two digits of a year: 50 to 99 are of the last century (RFC 5280, 4.1.2.5.1).
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"the certificate has {tag:#x} where a time should be")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
