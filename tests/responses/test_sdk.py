"""The unmodified `openai` SDK: every method of responses and conversations, where deployments speak chat and where they speak it."""

import json
import time
from typing import Any

import openai
import pytest
from openai.types.responses import FunctionToolParam, Response
from pydantic import BaseModel

from tests.dialects.service import City, asked
from tests.fixtures.deployments import Routes
from tests.upstream.behaviour import Behaviour, ToolCall
from tests.upstream.responses_dialect import SEALED

CHAT: dict[str, object] = {}
NATIVE: dict[str, object] = {"responses": True}
CLAUDE: dict[str, object] = {"provider": "anthropic"}
KINDS = pytest.mark.parametrize("deployment", [CHAT, NATIVE, CLAUDE], ids=["chat", "native", "claude"])
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": None,
}


def ended(client: openai.OpenAI, id_: str, *, wait_s: float = 20) -> Response:
    """A response in the background, once it is over."""
    deadline = time.monotonic() + wait_s
    while (found := client.responses.retrieve(id_)).status in {"queued", "in_progress"}:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


@KINDS
def test_create_answers(routes: Routes, client: openai.OpenAI, deployment: dict[str, object]) -> None:
    """Text, status, usage and what was asked; the same is found again under its id."""
    route = routes(Behaviour(text="Hi there."), deployment=deployment)
    made = client.responses.create(
        model=route.name, input="hello", instructions="Be brief.", metadata={"a": "b"}, max_output_tokens=50
    )
    assert (made.output_text, made.status, made.metadata) == ("Hi there.", "completed", {"a": "b"})
    if deployment is not NATIVE:  # the scripted one repeats nothing
        assert (made.instructions, made.max_output_tokens) == ("Be brief.", 50)
    assert made.usage is not None
    assert made.usage.output_tokens == 2
    assert made.id.startswith("resp_")
    assert client.responses.retrieve(made.id) == made


@KINDS
def test_a_stream_tells_every_step_in_order(
    routes: Routes, client: openai.OpenAI, deployment: dict[str, object]
) -> None:
    """Numbers without a gap, deltas that add up, and the whole response at the end."""
    route = routes(Behaviour(text="one two three", segment_bytes=7), deployment=deployment)
    events = list(client.responses.create(model=route.name, input="count", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-2:] == ["response.output_item.done", "response.completed"]
    if deployment is not NATIVE:  # the scripted one is terse
        assert kinds[3] == "response.content_part.added"
        assert kinds[-4:-2] == ["response.output_text.done", "response.content_part.done"]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "one two three"
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "one two three"
    assert client.responses.retrieve(last.response.id) == last.response


@pytest.mark.parametrize("deployment", [CHAT, CLAUDE], ids=["chat", "claude"])
def test_the_helper_for_streams_works(routes: Routes, client: openai.OpenAI, deployment: dict[str, object]) -> None:
    """`responses.stream` keeps a snapshot from the events; where one is missing, it breaks."""
    route = routes(Behaviour(tool_calls=(ToolCall("weather", '{"city":"Oslo"}'),)), deployment=deployment)
    with client.responses.stream(model=route.name, input="weather?", tools=[WEATHER]) as stream:
        final = stream.get_final_response()
    call = final.output[-1]
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})


