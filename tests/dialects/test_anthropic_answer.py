"""Claude's messages as chat completions, read by the types of OpenAI's SDK."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from gateway import errors
from gateway.dialects.anthropic_tools import ANSWER_TOOL
from gateway.used import Usage
from tests.dialects.anthropic_payloads import DIALECT, JsonObject, message


def read(body: bytes) -> tuple[ChatCompletion, Usage | None]:
    out, used = DIALECT.answer("chat", body, "chat")
    return ChatCompletion.model_validate_json(out, strict=True), used


def test_text_is_joined() -> None:
    """Blocks have no meaning for the client; id and model are kept and told by the client's name."""
    blocks: list[JsonObject] = [{"type": "text", "text": "Grüß "}, {"type": "text", "text": "Gott"}]
    answer, used = read(message(blocks))
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason, choice.message.role) == ("Grüß Gott", "stop", "assistant")
    assert (answer.id, answer.model, answer.created) == ("msg_013Zva2CMHLNnXjNJJKqJ2EF", "chat", 1_760_000_000)
    assert choice.message.tool_calls is None
    assert used == Usage(25, 15)


def test_usage_has_the_cache_in_the_prompt() -> None:
    """Anthropic counts beside it what OpenAI counts in it."""
    usage = {
        "input_tokens": 10,
        "output_tokens": 50,
        "cache_read_input_tokens": 2000,
        "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
        "output_tokens_details": {"thinking_tokens": 30},
        "service_tier": "priority",
    }
    answer, used = read(message([{"type": "text", "text": "x"}], usage=usage))
    told = answer.usage
    assert told is not None
    assert told.prompt_tokens_details is not None
    assert told.completion_tokens_details is not None
    assert (told.prompt_tokens, told.completion_tokens, told.total_tokens) == (2310, 50, 2360)
    assert told.prompt_tokens_details.cached_tokens == 2000
    assert told.completion_tokens_details.reasoning_tokens == 30
    assert (told.model_extra or {})["cache_creation_input_tokens"] == 300
    assert used == Usage(input=2310, output=50, cached_read=2000, cache_write=300, cache_write_1h=200, reasoning=30)
    assert answer.service_tier == "priority"


def test_tool_calls_have_arguments_as_text() -> None:
    """In the order of the blocks, with no content where nothing was said."""
    blocks: list[JsonObject] = [
        {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Zürich", "days": [1, 2]}},
        {"type": "tool_use", "id": "toolu_2", "name": "get_time", "input": {}},
    ]
    answer, _ = read(message(blocks, "tool_use"))
    choice = answer.choices[0]
    calls: list[Any] = list(choice.message.tool_calls or [])
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert [(call.id, call.function.name) for call in calls] == [("toolu_1", "get_weather"), ("toolu_2", "get_time")]
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Zürich", "days": [1, 2]}, {}]


def test_thinking_stands_beside_the_content_and_can_go_back() -> None:
    """What an answer gave is what the next request sends, to the byte."""
    blocks: list[JsonObject] = [
        {"type": "thinking", "thinking": "First … then", "signature": "EqQB="},
        {"type": "redacted_thinking", "data": "Emw="},
        {"type": "text", "text": "So."},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
    ]
    out, _ = DIALECT.answer("chat", message(blocks, "tool_use"), "chat")
    said = json.loads(out)["choices"][0]["message"]
    assert said["reasoning_content"] == "First … then"
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "ok"}
    body = {"model": "chat", "messages": [{"role": "user", "content": "?"}, said, result]}
    sent = json.loads(DIALECT.request("chat", json.dumps(body).encode(), "claude-sonnet-4-5").body)
    assert sent["messages"][1] == {"role": "assistant", "content": blocks}


def test_an_answer_in_a_schema_is_content_again() -> None:
    """The tool that stood for it is not seen."""
    answer, _ = read(message([{"type": "tool_use", "id": "t", "name": ANSWER_TOOL, "input": {"a": 1}}], "tool_use"))
    choice = answer.choices[0]
    assert json.loads(choice.message.content or "") == {"a": 1}
    assert (choice.message.tool_calls, choice.finish_reason) == (None, "stop")


def test_a_refusal_is_a_filtered_answer() -> None:
    """Empty, with the explanation where OpenAI puts one."""
    details = {"type": "refusal", "category": "bio", "explanation": "It could do harm."}
    answer, _ = read(message([], "refusal", stop_details=details))
    choice = answer.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("content_filter", "")
    assert choice.message.refusal == "It could do harm."


def test_blocks_of_the_providers_own_tools_are_skipped() -> None:
    """Whatever shape they have; what the text rests on is cited with its place in the whole text."""
    citation = {"type": "web_search_result_location", "url": "https://w.example", "title": None, "cited_text": "s"}
    place = {"type": "char_location", "document_index": 0, "cited_text": "s"}
    blocks: list[JsonObject] = [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [], "text": {"not": "a string"}},
        {"type": "text", "text": "It is "},
        {"type": "text", "text": "sunny", "citations": [citation, place]},
    ]
    answer, _ = read(message(blocks))
    said = answer.choices[0].message
    assert said.content == "It is sunny"
    assert said.annotations is not None
    cited = said.annotations[0].url_citation
    assert (len(said.annotations), cited.url, cited.start_index, cited.end_index) == (1, "https://w.example", 6, 11)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"type": "error", "error": {"type": "api_error", "message": "x"}}',
        message([{"type": "text", "text": 5}]),
        message([{"text": "no type"}]),
        message([{"type": "text", "text": "x"}], stop_reason=None),
    ],
)
def test_what_is_no_message_is_the_upstreams_error(body: bytes) -> None:
    """Never an answer that looks whole."""
    with pytest.raises(errors.UpstreamError):
        DIALECT.answer("chat", body, "chat")
