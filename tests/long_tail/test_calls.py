"""What LiteLLM is asked and what its errors become, without LiteLLM."""

import json
from typing import Any

import pytest

from admin.long_tail.calls import FIELDS, LEFT_OUT, arguments, fault
from gateway.errors import BadRequest

HEADERS = {
    b"authorization": b"Bearer token",
    b"x-litellm-prefix": b"bedrock/",
    b"x-litellm-api-key": b"sk-x",
    b"x-litellm-aws-region-name": b"eu-west-1",
}


def asked(endpoint: str = "chat", **fields: Any) -> dict[str, Any]:
    return arguments(endpoint, json.dumps({"model": "claude", **fields}).encode(), HEADERS)


def refused(endpoint: str = "chat", **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as raised:
        asked(endpoint, **fields)
    return raised.value


def test_a_call_has_the_clients_fields_and_the_configurations() -> None:
    """One try, no cache; what only matters to OpenAI's books is left out."""
    messages = [{"role": "user", "content": "see http://example.com"}]
    assert asked(messages=messages, temperature=0.5, seed=None, **dict.fromkeys(LEFT_OUT, "x")) == {
        "model": "bedrock/claude",
        "messages": messages,
        "temperature": 0.5,
        "api_key": "sk-x",
        "aws_region_name": "eu-west-1",
        "num_retries": 0,
        "max_retries": 0,
        "caching": False,
        "_skip_mcp_handler": True,
    }
    assert "_skip_mcp_handler" not in asked("embeddings", input="a")


@pytest.mark.parametrize(
    "name",
    ["api_base", "base_url", "api_key", "aws_secret_access_key", "mock_response", "num_retries", "extra_headers"],
)
@pytest.mark.parametrize("endpoint", FIELDS)
def test_arguments_of_litellms_are_not_for_clients(endpoint: str, name: str) -> None:
    """They could send the deployment's key elsewhere."""
    error = refused(endpoint, **{name: "http://evil.example"})
    assert (error.param, error.code) == (name, "unknown_parameter")


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ({"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}, "image_url.url"),
        ({"type": "image_url", "image_url": " HTTPS://10.0.0.1/"}, "image_url"),
        ({"type": "file", "file": {"file_id": "https://10.0.0.1/a.pdf"}}, "file.file_id"),
        ({"type": "file", "file": {"file_data": "file:///etc/passwd"}}, "file.file_data"),
        ({"type": "video_url", "video_url": {"url": "http://10.0.0.1/"}}, "video_url.url"),
    ],
)
def test_nothing_is_fetched_for_a_client(part: dict[str, Any], place: str) -> None:
    """The worker stands inside the network, the provider does not."""
    error = refused(messages=[{"role": "user", "content": [{"type": "text", "text": "http://fine.example"}, part]}])
    assert error.param == f"messages[0].content[1].{place}"
    inline = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    assert asked(messages=[{"role": "user", "content": [inline]}])["messages"]


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"a":'])
def test_a_body_is_an_object(body: bytes) -> None:
    """The gateway has checked that; another caller may not have."""
    with pytest.raises(BadRequest):
        arguments("chat", body, HEADERS)


class Headed:
    def __init__(self, wait: str) -> None:
        self.headers = {"retry-after": wait}


class BadRequestError(Exception):
    status_code = 400


class ContextWindowExceededError(BadRequestError):
    pass


class ContentPolicyViolationError(BadRequestError):
    pass


class RateLimitError(Exception):
    status_code = 429
    response = Headed("6.5")


class Timeout(Exception):
    status_code = 408


class AuthenticationError(Exception):
    status_code = 401


class APIConnectionError(Exception):
    status_code = 500
    message = "no way\nTraceback (most recent call last):\n  File secret.py"


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (BadRequestError("x"), 400, "invalid_request_error", None),
        (ContextWindowExceededError("x"), 400, "invalid_request_error", "context_length_exceeded"),
        (ContentPolicyViolationError("x"), 400, "invalid_request_error", "content_policy_violation"),
        (RateLimitError("x"), 429, "rate_limit_error", None),
        (Timeout("x"), 504, "upstream_error", "upstream_timeout"),
        (AuthenticationError("x"), 401, "authentication_error", None),
        (APIConnectionError("x"), 502, "upstream_error", "upstream_unreachable"),
        (ValueError("x"), 500, "upstream_error", None),
    ],
)
def test_errors_go_by_their_class(error: Exception, status: int, kind: str, code: str | None) -> None:
    """LiteLLM's have a status and a name; anything else is a failure of its own. No traceback leaves the process."""
    found, head, body = fault(error)
    told = json.loads(body)["error"]
    assert (found, told["type"], told["code"]) == (status, kind, code)
    assert told["message"] == ("no way" if isinstance(error, APIConnectionError) else "x")
    assert head == (b"retry-after: 7\r\n" if status == 429 else b"")
