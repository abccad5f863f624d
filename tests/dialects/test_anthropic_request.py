"""OpenAI's chat requests as the Messages API takes them."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from gateway import errors
from gateway.dialects.anthropic_request import LEFT_OUT, REFUSED, TRANSLATED
from gateway.dialects.anthropic_tools import ANSWER_TOOL
from tests.dialects.anthropic_payloads import DIALECT

JsonObject = dict[str, Any]

OLD, MIDDLE, NEW = "claude-sonnet-4-20250514", "claude-opus-4-6", "claude-opus-4-8"
HELLO: JsonObject = {"role": "user", "content": "Hello"}
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"a": {"type": "object", "properties": {"b": {"type": "integer"}}}},
}
WEATHER: JsonObject = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME: JsonObject = {"type": "function", "function": {"name": "get_time"}}


def sent(*messages: JsonObject, model: str = NEW, **fields: Any) -> Any:
    """The body that goes out."""
    body = {"model": "chat", "messages": list(messages) or [HELLO], **fields}
    return json.loads(DIALECT.request("chat", json.dumps(body).encode(), model).body)


def refused(*messages: JsonObject, model: str = NEW, **fields: Any) -> errors.BadRequest:
    with pytest.raises(errors.BadRequest) as raised:
        sent(*messages, model=model, **fields)
    return raised.value


def blocks(*content: JsonObject, role: str = "user") -> Any:
    """What becomes of a message's parts."""
    return sent({"role": role, "content": list(content)})["messages"][0]["content"]


def test_a_plain_request_has_what_the_api_demands() -> None:
    """The upstream's name for the model, a limit, blocks; nothing that was not asked for."""
    assert sent() == {
        "model": NEW,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    }
    outgoing = DIALECT.request("chat", json.dumps({"model": "chat", "messages": [HELLO]}).encode(), NEW)
    assert (outgoing.path, outgoing.headers) == ("/messages", ())
    assert DIALECT.authorization("sk-ant") == (("x-api-key", "sk-ant"), ("anthropic-version", "2023-06-01"))
    assert DIALECT.authorization("") == (("anthropic-version", "2023-06-01"),)


def test_instructions_stand_apart_in_their_order() -> None:
    """Wherever they stood, with their marks for the cache."""
    control = {"type": "ephemeral", "ttl": "1h"}
    body = sent(
        {"role": "system", "content": "Be brief."},
        HELLO,
        {"role": "developer", "content": [{"type": "text", "text": "Be kind.", "cache_control": control}]},
    )
    assert body["system"] == [
        {"type": "text", "text": "Be brief."},
        {"type": "text", "text": "Be kind.", "cache_control": control},
    ]
    assert len(body["messages"]) == 1
    assert refused({"role": "system", "content": "alone"}).param == "messages"


def test_roles_alternate() -> None:
    """Neighbours of one role become one turn; empty turns, which the API refuses, go."""
    body = sent(
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": [{"type": "text", "text": "  "}, {"type": "text", "text": "d"}]},
    )
    said = [(turn["role"], [block["text"] for block in turn["content"]]) for turn in body["messages"]]
    assert said == [("user", ["a", "b"]), ("assistant", ["c", "no"]), ("user", ["d"])]


def test_an_answer_that_was_begun_does_not_end_in_white_space() -> None:
    """The API refuses it, and the model goes on from the last letter."""
    body = sent(HELLO, {"role": "assistant", "content": "The answer is \n"})
    assert body["messages"][-1]["content"] == [{"type": "text", "text": "The answer is"}]


def test_tool_results_are_one_turn_of_the_users() -> None:
    """Calls keep their arguments' bytes, ids that the API would refuse are made fit on both sides, results come first."""
    calls = [
        {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.50}'}},
        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    picture = {"type": "image_url", "image_url": {"url": "https://x.example/y.png"}}
    body = sent(
        HELLO,
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "one"},
        {"role": "tool", "tool_call_id": "call_2", "content": [picture], "cache_control": {"type": "ephemeral"}},
        {"role": "user", "content": "And now?"},
    )
    assert body["messages"][1]["content"] == [
        {"type": "tool_use", "id": "functions_f_0", "name": "f", "input": {"x": 1.5}},
        {"type": "tool_use", "id": "call_2", "name": "g", "input": {}},
    ]
    image = {"type": "image", "source": {"type": "url", "url": "https://x.example/y.png"}}
    assert body["messages"][2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "functions_f_0", "content": [{"type": "text", "text": "one"}]},
            {
                "type": "tool_result",
                "tool_use_id": "call_2",
                "content": [image],
                "cache_control": {"type": "ephemeral"},
            },
            {"type": "text", "text": "And now?"},
        ],
    }


