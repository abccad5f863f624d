"""Anthropic's error answers in OpenAI's terms."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialects.anthropic_payloads import DIALECT, failure


@pytest.mark.parametrize(
    ("status", "kind", "said", "face"),
    [
        (401, "authentication_error", "invalid x-api-key", ("authentication_error", "invalid_api_key", None)),
        (402, "billing_error", "Payment required", ("insufficient_quota", "insufficient_quota", None)),
        (403, "permission_error", "Not yours", ("permission_error", "permission_denied", None)),
        (404, "not_found_error", "model: claude-0", ("invalid_request_error", "model_not_found", None)),
        (413, "request_too_large", "Too large", ("invalid_request_error", "request_too_large", None)),
        (429, "rate_limit_error", "Slow down", ("rate_limit_error", "rate_limit_exceeded", None)),
        (504, "timeout_error", "Too slow", ("timeout_error", "upstream_timeout", None)),
        (529, "overloaded_error", "Overloaded", ("overloaded", "upstream_overloaded", None)),
        (500, "api_error", "Internal server error", ("upstream_error", None, None)),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
            ("invalid_request_error", "context_length_exceeded", None),
        ),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 199000 + 4096 > 200000, decrease one of them",
            ("invalid_request_error", "context_length_exceeded", None),
        ),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API.",
            ("insufficient_quota", "insufficient_quota", None),
        ),
        (
            400,
            "invalid_request_error",
            "Output blocked by content filtering policy",
            ("invalid_request_error", "content_policy_violation", None),
        ),
        (
            400,
            "invalid_request_error",
            "messages.0.content.1.image.source.base64: invalid data",
            ("invalid_request_error", None, "messages.0.content.1.image.source.base64"),
        ),
        (
            400,
            "invalid_request_error",
            "max_tokens: 999999 > 64000, which is the maximum allowed number of output tokens",
            ("invalid_request_error", None, "max_tokens"),
        ),
    ],
)
def test_each_error_has_its_face(status: int, kind: str, said: str, face: tuple[str, str | None, str | None]) -> None:
    """Type, code and the field that is meant; the message stays."""
    found = DIALECT.fault(status, failure(kind, said), {})
    assert (found.type, found.code, found.param) == face
    assert found.message == said


@settings(deadline=None)
@given(body=st.one_of(st.binary(max_size=50), st.sampled_from([b"[]", b'{"error":"x"}', b'{"error":{"type":5}}'])))
def test_an_error_in_another_shape_never_fails(body: bytes) -> None:
    """Proxies answer in their own words."""
    DIALECT.fault(502, body, {})


def test_a_proxys_words_are_kept() -> None:
    """OpenAI's shape, and a text alone."""
    assert DIALECT.fault(502, b'{"error": {"message": "no route", "code": "x"}}', {}).message == "no route"
    assert DIALECT.fault(502, b'{"error": "no route"}', {}).message == "no route"