@pytest.mark.parametrize("deployment", [CHAT, CLAUDE], ids=["chat", "claude"])
@pytest.mark.parametrize("streams", [False, True])
def test_tools_go_round(routes: Routes, client: openai.OpenAI, deployment: dict[str, object], streams: bool) -> None:
    """A call, its result by `previous_response_id`, and the answer: the deployment sees the whole conversation."""
    calls = (ToolCall("weather", '{"city":"Oslo"}'), ToolCall("weather", '{"city":"Rome"}'))
    route = routes((Behaviour(tool_calls=calls), Behaviour(text="Cold.")), deployment=deployment)
    if streams:
        events = list(client.responses.create(model=route.name, input="hi", tools=[WEATHER], stream=True))
        kinds = [event.type for event in events]
        assert kinds.count("response.function_call_arguments.done") == 2
        last = events[-1]
        assert last.type == "response.completed"
        first = last.response
    else:
        first = client.responses.create(model=route.name, input="hi", tools=[WEATHER])
    made = [item for item in first.output if item.type == "function_call"]
    assert [json.loads(item.arguments)["city"] for item in made] == ["Oslo", "Rome"]
    results: list[Any] = [{"type": "function_call_output", "call_id": item.call_id, "output": "cold"} for item in made]
    second = client.responses.create(
        model=route.name, previous_response_id=first.id, input=results, tools=[WEATHER], tool_choice="auto"
    )
    assert (second.output_text, second.previous_response_id) == ("Cold.", first.id)
    turns = asked(route.places[0])["messages"]
    roles = ["user", "assistant", "tool", "tool"] if deployment is CHAT else ["user", "assistant", "user"]
    assert [turn["role"] for turn in turns] == roles
    items = client.responses.input_items.list(second.id, order="asc")
    assert [item.type for item in items] == [
        "message",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
    ]


def test_parse_gives_an_object(routes: Routes, client: openai.OpenAI) -> None:
    """`text.format` is a chat's `response_format`."""
    route = routes(Behaviour(text='{"name":"Oslo","people":700000}'))
    parsed = client.responses.parse(model=route.name, input="a city", text_format=City)
    assert parsed.output_parsed == City(name="Oslo", people=700_000)
    form = asked(route.places[0])["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == ("json_schema", "City", True)


@pytest.mark.parametrize("streams", [False, True])
def test_thoughts_come_sealed_and_go_back(routes: Routes, client: openai.OpenAI, streams: bool) -> None:
    """Claude's signed thoughts travel in `encrypted_content`: by the client, which keeps everything itself with `store=False`."""
    call = ToolCall("weather", '{"city":"Oslo"}')
    route = routes((Behaviour(thinking="hm hm", tool_calls=(call,)), Behaviour(text="Cold.")), deployment=CLAUDE)
    options: dict[str, Any] = {
        "model": route.name,
        "tools": [WEATHER],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "high", "summary": "auto"},
    }
    if streams:
        events = list(client.responses.create(input="hi", stream=True, **options))
        kinds = [event.type for event in events]
        for kind in ("part.added", "text.delta", "text.done", "part.done"):
            assert f"response.reasoning_summary_{kind}" in kinds
        last = events[-1]
        assert last.type == "response.completed"
        first = last.response
    else:
        first = client.responses.create(input="hi", **options)
    thought, called = first.output[0], first.output[1]
    assert thought.type == "reasoning"
    assert called.type == "function_call"
    assert (thought.summary[0].text, bool(thought.encrypted_content)) == ("hm hm", True)
    given: list[Any] = [{"role": "user", "content": "hi"}, *(item.to_dict() for item in first.output)]
    given.append({"type": "function_call_output", "call_id": called.call_id, "output": "cold"})
    assert client.responses.create(input=given, **options).output_text == "Cold."
    blocks = asked(route.places[0])["messages"][1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "tool_use"]
    assert blocks[0]["thinking"] == "hm hm"
    assert blocks[0]["signature"]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_an_upstreams_own_thoughts_are_kept_for_it(routes: Routes, client: openai.OpenAI) -> None:
    """They are asked for, not shown to who did not, and go back to where they were sealed."""
    route = routes(Behaviour(thinking="hm", text="Hi."), deployment=NATIVE)
    first = client.responses.create(model=route.name, input="hi", reasoning={"effort": "low"})
    body = asked(route.places[0])
    assert (body["store"], body["include"]) == (False, ["reasoning.encrypted_content"])
    assert first.output[0].type == "reasoning"
    assert first.output[0].encrypted_content is None
    shown = client.responses.retrieve(first.id, include=["reasoning.encrypted_content"]).output[0]
    assert shown.type == "reasoning"
    assert shown.encrypted_content == SEALED
    client.responses.create(model=route.name, input="more", previous_response_id=first.id)
    given = asked(route.places[0])["input"]
    assert [item["type"] for item in given] == ["message", "reasoning", "message", "message"]
    assert given[1]["encrypted_content"] == SEALED
    assert "previous_response_id" not in asked(route.places[0])


