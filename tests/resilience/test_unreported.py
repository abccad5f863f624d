"""Providers that do not say what an answer used: it is counted once it is whole, and marked so; what is not whole is estimated."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from gateway.answer_length import written
from gateway.token_count import NEAREST, TokenCounter, _load
from tests.fixtures.deployments import Route, Routes
from tests.fixtures.server import Json
from tests.upstream.behaviour import Behaviour, ToolCall, Usage

TEXT = "the river turns the wheel, and the wheel turns the stone — 水車. " * 8
SILENT = Behaviour(text=TEXT, usage="absent", chunks=23)
ASKED = "Why does the river turn the wheel?"
FRAMES = 4 + 3  # a message and the beginning of the answer


@pytest.fixture(scope="module")
def vocabulary() -> tiktoken.Encoding:
    """The table as the tokenizer's own package has it, merged by the tokenizer."""
    loaded = _load(NEAREST, ())
    assert loaded is not None
    return loaded


def bill(record: Json) -> tuple[str, int, int]:
    assert record["cost_nanousd"] == record["prompt_tokens"] * 1_000_000 + record["completion_tokens"] * 2_000_000
    return record["usage_source"], record["prompt_tokens"], record["completion_tokens"]


def ask(routes: Routes, route: Route, **more: Any) -> Json:
    body: Json = {"messages": [{"role": "user", "content": ASKED}], "max_tokens": 900, **more}
    return routes.record(routes.ask(route, **body))


@pytest.mark.parametrize("stream", [False, True])
def test_a_whole_answer_is_counted(routes: Routes, vocabulary: tiktoken.Encoding, stream: bool) -> None:
    """Whole or streamed, the same: texts put together are counted, not pieces, which would be more tokens."""
    route = routes(SILENT)
    prompt, output = (len(vocabulary.encode_ordinary(text)) for text in (ASKED, TEXT))
    assert bill(ask(routes, route, stream=stream)) == ("counted", prompt + FRAMES, output)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["messages", "responses", "completions"])
def test_clients_of_other_apis_are_counted_alike(
    routes: Routes, vocabulary: tiktoken.Encoding, path: str, stream: bool
) -> None:
    """By what was sent to the upstream and what it said, which is chat in any case."""
    route = routes(SILENT)
    body: Json = {"model": route.name, "stream": stream, "max_tokens": 900}
    said = {"messages": [{"role": "user", "content": ASKED}]} if path == "messages" else {"prompt": ASKED}
    if path == "responses":
        body, said = {"model": route.name, "stream": stream, "max_output_tokens": 900}, {"input": ASKED}
    answer = routes.server.post(f"/v1/{path}", body | said)
    assert answer.status_code == 200, answer.text
    frames = 0 if path == "completions" else FRAMES
    prompt, output = (len(vocabulary.encode_ordinary(text)) for text in (ASKED, TEXT))
    assert bill(routes.records(answer)[-1]) == ("counted", prompt + frames, output)


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools_are_counted(routes: Routes, vocabulary: tiktoken.Encoding, stream: bool) -> None:
    """Their names and arguments, which are all that the model wrote of them."""
    calls = (ToolCall("weather", json.dumps({"city": "Bern", "days": [1, 2, 3]})), ToolCall("time", "{}"))
    route = routes(Behaviour(text="", tool_calls=calls, usage="absent"))
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    source, prompt, output = bill(ask(routes, route, stream=stream, tools=tools))
    texts = [text for call in calls for text in (call.name, call.arguments)]
    assert (source, output) == ("counted", sum(len(vocabulary.encode_ordinary(text)) for text in texts))
    assert prompt > len(vocabulary.encode_ordinary(ASKED)) + FRAMES


def test_vectors_cost_what_was_embedded(routes: Routes, vocabulary: tiktoken.Encoding) -> None:
    """Nothing is written; tokens that a client sends are not counted again."""
    route = routes(SILENT)
    for texts, tokens in ((["hello river", "wheel"], None), ([[1, 2, 3], [4]], 4)):
        answer = routes.server.post("/v1/embeddings", {"model": route.name, "input": texts})
        wanted = tokens or sum(len(vocabulary.encode_ordinary(str(text))) for text in texts)
        assert bill(routes.record(answer)) == ("counted", wanted, 0)


def test_what_cannot_be_counted_is_estimated(routes: Routes) -> None:
    """A picture has no text, and a stream that breaks off is not all of the answer."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    seen = [{"role": "user", "content": [{"type": "text", "text": ASKED}, picture]}]
    assert ask(routes, routes(SILENT), messages=seen)["usage_source"] == "estimated"
    broken = Behaviour(text=TEXT, usage="absent", chunks=20, fault="fin", fault_after=12)
    assert ask(routes, routes(broken), stream=True)["usage_source"] == "estimated"


def test_no_more_is_billed_than_was_held(routes: Routes) -> None:
    """The model's own vocabulary may have longer words than the one that stands in."""
    source, _, output = bill(ask(routes, routes(SILENT), max_tokens=10))
    assert (source, output) == ("counted", 10)


def test_a_provider_that_tells_is_believed_and_one_that_stops_is_counted_from_the_next_stream_on(
    routes: Routes, vocabulary: tiktoken.Encoding
) -> None:
    """Streams of a deployment that tells its usage are not kept: the first one that does not is estimated by its events."""

    def speaks(usage: Usage) -> Behaviour:
        return Behaviour(text=TEXT, usage=usage, chunks=23, completion_tokens=5)

    route = routes((speaks("asked"), speaks("absent"), speaks("absent"), speaks("asked")))
    bills = [bill(ask(routes, route, stream=True)) for _ in range(4)]
    assert [source for source, _, _ in bills] == ["provider", "estimated", "counted", "provider"]
    assert [bills[0][2], bills[2][2]] == [5, len(vocabulary.encode_ordinary(TEXT))]


def test_without_the_tokenizer_it_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: nothing fails without it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    counter = TokenCounter()
    assert counter.nearest(["hello"], "gpt-4") is None
    assert counter.ready("gpt-4", nearest=True)


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=8)), max_size=12))
def test_events_put_together_say_what_the_whole_answer_says(pieces: Sequence[tuple[int, str]]) -> None:
    """Several choices at once, in any order of their events."""
    whole: dict[int, str] = {}
    for index, text in pieces:
        whole[index] = whole.get(index, "") + text
    events = [
        json.dumps({"choices": [{"index": index, "delta": {"content": text}}]}).encode() for index, text in pieces
    ]
    choices = [{"index": index, "message": {"role": "assistant", "content": text}} for index, text in whole.items()]
    assert written(events) == written([json.dumps({"choices": choices}).encode()]) == list(whole.values())


def test_thoughts_count_once_under_two_names_and_what_is_unknown_is_not_counted() -> None:
    """vLLM gives its reasoning twice while one name gives way to the other."""
    said = {"content": [{"type": "text", "text": "b"}], "reasoning": "a", "reasoning_content": "a", "refusal": None}
    assert written([json.dumps({"choices": [{"message": said}]}).encode()]) == ["b", "a"]
    called = {"function_call": {"name": "f", "arguments": "{}"}}
    assert written([json.dumps({"choices": [{"message": called}]}).encode()]) == ["f", "{}"]
    assert written([b'{"choices":[{"message":{"content":{"odd":1}}}]}']) is None
    assert written([b"no json"]) is None
