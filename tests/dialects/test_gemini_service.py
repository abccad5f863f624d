"""OpenAI's SDK against the real process with a scripted Gemini behind it."""

import json
from typing import Any

import openai
import pytest

from tests.dialects.service import HELLO, WEATHER, City, asked
from tests.fixtures.deployments import Route, Routes, chunks, said, whole
from tests.upstream import openai_dialect
from tests.upstream.behaviour import Behaviour, ToolCall
from tests.upstream.gemini_dialect import SIGNATURE

GEMINI = {"provider": "gemini", "model": "gemini-3-flash-preview"}


def gemini(routes: Routes, *behaviours: Behaviour, **more: Any) -> Route:
    """A model with one deployment that answers so."""
    deployment = GEMINI | more.pop("deployment", {})
    return routes(behaviours, deployment=deployment, **more)


def test_a_chat_is_generated_content(routes: Routes, client: openai.OpenAI) -> None:
    """Path and key are Google's; the answer is OpenAI's; thoughts and what the cache had are billed at their prices."""
    told = Behaviour(text="Hi.", prompt_tokens=105, completion_tokens=3, cached_tokens=100, reasoning_tokens=2)
    price = {"input": 1000, "output": 2000, "cached_input": 100}
    route = gemini(routes, told, deployment={"price": price, "max_output_tokens": 321})
    raw = client.chat.completions.with_raw_response.create(model=route.name, messages=HELLO, temperature=0.5)
    answer = raw.parse()
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hi.", "stop")
    assert (answer.model, answer.usage and answer.usage.completion_tokens) == (route.name, 5)
    assert raw.headers["x-penstock-cost-usd"] == "0.025000000"  # 5 × 1000 + 100 × 100 + 5 × 2000 per million
    entry = route.places[0].handle.entries()[-1]
    assert entry.path.endswith("/v1/models/gemini-3-flash-preview:generateContent")
    assert (entry.header("x-goog-api-key"), entry.header("authorization")) == (f"sk-{route.places[0].id}", None)
    assert asked(route.places[0]) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "hello there"}]}],
        "generationConfig": {"temperature": 0.5, "maxOutputTokens": 321},  # what its hold was taken for
    }


