"""A provider's own clients on the gateway: native bytes both ways, with the key, the limits and the bill of every other call."""

import hashlib
import json
import socket
from typing import Any

import httpx
import pytest

from tests.fixtures.deployments import Route, chunks, price
from tests.fixtures.server import Json
from tests.native.conftest import Natives
from tests.upstream.behaviour import Behaviour

SAY: Json = {"contents": [{"role": "user", "parts": [{"text": "one two three"}]}]}
TURNS: Json = {"messages": [{"role": "user", "content": [{"text": "one two three"}]}]}


def post(natives: Natives, path: str, body: object, headers: Json | None = None) -> httpx.Response:
    shown = {"authorization": f"Bearer {natives.server.key}"} if headers is None else headers
    return natives.server.http.post(path, content=json.dumps(body), headers=shown)


def google(route: Route, method: str = "generateContent") -> str:
    return f"/gemini/v1beta/models/{route.name}:{method}"


def amazon(route: Route, operation: str = "converse") -> str:
    return f"/bedrock/model/{route.name}/{operation}"


# Whose key, and whose it is not


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/openai/v1/chat/completions", lambda body: body["error"]["code"]),
        ("/openai/v1/nothing", lambda body: body["error"]["code"]),
        ("/anthropic/v1/messages", lambda body: body["error"]["type"]),
        ("/gemini/v1beta/models/x:generateContent", lambda body: body["error"]["status"]),
        ("/bedrock/model/x/converse", lambda body: body["__type"]),
    ],
)
def test_nobody_passes_without_a_key(natives: Natives, path: str, shape: Any) -> None:
    answer = post(natives, path, {}, {})
    assert answer.status_code == 401
    assert shape(answer.json()) in {
        "invalid_api_key",
        "authentication_error",
        "UNAUTHENTICATED",
        "UnrecognizedClientException",
    }
    assert post(natives, path, {}, {"authorization": "Bearer sk-ps-nobody"}).status_code == 401


def test_a_key_is_shown_as_each_sdk_shows_it_and_goes_nowhere(natives: Natives) -> None:
    """In any of the headers or, at Google's, in the query; the upstream sees the deployment's."""
    route = natives.native("gemini", Behaviour())
    key = natives.server.key
    for headers, query in (
        ({"authorization": f"Bearer {key}"}, ""),
        ({"x-goog-api-key": key}, ""),
        ({"x-api-key": key}, ""),
        ({"api-key": key}, ""),
        ({}, f"?key={key}&alt=json"),
    ):
        assert post(natives, google(route) + query, SAY, headers).status_code == 200
    for entry in route.places[0].handle.entries():
        assert key not in f"{entry.path} {entry.headers} {entry.body}"
        assert entry.header("x-goog-api-key") == f"sk-{route.places[0].id}"
        assert entry.header("authorization") is None
    assert key not in natives.server.output


