"""Requests of the Messages API as chats: everything that chat can say is said, everything else is refused by name."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway import errors
from gateway.dialects.anthropic_native import UNSIGNED
from gateway.fronts.messages_chat import LEFT_OUT, TRANSLATED
from gateway.fronts.messages_request import UNMETERED
from tests.fronts.messages import BEDROCK, GEMINI, OPENAI, VLLM, asked, made

PNG = base64.b64encode(b"png").decode()
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
PAGE = Path(__file__).parents[2] / "docs" / "messages.md"


def refusal(messages: Any = "hi", toward: Any = OPENAI, **fields: Any) -> str:
    """The field that a request is refused for, which its message names."""
    with pytest.raises(errors.BadRequest) as raised:
        made(messages, toward, **fields)
    param = raised.value.param
    assert param is not None
    assert param in raised.value.message
    return param


def result(content: Any, **more: Any) -> list[Any]:
    turn = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": content, **more}]
    return [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [CALL]},
        {"role": "user", "content": turn},
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 3}, {"temperature": 0.5, "top_p": 0.9, "top_k": 3}),
        ({"stop_sequences": ["END"]}, {"stop": ["END"]}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"metadata": {"user_id": "ann"}}, {"user": "ann"}),
        ({"output_config": {"effort": "max"}}, {"reasoning_effort": "xhigh"}),
        ({"tools": [], "tool_choice": {"type": "auto"}}, {}),
        ({"cache_control": {"type": "ephemeral"}, "speed": "standard"}, {}),
        ({"thinking": {"type": "adaptive"}}, {}),
        ({"thinking": {"type": "disabled"}}, {}),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}, {}),
    ],
)
def test_fields_keep_their_meaning(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Beside the model, the limit and the messages."""
    chat = made(**given)
    plain = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 9}
    assert chat == {**plain, **expected}


def test_a_limit_has_the_name_that_the_model_knows() -> None:
    """OpenAI's newer models refuse the old one, most other servers ignore the new one."""
    assert made(toward=VLLM)["max_tokens"] == 9
    assert made(toward=OPENAI)["max_completion_tokens"] == 9


def test_a_long_name_of_a_user_stays_one_name() -> None:
    """OpenAI takes 64 characters; Claude Code sends more."""
    first, again, other = (made(metadata={"user_id": name * 70})["user"] for name in "aab")
    assert first == again != other
    assert len(first) == 64


@pytest.mark.parametrize(("budget", "effort"), [(1024, "low"), (8000, "medium"), (31_999, "high")])
def test_a_budget_for_thinking_is_an_effort_where_the_model_takes_one(budget: int, effort: str) -> None:
    """Others refuse the field, and think as they do."""
    thinking = {"type": "enabled", "budget_tokens": budget}
    assert made(toward=GEMINI, thinking=thinking)["reasoning_effort"] == effort
    assert "reasoning_effort" not in made(toward=OPENAI, thinking=thinking)


def test_tools_are_functions() -> None:
    """With their examples in their description, as chat has no field for them."""
    tool = {"name": "w", "description": "Tells.", "input_schema": {"type": "object"}, "strict": True}
    more = {"input_examples": [{"city": "Oslo"}], "cache_control": {"type": "ephemeral"}, "type": "custom"}
    chat = made(tools=[tool | more], tool_choice={"type": "any", "disable_parallel_tool_use": True})
    function = {"name": "w", "parameters": {"type": "object"}, "strict": True}
    function["description"] = 'Tells.\n\nExamples of inputs: [{"city": "Oslo"}]'
    assert chat["tools"] == [{"type": "function", "function": function}]
    assert (chat["tool_choice"], chat["parallel_tool_calls"]) == ("required", False)
    named = made(tools=[tool], tool_choice={"type": "tool", "name": "w"})["tool_choice"]
    assert named == {"type": "function", "function": {"name": "w"}}


@pytest.mark.parametrize("place", ["output_format", "output_config"])
def test_a_schema_is_a_response_format(place: str) -> None:
    """Under its old name and its new one."""
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    fields: dict[str, Any] = {place: wanted if place == "output_format" else {"format": wanted}}
    chat = made(**fields)
    schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    assert chat["response_format"] == {"type": "json_schema", "json_schema": schema}


def test_instructions_go_in_front() -> None:
    """Blocks as one text, which every server takes; also where the conversation has some in its midst."""
    chat = made(
        [
            {"role": "user", "content": "hi"},
            {"role": "system", "content": "now briefly"},
            {"role": "user", "content": "?"},
        ],
        system=[{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}],
    )
    assert [(message["role"], message["content"]) for message in chat["messages"]] == [
        ("system", "a\n\nb"),
        ("user", "hi"),
        ("system", "now briefly"),
        ("user", "?"),
    ]


def test_marks_and_signed_thoughts_go_where_they_are_read() -> None:
    """Behind LiteLLM stands Claude at Bedrock and Vertex. Thoughts that nobody signed stay here."""
    thoughts = [
        {"type": "thinking", "thinking": "a", "signature": "sig"},
        {"type": "thinking", "thinking": "b", "signature": UNSIGNED},
        {"type": "redacted_thinking", "data": "x"},
    ]
    mark = {"type": "ephemeral"}
    said = [{"type": "text", "text": "hi", "cache_control": mark}]
    chat = made(
        [{"role": "user", "content": said}, {"role": "assistant", "content": [*thoughts, CALL]}, *result("cold")[2:]],
        BEDROCK,
    )
    assert chat["messages"][0]["content"] == [{"type": "text", "text": "hi", "cache_control": mark}]
    assert chat["messages"][1]["thinking_blocks"] == [thoughts[0], thoughts[2]]