def test_arguments_must_be_an_object() -> None:
    """Broken ones cannot be sent, and the client is told which."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    error = refused(HELLO, {"role": "assistant", "content": None, "tool_calls": [call]})
    assert error.param == "messages[1].tool_calls[0].function.arguments"
    assert refused({"role": "tool", "content": "x"}).param == "messages[0].tool_call_id"
    assert refused({"role": "function", "name": "f", "content": "x"}).param == "messages[0].role"


def test_pictures_and_documents_become_blocks() -> None:
    """Inline or by address; text files as text."""
    pdf = "data:application/pdf;base64,JVBERi0="
    plain = "data:text/plain;charset=utf-8;base64," + base64.b64encode("Grüße".encode()).decode()
    assert blocks(
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0=", "detail": "high"}},
        {"type": "image_url", "image_url": "http://x.example/y.jpg", "cache_control": {"type": "ephemeral"}},
        {"type": "file", "file": {"file_data": pdf, "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": plain}},
        {"type": "file", "file": {"file_data": "data:image/gif;base64,R0k="}},
        {"type": "file", "file": {"file_data": "https://x.example/b.pdf"}},
    ) == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}},
        {
            "type": "image",
            "source": {"type": "url", "url": "http://x.example/y.jpg"},
            "cache_control": {"type": "ephemeral"},
        },
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            "title": "a.pdf",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "R0k="}},
        {"type": "document", "source": {"type": "url", "url": "https://x.example/b.pdf"}},
    ]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "type"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "image_url"),
        ({"type": "image_url"}, "image_url"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}, "file.file_data"),
    ],
)
def test_parts_that_cannot_be_sent_are_named(part: JsonObject, param: str) -> None:
    """With their place in the request."""
    error = refused(HELLO, {"role": "user", "content": [{"type": "text", "text": "x"}, part]})
    assert error.param == f"messages[1].content[1].{param}"


def test_a_mark_on_a_message_is_its_last_blocks() -> None:
    """Marks for the cache go along wherever clients put them: messages, parts, tools, the request."""
    control = {"type": "ephemeral"}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    tool = {**WEATHER, "cache_control": control}
    body = sent({"role": "user", "content": parts, "cache_control": control}, tools=[tool], cache_control=control)
    assert [block.get("cache_control") for block in body["messages"][0]["content"]] == [None, control]
    assert (body["tools"][0]["cache_control"], body["cache_control"]) == (control, control)


def test_functions_become_tools() -> None:
    """With a schema even where there is none; strict only where the model knows it."""
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    assert sent(tools=[strict, TIME])["tools"] == [
        {
            "name": "get_weather",
            "description": "The weather at a place",
            "input_schema": WEATHER["function"]["parameters"],
            "strict": True,
        },
        {"name": "get_time", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert "strict" not in sent(tools=[strict], model=OLD)["tools"][0]
    assert refused(tools=[{"type": "web_search_20250305", "name": "web_search"}]).param == "tools[0].type"


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "get_time"}}, {"type": "tool", "name": "get_time"}),
    ],
)
def test_the_choice_of_tools_is_carried_over(choice: object, made: JsonObject) -> None:
    """And whether they may run side by side, which has its place in the choice."""
    assert sent(tools=[WEATHER, TIME], tool_choice=choice)["tool_choice"] == made
    single = {**made, "disable_parallel_tool_use": True} if made["type"] != "none" else made
    assert sent(tools=[WEATHER, TIME], tool_choice=choice, parallel_tool_calls=False)["tool_choice"] == single


def test_a_choice_is_nothing_without_tools() -> None:
    """The API refuses it; several tools may be allowed, and an unknown choice is named."""
    assert "tool_choice" not in sent(tool_choice="auto", parallel_tool_calls=False)
    assert sent(tools=[TIME], parallel_tool_calls=False)["tool_choice"] == {
        "type": "auto",
        "disable_parallel_tool_use": True,
    }
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_time"}}]}
    body = sent(tools=[WEATHER, TIME], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert ([tool["name"] for tool in body["tools"]], body["tool_choice"]) == (["get_time"], {"type": "any"})
    assert refused(tools=[TIME], tool_choice={"type": "custom"}).param == "tool_choice"


def test_limits_and_sampling() -> None:
    """The greater of two limits, as the gateway holds money for it; Claude's temperature ends at 1."""
    body = sent(max_tokens=10, max_completion_tokens=20, temperature=1.6, top_p=0.5, top_k=40, stop="END", stream=True)
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["top_k"]) == (20, 1.0, 0.5, 40)
    assert (body["stop_sequences"], body["stream"]) == (["END"], True)
    assert sent(stop=["a", "b"])["stop_sequences"] == ["a", "b"]
    assert refused(stop=["a", "\n"]).param == "stop"


