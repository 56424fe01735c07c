"""A commit that is held up after its last row was written and before any of it is committed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from hbagent.core.records import Batch
from hbagent.store import failpoint
from hbagent.store.history import History


@contextlib.contextmanager
def held_up(history: History, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Thread]:
    """Within, the commit of `batch` is under way in the thread; after it, it is done."""
    filled, go_on = threading.Event(), threading.Event()

    def hit(name: str) -> None:
        if name == "history-commit-filled":
            filled.set()
            go_on.wait()

    with monkeypatch.context() as patch:
        patch.setattr(failpoint, "hit", hit)
        thread = threading.Thread(target=history.commit, args=(batch,))
        thread.start()
        try:
            assert filled.wait(30)
            yield thread
        finally:
            go_on.set()
            thread.join()
