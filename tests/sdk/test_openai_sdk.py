"""The unmodified `openai` SDK against the real process: what a user's program does all day."""

import base64
import json
import struct
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.fixtures.server import Scripts, Server
from tests.upstream.behaviour import Behaviour, ToolCall
from tests.upstream.openai_dialect import vector

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


class Place(BaseModel):
    city: str
    people: int


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=server.key, base_url=server.base_url, max_retries=0, timeout=20) as client:
        yield client


def test_a_chat_comes_back_with_usage(client: openai.OpenAI) -> None:
    """The plainest call of all."""
    answer = client.chat.completions.create(model="chat", messages=HELLO, user="ann")
    assert answer.choices[0].message.content == "ann|hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 2)


async def test_the_async_client_works_the_same(server: Server) -> None:
    """Both halves of the SDK speak the same HTTP, through different libraries' code."""
    async with openai.AsyncOpenAI(api_key=server.key, base_url=server.base_url, max_retries=0) as client:
        answer = await client.chat.completions.create(model="chat", messages=HELLO, user="bob")
        assert answer.choices[0].message.content == "bob|hello there"
        stream = await client.chat.completions.create(model="chat", messages=HELLO, user="bob", stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert text == "bob|hello there"


def test_every_answer_says_where_it_came_from(client: openai.OpenAI, server: Server) -> None:
    """Request id, model, deployment, attempts and our own share of the time are in the headers, streaming or not."""
    raw = client.chat.completions.with_raw_response.create(model="chat", messages=HELLO)
    streamed = client.chat.completions.with_raw_response.create(model="chat", messages=HELLO, stream=True)
    for headers in (raw.headers, streamed.headers):
        assert headers["x-request-id"]
        assert headers["x-penstock-model"] == "chat"
        assert headers["x-penstock-deployment"] == "chat"
        assert headers["x-penstock-attempts"] == "1"
        assert 0 <= float(headers["x-penstock-overhead-ms"]) < 1000
    for _ in streamed.parse():
        pass
    assert raw.headers["x-request-id"] != streamed.headers["x-request-id"]
    assert raw.parse()._request_id == raw.headers["x-request-id"]
    assert server.running()


def test_a_stream_without_a_wish_for_usage_has_none(client: openai.OpenAI, scripts: Scripts) -> None:
    """Usage is asked of the upstream all the same, and stripped; every chunk that is left has a choice."""
    scripted = scripts(Behaviour())
    chunks = list(client.chat.completions.create(model=scripted.model, messages=HELLO, user="ann", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "ann|hello there"
    assert all(chunk.usage is None for chunk in chunks)
    asked = json.loads(scripted.upstream.ended().body)
    assert asked["stream_options"] == {"include_usage": True}
    assert asked["model"] == scripted.upstream.id


def test_a_stream_with_a_wish_for_usage_ends_with_it(client: openai.OpenAI, scripts: Scripts) -> None:
    """One more chunk before the end, without choices."""
    scripted = scripts(Behaviour(cached_tokens=1, reasoning_tokens=1))
    chunks = list(
        client.chat.completions.create(
            model=scripted.model, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (2, 2)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 1
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("shape", ["with_choices", "cumulative", "always"])
def test_usage_in_an_unusual_place_disturbs_no_stream(client: openai.OpenAI, scripts: Scripts, shape: str) -> None:
    """On a chunk with choices, on each chunk, or unasked: the text stays whole, and usage that nobody asked for stays away."""
    scripted = scripts(Behaviour(usage=shape, chunks=4))  # type: ignore[arg-type]  # parametrized
    chunks = list(client.chat.completions.create(model=scripted.model, messages=HELLO, user="ann", stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == "ann|hello there w2 w3"


def test_tool_calls_come_back_whole(client: openai.OpenAI, scripts: Scripts) -> None:
    """Name and arguments, and the tools reach the upstream unchanged."""
    scripted = scripts(Behaviour(tool_calls=(ToolCall("weather", '{"city":"Oslo"}'),)))
    answer = client.chat.completions.create(model=scripted.model, messages=HELLO, tools=[WEATHER])
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert (calls[0].function.name, calls[0].function.arguments) == ("weather", '{"city":"Oslo"}')
    assert answer.choices[0].finish_reason == "tool_calls"
    assert json.loads(scripted.upstream.ended().body)["tools"] == [WEATHER]


def test_tool_calls_stream_in_fragments(client: openai.OpenAI, scripts: Scripts) -> None:
    """Two calls at once, put together by the SDK's own accumulator."""
    calls = (ToolCall("weather", '{"city":"Oslo"}'), ToolCall("weather", '{"city":"Rome"}'))
    scripted = scripts(Behaviour(tool_calls=calls))
    with client.chat.completions.stream(model=scripted.model, messages=HELLO, tools=[WEATHER]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    found = final.choices[0].message.tool_calls
    assert found is not None
    assert [call.function.arguments for call in found if call.type == "function"] == [
        '{"city":"Oslo"}',
        '{"city":"Rome"}',
    ]


def test_structured_output_is_parsed_into_the_users_type(client: openai.OpenAI, scripts: Scripts) -> None:
    """The schema travels up, the object comes back."""
    scripted = scripts(Behaviour(text='{"city":"Oslo","people":709037}'))
    answer = client.chat.completions.parse(model=scripted.model, messages=HELLO, response_format=Place)
    assert answer.choices[0].message.parsed == Place(city="Oslo", people=709037)
    sent = json.loads(scripted.upstream.ended().body)["response_format"]
    assert sent["json_schema"]["name"] == "Place"


def test_structured_output_streams(client: openai.OpenAI, scripts: Scripts) -> None:
    """The same, piece by piece."""
    scripted = scripts(Behaviour(text='{"city":"Oslo", "people":709037}'))
    with client.chat.completions.stream(model=scripted.model, messages=HELLO, response_format=Place) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Place(city="Oslo", people=709037)


def test_completions_work_whole_and_streamed(client: openai.OpenAI) -> None:
    """The old endpoint, which local servers still live on."""
    answer = client.completions.create(model="chat", prompt="once upon", user="ann")
    assert answer.choices[0].text == "ann|once upon"
    stream = client.completions.create(model="chat", prompt="once upon", user="ann", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == "ann|once upon"


def test_embeddings_come_as_the_client_asked(client: openai.OpenAI) -> None:
    """The SDK asks for base64 unless told otherwise; both ways give the same numbers."""
    texts = ["one", "another"]
    default = client.embeddings.create(model="embed", input=texts)
    floats = client.embeddings.create(model="embed", input=texts, encoding_format="float")
    assert [row.embedding for row in default.data] == [row.embedding for row in floats.data]
    assert floats.data[1].embedding == vector("another", 8)
    assert floats.usage.prompt_tokens == 2
    raw = client.embeddings.with_raw_response.create(model="embed", input="one", encoding_format="base64")
    packed = json.loads(raw.content)["data"][0]["embedding"]
    assert list(struct.unpack("<8f", base64.b64decode(packed))) == vector("one", 8)
    assert len(client.embeddings.create(model="embed", input="one", dimensions=16).data[0].embedding) == 16


def test_models_are_listed_and_looked_up(client: openai.OpenAI) -> None:
    """Names with slashes included."""
    names = [model.id for model in client.models.list()]
    assert {"chat", "embed", "s/*"} <= set(names)
    assert client.models.retrieve("chat").id == "chat"
    assert client.models.retrieve("s/any/thing").id == "s/any/thing"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_extra_fields_reach_the_upstream(client: openai.OpenAI, scripts: Scripts) -> None:
    """What this gateway does not know is not for it to drop: vLLM and others take parameters of their own."""
    scripted = scripts(Behaviour())
    client.chat.completions.create(
        model=scripted.model, messages=HELLO, extra_body={"top_k": 7, "guided_json": {"a": [1, None]}}, seed=3
    )
    sent = json.loads(scripted.upstream.ended().body)
    assert (sent["top_k"], sent["guided_json"], sent["seed"]) == (7, {"a": [1, None]}, 3)
