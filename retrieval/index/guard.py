"""Engines outside of this process may hang or die: a search of one has a deadline, and one that failed is left alone for a while."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, final

import structlog

from retrieval.index.ports import EngineAway

log = structlog.stdlib.get_logger(__name__)

SILENCE_S: Final = 5.0  # towards an engine that failed; then one search finds out whether it is back


@final
class Guard:
    """Of one engine. The first caller that finds it away waits for the deadline, the others not at all."""

    def __init__(self, name: str, failures: tuple[type[Exception], ...], silence_s: float = SILENCE_S) -> None:
        self._name = name
        self._failures: tuple[type[Exception], ...] = (EngineAway, *failures)
        self._silence_s = silence_s
        self._until = 0.0
        self._turn = threading.Lock()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Raises EngineAway."""
        self._admit()
        try:
            yield
        except self._failures as error:
            self._until = time.monotonic() + self._silence_s
            log.warning("index.engine_away", engine=self._name, reason=str(error).partition("\n")[0][:200])
            raise EngineAway(f"{self._name}: {error}") from error
        self._until = 0.0

    def _admit(self) -> None:
        with self._turn:
            if self._until == 0.0:
                return
            if time.monotonic() < self._until:
                raise EngineAway(f"{self._name} did not answer a moment ago")
            self._until = time.monotonic() + self._silence_s  # one finds out, and nobody behind it


@final
class Watchdog:
    """Cuts off what takes too long: a thread that waits in a driver cannot be told to stop in any other way."""

    def __init__(self) -> None:
        self._waiting: dict[object, tuple[float, Callable[[], None]]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def within(self, seconds: float, cut: Callable[[], None]) -> Iterator[None]:
        """`cut` is called on another thread if the block takes longer."""
        token = object()
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_on, name="watchdog", daemon=True)
                self._thread.start()
            idle = not self._waiting
            self._waiting[token] = time.monotonic() + seconds, cut
            if idle:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._waiting.pop(token, None)

    def _look_on(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                now = time.monotonic()
                over = [token for token, (until, _) in self._waiting.items() if until <= now]
                cuts = [self._waiting.pop(token)[1] for token in over]
            for cut in cuts:
                cut()
            time.sleep(0.05)
