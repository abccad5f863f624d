"""The scripted upstream does what its scripts say: a test double that lies makes every other test worthless."""

import asyncio
import json
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fixtures.upstream import Upstream
from tests.upstream.behaviour import Behaviour, ToolCall


def ask(text: str, **fields: object) -> dict[str, object]:
    return {"model": "m", "user": "ann", "messages": [{"role": "user", "content": text}], **fields}


def ask_claude(text: str, **fields: object) -> dict[str, object]:
    return {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": text}], **fields}


def events(text: str) -> list[str]:
    return [line[6:] for line in text.split("\n") if line.startswith("data: ")]


def opened(path: str, body: dict[str, object]) -> bytes:
    """A request for a chat."""
    data = json.dumps(body).encode()
    return f"POST {path}/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


def exchange(upstream: Upstream, path: str, body: dict[str, object]) -> bytes:
    """Everything that comes back for one request, as bytes, until the upstream closes."""
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=5) as sock:
        sock.sendall(opened(path, body))
        received = b""
        while part := sock.recv(65536):
            received += part
    return received


def test_a_plain_answer_echoes_who_asked_what(upstream: Upstream) -> None:
    """The content names the user and the question, so that crossed answers are seen."""
    answer = httpx.post(f"{upstream.base_url}/chat/completions", json=ask("hello there")).json()
    assert answer["choices"][0]["message"]["content"] == "ann|hello there"
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


def test_a_stream_has_the_asked_number_of_pieces_and_ends_with_done(upstream: Upstream) -> None:
    """Content events, a finish, the usage if asked, then `[DONE]`."""
    script = upstream.script(Behaviour(chunks=5))
    body = ask("hello", stream=True, stream_options={"include_usage": True})
    seen = events(httpx.post(f"{script.base_url}/chat/completions", json=body).text)
    chunks = [json.loads(event) for event in seen[:-1]]
    assert seen[-1] == "[DONE]"
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks[:-1]) == "ann|hello w1 w2 w3 w4"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    entry = script.ended()
    assert (entry.outcome, entry.completion_tokens) == ("finished", 5)


def test_scripts_run_in_order_and_the_last_one_stays(upstream: Upstream) -> None:
    """Request n gets behaviour n; a model name finds its script as well as a path does."""
    script = upstream.script(Behaviour(status=500), Behaviour(status=429, headers=(("retry-after", "3"),)))
    body = {**ask("x"), "model": script.id}
    answers = [httpx.post(f"{upstream.base_url}/chat/completions", json=body) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [500, 429, 429]
    assert answers[1].headers["retry-after"] == "3"
    assert answers[1].json()["error"]["type"] == "rate_limit_error"


def test_tool_calls_stream_in_fragments(upstream: Upstream) -> None:
    """The name comes first, the arguments in parts."""
    script = upstream.script(Behaviour(tool_calls=(ToolCall("weather", '{"city":"Oslo"}'),)))
    text = httpx.post(f"{script.base_url}/chat/completions", json=ask("x", stream=True)).text
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events(text)[:-1]]
    calls = [delta["tool_calls"][0]["function"] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["name"] == "weather"
    assert "".join(call.get("arguments", "") for call in calls) == '{"city":"Oslo"}'


def test_anthropic_messages_have_their_own_shape(upstream: Upstream) -> None:
    """Typed events with names, usage at both ends, errors as `{"type": "error"}`."""
    script = upstream.script(Behaviour(), Behaviour(status=529))
    text = httpx.post(f"{script.base_url}/messages", json=ask_claude("hi you", stream=True)).text
    kinds = [json.loads(event)["type"] for event in events(text)]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_delta") == 2
    refused = httpx.post(f"{script.base_url}/messages", json=ask_claude("hi"))
    assert refused.status_code == 529
    assert refused.json()["error"]["type"] == "overloaded_error"


def test_anthropic_thinks_and_reports_its_cache(upstream: Upstream) -> None:
    """Thinking is a signed block before the others; what was written to the cache and read from it stands beside the input."""
    told = Behaviour(thinking="hm hm", text="yes", cached_tokens=7, cache_write_tokens=5, reasoning_tokens=2)
    script = upstream.script(told)
    whole = httpx.post(f"{script.base_url}/messages", json=ask_claude("hi")).json()
    assert [block["type"] for block in whole["content"]] == ["thinking", "text"]
    assert (whole["usage"]["cache_read_input_tokens"], whole["usage"]["cache_creation_input_tokens"]) == (7, 5)
    text = httpx.post(f"{script.base_url}/messages", json=ask_claude("hi", stream=True)).text
    every = [json.loads(event) for event in events(text)]
    deltas = [event["delta"]["type"] for event in every if event["type"] == "content_block_delta"]
    assert deltas == ["thinking_delta", "thinking_delta", "signature_delta", "text_delta"]
    assert every[-2]["usage"]["output_tokens_details"] == {"thinking_tokens": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"n": 1}, "n: Extra inputs"),
        ({"temperature": 1.5}, "temperature"),
        ({"messages": [{"role": "system", "content": "x"}]}, "first message"),
        ({"messages": [{"role": "user", "content": "x"}] * 2}, "roles must alternate"),
    ],
)
def test_anthropic_refuses_what_the_api_would_refuse(upstream: Upstream, change: dict[str, object], said: str) -> None:
    """A double that takes everything proves nothing about what is sent."""
    answer = httpx.post(f"{upstream.base_url}/messages", json=ask_claude("hi", **change))
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize("fault", ["fin", "rst"])
def test_a_stream_breaks_off_after_the_asked_number_of_events(upstream: Upstream, fault: str) -> None:
    """An orderly close and a reset both leave the client without the end of the body."""
    script = upstream.script(Behaviour(chunks=5, fault=fault, fault_after=3))  # type: ignore[arg-type]  # parametrized
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        httpx.post(f"{script.base_url}/chat/completions", json=ask("x", stream=True))
    entry = script.ended()
    assert (entry.outcome, entry.pieces_sent) == ("broken", 3)


