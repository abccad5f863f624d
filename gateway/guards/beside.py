"""A call and those who read what it asks, at the same time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.drive import Run, Signal


async def beside(answering: Coroutine[Any, Any, None], spoken: "asyncio.Task[Any]", let_go: Callable[[], None]) -> None:
    """Ends with the answer, once everybody has spoken, which is when `let_go` is called; or with the first who refuses, and the answer
    with it. Raises what either raises.
    """
    signal, ended = Signal(), _Ended()
    spoken.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, whoever is told in the end
    spoken.add_done_callback(lambda _: signal.fire())

    def done(escaped: BaseException | None) -> None:
        ended.done, ended.escaped = True, escaped
        signal.fire()

    run = Run(answering, done)
    run.step()
    try:
        while not (ended.done or spoken.done()):
            await signal
        if ended.escaped is None:
            if not spoken.done():
                await asyncio.wait((spoken,))
            spoken.result()
            let_go()
        while not ended.done:
            await signal
    finally:
        run.cancel()
        spoken.cancel()
    if ended.escaped is not None:
        raise ended.escaped


class _Ended:
    done = False
    escaped: BaseException | None = None
