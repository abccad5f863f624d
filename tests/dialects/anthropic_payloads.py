"""Streams and messages in the formats that Anthropic publishes (docs.claude.com: streaming, extended thinking, web search, errors)."""

import json
from collections.abc import Mapping, Sequence

from gateway.dialects.anthropic import Anthropic

JsonObject = Mapping[str, object]

DIALECT = Anthropic(lambda: 1_760_000_000.25)


def sse(*events: JsonObject) -> bytes:
    """Events as the API writes them, each with its name."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), json.dumps(event, ensure_ascii=False).encode())
        for event in events
    )


def start(**usage: object) -> dict[str, object]:
    used = {"input_tokens": 25, "output_tokens": 1, **usage}
    message = {"id": "msg_01XFDUDYJgAACzvnptvVoYEL", "type": "message", "role": "assistant", "content": []}
    rest = {"model": "claude-sonnet-4-5", "stop_reason": None, "stop_sequence": None, "usage": used}
    return {"type": "message_start", "message": {**message, **rest}}


def end(reason: str | None, usage: JsonObject | None = None, **delta: object) -> JsonObject:
    said = {"stop_reason": reason, "stop_sequence": None, **delta}
    return {"type": "message_delta", "delta": said, "usage": {"output_tokens": 15} if usage is None else usage}


def block(index: int, opening: JsonObject, *deltas: JsonObject) -> list[JsonObject]:
    begun = {"type": "content_block_start", "index": index, "content_block": opening}
    said = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [begun, *said, {"type": "content_block_stop", "index": index}]


def text(index: int, *pieces: str) -> list[JsonObject]:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def tool(index: int, call_id: str, name: str, *pieces: str) -> list[JsonObject]:
    opening: JsonObject = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    return block(index, opening, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))


def thinking(index: int, signature: str, *pieces: str) -> list[JsonObject]:
    thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    opening: JsonObject = {"type": "thinking", "thinking": "", "signature": ""}
    return block(index, opening, *thoughts, {"type": "signature_delta", "signature": signature})


PING: JsonObject = {"type": "ping"}
STOP: JsonObject = {"type": "message_stop"}

TEXT = sse(start(), PING, *text(0, "Grüß", " Gott,\n\n", "🌍"), end("end_turn"), STOP)

TOOLS = sse(
    start(input_tokens=472, output_tokens=2),
    *text(0, "Okay", ", let's check."),
    *tool(1, "toolu_01A", "get_weather", "", '{"location":', ' "San', ' Francisco, CA"}'),
    PING,
    *tool(2, "toolu_01B", "get_time", ""),
    end("tool_use", {"output_tokens": 89}),
    STOP,
)

THINKING = sse(
    start(cache_creation_input_tokens=100, cache_read_input_tokens=2000),
    *thinking(0, "EqQBCgIYAhIM1gbcDa9GJwZA2b3h", "Let me solve", " this step by step"),
    *block(1, {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix/LafPsn4a"}),
    *text(2, "27 * 453 = 12,231"),
    end("end_turn", {"output_tokens": 120, "output_tokens_details": {"thinking_tokens": 90}}),
    STOP,
)

SEARCH = sse(
    start(),
    *block(
        0,
        {"type": "server_tool_use", "id": "srvtoolu_014", "name": "web_search", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"query": "weather NYC"}'},
    ),
    *block(
        1,
        {
            "type": "web_search_tool_result",
            "tool_use_id": "srvtoolu_014",
            "content": [{"type": "web_search_result", "title": "Weather", "url": "https://w.example/nyc"}],
        },
    ),
    {"type": "an_event_of_tomorrow", "index": 7},
    *block(
        2,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": "It is sunny."},
        {
            "type": "citations_delta",
            "citation": {
                "type": "web_search_result_location",
                "url": "https://w.example/nyc",
                "title": "Weather",
                "cited_text": "sunny",
                "encrypted_index": "Eo8B",
            },
        },
        {"type": "a_delta_of_tomorrow", "text": "not for clients"},
    ),
    end("end_turn", {"output_tokens": 510, "server_tool_use": {"web_search_requests": 1}}),
    STOP,
)

REFUSAL = sse(
    start(),
    *text(0, "I"),
    end("refusal", stop_details={"type": "refusal", "category": "cyber", "explanation": "It could do harm."}),
    STOP,
)

STREAMS = {"text": TEXT, "tools": TOOLS, "thinking": THINKING, "search": SEARCH, "refusal": REFUSAL}


def message(content: Sequence[JsonObject], reason: str = "end_turn", **fields: object) -> bytes:
    """A whole answer."""
    made = {
        "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": list(content),
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "output_tokens": 15},
    }
    return json.dumps({**made, **fields}, ensure_ascii=False).encode()


def failure(kind: str, said: str) -> bytes:
    """An error answer."""
    error = {"type": kind, "message": said}
    return json.dumps({"type": "error", "error": error, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}).encode()
