"""What a connection is to its listener, and what takes a connection over that is to speak another protocol than HTTP."""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Kept(Protocol):
    """An open connection, whatever it speaks: see `gateway.connection.Connection`. Times are the listener's clock."""

    closing: bool
    paused: bool
    paused_at: float
    since: float
    head_since: float
    served: bool
    reading_head: bool

    @property
    def reading_body(self) -> bool: ...

    @property
    def idle(self) -> bool: ...

    @property
    def delivered(self) -> bool: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def time_out(self) -> None: ...


class Switched(Kept, Protocol):
    """The new owner of a socket. It calls `gone` once the socket is."""

    gone: Callable[[], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...
