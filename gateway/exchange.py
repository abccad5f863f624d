"""The small interface between the data plane and whatever carries it: one request, one answer.

An HTTP connection is one adapter; a batch line or a test is another. A native core would be a third: it would have to offer
this and nothing more.
"""

from collections.abc import Mapping
from typing import Protocol


class Way(Protocol):
    """A way to the client past all that looks at an answer."""

    def write(self, data: bytes) -> bool:
        """Writes it as it is, and says whether the client still keeps up: if not, `Exchange.write_paused` is to be asked."""


class Exchange(Protocol):
    """One request that arrived whole, and the way to answer it. Header names are in lower case.

    An answer is either `respond` once, or `begin`, any number of `send`, and `end`. `head` is a block of finished header lines,
    each ended by CRLF, without the framing ones (content-length, transfer-encoding, connection), which belong to the carrier.
    """

    @property
    def headers(self) -> Mapping[bytes, bytes]: ...

    @property
    def body(self) -> bytes: ...

    @property
    def started_at(self) -> float:
        """When the first byte was read, on the event loop's clock."""

    @property
    def begun(self) -> bool:
        """Whether any part of the final answer was sent."""

    def respond(self, status: int, head: bytes, body: bytes) -> None: ...

    def begin(self, status: int, head: bytes) -> None: ...

    def begin_events(self, status: int, head: bytes) -> None:
        """As `begin`, for a body of server-sent events."""

    def send(self, data: bytes) -> None: ...

    def send_chunk(self, data: bytes, chunk: bytes) -> None:
        """As `send(data)`; `chunk` is the same in chunked framing, for a carrier that has use for it."""

    def way(self) -> Way | None:
        """Where chunks, framed already, may be written past `send_chunk` as long as the answer goes on; None, where all have to be seen."""

    def end(self) -> None: ...

    def break_off(self) -> None:
        """Ends an answer that cannot be finished and has no place for an error, so that no client takes it for whole."""

    @property
    def write_paused(self) -> bool:
        """Whether the client reads too slowly: then `drained` is to be awaited before more is sent."""

    async def drained(self) -> None:
        """Returns when the client has caught up; at once if it has."""
