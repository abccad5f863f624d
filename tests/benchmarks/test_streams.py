"""The two ends of the streamed rows, on real sockets: a benchmark that miscounts would flatter."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from benchmarks import dialogue
from benchmarks.stream_load import load
from benchmarks.stream_upstream import Upstream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: keep-alive\r\n"


class Scripted(asyncio.Protocol):
    """Answers every request with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        self._transport.write(self._answer)


@asynccontextmanager
async def serving(protocol: Callable[[], asyncio.Protocol]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def run(port: int, path: str) -> dict[str, float]:
    return await load(port, path, "sk-any", "any", connections=3, seconds=0.2)


async def test_whole_streams_count_chunk_by_chunk() -> None:
    """Every stream has its 50 chunks and the usage, and none is an error."""
    async with serving(Upstream) as port:
        figures = await run(port, "/flood/v1/chat/completions")
    assert figures["errors"] == 0
    assert figures["streams"] >= 3
    assert figures["count"] == figures["streams"] * (dialogue.CHUNKS + 1)


async def test_a_paced_stream_takes_its_time() -> None:
    """50 chunks at 10 ms each: the one stream of each connection outlasts the 0.2 s of the run and is waited for."""
    async with serving(Upstream) as port:
        figures = await run(port, "/paced/v1/chat/completions")
    assert (figures["streams"], figures["errors"]) == (3, 0)
    assert figures["seconds"] >= dialogue.CHUNKS * dialogue.PACE_S * 0.9


async def test_a_stream_that_lacks_a_chunk_is_an_error() -> None:
    """What arrives well-formed but short does not pass."""
    body = b"".join(dialogue.events()[1:])
    async with serving(lambda: Scripted(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)) as port:
        figures = await run(port, "/")
    assert figures["errors"] >= 3
    assert figures["streams"] == 0


async def test_a_stream_without_its_end_is_an_error() -> None:
    """All chunks and no `[DONE]`: the client would not know that it has everything."""
    body = b"".join(dialogue.events()[:-1])
    async with serving(lambda: Scripted(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)) as port:
        figures = await run(port, "/")
    assert figures["errors"] >= 3
    assert figures["streams"] == 0


async def test_a_gateway_may_have_fewer_events_of_its_own() -> None:
    """50 events are whole where 50 are expected; headers that are asked for arrive."""
    body = b"".join((*dialogue.events()[:-2], dialogue.events()[-1]))
    asked: list[bytes] = []

    class Listening(Scripted):
        def data_received(self, data: bytes) -> None:
            asked.append(data)
            super().data_received(data)

    answer = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    async with serving(lambda: Listening(answer)) as port:
        figures = await load(
            port, "/", "sk-any", "any", connections=1, seconds=0.1, events=dialogue.EVENTS - 1, headers=("x-to: here",)
        )
    assert figures["errors"] == 0
    assert figures["count"] == figures["streams"] * (dialogue.EVENTS - 1)
    assert b"\r\nx-to: here\r\n" in asked[0]


async def test_a_refusal_is_an_error() -> None:
    """Whatever its body says, a status other than 200 is no stream."""
    body = b"".join(dialogue.events())
    answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    async with serving(lambda: Scripted(answer)) as port:
        figures = await run(port, "/")
    assert figures["errors"] >= 3
    assert figures["streams"] == 0
