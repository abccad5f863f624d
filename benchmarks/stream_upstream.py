"""The upstream of the streamed rows: `python -m benchmarks.stream_upstream PORT`, one protocol class, no framework.

`/paced/…` sends a chunk every 10 ms, `/flood/…` one per turn of the event loop; each chunk is a write of its own,
so that a proxy sees what a model's server would send it.
"""

import asyncio
import sys
from typing import cast

import httptools
import uvloop

from benchmarks import dialogue

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_READY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
_FRAMES = tuple(b"%x\r\n%b\r\n" % (len(event), event) for event in dialogue.events())
_STEPS = (*_FRAMES[:-2], _FRAMES[-2] + _FRAMES[-1] + b"0\r\n\r\n")  # the usage chunk and the end travel together


class Upstream(asyncio.Protocol):
    """One connection; the next request on it comes after the last stream has ended."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._next: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class does not inherit from it

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_message_complete(self) -> None:
        if self._url.startswith((b"/paced/", b"/flood/")) and self._url.endswith(b"/chat/completions"):
            self._transport.write(_HEAD)
            self._step(0, dialogue.PACE_S if self._url.startswith(b"/paced/") else 0.0)
        else:
            self._transport.write(_READY)

    def _step(self, number: int, gap_s: float) -> None:
        self._transport.write(_STEPS[number])
        if number + 1 == len(_STEPS):
            self._next = None
        elif gap_s:
            self._next = self._loop.call_later(gap_s, self._step, number + 1, gap_s)
        else:
            self._next = self._loop.call_soon(self._step, number + 1, gap_s)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
