"""OpenAI's requests as the Gemini API takes them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway import errors
from gateway.dialects.gemini_contents import NO_THOUGHTS
from gateway.dialects.gemini_request import LEFT_OUT, REFUSED, TRANSLATED
from tests.dialects.gemini_payloads import DIALECT

JsonObject = dict[str, Any]

OLD, FLASH, PRO = "gemini-2.5-flash", "gemini-3-flash-preview", "gemini-3.1-pro-preview"
HELLO: JsonObject = {"role": "user", "content": "Hello"}
SCHEMA: JsonObject = {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "integer"}}}
WEATHER: JsonObject = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME: JsonObject = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}


def sent(*messages: JsonObject, model: str = FLASH, **fields: Any) -> Any:
    """The body that goes out."""
    body = {"model": "chat", "messages": list(messages) or [HELLO], **fields}
    return json.loads(DIALECT.request("chat", json.dumps(body).encode(), model).body)


def config(*messages: JsonObject, model: str = FLASH, **fields: Any) -> Any:
    return sent(*messages, model=model, **fields).get("generationConfig", {})


def refused(*messages: JsonObject, model: str = FLASH, **fields: Any) -> errors.BadRequest:
    with pytest.raises(errors.BadRequest) as raised:
        sent(*messages, model=model, **fields)
    return raised.value


def parts(*content: JsonObject) -> Any:
    """What becomes of a message's parts."""
    return sent({"role": "user", "content": list(content)})["contents"][0]["parts"]


def called(call_id: str, name: str, arguments: str = "{}", signature: str | None = None) -> JsonObject:
    call: JsonObject = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    if signature is not None:
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


def result(call_id: str, content: Any) -> JsonObject:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_a_plain_request_has_what_the_api_demands() -> None:
    """The model stands in the path; nothing that was not asked for."""
    assert sent() == {"contents": [{"parts": [{"text": "Hello"}], "role": "user"}]}
    for stream, method in ((False, "generateContent"), (True, "streamGenerateContent?alt=sse")):
        body = json.dumps({"model": "chat", "messages": [HELLO], "stream": stream}).encode()
        outgoing = DIALECT.request("chat", body, FLASH)
        assert (outgoing.path, outgoing.headers) == (f"/models/{FLASH}:{method}", ())
    assert DIALECT.authorization("AIza") == (("x-goog-api-key", "AIza"),)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-2.5-pro", "/models/gemini-2.5-pro:generateContent"),
        ("tunedModels/mine", "/tunedModels/mine:generateContent"),
        ("gemini-x?key=1", "/models/gemini-x%3Fkey%3D1:generateContent"),
        ("../files/secret", "/models/..%2Ffiles%2Fsecret:generateContent"),
        ("models/../x", "/models/..%2Fx:generateContent"),
    ],
)
def test_a_name_stays_a_name(model: str, path: str) -> None:
    """A client chooses it where the model is a wildcard."""
    body = json.dumps({"model": "chat", "messages": [HELLO]}).encode()
    assert DIALECT.request("chat", body, model).path == path


def test_instructions_stand_apart_in_their_order() -> None:
    """Wherever they stood."""
    kind = {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]}
    body = sent({"role": "system", "content": "Be brief."}, HELLO, kind)
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]}
    assert len(body["contents"]) == 1
    assert refused({"role": "system", "content": "alone"}).param == "messages"
    picture = {"type": "image_url", "image_url": {"url": "https://e.example/a.png"}}
    assert refused({"role": "system", "content": [picture]}, HELLO).param == "messages[0].content"


def test_turns_are_of_the_user_the_model_and_its_tools() -> None:
    """Neighbours of one kind become one turn, empty ones none; results stay apart from what the user says next."""
    body = sent(
        HELLO,
        {"role": "user", "content": ""},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": None, "tool_calls": [called("a", "f", '{"x": 1}'), called("b", "g")]},
        result("a", "1"),
        result("b", '{"time": "now"}'),
        {"role": "user", "content": "And?"},
        model=OLD,
    )
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user", "user"]
    assert [len(content["parts"]) for content in body["contents"]] == [2, 2, 2, 1]
    assert body["contents"][1]["parts"][0] == {"functionCall": {"name": "f", "args": {"x": 1}, "id": "a"}}
    assert [part["functionResponse"] for part in body["contents"][2]["parts"]] == [
        {"name": "f", "response": {"output": "1"}, "id": "a"},
        {"name": "g", "response": {"time": "now"}, "id": "b"},
    ]


