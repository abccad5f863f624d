"""One thread for a blocking driver, so that a database that hangs stops neither the event loop nor the end of the process."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, final

T = TypeVar("T")


@final
class Worker:
    """A daemon thread that does jobs in turn. `interrupt` is called, from the loop, when the asker of a job gave up."""

    def __init__(self, name: str, interrupt: Callable[[], None]) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._interrupt = interrupt
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._started = False

    async def run(self, job: Callable[[], T]) -> T:
        """A job whose asker is cancelled before its turn is dropped; one that runs is interrupted."""
        if not self._started:
            self._started = True
            self._thread.start()
        answer: Future[T] = Future()
        self._jobs.put(lambda: _do(job, answer))
        try:
            return await asyncio.wrap_future(answer)
        except asyncio.CancelledError:
            if answer.running():
                self._interrupt()
            raise

    async def stop(self, last: Callable[[], None], patience_s: float = 1.0) -> None:
        """Does `last` on the thread and ends it; gives up on a thread that hangs, which dies with the process."""
        if not self._started:
            return
        self._jobs.put(last)
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, patience_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _do(job: Callable[[], T], answer: Future[T]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        result = job()
    except Exception as error:  # noqa: BLE001 — a thread border: the asker gets it
        answer.set_exception(error)
    else:
        answer.set_result(result)
