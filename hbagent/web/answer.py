"""An HTTP answer, and the headers that make a browser safe to point at it. Pure.

Nothing here is inline, so the policy allows scripts and styles of this server only: text of a node that should ever
get past the escaping stays text. No cookie is set or read, no origin is trusted, nothing may frame a page.
"""

from __future__ import annotations

import msgspec

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        # Text that becomes a document inside the page is refused by the browser, whoever wrote it.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_ALWAYS = "".join(
    f"{name}: {value}\r\n"
    for name, value in (
        ("Content-Security-Policy", POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    )
)
_REASONS = {
    200: "OK",
    304: "Not Modified",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    414: "URI Too Long",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
HTML, TEXT, JSON = "text/html; charset=utf-8", "text/plain; charset=utf-8", "application/json"
STREAM = "text/event-stream"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer with its whole body."""

    status: int = 200
    kind: str = TEXT
    body: bytes = b""
    #: More header lines.
    headers: tuple[tuple[str, str], ...] = ()
    #: no-store, or how a browser may keep it.
    cache: str = "no-store"


def head(answer: Answer, *, keep_alive: bool, length: int | None) -> bytes:
    """The status line and the headers of `answer`; `length` is None for a stream, which ends with its connection."""
    lines = [f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n", _ALWAYS]
    lines.append(f"Content-Type: {answer.kind}\r\nCache-Control: {answer.cache}\r\n")
    if length is not None:
        lines.append(f"Content-Length: {length}\r\n")
    if answer.status == 405:
        lines.append("Allow: GET, HEAD\r\n")
    lines += [f"{name}: {value}\r\n" for name, value in answer.headers]
    lines.append(f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n")
    return "".join(lines).encode("latin-1")


def sentence(status: int, text: str) -> Answer:
    """A short answer for people and programs alike."""
    return Answer(status=status, body=f"{text}\n".encode())