def test_a_result_belongs_to_a_call() -> None:
    """Google wants the function's name, which OpenAI's clients do not repeat; some do."""
    assert refused(HELLO, result("a", "1")).param == "messages[1].tool_call_id"
    body = sent(HELLO, result("a", "1") | {"name": "f"})
    assert body["contents"][1]["parts"][0]["functionResponse"]["name"] == "f"
    assert refused(HELLO, {"role": "tool", "content": "x"}).code == "missing_required_parameter"
    broken = {"role": "assistant", "tool_calls": [called("a", "f", "[1]")]}
    assert refused(HELLO, broken).param == "messages[1].tool_calls[0].function.arguments"


def test_a_result_may_have_pictures() -> None:
    """They stand beside the output."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    calling = {"role": "assistant", "tool_calls": [called("a", "f")]}
    body = sent(HELLO, calling, result("a", [{"type": "text", "text": "ok"}, picture]))
    answered = body["contents"][2]["parts"][0]["functionResponse"]
    assert answered["response"] == {"output": "ok"}
    assert answered["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "QUJD"}}]


def test_lost_thoughts_are_stood_in_for() -> None:
    """Gemini 3 refuses a turn whose first call comes without them; those that are there stay, and older models want none."""
    calling = {"role": "assistant", "content": "Hm.", "tool_calls": [called("a", "f"), called("b", "g")]}

    def signatures(*messages: JsonObject, model: str = FLASH) -> list[str | None]:
        said = sent(HELLO, *messages, model=model)["contents"][1]["parts"]
        return [part.get("thoughtSignature") for part in said]

    assert signatures(calling) == [None, NO_THOUGHTS, None]
    assert signatures(calling, model="gemini-flash-latest") == [None, NO_THOUGHTS, None]
    assert signatures(calling, model=OLD) == [None, None, None]
    kept = {"role": "assistant", "tool_calls": [called("a", "f", signature="c2ln"), called("b", "g")]}
    assert signatures(kept) == ["c2ln", None]
    said = {"role": "assistant", "content": "x", "extra_content": {"google": {"thought_signature": "c2ln"}}}
    assert signatures(said) == ["c2ln"]
    assert signatures({"role": "assistant", "content": "x"}) == [None]


def test_media_go_in_line_or_by_address() -> None:
    """The type is told by the name where that says something."""
    assert parts(
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4A=="}},
        {"type": "image_url", "image_url": {"url": "https://e.example/a.PNG?size=1"}},
        {"type": "image_url", "image_url": "gs://bucket/a"},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://www.youtube.com/watch?v=1"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
    ) == [
        {"text": "What is this?"},
        {"inlineData": {"mimeType": "image/jpeg", "data": "/9j/4A=="}},
        {"fileData": {"fileUri": "https://e.example/a.PNG?size=1", "mimeType": "image/png"}},
        {"fileData": {"fileUri": "gs://bucket/a"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "UklG"}},
        {"fileData": {"fileUri": "https://www.youtube.com/watch?v=1"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBE"}},
        {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
    ]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image_url"}, "image_url"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "image_url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,plain"}}, "image_url"),
        ({"type": "input_audio"}, "input_audio"),
        ({"type": "file", "file": {"file_id": "file-abc"}}, "file.file_id"),
        ({"type": "file", "file": {"file_data": "JVBE"}}, "file.file_data"),
        ({"type": "a_part_of_tomorrow"}, "type"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_place(part: JsonObject, param: str) -> None:
    """As everywhere else on this API."""
    assert refused({"role": "user", "content": [part]}).param == f"messages[0].content[0].{param}"


def test_settings_have_gemini_names() -> None:
    """The greater of the two limits counts, which for both APIs includes thoughts."""
    asked: JsonObject = {
        "temperature": 1.5,
        "top_p": 0.9,
        "top_k": 40,
        "max_tokens": 10,
        "max_completion_tokens": 20,
        "stop": "END",
        "seed": 7,
        "n": 2,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logprobs": True,
        "top_logprobs": 3,
        "modalities": ["text", "image"],
    }
    assert config(**asked) == {
        "temperature": 1.5,
        "topP": 0.9,
        "topK": 40,
        "maxOutputTokens": 20,
        "stopSequences": ["END"],
        "seed": 7,
        "candidateCount": 2,
        "presencePenalty": 0.5,
        "frequencyPenalty": -0.5,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseModalities": ["TEXT", "IMAGE"],
    }
    assert config(logprobs=False, top_logprobs=0, modalities=["text"], stop=[]) == {}
    assert refused(stop=list("abcdef")).param == "stop"
    assert refused(modalities=["audio"]).param == "modalities"


def test_tools_keep_their_schemas() -> None:
    """To the byte; without parameters there is none, as the API refuses an object without properties."""
    (tools,) = sent(tools=[WEATHER, TIME])["tools"]
    assert tools["functionDeclarations"] == [
        {
            "name": "get_weather",
            "description": "The weather at a place",
            "parametersJsonSchema": WEATHER["function"]["parameters"],
        },
        {"name": "get_time"},
    ]
    assert refused(tools=[{"type": "custom", "custom": {"name": "x"}}]).param == "tools[0].type"
    bad = {"type": "function", "function": {"name": "f", "parameters": "none"}}
    assert refused(tools=[bad]).param == "tools[0].function.parameters"


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "get_time"}},
            {"mode": "ANY", "allowedFunctionNames": ["get_time"]},
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "get_time"}}],
                },
            },
            {"mode": "ANY", "allowedFunctionNames": ["get_time"]},
        ),
    ],
)
def test_the_choice_of_a_tool_has_a_mode(choice: object, wanted: object) -> None:
    """And names, where it is forced."""
    body = sent(tools=[WEATHER, TIME], tool_choice=choice)
    assert body.get("toolConfig", {}).get("functionCallingConfig") == wanted
    assert len(body["tools"][0]["functionDeclarations"]) == 2


def test_tools_that_may_not_be_called_are_not_shown() -> None:
    """A call that is not forced cannot be limited otherwise."""
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "get_time"}}]}
    body = sent(tools=[WEATHER, TIME], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool["name"] for tool in body["tools"][0]["functionDeclarations"]] == ["get_time"]
    assert refused(tool_choice="required").param == "tool_choice"
    assert refused(tools=[TIME], tool_choice="any").param == "tool_choice"


def test_one_call_at_a_time_is_more_than_gemini_promises() -> None:
    """Where there is nothing to call, nothing is lost."""
    assert refused(tools=[TIME], parallel_tool_calls=False).param == "parallel_tool_calls"
    assert sent(tools=[TIME], parallel_tool_calls=True).keys() == {"contents", "tools"}
    assert sent(parallel_tool_calls=False).keys() == {"contents"}
    assert sent(tools=[TIME], tool_choice="none", parallel_tool_calls=False)["toolConfig"]


def test_an_answer_can_have_a_schema() -> None:
    """Which goes through as it is, or just be JSON."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    assert config(response_format=wanted) == {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
    assert config(response_format={"type": "json_object"}) == {"responseMimeType": "application/json"}
    assert config(response_format={"type": "text"}) == {}
    assert refused(response_format={"type": "json_schema"}).param == "response_format.json_schema.schema"
    assert refused(response_format={"type": "grammar"}).param == "response_format.type"


