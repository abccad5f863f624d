"""The load of the streamed rows: `python -m benchmarks.stream_load PORT PATH KEY MODEL CONNECTIONS SECONDS EVENTS [HEADER]…`.

Each connection runs one stream after another until the time is up. A stream counts when its status is 200, it has
exactly EVENTS chunks and it closes with `[DONE]`; everything else is an error. Prints one line of JSON.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import httptools
import uvloop

from benchmarks import dialogue

_EVENT = b"data: {"


@dataclass(slots=True)
class Tally:
    """What all connections saw. Times in seconds."""

    chunks: int = 0
    errors: int = 0
    first_chunk_s: list[float] = field(default_factory=list)
    stream_s: list[float] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One keep-alive connection. `finished` is set when it has ended, for whatever reason."""

    def __init__(self, request: bytes, events: int, until: float, tally: Tally) -> None:
        self._request = request
        self._events = events
        self._until = until
        self._tally = tally
        self._between = False
        self._chunks = 0
        self._tail = b""
        self._end = b""
        self._started = 0.0
        self.finished = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class does not inherit from it
        self._start()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._tally.errors += not self._between
        self.finished.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        if not self._chunks:
            self._tally.first_chunk_s.append(time.perf_counter() - self._started)
        window = self._tail + body
        self._chunks += window.count(_EVENT)
        self._tail = window[1 - len(_EVENT) :]  # one byte short of the mark: nothing is counted twice
        self._end = (self._end + body)[-20:]

    def on_message_complete(self) -> None:
        tally = self._tally
        tally.chunks += self._chunks
        whole = self._chunks == self._events and self._end.endswith(b"data: [DONE]\n\n")
        if self._parser.get_status_code() == 200 and whole:
            tally.stream_s.append(time.perf_counter() - self._started)
        else:
            tally.errors += 1
        asyncio.get_running_loop().call_soon(self._start)  # the parser is not to be replaced under its own feet

    def _start(self) -> None:
        self._between = time.perf_counter() >= self._until
        if self._between:
            self._transport.close()
            return
        self._parser = httptools.HttpResponseParser(self)
        self._chunks = 0
        self._tail = self._end = b""
        self._started = time.perf_counter()
        self._transport.write(self._request)


async def load(
    port: int,
    path: str,
    key: str,
    model: str,
    *,
    connections: int,
    seconds: float,
    events: int = dialogue.EVENTS,
    headers: Sequence[str] = (),
) -> dict[str, float]:
    body = dialogue.request_body(model, stream=True)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        + "".join(f"{header}\r\n" for header in headers)
        + "\r\n"
    )
    request = head.encode() + body
    started = time.perf_counter()
    tally = Tally()
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(request, events, started + seconds, tally), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    async with asyncio.timeout(seconds + 30):
        for client in clients:
            await client.finished.wait()
    return {
        "count": tally.chunks,
        "seconds": time.perf_counter() - started,
        "errors": tally.errors,
        "streams": len(tally.stream_s),
        "p50_ms": _percentile_ms(tally.first_chunk_s, 50),
        "p99_ms": _percentile_ms(tally.first_chunk_s, 99),
    }


def _percentile_ms(values: list[float], percent: int) -> float:
    if len(values) < 2:
        return 1000 * sum(values)
    return 1000 * statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    port, path, key, model, connections, seconds, events, *headers = sys.argv[1:]
    figures = load(
        int(port),
        path,
        key,
        model,
        connections=int(connections),
        seconds=float(seconds),
        events=int(events),
        headers=headers,
    )
    print("RESULT", json.dumps(uvloop.run(figures)))
