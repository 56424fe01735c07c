"""Servers on loopback that do exactly what a test tells them."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Handler = Callable[[socket.socket], None]


def nothing(link: socket.socket) -> None:
    """Take the connection, and say nothing until the other side has gone."""
    link.settimeout(20)
    with suppress(OSError):
        while link.recv(4096):
            pass


def saying(answer: bytes, then: Handler = lambda link: None) -> Handler:
    """Read once, answer, and go on with `then`."""

    def handle(link: socket.socket) -> None:
        link.recv(4096)
        link.sendall(answer)
        then(link)

    return handle


def http(body: bytes = b"", status: str = "200 OK", *headers: str) -> Handler:
    """Answer a request."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return saying("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


@contextmanager
def server(handle: Handler, family: int = socket.AF_INET, address: object = ("127.0.0.1", 0)) -> Iterator[int]:
    """Serve connections one after another; its port."""
    with socket.socket(socket.AddressFamily(family), socket.SOCK_STREAM) as listener:
        listener.bind(address)  # type: ignore[arg-type]
        listener.listen(8)

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                with link, suppress(OSError):
                    handle(link)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1] if family != socket.AF_UNIX else 0
        finally:
            # accept() does not notice close().
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)


def securely(handle: Handler, certificate: Path, key: Path) -> Handler:
    """The same over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def secured(link: socket.socket) -> None:
        with context.wrap_socket(link, server_side=True) as wrapped:
            handle(wrapped)

    return secured


def make_certificate(directory: Path, days: int = 30, name: str = "localhost") -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    certificate, key = directory / f"{name}{days}.pem", directory / f"{name}{days}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", str(days), "-subj", f"/CN={name}"]
    command += ["-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
