"""Calls that are not answered yet, by session and id, so that a client can take one back. Without a session nobody could be told apart."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from gateway.mcp.rpc import CancelParams, Id

_params: Final = msgspec.json.Decoder(CancelParams)


@final
class Running:
    """One call."""

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self._task = task
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = self._task.cancel() or self.cancelled


@final
class Inflight:
    """Those of this process. A number and the text of it are two ids."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, type, Id], Running] = {}

    def free(self, session: str | None, id_: Id | None) -> bool:
        return session is None or id_ is None or (session, type(id_), id_) not in self._running

    @contextmanager
    def running(self, session: str | None, id_: Id | None, task: "asyncio.Task[Any]") -> Iterator[Running]:
        made = Running(task)
        place = None if session is None or id_ is None else (session, type(id_), id_)
        if place is not None:
            self._running[place] = made
        try:
            yield made
        finally:
            if place is not None:
                del self._running[place]

    def cancel(self, session: str | None, params: Raw) -> None:
        """What is unknown, or answered by now, is no error."""
        try:
            id_ = _params.decode(params).requestId
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        found = None if session is None else self._running.get((session, type(id_), id_))
        if found is not None:
            found.cancel()
