"""OpenAI bodies on the wire: what the gateway reads of a request and of an answer, and what it changes.

Only what a decision needs is typed; everything else is skipped by the decoder (but must be valid JSON) and travels on as the
bytes that the client sent.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

import msgspec

from gateway import errors
from gateway.bodies import (
    NULL,
    Answer,
    Asked,
    CompletionRequest,
    Counted,
    EmbeddingRequest,
    ErrorEnvelope,
    RawObject,
    Request,
    ResponsesRequest,
    UpstreamFault,
)


def present(value: msgspec.Raw) -> bool:
    """Whether a raw field was there and not null."""
    return value is not NULL and bytes(value) != b"null"  # nearly always the very default


_raw_object = msgspec.json.Decoder(RawObject)
_answer = msgspec.json.Decoder(Answer)
_BROKEN_OFF = re.compile(rb'"finish_reason"\s*:\s*"error"')  # OpenRouter's; quotes in a text are escaped
_envelope = msgspec.json.Decoder(ErrorEnvelope, strict=False)
_encode = msgspec.json.Encoder().encode

_TRUE = msgspec.Raw(b"true")
_USAGE_ON = msgspec.Raw(b'{"include_usage":true}')
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]+)`")


AnyRequest = TypeVar("AnyRequest", bound=msgspec.Struct)


def parse(decoder: msgspec.json.Decoder[AnyRequest], body: bytes) -> AnyRequest:
    """The typed part of a body. Raises BadRequest whose `param` names the field."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        _refuse(body, error)


def is_plain(body: bytes) -> bool:
    """Whether an upstream is sure to read what was read here: no second `model`, no second limit, none spelled with escapes.

    Otherwise an upstream that prefers the first of two equal keys would answer for a model, or at a length, that was not checked.
    """
    return (
        body.count(b'"model"') == 1
        and body.count(b'"max_') < 2
        and body.count(b'"n"') < 2
        and body.count(b'"stream"') < 2
        and body.find(b"\\u") < 0
    )


def wants_usage(request: Request) -> bool:
    """Whether the client asked for the usage chunk of a stream."""
    if isinstance(request, (EmbeddingRequest, Counted)):
        return False
    options = request.stream_options
    return options is not None and options.include_usage is True


def rewrite(body: bytes, target: str, *, ask_usage: bool) -> bytes:
    """The body for an upstream: its own name for the model and, on streams, the wish for usage.

    Re-encoded from raw values even if the name is the same, so that a body with two `model` keys reaches the upstream with the one that
    was checked. Values keep the client's bytes. Raises BadRequest.
    """
    fields = _fields(body)
    fields["model"] = msgspec.Raw(_encode(target))
    if ask_usage:
        given = fields.get("stream_options")
        fields["stream_options"] = _USAGE_ON if given is None or bytes(given) == b"null" else _with_usage(given)
    return _encode(fields)


def array_in(fields: Mapping[str, Any], name: str) -> list[Any]:
    """A field of a request that is a list; one that is missing is an empty one. Raises BadRequest."""
    value = fields.get(name, [])
    if not isinstance(value, list):
        raise errors.BadRequest(f"Invalid '{name}': Expected `array`", param=name, code="invalid_type")
    return value


def replaced(body: bytes, values: Mapping[str, object], *, without: str | None = None) -> bytes:
    """The body with other values for some fields, and less one. Raises BadRequest."""
    fields = _fields(body)
    fields.update({name: msgspec.Raw(_encode(value)) for name, value in values.items()})
    if without is not None:
        fields.pop(without, None)
    return _encode(fields)


def respelt(body: bytes, renames: Iterable[tuple[str, str]], omits: Iterable[str]) -> bytes:
    """The body with some fields under other names, where those are not there themselves, and without others. Raises BadRequest."""
    fields = _fields(body)
    for name, other in renames:
        value = fields.pop(name, NULL)
        if present(value) and not present(fields.get(other, NULL)):
            fields[other] = value
    for name in omits:
        fields.pop(name, None)
    return _encode(fields)


def copied(body: bytes, target: str) -> bytes:
    """The body for another model, without saying whose it is. Raises BadRequest."""
    fields = _fields(body)
    fields["model"] = msgspec.Raw(_encode(target))
    fields.pop("user", None)
    return _encode(fields)


