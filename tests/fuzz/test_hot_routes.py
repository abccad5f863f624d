"""Nonsense on the hot routes: never a 500, never a hang, and the process lives on."""

import json
import re
import socket
import time
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.units.endpoints import ENDPOINTS
from tests.fixtures.raw import Raw, Reply, chat, head, said, whole
from tests.fixtures.server import Server

PATIENCE_S = 15.0
TEXT = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
HOT = (*TEXT, *(path.decode() for path in ENDPOINTS))
STATUS = re.compile(rb"^HTTP/1\.1 (\d{3}) ", re.MULTILINE)
FEW = settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "tool"]) | st.text(), "content": values}),
    max_size=3,
)
KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["chat", "s/none", "embed", "gpt-99", "*", "s/*", ""]) | values,
    "messages": messages | values,
    "items": messages | values,
    "prompt": st.text(max_size=20) | values,
    "input": st.text(max_size=20) | st.lists(st.text(max_size=5)) | messages | values,
    "stream": st.booleans() | values,
    "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans() | values}) | values,
    "user": st.text(max_size=9) | values,
    "query": st.text(max_size=9) | values,
    "documents": st.lists(st.text(max_size=5) | st.dictionaries(st.just("text"), values), max_size=3) | values,
}
OTHERS = (
    "temperature",
    "top_p",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "presence_penalty",
    "dimensions",
    "x",
    "instructions",
    "previous_response_id",
    "conversation",
    "background",
    "store",
    "tools",
    "include",
    "metadata",
)
bodies = st.fixed_dictionaries({}, optional={**KNOWN, **dict.fromkeys(OTHERS, values)})


def send(server: Server, data: bytes) -> bytes:
    """Everything that comes back until the server closes; the client says that it is done."""
    began = time.monotonic()
    received = b""
    with Raw(server) as raw:
        raw.socket.settimeout(PATIENCE_S)
        with suppress(ConnectionError):  # a refusal may come while we still send; a timeout is a hang, and is raised
            raw.send(data)
            raw.socket.shutdown(socket.SHUT_WR)
            while part := raw.more():
                received += part
    assert time.monotonic() - began < PATIENCE_S
    return received


def check(server: Server, data: bytes) -> None:
    received = send(server, data)
    assert not received or received.startswith(b"HTTP/1.1 ")
    statuses = [int(status) for status in STATUS.findall(received)]
    assert 500 not in statuses, (data, received)


@FEW
@given(data=st.binary(max_size=400))
def test_random_bytes_end_in_a_refusal_or_a_close(server: Server, data: bytes) -> None:
    """Whatever a port scanner sends."""
    check(server, data)


@FEW
@given(data=st.binary(max_size=300), path=st.sampled_from(HOT))
def test_random_bytes_as_a_body_are_refused(server: Server, data: bytes, path: str) -> None:
    """Well-framed nonsense: a 400 on a connection that goes on."""
    with Raw(server) as raw:
        reply = raw.send(head(server, f"content-length: {len(data)}", path=path), data).reply()
        assert reply.status == 400
        assert reply.code
        assert raw.send(head(server, method="GET", path="/v1/models")).reply().status == 200


@FEW
@given(data=st.data())
def test_a_valid_request_with_scratches_never_breaks_anything(server: Server, data: st.DataObject) -> None:
    """Bytes changed, cut out, doubled and put in, anywhere in two pipelined requests."""
    request = bytearray(whole(server, chat(server)) + whole(server, chat(server, stream=True)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(request) - 1))
        end = min(start + data.draw(st.integers(0, 12)), len(request))
        match data.draw(st.sampled_from(["change", "cut", "double", "insert"])):
            case "change":
                request[start] = data.draw(st.integers(0, 255))
            case "cut":
                del request[start:end]
            case "double":
                request[start:start] = request[start:end]
            case "insert":
                request[start:start] = data.draw(
                    st.binary(max_size=6) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"\x00"])
                )
        if not request:
            return
    check(server, bytes(request))


@FEW
@given(body=bodies, path=st.sampled_from(HOT))
def test_any_json_object_gets_an_answer_or_a_reason(server: Server, body: dict[str, Any], path: str) -> None:
    """Known fields with any value of any type. What is refused is refused in the usual shape."""
    data = json.dumps(body).encode()
    with Raw(server) as raw:
        reply = raw.send(head(server, f"content-length: {len(data)}", path=path), data).reply()
    assert reply.status in (200, 400, 403, 404, 502), (body, reply)
    if reply.status != 200:
        assert reply.json["error"]["message"]
        assert reply.json["error"]["type"] != "internal_error"
        assert set(reply.json["error"]) == {"message", "type", "param", "code"}


@FEW
@given(value=values, field=st.sampled_from([*KNOWN, *OTHERS]), path=st.sampled_from(TEXT))
def test_one_odd_value_in_a_good_request_is_passed_or_named(server: Server, value: Any, field: str, path: str) -> None:
    """If it is refused, `param` starts with the field's name."""
    good = {**server.ask("chat"), "input": "x"}
    if path != "/v1/responses":  # a prompt is a reference there
        good["prompt"] = "x"
    data = json.dumps({**good, field: value}).encode()
    reply = post(server, path, data)
    assert reply.status in (200, 400, 404), (field, value, reply)
    if reply.status == 400:
        param = reply.json["error"]["param"]
        assert param is None or param.startswith(field), (field, value, reply)


@FEW
@given(
    name=st.sampled_from(
        ["accept", "expect", "connection", "upgrade", "te", "cookie", "traceparent", "x-penstock-tags"]
    ),
    value=st.text(st.characters(codec="latin-1", exclude_characters="\r\n\x00"), max_size=60)
    | st.sampled_from(["100-continue", "close", "keep-alive, x", "h2c", "upgrade", "websocket"]),
)
def test_any_value_in_a_harmless_header_is_survived(server: Server, name: str, value: str) -> None:
    """Refused or ignored, and nothing of it reaches another line."""
    body = chat(server)
    check(server, head(server, f"{name}: {value}", f"content-length: {len(body)}") + body)


def test_the_process_still_works(server: Server) -> None:
    """Random order puts this anywhere between the others, the fixture's end looks once more."""
    assert said(post(server, HOT[0], chat(server))) == "ann|hello"


def post(server: Server, path: str, data: bytes) -> Reply:
    with Raw(server) as raw:
        return raw.send(head(server, f"content-length: {len(data)}", path=path), data).reply()
