"""Client → Penstock → LiteLLM in its own process → a scripted provider, in the provider's own API."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.fixtures.deployments import Place, Route, Routes, chunks, said, whole
from tests.upstream import openai_dialect
from tests.upstream.behaviour import Behaviour, ToolCall

pytest.importorskip("litellm", reason="LiteLLM is not installed: make test-integrations")
pytestmark = [pytest.mark.integrations, pytest.mark.timeout(180)]

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
AWS = {
    "x-litellm-aws-access-key-id": "AKIASCRIPTED",
    "x-litellm-aws-secret-access-key": "scripted",
    "x-litellm-aws-region-name": "eu-west-1",
}
CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": "From Bedrock."}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10},
    "metrics": {"latencyMs": 5},
}


@pytest.fixture
def client(routes: Routes) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=routes.server.key, base_url=routes.server.base_url, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def patient(routes: Routes) -> Iterator[None]:
    """A process that begins imports LiteLLM, and compiles it where that was never done: that may take its time."""
    usual, routes.server.http.timeout = routes.server.http.timeout, httpx.Timeout(120)
    yield
    routes.server.http.timeout = usual


def through(routes: Routes, *behaviours: Behaviour, model: str = "openai/scripted", **more: Any) -> Route:
    """A model that LiteLLM calls under this name."""
    deployment = {"provider": "litellm", "model": model} | more.pop("deployment", {})
    return routes(behaviours, deployment=deployment, **more)


def asked(place: Place) -> Any:
    return json.loads(place.handle.entries()[-1].body)


def worker(routes: Routes) -> int:
    """The process behind the server."""
    every = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    found = [pid for pid in every if told(pid, "cmdline").endswith("admin.long_tail.worker\0")]
    (pid,) = [pid for pid in found if told(pid, "stat").rpartition(")")[2].split()[1] == str(routes.server.pid)]
    return pid


def told(pid: int, name: str) -> str:
    """What the system says of a process, nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("streams", [False, True])
def test_a_call_goes_through(routes: Routes, streams: bool) -> None:
    """With the deployment's own key; the answer has its usage, and is billed."""
    route = through(routes, Behaviour(text="one two three", prompt_tokens=5))
    answer = routes.ask(route, stream=streams)
    assert (answer.status_code, said(answer)) == (200, "one two three")
    assert not streams or whole(answer)
    entry = route.places[0].handle.entries()[-1]
    assert entry.header("authorization") == f"Bearer sk-{route.places[0].id}"
    assert asked(route.places[0])["model"] == "scripted"
    record = routes.record(answer)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (5, 3)


@pytest.mark.parametrize("streams", [False, True])
def test_a_native_api_is_spoken(routes: Routes, client: openai.OpenAI, streams: bool) -> None:
    """Anthropic's, with tools."""
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    calls = (ToolCall("f", '{"a":1}'),)
    route = through(routes, Behaviour(tool_calls=calls), model="anthropic/claude-sonnet-4-5")
    base = route.places[0].handle.base_url.removesuffix("/v1")
    routes.server.admin.patch(f"/deployments/{route.places[0].id}", json={"base_url": base}).raise_for_status()
    if streams:
        with client.chat.completions.stream(model=route.name, messages=HELLO, tools=[tool]) as stream:
            message: Any = stream.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(model=route.name, messages=HELLO, tools=[tool]).choices[0].message
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [{"a": 1}]
    assert route.places[0].handle.entries()[-1].path.endswith("/v1/messages")


