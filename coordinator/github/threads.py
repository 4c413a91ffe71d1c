"""A few threads for requests that block, which the end of the process does not wait for.

The standard pool joins its threads when Python exits, so that a request to a server that says nothing would
hold up a stopped daemon until the request's time-out. Nothing is lost by leaving one behind: whether a
write arrived is looked up at the next start, as after a crash.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
_Work = tuple[Future[Any], Callable[[], Any]]


class RequestThreads:
    """Runs jobs on at most `count` daemon threads, started when there is first work for them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting: SimpleQueue[_Work | None] = SimpleQueue()
        self._started: list[threading.Thread] = []

    def submit(self, job: Callable[[], _T]) -> Future[_T]:
        """Queue a job. Call on one thread only; not after `close`."""
        future: Future[_T] = Future()
        self._waiting.put((future, job))
        if len(self._started) < self._count:
            thread = threading.Thread(target=self._work, name=f"github_{len(self._started)}", daemon=True)
            self._started.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """Cancel what has not begun and end the threads that are idle; waits for nothing."""
        while (work := self._take()) is not None:
            work[0].cancel()
        for _ in self._started:
            self._waiting.put(None)

    def _take(self) -> _Work | None:
        try:
            return self._waiting.get_nowait()
        except Empty:
            return None

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            _carry_out(*work)
            del work  # an idle thread must not keep the last answer alive


def _carry_out(future: Future[_T], job: Callable[[], _T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        answer = job()
    except BaseException as error:  # noqa: BLE001  it is raised where the answer is awaited
        future.set_exception(error)
    else:
        future.set_result(answer)
