"""Client → Penstock → vLLM, with nothing scripted: the SDK, the process that people start, a real engine."""

import asyncio
import time
from typing import Any

import httpx
import msgspec
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from tests.engines.conftest import PUBLIC
from tests.engines.vllm import CONTEXT, MODEL, PARALLEL, Vllm
from tests.fixtures.server import Server

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]  # the first test installs and starts the engine

SAME: dict[str, Any] = {"temperature": 0, "seed": 7}  # the same words each time
LONG: dict[str, Any] = {**SAME, "max_tokens": CONTEXT - 100, "extra_body": {"ignore_eos": True}}


def question(text: str = "What does this licence permit?") -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def words(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def long_call(*, stream: bool) -> dict[str, object]:
    """A call that keeps the engine busy for seconds, as a body."""
    limit = {"max_tokens": CONTEXT - 100, "ignore_eos": True}
    return {"model": PUBLIC, "messages": question(), "stream": stream, **SAME, **limit}


def row_of(gateway: Server, request_id: str) -> dict[str, Any]:
    """The record of a request; records are written in batches, hence the wait."""
    deadline = time.monotonic() + 5
    while True:
        rows: list[dict[str, Any]] = gateway.admin.get("/requests", params={"limit": 50}).json()["data"]
        found = [row for row in rows if row["id"] == request_id]
        if found:
            return found[0]
        assert time.monotonic() < deadline, f"no record of {request_id}"
        time.sleep(0.05)


def test_the_engine_is_vllm_and_answers_without_us(vllm: Vllm, direct: openai.OpenAI) -> None:
    """What follows would prove nothing about vLLM if something else stood behind the port."""
    assert [model.id for model in direct.models.list()] == [MODEL]
    assert vllm.metric("vllm:num_requests_running") == 0
    answer = direct.chat.completions.create(model=MODEL, messages=question(), max_tokens=8, **SAME)
    assert answer.choices[0].message.content


def test_the_list_of_models_has_the_public_name(client: openai.OpenAI) -> None:
    """Clients see the names of the configuration, not those of the engine."""
    assert [model.id for model in client.models.list()] == [PUBLIC]
    assert client.models.retrieve(PUBLIC).id == PUBLIC


def test_an_answer_is_the_engines_own(client: openai.OpenAI, direct: openai.OpenAI) -> None:
    """Text, finish reason and token counts are those that vLLM gives to a direct caller."""
    through = client.chat.completions.create(model=PUBLIC, messages=question(), max_tokens=24, **SAME)
    itself = direct.chat.completions.create(model=MODEL, messages=question(), max_tokens=24, **SAME)
    assert through.choices[0].message.content
    assert through.choices[0].message == itself.choices[0].message
    assert through.choices[0].finish_reason == itself.choices[0].finish_reason == "length"
    assert through.usage == itself.usage
    assert through.usage is not None
    assert through.usage.completion_tokens == 24


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    """The pieces add up to the answer that is not streamed, and the last one carries the finish reason."""
    whole = client.chat.completions.create(model=PUBLIC, messages=question(), max_tokens=48, **SAME)
    chunks = list(client.chat.completions.create(model=PUBLIC, messages=question(), max_tokens=48, stream=True, **SAME))
    assert words(chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert len(chunks) > 3, "it was streamed, not collected (vLLM joins tokens where it is slow)"


@pytest.mark.parametrize("asked", [False, True])
def test_usage_is_shown_to_those_who_ask(gateway: Server, *, asked: bool) -> None:
    """The gateway always asks vLLM for usage; a client that did not sees no trace of it. The last event is [DONE]."""
    body: dict[str, object] = {**gateway.ask(PUBLIC), "stream": True, "max_tokens": 8, **SAME}
    if asked:
        body["stream_options"] = {"include_usage": True}
    answer = gateway.post("/v1/chat/completions", body)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [msgspec.json.decode(event.removeprefix("data: ")) for event in events[:-2]]
    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert [usage["completion_tokens"] for usage in usages] == ([8] if asked else [])
    assert all(chunk["choices"] for chunk in chunks[: -1 if asked else None])
    row = row_of(gateway, answer.headers["x-request-id"])
    assert (row["completion_tokens"], row["usage_source"]) == (8, "provider"), "recorded either way"


def test_the_record_has_what_vllm_counted(gateway: Server) -> None:
    """Tokens are the engine's, the cost is theirs times the price, down to the nano-dollar."""
    answer = gateway.post("/v1/chat/completions", {**gateway.ask(PUBLIC), "max_tokens": 5, **SAME})
    usage = answer.json()["usage"]
    row = row_of(gateway, answer.headers["x-request-id"])
    assert (row["prompt_tokens"], row["completion_tokens"]) == (usage["prompt_tokens"], 5)
    assert row["cost_nanousd"] == usage["prompt_tokens"] * 200 + 5 * 600
    assert (row["deployment"], row["status"], row["attempts"]) == ("vllm-cpu", 200, 1)


def test_completions_whole_and_streamed(client: openai.OpenAI) -> None:
    """The older endpoint takes the same way."""
    prompt = "Permission is hereby granted"
    whole = client.completions.create(model=PUBLIC, prompt=prompt, max_tokens=24, **SAME)
    pieces = list(client.completions.create(model=PUBLIC, prompt=prompt, max_tokens=24, stream=True, **SAME))
    assert whole.choices[0].text
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "length"


def test_structured_output_holds_its_schema(client: openai.OpenAI) -> None:
    """`response_format` reaches vLLM untouched: even random weights then produce what the schema admits."""
    schema = {
        "type": "object",
        "properties": {"free": {"type": "boolean"}, "kind": {"enum": ["permissive", "copyleft"]}},
        "required": ["free", "kind"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=PUBLIC,
        messages=question(),
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "licence", "schema": schema, "strict": True}},
        **SAME,
    )
    found = msgspec.json.decode(answer.choices[0].message.content or "")
    assert isinstance(found["free"], bool)
    assert found["kind"] in {"permissive", "copyleft"}


async def test_sixteen_streams_at_once_do_not_mix(vllm: Vllm, async_client: openai.AsyncOpenAI) -> None:
    """All run in the engine at the same time, and each client gets the answer to its own question."""
    asked = [question(f"Section {number} of the licence?") for number in range(PARALLEL)]
    begun = asyncio.Barrier(PARALLEL + 1)

    async def streamed(messages: list[ChatCompletionMessageParam]) -> str:
        stream = await async_client.chat.completions.create(
            model=PUBLIC, messages=messages, max_tokens=3000, stream=True, extra_body={"ignore_eos": True}, **SAME
        )
        chunks = [await anext(stream)]
        await begun.wait()
        chunks += [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "length"
        return words(chunks)

    async def whole(messages: list[ChatCompletionMessageParam]) -> str | None:
        answer: ChatCompletion = await async_client.chat.completions.create(
            model=PUBLIC, messages=messages, max_tokens=3000, extra_body={"ignore_eos": True}, **SAME
        )
        return answer.choices[0].message.content

    async with asyncio.timeout(600), asyncio.TaskGroup() as group:
        streams = [group.create_task(streamed(messages)) for messages in asked]
        await asyncio.to_thread(vllm.await_running, PARALLEL, 60)
        await begun.wait()
    answers = await asyncio.gather(*(whole(messages) for messages in asked))
    texts = [stream.result() for stream in streams]
    assert texts == answers
    assert len(set(texts)) == PARALLEL, "different questions, different answers: otherwise a mix-up would not show"


@pytest.mark.parametrize("name", ["no-such-model", MODEL])
def test_an_unknown_model_never_reaches_the_engine(client: openai.OpenAI, name: str) -> None:
    """The 404 is the gateway's own, with the way out in it; so it is for the name that only vLLM knows."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model=name, messages=question())
    error = caught.value
    assert (error.type, error.code, error.param) == ("invalid_request_error", "model_not_found", "model")
    assert "GET /v1/models" in str(error)
    assert "x-penstock-deployment" not in error.response.headers


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_gets_vllms_reason(client: openai.OpenAI, *, stream: bool) -> None:
    """vLLM's 400 comes through with its message and parameter, and with the code that the OpenAI API has for it."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=PUBLIC, messages=question("law " * CONTEXT), stream=stream)
    error = caught.value
    assert f"maximum context length is {CONTEXT} tokens" in str(error)
    assert (error.type, error.code, error.param) == ("invalid_request_error", "context_length_exceeded", "input_tokens")
    assert error.response.headers["x-penstock-deployment"] == "vllm-cpu"


def test_other_refusals_of_vllm_come_through(client: openai.OpenAI) -> None:
    """A value that only the engine can judge is judged by the engine, in OpenAI's shape."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=PUBLIC, messages=question(), temperature=-1)
    assert caught.value.type == "invalid_request_error"
    assert "temperature" in str(caught.value)


def test_a_client_that_leaves_a_stream_stops_the_engine(vllm: Vllm, client: openai.OpenAI) -> None:
    """The first piece comes while the engine still works; once it is left there, generation ends within two seconds.

    The whole answer would take several times that.
    """
    for piece in client.chat.completions.create(model=PUBLIC, messages=question(), stream=True, max_tokens=64):
        assert piece.id  # the engine's first stream loads what it needs for streams, and hears of nothing meanwhile
    before = vllm.generated()
    with client.chat.completions.create(model=PUBLIC, messages=question(), stream=True, **LONG) as stream:
        next(
            iter(stream)
        )  # no look at the engine's metrics here: on a starved machine that takes as long as the whole answer
    took = vllm.await_running(0, 2)
    made = vllm.generated() - before
    print(f"\nstopped {took * 1000:.0f} ms after the client left, {made:.0f} of {LONG['max_tokens']} tokens made")
    assert 0 < made < LONG["max_tokens"] / 2


def test_a_client_that_stops_waiting_for_an_answer_stops_the_engine(vllm: Vllm, gateway: Server) -> None:
    """The same without a stream: no byte has come back yet, and none will be paid for any longer than needed."""
    headers = {"authorization": f"Bearer {gateway.key}"}
    made = 0.0
    for patience_s in (
        0.4,
        0.2,
        0.1,
        0.05,
        0.025,
    ):  # an engine may be so fast that it is through before a patient client leaves
        before = vllm.generated()
        with httpx.Client(base_url=gateway.url, timeout=patience_s, trust_env=False) as impatient:
            try:
                impatient.post("/v1/chat/completions", json=long_call(stream=False), headers=headers)
            except httpx.ReadTimeout:
                took = vllm.await_running(0, 2)
                made = vllm.generated() - before
                print(
                    f"\nstopped {took * 1000:.0f} ms after the client left, {made:.0f} of {LONG['max_tokens']} tokens made"
                )
                if made < LONG["max_tokens"]:
                    break
    assert 0 < made < LONG["max_tokens"]


def test_a_client_that_leaves_is_in_the_record(vllm: Vllm, gateway: Server) -> None:
    """A stream that was left counts as what it generated, not as nothing."""
    headers = {"authorization": f"Bearer {gateway.key}"}
    with gateway.http.stream("POST", "/v1/chat/completions", json=long_call(stream=True), headers=headers) as answer:
        lines = answer.iter_lines()
        for _ in range(20):
            next(lines)
    vllm.await_running(0, 2)
    row = row_of(gateway, answer.headers["x-request-id"])
    assert row["stream"] is True
    assert row["completion_tokens"] > 5
    assert row["cost_nanousd"] > 0
