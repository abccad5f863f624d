"""What a body in a provider's own API may use at most: read from its bytes and from the names that such bodies share."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from gateway import errors
from gateway.prompt_bound import CALL_TOKENS, FILE_TOKENS, IMAGE_TOKENS, text_only
from gateway.units.ask import Ask
from gateway.usage import usage

BYTES_PER_TOKEN: Final = 4
_FORMATS: Final = frozenset(("png", "jpeg", "gif", "webp"))  # Converse's, of pictures
MAX_TOKENS: Final = 100_000_000

# Every name under which a limit of an answer is known to Gemini and to the models on Bedrock.
CAPS: Final = frozenset(
    (
        "maxOutputTokens", "max_output_tokens", "maxTokens", "max_tokens", "maxTokenCount", "max_new_tokens", "maxNewTokens",
        "max_gen_len", "max_tokens_to_sample", "max_completion_tokens",
    )
)  # fmt: skip
ANSWERS: Final = frozenset(("candidateCount", "candidate_count", "n", "num_generations", "numResults"))
# What is a picture or a file in them, and what is only referred to.
_PICTURES: Final = frozenset(("image_url",))
_FILES: Final = frozenset(
    (
        "video", "fileData", "file_data", "cachedContent", "cached_content", "googleSearch", "google_search",
        "googleSearchRetrieval", "google_search_retrieval", "urlContext", "url_context", "codeExecution", "code_execution",
        "enterpriseWebSearch", "retrieval", "fileSearch", "file_search", "googleMaps", "computerUse",
    )
)  # fmt: skip
_INLINE: Final = frozenset(("inlineData", "inline_data", "image", "document", "source"))


def fields_of(body: bytes) -> Mapping[str, Any]:
    """The JSON object in a body. Raises BadRequest."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.BadRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise errors.BadRequest("The body must be a JSON object", code="invalid_type")
    return fields


def one_reading(body: bytes, fields: Mapping[str, Any]) -> bytes:
    """The body as it came, or written anew where an upstream could read another limit than the one that was read here: of two equal
    names it may take the first, and a name may be spelled with escapes."""
    if b"\\u" in body or any(body.count(b'"%b"' % name.encode()) > 1 for name in CAPS | ANSWERS):
        return msgspec.json.encode(fields)
    return body


def bounded(model: str, body: bytes, fields: Mapping[str, Any], *, stream: bool, speaks: bool = True) -> Ask:
    """What a call with this body can use. `speaks`: its answer is text that has a price."""
    tokens = len(body) + CALL_TOKENS
    cap, answers = 0, 1
    for name, value in _every(fields):
        if name in CAPS and not isinstance(value, (dict, list)):
            cap = max(cap, _whole(value, name))
        elif name in ANSWERS and isinstance(value, int) and not isinstance(value, bool):
            answers = max(answers, min(value, 1024))
        elif name in _PICTURES:
            tokens += IMAGE_TOKENS
        elif name in _FILES:
            tokens += FILE_TOKENS
        elif name in _INLINE and isinstance(value, dict):
            tokens += _inline(value)
    plain = (
        text_only(body) and b'"IMAGE"' not in body and b'"AUDIO"' not in body
    )  # what Gemini may be asked to answer with
    return Ask(
        model=model,
        stream=stream,
        speaks=speaks,
        most=usage(tokens, cap * answers if speaks else 0, audio_input=0 if plain else tokens),
        likely=usage(len(body) // BYTES_PER_TOKEN),
    )


def _every(value: Any) -> Iterator[tuple[str, Any]]:
    """Every name in a JSON value, with what stands behind it. What a schema or a tool's argument calls so counts as well: that holds
    more than is needed, never less."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one.items()
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _whole(value: Any, name: str) -> int:
    """Protobuf's JSON also takes a number as a text, and one with a fraction of zero."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}(\.0+)?", value):
        value = float(value)
    if value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0  # a schema's word, or what the upstream refuses
    if not 0 <= value <= MAX_TOKENS:
        raise errors.BadRequest(f"Invalid '{name}': no answer has {value} tokens", param=name, code="invalid_value")
    return int(value)


def _inline(value: Mapping[str, Any]) -> int:
    """Gemini's data, Converse's pictures and documents, Anthropic's sources. Sound has more bytes than tokens; a picture may have fewer,
    and so may the pages of a document."""
    kind = str(value.get("mimeType") or value.get("mime_type") or value.get("media_type") or value.get("format") or "")
    if kind.startswith("audio/"):
        return 0
    if kind.startswith("image/") or kind in _FORMATS:
        return IMAGE_TOKENS - _size(value)
    return FILE_TOKENS if kind or "source" in value else 0


def _size(value: Mapping[str, Any]) -> int:
    """Of what is spelled out in base64, and is no text."""
    source = value.get("source")
    inner = source if isinstance(source, dict) else value
    data = inner.get("data") or inner.get("bytes")
    return len(data) if isinstance(data, str) else 0
