"""What LiteLLM is asked, and what its errors mean: pure, and without LiteLLM."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from admin.long_tail.bridge import PREFIX
from gateway.errors import BadRequest, error_body

# OpenAI's fields. Anything else would be an argument of LiteLLM's own, with which a client could send keys elsewhere.
_SHARED: Final = frozenset({"model", "user"})
FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "chat": _SHARED
    | {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens",
        "messages", "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty", "reasoning_effort", "response_format",
        "safety_identifier", "seed", "service_tier", "stop", "stream", "stream_options", "temperature", "thinking", "tool_choice", "tools",
        "top_k", "top_logprobs", "top_p", "verbosity", "web_search_options",
    },
    "completions": _SHARED
    | {
        "best_of", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty", "prompt", "seed", "stop",
        "stream", "stream_options", "suffix", "temperature", "top_p",
    },
    "embeddings": _SHARED | {"dimensions", "encoding_format", "input"},
}  # fmt: skip
LEFT_OUT: Final = frozenset({"metadata", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "store"})

# By the name of LiteLLM's exception or of one that it derives from, the most exact first; the rest goes by its status.
_CODES: Final = (
    ("ContextWindowExceededError", 400, "context_length_exceeded"),
    ("ContentPolicyViolationError", 400, "content_policy_violation"),
    ("UnsupportedParamsError", 400, "unsupported_parameter"),
    ("Timeout", 504, "upstream_timeout"),
    ("APIConnectionError", 502, "upstream_unreachable"),
)
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_PLACES: Final = frozenset({"url", "image_url", "video_url", "file_id", "file_data"})


def arguments(endpoint: str, body: bytes, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
    """LiteLLM's arguments: the client's, then the configuration's. One try, no cache, and the gateway's own clock. Raises BadRequest."""
    try:
        asked = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise BadRequest("The body must be a JSON object", code="invalid_json")
    allowed = FIELDS[endpoint]
    made: dict[str, Any] = {}
    for name, value in asked.items():
        if value is None or name in LEFT_OUT:
            continue
        if name not in allowed:
            raise BadRequest(f"Unknown parameter: '{name}'", param=name, code="unknown_parameter")
        made[name] = value
    _refuse_addresses(made)
    configured = dict(_configured(headers))
    model = configured.pop("prefix", "") + str(made.get("model", ""))
    own = {"model": model, "num_retries": 0, "max_retries": 0, "caching": False}
    if endpoint == "chat":
        own["_skip_mcp_handler"] = True  # it needs another package, and would call servers that a client's tools name
    return {**made, **configured, **own}


def fault(error: Exception) -> tuple[int, bytes, bytes]:
    """Status, header lines and body of an error of LiteLLM's, as the API of OpenAI has them."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) and 400 <= status <= 599 else 500
    code: str | None = None
    for name, known, its in _CODES:
        if name in names:
            status, code = known, its
            break
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "upstream_error")
    message = str(getattr(error, "message", None) or error).partition("\nTraceback (most recent call last)")[0]
    return status, _wait(error), error_body(message, kind, None, code)


def _configured(headers: Mapping[bytes, bytes]) -> Iterator[tuple[str, str]]:
    """`x-litellm-aws-region-name: eu-west-1` is `aws_region_name="eu-west-1"`."""
    for name, value in headers.items():
        given = name.decode("latin-1")
        if given.startswith(PREFIX):
            yield given.removeprefix(PREFIX).replace("-", "_"), value.decode("latin-1")


def _refuse_addresses(asked: Mapping[str, Any]) -> None:
    """LiteLLM fetches what an address in a message points to, from inside this network, where the provider does not."""
    for index, message in enumerate(asked.get("messages") or ()):
        for place, value in _strings(message, f"messages[{index}]"):
            if value.lstrip().lower().startswith(("http:", "https:", "file:")):
                raise BadRequest(
                    "This provider gets media in line, as a data: URI: an address would be fetched from inside your network",
                    param=place,
                    code="unsupported_value",
                )


def _strings(value: Any, at: str, *, place: bool = False) -> Iterator[tuple[str, str]]:
    """The texts of a message that name a place."""
    if isinstance(value, str):
        if place:
            yield at, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _strings(part, f"{at}.{name}", place=name in _PLACES)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _strings(part, f"{at}[{index}]", place=place)


def _wait(error: Exception) -> bytes:
    """The provider's `retry-after`, if it came through."""
    fields = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        seconds = float(str(fields.get("retry-after")))
    except (ValueError, AttributeError):
        return b""
    return b"retry-after: %d\r\n" % math.ceil(seconds) if 0 <= seconds < 1_000_000 else b""
