"""The status page as part of a daemon: a thread of its own that asks the core as a console does.

A question goes into the loop's mailbox as a `Query`; the answer that the core makes of it leaves by `answer`, is
encoded there, and is handed to the thread as bytes. So a page can show nothing that a console could not, and a page
that burns holds up the loop for no longer than the interpreter lets it.

A port that cannot be opened keeps no daemon from watching: it is told, and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import threading
from collections.abc import Callable

import msgspec

from hbagent.core.effects import Answer
from hbagent.core.messages import Query
from hbagent.web.server import Server, listen
from hbagent.web.source import Reply

from .defects import Tell
from .driver import Driver
from .settings import Web as WebSettings

#: First byte of the address of everybody who asks here; see `questions.Desks`.
AT_PAGE = b"w"
#: Questions under way. The pages themselves ask one thing once; these are different ones.
ASKED_MAX = 32
#: A core that does not answer in this time is not there: its own slowest answer, of 10,000 nodes, takes a tenth of it.
ANSWER_S = 5.0
#: A port that is taken is tried again this often.
AGAIN_S = 10.0


class Web:
    """Serves the site of one daemon. `metrics` makes its metrics in the loop's thread, also as OpenMetrics."""

    def __init__(
        self,
        settings: WebSettings,
        driver: Driver,
        tell: Tell,
        *,
        pages: bool,
        metrics: Callable[[bool], bytes],
    ) -> None:
        self._settings = settings
        self._driver = driver
        self._tell_log = tell
        self._pages = pages
        self._metrics = metrics
        self._numbers = itertools.count(1)
        #: Only the page's own thread touches these.
        self._asked: dict[int, asyncio.Future[Reply]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    @property
    def mark(self) -> bytes:
        """First byte of the address of everybody who asks here."""
        return AT_PAGE

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, within a second."""
        self._stopped.set()
        self._in_thread(self._cancel)
        if self._thread.ident is not None:
            self._thread.join(1.0)

    # ---- in the loop's thread ----------------------------------------------------------------------------

    def answer(self, answer: Answer) -> None:
        """The core answers. What cannot be encoded is a defect: it is raised, after the asker was told."""
        try:
            reply = Reply(error=answer.error) if answer.error else Reply(msgspec.json.encode(answer.view))
        except Exception as error:
            self._in_thread(self._arrived, answer.id, Reply(error=f"a defect: {error!r}"))
            raise
        self._in_thread(self._arrived, answer.id, reply)

    def _measure(self, openmetrics: bool, number: int) -> None:
        try:
            reply = Reply(self._metrics(openmetrics))
        except Exception as error:
            self._in_thread(self._arrived, number, Reply(error=f"a defect: {error!r}"))
            raise
        self._in_thread(self._arrived, number, reply)

    def _in_thread(self, call: Callable[..., object], *arguments: object) -> None:
        loop = self._loop
        if loop is not None:
            # It may have ended in this very moment.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(call, *arguments)

    # ---- in its own thread -------------------------------------------------------------------------------

    async def ask(self, what: str, **fields: str | int) -> Reply:
        """See `web.source.Source`."""
        return await self._await(
            lambda number: self._driver.feed(
                AT_PAGE.decode("latin-1"), msgspec.convert({"id": number, "what": what, **fields}, Query)
            )
        )

    async def metrics(self, openmetrics: bool) -> Reply:
        """See `web.source.Source`."""
        return await self._await(functools.partial(self._measure, openmetrics))

    async def _await(self, call: Callable[[int], object]) -> Reply:
        """Have the loop make `call` with a number under which the answer comes back."""
        if len(self._asked) >= ASKED_MAX:
            return Reply(error="too many questions at once; ask again in a moment")
        number = next(self._numbers)
        self._asked[number] = future = asyncio.get_running_loop().create_future()
        try:
            if not self._driver.mailbox.post(lambda: call(number)):
                return Reply(error="too much to do; ask again in a moment")
            return await asyncio.wait_for(future, ANSWER_S)
        except asyncio.TimeoutError:
            return Reply(error=f"no answer within {ANSWER_S:.0f} s")
        finally:
            del self._asked[number]

    def _arrived(self, number: int, reply: Reply) -> None:
        future = self._asked.get(number)
        if future is not None and not future.done():
            future.set_result(reply)

    def _run(self) -> None:
        told = ""
        while not self._stopped.is_set():
            try:
                asyncio.run(self._serve())
            except asyncio.CancelledError:
                return
            except Exception as error:
                # Once for each reason: it is tried again for as long as the daemon lives.
                text = str(error) if isinstance(error, OSError) else repr(error)
                if text != told:
                    self._tell("error", "web-failed", {"listen": self._settings.listen, "reason": text})
                told = text
                self._stopped.wait(AGAIN_S)

    async def _serve(self) -> None:
        listening = listen(self._settings.listen)
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            if self._stopped.is_set():
                listening.close()
                return
            self._tell("info", "web-listens", {"at": self._settings.listen})
            server = Server(self, pages=self._pages, hosts=self._settings.hosts, tell=self._tell)
            await server.serve(listening)
        finally:
            self._loop = self._task = None

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _tell(self, level: str, what: str, fields: dict[str, object]) -> None:
        self._driver.mailbox.post(lambda: self._tell_log(level, what, fields))