def test_a_stream_is_one_of_chunks(routes: Routes, client: openai.OpenAI) -> None:
    """In any segments; usage only if it was asked for, and in the record all the same."""
    route = gemini(routes, Behaviour(text="one two three", segment_bytes=7, crlf=True, heartbeats=2))
    answer = routes.ask(route, stream=True)
    assert (said(answer), whole(answer)) == ("one two three", True)
    assert all("usage" not in chunk for chunk in chunks(answer))
    assert routes.record(answer)["completion_tokens"] == 3
    entry = route.places[0].handle.entries()[-1]
    assert entry.path.endswith(":streamGenerateContent?alt=sse")
    with client.chat.completions.create(
        model=route.name, messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        every = list(stream)
    assert "".join(choice.delta.content or "" for chunk in every for choice in chunk.choices) == "one two three"
    assert every[-1].usage is not None
    assert (every[-1].usage.prompt_tokens, every[-1].usage.completion_tokens) == (2, 3)


@pytest.mark.parametrize("streams", [False, True])
def test_thinking_and_tools_go_round(routes: Routes, client: openai.OpenAI, streams: bool) -> None:
    """What the first answer called comes back with the result, and the sealed thoughts with it."""
    calls = (ToolCall("weather", '{"city":"Oslo"}'), ToolCall("weather", '{"city":"Rome"}'))
    route = gemini(routes, Behaviour(thinking="hm hm", tool_calls=calls), Behaviour(text="Cold."))
    options: dict[str, Any] = {"model": route.name, "tools": [WEATHER], "reasoning_effort": "high"}
    if streams:
        with client.chat.completions.stream(messages=HELLO, **options) as stream:
            message = stream.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(messages=HELLO, **options).choices[0].message
    found: list[Any] = list(message.tool_calls or [])
    assert [json.loads(call.function.arguments)["city"] for call in found] == ["Oslo", "Rome"]
    assert (message.model_extra or {})["reasoning_content"] == "hm hm"
    kept: Any = message.model_dump(exclude_none=True)
    for call in kept["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    results: list[Any] = [
        {"role": "tool", "tool_call_id": call["id"], "content": "cold"} for call in kept["tool_calls"]
    ]
    last = client.chat.completions.create(messages=[*HELLO, kept, *results], **options)
    assert last.choices[0].message.content == "Cold."
    body = asked(route.places[0])
    assert body["generationConfig"]["thinkingConfig"] == {"includeThoughts": True, "thinkingLevel": "HIGH"}
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    sent = body["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in sent] == [SIGNATURE, None]
    assert [part["functionCall"]["id"] for part in sent] == ["fc_0", "fc_1"]
    answered = [part["functionResponse"] for part in body["contents"][2]["parts"]]
    assert [(one["id"], one["name"]) for one in answered] == [("fc_0", "weather"), ("fc_1", "weather")]


def test_a_schema_gives_an_object(routes: Routes, client: openai.OpenAI) -> None:
    """The SDK's own parsing works."""
    route = gemini(routes, Behaviour(text='{"name":"Oslo","people":700000}'))
    answer = client.chat.completions.parse(model=route.name, messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Oslo", people=700_000)
    assert asked(route.places[0])["generationConfig"]["responseMimeType"] == "application/json"


def test_embeddings_are_those_of_each_text(routes: Routes, client: openai.OpenAI) -> None:
    """The SDK asks for them packed, and unpacks them; they are billed."""
    route = gemini(routes, Behaviour(usage="always"), deployment={"model": "gemini-embedding-001"})
    raw = client.embeddings.with_raw_response.create(model=route.name, input=["one two", "three"], dimensions=4)
    found = raw.parse()
    assert [one.embedding for one in found.data] == [openai_dialect.vector(text, 4) for text in ("one two", "three")]
    assert (found.usage.prompt_tokens, raw.headers["x-penstock-cost-usd"]) == (3, "0.003000000")
    plain = client.embeddings.create(model=route.name, input="a", encoding_format="float")
    assert plain.data[0].embedding == openai_dialect.vector("a", openai_dialect.DIMENSIONS)


@pytest.mark.parametrize(
    ("failing", "streams"),
    [
        (Behaviour(status=503), False),
        (Behaviour(status=503), True),
        (Behaviour(fault="error_event", fault_after=0), True),
        (Behaviour(finish_reason="MALFORMED_FUNCTION_CALL"), False),
        (Behaviour(body='{"candidates": []}'), False),
    ],
)
def test_a_failure_before_the_first_content_goes_to_another_provider(
    routes: Routes, failing: Behaviour, streams: bool
) -> None:
    """The client sees one whole answer of the other's."""
    other = routes(Behaviour(text="from another"))
    route = gemini(routes, failing, fallbacks=[other.name], retries={"attempts": 0})
    answer = routes.ask(route, stream=streams)
    assert (answer.status_code, said(answer)) == (200, "from another")
    assert (route.asked, other.asked) == ([1], [1])


@pytest.mark.parametrize("streams", [False, True])
def test_a_blocked_prompt_goes_to_the_model_for_that(routes: Routes, streams: bool) -> None:
    """It is not an error of the deployment's."""
    other = routes(Behaviour(text="from another"))
    blocked = '{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 2}}'
    body = f"data: {blocked}\r\n\r\n" if streams else blocked
    route = gemini(routes, Behaviour(body=body), content_fallbacks=[other.name])
    assert said(routes.ask(route, stream=streams)) == "from another"
    alone = routes.ask(gemini(routes, Behaviour(body=body)), stream=streams)
    assert (alone.status_code, alone.json()["error"]["code"]) == (400, "content_policy_violation")


@pytest.mark.parametrize(
    "failing",
    [
        Behaviour(text="a b c d", fault="error_event", fault_after=2, error_type="UNAVAILABLE"),
        Behaviour(text="a b c d", done=False),
        Behaviour(text="a b c d", finish_reason="OTHER"),
    ],
)
def test_a_stream_that_breaks_says_so(routes: Routes, failing: Behaviour) -> None:
    """An error event, no end at all, or one that is none: in-band and without `[DONE]`."""
    answer = routes.ask(gemini(routes, failing), stream=True)
    assert answer.status_code == 200
    assert not whole(answer)
    assert chunks(answer)[-1]["error"]["message"]


def test_what_gemini_cannot_do_is_left_to_another_provider(routes: Routes, client: openai.OpenAI) -> None:
    """Alone it is refused by name, and nothing is sent."""
    other = routes(Behaviour(text="biased"))
    route = gemini(routes, Behaviour(), fallbacks=[other.name])
    assert said(routes.ask(route, logit_bias={"5": 1})) == "biased"
    alone = gemini(routes, Behaviour())
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=alone.name, messages=HELLO, logit_bias={"5": 1})
    assert (raised.value.param, raised.value.code) == ("logit_bias", "unsupported_parameter")
    assert (route.asked, alone.asked) == ([0], [0])


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (
            Behaviour(
                status=400, error_message="The input token count (9) exceeds the maximum number of tokens allowed"
            ),
            400,
            "context_length_exceeded",
        ),
        (Behaviour(status=404, error_message="models/x is not found"), 404, "model_not_found"),
        (Behaviour(status=429, retry_delay="6.2s"), 429, "rate_limit_exceeded"),
        (Behaviour(status=403), 502, "upstream_credentials_exhausted"),
        (
            Behaviour(status=400, error_message="API key not valid.", error_code="API_KEY_INVALID"),
            502,
            "upstream_credentials_exhausted",
        ),
    ],
)
def test_errors_keep_their_meaning(routes: Routes, behaviour: Behaviour, status: int, code: str) -> None:
    """In OpenAI's shape; a wrong key is not the client's, and the time to wait is a header again."""
    answer = routes.ask(gemini(routes, behaviour, retries={"attempts": 0}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)


def test_a_client_that_leaves_stops_gemini_and_pays_for_what_came(routes: Routes) -> None:
    """What the events say of the answer so far is nothing, and not taken for the bill."""
    route = gemini(routes, Behaviour(chunks=500, gap_s=0.02, prompt_tokens=11))
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