def test_the_caller_and_the_tier_are_carried_over() -> None:
    """Under Anthropic's names."""
    assert sent(user="u1", safety_identifier="u2", service_tier="default")["metadata"] == {"user_id": "u1"}
    assert sent(safety_identifier="u2")["metadata"] == {"user_id": "u2"}
    tiers = [sent(service_tier=tier)["service_tier"] for tier in ("auto", "default", "priority")]
    assert tiers == ["auto", "standard_only", "auto"]
    assert refused(service_tier="flex").param == "service_tier"


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "made"),
    [
        (NEW, "high", {"type": "adaptive", "display": "summarized"}, "high"),
        (NEW, "minimal", {"type": "adaptive", "display": "summarized"}, "low"),
        (NEW, "xhigh", {"type": "adaptive", "display": "summarized"}, "xhigh"),
        (NEW, "none", {"type": "disabled"}, None),
        (MIDDLE, "xhigh", {"type": "adaptive", "display": "summarized"}, "high"),
        ("claude-sonnet-5-5", "none", {"type": "between_tools"}, None),
        ("a-name-of-tomorrow", "low", {"type": "adaptive", "display": "summarized"}, "low"),
        (OLD, "low", {"type": "enabled", "budget_tokens": 2000}, None),
        (OLD, "minimal", {"type": "enabled", "budget_tokens": 1024}, None),
        (OLD, "high", {"type": "enabled", "budget_tokens": 8000}, None),
        (OLD, "none", None, None),
    ],
)
def test_effort_is_what_the_model_makes_of_it(model: str, effort: str, thinking: object, made: str | None) -> None:
    """Levels where it thinks as it sees fit, a share of the limit where it has a budget."""
    body = sent(model=model, reasoning_effort=effort, max_tokens=10_000)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == made


