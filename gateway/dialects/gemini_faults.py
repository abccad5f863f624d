"""Gemini's errors in OpenAI's terms: those of a refused request, and those inside a 200."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gateway import errors
from gateway.bodies import UpstreamFault
from gateway.dialects import failures
from gateway.wire import read_fault

# https://ai.google.dev/gemini-api/docs/troubleshooting: google.rpc.Code → our type, and its code.
_FACES: Final[Mapping[str, tuple[str, str]]] = {
    "DEADLINE_EXCEEDED": ("timeout_error", "upstream_timeout"),
    "NOT_FOUND": ("invalid_request_error", "model_not_found"),
    "PERMISSION_DENIED": ("permission_error", "permission_denied"),
    "RESOURCE_EXHAUSTED": ("rate_limit_error", "rate_limit_exceeded"),
    "UNAUTHENTICATED": ("authentication_error", "invalid_api_key"),
    "UNAVAILABLE": ("overloaded", "upstream_overloaded"),
    # The key's project has no billing, or is in a country that the free tier is not for.
    "FAILED_PRECONDITION": ("authentication_error", "billing_required"),
}
# What the API says in words alone.
_WORDS: Final = (
    (re.compile(r"input token count .* exceeds|exceeds the maximum number of tokens", re.IGNORECASE), "too_long"),
    (re.compile(r"API key (?:not valid|not found|expired)|API_KEY_INVALID", re.IGNORECASE), "key"),
    (
        re.compile(r"credits are depleted|credits? .*exhausted|billing account .*(?:disabled|closed)", re.IGNORECASE),
        "quota",
    ),
    (re.compile(r"prohibited content|safety polic|usage guidelines", re.IGNORECASE), "content"),
)
_WORD_FACES: Final[Mapping[str, tuple[str, str]]] = {
    "too_long": ("invalid_request_error", "context_length_exceeded"),
    "key": ("authentication_error", "invalid_api_key"),
    "quota": ("insufficient_quota", "insufficient_quota"),
    "content": ("invalid_request_error", "content_policy_violation"),
}
_SECONDS: Final = re.compile(r"(\d{1,7}(?:\.\d+)?)s")


class _Violation(msgspec.Struct, gc=False):
    field: str | None = None


class _Detail(msgspec.Struct, gc=False, rename="camel"):
    """Of any type: `RetryInfo` has the delay, `ErrorInfo` the reason, `BadRequest` the fields."""

    reason: str | None = None
    retry_delay: str | None = None
    field_violations: list[_Violation] = []


class _Error(msgspec.Struct, gc=False):
    code: int | None = None
    message: str | None = None
    status: str | None = None
    details: list[_Detail] = []


class _Envelope(msgspec.Struct, gc=False):
    error: _Error


_envelope: Final = msgspec.json.Decoder(_Envelope | list[_Envelope])


def fault(body: bytes) -> UpstreamFault:
    """An error answer in OpenAI's terms; another shape, as proxies have it, is read as it comes. Never raises."""
    try:
        found = _envelope.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return read_fault(body)
    if isinstance(found, list):
        if not found:
            return UpstreamFault()
        found = found[0]
    return _read(found.error)


def failed(body: bytes) -> errors.GatewayError:
    """The error that came instead of an answer, or in the midst of one."""
    return failures.failed(fault(body), "The upstream reported an error inside its answer")


def _read(error: _Error) -> UpstreamFault:
    said = error.message or ""
    reasons = " ".join(detail.reason for detail in error.details if detail.reason)
    word = next((word for pattern, word in _WORDS if pattern.search(said) or pattern.search(reasons)), None)
    param = next((violation.field for detail in error.details for violation in detail.field_violations), None)
    if word is not None:
        type_, code = _WORD_FACES[word]
        return UpstreamFault(error.message, type_, param, code)
    face = _FACES.get(error.status or "")
    if face is not None:
        type_, code = face
        return UpstreamFault(error.message, type_, param, code, _delay_s(error.details))
    if error.status in {"INVALID_ARGUMENT", "OUT_OF_RANGE"}:
        return UpstreamFault(error.message, "invalid_request_error", param, None)
    return UpstreamFault(error.message, "upstream_error", None, None)


def _delay_s(details: Sequence[_Detail]) -> float | None:
    """`"34.07s"` in a `RetryInfo`."""
    for detail in details:
        found = _SECONDS.fullmatch(detail.retry_delay or "")
        if found is not None:
            return float(found[1])
    return None
