"""A deadline for every call of a store, and silence towards one that does not answer.

A store that hangs costs its first caller the deadline, and the others nothing: they are refused at once, until one call
per second, the probe, is answered again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, final

import structlog

from gateway.deadline import deadline
from gateway.leases.errors import StoreUnavailable

log = structlog.get_logger(__name__)
T = TypeVar("T")

DEADLINE_S: Final = 0.25
# Of a store whose every commit waits for a disk, and in line behind the commits of others: a busy disk is no store that is away.
DISK_DEADLINE_S: Final = 0.75


@final
class Guard:
    """Lets one call at a time through. `failures` are the exceptions that mean that the store is away."""

    def __init__(
        self, store: str, failures: tuple[type[Exception], ...], *, deadline_s: float = DEADLINE_S, probe_s: float = 1.0
    ) -> None:
        self._store = store
        self._failures = failures
        self._deadline_s = deadline_s
        self._probe_s = probe_s
        self._turn = asyncio.Lock()
        self._probe_at: float | None = None  # monotonic; None while the store is well

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Waits for its turn and then for the answer, each as long as the deadline at most.

        Raises StoreUnavailable, and what `operation` raises beside `failures`.
        """
        try:
            async with deadline(self._deadline_s):
                await self._turn.acquire()
        except TimeoutError:
            raise StoreUnavailable(
                f"{self._store}: too many calls are waiting", retry_after_s=self._deadline_s
            ) from None
        try:
            return await self._ask(operation)
        finally:
            self._turn.release()

    async def _ask(self, operation: Callable[[], Awaitable[T]]) -> T:
        self._refuse_while_away()
        try:
            async with deadline(self._deadline_s):
                answer = await operation()
        except TimeoutError:
            raise self._away(f"{self._store} gave no answer within {self._deadline_s * 1000:.0f} ms") from None
        except self._failures as error:
            raise self._away(f"{self._store}: {type(error).__name__}: {error}") from error
        if self._probe_at is not None:
            self._probe_at = None
            log.info("leases.store_back", store=self._store)
        return answer

    def _refuse_while_away(self) -> None:
        if self._probe_at is None:
            return
        wait_s = self._probe_at - time.monotonic()
        if wait_s > 0:
            raise StoreUnavailable(f"{self._store} does not answer", retry_after_s=wait_s)
        self._probe_at = time.monotonic() + self._probe_s

    def _away(self, reason: str) -> StoreUnavailable:
        if self._probe_at is None:
            log.warning("leases.store_away", store=self._store, reason=reason)
        self._probe_at = time.monotonic() + self._probe_s
        return StoreUnavailable(reason, retry_after_s=self._probe_s)
