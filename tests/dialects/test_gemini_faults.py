"""Gemini's error answers in OpenAI's terms."""

import pytest

from tests.dialects.gemini_payloads import DIALECT, failure

INFO = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}
QUOTA = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "PerMinutePerProject"}]}
PLACE = {
    "@type": "type.googleapis.com/google.rpc.BadRequest",
    "fieldViolations": [{"field": "generation_config.max_output_tokens", "description": "too large"}],
}

FAULTS = [
    (400, failure(400, "INVALID_ARGUMENT", "Invalid value", [PLACE]), "invalid_request_error", None),
    (
        400,
        failure(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", [INFO]),
        "authentication_error",
        "invalid_api_key",
    ),
    (
        400,
        failure(
            400, "INVALID_ARGUMENT", "The input token count (2000000) exceeds the maximum number of tokens allowed"
        ),
        "invalid_request_error",
        "context_length_exceeded",
    ),
    (
        400,
        failure(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
        "authentication_error",
        "billing_required",
    ),
    (401, failure(401, "UNAUTHENTICATED", "Missing credential"), "authentication_error", "invalid_api_key"),
    (403, failure(403, "PERMISSION_DENIED", "No access"), "permission_error", "permission_denied"),
    (404, failure(404, "NOT_FOUND", "models/x is not found"), "invalid_request_error", "model_not_found"),
    (429, failure(429, "RESOURCE_EXHAUSTED", "Quota exceeded", [QUOTA]), "rate_limit_error", "rate_limit_exceeded"),
    (
        429,
        failure(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."),
        "insufficient_quota",
        "insufficient_quota",
    ),
    (500, failure(500, "INTERNAL", "An internal error has occurred."), "upstream_error", None),
    (503, failure(503, "UNAVAILABLE", "The model is overloaded."), "overloaded", "upstream_overloaded"),
    (504, failure(504, "DEADLINE_EXCEEDED", "Too slow"), "timeout_error", "upstream_timeout"),
]


@pytest.mark.parametrize(("status", "body", "kind", "code"), FAULTS)
def test_each_error_has_its_name(status: int, body: bytes, kind: str, code: str | None) -> None:
    """Google's message is kept; some things it says in words alone. A stream's answer is a list of the same."""
    found = DIALECT.fault(status, body, {})
    assert (found.type, found.code) == (kind, code)
    assert found.message
    listed = DIALECT.fault(status, b"[" + body + b"]", {})
    assert (listed.type, listed.code, listed.message) == (found.type, found.code, found.message)


def test_the_time_to_wait_and_the_place_are_read() -> None:
    """Google tells both in the body."""
    body = failure(429, "RESOURCE_EXHAUSTED", "Quota exceeded", [QUOTA, RETRY])
    assert DIALECT.fault(429, body, {}).retry_after_s == 34.07
    assert DIALECT.fault(429, failure(429, "RESOURCE_EXHAUSTED", "x", [QUOTA]), {}).retry_after_s is None
    assert DIALECT.fault(400, FAULTS[0][1], {}).param == "generation_config.max_output_tokens"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"error": 5}', b'{"error": {"message": 5}}', b"\xff"])
def test_nothing_is_too_odd(body: bytes) -> None:
    """A proxy may answer in Google's place."""
    DIALECT.fault(502, body, {})
    assert DIALECT.fault(502, b'{"error": "bad gateway"}', {}).message == "bad gateway"
