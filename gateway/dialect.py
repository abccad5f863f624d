"""The port of a provider that does not speak OpenAI's API: values in, values out, no I/O. `gateway.completion` does the sending.

A provider that does speak it has no dialect: its bytes go through unread.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from gateway import errors
from gateway.bodies import UpstreamFault
from gateway.used import Usage

NO_HEADERS: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class Outgoing(msgspec.Struct, frozen=True):
    """One upstream request. `path` stands behind the base URL and may carry a query."""

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Stream(Protocol):
    """One upstream stream as OpenAI's events: any split of its bytes in, whole events out. `gateway.sse.ChatStream` is the pattern."""

    @property
    def content(self) -> bool:
        """An event with content, a tool call or a finish was seen."""

    @property
    def done(self) -> bool:
        """The upstream said that it is through."""

    @property
    def events(self) -> int:
        """Events with content, about one per token."""

    @property
    def error(self) -> errors.GatewayError | None:
        """Set by the first damaged or failed event; nothing is passed on after it."""

    @property
    def reported(self) -> Usage | None:
        """What the provider says it used, as far as it has said so."""

    @property
    def whole(self) -> bool:
        """Whether the answer ended as an answer should."""

    def feed(self, data: bytes) -> bytes: ...

    def close(self) -> bytes:
        """The end of the upstream's body: what it still means."""


class Dialect(Protocol):
    """Shared by all calls, without state. Raises only GatewayErrors: BadRequest, with `param`, for what the provider cannot do."""

    endpoints: frozenset[str]
    """Names of the endpoints that it can serve: `chat`, `embeddings`, `completions`."""

    def authorization(self, api_key: str) -> tuple[tuple[str, str], ...]:
        """The header lines that carry the key, and the API's version. Without a key, `""`, what is left of them."""

    def request(self, endpoint: str, body: bytes, model: str, headers: Mapping[bytes, bytes] = NO_HEADERS) -> Outgoing:
        """An OpenAI request body for the upstream's `model`; whether it streams stands in the body. `headers` are the client's."""

    def answer(self, endpoint: str, body: bytes, model: str, asked: bytes = b"") -> tuple[bytes, Usage | None]:
        """A complete 2xx answer as OpenAI's, and its usage. UpstreamError if it is damaged.

        `model` is the name that the client used, `asked` its request, for what depends on that.
        """

    def stream(self, endpoint: str, model: str, *, keep_usage: bool, asked: bytes = b"") -> Stream: ...

    def fault(self, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> UpstreamFault:
        """An error answer in OpenAI's terms. Never raises."""
