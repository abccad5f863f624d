"""OpenAI's own client talks through the gateway, and raw sockets do what no client would."""

import json
import os
from collections.abc import Iterator

import pytest
from openai import AsyncOpenAI, OpenAI
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect
from websockets.uri import parse_uri

from tests.fixtures.server import Scripts, Server
from tests.realtime.conftest import NEVER_LONG, Talks
from tests.upstream.behaviour import Behaviour

# The SDK opens its sockets in a way that the newest `websockets` wants to be asked for.
pytestmark = pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context manager:DeprecationWarning")


@pytest.fixture(scope="module")
def client(talks: Talks) -> Iterator[OpenAI]:
    with OpenAI(base_url=talks.server.base_url, api_key=talks.server.key, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("below", ["/v1", "/openai/v1"])
def test_the_sdk_talks(talks: Talks, below: str) -> None:
    route = talks(Behaviour(text="one two three", cached_tokens=4), deployment=NEVER_LONG)
    with (
        OpenAI(base_url=f"{talks.server.url}{below}", api_key=talks.server.key, max_retries=0) as client,
        client.realtime.connect(model=route.name) as talk,
    ):
        talk.session.update(session={"type": "realtime", "instructions": "be kind"})
        talk.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        )
        talk.response.create()
        said = ""
        for event in talk:
            if event.type == "response.output_text.delta":
                said += event.delta
            elif event.type == "response.done":
                assert event.response.usage is not None
                assert event.response.usage.output_tokens == 3
                break
    assert said == "one two three"
    assert talks.of(route, 1)[0]["prompt_tokens"] == 10


async def test_the_sdk_talks_without_blocking(talks: Talks) -> None:
    route = talks(Behaviour(), deployment=NEVER_LONG)
    async with (
        AsyncOpenAI(base_url=talks.server.base_url, api_key=talks.server.key, max_retries=0) as client,
        client.realtime.connect(model=route.name) as talk,
    ):
        await talk.response.create()
        async for event in talk:
            if event.type == "response.done":
                assert event.response.status == "completed"
                break


def test_the_sdk_makes_secrets_and_reads_errors(talks: Talks, client: OpenAI) -> None:
    route = talks(Behaviour(fault="error_event"), deployment=NEVER_LONG)
    secret = client.realtime.client_secrets.create(session={"type": "realtime", "model": route.name})
    assert secret.session.type == "realtime"
    browser = OpenAI(base_url=talks.server.base_url, api_key=secret.value, max_retries=0)
    with browser, browser.realtime.connect(model=route.name) as talk:
        talk.response.create()
        error = next(event for event in talk if event.type == "error")
        assert error.error.message == "scripted failure"


def test_over_tls(tls_server: Server, scripts: Scripts) -> None:
    script = scripts(Behaviour())
    url = f"{tls_server.url.replace('http', 'ws', 1)}/v1/realtime?model={script.model}"
    shown = {"authorization": f"Bearer {tls_server.key}"}
    with connect(url, ssl=tls_server.tls, additional_headers=shown, proxy=None) as socket:
        assert json.loads(socket.recv(timeout=15))["type"] == "session.created"
        socket.send('{"type":"response.create"}')
        while json.loads(socket.recv(timeout=15))["type"] != "response.done":
            pass
    assert script.upstream.ended().outcome == "finished"


def test_what_comes_with_the_handshake_is_heard_in_whatever_pieces(talks: Talks) -> None:
    """The first event in fragments, behind the handshake in the same segment, byte by byte after it."""
    route = talks(Behaviour(), deployment=NEVER_LONG)
    protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{talks.server.port}/v1/realtime?model={route.name}"))
    request = protocol.connect()
    request.headers["Authorization"] = f"Bearer {talks.server.key}"
    event = b'{"type":"response.create"}'
    frames = (Frame(Opcode.TEXT, event[:7], fin=False), Frame(Opcode.PING, b"ping"), Frame(Opcode.CONT, event[7:]))
    said = b"".join(frame.serialize(mask=True, extensions=[]) for frame in frames)
    with talks.server.connect() as socket:
        socket.sendall(request.serialize() + said[:9])
        for byte in said[9:]:
            socket.sendall(bytes((byte,)))
        heard = b""
        while b"response.done" not in heard:
            piece = socket.recv(65_536)
            assert piece
            heard += piece
    assert heard.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\x8a\x04ping" in heard
    assert talks.of(route, 1)[0]["usage_source"] in {"provider", "estimated"}


@pytest.mark.parametrize(
    "lines",
    [
        b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n",
        b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 12\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: short\r\n",
        b"upgrade: h2c\r\nconnection: upgrade\r\n",
    ],
)
def test_a_handshake_that_is_none_is_a_400(talks: Talks, lines: bytes) -> None:
    route = talks(Behaviour(), deployment=NEVER_LONG)
    with talks.server.connect() as socket:
        head = (
            f"GET /v1/realtime?model={route.name} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {talks.server.key}\r\n"
        )
        socket.sendall(head.encode() + lines + b"\r\n" + os.urandom(64))
        said = b""
        while piece := socket.recv(65_536):
            said += piece
    assert said.startswith(b"HTTP/1.1 400 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] in {"bad_handshake", "upgrade_required"}
    assert route.asked == [0]
