"""The head of an HTTP/1.1 request: bytes in, a `Request` or a refusal out. Pure.

Strict on purpose. Who reads a request otherwise than the proxy before it can be made to answer the wrong one, so
whatever has two readings (bare line feeds, folded lines, a body, two hosts) is refused and the connection closed.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

#: A whole head, and its first line alone: nginx, Apache and h11 take 8 to 32 KiB; a browser's is below 1 KiB, and the
#: longest name of a node, percent-encoded, below 600 bytes.
HEAD_SIZE_MAX = 16 * 1024
LINE_SIZE_MAX = 8 * 1024
#: Lines of a head; a browser behind two proxies sends some thirty.
HEADERS_MAX = 100
#: Parameters after the "?"; the API knows four.
PARAMETERS_MAX = 10
END = b"\r\n\r\n"
METHODS = ("GET", "HEAD")

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([!-~]+) HTTP/1\.([01])")
#: The whole value of the header Host: a name or an address, in brackets or not, and perhaps a port.
_HOST = re.compile(r"(?:([0-9A-Za-z._-]+)|\[([0-9A-Fa-f:.]+)\])(?::[0-9]{0,5})?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([!-~\x80-\xff \t]*?)[ \t]*")


class Refused(Exception):
    """This request is not answered; the connection ends after `status` and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request without a body."""

    method: str
    #: Decoded; begins with "/", and has no control characters. It is compared, never opened.
    path: str
    parameters: dict[str, str] = {}
    #: By name in lower case; of several lines of one name the last.
    headers: dict[str, str] = {}
    #: False: the connection ends after the answer.
    keep_alive: bool = True

    @property
    def host(self) -> str:
        """The name in the Host header, lower case, without its port and brackets; "" when there is none."""
        return host_of(self.headers.get("host", ""))


def read_head(head: bytes) -> Request:
    """The request in `head`, which ends before the blank line. Raises Refused."""
    first, *lines = head.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise Refused(400, "this is no HTTP/1.1 request")
    method, target, minor = match[1].decode(), match[2].decode(), match[3]
    if len(first) > LINE_SIZE_MAX:
        raise Refused(414, f"an address has at most {LINE_SIZE_MAX} bytes")
    if method not in METHODS:
        raise Refused(405, "everything here is only read: GET and HEAD")
    headers = _headers(lines)
    if minor == b"1" and not headers.get("host"):
        raise Refused(400, "the header Host is missing")
    if headers.get("host") and not host_of(headers["host"]):
        raise Refused(400, "the header Host names no host")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise Refused(400, "a request here has no body")
    said = {word.strip() for word in headers.get("connection", "").lower().split(",")}
    path, parameters = _target(target)
    return Request(
        method=method,
        path=path,
        parameters=parameters,
        headers=headers,
        keep_alive="close" not in said and (minor == b"1" or "keep-alive" in said),
    )


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > HEADERS_MAX:
        raise Refused(431, f"at most {HEADERS_MAX} headers")
    found: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise Refused(400, "a header that is none")
        name = match[1].decode().lower()
        if name in found and name in ("host", "content-length", "transfer-encoding"):
            raise Refused(400, f"the header {name} stands there twice")
        found[name] = match[2].decode("latin-1")
    return found


def _target(target: str) -> tuple[str, dict[str, str]]:
    path, _, query = target.partition("?")
    try:
        decoded = unquote_to_bytes(path).decode()
        parameters = dict(
            parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX) if query else ()
        )
    except ValueError as error:
        raise Refused(400, "the address is not UTF-8, or has too many parameters") from error
    if not decoded.startswith("/") or not decoded.isprintable():
        raise Refused(400, "the address must begin with / and have no control characters")
    return decoded, parameters


def host_of(value: str) -> str:
    """The name or address in a Host header, lower case, without port and brackets; "" when it is none."""
    match = _HOST.fullmatch(value)
    return "" if match is None else (match[1] or match[2]).lower()
