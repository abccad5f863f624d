"""OpenAI's SDK against the real process with a scripted Anthropic behind it."""

from typing import Any

import openai
import pytest

from tests.dialects.service import HELLO, WEATHER, City, asked
from tests.fixtures.deployments import Route, Routes, chunks, said, whole
from tests.upstream.anthropic_dialect import SIGNATURE
from tests.upstream.behaviour import Behaviour, ToolCall

CLAUDE = {"provider": "anthropic"}


def claude(routes: Routes, *behaviours: Behaviour, **more: Any) -> Route:
    """A model with one deployment that answers so."""
    deployment = CLAUDE | more.pop("deployment", {})
    return routes(behaviours, deployment=deployment, **more)


def test_a_chat_is_a_message(routes: Routes, client: openai.OpenAI) -> None:
    """Path, key and version are Anthropic's; the answer is OpenAI's; the price is of the cache's parts as well."""
    told = Behaviour(text="Hi.", prompt_tokens=5, completion_tokens=3, cached_tokens=100, cache_write_tokens=10)
    price = {"input": 1000, "output": 2000, "cached_input": 100, "cache_write": 1250}
    route = claude(routes, told, deployment={"price": price, "model": "claude-sonnet-4-5"})
    raw = client.chat.completions.with_raw_response.create(model=route.name, messages=HELLO, user="ann")
    answer = raw.parse()
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hi.", "stop")
    assert (answer.model, answer.usage and answer.usage.prompt_tokens) == (route.name, 115)
    assert (
        raw.headers["x-penstock-cost-usd"] == "0.033500000"
    )  # 5 × 1000 + 100 × 100 + 10 × 1250 + 3 × 2000 per million
    entry = route.places[0].handle.entries()[-1]
    assert entry.path.endswith("/v1/messages")
    assert (entry.header("x-api-key"), entry.header("authorization")) == (f"sk-{route.places[0].id}", None)
    assert entry.header("anthropic-version") == "2023-06-01"
    body = asked(route.places[0])
    assert (body["model"], body["metadata"]) == ("claude-sonnet-4-5", {"user_id": "ann"})
    assert body["system"] == [{"type": "text", "text": "Be brief."}]


def test_a_proxy_with_a_key_of_its_own_gets_the_version_alone(routes: Routes) -> None:
    """It would not be taken for Anthropic's API otherwise."""
    route = claude(routes, Behaviour(), deployment={"api_key": None})
    assert routes.ask(route).status_code == 200
    entry = route.places[0].handle.entries()[-1]
    assert (entry.header("x-api-key"), entry.header("anthropic-version")) == (None, "2023-06-01")


def test_a_stream_is_one_of_chunks(routes: Routes, client: openai.OpenAI) -> None:
    """In any segments; usage only if it was asked for, and in the record all the same."""
    route = claude(routes, Behaviour(text="one two three", segment_bytes=7, crlf=True, heartbeats=2))
    stream = client.chat.completions.create(
        model=route.name, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    heard = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in heard if chunk.choices) == "one two three"
    assert heard[-1].usage is not None
    assert (heard[-1].usage.prompt_tokens, heard[-1].usage.completion_tokens) == (2, 3)
    plain = routes.ask(route, messages=HELLO, stream=True)
    assert whole(plain)
    assert "usage" not in plain.text
    record = routes.record(plain)
    assert (record["prompt_tokens"], record["completion_tokens"], record["usage_source"]) == (2, 3, "provider")


