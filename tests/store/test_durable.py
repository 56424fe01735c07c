from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hbagent.store.durable import sync_directory, write_all


def test_a_write_that_stops_half_way_is_finished() -> None:
    """A pipe that somebody else empties takes a large write only in pieces."""
    reader, writer = os.pipe()
    os.set_blocking(writer, True)
    data = os.urandom(1_000_000)
    received = bytearray()

    def empty() -> None:
        while piece := os.read(reader, 4096):
            received.extend(piece)

    thread = threading.Thread(target=empty)
    thread.start()
    write_all(writer, data)
    os.close(writer)
    thread.join(30)
    os.close(reader)
    assert bytes(received) == data


def test_a_full_device_is_an_error() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        write_all(fd, b"x")
    os.close(fd)


def test_a_directory_is_synced_and_a_file_is_not_one(tmp_path: Path) -> None:
    sync_directory(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_directory(tmp_path / "file")