@pytest.mark.parametrize(
    ("model", "effort", "wanted"),
    [
        (FLASH, "minimal", {"includeThoughts": True, "thinkingLevel": "MINIMAL"}),
        (FLASH, "medium", {"includeThoughts": True, "thinkingLevel": "MEDIUM"}),
        ("gemini-flash-latest", "xhigh", {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        (PRO, "minimal", {"includeThoughts": True, "thinkingLevel": "LOW"}),
        (PRO, "medium", {"includeThoughts": True, "thinkingLevel": "MEDIUM"}),
        ("gemini-3-pro-preview", "medium", {"includeThoughts": True, "thinkingLevel": "LOW"}),
        ("gemini-3-pro-preview", "high", {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        (OLD, "low", {"includeThoughts": True, "thinkingBudget": 1024}),
        (OLD, "high", {"includeThoughts": True, "thinkingBudget": 24576}),
        (OLD, "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash-lite", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "medium", {"includeThoughts": True, "thinkingBudget": 8192}),
        ("gemini-2.0-flash", "none", None),
        ("gemma-3-27b-it", "none", None),
    ],
)
def test_an_effort_is_told_as_the_model_takes_it(model: str, effort: str, wanted: JsonObject | None) -> None:
    """In levels from Gemini 3 on, in tokens before."""
    assert config(model=model, reasoning_effort=effort).get("thinkingConfig") == wanted


@pytest.mark.parametrize(
    ("model", "effort", "code"),
    [
        (PRO, "none", "unsupported_value"),
        (FLASH, "none", "unsupported_value"),
        ("gemini-2.5-pro", "none", "unsupported_value"),
        ("gemini-2.0-flash", "low", "unsupported_parameter"),
        ("gemini-2.5-flash-image", "low", "unsupported_parameter"),
        (FLASH, "great", "invalid_value"),
    ],
)
def test_an_effort_that_cannot_be_is_refused(model: str, effort: str, code: str) -> None:
    """Some models always think, some never do."""
    error = refused(model=model, reasoning_effort=effort)
    assert (error.param, error.code) == ("reasoning_effort", code)


def test_what_clients_add_goes_through() -> None:
    """By itself, or as Google's compatible endpoint takes it; the client's own thinking goes before what an effort would become."""
    settings = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    thoughts = {"thinking_budget": 300, "include_thoughts": True}
    own = sent(safety_settings=settings, cached_content="cachedContents/1", thinking_config=thoughts)
    assert own["safetySettings"] == settings
    assert own["cachedContent"] == "cachedContents/1"
    assert own["generationConfig"]["thinkingConfig"] == thoughts
    google = {"safety_settings": settings, "cached_content": "cachedContents/1", "thinking_config": thoughts}
    assert sent(extra_body={"google": google}, reasoning_effort="low") == own


def test_service_tiers_have_gemini_names() -> None:
    """`auto` is what is done anyway."""
    assert "serviceTier" not in sent(service_tier="auto")
    assert [sent(service_tier=tier)["serviceTier"] for tier in ("default", "flex", "priority")] == [
        "standard",
        "flex",
        "priority",
    ]
    assert refused(service_tier="scale").param == "service_tier"


def test_what_gemini_cannot_do_is_refused_by_name() -> None:
    """Unless it asks for nothing; an unknown name may mean anything."""
    asking: JsonObject = {
        "audio": {"voice": "x", "format": "wav"},
        "function_call": "auto",
        "functions": [{"name": "f"}],
        "logit_bias": {"5": 1},
        "moderation": {"model": "x"},
        "verbosity": "low",
        "web_search_options": {},
    }
    assert asking.keys() == REFUSED.keys()
    for name, value in asking.items():
        error = refused(HELLO, **{name: value})
        assert (error.param, error.code) == (name, "unsupported_parameter")
        for harmless in (None, *REFUSED[name]):
            nothing: JsonObject = {name: harmless}
            assert sent(HELLO, **nothing).keys() == {"contents"}
    assert refused(min_p=0.1).code == "unknown_parameter"
    assert refused(thinking={"type": "enabled"}).code == "unknown_parameter"
    assert sent(min_p=None)


def test_what_changes_nothing_is_left_out() -> None:
    """Hints and bookkeeping."""
    fields: JsonObject = dict.fromkeys(LEFT_OUT, "x") | {"stream_options": {"include_usage": True}}
    assert sent(**fields).keys() == {"contents"}


def test_embeddings_go_in_one_batch() -> None:
    """One text as well as many, each with the size that was asked for."""
    outgoing = DIALECT.request(
        "embeddings", b'{"model": "e", "input": ["a", "b"], "dimensions": 8}', "gemini-embedding-001"
    )
    assert outgoing.path == "/models/gemini-embedding-001:batchEmbedContents"
    wanted = [
        {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": text}]}, "outputDimensionality": 8}
        for text in ("a", "b")
    ]
    assert json.loads(outgoing.body) == {"requests": wanted}
    one = json.loads(DIALECT.request("embeddings", b'{"model": "e", "input": "a"}', "x").body)
    assert one == {"requests": [{"model": "models/x", "content": {"parts": [{"text": "a"}]}}]}
    for body in (b'{"model": "e", "input": [1, 2]}', b'{"model": "e", "input": "a", "encoding_format": "int8"}'):
        with pytest.raises(errors.BadRequest):
            DIALECT.request("embeddings", body, "x")
    with pytest.raises(errors.BadRequest):
        DIALECT.request("completions", b'{"model": "e", "prompt": "a"}', "x")


def test_the_documentation_has_every_field() -> None:
    """One row each, and none that the code does not know."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "providers.md").read_text()
    section = page.split("## Gemini", 1)[1].split("\n### ", 1)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert named == TRANSLATED | LEFT_OUT | REFUSED.keys()
