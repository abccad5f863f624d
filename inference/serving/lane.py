"""A thread that owns one loaded model: whoever waits while it works becomes its next batch.

An idle lane starts at once with whatever is there, alone if it is alone: nobody waits for company, and there is no timer. A batch that
fails is run again call by call, so that a bad row is answered to whom it belongs.

A handover to a thread and back costs ten times what a small graph needs for a row. A model that says of itself that its time depends on
its input's shape alone (`steady`) is run in place where so many rows took less than QUICK_S, as long as the lane is idle.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, final

import numpy as np
import structlog
from numpy.typing import NDArray

from inference.errors import InferenceError
from inference.ports import Bundle, Runnable
from inference.serving.errors import InvalidOutput, LoadFailed, ModelBusy, ModelError, ModelTimeout
from inference.serving.frame import Columns, Frame, joined, parted

log = structlog.stdlib.get_logger(__name__)

QUICK_S: Final = 0.0003
SLOW_S: Final = 0.005  # by the wall: somebody else may have had the processor

MOVED: Final = (
    3  # times as long waits who lost a lane to another call: for a new lane, and until that call has hung there alone
)

MOST_SAID: Final = 300  # characters of what a model complains of

Outputs = dict[str, NDArray[Any]]
Result = Outputs | InferenceError


@final
class Job:
    """One call on its way. `since` and `began` are monotonic seconds; `alone`: it shares no batch any more; `moved`: its lane died."""

    __slots__ = ("alone", "done", "frame", "moved", "since")

    def __init__(self, frame: Frame, done: "asyncio.Future[Outputs]", since: float) -> None:
        self.frame = frame
        self.done = done
        self.since = since
        self.alone = False
        self.moved = False


@final
class Lane:
    """`make` is called in the lane's thread and may take its time; `rows` and `nbytes` bound a batch, `waiting` those who wait.
    `lost` is told when the lane died by itself, with the calls that go on elsewhere.

    Everything but `_work` and what it calls belongs to the event loop.
    """

    def __init__(
        self,
        bundle: Bundle,
        make: Callable[[], Runnable],
        *,
        loop: asyncio.AbstractEventLoop,
        rows: int,
        nbytes: int,
        waiting: int,
        batches: bool,
        lost: "Callable[[Lane, Sequence[Job]], None]",
    ) -> None:
        self._bundle = bundle
        self._make = make
        self._loop = loop
        self._rows = rows if batches else 1
        self._nbytes = nbytes
        self._most = waiting
        self._batches = batches
        self._lost = lost
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._jobs: dict[Job, None] = {}
        self._batch: tuple[Job, ...] = ()
        self._began: float | None = None
        self._runnable: Runnable | None = None
        self._quick_rows = 0  # as many are run in place
        self.dead = False
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.batches: dict[int, int] = {}  # how many had so many calls
        self._thread = threading.Thread(target=self._work, name=f"model {bundle.model}", daemon=True)
        self._thread.start()

    @property
    def load(self) -> int:
        """Calls that wait or run."""
        return len(self._jobs)

    @property
    def pid(self) -> int | None:
        """Of its process, if the model has one of its own."""
        return getattr(self._runnable, "pid", None)

    def at_once(self, frame: Frame) -> Outputs | None:
        """Runs in place what is quick for sure; None: `submit` it. Raises InferenceError."""
        runnable = self._runnable
        if frame.rows > self._quick_rows or self._jobs or runnable is None:
            return None
        began = time.perf_counter()
        result = self._once(runnable, frame.columns, frame.rows)
        if time.perf_counter() - began > SLOW_S:
            self._quick_rows = frame.rows // 2
        if isinstance(result, InferenceError):
            raise result
        return result

    def submit(self, frame: Frame) -> "asyncio.Future[Outputs]":
        """Raises ModelBusy if too many wait."""
        if len(self._jobs) >= self._most:
            raise ModelBusy(
                f"{len(self._jobs)} calls wait for the model '{self._bundle.model}'; try again",
                headers=(("retry-after", "1"),),
            )
        job = Job(frame, self._loop.create_future(), time.monotonic())
        self._jobs[job] = None
        self._queue.put(job)
        return job.done

    def close(self) -> None:
        """Lets what waits be answered, then gives the model back. `ended` tells when."""
        self._queue.put(None)

    def check(self, now: float, timeout_s: float) -> Sequence[Job]:
        """Ends calls that took too long. If it is the model that does not return, the lane is dead: the jobs returned go on elsewhere."""
        began = self._began
        if began is not None and now - began > timeout_s:
            stop = getattr(self._runnable, "stop", None)
            if stop is not None:  # a process can be ended, a thread only left behind
                stop()
            why = f"The model '{self._bundle.model}' did not return within {timeout_s:g} s; it was replaced"
            return self._die(ModelTimeout(why))
        for job in tuple(self._jobs):
            patience_s = MOVED * timeout_s if job.moved else timeout_s
            if job not in self._batch and now - job.since > patience_s:
                self._jobs.pop(job, None)
                if not job.done.done():
                    why = f"The model '{self._bundle.model}' did not come to this call in {patience_s:g} s"
                    job.done.set_exception(ModelBusy(why, headers=(("retry-after", "1"),)))
        return ()

    def refuse(self, error: InferenceError) -> None:
        """Nobody will run what waits."""
        for job in self._jobs:
            if not job.done.done():
                job.done.set_exception(error)
        self._jobs.clear()

    def take(self, job: Job) -> None:
        """A job of a lane that died."""
        self._jobs[job] = None
        self._queue.put(job)

    def _die(self, error: InferenceError) -> Sequence[Job]:
        """`error` is for the call that it died of, if that can be told."""
        self.dead = True
        batch, left = self._batch, []
        self._queue.put(None)
        for job in self._jobs:
            if job.done.done():
                continue
            if job in batch and len(batch) == 1:
                job.done.set_exception(error)
                continue
            job.alone = job.alone or job in batch  # one of these it is
            job.moved = True
            job.since = time.monotonic()
            left.append(job)
        self._jobs.clear()
        log.error("model.lost", model=self._bundle.model, version=self._bundle.version, reason=error.code)
        return left

    # In the lane's thread

    def _work(self) -> None:
        try:
            runnable = self._runnable = self._make()
        except InferenceError as error:
            self._tell(self._loaded, error)
        except Exception as error:  # noqa: BLE001 a thread's border: whoever waits must hear of it
            self._tell(self._loaded, LoadFailed(f"The model '{self._bundle.model}' could not be loaded: {error}"))
        else:
            self._tell(self._loaded, None)
            self._run(runnable)
            try:
                runnable.close()
            except Exception as error:  # noqa: BLE001 as above
                log.warning("model.close_failed", model=self._bundle.model, reason=str(error))
        self._runnable = None
        self._tell(self._ended)

    def _run(self, runnable: Runnable) -> None:
        queue, ahead = self._queue, None
        while True:
            job = ahead or queue.get()
            ahead = None
            if job is None:
                return
            batch, rows, size = [job], job.frame.rows, job.frame.nbytes
            while self._batches and not job.alone and rows < self._rows:
                try:
                    after = queue.get_nowait()
                except Empty:
                    break
                if after is None:
                    queue.put(None)
                    break
                rows, size = rows + after.frame.rows, size + after.frame.nbytes
                if after.alone or rows > self._rows or size > self._nbytes or not after.frame.joins(job.frame):
                    ahead = after
                    break
                batch.append(after)
            if self.dead:
                return
            live = tuple([one for one in batch if not one.done.done()])
            if live:
                self._batch = live
                self._began = time.monotonic()
                results = self._results(runnable, live)
                self._began = None
                if getattr(runnable, "died", False):
                    self._tell(self._crashed)
                    return
                self._tell(self._deliver, live, results)

    def _results(self, runnable: Runnable, batch: Sequence[Job]) -> list[Result]:
        frames = [job.frame for job in batch]
        rows, began = sum(frame.rows for frame in frames), time.perf_counter()
        result = self._once(runnable, joined(frames), rows)
        if rows > self._quick_rows and time.perf_counter() - began < QUICK_S and getattr(runnable, "steady", False):
            self._quick_rows = rows
        if not isinstance(result, InferenceError):
            return [*parted(result, frames)] if len(frames) > 1 else [result]
        if len(frames) == 1 or getattr(runnable, "died", False):
            return [result] * len(frames)
        results: list[Result] = []
        for frame in frames:
            self._began = time.monotonic()
            results.append(self._once(runnable, frame.columns, frame.rows))
        return results

    def _once(self, runnable: Runnable, columns: Columns, rows: int) -> Result:
        name, version = self._bundle.model, self._bundle.version
        try:
            outputs = {key: np.asarray(value) for key, value in runnable.run(columns).items()}
        except InferenceError as error:
            return error
        except Exception as error:  # noqa: BLE001 a model may raise anything
            log.warning("model.raised", model=name, version=version, error=type(error).__name__)
            why = f"{type(error).__name__}: {error}"[:MOST_SAID]
            return ModelError(f"The model '{name}' (version {version}) failed: {why}")
        for key, array in outputs.items():
            if not array.shape or array.shape[0] != rows:
                return InvalidOutput(
                    f"The answer of '{name}' (version {version}) breaks its signature: '{key}' has not one row for each of {rows}"
                )
        return outputs

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed, and nobody listens any more
            log.debug("model.unheard", model=self._bundle.model)

    # Back on the event loop

    def _loaded(self, error: InferenceError | None) -> None:
        if self.ready.done():
            return
        if error is None:
            self.ready.set_result(None)
        else:
            self.dead = True
            self.ready.set_exception(error)

    def _ended(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _crashed(self) -> None:
        if not self.dead:
            self._lost(self, self._die(ModelError(f"The process of the model '{self._bundle.model}' died")))

    def _deliver(self, batch: Sequence[Job], results: Sequence[Result]) -> None:
        self.batches[len(batch)] = self.batches.get(len(batch), 0) + 1
        for job, result in zip(batch, results, strict=True):
            self._jobs.pop(job, None)
            if self.dead or job.done.done():  # another lane has it, or its client has left
                continue
            if isinstance(result, InferenceError):
                job.done.set_exception(result)
            else:
                job.done.set_result(result)