def test_a_key_has_its_models_and_routes(natives: Natives) -> None:
    route = natives.native("gemini", Behaviour())
    other = natives.server.new_key(models=["other"])
    denied = post(natives, google(route), SAY, {"x-goog-api-key": other})
    assert (denied.status_code, denied.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert denied.json()["error"]["details"][0]["reason"] == "MODEL_ACCESS_DENIED"
    narrow = natives.server.new_key(routes=["/gemini/*"])
    assert post(natives, google(route), SAY, {"x-goog-api-key": narrow}).status_code == 200
    refused = post(natives, amazon(route), TURNS, {"authorization": f"Bearer {narrow}"})
    assert (refused.status_code, refused.json()["__type"]) == (403, "AccessDeniedException")
    assert "route_access_denied" in refused.json()["message"]


def test_a_model_of_another_provider_is_not_asked(natives: Natives) -> None:
    """A model that has no deployment of the family says so; one that has several is asked at that family's."""
    openai = natives(Behaviour())
    answer = post(natives, google(openai), SAY)
    assert (answer.status_code, openai.asked) == (400, [0])
    assert "/gemini" in answer.json()["error"]["message"]
    gemini = natives.native("gemini", Behaviour())
    answer = post(natives, "/openai/v1/chat/completions", natives.server.ask(gemini.name))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_endpoint")
    assert gemini.asked == [0]


def test_the_provider_s_name_for_a_model_is_a_name(natives: Natives) -> None:
    """What a deployment declares is enough, and it is held to the allow-list of the model that has it."""
    route = natives.native("gemini", Behaviour(), model="gemini-of-theirs")
    answer = post(natives, "/gemini/v1beta/models/gemini-of-theirs:generateContent", SAY)
    assert answer.headers["x-penstock-model"] == route.name
    body = {"model": "theirs", "messages": [{"role": "user", "content": "x"}]}
    chat = natives(Behaviour(), deployment={"model": "theirs"})
    answer = post(natives, "/openai/v1/chat/completions", body)
    assert answer.headers["x-penstock-model"] == chat.name
    assert json.loads(chat.places[0].handle.ended().body)["model"] == "theirs"
    key = natives.server.new_key(models=["other"])
    denied = post(natives, "/openai/v1/chat/completions", body, {"authorization": f"Bearer {key}"})
    assert denied.status_code == 403


# OpenAI's and Anthropic's


def test_openai_s_own_paths(natives: Natives) -> None:
    """Chat, with or without the version in the path; the bill is that of the same call elsewhere."""
    route = natives(Behaviour(), deployment={"price": {"input": 1000, "output": 2000}})
    for path in ("/openai/v1/chat/completions", "/openai/chat/completions"):
        answer = post(natives, path, natives.server.ask(route.name, "one two"))
        assert answer.json()["choices"][0]["message"]["content"] == "ann|one two"
        entry = route.places[0].handle.entries()[-1]
        assert natives.record(answer)["cost_nanousd"] == price(entry)
    streamed = post(natives, "/openai/v1/chat/completions", natives.server.ask(route.name, stream=True))
    assert streamed.text.rstrip().endswith("data: [DONE]")
    embedded = post(natives, "/openai/v1/embeddings", {"model": route.name, "input": "x"})
    assert embedded.json()["object"] == "list"
    spoken = post(natives, "/openai/v1/moderations", {"model": route.name, "input": "x"})
    assert spoken.status_code == 200


def test_openai_s_responses_as_they_are(natives: Natives) -> None:
    """With the upstream's ids and events, byte for byte; what it keeps is its own."""
    route = natives(Behaviour(), deployment={"responses": True})
    body = {"model": route.name, "input": [{"role": "user", "content": "hi"}], "store": True, "user": "ann"}
    answer = post(natives, "/openai/v1/responses", body)
    assert answer.json()["id"] == "resp_of_the_upstream"
    record = natives.record(answer)
    entry = route.places[0].handle.entries()[-1]
    assert (record["cost_nanousd"], record["usage_source"]) == (price(entry), "provider")
    streamed = post(natives, "/openai/v1/responses", {**body, "stream": True})
    assert streamed.text.startswith("event: response.created\n")
    assert chunks(streamed)[-1]["response"]["id"] == "resp_of_the_upstream"
    assert natives.record(streamed)["usage_source"] == "provider"


def test_a_response_that_cannot_be_billed_is_refused(natives: Natives) -> None:
    route = natives(Behaviour(), deployment={"responses": True})
    body = {"model": route.name, "input": "hi", "background": True}
    answer = post(natives, "/openai/v1/responses", body)
    assert (answer.status_code, answer.json()["error"]["param"], route.asked) == (400, "background", [0])
    server = {"type": "mcp", "server_label": "x", "server_url": "https://evil.example/mcp"}
    answer = post(natives, "/openai/v1/responses", {"model": route.name, "input": "hi", "tools": [server]})
    assert (answer.status_code, answer.json()["error"]["code"], route.asked) == (400, "mcp_server_not_registered", [0])
    translated = natives(Behaviour(), deployment={"responses": False})
    answer = post(natives, "/openai/v1/responses", {"model": translated.name, "input": "hi"})
    assert (answer.status_code, translated.asked) == (400, [0])


def test_anthropic_s_own_paths(natives: Natives) -> None:
    route = natives.native("anthropic", Behaviour())
    body = {"model": route.name, "max_tokens": 50, "messages": [{"role": "user", "content": "one two"}]}
    headers = {"x-api-key": natives.server.key, "anthropic-version": "2023-06-01", "anthropic-beta": "b-1"}
    answer = post(natives, "/anthropic/v1/messages", body, headers)
    assert answer.json()["content"][0]["text"] == "-|one two"
    entry = route.places[0].handle.entries()[-1]
    assert (entry.header("anthropic-beta"), entry.header("x-api-key")) == ("b-1", f"sk-{route.places[0].id}")
    assert natives.record(answer)["cost_nanousd"] == price(entry)
    counted = post(natives, "/anthropic/v1/messages/count_tokens", body, headers)
    assert counted.json() == {"input_tokens": 2}
    elsewhere = natives(Behaviour())
    refused = post(natives, "/anthropic/v1/messages", {**body, "model": elsewhere.name}, headers)
    assert (refused.status_code, refused.json()["type"], elsewhere.asked) == (400, "error", [0])


# Gemini's


def test_a_content_goes_through_as_it_is(natives: Natives) -> None:
    """Body and answer are the client's and the provider's own; the bill is the provider's count."""
    route = natives.native("gemini", Behaviour(cached_tokens=1, reasoning_tokens=2))
    body = {**SAY, "generationConfig": {"maxOutputTokens": 50, "newOption": [1.5, None]}}
    answer = post(natives, google(route), body)
    assert answer.json()["usageMetadata"]["thoughtsTokenCount"] == 2
    assert answer.json()["candidates"][0]["content"]["parts"][0]["text"] == "-|one two three"
    entry = route.places[0].handle.ended()
    assert entry.body_sha256 == hashlib.sha256(json.dumps(body).encode()).hexdigest()
    assert entry.path.endswith("/v1beta/models/scripted:generateContent")
    record = natives.record(answer)
    assert record["usage_source"] == "provider"
    assert record["cost_nanousd"] == price(entry)
    assert answer.headers["x-penstock-cost-usd"] == f"{price(entry) / 1e9:.9f}"


@pytest.mark.parametrize("sse", [True, False])
def test_a_stream_comes_as_events_or_as_an_array(natives: Natives, sse: bool) -> None:
    route = natives.native("gemini", Behaviour(completion_tokens=7))
    answer = post(natives, google(route, "streamGenerateContent") + ("?alt=sse" if sse else ""), SAY)
    events = chunks(answer) if sse else answer.json()
    assert "".join(one["candidates"][0]["content"]["parts"][0]["text"] for one in events) == "-|one two three"
    record = natives.record(answer)
    assert (record["prompt_tokens"], record["completion_tokens"], record["usage_source"]) == (3, 7, "provider")


@pytest.mark.parametrize("sse", [True, False])
def test_a_stream_that_breaks_says_so_in_its_own_shape(natives: Natives, sse: bool) -> None:
    """And what came is billed."""
    route = natives.native("gemini", Behaviour(fault="fin", fault_after=2), price={"input": 1000, "output": 2000})
    answer = post(natives, google(route, "streamGenerateContent") + ("?alt=sse" if sse else ""), SAY)
    events = chunks(answer) if sse else answer.json()
    assert events[-1]["error"]["status"] == "INTERNAL"
    record = natives.record(answer)
    assert (record["error_code"], record["prompt_tokens"], record["completion_tokens"]) == ("upstream_error", 3, 2)


def test_embeddings_and_counts(natives: Natives) -> None:
    """What the provider does not count is estimated; counting costs nothing."""
    route = natives.native("gemini", Behaviour())
    body = {"model": f"models/{route.name}", "content": {"parts": [{"text": "one two"}]}}
    answer = post(natives, google(route, "embedContent"), body)
    assert len(answer.json()["embedding"]["values"]) == 4
    assert json.loads(route.places[0].handle.entries()[-1].body)["model"] == "models/scripted"
    assert natives.record(answer)["usage_source"] == "estimated"
    assert natives.record(answer)["cost_nanousd"] > 0
    many = post(natives, google(route, "batchEmbedContents"), {"requests": [body, body]})
    assert len(many.json()["embeddings"]) == 2
    counted = post(natives, google(route, "countTokens"), {"generateContentRequest": {"model": "x", **SAY}})
    assert natives.record(counted)["cost_nanousd"] == 0


def test_a_limit_is_read_whatever_it_is_called_and_however_often(natives: Natives) -> None:
    """The greatest is held; an upstream gets no body in which it could read another."""
    route = natives.native("gemini", Behaviour(), price={"input": 0, "output": 1_000_000})
    key = natives.server.new_key(budget={"limit_usd": 100, "period": "total"})
    twice = b'{"contents":[],"generationConfig":{"maxOutputTokens":10,"max_output_tokens":"500"}}'
    answer = natives.server.http.post(google(route), content=twice, headers={"x-goog-api-key": key})
    assert answer.status_code == 429
    assert answer.json()["error"]["details"][0]["reason"] == "BUDGET_EXCEEDED"
    hidden = b'{"contents":[],"generationConfig":{"maxOutputTokens":90,"maxOutput\\u0054okens":10}}'
    assert natives.server.http.post(google(route), content=hidden, headers={"x-goog-api-key": key}).status_code == 200
    assert route.places[0].handle.ended().body.count("okens") == 1


def test_native_errors_go_through(natives: Natives) -> None:
    """With the provider's status and words; what it says of the deployment's key does not."""
    wrong = natives.native("gemini", Behaviour(status=400, error_message="no such option", error_code="ODD"))
    answer = post(natives, google(wrong), SAY)
    error = answer.json()["error"]
    assert (answer.status_code, error["message"], error["details"][0]["reason"]) == (400, "no such option", "ODD")
    key = natives.native("gemini", Behaviour(status=403, error_message="key AIza-secret is blocked"))
    answer = post(natives, google(key), SAY)
    assert (answer.status_code, "AIza" in answer.text) == (502, False)
    chat = natives(Behaviour(status=422, error_message="odd", error_param="p"))
    answer = post(natives, "/openai/v1/chat/completions", natives.server.ask(chat.name))
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, "odd")