def named(body: bytes) -> str | None:
    """The model that a body asks for."""
    try:
        return msgspec.json.decode(body, type=Asked).model
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def asked_tokens(request: Request) -> int | None:
    """The limit that a client set on its answer."""
    if isinstance(request, (EmbeddingRequest, Counted)):
        return None
    if isinstance(request, CompletionRequest):
        return request.max_tokens
    return max(request.max_tokens or 0, request.max_completion_tokens or 0) or None


def capped(body: bytes, request: Request, tokens: int) -> bytes:
    """The body with a lower limit on its answer, under the name that the client used; `max_tokens` if it used none. Raises BadRequest."""
    fields = _fields(body)
    named = ("max_output_tokens",) if isinstance(request, ResponsesRequest) else getattr(request, "caps", None)
    for name in named or _cap_names(request):  # another API has a name of its own for it
        fields[name] = msgspec.Raw(b"%d" % tokens)
    return _encode(fields)


def with_cap(request: Request, tokens: int) -> Request:
    """The same for what was read of the body."""
    return msgspec.structs.replace(request, **dict.fromkeys(_cap_names(request), tokens))


def read_answer(body: bytes) -> Answer:
    """Usage, or the error inside a 200. Raises UpstreamError if the body is not a JSON object."""
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.UpstreamError(f"The upstream's answer is not the JSON it should be: {error}") from None
    if present(answer.error):
        raise errors.UpstreamFailed(read_fault(body).message or "The upstream reported an error")
    if body.find(b'"error"') >= 0 and _BROKEN_OFF.search(body):
        raise errors.UpstreamFailed("The upstream broke its answer off with an error")
    return answer


def read_fault(body: bytes) -> UpstreamFault:
    """An upstream's error, whatever shape it chose. Never raises."""
    try:
        envelope = _envelope.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return UpstreamFault()
    inner = envelope.error
    if isinstance(inner, UpstreamFault):
        return inner
    if isinstance(inner, str):
        return UpstreamFault(message=inner)
    message = envelope.message
    if message is None and envelope.detail is not None:
        message = envelope.detail if isinstance(envelope.detail, str) else msgspec.json.encode(envelope.detail).decode()
    return UpstreamFault(message, envelope.type, envelope.param, envelope.code)


def without_usage(payload: bytes) -> bytes:
    """An event's JSON object less its `usage`; every other value keeps its bytes. Raises UnicodeDecodeError for a bad name."""
    fields = _raw_object.decode(payload)
    fields.pop("usage", None)
    return _encode(fields)


def encode_error_event(error: errors.GatewayError) -> bytes:
    """An error inside a stream that has begun. No `[DONE]` follows it."""
    return b"data: %b\n\n" % error.body()


def model_list(entries: list[Mapping[str, object]]) -> bytes:
    return _encode({"object": "list", "data": entries})


def _fields(body: bytes | msgspec.Raw) -> RawObject:
    """The typed decoders skip names that they do not know without looking at their bytes; here every name is read."""
    try:
        return _raw_object.decode(body)
    except UnicodeDecodeError as error:
        raise errors.BadRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None


def _cap_names(request: Request) -> tuple[str, ...]:
    names = ("max_tokens", "max_completion_tokens")
    return tuple(name for name in names if getattr(request, name, None) is not None) or names[:1]


def _with_usage(given: msgspec.Raw) -> msgspec.Raw:
    options = _fields(given)
    options["include_usage"] = _TRUE
    return msgspec.Raw(_encode(options))


def _refuse(body: bytes, error: Exception) -> NoReturn:
    if isinstance(error, msgspec.ValidationError):
        text = str(error)
        at = _PATH.search(text)
        missing = _MISSING.search(text)
        where = at.group(1) if at else ""
        if missing is not None:
            param = f"{where}.{missing.group(1)}" if where else missing.group(1)
            raise errors.BadRequest(
                f"Missing required parameter: '{param}'", param=param, code="missing_required_parameter"
            )
        reason = _PATH.sub("", text)
        if not where:
            raise errors.BadRequest(f"The body must be a JSON object: {reason}", code="invalid_type")
        raise errors.BadRequest(f"Invalid '{where}': {reason}", param=where, code="invalid_type")
    if isinstance(error, RecursionError):
        raise errors.BadRequest("The body is nested too deeply", code="invalid_json") from None
    if not body:
        raise errors.BadRequest("The body is empty; it must be a JSON object", code="invalid_json") from None
    raise errors.BadRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
