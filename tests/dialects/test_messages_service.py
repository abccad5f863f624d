"""Anthropic's own SDK against the real process: in front of a scripted Anthropic, where it goes through, and of an OpenAI, where it is a chat."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.fixtures.deployments import PRICE, Route, Routes
from tests.upstream.anthropic_dialect import SIGNATURE
from tests.upstream.behaviour import Behaviour, ToolCall

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
WEATHER: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
NATIVE = {"provider": "anthropic"}
CHAT = {"provider": "openai"}
BOTH = pytest.mark.parametrize("where", [NATIVE, CHAT], ids=["native", "chat"])


@pytest.fixture
def client(routes: Routes) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        api_key=routes.server.key, base_url=routes.server.url, max_retries=0, timeout=20
    ) as client:
        yield client


def model(routes: Routes, *behaviours: Behaviour, **more: Any) -> Route:
    return routes(behaviours, **more)


@BOTH
def test_a_message_comes_back(routes: Routes, client: anthropic.Anthropic, where: Any) -> None:
    """Under the client's headers and ids, whoever answered."""
    route = model(routes, Behaviour(text="Hi.", prompt_tokens=5, completion_tokens=3), deployment=where)
    raw = client.messages.with_raw_response.create(
        model=route.name, max_tokens=50, messages=HELLO, system="Be brief.", metadata={"user_id": "ann"}
    )
    answer = raw.parse()
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": "Hi."}]
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens) == ("end_turn", 5, 3)
    assert answer._request_id == raw.headers["x-request-id"]
    body = json.loads(route.places[0].handle.entries()[-1].body)
    assert body["max_tokens"] == 50
    print(body)


@BOTH
def test_a_stream_is_one_of_events(routes: Routes, client: anthropic.Anthropic, where: Any) -> None:
    route = model(routes, Behaviour(text="one two three", segment_bytes=7, crlf=True, heartbeats=2), deployment=where)
    with client.messages.stream(model=route.name, max_tokens=50, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "one two three"
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("end_turn", 2, 3)


@BOTH
def test_count(routes: Routes, client: anthropic.Anthropic, where: Any) -> None:
    route = model(routes, Behaviour(), deployment=where)
    print(client.messages.count_tokens(model=route.name, messages=HELLO))
    with pytest.raises(anthropic.NotFoundError) as raised:
        client.messages.count_tokens(model="nope", messages=HELLO)
    print(raised.value.body, raised.value.request_id)
