"""Who reads the history for a question: the store's worker, or, while that is at something long, a reader beside it.

Think of an archivist who also shelves what comes in. He answers in between, and what was given to him before the
question is then on the shelf: whoever was just shown an event finds it. But in a storm one cartload takes a second, and
who waits at the counter for longer than `PATIENCE_NS` is let in to look for himself. What he finds is whole and in
order, and lacks the cart at most.

The reader is no second opinion: when it cannot read, or knows nothing of what was asked, the worker is asked after all.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator

from hbagent.core.effects import Answer, Fetch
from hbagent.core.units import MILLISECOND
from hbagent.store.history import History, HistoryError

from . import reads
from .driver import Driver
from .worker import Worker

#: Questions about history under way. Commits queue behind those that the store's worker has, and alarms behind those:
#: a reading of 10,000 events is a tenth of a second.
READS_MAX = 4
#: A job of the store's worker that has taken this long is not waited for. A commit takes milliseconds; one of a storm,
#: or on a disk that is slow, may take seconds.
PATIENCE_NS = 100 * MILLISECOND
#: A thread that reads gives the interpreter up for each row, and gets it back from a busy one after this. With Python's
#: own 5 ms, a hundred rows take a quarter of a second in a storm.
SWITCH_S = 0.001
_BUSY = "the store is busy; ask again in a moment"


class _Question:
    """A question that whoever takes it first answers."""

    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch
        self._taken = threading.Lock()

    def take(self) -> bool:
        """True once."""
        return self._taken.acquire(blocking=False)


class _Brisk:
    """Within, threads give the interpreter to one another soon, at the price of a fifth of what busy ones get done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._usual_s = 0.0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._within:
                self._usual_s = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_S)
            self._within += 1
        try:
            yield
        finally:
            with self._lock:
                self._within -= 1
                if not self._within:
                    sys.setswitchinterval(self._usual_s)


class ReadingRoom:
    """Answers what is asked of `history`, which belongs to `worker`. `answer` and `fetch` are the loop's."""

    def __init__(
        self,
        driver: Driver,
        worker: Worker,
        history: History,
        answer: Callable[[Answer], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._driver = driver
        self._worker = worker
        self._history = history
        self._answer = answer
        self._failed = failed
        self._reader = history.reader()
        self._beside = Worker("reader", failed, READS_MAX)
        self._brisk = _Brisk()
        self._asked = 0
        #: Answers that the store's worker gave, and the reader.
        self.by_worker = 0
        self.by_reader = 0

    def fetch(self, fetch: Fetch) -> None:
        """In the loop's thread: have a question answered, once."""
        question = _Question(fetch)
        now = time.monotonic_ns()
        due = (self._worker.since or now) + PATIENCE_NS
        if self._asked >= READS_MAX:
            given = False
        elif due <= now:
            # Nothing is left with the worker: it may hang, and what it is to write must find room.
            given = self._beside.submit(functools.partial(self._look_up, question))
        else:
            given = self._worker.submit(functools.partial(self._read, question))
            self._driver.call_later(due, functools.partial(self._let_in, question))
        if given:
            self._asked += 1
        else:
            self._answer(Answer(fetch.asker, fetch.id, None, _BUSY))

    def stop(self, timeout_s: float) -> None:
        """End the reader's thread."""
        self._beside.stop(timeout_s)

    def _let_in(self, question: _Question) -> None:
        """In the loop's thread: it has waited for long enough."""
        if question.take():
            self._beside.submit(functools.partial(self._look_up, question))

    def _read(self, question: _Question) -> None:
        """In the store's thread."""
        if question.take():
            self._read_now(question.fetch)

    def _read_now(self, fetch: Fetch) -> None:
        try:
            with self._brisk():
                answer = Answer(fetch.asker, fetch.id, reads.answer_of(self._history, fetch))
        except (HistoryError, reads.UnknownError) as error:
            answer = Answer(fetch.asker, fetch.id, None, str(error))
        except Exception as error:
            answer = self._defect(fetch, error)
        self.by_worker += 1
        self._post(answer)

    def _look_up(self, question: _Question) -> None:
        """In the reader's thread."""
        fetch = question.fetch
        try:
            with self._brisk(), self._reader.moment():
                answer = Answer(fetch.asker, fetch.id, reads.answer_of(self._reader, fetch))
        except (HistoryError, reads.UnknownError):
            if self._worker.submit(functools.partial(self._read_now, fetch)):
                return
            answer = Answer(fetch.asker, fetch.id, None, _BUSY)
        except Exception as error:
            answer = self._defect(fetch, error)
        self.by_reader += 1
        self._post(answer)

    def _defect(self, fetch: Fetch, error: Exception) -> Answer:
        self._failed(error)
        return Answer(fetch.asker, fetch.id, None, f"a defect: {error!r}")

    def _post(self, answer: Answer) -> None:
        self._driver.mailbox.post(functools.partial(self._have_read, answer), owed=True)

    def _have_read(self, answer: Answer) -> None:
        self._asked -= 1
        self._answer(answer)