def test_a_client_that_leaves_is_noted_with_its_moment(upstream: Upstream) -> None:
    """The log says when the connection went, on the clock that the tests read."""
    script = upstream.script(Behaviour(chunks=1000, gap_s=0.05))
    with httpx.stream("POST", f"{script.base_url}/chat/completions", json=ask("x", stream=True)) as answer:
        began = time.monotonic()
        next(answer.iter_raw())
    entry = script.ended()
    assert entry.outcome == "client_left"
    assert entry.ended_at is not None
    assert began < entry.ended_at < time.monotonic()
    assert entry.completion_tokens < 1000


def test_the_wire_can_look_odd(upstream: Upstream) -> None:
    """Interim answers, odd casing, folded headers, trailers, segments of a few bytes and CRLF lines come as scripted."""
    shape = Behaviour(
        chunks=2,
        interim=(103,),
        casing="odd",
        headers=(("x-fold", "a\r\n b"),),
        trailers=(("x-sum", "1"),),
        crlf=True,
        heartbeats=1,
        segment_bytes=7,
        keep_alive=False,
    )
    script = upstream.script(shape)
    received = exchange(upstream, f"/s/{script.id}/v1", ask("x", stream=True))
    assert received.startswith(b"HTTP/1.1 103 Early Hints\r\n")
    assert b"cOnTeNt-tYpE: text/event-stream" in received
    assert b"x-fOlD: a\r\n b\r\n" in received
    assert b": keep-alive\r\n\r\n" in received
    assert received.endswith(b"0\r\nx-sUm: 1\r\n\r\n")


def test_bodies_can_be_cut_short_close_delimited_or_compressed(upstream: Upstream) -> None:
    """A length that promises too much, no length at all, and gzip when asked."""
    script = upstream.script(Behaviour(length_excess=9), Behaviour(framing="close"), Behaviour(gzip="asked"))
    path = f"/s/{script.id}/v1"
    head, _, body = exchange(upstream, path, ask("x")).partition(b"\r\n\r\n")
    assert b"content-length: %d" % (len(body) + 9) in head
    head, _, body = exchange(upstream, path, ask("x")).partition(b"\r\n\r\n")
    assert b"content-length" not in head
    assert json.loads(body)["choices"][0]["message"]["content"] == "ann|x"
    raw = httpx.post(f"{script.base_url}/chat/completions", json=ask("x"))
    assert raw.headers["content-encoding"] == "gzip"
    assert raw.json()["choices"][0]["message"]["content"] == "ann|x"


def test_a_stalled_upstream_says_nothing_more(upstream: Upstream) -> None:
    """Silence in the middle of a stream keeps the connection open."""
    script = upstream.script(Behaviour(chunks=5, fault="silence", fault_after=2))
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=20) as sock:
        sock.sendall(opened(f"/s/{script.id}/v1", ask("x", stream=True)))
        received = b""
        while received.count(b"data: ") < 2:
            received += sock.recv(65536)
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(65536)
    assert script.ended().pieces_sent == 2


@pytest.mark.parametrize("held_after", [-1, 0, 3])
def test_what_is_held_goes_on_when_it_is_let_go_and_not_before(upstream: Upstream, held_after: int) -> None:
    """Before the head, between it and the first event, and in the stream; what comes afterwards is not held."""
    script = upstream.script(Behaviour(chunks=9, held_after=held_after))
    url, body = f"{script.base_url}/chat/completions", ask("x", stream=True)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.post, url, json=body)
        entry = script.wait(lambda entries: bool(entries) and entries[0].pieces_sent == max(0, held_after))[0]
        assert (entry.first_byte_at is None) is (held_after < 0)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=body, timeout=0.1)
        assert not answer.done()
        script.let_go()
        assert events(answer.result().text)[-1] == "[DONE]"
    assert events(httpx.post(url, json=body).text)[-1] == "[DONE]"


def test_certificates_are_good_expired_or_for_someone_else(upstream: Upstream) -> None:
    """The three TLS ports differ in their certificate alone."""
    context = ssl.create_default_context(cafile=str(upstream.ca_file))
    good = httpx.get(f"https://localhost:{upstream.tls_ports['good']}/v1/models", verify=context)
    assert good.status_code == 200
    for name in ("expired", "stranger"):
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"https://localhost:{upstream.tls_ports[name]}/v1/models", verify=context)


async def test_many_streams_at_once_keep_their_own_words(upstream: Upstream) -> None:
    """Two hundred streams at the same time, each with its own echo."""
    script = upstream.script(Behaviour(chunks=5, gap_s=0.02))
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(limits=limits, timeout=20) as client:

        async def one(number: int) -> bool:
            answer = await client.post(f"{script.base_url}/chat/completions", json=ask(f"q{number}", stream=True))
            return f"|q{number}" in answer.text and "[DONE]" in answer.text

        assert all(await asyncio.gather(*(one(number) for number in range(200))))