@pytest.mark.parametrize("streams", [False, True])
def test_thinking_and_tools_go_round(routes: Routes, client: openai.OpenAI, streams: bool) -> None:
    """What the first answer thought and called comes back with the result, signature and all."""
    calls = (ToolCall("weather", '{"city":"Oslo"}'), ToolCall("weather", '{"city":"Rome"}'))
    route = claude(routes, Behaviour(thinking="hm hm", tool_calls=calls), Behaviour(text="Cold."))
    options: dict[str, Any] = {"model": route.name, "tools": [WEATHER], "reasoning_effort": "high"}
    if streams:
        with client.chat.completions.stream(messages=HELLO, **options) as stream:
            message = stream.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(messages=HELLO, **options).choices[0].message
    assert [call.function.arguments for call in message.tool_calls or []] == ['{"city":"Oslo"}', '{"city":"Rome"}']
    kept: Any = message.model_dump(exclude_none=True)
    for call in kept["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    assert kept["thinking_blocks"] == [{"type": "thinking", "thinking": "hm hm", "signature": SIGNATURE}]
    results: list[Any] = [
        {"role": "tool", "tool_call_id": call["id"], "content": "cold"} for call in kept["tool_calls"]
    ]
    last = client.chat.completions.create(messages=[*HELLO, kept, *results], **options)
    assert last.choices[0].message.content == "Cold."
    turns = asked(route.places[0])["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert [block["type"] for block in turns[1]["content"]] == ["thinking", "tool_use", "tool_use"]
    assert turns[1]["content"][0]["signature"] == SIGNATURE
    assert [block["tool_use_id"] for block in turns[2]["content"]] == ["toolu_0", "toolu_1"]


def test_a_schema_gives_an_object(routes: Routes, client: openai.OpenAI) -> None:
    """The SDK's own parsing works, with a current model and with one that needs a tool for it."""
    text = '{"name":"Oslo","people":700000}'
    new = claude(routes, Behaviour(text=text), deployment={"model": "claude-sonnet-4-5"})
    tool = ToolCall("penstock_answer_in_json", text)
    old = claude(routes, Behaviour(tool_calls=(tool,)), deployment={"model": "claude-sonnet-4-20250514"})
    for route in (new, old):
        answer = client.chat.completions.parse(model=route.name, messages=HELLO, response_format=City)
        assert answer.choices[0].message.parsed == City(name="Oslo", people=700_000)
    assert asked(new.places[0])["output_config"]["format"]["type"] == "json_schema"
    assert asked(old.places[0])["tool_choice"]["type"] == "tool"


def test_a_call_without_a_limit_gets_the_one_that_is_held_for(routes: Routes) -> None:
    """Anthropic wants one, and no answer may cost more than was set aside."""
    route = claude(routes, Behaviour(), deployment={"max_output_tokens": 321})
    assert routes.ask(route).status_code == 200
    assert asked(route.places[0])["max_tokens"] == 321
    assert routes.ask(route, max_completion_tokens=5).status_code == 200
    assert asked(route.places[0])["max_tokens"] == 5


@pytest.mark.parametrize(
    ("failing", "streams"),
    [
        (Behaviour(status=529), False),
        (Behaviour(status=529), True),
        (Behaviour(fault="error_event", fault_after=1), True),
    ],
)
def test_a_failure_before_the_first_content_goes_to_another_provider(
    routes: Routes, failing: Behaviour, streams: bool
) -> None:
    """Also an error event behind the opening of a stream: the client sees one whole answer of the other's."""
    other = routes(Behaviour(text="from another"))
    route = claude(routes, failing, fallbacks=[other.name], retries={"attempts": 0})
    answer = routes.ask(route, stream=streams)
    assert (answer.status_code, said(answer)) == (200, "from another")
    assert (route.asked, other.asked) == ([1], [1])


def test_an_error_in_the_midst_of_a_stream_is_in_band(routes: Routes) -> None:
    """With Anthropic's words and no `[DONE]`."""
    failing = Behaviour(text="a b c d", fault="error_event", fault_after=4, error_type="overloaded_error")
    answer = routes.ask(claude(routes, failing), stream=True)
    assert answer.status_code == 200
    assert not whole(answer)
    assert chunks(answer)[-1]["error"]["code"] == "upstream_overloaded"


def test_what_claude_cannot_do_is_left_to_another_provider(routes: Routes, client: openai.OpenAI) -> None:
    """Alone it is refused by name, and nothing is sent."""
    other = routes(Behaviour(text="twice"))
    route = claude(routes, Behaviour(), fallbacks=[other.name])
    assert said(routes.ask(route, n=2)) == "twice"
    alone = claude(routes, Behaviour())
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=alone.name, messages=HELLO, logprobs=True)
    assert (raised.value.param, raised.value.code) == ("logprobs", "unsupported_parameter")
    assert (route.asked, alone.asked) == ([0], [0])


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (
            Behaviour(status=400, error_message="prompt is too long: 9 tokens > 8 maximum"),
            400,
            "context_length_exceeded",
        ),
        (Behaviour(status=404, error_message="model: x"), 404, "model_not_found"),
        (Behaviour(status=429, headers=(("retry-after", "7"),)), 429, "rate_limit_exceeded"),
        (Behaviour(status=401), 502, "upstream_credentials_exhausted"),
    ],
)
def test_errors_keep_their_meaning(routes: Routes, behaviour: Behaviour, status: int, code: str) -> None:
    """In OpenAI's shape."""
    answer = routes.ask(claude(routes, behaviour, retries={"attempts": 0}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)


def test_a_client_that_leaves_stops_claude_and_pays_for_what_came(routes: Routes) -> None:
    """The opening's count of one token is not taken for the bill."""
    route = claude(routes, Behaviour(chunks=500, gap_s=0.02, prompt_tokens=11))
    body = routes.server.ask(route.name, stream=True)
    headers = {"authorization": f"Bearer {routes.server.key}"}
    with routes.server.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        seen = answer.iter_lines()
        for _ in range(30):  # the opening and fourteen words, a blank line behind each
            next(seen)
    entry = route.places[0].handle.ended()
    assert entry.outcome == "client_left"
    record = routes.record(answer)
    assert record["prompt_tokens"] == 11
    assert record["completion_tokens"] >= 14
