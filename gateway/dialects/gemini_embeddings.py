"""OpenAI's embeddings over `batchEmbedContents`, which is asked for one text as for many."""

import base64
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway import errors, wire
from gateway.bodies import NULL
from gateway.catalog import ROLES, Role
from gateway.dialect import Outgoing
from gateway.dialects.gemini_faults import failed
from gateway.dialects.gemini_request import resource
from gateway.dialects.gemini_wire import BatchEmbedContentsRequest, Content, EmbedContentRequest, Part
from gateway.usage import from_gemini
from gateway.usage_reports import GeminiUsage
from gateway.used import Usage
from gateway.wire import present

BYTES_PER_TOKEN: Final = 4
# Gemini's `taskType` for a role; `classification` and `clustering` are the same word in `input_type`.
TASKS: Final[Mapping[Role, str]] = MappingProxyType({"query": "RETRIEVAL_QUERY", "passage": "RETRIEVAL_DOCUMENT"})


class _Asked(msgspec.Struct, gc=False):
    """What of a request matters. Lists of token ids are another vocabulary's."""

    input: str | list[str]
    model: str = ""
    dimensions: int | None = None
    input_type: str | None = None
    encoding_format: str | None = None


class _Values(msgspec.Struct, gc=False):
    values: list[float]


class _Answer(msgspec.Struct, gc=False, rename="camel"):
    embeddings: list[_Values] | None = None
    usage_metadata: GeminiUsage | None = None
    error: msgspec.Raw = NULL


class _Embedding(msgspec.Struct, frozen=True):
    object: str
    index: int
    embedding: list[float] | str


class _UsageOut(msgspec.Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class _Embeddings(msgspec.Struct, frozen=True):
    object: str
    data: list[_Embedding]
    model: str
    usage: _UsageOut


_asked: Final = msgspec.json.Decoder(_Asked)
_answer: Final = msgspec.json.Decoder(_Answer)
_encode: Final = msgspec.json.Encoder().encode


def embed_request(body: bytes, model: str) -> Outgoing:
    """Raises BadRequest."""
    asked = wire.parse(_asked, body)
    if asked.encoding_format not in {None, "float", "base64"}:
        raise errors.BadRequest(
            "'encoding_format' is 'float' or 'base64'", param="encoding_format", code="invalid_value"
        )
    path = resource(model)
    task = None if asked.input_type is None else _task(asked.input_type)
    requests = [EmbedContentRequest(path, Content([Part(text=text)]), asked.dimensions, task) for text in _texts(asked)]
    return Outgoing(f"/{path}:batchEmbedContents", _encode(BatchEmbedContentsRequest(requests)))


def _task(input_type: str) -> str:
    role = ROLES.get(input_type)
    return input_type.upper() if role is None else TASKS[role]


def embeddings(body: bytes, model: str, request: bytes) -> tuple[bytes, Usage | None]:
    """The vectors in the encoding that was asked for. Most models report no usage: the client is told what the texts' lengths suggest."""
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.UpstreamError(f"The upstream's answer is not the one it should be: {error}") from None
    if present(answer.error):
        raise failed(body)
    asked = wire.parse(_asked, request)
    texts = _texts(asked)
    if answer.embeddings is None or len(answer.embeddings) != len(texts):
        raise errors.UpstreamError("The upstream's answer does not have one embedding for each input")
    packed = asked.encoding_format == "base64"
    data = [
        _Embedding("embedding", index, _packed(one.values) if packed else one.values)
        for index, one in enumerate(answer.embeddings)
    ]
    reported = answer.usage_metadata
    used = None if reported is None or not reported.prompt_token_count else from_gemini(reported)
    tokens = used.input if used is not None else sum(-(-len(text.encode()) // BYTES_PER_TOKEN) for text in texts)
    return _encode(_Embeddings("list", data, model, _UsageOut(tokens, tokens))), used


def _texts(asked: _Asked) -> list[str]:
    return [asked.input] if isinstance(asked.input, str) else asked.input


def _packed(values: list[float]) -> str:
    """Little-endian 32-bit floats in base64, as OpenAI's clients ask for them by default."""
    try:
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    except OverflowError:
        raise errors.UpstreamError("The upstream's answer has a number that is no 32-bit float") from None
