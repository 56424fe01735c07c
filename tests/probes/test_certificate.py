"""The end of certificates that openssl made, and of bytes that are none."""

from __future__ import annotations

import ssl
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.probes.certificate import ends

from .serving import make_certificate


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("days", [1, 90, 20_000])
def test_the_end_is_what_openssl_says(tmp_path: Path, days: int) -> None:
    # 20,000 days are beyond 2049: the other notation of a time.
    path, _ = make_certificate(tmp_path, days)
    der = ssl.PEM_cert_to_DER_cert(path.read_text())
    told = subprocess.run(
        ["openssl", "x509", "-in", str(path), "-noout", "-enddate"], capture_output=True, text=True, check=True
    )
    assert ends(der) == ssl.cert_time_to_seconds(told.stdout.strip().partition("=")[2])
    assert ends(der) == pytest.approx(time.time() + days * 86400, abs=120)


@pytest.mark.needs("openssl")
def test_a_certificate_that_is_cut_or_damaged_is_a_value_error_or_some_time(tmp_path: Path) -> None:
    path, _ = make_certificate(tmp_path)
    der = ssl.PEM_cert_to_DER_cert(path.read_text())
    for end in range(0, 200, 3):
        with pytest.raises(ValueError):
            ends(der[:end])
    for place in range(200):
        with suppress(ValueError):
            ends(der[:place] + bytes([der[place] ^ 0xFF]) + der[place + 1 :])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        ends(data)
