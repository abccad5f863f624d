"""Bad input gets the documented error: right status, right code, all four fields, and the connection goes on."""

import json
from typing import Any

import pytest

from tests.fixtures.raw import Raw, Reply, chat, head, whole
from tests.fixtures.server import ADMIN_KEY, Server

CHAT = "/v1/chat/completions"


def post(server: Server, body: bytes, path: str = CHAT, *, key: str | None = None) -> Reply:
    with Raw(server) as raw:
        reply = raw.send(head(server, f"content-length: {len(body)}", path=path, key=key), body).reply()
        assert raw.send(head(server, method="GET", path="/v1/models")).reply().status == 200, "the connection went"
    return reply


EXCESS = b'{"model":"chat","messages":[{"role":"user"}],"input":""}}'


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"model":', b"\xff\xfe", EXCESS, b"\x00"])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings"])
def test_what_is_not_json_is_a_400(server: Server, path: str, body: bytes) -> None:
    """Empty and cut-off bodies included."""
    reply = post(server, body, path)
    assert (reply.status, reply.code) == (400, "invalid_json")


@pytest.mark.parametrize("where", [b'"us\x80r":1,', b'"user":"\x80",', b'"stream":true,"stream_options":{"\x80":1},'])
def test_a_body_that_is_not_utf8_is_a_400(server: Server, where: bytes) -> None:
    """In a name that nobody knows, in a value, in a nested object."""
    reply = post(server, b'{%b"model":"chat","messages":[{"role":"user","content":"x"}]}' % where)
    assert (reply.status, reply.code) == (400, "invalid_json")


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"3", b"true"])
def test_json_that_is_no_object_is_a_400(server: Server, body: bytes) -> None:
    """An object is what the API takes."""
    reply = post(server, body)
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")
    assert reply.code


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_body_nested_too_deeply_is_a_400(server: Server, opening: bytes) -> None:
    """A hundred thousand brackets neither crash nor hang a parser."""
    body = b'{"model":"chat","messages":' + opening * 100_000
    assert post(server, body).status == 400


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": 7}, "model"),
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [7]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 9}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": "many"}, "max_completion_tokens"),
        ({"user": 1}, "user"),
    ],
)
def test_a_wrong_type_or_value_names_its_parameter(server: Server, change: dict[str, Any], param: str) -> None:
    """In `param`, as a path."""
    reply = post(server, json.dumps({**server.ask("chat"), **change}).encode())
    assert reply.status == 400
    assert reply.code
    named = reply.json["error"]["param"]
    assert named is not None
    assert named.replace("[...]", "[0]") == param


@pytest.mark.parametrize(("path", "missing"), [(CHAT, "messages"), ("/v1/embeddings", "input"), (CHAT, "model")])
def test_a_missing_parameter_is_named(server: Server, path: str, missing: str) -> None:
    """With a code of its own."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "input": "x"}
    del body[missing]
    reply = post(server, json.dumps(body).encode(), path)
    assert (reply.status, reply.code, reply.json["error"]["param"]) == (400, "missing_required_parameter", missing)


def test_an_unknown_model_is_a_404_that_says_where_to_look(server: Server) -> None:
    """The name is in the message, the parameter named."""
    reply = post(server, chat(server, "gpt-99"))
    assert (reply.status, reply.code, reply.json["error"]["param"]) == (404, "model_not_found", "model")
    assert "gpt-99" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("authorization: Bearer sk-ps-unknown",),
        ("authorization: Bearer ",),
        ("authorization: Basic c2s6c2s=",),
        ("authorization:",),
        ("x-api-key: sk-ps-unknown",),
        ("api-key: \xff\xfe",),
    ],
)
def test_without_a_valid_key_there_is_only_a_401(server: Server, lines: tuple[str, ...]) -> None:
    """On every hot route, and whether or not the model exists."""
    for model in ("chat", "gpt-99"):
        body = chat(server, model)
        every = ("POST /v1/chat/completions HTTP/1.1", "host: x", *lines, f"content-length: {len(body)}")
        request = "\r\n".join(every).encode("latin-1") + b"\r\n\r\n" + body
        with Raw(server) as raw:
            reply = raw.send(request).reply()
        assert (reply.status, reply.code) == (401, "invalid_api_key")
        assert reply.json["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "authorization"])
def test_a_key_may_come_in_three_headers(server: Server, name: str) -> None:
    """OpenAI's, Anthropic's and Azure's; the admin key opens the data plane too."""
    for key in (server.key, ADMIN_KEY):
        value = f"Bearer {key}" if name == "authorization" else key
        with Raw(server) as raw:
            request = f"GET /v1/models HTTP/1.1\r\nhost: x\r\n{name}: {value}\r\n\r\n".encode()
            assert raw.send(request).reply().status == 200


def test_a_virtual_key_does_not_open_the_admin_plane(server: Server) -> None:
    """Two planes, two kinds of key."""
    with Raw(server) as raw:
        reply = raw.send(head(server, method="GET", path="/admin/v1/keys")).reply()
        assert reply.status in (401, 403)
        assert reply.code


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nothing", "/v1/chat/completions/", "/", "/v1/chat", "/%00", "//v1"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_route_is_a_404(server: Server, path: str, method: str) -> None:
    """In the same shape as every other error, never a framework's own."""
    with Raw(server) as raw:
        reply = raw.send(head(server, "content-length: 0", method=method, path=path)).reply()
    assert (reply.status, reply.json["error"]["type"]) == (404, "invalid_request_error")
    assert reply.code


@pytest.mark.parametrize(("method", "path"), [("GET", CHAT), ("DELETE", "/v1/embeddings"), ("POST", "/v1/models")])
def test_a_wrong_method_is_a_405_that_names_the_right_one(server: Server, method: str, path: str) -> None:
    """In the error and in `allow`."""
    with Raw(server) as raw:
        reply = raw.send(head(server, "content-length: 0", method=method, path=path)).reply()
    assert (reply.status, reply.code) == (405, "method_not_allowed")
    assert reply.headers["allow"] in ("POST", "GET")


def test_every_refusal_has_a_request_id(server: Server) -> None:
    """What a user can quote."""
    for body in (b"{", chat(server, "gpt-99"), b"{}"):
        assert post(server, body).headers["x-request-id"]


def test_two_model_fields_mean_the_one_that_was_checked(server: Server) -> None:
    """A key for `embed` cannot reach `chat` by naming both."""
    key = server.new_key(models=["embed"])
    body = b'{"model":"chat","messages":[{"role":"user","content":"x"}],"model":"embed"}'
    allowed = post(server, body, key=key)
    refused = post(server, body.replace(b'"chat"', b'"x"').replace(b'"embed"', b'"chat"'), key=key)
    assert allowed.status == 200
    assert allowed.json["model"] == "scripted"
    assert (refused.status, refused.code) == (403, "model_access_denied")


def test_a_head_request_has_no_body(server: Server) -> None:
    """Its length may be told, its body not: the next answer has to be found."""
    with Raw(server) as raw:
        raw.send(head(server, method="HEAD", path="/nowhere"))
        raw.until(b"\r\n\r\n")
        assert raw.send(whole(server, chat(server))).reply().status == 200
