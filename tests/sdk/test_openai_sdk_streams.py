"""Streams under load and under departure, through the SDK and beside it."""

import asyncio
import json
import time

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.fixtures.patience import quickest
from tests.fixtures.server import Scripts, Server
from tests.upstream.behaviour import Behaviour

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
STREAMS = 1000


def test_a_client_that_leaves_a_stream_cancels_the_upstream(server: Server, scripts: Scripts) -> None:
    """Within 100 ms the upstream sees its own client go, and stops producing."""

    def departure() -> float:
        scripted = scripts(Behaviour(chunks=400, gap_s=0.02))
        with openai.OpenAI(api_key=server.key, base_url=server.base_url, max_retries=0) as client:
            stream = client.chat.completions.create(model=scripted.model, messages=HELLO, stream=True)
            next(iter(stream))
            stream.close()
            left_at = time.monotonic()
            entry = scripted.upstream.ended()
        assert entry.outcome == "client_left"
        assert entry.ended_at is not None
        assert entry.completion_tokens < 400
        return entry.ended_at - left_at

    assert quickest(departure, 0.1) < 0.1


async def test_an_async_client_that_gives_up_cancels_the_upstream(server: Server, scripts: Scripts) -> None:
    """A timeout on the client's side, before any answer: nobody waits for it, so nobody works on it."""
    scripted = scripts(Behaviour(headers_after_s=30))
    async with openai.AsyncOpenAI(api_key=server.key, base_url=server.base_url, max_retries=0, timeout=2) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model=scripted.model, messages=HELLO)
    assert scripted.upstream.ended(timeout_s=10).outcome == "client_left"


@pytest.mark.timeout(120)
async def test_a_thousand_streams_hold_at_the_same_time(server: Server, scripts: Scripts) -> None:
    """All of them open at once, all complete, each with its own words and nobody else's."""
    scripted = scripts(Behaviour(chunks=8, gap_s=0.8))
    before = server.rss_mb()
    together = asyncio.Barrier(STREAMS)

    async def one(number: int) -> str:
        body = server.ask(scripted.model, f"question-{number}", stream=True, user=f"user-{number}")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request(server, body))
        received = await reader.readuntil(b"\n\n")
        await together.wait()  # every stream has begun, none has ended
        while not received.endswith(b"0\r\n\r\n"):
            part = await reader.read(65536)
            assert part, "the connection ended before the stream did"
            received += part
        writer.close()
        return text_of(received)

    texts = await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(STREAMS))), 60)
    assert texts == [f"user-{n}|question-{n} w1 w2 w3 w4 w5 w6 w7[DONE]" for n in range(STREAMS)]
    assert server.rss_mb() - before < 120


def request(server: Server, body: dict[str, object]) -> bytes:
    data = json.dumps(body).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (server.key.encode(), len(data), data)
    )


def text_of(received: bytes) -> str:
    """The words of a stream, and `[DONE]` if it came. Each event is one line, whatever chunks carried it."""
    events = [line[6:] for line in received.split(b"\n") if line.startswith(b"data: ")]
    chunks = [json.loads(event) for event in events if event != b"[DONE]"]
    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    return said + ("[DONE]" if events[-1] == b"[DONE]" else "")