def test_delete_forgets(routes: Routes, client: openai.OpenAI) -> None:
    """Also for whoever wants to go on from it."""
    route = routes(Behaviour())
    made = client.responses.create(model=route.name, input="hi")
    client.responses.delete(made.id)
    for again in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            again(made.id)
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=route.name, input="more", previous_response_id=made.id)
    assert raised.value.code == "previous_response_not_found"


def test_input_items_come_in_pages(routes: Routes, client: openai.OpenAI) -> None:
    """Newest first, as at OpenAI, and with ids of their own."""
    route = routes(Behaviour())
    texts: list[Any] = [{"role": "user", "content": f"text {number}"} for number in range(5)]
    made = client.responses.create(model=route.name, input=texts)
    page = client.responses.input_items.list(made.id, limit=2)
    assert (len(page.data), page.has_more) == (2, True)
    every = list(client.responses.input_items.list(made.id, limit=2))
    said = [item.content[0].text for item in every if item.type == "message" and item.content[0].type == "input_text"]
    assert said == [f"text {number}" for number in reversed(range(5))]
    assert len({item.id for item in every}) == 5
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list(made.id, after="msg_nowhere")


def test_a_background_response_is_found_when_it_is_done(routes: Routes, client: openai.OpenAI) -> None:
    """It is queued at once; its events can be heard again, from any of them on."""
    route = routes(Behaviour(text="one two three", first_token_after_s=0.2))
    made = client.responses.create(model=route.name, input="hi", background=True)
    assert (made.status, made.background, made.output) == ("queued", True, [])
    assert ended(client, made.id).output_text == "one two three"
    events = list(client.responses.retrieve(made.id, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    later = list(client.responses.retrieve(made.id, stream=True, starting_after=5))
    assert [event.sequence_number for event in later] == list(range(6, len(events)))


def test_a_background_stream_goes_on_without_its_listener(routes: Routes, client: openai.OpenAI) -> None:
    """Who comes back hears the rest."""
    route = routes(Behaviour(text="w", chunks=20, gap_s=0.03))
    with client.responses.create(model=route.name, input="hi", background=True, stream=True) as stream:
        seen = [next(stream) for _ in range(8)]
    assert seen[0].type == "response.created"
    rest = list(client.responses.retrieve(seen[0].response.id, stream=True, starting_after=7))
    assert rest[0].sequence_number == 8
    last = rest[-1]
    assert last.type == "response.completed"
    assert last.response.output_text.endswith("w19")


def test_cancel_stops_the_upstream_at_once(routes: Routes, client: openai.OpenAI) -> None:
    """And what was said is kept, and billed."""
    route = routes(Behaviour(text="w", chunks=500, gap_s=0.02, prompt_tokens=11))
    id_ = ""
    with client.responses.create(model=route.name, input="hi", background=True, stream=True) as stream:
        for event in stream:
            if event.type == "response.created":
                id_ = event.response.id
            if event.type == "response.output_text.delta":
                break
    cancelled = client.responses.cancel(id_)
    assert cancelled.status == "cancelled"
    assert route.places[0].handle.ended().outcome == "client_left"
    assert client.responses.retrieve(id_).status == "cancelled"
    assert client.responses.cancel(id_).status == "cancelled"
    plain = client.responses.create(model=routes(Behaviour()).name, input="hi")
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(plain.id)


def test_a_deletion_stops_the_upstream_and_leaves_nothing(routes: Routes, client: openai.OpenAI) -> None:
    """Also not the end of the answer, which comes after the deletion."""
    route = routes(Behaviour(text="w", chunks=500, gap_s=0.02))
    made = client.responses.create(model=route.name, input="hi", background=True)
    route.places[0].handle.wait(bool)
    client.responses.delete(made.id)
    assert route.places[0].handle.ended().outcome == "client_left"
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel(made.id)
    after = client.responses.create(model=routes(Behaviour()).name, input="hi")  # kept behind the end of the first
    assert client.responses.retrieve(after.id).status == "completed"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_cancel_says_so_before_the_first_word(routes: Routes, client: openai.OpenAI) -> None:
    """Of a response that has nothing yet, too."""
    route = routes(Behaviour(headers_after_s=30))
    made = client.responses.create(model=route.name, input="hi", background=True)
    assert client.responses.cancel(made.id).status == "cancelled"
    assert client.responses.retrieve(made.id).status == "cancelled"


def test_conversations_are_kept_by_hand(client: openai.OpenAI) -> None:
    """Every method of conversations and their items."""
    made = client.conversations.create(
        metadata={"topic": "demo"}, items=[{"type": "message", "role": "user", "content": "Hello!"}]
    )
    assert (made.object, made.metadata) == ("conversation", {"topic": "demo"})
    assert client.conversations.retrieve(made.id) == made
    assert client.conversations.update(made.id, metadata={"topic": "x"}).metadata == {"topic": "x"}
    added = client.conversations.items.create(
        made.id, items=[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "More"}]}]
    )
    assert [item.type for item in added.data] == ["message"]
    every = list(client.conversations.items.list(made.id, order="asc"))
    assert [
        item.content[0].text for item in every if item.type == "message" and item.content[0].type == "input_text"
    ] == [
        "Hello!",
        "More",
    ]
    found = client.conversations.items.retrieve(every[1].id or "", conversation_id=made.id)
    assert found == every[1]
    assert client.conversations.items.delete(every[1].id or "", conversation_id=made.id).id == made.id
    assert len(list(client.conversations.items.list(made.id))) == 1
    assert client.conversations.delete(made.id).deleted
    for gone in (client.conversations.retrieve, client.conversations.delete, client.conversations.items.list):
        with pytest.raises(openai.NotFoundError):
            gone(made.id)


