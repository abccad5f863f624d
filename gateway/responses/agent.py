"""The port of whoever does what a model asks for: a response whose tools are called here takes several turns of the model."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from gateway import errors
from gateway.endpoint import Endpoint
from gateway.exchange import Exchange
from gateway.keys import Key
from gateway.responses.frame import Frame, Problem, Status

Serve = Callable[[Endpoint, Exchange], Coroutine[Any, Any, None]]


class Teller(Protocol):
    """Tells a client its response: `gateway.responses.outlet.Outlet`, or one that lasts several turns."""

    @property
    def begun(self) -> bool:
        """Whether the client has seen any of it, or all of it is there."""

    @property
    def failed(self) -> errors.GatewayError | None: ...

    @property
    def streaming(self) -> bool: ...

    @property
    def response(self) -> bytes:
        """All that there is by now, as it is kept."""

    async def serve(self, serve: Serve) -> None:
        """Asks, by way of the path that every call takes."""

    def end_as(self, status: Status, problem: Problem | None = None) -> None:
        """For an answer that nobody waits for any longer."""

    def end_as_failed_unless_ended(self, problem: Problem) -> None: ...

    def release(self, *, kept: bool) -> None:
        """The end of the answer goes out."""

    def last_event(self) -> bytes:
        """What closes the stream of a response that has ended, in whatever way."""


Tell = Callable[[Exchange, Frame, int], Teller]
"""A teller for a client, for a frame, after so many events."""


class Agent(Protocol):
    """Knows the tools that it calls itself."""

    async def engage(self, key: Key, body: bytes, headers: Mapping[bytes, bytes], *, summarised: bool) -> Tell | None:
        """None for a request that has nothing to do with them. Raises BadRequest for tools that are not there, or not for this key."""