def test_thinking_keeps_to_its_conditions() -> None:
    """No sampling beside it, no forced tool, a budget below the limit, no calls without the thoughts that led to them."""
    body = sent(model=OLD, reasoning_effort="high", temperature=0.2, top_k=5, top_p=0.4)
    assert not {"temperature", "top_k", "top_p"} & body.keys()
    assert sent(model=OLD, reasoning_effort="high", top_p=0.96)["top_p"] == 0.96
    assert sent(model=OLD, reasoning_effort="none", temperature=0.2)["temperature"] == 0.2
    assert "thinking" not in sent(model=OLD, reasoning_effort="high", tools=[TIME], tool_choice="required")
    assert "thinking" not in sent(model=NEW, reasoning_effort="high", tools=[TIME], tool_choice="required")
    call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    asked, result = {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "12"}
    assert "thinking" not in sent(HELLO, asked, result, model=OLD, reasoning_effort="high")
    assert "thinking" in sent(HELLO, asked, result, model=NEW, reasoning_effort="high")
    signed = {**asked, "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}]}
    assert "thinking" in sent(HELLO, signed, result, model=OLD, reasoning_effort="high")


def test_effort_that_cannot_be_had_is_refused() -> None:
    """A model that always thinks, a limit that leaves no room, a level that there is not."""
    for model in ("claude-opus-5-5", "claude-fable-5"):
        assert refused(model=model, reasoning_effort="none").code == "unsupported_value"
    assert refused(model=OLD, reasoning_effort="low", max_tokens=1024).param == "reasoning_effort"
    assert refused(reasoning_effort="colossal").code == "invalid_value"


def test_a_schema_for_the_answer_goes_to_a_model_that_keeps_to_it() -> None:
    """With objects closed, as the API wants it; beside what the client says itself."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
    body = sent(response_format=wanted, output_config={"effort": "low"})
    inner = {"type": "object", "properties": {"b": {"type": "integer"}}, "additionalProperties": False}
    closed = {"type": "object", "properties": {"a": inner}, "additionalProperties": False}
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": closed}}
    error = refused(response_format={"type": "json_schema", "json_schema": {"name": "x"}})
    assert error.param == "response_format.json_schema.schema"
    assert refused(response_format={"type": "grammar"}).param == "response_format.type"


def test_an_older_model_answers_in_a_schema_through_a_tool() -> None:
    """It must call it, or one of the client's own first."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    body = sent(model=OLD, response_format=wanted)
    assert [tool["name"] for tool in body["tools"]] == [ANSWER_TOOL]
    assert body["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL, "disable_parallel_tool_use": True}
    assert "output_config" not in body
    body = sent(model=OLD, response_format=wanted, tools=[TIME])
    assert ([tool["name"] for tool in body["tools"]], body["tool_choice"]) == (
        ["get_time", ANSWER_TOOL],
        {"type": "any"},
    )
    forced = {"type": "function", "function": {"name": "get_time"}}
    assert (
        sent(model=OLD, response_format=wanted, tools=[TIME], tool_choice=forced)["tool_choice"]["name"] == "get_time"
    )
    assert (
        sent(model=OLD, response_format=wanted, tools=[TIME], tool_choice="none")["tool_choice"]["name"] == ANSWER_TOOL
    )


def test_any_json_is_an_instruction() -> None:
    """Claude has no such mode, so it is asked."""
    body = sent({"role": "system", "content": "Be brief."}, HELLO, response_format={"type": "json_object"})
    assert [block["text"][:6] for block in body["system"]] == ["Be bri", "Answer"]
    assert sent(response_format={"type": "text"}).keys() == {"model", "max_tokens", "messages"}


def test_what_clients_add_goes_through() -> None:
    """The client's own `thinking` goes before what would be made of an effort; betas are a header."""
    thinking = {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}
    assert sent(thinking=thinking, reasoning_effort="low")["thinking"] == thinking
    body = {"model": "chat", "messages": [HELLO], "betas": ["context-1m-2025-08-07", "x-1"]}
    outgoing = DIALECT.request("chat", json.dumps(body).encode(), NEW)
    assert outgoing.headers == (("anthropic-beta", "context-1m-2025-08-07,x-1"),)
    assert refused(betas="a\r\nx-evil: 1").param == "betas"


def test_what_claude_cannot_do_is_refused_by_name() -> None:
    """Unless it asks for nothing; an unknown name may mean anything."""
    asking: JsonObject = {
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "logit_bias": {"5": 1},
        "presence_penalty": 0.5,
        "frequency_penalty": -1,
        "audio": {"voice": "x", "format": "wav"},
        "modalities": ["text", "audio"],
        "moderation": {"model": "omni-moderation-latest"},
        "web_search_options": {},
        "functions": [{"name": "f"}],
        "function_call": "auto",
        "verbosity": "low",
    }
    assert asking.keys() == REFUSED.keys()
    for name, value in asking.items():
        error = refused(HELLO, **{name: value})
        assert (error.param, error.code) == (name, "unsupported_parameter")
        for harmless in (None, *REFUSED[name]):
            nothing: JsonObject = {name: harmless}
            assert name not in sent(HELLO, **nothing)
    assert refused(min_p=0.1).code == "unknown_parameter"
    assert sent(min_p=None)


def test_what_changes_nothing_is_left_out() -> None:
    """Hints and bookkeeping."""
    fields: JsonObject = dict.fromkeys(LEFT_OUT, 1) | {"stream_options": {"include_usage": True}}
    assert sent(**fields).keys() == {"model", "max_tokens", "messages"}


def test_the_shape_is_checked_with_its_place() -> None:
    """As everywhere else on this API."""
    error = refused({"role": "user", "content": [{"text": "no type"}]})
    assert (error.code, error.param) == ("missing_required_parameter", "messages[0].content[0].type")
    with pytest.raises(errors.BadRequest):
        DIALECT.request("embeddings", b'{"model": "x", "input": "y"}', NEW)


def test_every_field_of_openais_sdk_has_an_answer() -> None:
    """What it can send is translated, left out or refused by name."""
    sendable = CompletionCreateParamsBase.__annotations__.keys() | {"stream", "stream_options"}
    assert sendable - TRANSLATED - LEFT_OUT - REFUSED.keys() == set()


def test_the_documentation_has_every_field() -> None:
    """One row each, and none that the code does not know."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "providers.md").read_text()
    section = page.split("## Anthropic", 1)[1].split("\n### ", 1)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert named == TRANSLATED | LEFT_OUT | REFUSED.keys()