def test_another_deployment_of_the_provider_takes_over(natives: Natives) -> None:
    """And none of another provider, though the model has one."""
    route = natives.native("gemini", Behaviour(status=503), Behaviour(), price={"input": 1000, "output": 2000})
    answer = post(natives, google(route, "streamGenerateContent"), SAY)
    assert answer.headers["x-penstock-deployment"] == route.places[1].id
    assert answer.headers["x-penstock-attempts"] == "2"
    other = natives(Behaviour())
    failing = natives.native("gemini", Behaviour(status=500))
    changed = natives.server.admin.patch(f"/models/{failing.name}", json={"fallbacks": [other.name]})
    assert changed.status_code == 200
    assert post(natives, google(failing), SAY).status_code == 500
    assert other.asked == [0]


def test_who_leaves_is_billed_for_what_came_and_nothing_more_is_made(natives: Natives) -> None:
    route = natives.native("gemini", Behaviour(chunks=500, gap_s=0.05))
    body = json.dumps(SAY).encode()
    path = google(route, "streamGenerateContent")
    raw = socket.create_connection(("127.0.0.1", natives.server.port), timeout=10)
    raw.sendall(
        f"POST {path} HTTP/1.1\r\nhost: x\r\nx-goog-api-key: {natives.server.key}\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    assert b"200 OK" in raw.recv(65_536)
    raw.close()
    entry = route.places[0].handle.ended()
    assert entry.outcome == "client_left"
    record = natives.of(route)
    assert record["error_code"] == "client_disconnected"
    assert 0 < record["completion_tokens"] <= entry.completion_tokens < 500


# What cannot be metered


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/openai/v1/models"),
        ("POST", "/openai/v1/fine_tuning/jobs"),
        ("POST", "/anthropic/v1/messages/batches"),
        ("POST", "/gemini/v1beta/models/x:predict"),
        ("POST", "/gemini/v1beta/cachedContents"),
        ("POST", "/bedrock/model/x/async-invoke"),
        ("GET", "/openai/v1/files/../models"),
        ("GET", "/openai/v1/files/%2e%2e/models"),
    ],
)
def test_what_says_nothing_of_its_cost_is_refused_by_name(natives: Natives, method: str, path: str) -> None:
    raw = socket.create_connection(("127.0.0.1", natives.server.port), timeout=10)
    raw.sendall(
        f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"authorization: Bearer {natives.server.key}\r\ncontent-length: 2\r\n\r\n{{}}".encode()
    )
    said = b""
    while piece := raw.recv(65_536):
        said += piece
    raw.close()
    assert said.startswith(b"HTTP/1.1 403 ")
    assert path.encode() in said
    assert b"it says nothing of what it costs" in said


def test_a_declared_path_costs_what_is_declared(natives: Natives) -> None:
    """To the nano-dollar, whatever is asked there; with the deployment's key, and only for who may use its model."""
    http, key = natives.server.http, natives.server.key
    answer = http.get("/openai/v1/files/file-1?limit=2", headers={"authorization": f"Bearer {key}"})
    assert answer.json() == {"data": []}
    record = natives.record(answer)
    assert (record["cost_nanousd"], record["model"]) == (2_000_000, "priced")
    answer = http.get(f"/gemini/v1beta/files?key={key}&pageSize=3")
    assert answer.json() == {"files": []}
    assert natives.record(answer)["cost_nanousd"] == 500_000_000
    poor = natives.server.new_key(budget={"limit_usd": 0.4, "period": "total"})
    assert http.get(f"/gemini/v1beta/files?key={poor}").status_code == 429
    other = natives.server.new_key(models=["other"])
    assert http.get("/openai/v1/files/x", headers={"authorization": f"Bearer {other}"}).status_code == 403
    assert http.delete("/openai/v1/files/x", headers={"authorization": f"Bearer {key}"}).status_code == 403