def test_thoughts_of_a_running_turn_go_back_to_who_reads_them() -> None:
    """Those of turns that are over do not."""
    thought = {"type": "thinking", "thinking": "hm", "signature": UNSIGNED}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": [thought, CALL]},
        result("cold")[2],
    ]
    assert [m.get("reasoning_content") for m in made(turns, VLLM)["messages"]] == [None, None, None, "hm", None]
    assert [m.get("reasoning_content") for m in made(turns, OPENAI)["messages"]] == [None] * 5


def test_results_come_first_and_their_pictures_behind_them() -> None:
    """Chat wants every result right behind the calls, and takes no picture in it."""
    turns = result([{"type": "text", "text": "cold"}, PICTURE], is_error=True)
    turns[2]["content"].append({"type": "text", "text": "look"})
    _, answer, told, shown = made(turns)["messages"]
    assert answer["content"] is None
    assert answer["tool_calls"] == [
        {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    ]
    assert told == {"role": "tool", "tool_call_id": "toolu_1", "content": "Error: cold\n(see the picture below)"}
    assert [part.get("text") for part in shown["content"]] == ["From the result of toolu_1:", None, "look"]
    assert shown["content"][1]["image_url"] == {"url": f"data:image/png;base64,{PNG}"}


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (PICTURE, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}),
        (
            {"type": "image", "source": {"type": "url", "url": "https://x.example/y.png"}},
            {"type": "image_url", "image_url": {"url": "https://x.example/y.png"}},
        ),
        (
            {
                "type": "document",
                "title": "a.pdf",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PNG},
            },
            {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PNG}", "filename": "a.pdf"}},
        ),
    ],
)
def test_pictures_and_documents_are_parts(block: Any, part: Any) -> None:
    """Beside text."""
    content = made([{"role": "user", "content": [block, {"type": "text", "text": "?"}]}])["messages"][0]["content"]
    assert content == [part, {"type": "text", "text": "?"}]


def test_documents_of_words_are_words() -> None:
    """Their title and context stand before them, as does what a search found."""
    plain = {
        "type": "document",
        "title": "T",
        "context": "C",
        "source": {"type": "text", "media_type": "text/plain", "data": "D"},
    }
    within = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "E"}]}}
    found = {
        "type": "search_result",
        "source": "https://x.example",
        "title": "F",
        "content": [{"type": "text", "text": "G"}],
    }
    content = made([{"role": "user", "content": [plain, within, found]}])["messages"][0]["content"]
    assert content == "T\nC\nD\n\nE\n\nF\nhttps://x.example\nG"


def test_an_answer_may_be_begun_where_a_server_goes_on_with_it() -> None:
    """vLLM wants to be told so."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "{"}]
    chat = made(turns, VLLM)
    assert (chat["continue_final_message"], chat["add_generation_prompt"]) == (True, False)
    assert made(turns, GEMINI)["messages"][1] == {"role": "assistant", "content": "{"}
    assert refusal(turns) == "messages.1"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"thread": {"id": "x"}}, "thread"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"name": "f", "input_schema": {}, "defer_loading": True}]}, "tools.0.defer_loading"),
        ({"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "tool"}}, "tool_choice.type"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_format": {"type": "xml"}}, "output_format"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management.edits.0"),
        ({"system": [PICTURE]}, "system.0.type"),
    ],
)
def test_what_chat_cannot_express_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """In Anthropic's way of naming a place."""
    assert refusal(**fields) == param


@pytest.mark.parametrize(
    ("block", "param"),
    [
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "source.type"),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}}, "source.type"),
        ({"type": "document", "source": {"type": "url", "url": "https://x.example/y.pdf"}}, "source.type"),
        (
            {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}},
            "citations",
        ),
        ({"type": "document", "source": {"type": "content", "content": [PICTURE]}}, "source.content"),
        ({"type": "container_upload", "file_id": "f"}, "type"),
        ({"type": "a_block_of_tomorrow"}, "type"),
        ({"type": 7}, ""),
    ],
)
def test_blocks_that_chat_does_not_have_are_refused(block: Any, param: str) -> None:
    """Also within a tool's result."""
    at = "messages.0.content.0"
    assert refusal([{"role": "user", "content": [block]}]) == f"{at}.{param}".removesuffix(".")
    if block["type"] != 7:
        assert refusal(result([block])) == f"messages.2.content.0.content.0.{param}"


def test_a_server_tools_traces_are_refused() -> None:
    """What Anthropic's own search found is sealed for Anthropic."""
    turns = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s"}]},
    ]
    assert refusal([*turns, {"role": "user", "content": "?"}]) == "messages.1.content.0.type"


def test_a_document_by_its_address_goes_where_it_is_taken() -> None:
    """To Gemini."""
    block = {"type": "document", "source": {"type": "url", "url": "https://x.example/y.pdf"}}
    part = made([{"role": "user", "content": [block]}], GEMINI)["messages"][0]["content"][0]
    assert part["file"]["file_data"] == "https://x.example/y.pdf"


def test_the_page_has_every_field() -> None:
    """The table in docs/messages.md and the code name the same fields."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert TRANSLATED | LEFT_OUT | UNMETERED.keys() | {"context_management"} <= named


def test_requests_are_json_to_the_last_byte() -> None:
    """The helper of these tests sends what a client would."""
    assert json.loads(asked())["max_tokens"] == 9
