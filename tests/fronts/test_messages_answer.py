"""Whole chats as messages, errors as Anthropic's, and heads as its clients read them."""

import json
from typing import Any

import pytest
from anthropic.types import Message
from anthropic.types.shared.error_response import ErrorResponse

from gateway import errors
from gateway.dialects.anthropic_native import UNSIGNED
from gateway.faces import face
from gateway.fronts import messages_errors
from gateway.fronts.messages_exchange import told
from tests.fronts.messages import FRONT


def answer(finish: str = "stop", usage: Any = None, **message: Any) -> Message:
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    body = {"id": "chatcmpl-1", "choices": [choice], "usage": usage}
    return Message.model_validate(json.loads(FRONT.answer(json.dumps(body).encode(), "m", b"")), strict=True)


def test_text_calls_and_thoughts_are_blocks() -> None:
    """In Claude's order."""
    call = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, 2]}'}}
    made = answer("tool_calls", content="Well.", reasoning_content="hm", tool_calls=[call])
    assert [block.to_dict() for block in made.content] == [
        {"type": "thinking", "thinking": "hm", "signature": UNSIGNED},
        {"type": "text", "text": "Well."},
        {"type": "tool_use", "id": "call_a", "name": "f", "input": {"a": [1, 2]}},
    ]
    assert (made.id, made.model, made.stop_reason) == ("msg_chatcmpl-1", "m", "tool_use")


def test_the_input_is_what_no_cache_had_to_do_with() -> None:
    """OpenAI's prompt tokens are all of them."""
    details = {"cached_tokens": 60, "cache_creation_tokens": 30}
    used = answer(
        content="x",
        usage={
            "prompt_tokens": 100,
            "completion_tokens": 7,
            "prompt_tokens_details": details,
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
    ).usage
    assert (used.input_tokens, used.cache_read_input_tokens, used.cache_creation_input_tokens) == (10, 60, 30)
    assert used.output_tokens_details is not None
    assert (used.output_tokens, used.output_tokens_details.thinking_tokens) == (7, 5)


def test_a_call_that_was_cut_off_has_no_input() -> None:
    """The reason says so; where nothing was cut, the answer is damaged."""
    call = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    made = answer("length", tool_calls=[call])
    assert (made.stop_reason, made.content[0].to_dict()["input"]) == ("max_tokens", {})
    with pytest.raises(errors.UpstreamError):
        answer("tool_calls", tool_calls=[call])


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"choices": []}', b"\xff", b'{"choices": [{"message": 7}]}'])
def test_what_is_no_completion_is_the_upstreams_error(body: bytes) -> None:
    """Never a message."""
    with pytest.raises(errors.UpstreamError):
        FRONT.answer(body, "m", b"")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.BadRequest("x"), "invalid_request_error"),
        (errors.Unauthenticated("x"), "authentication_error"),
        (errors.AccessDenied("x"), "permission_error"),
        (errors.NotFound("x"), "not_found_error"),
        (errors.MethodNotAllowed("x"), "invalid_request_error"),
        (errors.BodyTooLarge("x"), "request_too_large"),
        (errors.BudgetExceeded("x"), "rate_limit_error"),
        (errors.RateLimited("x"), "rate_limit_error"),
        (errors.Internal("x"), "api_error"),
        (errors.UpstreamFailed("x"), "api_error"),
        (errors.Overloaded("x"), "overloaded_error"),
        (errors.UpstreamTimeout("x"), "timeout_error"),
    ],
)
def test_every_error_has_anthropics_type(error: errors.GatewayError, kind: str) -> None:
    """And its shape, in an answer as in a stream."""
    body = messages_errors.body(error, "req_1")
    assert json.loads(body) == {"type": "error", "error": {"type": kind, "message": "x"}, "request_id": "req_1"}
    if kind != "request_too_large":  # documented, and not among the SDK's
        ErrorResponse.model_validate(json.loads(body))
    assert messages_errors.event(error, "req_1") == b"event: error\ndata: " + body + b"\n\n"


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_look_for() -> None:
    """Claude Code shortens its conversation at them."""
    error = errors.UpstreamRefused(400, "9 > 8", "invalid_request_error", "context_length_exceeded")
    assert json.loads(messages_errors.body(error, "r"))["error"]["message"] == "prompt is too long: 9 > 8"


@pytest.mark.parametrize(
    ("url", "theirs"),
    [
        (b"/v1/messages", True),
        (b"/v1/messages?beta=true", True),
        (b"/v1/messages/count_tokens", True),
        (b"/v1/messages/batches", True),
        (b"/v1/messagesx", False),
        (b"/v1/chat/completions", False),
        (b"", False),
    ],
)
def test_a_path_decides_how_its_errors_look(url: bytes, theirs: bool) -> None:
    """Also where no handler was reached."""
    lines, body = face(url, errors.NotFound("x"))
    assert (json.loads(body).get("type") == "error") is theirs
    assert (b"\r\nrequest-id: req_" in lines) is theirs


@pytest.mark.parametrize(
    ("reset", "moment"),
    [(b"12ms", "1970-01-01T00:00:00Z"), (b"1.5s", "1970-01-01T00:00:01Z"), (b"1h6m2s", "1970-01-01T01:06:02Z")],
)
def test_limits_are_told_under_anthropics_names(reset: bytes, moment: str) -> None:
    """OpenAI counts the time until a limit is full again, Anthropic names the moment."""
    lines = (
        b"x-request-id: req_1\r\nx-ratelimit-limit-tokens: 9\r\nx-ratelimit-reset-tokens: %b\r\nx-other: 1\r\n" % reset
    )
    made = told(lines, 0.0)
    assert made.startswith(lines)
    assert made[len(lines) :].decode() == (
        f"request-id: req_1\r\nanthropic-ratelimit-tokens-limit: 9\r\nanthropic-ratelimit-tokens-reset: {moment}\r\n"
    )
