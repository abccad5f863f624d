"""Runs one coroutine straight from protocol callbacks, so that a request needs no Task.

A Task costs about 4 µs per request and a turn of the event loop per wake-up; starting a coroutine by hand and resuming it from the
callback that has the data costs a third and no turn. The price: `asyncio.current_task()` is None in here, so `asyncio.timeout` and
`asyncio.wait_for` do not work inside; deadlines are kept by the connection that is waited for.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, final


@final
class Signal:
    """Where a driven coroutine waits and a callback wakes it. Reusable, one waiter at a time, carries no value.

    The waiter re-checks its condition after waking, as with a condition variable.
    """

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: Run | None = None

    def __await__(self) -> Generator["Signal", None, None]:
        yield self

    def fire(self) -> None:
        """Resumes the waiter, if any, before returning."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.step()

    def waits_for(self, run: "Run | None") -> None:
        self._waiter = run


@final
class Run:
    """One driven coroutine. `done` is called exactly once, with the exception that escaped, if any."""

    __slots__ = ("_cancelled", "_coro", "_done", "_finished", "_running", "_waiting")

    def __init__(self, coro: Coroutine[Any, None, None], done: Callable[[BaseException | None], None]) -> None:
        self._coro = coro
        self._done = done
        self._waiting: Signal | asyncio.Future[Any] | None = None
        self._running = False
        self._cancelled = False
        self._finished = False

    def step(self, error: BaseException | None = None) -> None:
        """Runs up to the next wait. `error` is raised at the current one."""
        if self._finished:
            return
        self._waiting = None
        self._running = True
        try:
            waiting = self._coro.send(None) if error is None else self._coro.throw(error)
        except StopIteration:
            self._finish(None)
        except BaseException as escaped:  # noqa: BLE001 the border of a request: handed to `done`, never swallowed
            self._finish(escaped)
        else:
            self._running = False
            self._wait(waiting)

    def cancel(self) -> None:
        """Raises CancelledError where the coroutine waits; while it runs, at its next wait."""
        if self._finished:
            return
        self._cancelled = True
        if self._running:
            return
        waiting = self._waiting
        if isinstance(waiting, asyncio.Future):
            waiting.cancel()
            return
        if waiting is not None:
            waiting.waits_for(None)
        self._cancelled = False
        self.step(asyncio.CancelledError())

    def _wait(self, waiting: Any) -> None:
        if self._cancelled:
            self._cancelled = False
            self.step(asyncio.CancelledError())
        elif type(waiting) is Signal:
            self._waiting = waiting
            waiting.waits_for(self)
        elif isinstance(waiting, asyncio.Future):
            waiting._asyncio_future_blocking = False  # noqa: SLF001 the protocol between futures and whoever drives them
            self._waiting = waiting
            waiting.add_done_callback(self._woken)
        else:  # a bare yield, as in asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(self.step)

    def _woken(self, future: "asyncio.Future[Any]") -> None:
        if future.cancelled():
            self._cancelled = (
                False  # it raises by itself in the coroutine; one that was done already is cancelled at the next wait
            )
        self.step()

    def _finish(self, escaped: BaseException | None) -> None:
        self._running = False
        self._finished = True
        self._done(escaped)


async def driven(coro: Coroutine[Any, None, None]) -> None:
    """Runs code that waits for signals from code that is a Task."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def finished(escaped: BaseException | None) -> None:
        if done.done():
            return
        if escaped is None:
            done.set_result(None)
        elif isinstance(escaped, asyncio.CancelledError):
            done.cancel()
        else:
            done.set_exception(escaped)

    run = Run(coro, finished)
    run.step()
    try:
        await done
    except asyncio.CancelledError:
        run.cancel()
        raise
