"""OpenAI's `/v1/embeddings` on top of the engine: parse the body, embed, render the answer."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from embedding.cl100k import Cl100k
from embedding.engine import Embedded, Engine
from embedding.errors import InvalidInput, RequestTooLarge

MAX_INPUTS = 2048

_RENDERED_INLINE = 16  # vectors; more are rendered in a thread (a vector as decimal numbers takes about 30 µs)


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """The body. Fields that OpenAI defines and that change nothing here (`user`) are accepted."""

    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of the 200, and what is billed and reported beside it."""

    body: bytes
    prompt_tokens: int
    truncated: int


async def answer(engine: Engine, body: bytes, model: str, tokens: Cl100k, tenant: str | None = None) -> Answer:
    """The whole endpoint. `model` is the name that the client used, `tenant` as in `Engine.embed`. Raises `EmbeddingError`."""
    request = parse(body)
    texts = await _texts(request.input, tokens)
    embedded = await engine.embed(texts, dimensions=request.dimensions, tenant=tenant)
    encoding = request.encoding_format or "float"
    if len(texts) <= _RENDERED_INLINE:
        rendered = render(embedded, model, encoding)
    else:
        rendered = await asyncio.to_thread(render, embedded, model, encoding)
    return Answer(rendered, embedded.prompt_tokens, embedded.truncated)


def parse(body: bytes) -> EmbeddingRequest:
    """The checked request: 1 to 2,048 inputs of one kind, none of them empty."""
    try:
        request = msgspec.json.decode(body, type=EmbeddingRequest)
    except msgspec.ValidationError as error:
        path = re.search(r"`\$\.(\w+)", str(error)) or re.search(r"field `(\w+)`", str(error))
        raise InvalidInput(f"{error}.", param=path and path.group(1)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    _check(request.input)
    return request


def render(embedded: Embedded, model: str, encoding: Literal["float", "base64"]) -> bytes:
    """The response body. Base64 holds little-endian float32, which is what the official clients ask for."""
    usage: dict[str, int] = {"prompt_tokens": embedded.prompt_tokens, "total_tokens": embedded.prompt_tokens}
    if embedded.truncated:
        usage["truncated_inputs"] = embedded.truncated  # clients ignore a field that they do not know
    encoder = msgspec.json.Encoder()
    vectors = embedded.vectors.astype("<f4", copy=False)
    data = [
        # Encoded one by one: between two vectors the interpreter may serve other requests.
        msgspec.Raw(encoder.encode({"object": "embedding", "index": index, "embedding": value}))
        for index, value in enumerate(
            (base64.b64encode(row).decode("ascii") if encoding == "base64" else row.tolist()) for row in vectors
        )
    ]
    return encoder.encode({"object": "list", "data": data, "model": model, "usage": usage})


def _check(given: str | list[str | int | list[int]]) -> None:
    if isinstance(given, str):
        given = [given]
    if not given:
        raise InvalidInput("`input` must not be empty.", param="input")
    kinds = {type(item) for item in given}
    if len(kinds) > 1:
        raise InvalidInput(
            "`input` must be a string, strings, token ids or lists of token ids, not a mix.", param="input"
        )
    if kinds == {int}:
        return
    if len(given) > MAX_INPUTS:
        raise RequestTooLarge(
            f"`input` has {len(given)} items; {MAX_INPUTS} is the maximum.", param="input", code="too_many_inputs"
        )
    for index, item in enumerate(given):
        if not item:
            raise InvalidInput(f"`input[{index}]` must not be empty.", param="input")


async def _texts(given: str | list[str | int | list[int]], tokens: Cl100k) -> Sequence[str]:
    """Texts as they are; token ids of cl100k_base decoded, in a thread, as the table is read on first use."""
    if isinstance(given, str):
        return [given]
    texts = [item for item in given if isinstance(item, str)]
    if texts:
        return texts
    single = [item for item in given if isinstance(item, int)]
    lists = [single] if single else [item for item in given if isinstance(item, list)]
    return await asyncio.to_thread(lambda: [tokens.decode(ids) for ids in lists])
