"""One place that accounts of requests are sent to, with a thread, a bounded queue and patience of its own: who is slow or dead there
harms nobody here, and nobody else there. What finds no room, or is refused too often, is counted and dropped."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, final

import structlog

from admin.telemetry.account import Account

FIRST_PAUSE_S: Final = 0.5
MOST_PAUSE_S: Final = 30.0

log = structlog.stdlib.get_logger(__name__)


class Refused(Exception):
    """It was not taken now, and may be later. `after_s`: when the other side wants to be asked again."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Unacceptable(Exception):
    """It will never be taken: another try makes no sense."""


class Sink(Protocol):
    """Where accounts go. Every method is called by one thread alone, and may block.

    Delivery is at least once: a batch that raised Refused comes again, whatever became of it there.
    """

    name: str  # in logs and metrics; no part of an address that may be a password

    def deliver(self, batch: Sequence[Account]) -> None:
        """Raises Refused, Unacceptable."""

    def tick(self) -> None:
        """Now and then, when there is nothing to deliver or after it. Raises Refused."""

    def close(self) -> None:
        """After the last batch."""


@final
class Feed:
    """`start`, any number of `offer`, `close`. `tries`: how often a batch is offered before it is dropped. `now` is a monotonic clock."""

    def __init__(
        self,
        sink: Sink,
        *,
        room: int = 2048,
        batch: int = 512,
        interval_s: float = 1.0,
        tries: int = 6,
        first_pause_s: float = FIRST_PAUSE_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink = sink
        self._room = room
        self._batch = min(batch, room)
        self._interval_s = interval_s
        self._tries = tries
        self._first_pause_s = first_pause_s
        self._now = now
        self._waiting: deque[tuple[float, Account]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._given_up = False
        self._ends_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"penstock-feed-{sink.name}", daemon=True)
        self.name = sink.name
        self.delivered = 0
        self.dropped = 0
        self.failures = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def lag_s(self) -> float:
        """For how long the oldest account waits that is not delivered."""
        try:
            return max(0.0, self._now() - self._waiting[0][0])
        except IndexError:
            return 0.0

    def start(self) -> None:
        self._thread.start()

    def offer(self, accounts: Sequence[Account]) -> None:
        """Returns at once. Called by one thread."""
        room, now = self._room - len(self._waiting), self._now()
        taken = accounts[: max(0, room)]
        self._waiting.extend((now, account) for account in taken)
        self.dropped += len(accounts) - len(taken)
        if len(self._waiting) >= self._batch:
            self._wake.set()

    def close(self, within_s: float) -> None:
        """Delivers what waits, as far as that is possible in time; the rest is dropped."""
        self._ends_at = self._now() + within_s
        self._closing = True
        self._wake.set()
        self._thread.join(within_s)
        if self._waiting:
            self.dropped += len(self._waiting)
            log.warning("telemetry.dropped", sink=self.name, accounts=len(self._waiting), reason="the server ended")
            self._given_up = True

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            self._empty()
        self._empty()
        try:
            self._sink.close()
        except Exception as error:  # noqa: BLE001 — a thread's border, and nothing comes after it
            log.warning("telemetry.close_failed", sink=self.name, type=type(error).__name__)

    def _empty(self) -> None:
        while self._waiting and not self._given_up:
            self._deliver([account for _, account in list(self._waiting)[: self._batch]])
            if self._closing and self._now() > self._ends_at:
                return
        self._try(self._sink.tick)

    def _deliver(self, batch: Sequence[Account]) -> None:
        """Once it is through with a batch, in whatever way, that is out of the queue: until then it counts as waiting."""
        pause_s = self._first_pause_s
        reason: str | None = None
        for attempt in range(self._tries):
            if attempt and not self._wait(pause_s):
                break
            reason, after_s = self._try(lambda: self._sink.deliver(batch))
            if reason is None or after_s is None:
                break
            pause_s = min(MOST_PAUSE_S, max(after_s, pause_s * 2))
        if self._given_up:  # whoever closed it has counted them
            return
        for _ in batch:
            self._waiting.popleft()
        if reason is None:
            self.delivered += len(batch)
        else:
            self.dropped += len(batch)
            log.error("telemetry.dropped", sink=self.name, accounts=len(batch), reason=reason)

    def _try(self, step: Callable[[], None]) -> tuple[str | None, float | None]:
        """Why it failed, if it did, and how long to wait before another try, if that makes sense."""
        try:
            step()
        except Refused as refused:
            self.failures += 1
            log.info("telemetry.refused", sink=self.name, reason=str(refused))
            return str(refused), refused.after_s or 0.0
        except Unacceptable as error:
            self.failures += 1
            return str(error), None
        except Exception as error:  # a thread's border: the next batch may be better
            self.failures += 1
            log.exception("telemetry.failed", sink=self.name)
            return type(error).__name__, None
        return None, None

    def _wait(self, pause_s: float) -> bool:
        """False if there is no time for another try."""
        until = self._now() + pause_s
        while (left := until - self._now()) > 0:
            if self._closing:
                time.sleep(min(left, max(0.0, self._ends_at - self._now())))
                return self._now() < self._ends_at
            self._wake.wait(min(left, 0.5))
            self._wake.clear()
        return True