@KINDS
def test_a_response_goes_on_in_its_conversation(
    routes: Routes, client: openai.OpenAI, deployment: dict[str, object]
) -> None:
    """What was asked and answered is added to it, and the next one begins there."""
    route = routes((Behaviour(text="First."), Behaviour(text="Second.")), deployment=deployment)
    kept = client.conversations.create()
    first = client.responses.create(model=route.name, input="one", conversation=kept.id)
    assert first.conversation is not None
    assert first.conversation.id == kept.id
    client.responses.create(model=route.name, input="two", conversation={"id": kept.id})
    body = asked(route.places[0])
    assert [turn["role"] for turn in body.get("messages", body.get("input"))] == ["user", "assistant", "user"]
    assert len(list(client.conversations.items.list(kept.id))) == 4
    assert [item.type for item in client.responses.input_items.list(first.id)] == ["message"]


async def test_the_async_client_works_the_same(routes: Routes) -> None:
    """Streams, background and what was kept."""
    route = routes(Behaviour(text="Hi."))
    server = routes.server
    async with openai.AsyncOpenAI(api_key=server.key, base_url=server.base_url, max_retries=0) as client:
        made = await client.responses.create(model=route.name, input="hi")
        assert (await client.responses.retrieve(made.id)).output_text == "Hi."
        stream = await client.responses.create(model=route.name, input="hi", stream=True)
        assert [event.type async for event in stream][-1] == "response.completed"
        await client.responses.delete(made.id)


class Weather(BaseModel):
    city: str


def test_the_sdk_parses_the_arguments_of_tools(routes: Routes, client: openai.OpenAI) -> None:
    """`pydantic_function_tool` all the way."""
    route = routes(Behaviour(tool_calls=(ToolCall("Weather", '{"city":"Oslo"}'),)))
    tool: Any = openai.pydantic_function_tool(Weather)
    flat: Any = {"type": "function", **tool["function"]}
    parsed = client.responses.parse(model=route.name, input="weather?", tools=[flat])
    call = parsed.output[0]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Oslo"}
