"""What the last parsed request of a client on a hot route was: the next one is usually the same but for its body."""

from collections.abc import Mapping
from typing import final

from gateway.http_exchange import Carrier, HttpExchange
from gateway.repeated_head import RepeatedHead, learn
from gateway.route import Route

BODY_BYTES = (
    64 * 1024
)  # larger ones are counted against the memory that all of them may take, and do not come in one segment


@final
class KnownRequest:
    """A request less its body."""

    __slots__ = ("head", "headers", "method", "route", "url")

    def __init__(
        self, head: RepeatedHead, url: bytes, method: bytes, headers: Mapping[bytes, bytes], route: Route
    ) -> None:
        self.head = head
        self.url = url
        self.method = method
        self.headers = headers
        self.route = route

    def again(self, carrier: Carrier, data: bytes, started_at: float, limit: int) -> HttpExchange | None:
        """The whole request in a segment that has this head and a body of up to `limit` bytes; None for any other segment."""
        body = self.head.body(data)
        if body is None or len(body) > BODY_BYTES or len(body) > limit:
            return None
        return HttpExchange(carrier, started_at, self.url, self.method, self.headers, self.route, body)


def learned(exchange: HttpExchange, data: bytes) -> KnownRequest | None:
    """From a parsed request and the segment that held it and nothing else; None if the next one must not be taken for its like."""
    route = exchange.route
    if route is None or not exchange.complete or exchange.close_after or exchange.expects or exchange.version != "1.1":
        return None
    head = learn(data, exchange.size)
    return None if head is None else KnownRequest(head, exchange.url, exchange.method, exchange.headers, route)