def test_bedrock_is_signed_for(routes: Routes) -> None:
    """By what the deployment's headers say; nobody needs a key of the gateway's."""
    route = through(routes, Behaviour(body=json.dumps(CONVERSED)), model="anthropic.claude-3-haiku-20240307-v1:0")
    place = route.places[0]
    endpoint = place.handle.base_url.removesuffix("/v1")
    changes = {
        "provider": "bedrock",
        "base_url": None,
        "api_key": None,
        "headers": {**AWS, "x-litellm-aws-bedrock-runtime-endpoint": endpoint},
    }
    routes.server.admin.patch(f"/deployments/{place.id}", json=changes).raise_for_status()
    answer = routes.ask(route)
    assert (answer.status_code, said(answer)) == (200, "From Bedrock.")
    entry = place.handle.entries()[-1]
    assert entry.path.endswith("/converse")
    assert (entry.header("authorization") or "").startswith("AWS4-HMAC-SHA256 Credential=AKIASCRIPTED/")


def test_embeddings_go_through(routes: Routes, client: openai.OpenAI) -> None:
    """As the SDK asks for them."""
    route = through(routes, Behaviour())
    found = client.embeddings.create(model=route.name, input=["one two", "three"])
    assert [one.embedding for one in found.data] == [openai_dialect.vector(text, 8) for text in ("one two", "three")]


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (Behaviour(status=429, headers=(("retry-after", "7"),)), 429, "rate_limit_exceeded"),
        (Behaviour(status=401), 502, "upstream_credentials_exhausted"),
        (Behaviour(status=503), 503, "upstream_overloaded"),
        (
            Behaviour(
                status=400,
                error_message="This model's maximum context length is 8 tokens",
                error_code="context_length_exceeded",
            ),
            400,
            "context_length_exceeded",
        ),
    ],
)
def test_errors_keep_their_class(routes: Routes, behaviour: Behaviour, status: int, code: str) -> None:
    """One try of LiteLLM's: the retries are the gateway's."""
    route = through(routes, behaviour, retries={"attempts": 0})
    answer = routes.ask(route)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert route.asked == [1]


@pytest.mark.parametrize("streams", [False, True])
def test_a_failure_before_the_first_content_goes_to_another_provider(routes: Routes, streams: bool) -> None:
    """As from any other server."""
    other = routes(Behaviour(text="from another"))
    route = through(routes, Behaviour(status=500), fallbacks=[other.name], retries={"attempts": 0})
    assert said(routes.ask(route, stream=streams)) == "from another"


def test_a_stream_that_breaks_says_so(routes: Routes) -> None:
    """In-band and without `[DONE]`."""
    answer = routes.ask(through(routes, Behaviour(text="a b c d", fault="rst", fault_after=3)), stream=True)
    assert answer.status_code == 200
    assert not whole(answer)
    assert chunks(answer)[-1]["error"]["message"]


def test_a_client_that_leaves_stops_the_provider(routes: Routes) -> None:
    """All the way through."""
    route = through(routes, Behaviour(chunks=500, gap_s=0.05))
    body = routes.server.ask(route.name, stream=True)
    headers = {"authorization": f"Bearer {routes.server.key}"}
    with routes.server.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        seen = answer.iter_lines()
        for _ in range(6):
            next(seen)
    assert route.places[0].handle.ended().outcome == "client_left"


def test_a_client_cannot_say_where_keys_go(routes: Routes) -> None:
    """Arguments of LiteLLM's are the configuration's, and addresses in messages are not fetched from in here."""
    route = through(routes, Behaviour())
    refused = routes.ask(route, api_base="http://evil.example")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_parameter")
    picture = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}
    answer = routes.ask(route, messages=[{"role": "user", "content": [picture]}])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_value")
    assert route.asked == [0]


def test_a_process_that_dies_is_started_again(routes: Routes) -> None:
    """By the next call; and it does not outlive the server."""
    route = through(routes, Behaviour(text="back"), retries={"attempts": 5, "base_s": 0.5, "max_s": 4})
    assert said(routes.ask(route)) == "back"
    first = worker(routes)
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 90
    while True:
        answer = routes.ask(route)
        if answer.status_code == 200:
            break
        assert time.monotonic() < deadline, answer.text
    assert worker(routes) != first
