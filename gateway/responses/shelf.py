"""What is kept of responses, from the event loop's side: writes that come at the same time share a transaction, in a thread."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar, final

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway import errors
from gateway.database import appending, reading

T = TypeVar("T")
Work = Callable[[Connection], None]

log = structlog.stdlib.get_logger(__name__)

MAX_WAITING: Final = 2_000  # writes; more mean that the database is slower than its clients, or away


@final
class Shelf:
    """One per process, over its engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[tuple[Work, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def ask(self, question: Callable[[Connection], T]) -> T:
        """One answer about one moment. Raises Overloaded where the database is away, and what the question does."""
        return await asyncio.to_thread(self._within, question, writes=False)

    async def change(self, work: Callable[[Connection], T]) -> T:
        """One transaction of its own, for what may refuse. Raises as `ask` does."""
        return await asyncio.to_thread(self._within, work, writes=True)

    async def write(self, work: Work) -> bool:
        """Together with what others write at the same time. False where it could not be written; the log says why."""
        if len(self._waiting) >= MAX_WAITING:
            log.error("responses.unkept", reason="too many wait for the database")
            return False
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())
        try:
            await done
        except SQLAlchemyError as error:
            log.error("responses.unkept", reason=type(error).__name__)  # noqa: TRY400 — the text would have parameters
            return False
        return True

    async def close(self) -> None:
        """Once everything is written."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            failure = await asyncio.to_thread(self._all, [work for work, _ in batch])
            for _, done in batch:
                if done.done():  # whoever waited has left
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)
        self._writing = None

    def _all(self, works: list[Work]) -> SQLAlchemyError | None:
        began = time.monotonic()
        try:
            with appending(self._engine) as tx:
                for work in works:
                    work(tx)
        except SQLAlchemyError as error:
            return error
        log.debug("responses.kept", count=len(works), seconds=round(time.monotonic() - began, 4))
        return None

    def _within(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        try:
            with (appending if writes else reading)(self._engine) as tx:
                return work(tx)
        except SQLAlchemyError as error:
            log.error("responses.database", reason=type(error).__name__)  # noqa: TRY400 — the text would have parameters
            raise errors.Overloaded(
                "Stored responses cannot be reached at the moment", code="store_unavailable"
            ) from None
