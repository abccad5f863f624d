"""The paths of the data plane that are served from the connection's own callbacks."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:  # an exchange knows its route
    from gateway.http_exchange import HttpExchange

Handler = Callable[["HttpExchange"], Coroutine[Any, None, None]]


class Route(msgspec.Struct, frozen=True):
    """A hot route: one method, one handler. Without a method (`b""`) the handler looks at that itself.

    `switches`: a request for another protocol is the handler's business.
    """

    method: bytes
    handler: Handler
    switches: bool = False
