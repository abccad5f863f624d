"""Anthropic's errors in OpenAI's terms: those of a refused request, and those that end a stream."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from gateway import errors
from gateway.bodies import UpstreamFault
from gateway.dialects import failures
from gateway.wire import read_fault

# https://docs.claude.com/en/api/errors: Anthropic's type → ours, and its code.
_FACES: Final[Mapping[str, tuple[str, str]]] = {
    "authentication_error": ("authentication_error", "invalid_api_key"),
    "billing_error": ("insufficient_quota", "insufficient_quota"),
    "not_found_error": ("invalid_request_error", "model_not_found"),
    "overloaded_error": ("overloaded", "upstream_overloaded"),
    "permission_error": ("permission_error", "permission_denied"),
    "rate_limit_error": ("rate_limit_error", "rate_limit_exceeded"),
    "request_too_large": ("invalid_request_error", "request_too_large"),
    "timeout_error": ("timeout_error", "upstream_timeout"),
}
# What the API says in words alone, all of it under `invalid_request_error`.
_WORDS: Final = (
    (
        re.compile(r"prompt is too long|exceeds? (?:the )?(?:model's )?(?:maximum )?context", re.IGNORECASE),
        "context_length_exceeded",
    ),
    (re.compile(r"credit balance is too low|usage limits", re.IGNORECASE), "insufficient_quota"),
    (re.compile(r"content filtering policy|usage policy", re.IGNORECASE), "content_policy_violation"),
)
_PLACE: Final = re.compile(r"((?:messages|system|tools|tool_choice|thinking|output_config|[a-z_]+)(?:\.[\w-]+)*): ")


class _Error(msgspec.Struct, gc=False):
    type: str | None = None
    message: str | None = None


class _Envelope(msgspec.Struct, gc=False):
    error: _Error


_envelope: Final = msgspec.json.Decoder(_Envelope)


def fault(body: bytes) -> UpstreamFault:
    """An error answer in OpenAI's terms; another shape, as proxies have it, is read as it comes. Never raises."""
    try:
        error = _envelope.decode(body).error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return read_fault(body)
    message = error.message or ""
    face = _FACES.get(error.type or "")
    if face is not None:
        return UpstreamFault(error.message, face[0], None, face[1])
    if error.type != "invalid_request_error":
        return UpstreamFault(error.message, "upstream_error", None, None)
    code = next((code for pattern, code in _WORDS if pattern.search(message)), None)
    place = _PLACE.match(message)
    type_ = "insufficient_quota" if code == "insufficient_quota" else "invalid_request_error"
    return UpstreamFault(error.message, type_, place[1] if place else None, code)


def failed(body: bytes) -> errors.GatewayError:
    """The error behind an `error` event."""
    return failures.failed(fault(body), "The upstream reported an error inside its stream")
